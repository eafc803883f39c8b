"""The commands that a room carries out: a closed list, checked arguments, one outcome each."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

from agent import kinds
from agent.control import Peer
from agent.judge import readiness
from agent.lanes.watch import Watched
from agent.link import documents
from agent.model import Command, Fault, Finding, Level, Mode, Moment, Reading, Refused

RECORD_S = 2.0
"""How long an answer waits for its record, when the disk hangs."""
LOOKING = (Mode.IDLE, Mode.PREPARING)
"""The modes in which a device may be opened. In recess people are in the room."""
CAPABILITIES = ("check", "report")


class Room(Protocol):
    """What a command needs of the room."""

    mode: Mode
    watched: dict[str, Watched]
    requirements: readiness.Requirements

    def now(self) -> Moment:
        """This instant."""
        ...

    def standing(self) -> dict[str, dict[str, Any]]:
        """The documents as published."""
        ...

    def event(self, type_: str, importance: int, **fields: Any) -> asyncio.Future[int]:
        """Record an event; the future resolves when it is durable."""
        ...


class Commands:
    """Carries out commands, one method each."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._handlers = {"check": self._check, "report": self._report}

    async def carry_out(self, command: Command, peer: Peer) -> dict[str, Any]:
        """The outcome of a command; it is an event, whatever it is."""
        started_s = self._room.now().up_s
        by = (command.by or f"uid:{peer.uid}")[:64]
        try:
            handler = self._handlers.get(command.name)
            if handler is None:
                known = ", ".join(sorted(self._handlers))
                raise Refused("unknown_command", f"commands are {known}")
            effect = await handler(dict(command.args), by)
            outcome: dict[str, Any] = {"state": "done", "code": "ok", "effect": effect}
        except Refused as refusal:
            outcome = {"state": "refused", "code": refusal.code, "message": str(refusal)}
        took_ms = round((self._room.now().up_s - started_s) * 1000)
        facts = {"command": command.name[:40], "code": outcome["code"], "by": by}
        kept = self._room.event(f"command.{outcome['state']}", 1, **facts, took_ms=took_ms)
        # Whoever hears of an outcome may rely on its record, unless the disk hangs.
        await asyncio.wait([kept], timeout=RECORD_S)
        return {**outcome, "took_ms": took_ms}

    async def _check(self, args: dict[str, Any], by: str) -> dict[str, Any]:
        """Fresh readings, of one device or of all. Argument: `device` (id)."""
        wanted = args.pop("device", None)
        _no_more(args)
        watched = self._room.watched
        if wanted is not None and wanted not in watched:
            raise Refused("unknown_device", f"no device {wanted!r} in this room")
        chosen = [w for name, w in watched.items() if wanted in (None, name)]
        if self._room.mode not in LOOKING and any(w.lane for w in chosen):
            message = f"mode is {self._room.mode}: no device is opened, passive readings go on"
            raise Refused(self._room.mode.value, message)
        readings = await asyncio.gather(*(w.ask_now(by) for w in chosen))
        return {w.device.id: self._checked(w, r) for w, r in zip(chosen, readings, strict=True)}

    def _checked(self, watched: Watched, reading: Reading) -> dict[str, Any]:
        device = watched.device
        found = kinds.load(device.kind).judge(reading, device.settings)
        if reading.fault in (Fault.SKIPPED, Fault.QUARANTINED) and not found:
            found = [Finding("agent.no_evidence", Level.UNKNOWN, device=device.id)]
        found = readiness.apply_levels(found, self._room.requirements)
        seen = documents.Seen(device, found, reading, None)
        doc = documents.device(seen, self._room.now(), published_for_s=0)
        return {key: doc[key] for key in ("level", "findings", "readings", "name", "kind")}

    async def _report(self, args: dict[str, Any], by: str) -> dict[str, Any]:
        """Everything that stands, as published."""
        _no_more(args)
        return self._room.standing()


def _no_more(args: Mapping[str, Any]) -> None:
    if args:
        raise Refused("unknown_argument", f"unknown argument {sorted(args)[0]!r}")
