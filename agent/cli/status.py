"""`hearing-room status`: what the running agent knows, as a table or as JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from agent import control, words
from agent.cli import output
from agent.model import Level, State

_STATE_SIGNS = {"ready": "+", "at_risk": "!", "not_ready": "X", "unknown": "?"}
_STATE_STYLES = {
    "ready": "bold green",
    "at_risk": "bold yellow",
    "not_ready": "bold white on red",
    "unknown": "bold magenta",
}


def current(runtime: Path) -> dict[str, Any]:
    """The status, honest about age: a dead agent, another boot or an answer that has run out
    make the room `unknown`, whatever the file says. `stale` tells why."""
    status = control.read_status(runtime / "status.json")
    if status is None:
        return {"stale": "no_agent", "readiness": {"state": "unknown"}, "devices": []}
    if output.agent_alive(status):
        return status
    readiness = {**(status.get("readiness") or {}), "state": "unknown"}
    return {**status, "stale": "agent_offline", "readiness": readiness}


def run(*, as_json: bool, watch: bool, language: str | None) -> int:
    """Print the status once, or until Ctrl-C; exit code of the readiness."""
    runtime = control.runtime_to_ask()
    status = current(runtime)
    if as_json:
        print(json.dumps(status, ensure_ascii=False, separators=(",", ":")))
    else:
        console = Console()
        console.print(render(status, _language(status, language)))
        if watch:
            status = _follow(runtime, console, language)
    return output.exit_code(State(status["readiness"]["state"]))


def _language(status: Mapping[str, Any], asked: str | None) -> str:
    return output.language(asked, (status.get("room") or {}).get("language"))


def _follow(runtime: Path, console: Console, language: str | None) -> dict[str, Any]:
    status = current(runtime)
    if not console.is_terminal:
        print("hearing-room status: --watch needs a terminal", file=sys.stderr)
        return status
    try:
        with Live(console=console, auto_refresh=False, screen=True) as live:
            while True:
                status = current(runtime)
                live.update(render(status, _language(status, language)), refresh=True)
                time.sleep(1)
    except KeyboardInterrupt:
        return status


def render(status: Mapping[str, Any], language: str) -> RenderableType:
    """The status for a person: the room's answer first, then the devices, then what to do."""
    terms, texts = words.terms(language), words.load(language)
    readiness = status.get("readiness") or {}
    state = readiness.get("state", "unknown")
    parts: list[RenderableType] = [_headline(status, terms, state)]
    if stale := status.get("stale"):
        parts.append(Text(terms[f"table.{stale}"], style="magenta"))
        if stale == "no_agent":
            parts.append(Text(terms["table.no_agent_hint"]))
    room = status.get("room") or {}
    if room.get("commissioned") is False:
        parts.append(_waiting(room.get("trouble"), terms))
    if hearing := readiness.get("hearing"):
        starts, ends = (_local(hearing[k]) for k in ("starts", "ends"))
        parts.append(Text(f"{terms['table.next_hearing']}: {hearing['id']}, {starts} - {ends}"))
    devices = status.get("devices") or []
    if devices:
        parts.append(_devices(devices, terms, texts, bool(stale)))
    parts += [_reason(r, terms, texts) for r in readiness.get("reasons") or []]
    if baseline := status.get("baseline"):
        parts.append(Text(_baseline(baseline, terms), style="dim"))
    if broker := status.get("broker"):
        key = "broker_connected" if broker["connected"] else "broker_lost"
        parts.append(Text(f"{terms[f'table.{key}']} ({broker['host']})", style="dim"))
    return Group(*parts)


def _headline(status: Mapping[str, Any], terms: Mapping[str, str], state: str) -> Text:
    readiness, about = status.get("readiness") or {}, status.get("about") or {}
    line = Text(f" [{_STATE_SIGNS[state]}] {terms[f'state.{state}'].upper()} ")
    line.stylize(_STATE_STYLES[state])
    if name := about.get("name"):
        line.append(f"  {name}", style="bold")
    if mode := readiness.get("mode"):
        line.append(f"  ({terms[f'mode.{mode}']})")
    if virtual := readiness.get("virtual"):
        line.append(f"  {terms['table.virtual']}: {virtual}", style="cyan")
    return line


def _waiting(trouble: str | None, terms: Mapping[str, str]) -> RenderableType:
    """A box without a room: what is missing, and the command that brings it."""
    text = Text(terms["table.config_wrong" if trouble else "table.not_commissioned"], "magenta")
    if trouble:
        text.append(f"\n  {trouble}", style="default")
    text.append(
        f"\n{terms['table.config_wrong_hint' if trouble else 'table.not_commissioned_hint']}"
    )
    return text


def _devices(
    devices: list[dict[str, Any]],
    terms: Mapping[str, str],
    texts: Mapping[str, words.Words],
    stale: bool,
) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for key in ("level", "device", "what", "since"):
        table.add_column(terms[f"table.{key}"], header_style="dim")
    for device in devices:
        level = Level.UNKNOWN if stale else Level(device["level"])
        found = device["findings"]
        titles = [texts[f["code"]].title_for(device["name"]) for f in found if f["code"] in texts]
        since = next((_local(f["since"]) for f in found if "since" in f), "")
        numbers = " ".join(f"{k}={v}" for k, v in list(device["readings"].items())[:4])
        sign = Text(
            f"[{output.SIGNS[level]}] {terms[f'level.{level}']}", style=output.STYLES[level]
        )
        table.add_row(sign, device["name"], "\n".join(titles) or Text(numbers, style="dim"), since)
    return table


def _reason(
    reason: Mapping[str, Any], terms: Mapping[str, str], texts: Mapping[str, words.Words]
) -> Text:
    level, meaning = Level(reason["level"]), texts.get(reason["code"])
    line = Text(f"\n[{output.SIGNS[level]}] {reason['title']}", style=output.STYLES[level])
    line.append(f"  ({reason['code']}; {terms['who.' + reason['fix']]})", style="dim")
    if meaning:
        line.append(f"\n    {meaning.cause}", style="default")
        for number, step in enumerate(meaning.steps, 1):
            line.append(f"\n    {number}. {step}", style="default")
    return line


def _baseline(baseline: Mapping[str, Mapping[str, Any]], terms: Mapping[str, str]) -> str:
    """When each device was last said to be good, and by whom; what was recorded at once is one."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name, entry in baseline.items():
        groups.setdefault((entry["at"], entry["by"]), []).append(name)
    return "\n".join(
        f"{terms['table.baseline']} {_local(at)} ({terms['table.by']} {by}): {', '.join(names)}"
        for (at, by), names in sorted(groups.items())
    )


def _local(utc: str) -> str:
    at = datetime.fromisoformat(utc.replace("Z", "+00:00")).astimezone()
    today = datetime.now(UTC).astimezone().date()
    return at.strftime("%H:%M:%S" if at.date() == today else "%d/%m/%Y %H:%M")
