"""One device under watch: its passive part, its lane, and what is known of it.

`run` is the device's own task: ask, judge, fold, rest, and again. Whether the device may be opened
is asked of the room before every look; a look that is under way can be let go at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from agent import kinds
from agent.judge import findings as judging
from agent.lanes.lane import Lane, by_hand
from agent.model import Device, Fault, Finding, Moment, Reading

log = logging.getLogger("agent.watch")

GRID_S = 5.0
"""Readings with a period of ten seconds or more start on a common grid: fewer wake-ups."""
GRACE_S = 5.0
LANE_GRACE_S = 25.0
"""Beyond its deadline a lane may need this long: to start a worker and to see one die."""
BY_AGENT = "agent"
LOOK, BASELINE = "look", "baseline"


class Room(Protocol):
    """What a watched device asks of the room and tells it."""

    def may_look(self, device: Device) -> str:
        """Empty where the device may be opened now, else the closed word that forbids it."""
        ...

    def looking(self, device: Device, by: str, reading: Reading | None, ask: str = "look") -> None:
        """A look begins (no reading yet) or has ended with one; `ask` is what it answers."""
        ...

    def taken(self, watched: Watched) -> None:
        """There is a new state to fold."""
        ...


def new_lane(device: Device) -> Lane:
    """A lane to a worker that is a plain child, as when run by hand."""
    settings = device.settings
    variant = kinds.variant_of(device.kind, settings)
    # A worker outlives a period and a half, so that a steady rhythm does not restart it.
    idle_s = 1.5 * settings.period_s if settings.period_s <= 120 else 10.0
    spawn = by_hand(variant, kinds.ports_of(device.kind, settings))
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
        self._asked_by = BY_AGENT
        self._asked_for = LOOK
        self._asking: asyncio.Task[Reading] | None = None
        self._waiting: list[asyncio.Future[Reading]] = []

    @property
    def findings(self) -> list[Finding]:
        """What stands about the device now."""
        found = judging.current(self.state, self.device.id, self.watch, self._clock())
        reading = self.state.reading
        if self.lane is not None and reading is not None and reading.fault is Fault.SKIPPED:
            # In session no level is reported, not even an old one: the verdict stays, bare.
            found = [replace(finding, numbers={}) for finding in found]
        return found

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
        return not self.idle and now.up_s > self._due_s + allowed_s

    def let_go(self) -> None:
        """Drop a look that is under way: a hearing begins."""
        if self._asking is not None:
            self._asking.cancel()

    def hurry(self, by: str = BY_AGENT) -> None:
        """Ask again now."""
        self._asked_by = by
        self._wake.set()

    def learn(self, learnt: Mapping[str, Any]) -> None:
        """Ask and judge from now on by these settings where room.toml says nothing. Raises
        `ValueError` for what the kind does not take."""
        self.settings = kinds.with_baseline(self.device.settings, learnt)

    async def ask_now(self, by: str, ask: str = LOOK) -> Reading:
        """A fresh reading, asked for by somebody. The answer to `baseline` alone holds a
        fingerprint: it goes to whoever asked, and is not kept here."""
        future: asyncio.Future[Reading] = asyncio.get_running_loop().create_future()
        if self.idle:
            return Reading(fault=Fault.SKIPPED, why="no_worker", device=self.device.id)
        self._waiting.append(future)
        if ask != LOOK:
            self._asked_for = ask
        self.hurry(by)
        return await future

    async def run(self) -> None:
        """Ask, judge, fold, rest, for ever."""
        while not self.idle:
            self._wake.clear()
            by, self._asked_by = self._asked_by, BY_AGENT
            ask, self._asked_for = self._asked_for, LOOK
            waiting, self._waiting = self._waiting, []
            passive = await self._ask_passive()
            reading = await self._look(passive, by, ask)
            self._take(passive, replace(reading, fingerprint=()))
            self._room.taken(self)
            for future in waiting:
                if not future.done():
                    future.set_result(reading)
            await self._rest()

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

    async def _ask_passive(self) -> Reading:
        asked_s = self._clock().up_s
        reading = Reading()
        try:
            if self._passive is not None:
                async with asyncio.timeout(self.device.settings.deadline_s):
                    reading = await self._passive.read()
        except TimeoutError:
            reading = Reading(fault=Fault.NO_ANSWER, why="deadline")
        except Exception:
            log.exception("%s: reading kernel facts failed", self.device.id)
            reading = Reading(fault=Fault.ERROR, why="exception")
        took_s = self._clock().up_s - asked_s
        return replace(reading, device=self.device.id, asked_s=asked_s, took_s=took_s)

    async def _look(self, passive: Reading, by: str, ask: str) -> Reading:
        """Open the device where that is allowed; else what the kernel says is all there is."""
        if self.lane is None or passive.fault is not None:
            return passive
        if why := self._room.may_look(self.device):
            return replace(passive, fault=Fault.SKIPPED, why=why)
        if passive.values.get("in_use") is True:
            return replace(passive, fault=Fault.BUSY, why="held")
        self._room.looking(self.device, by, None, ask)
        asking = asyncio.get_running_loop().create_task(self._ask(self.lane, ask))
        self._asking = asking
        try:
            reading = await asyncio.shield(asking)
        except asyncio.CancelledError:
            if not asking.cancelled():  # it is this task that ends, not the look
                asking.cancel()
                raise
            reading = replace(passive, fault=Fault.SKIPPED, why="in_session")
        finally:
            self._asking = None
        self._room.looking(self.device, by, reading, ask)
        if count := reading.values.get("controls_set"):
            log.info("%s: controls set: %s", self.device.id, count)
        merged: dict[str, Any] = {**passive.values, **reading.values}
        identity = reading.identity or passive.identity
        return replace(reading, values=merged, identity=identity)

    async def _ask(self, lane: Lane, ask: str) -> Reading:
        # A new baseline is not measured by the old one.
        settings = self.device.settings if ask == BASELINE else self.settings
        return await lane.ask(
            device=self.device.id,
            kind=self.device.kind,
            settings=settings.model_dump(mode="json"),
            ask=ask,
            deadline_s=settings.deadline_s,
            words=self._kind.WORDS,
        )

    def _take(self, passive: Reading, reading: Reading) -> None:
        now, settings = self._clock(), self.settings
        presence = {f"{self.device.kind}.{word}" for word in ("absent", "wrong_device")}
        if reading.fault is not Fault.SKIPPED:
            found = self._kind.judge(reading, settings)
            # What somebody else holds is there, but nothing was seen of what it gives: a fault of
            # that stands until a look shows that it is gone.
            held = reading.fault is Fault.BUSY
            scope = presence | {f"{self.device.kind}.busy"} if held else None
            self.state = judging.fold(self.state, reading, found, self.watch, now, scope=scope)
            return
        # The kernel's word is evidence of presence, and in session all the evidence there is.
        found = self._kind.judge(passive, settings)
        state = judging.fold(
            self.state, passive, found, self.watch, now, scope=presence, evidence=False
        )
        if not found and reading.why == "in_session":
            state = judging.extend(state, now)
        self.state = replace(state, reading=reading)
