"""What happened at relays and buttons and was not told yet: numbered, bounded, kept over a restart.

Pure: time comes in, and what has to be kept goes out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from agent.model import Reading, Scalar

MAX_EVENTS = 256


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened: when (boot time; None: in an earlier boot), flat facts, names."""

    number: int
    at_s: float | None
    values: dict[str, Any]
    names: dict[str, str]


class News:
    """Events in their order, until somebody has taken them."""

    def __init__(
        self,
        now_s: float,
        *,
        number: int = 0,
        lost: int = 0,
        events: Iterable[Event] = (),
        same_boot: bool = True,
    ) -> None:
        """`number`, `lost` and `events` are those of an earlier process. Numbers never come again,
        even where nothing was kept: who has heard of event 7 must not take the next 7 for heard."""
        self.number = max(number, int(now_s * 1000))
        self.lost = lost
        """How many were dropped because nobody came for them."""
        kept = events if same_boot else (replace(event, at_s=None) for event in events)
        self._events = deque(kept, maxlen=MAX_EVENTS)

    @property
    def events(self) -> tuple[Event, ...]:
        """What nobody has taken yet."""
        return tuple(self._events)

    def tell(
        self, event: str, device: str, facts: Mapping[str, Scalar], by: str, now_s: float
    ) -> None:
        """Something happened; `by` asked for it, or nobody did."""
        self.number += 1
        self.lost += len(self._events) == MAX_EVENTS
        names = {"device": device, "by": by} if by else {"device": device}
        self._events.append(Event(self.number, now_s, {"event": event, **facts}, names))

    def taken(self, number: int) -> bool:
        """Somebody has taken all up to a number; True where that is news. A number beyond the last
        one is none of ours."""
        before = len(self._events)
        while self._events and self._events[0].number <= number <= self.number:
            self._events.popleft()
            self.lost = 0
        return len(self._events) != before

    def oldest(self) -> Reading | None:
        """The oldest event, None where there is none."""
        if not self._events:
            return None
        event = self._events[0]
        values: dict[str, Scalar] = {"number": event.number, **event.values}
        if event.at_s is not None:
            values["at_s"] = round(event.at_s, 3)
        if self.lost:
            values["lost"] = self.lost
        return Reading(values, identity=event.names)
