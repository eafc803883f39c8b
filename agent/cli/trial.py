"""`hearing-room try`: here and now, with a broker of its own, and nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from agent import settings, simulator, words
from agent.cli import adopt, output
from agent.cli import status as showing
from agent.clock import SystemClock
from agent.control import Folders
from agent.link import embedded
from agent.model import ConfigError
from agent.room import RoomAgent

SITE, ROOM = "try", "here"
PERIOD_S = 10.0
"""A person watches: the looks come faster than in a room that is left alone."""


def run(*, seconds: float | None, language: str | None, only_virtual: bool) -> int:
    """Try the agent until Ctrl-C, or for some seconds; 0 when it ran, 3 when it failed."""
    chosen = output.language(language)
    with tempfile.TemporaryDirectory(prefix="hearing-room-try-") as name:
        folder = Path(name)
        tables = {} if only_virtual else adopt.discover()
        tables.pop("relay", None)  # what they switch is nobody's to try out
        real = sum(len(devices) for devices in tables.values())
        _add_virtual(folder / "virtual", tables, words.terms(chosen))
        return asyncio.run(_serve(folder, tables, real, chosen, seconds))


def _add_virtual(folder: Path, tables: adopt.Tables, terms: Mapping[str, str]) -> None:
    """The virtual room fills in for every kind that this machine does not have."""
    if sys.stderr.isatty():
        print("drawing the virtual room ...", file=sys.stderr)
    made = subprocess.run(
        [sys.executable, "-m", "agent.simulator", str(folder)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if made.returncode != 0:
        raise ConfigError(f"the virtual room could not be made: {made.stderr.strip()[-400:]}")
    stand_ins: dict[str, dict[str, Any]] = {
        "camera": {"source": f"file:{folder / 'camera.avi'}"},
        "microphone": {"source": f"file:{folder / 'microphone.wav'}"},
        "display": {"connector": simulator.CONNECTOR},
    }
    for kind, table in stand_ins.items():
        if not tables.get(kind):
            name = f"{adopt.SHORT[kind]}-virtual"
            called = f"{terms[f'kind.{kind}']} ({terms['table.virtual']})"
            made_up = {"name": called, "virtual": True, "period_s": PERIOD_S}
            tables[kind] = {name: {**made_up, **table}}


async def _serve(
    folder: Path, tables: adopt.Tables, real: int, language: str, seconds: float | None
) -> int:
    broker = await embedded.start(folder / "broker")
    try:
        lines = [
            f"language = {json.dumps(language)}",
            "",
            "[broker]",
            'host = "127.0.0.1"',
            f"port = {broker.port}",
            "tls = false",
        ]
        room = settings.parse(adopt.text(SITE, ROOM, tables, lines), folder / "room.toml")
        folders = Folders(folder / "state", folder / "run")
        folders.state.mkdir()
        folders.runtime.mkdir()
        agent = RoomAgent(
            room, folders, SystemClock().now, virtual_root=folder / "virtual" / "root"
        )
        return await _watch(agent, broker.port, real, language, seconds)
    finally:
        await broker.stop()


async def _watch(
    agent: RoomAgent, port: int, real: int, language: str, seconds: float | None
) -> int:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, agent.stop)
    if seconds is not None:
        loop.call_later(seconds, agent.stop)
    terms = words.terms(language)
    footer = Text(f"\n{terms['table.made_of']}: {real}\n", style="dim")
    footer.append(f"{terms['table.watch_with']}:\n", style="dim")
    footer.append(f"  mosquitto_sub -h 127.0.0.1 -p {port} -v -t 'hearing/v1/{SITE}/{ROOM}/#'\n")
    footer.append(terms["table.stop_with"], style="dim")
    console = Console()
    drawing = loop.create_task(_draw(agent, console, language, footer))
    try:
        await agent.run()
    finally:
        drawing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await drawing
    return output.UNKNOWN if agent.why == "failed" else 0


async def _draw(agent: RoomAgent, console: Console, language: str, footer: Text) -> None:
    if console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            while True:
                live.update(Group(showing.render(agent.status(), language), footer), refresh=True)
                await asyncio.sleep(1)
    console.print(footer)
    shown = None
    while True:  # a pipe gets the table again when the room's answer changes
        status = agent.status()
        readiness = status.get("readiness") or {}
        key = (readiness.get("state"), [r["code"] for r in readiness.get("reasons", [])])
        if readiness and key != shown:
            shown = key
            console.print(showing.render(status, language))
            sys.stdout.flush()
        await asyncio.sleep(0.5)
