"""What happened at relays and buttons: every act an event, every press of the button an effect."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Protocol

from agent.lanes.watch import Watched
from agent.model import Mode

log = logging.getLogger("agent.room")

BY_BUTTON = "button"
MAINTENANCE_MIN = 60.0
_KEPT = 1


class Room(Protocol):
    """What this needs of the room."""

    mode: Mode
    watched: dict[str, Watched]

    def event(self, type_: str, importance: int, **fields: Any) -> asyncio.Future[int]:
        """Record an event."""
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
        self._asked: dict[str, tuple[str, str]] = {}
        self._asker: tuple[str, str] = ("", "")

    def asked(self, relay: str, by: str, reason: str) -> None:
        """Somebody asks for a relay to be switched; what hands then tells of it is theirs."""
        self._asked[relay] = self._asker = (by, reason)

    def happened(self, event: Mapping[str, Any]) -> None:
        """One event of hands."""
        if lost := event.get("lost"):
            log.warning("%d acts of relays were not told: the agent was away too long", lost)
            self._room.event("relay.untold", _KEPT, count=lost)
        device = str(event.get("device", ""))
        kind = event["event"]
        if kind == "pressed":
            self._pressed(device, str(event["meaning"]))
        else:
            self._moved(kind, device, event)
        if (watched := self._room.watched.get(device)) is not None:
            watched.hurry()

    def _moved(self, kind: str, relay: str, event: Mapping[str, Any]) -> None:
        by, reason = "", ""
        if kind == "dropped" or event.get("cause") in ("command", "pulse", "pulse_end"):
            by, reason = self._asked.get(relay, ("", ""))
        elif event.get("cause") == "interlock":
            by, reason = self._asker
        fields: dict[str, Any] = {"device": relay, "by": by or None, "reason": reason or None}
        if kind == "switched":
            fields |= {"before": not event["on"], "after": event["on"], "cause": event["cause"]}
        elif kind == "failed":
            fields |= {"wanted": event["on"], "errno": event["errno"]}
        else:
            fields["code"] = event.get("code")
        self._room.event(f"relay.{kind}", _KEPT, **fields)

    def _pressed(self, button: str, meaning: str) -> None:
        room = self._room
        room.event("button.pressed", _KEPT, device=button, meaning=meaning)
        if meaning == "short":
            room.report()
        elif meaning == "check":
            for watched in room.watched.values():
                watched.hurry(BY_BUTTON)
        elif meaning == "maintenance" and room.mode is not Mode.IN_SESSION:
            begins = room.mode is not Mode.MAINTENANCE
            mode = Mode.MAINTENANCE if begins else None
            room.set_mode(mode, MAINTENANCE_MIN, BY_BUTTON)
