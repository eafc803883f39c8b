"""The agent's side of hands: the word that keeps the lights honest, and what hands has to tell."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Protocol

from agent import settings
from agent.control import Folders
from agent.hands import plan
from agent.hands.layout import Layout
from agent.hands.terms import WORDS
from agent.lanes.hands import ByHand, Connect, HandsLane
from agent.model import Device, Moment, Reading

log = logging.getLogger("agent.hands")

WORD_S = 4.0
"""How often the agent says that it is alive; after 10 s without a word the lights say so."""
RELOAD_S = 60.0
"""How long hands may take to read room.toml before it is told to once more."""
RECORD_S = 5.0
"""So long the next news waits for the record of the last: with the word in between (`WORD_S`) less
than the time after which the lights say that nobody watches."""
STOP_S = 3.0
_ARGUMENT = {"relay": "relay", "indicator": "light", "button": "button"}


class Room(Protocol):
    """What this needs of the room."""

    def now(self) -> Moment:
        """This instant."""
        ...

    def alive(self, now: Moment) -> bool:
        """Whether the agent is alive on evidence: only then it says so."""
        ...

    def word(self, now: Moment) -> dict[str, Any]:
        """What the lights have to say, as `agent.hands.lights.Word`."""
        ...

    def happened(self, event: Mapping[str, Any]) -> asyncio.Future[int]:
        """Something happened at a relay or a button. Resolves when the record has it."""
        ...


class Hands:
    """Talks to hands for as long as the agent lives. Two lines: one for questions, and one that
    waits for news, so that a press of the button need not wait for a question."""

    def __init__(self, room: Room, layout: Layout, connect: Connect, child: ByHand | None) -> None:
        """`child` is the one that was started by hand and ends with a clean stop."""
        self.layout = layout
        self._room = room
        self._child = child
        self._lane = HandsLane(connect)
        self._news = HandsLane(connect)
        self.state_errno = 0
        """Why hands cannot keep the states of its relays, 0 while it can."""
        self._after = 0
        self._said: dict[str, Any] = {}
        self._saying = False
        self._reload_s = float("-inf")
        self._fresh = False

    def resume(self, after: int) -> None:
        """Go on after the news with this number: an agent before this one has recorded it."""
        self._after = after

    @property
    def lost_s(self) -> float | None:
        """Since when hands has not answered (boot time), None while it does. The line for news
        notices it within seconds; the other one only when somebody asks."""
        lost = [lane.lost_s for lane in (self._lane, self._news) if lane.lost_s is not None]
        return min(lost, default=None)

    async def ask(self, kind: str, ask: str, **args: Any) -> Reading:
        """One question about a relay, light or button."""
        return await self._lane.ask(kind, ask, args, words=WORDS)

    def part(self, device: Device, words: frozenset[str]) -> HandsPart:
        """The reading of one device, as a kind's passive part."""
        return HandsPart(self._lane, device, WORDS | words)

    async def run(self) -> None:
        """Say the word, hear the news, for ever."""
        while True:
            args = {"after": self._after, "within_s": WORD_S}
            before = self._news.lost_s
            news = await self._news.ask("hands", "wait", args, words=WORDS, deadline_s=WORD_S + 2)
            if news.fault is not None:
                await asyncio.sleep(1.0)
                continue
            if before is not None:  # another process, or the same after a while
                self._fresh, self._said = True, {}
            if "event" in news.values:
                self._after = int(news.values["number"])
                await self._hear({**news.values, **news.identity})
            await self._say_now()
            if self._fresh:
                await self._agree()

    def changed(self) -> bool:
        """Whether the lights have to say something new at once; `say` does it."""
        return not self._saying and self._is_new(self._room.now())

    async def say(self) -> None:
        """Say what is new, and what has become so meanwhile."""
        self._saying = True
        try:
            while await self._say_now() and self._is_new(self._room.now()):
                pass
        finally:
            self._saying = False

    async def close(self) -> None:
        """Hang up. The one that was started by hand ends; the one of systemd holds on."""
        await self._news.close()
        if self._child is not None:
            self._child.start_no_more()
            await self._lane.ask("hands", "stop", deadline_s=STOP_S)
            await self._child.ended(STOP_S)
        await self._lane.close()

    async def _hear(self, event: Mapping[str, Any]) -> None:
        try:
            kept = self._room.happened(event)
        except Exception:  # an event of another shape must not come again for ever
            log.exception("an event of hands")
            return
        # The next question lets hands forget it: by then the record has it, unless the disk hangs.
        await asyncio.wait([kept], timeout=RECORD_S)

    def _is_new(self, now: Moment) -> bool:
        return _apart(self._said, self._room.word(now)) and self._room.alive(now)

    async def _say_now(self) -> bool:
        """Say how the room is, if the agent is alive; True when it was heard."""
        now = self._room.now()
        if not self._room.alive(now):
            return False  # the lights will tell
        word = self._room.word(now)
        answer = await self._lane.ask("hands", "say", word, words=WORDS)
        if answer.fault is None:
            self._said = word
            self.state_errno = int(answer.values.get("state_errno", 0))
        return answer.fault is None

    async def _agree(self) -> None:
        """What hands holds has to be what room.toml says; it reads the file itself, but not in
        session, and goes on with everything else meanwhile."""
        about = await self._news.ask("hands", "about", words=WORDS)
        if about.fault is not None:
            return
        if about.identity.get("layout") == self.layout.digest:
            self._fresh = False
            return
        now_s = self._room.now().up_s
        if now_s < self._reload_s:
            return
        if self._reload_s > 0:
            log.warning("hands holds something else than room.toml says; its log tells why")
        again = await self._news.ask("hands", "reload", words=WORDS)
        if again.fault is None:
            self._reload_s = now_s + RELOAD_S


def reach(
    room: Room, described: settings.Room, folders: Folders, connect: Connect | None
) -> Hands | None:
    """The hands of a room: those that `connect` leads to, else a child. None for a room that has
    no file, which hands could read. Raises `ConfigError` for relays and lights that cannot be."""
    layout = plan.of(described)
    if connect is not None:
        return Hands(room, layout, connect, None)
    if described.path is None:
        return None
    child = ByHand(described.path, folders.runtime, folders.state)
    return Hands(room, layout, child.connect, child)


class HandsPart:
    """The passive part of a relay, a light or a button: hands is asked, no device is opened."""

    def __init__(self, lane: HandsLane, device: Device, words: frozenset[str]) -> None:
        self._lane = lane
        self._kind = device.kind
        self._args = {_ARGUMENT[device.kind]: device.id}
        self._words = words

    async def read(self) -> Reading:
        """What hands reads back."""
        return await self._lane.ask(self._kind, "read", self._args, words=self._words)


def _apart(said: Mapping[str, Any], word: Mapping[str, Any]) -> bool:
    """Whether two words differ in more than the time to the next session."""
    keys = (said.keys() | word.keys()) - {"lock_in_s"}
    return any(said.get(k) != word.get(k) for k in keys)
