"""The loop test that a room makes by itself: once before a hearing, early in the hour before."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from agent.judge import schedule
from agent.lanes.looptest import LOOP, tells
from agent.lanes.watch import BY_AGENT, Watched
from agent.model import Hearing, Moment

LAST_S = 900.0
"""T-15: from here on the answer is final, and people are in the room."""
AGAIN_S = 300.0
"""After a test that could not be made: a program had a device, or nobody could listen."""


class Loops:
    """Which loudspeakers are due. Time and schedule are handed in.

    A test counts from when it begins, also beyond a restart (`keep` is handed what a later agent
    has to know): an agent that starts again and again must not sound again and again.
    """

    def __init__(
        self, watched: Mapping[str, Watched], keep: Callable[[bytes], None] = lambda _: None
    ) -> None:
        self._watched = watched
        self._keep = keep
        self._hearing = ""
        self._begun: set[str] = set()
        self._not_before_s: dict[str, float] = {}

    def due(self, hearings: Sequence[Hearing], now: Moment) -> list[Coroutine[Any, Any, None]]:
        """The tests to make now: of each loudspeaker that may, until one was made before this
        hearing. Between T-60 and T-15 only, and never twice within `AGAIN_S`."""
        hearing = schedule.current_hearing(hearings, now)
        if hearing is None:
            return []
        left_s = hearing.starts_s - now.utc_s
        if not LAST_S < left_s <= schedule.PREPARE_S:
            return []
        if hearing.id != self._hearing:
            self._hearing, self._begun = hearing.id, set()
        names = [
            name
            for name, watched in self._watched.items()
            if watched.can(LOOP)
            and name not in self._begun
            and now.up_s >= self._not_before_s.get(name, now.up_s)
        ]
        for name in names:
            self._begun.add(name)
            self._not_before_s[name] = now.up_s + AGAIN_S
        if names:
            self._keep(self.save())
        return [self._make(self._watched[name], hearing.id) for name in names]

    async def _make(self, watched: Watched, hearing: str) -> None:
        reading = await watched.ask_now(BY_AGENT, LOOP)
        if hearing == self._hearing and not tells(reading):  # it was not made after all
            self._begun.discard(watched.device.id)
            self._keep(self.save())

    def save(self) -> bytes:
        """What a later agent has to know."""
        return json.dumps({"hearing": self._hearing, "begun": sorted(self._begun)}).encode()

    def restore(self, saved: bytes | None) -> None:
        """What an earlier agent has kept."""
        kept = json.loads(saved or b"{}")
        self._hearing, self._begun = str(kept.get("hearing", "")), set(kept.get("begun", ()))
