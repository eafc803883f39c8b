"""`hearing-room check`: measure once and say what is wrong."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent import control, kinds, words
from agent.cli import output, sources
from agent.clock import up_s
from agent.judge.own import REQUIRED_LAYERS
from agent.lanes.lane import Lane, by_hand
from agent.model import AgentError, Fault, Finding, Level, Reading, worst

WHOLE_DEADLINE_S = 120.0
"""A file is read from end to end: a long recording on a slow box takes its time."""
LOOKING = ("idle", "preparing")

Result = dict[str, Any]


def run(
    arguments: Sequence[str], *, as_json: bool, language: str | None, loop: bool = False
) -> int:
    """Check devices of the running agent and sources; the exit code is that of the worst.

    An argument that describes nothing has its line too, `unknown`; 64 where all are like that.
    With `loop` loudspeakers make their short sound: only the running agent sees that none listens.
    """
    texts = words.load(output.language(language))
    asked = [sources.read(argument) for argument in arguments]
    wrong = [item for item in asked if isinstance(item, sources.Unusable)]
    useless = bool(asked) and len(wrong) == len(asked)
    for item in wrong:
        print(f"hearing-room check: {item.why}", file=sys.stderr)
    if useless and not as_json:
        return output.USAGE
    levels: list[Level] = []
    if loop and not all(isinstance(item, str) for item in asked):
        print("--loop asks the running agent: name its loudspeaker, not a source", file=sys.stderr)
        return output.USAGE
    for result in _results(asked, loop=loop):
        levels.append(Level(result["level"]))
        if as_json:
            print(json.dumps(result, ensure_ascii=False, separators=(",", ":")), flush=True)
        else:
            print(_text(result, texts), flush=True)
    if useless:
        return output.USAGE
    return output.exit_code(worst(levels) if levels else Level.UNKNOWN)


Asked = sources.Source | sources.Unusable | str


def _results(asked: Sequence[Asked], *, loop: bool) -> Iterator[Result]:
    if not asked:
        yield from _from_agent(None, loop=loop)
        return
    session = _agent_mode() not in (None, *LOOKING)
    runner = asyncio.Runner()
    lanes: dict[str, Lane] = {}
    try:
        for number, item in enumerate(asked, 1):
            output.progress(number, len(asked), item if isinstance(item, str) else item.text)
            if isinstance(item, str):
                yield from _from_agent(item, loop=loop)
            elif isinstance(item, sources.Unusable):
                yield _unknown(item.text)
            elif session and not item.whole and _opens(item):
                skipped = Reading(fault=Fault.SKIPPED, why="in_session")
                yield _result(item.text, item, skipped)
            else:
                yield _result(item.text, item, runner.run(_reading(item, lanes)))
    finally:
        output.progress_done()
        runner.run(_close(lanes))
        runner.close()


def _opens(item: sources.Source) -> bool:
    return kinds.has_driver(item.device.kind, item.device.settings)


async def _close(lanes: dict[str, Lane]) -> None:
    await asyncio.gather(*(lane.close() for lane in lanes.values()))


async def _reading(item: sources.Source, lanes: dict[str, Lane]) -> Reading:
    """One reading, whatever goes wrong: the other sources are judged as well."""
    try:
        return await _measure(item, lanes)
    except TimeoutError:
        return Reading(fault=Fault.NO_ANSWER, why="deadline")
    except (AgentError, OSError) as error:
        print(f"hearing-room check: {item.text}: {error}", file=sys.stderr)
        return Reading(fault=Fault.ERROR, why="exception")


async def _measure(item: sources.Source, lanes: dict[str, Lane]) -> Reading:
    """One reading; sources of one variety share one worker."""
    device, settings = item.device, item.device.settings
    passive = Reading()
    part = kinds.passive_of(device.kind, settings, Path("/"))
    if part is not None:
        asked = up_s()
        async with asyncio.timeout(settings.deadline_s + 5):
            passive = await part.read()
        passive = replace(passive, device=device.id, took_s=up_s() - asked)
    if not kinds.has_driver(device.kind, settings) or passive.fault is not None:
        return passive
    variant, ports = (
        kinds.variant_of(device.kind, settings),
        kinds.ports_of(device.kind, settings),
    )
    key = f"{variant}{ports}"
    if key not in lanes:
        lanes[key] = Lane(by_hand(variant, ports), name="check", idle_s=30.0)
    reading = await lanes[key].ask(
        device=device.id,
        kind=device.kind,
        settings=settings.model_dump(mode="json"),
        ask="whole" if item.whole else "look",
        deadline_s=WHOLE_DEADLINE_S if item.whole else settings.deadline_s,
        words=kinds.load(device.kind).WORDS,
    )
    hello = lanes[key].hello
    if hello and (missing := REQUIRED_LAYERS.difference(hello.confined)):
        print(f"worker is not confined by {', '.join(sorted(missing))}", file=sys.stderr)
    return reading


def _result(text: str, item: sources.Source, reading: Reading) -> Result:
    found = kinds.load(item.device.kind).judge(reading, item.device.settings)
    if not found and reading.fault in (Fault.SKIPPED, Fault.QUARANTINED, Fault.ERROR):
        found = [Finding("agent.no_evidence", Level.UNKNOWN)]
    result: Result = {
        "source": text,
        "level": worst(f.level for f in found),
        "findings": [{"code": f.code, "level": f.level, "numbers": dict(f.numbers)} for f in found],
        "readings": dict(reading.values),
    }
    if reading.identity:
        result["identity"] = dict(reading.identity)
    if reading.fault is not None:
        result["fault"] = f"{reading.fault}: {reading.why}" if reading.why else reading.fault
    return result


def _unknown(text: str) -> Result:
    """The line of what could not be judged at all."""
    finding = {"code": "agent.no_evidence", "level": "unknown", "numbers": {}}
    return {"source": text, "level": Level.UNKNOWN, "findings": [finding], "readings": {}}


def _agent_mode() -> str | None:
    """The mode of a running agent, None where none runs."""
    status = control.read_status(control.runtime_to_ask() / "status.json")
    if status is None or not output.agent_alive(status):
        return None
    mode = (status.get("readiness") or {}).get("mode")
    return str(mode) if mode else None


def _from_agent(device: str | None, *, loop: bool) -> Iterator[Result]:
    """Fresh readings from the running agent, of one device or of all."""
    socket = control.runtime_to_ask() / "control.sock"
    args: dict[str, str | bool] = {"device": device} if device else {}
    if loop:
        args["loop"] = True
    try:
        answers = list(control.request(socket, {"command": "check", "args": args}, timeout_s=90))
        answer = answers[-1]
    except (OSError, ConnectionError, RuntimeError) as error:
        print(f"hearing-room check: {error}", file=sys.stderr)
        answer = {"state": "refused", "code": "no_agent"}
    if answer.get("state") != "done":
        reason = answer.get("message") or answer.get("code")
        print(f"hearing-room check: {device or 'all devices'}: {reason}", file=sys.stderr)
        yield _unknown(device or "")
        return
    for name, seen in answer["detail"].items():
        found = [
            {"code": f["code"], "level": f["level"], "numbers": f.get("numbers", {})}
            for f in seen["findings"]
        ]
        yield {
            "source": name,
            "level": seen["level"],
            "findings": found,
            "readings": seen["readings"],
        }


def _text(result: Result, texts: dict[str, words.Words]) -> str:
    """A result for a person: the level in words and signs, never colour alone."""
    lines = [f"{output.SIGNS[Level(result['level'])]} {result['level']:<7} {result['source']}"]
    if identity := result.get("identity"):
        lines.append("    " + " ".join(identity.values()))
    for found in result["findings"]:
        meaning = texts.get(found["code"])
        numbers = " ".join(f"{k}={v}" for k, v in found["numbers"].items())
        title = meaning.title_for(result["source"]) if meaning else found["code"]
        lines.append(f"    {title} ({found['code']}{' ' + numbers if numbers else ''})")
        if meaning:
            lines += [f"      {n}. {step}" for n, step in enumerate(meaning.steps, 1)]
    if not result["findings"]:
        numbers = " ".join(f"{k}={v}" for k, v in list(result["readings"].items())[:8])
        lines.append(f"    {numbers}")
    return "\n".join(lines)
