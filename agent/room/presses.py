"""What happened at relays and buttons: every act an event, every press of the button an effect."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Protocol

from agent.lanes.watch import Watched
from agent.model import Mode, Moment

log = logging.getLogger("agent.room")

BY_BUTTON = "button"
ASKED_MAX = 64
"""So many wishes are remembered: a pulse of a minute may end long after other wishes."""
MAINTENANCE_MIN = 60.0
_KEPT = 1


class Room(Protocol):
    """What this needs of the room."""

    mode: Mode
    watched: dict[str, Watched]

    def now(self) -> Moment:
        """This instant."""
        ...

    def event(self, type_: str, importance: int, **fields: Any) -> asyncio.Future[int]:
        """Record an event."""
        ...

    def act(self, type_: str, number: int, **fields: Any) -> asyncio.Future[int]:
        """Record what hands tells, and in the same transaction that it was heard."""
        ...

    def set_mode(self, mode: Mode | None, minutes: float, by: str) -> None:
        """A person says what the room is doing."""
        ...

    def report(self) -> None:
        """Say everything again."""
        ...


class Presses:
    """Takes the news that hands tells."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._asked: OrderedDict[str, tuple[str, str]] = OrderedDict()
        self._run = secrets.token_hex(2)
        self._number = 0

    def asked(self, by: str, reason: str) -> str:
        """Somebody asks for a relay to be switched. Returns the name under which hands shall do it:
        it comes back with every act that follows from it, and says whose it is and why."""
        self._number += 1
        plain = "".join(c if c.isascii() and c.isprintable() else "?" for c in by)
        name = f"{plain[:44]} #{self._run}-{self._number}"
        self._asked[name] = (by, reason)
        while len(self._asked) > ASKED_MAX:
            self._asked.popitem(last=False)
        return name

    def happened(self, event: Mapping[str, Any]) -> asyncio.Future[int]:
        """One event of hands. Resolves when the record has it."""
        if lost := event.get("lost"):
            log.warning("%d acts of relays were not told: the agent was away too long", lost)
            self._room.event("relay.untold", _KEPT, count=lost)
        device = str(event.get("device", ""))
        kind = event["event"]
        if kind == "pressed":
            kept = self._pressed(device, event)
        else:
            kept = self._moved(kind, device, event)
        if (watched := self._room.watched.get(device)) is not None:
            watched.hurry()
        return kept

    def _moved(self, kind: str, relay: str, event: Mapping[str, Any]) -> asyncio.Future[int]:
        name = str(event.get("by", ""))
        # A wish of before a restart of the agent is known by its name alone.
        by, reason = self._asked.get(name, (name.rpartition(" #")[0], ""))
        fields: dict[str, Any] = {"device": relay, "by": by or None, "reason": reason or None}
        if kind == "switched":
            fields |= {"before": not event["on"], "after": event["on"], "cause": event["cause"]}
        elif kind == "failed":
            fields |= {"wanted": event["on"], "errno": event["errno"]}
        else:
            fields["code"] = event.get("code")
        return self._room.act(f"relay.{kind}", event["number"], **fields, since=self._when(event))

    def _when(self, event: Mapping[str, Any]) -> str | None:
        """When it happened, which may be long ago: nobody was there to hear of it. None where it
        was before the box came up this time."""
        at_s = event.get("at_s")
        now = self._room.now()
        return None if at_s is None else now.after(min(0.0, float(at_s) - now.up_s)).iso

    def _pressed(self, button: str, event: Mapping[str, Any]) -> asyncio.Future[int]:
        room, meaning = self._room, str(event["meaning"])
        facts = {"device": button, "meaning": meaning, "since": self._when(event)}
        kept = room.act("button.pressed", event["number"], **facts)
        if meaning == "short":
            room.report()
        elif meaning == "check":
            for watched in room.watched.values():
                watched.hurry(BY_BUTTON)
        elif meaning == "maintenance" and room.mode is not Mode.IN_SESSION:
            begins = room.mode is not Mode.MAINTENANCE
            mode = Mode.MAINTENANCE if begins else None
            room.set_mode(mode, MAINTENANCE_MIN, BY_BUTTON)
        return kept
