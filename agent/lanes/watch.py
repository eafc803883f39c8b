"""One device under watch: its passive part, its lane, and what is known of it.

`run` is the device's own task: ask, judge, fold, rest, and again. Whether the device may be opened
is asked of the room before every look; a look that is under way can be let go at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from agent import kinds
from agent.judge import findings as judging
from agent.lanes.air import Air
from agent.lanes.lane import START_S, Lane, Spawn, by_hand, by_socket
from agent.lanes.looptest import LOOP, LoopTest, tells
from agent.lanes.spawn import SOCKETS
from agent.lanes.told import Told
from agent.model import Device, Fault, Finding, Moment, Reading

log = logging.getLogger("agent.watch")

GRID_S = 5.0
"""Readings with a period of ten seconds or more start on a common grid: fewer wake-ups."""
GRACE_S = 5.0
LANE_GRACE_S = START_S + 5.0
"""Beyond its deadline a lane may need this long: to start a worker and to see one die."""
AIR_S = 90.0
"""So long a device may wait for its turn to listen or to sound: a look and a loop test, late."""
BY_AGENT, LOOK, BASELINE = "agent", "look", "baseline"


@dataclass(frozen=True, slots=True)
class Ask:
    """Somebody's wish for a reading. `again` is a loop test that repeats one that failed."""

    by: str
    question: str
    answer: asyncio.Future[Reading]
    again: bool = False


@dataclass(frozen=True, slots=True)
class Look:
    """One opening of a device: the question, who asked and what for (`watch`, `check`, `baseline`
    or `loop`)."""

    question: str
    by: str
    purpose: str


class Room(Protocol):
    """What a watched device asks of the room and tells it."""

    def may_look(self, device: Device) -> str:
        """Empty where the device may be opened now, else the closed word that forbids it."""
        ...

    def looking(self, device: Device, look: Look, reading: Reading | None) -> None:
        """A look begins (no reading yet) or has ended with one. Every look that begins ends."""
        ...

    def taken(self, watched: Watched) -> None:
        """There is a new state to fold."""
        ...


def new_lane(device: Device) -> Lane:
    """A lane to a worker that is a plain child, as when run by hand."""
    variant = kinds.variant_of(device.kind, device.settings)
    return _lane(device, by_hand(variant, kinds.ports_of(device.kind, device.settings)))


def service_lane(device: Device, sockets: Path = SOCKETS) -> Lane:
    """A lane to a worker of the service manager, as on an installed box."""
    variant = kinds.variant_of(device.kind, device.settings)
    name = variant if variant == "senses" else f"{variant}-{device.id}"
    return _lane(device, by_socket(sockets / f"{name}.sock"))


def _lane(device: Device, spawn: Spawn) -> Lane:
    # A worker outlives a period and a half, so that a steady rhythm does not restart it.
    period_s = device.settings.period_s
    idle_s = 1.5 * period_s if period_s <= 120 else 10.0
    return Lane(spawn, name=device.id, idle_s=max(idle_s, 10.0))


class Watched:
    """One device and its task. Times are boot-time seconds."""

    def __init__(
        self,
        device: Device,
        room: Room,
        *,
        lane: Lane | None,
        root: Path,
        clock: Callable[[], Moment],
        max_age_s: float,
        state: judging.DeviceState,
        passive: kinds.Passive | None = None,
        air: Air | None = None,
    ) -> None:
        """`passive` takes the place of the kind's own: another process is asked."""
        settings = device.settings
        valid_s = min(2 * settings.period_s + settings.deadline_s + GRACE_S, max_age_s)
        self.device = device
        self.settings = settings
        """The device's own, and where they say nothing, what was learnt at commissioning."""
        self.lane = lane
        self.watch = judging.Watch(settings.raise_s, settings.clear_s, valid_s)
        self.state = state
        self._room = room
        self._root = root
        self._clock = clock
        self._kind = kinds.load(device.kind)
        self._passive = passive or kinds.passive_of(device.kind, settings, root)
        self._due_s = clock().up_s
        self._wake = asyncio.Event()
        self._asks: list[Ask] = []
        self._asking: asyncio.Task[Reading] | None = None
        self._answers = kinds.answers(device.kind) if lane is not None else frozenset[str]()
        self._loop = LoopTest(device.kind) if LOOP in self._answers else None
        self._hears = lane is not None and kinds.hears(device.kind)
        self._told = Told(device, hears=self._hears)
        self._presence = {f"{device.kind}.{word}" for word in ("absent", "wrong_device")}
        self._waits = False
        self._air = air or Air()
        if self._hears or self._loop is not None:
            self._air.join(device.id, self.held)

    @property
    def findings(self) -> list[Finding]:
        """What stands about the device now, as it may be told."""
        forbidden = self._forbidden
        return [self._told.finding(finding, forbidden) for finding in self._standing()]

    @property
    def reading(self) -> Reading | None:
        """What may be told of the last reading, with the numbers of the last loop test."""
        forbidden = self._forbidden
        reading = self._told.reading(forbidden)
        if reading is None or self._loop is None or forbidden:
            return reading
        return replace(reading, values={**self._loop.values, **reading.values})

    @property
    def _forbidden(self) -> str:
        return self._room.may_look(self.device) if self.lane is not None else ""

    def _standing(self) -> list[Finding]:
        return judging.current(self.state, self.device.id, self.watch, self._clock())

    @property
    def valid_until_s(self) -> float | None:
        """When what is known runs out, None while nothing is known."""
        return judging.valid_until_s(self.state, self.watch)

    @property
    def idle(self) -> bool:
        """Whether the device has nothing to read here: its work is done in hands."""
        return self._passive is None and self.lane is None

    def late(self, now: Moment) -> bool:
        """Whether the device owes a reading. A device that hangs gives readings that say so;
        only a stuck loop gives none."""
        allowed_s = self.device.settings.deadline_s + GRACE_S
        if self.lane is not None:
            allowed_s += self.device.settings.deadline_s + LANE_GRACE_S
        if self._waits:
            allowed_s += AIR_S
        return not self.idle and now.up_s > self._due_s + allowed_s

    def let_go(self) -> None:
        """Drop a look that is under way: a hearing begins."""
        if self._asking is not None:
            self._asking.cancel()

    def hurry(self, by: str = BY_AGENT) -> None:
        """Ask again now; `by` a person, it is a check of his."""
        if by != BY_AGENT:
            self._wish(by, LOOK)
        self._wake.set()

    def learn(self, learnt: Mapping[str, Any]) -> None:
        """Ask and judge from now on by these settings where room.toml says nothing. Raises
        `ValueError` for what the kind does not take."""
        self.settings = kinds.with_baseline(self.device.settings, learnt)

    def can(self, question: str) -> bool:
        """Whether the device has a worker that answers this question."""
        return question in self._answers

    async def held(self) -> bool:
        """Whether the kernel says that a program has the device open. Asked apart from the
        readings: those compare each with the one before."""
        passive = kinds.passive_of(self.device.kind, self.device.settings, self._root)
        reading = await self._ask_passive(passive)
        return reading.values.get("in_use") is True

    async def ask_now(self, by: str, question: str = LOOK) -> Reading:
        """A fresh reading, asked for by somebody. A question that the device's driver does not
        answer gets what the kernel says. The answer to `baseline` alone holds a fingerprint: it
        goes to whoever asked, and is not kept here."""
        if self.idle:
            return Reading(fault=Fault.SKIPPED, why="no_worker", device=self.device.id)
        answer = self._wish(by, question)
        self._wake.set()
        return await answer

    def _wish(self, by: str, question: str) -> asyncio.Future[Reading]:
        answer: asyncio.Future[Reading] = asyncio.get_running_loop().create_future()
        self._asks.append(Ask(by, question, answer))
        return answer

    async def run(self) -> None:
        """Ask, judge, fold, rest, for ever."""
        while not self.idle:
            self._wake.clear()
            asks = self._next()
            look = _look_for(asks)
            async with self._turn(look.question):
                passive = await self._ask_passive(self._passive)
                reading = await self._look(passive, look)
            if self._doubtful(asks, reading):
                self._asks = [replace(ask, again=True) for ask in asks] + self._asks
            else:
                self._take(passive, replace(reading, fingerprint=()), look)
                self._room.taken(self)
                for ask in asks:
                    if not ask.answer.done():
                        ask.answer.set_result(reading)
            if self._asks:
                self._wake.set()
            await self._rest()

    def _next(self) -> list[Ask]:
        """All who wait for the question that is asked first; one answer serves them."""
        first = self._asks[:1]
        asks = [ask for ask in self._asks if ask.question == first[0].question]
        self._asks = [ask for ask in self._asks if ask not in asks]
        return asks

    @contextlib.asynccontextmanager
    async def _turn(self, question: str) -> AsyncIterator[None]:
        """Waits until the room is still for a sound, or until no sound disturbs who listens."""
        loop = question == LOOP and self._loop is not None
        if not loop and not self._hears:
            yield
            return
        self._waits = True
        async with self._air.sounding() if loop else self._air.listening():
            self._waits = False
            self._due_s = self._clock().up_s
            yield

    async def follow_changes(self) -> None:
        """Ask again whenever the kind says that something changed."""
        stream = kinds.changes_of(self.device.kind, self.device.settings, self._root)
        if stream is not None:
            async for _ in stream:
                self.hurry()

    async def _rest(self) -> None:
        settings, now_s = self.device.settings, self._clock().up_s
        pause_s = settings.period_s
        if self.state.pending:  # what is about to change is confirmed soon
            pause_s = min(pause_s, max(settings.raise_s, settings.clear_s, 1.0))
        self._due_s = now_s + pause_s
        if pause_s >= 2 * GRID_S:
            # Kernel facts are read together; looks are not, they would slow each other down.
            grid_s = GRID_S if self.lane is not None else pause_s
            self._due_s -= self._due_s % grid_s
            if self._due_s <= now_s:
                self._due_s += grid_s
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._due_s - now_s):
                await self._wake.wait()
        self._due_s = self._clock().up_s

    async def _ask_passive(self, part: kinds.Passive | None) -> Reading:
        asked_s = self._clock().up_s
        reading = Reading()
        try:
            if part is not None:
                async with asyncio.timeout(self.device.settings.deadline_s):
                    reading = await part.read()
        except TimeoutError:
            reading = Reading(fault=Fault.NO_ANSWER, why="deadline")
        except Exception:
            log.exception("%s: reading kernel facts failed", self.device.id)
            reading = Reading(fault=Fault.ERROR, why="exception")
        if self.lane is not None and self.lane.clings:
            # A stuck worker of our own is nobody who uses the device.
            told = {key: value for key, value in reading.values.items() if key != "in_use"}
            reading = replace(reading, values=told)
        took_s = self._clock().up_s - asked_s
        return replace(reading, device=self.device.id, asked_s=asked_s, took_s=took_s)

    async def _look(self, passive: Reading, look: Look) -> Reading:
        """Open the device where that is allowed; else what the kernel says is all there is."""
        if self.lane is None or passive.fault is not None or look.question not in self._answers:
            return passive
        if why := self._room.may_look(self.device):
            return replace(passive, fault=Fault.SKIPPED, why=why)
        if passive.values.get("in_use") is True:
            return replace(passive, fault=Fault.BUSY, why="held")
        if look.question == LOOP and (holder := await self._air.held_by_others()):
            log.info("%s: no loop test, a program has %s", self.device.id, holder)
            return replace(passive, fault=Fault.BUSY, why="held")
        began_s = self._clock().up_s
        self._room.looking(self.device, look, None)
        asking = asyncio.get_running_loop().create_task(self._ask(self.lane, look.question))
        self._asking = asking
        reading = Reading(fault=Fault.ERROR, why="exception")
        try:
            reading = await asyncio.shield(asking)
        except asyncio.CancelledError:
            took_s = self._clock().up_s - began_s
            reading = replace(passive, fault=Fault.SKIPPED, why="in_session", took_s=took_s)
            # Both may have been cancelled at once: let go for a hearing, and told to end.
            if (task := asyncio.current_task()) is not None and task.cancelling():
                asking.cancel()
                reading = replace(reading, why="yielded")
                raise
        finally:
            self._asking = None
            self._room.looking(self.device, look, reading)
        if count := reading.values.get("controls_set"):
            log.info("%s: controls set: %s", self.device.id, count)
        merged: dict[str, Any] = {**passive.values, **reading.values}
        return replace(reading, values=merged, identity=reading.identity or passive.identity)

    async def _ask(self, lane: Lane, question: str) -> Reading:
        # A new baseline is not measured by the old one.
        settings = self.device.settings if question == BASELINE else self.settings
        reading = await lane.ask(
            device=self.device.id,
            kind=self.device.kind,
            settings=settings.model_dump(mode="json"),
            ask=question,
            deadline_s=settings.deadline_s,
            words=self._kind.WORDS,
        )
        return self._told.coarse(reading)

    def _doubtful(self, asks: Sequence[Ask], reading: Reading) -> bool:
        """Whether a loop test has just failed for the first time."""
        if self._loop is None or not asks or asks[0].question != LOOP or asks[0].again:
            return False
        found = self._kind.judge(reading, self.settings)
        return reading.fault is None and self._loop.doubtful(found, self.state)

    def _take(self, passive: Reading, reading: Reading, look: Look) -> None:
        if reading.fault is Fault.SKIPPED:
            self._take_skipped(passive, reading)
        elif look.question == LOOP and self._loop is not None and tells(reading):
            found = self._kind.judge(reading, self.settings)
            now = self._clock()
            self.state = self._loop.take(self.state, passive, reading, found, self.watch, now)
        else:
            if look.question == LOOP and self._loop is not None:
                log.warning("%s: no loop test: %s %s", self.device.id, reading.fault, reading.why)
                reading = passive
            found = self._kind.judge(reading, self.settings)
            scope = self._loop.scope if self._loop is not None else None
            if reading.fault is Fault.BUSY:
                # What somebody else holds is there, but nothing was seen of what it gives: a
                # fault of that stands until a look shows that it is gone.
                scope = {*self._presence, f"{self.device.kind}.busy"}
            now = self._clock()
            self.state = judging.fold(self.state, reading, found, self.watch, now, scope=scope)
        last = self.state.reading or reading
        self._told.renew(last, self._standing(), looked=look.question in self._answers)

    def _take_skipped(self, passive: Reading, reading: Reading) -> None:
        # The kernel's word is evidence of presence, and in session all the evidence there is.
        now = self._clock()
        found = self._kind.judge(passive, self.settings)
        state = judging.fold(
            self.state, passive, found, self.watch, now, scope=self._presence, evidence=False
        )
        if not found and reading.why == "in_session":
            state = judging.extend(state, now)
        self.state = replace(state, reading=reading)


def _look_for(asks: Sequence[Ask]) -> Look:
    """The look that serves some asks; nobody asked: the agent watches."""
    if not asks:
        return Look(LOOK, BY_AGENT, "watch")
    question = asks[0].question
    by = ", ".join(sorted({ask.by for ask in asks}))[:64]
    return Look(question, by, "check" if question == LOOK else question)
