"""One recipe, from the first check to the last: who wants what, what was seen, what came of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from agent import kinds
from agent.judge import recipe
from agent.judge.findings import NO_EVIDENCE
from agent.judge.recipe import Planned, Step
from agent.judge.recovery import Refusal, Wish
from agent.lanes.watch import BY_AGENT, Watched
from agent.model import Device, Fault, Level, Moment, Reading, Scalar
from agent.room.means import Means
from agent.room.presses import Presses

if TYPE_CHECKING:
    from agent.room.hands import Hands

log = logging.getLogger("agent.recovery")

STEP_S = 45.0
"""Longer than hands gives a step; then it hangs, or hands does."""
BAD = (Level.WARN, Level.FAIL, Level.UNKNOWN)
HEALED, NOT_HEALED, DONE, FAILED = "healed", "not_healed", "done", "failed"
IN_USE, INTERRUPTED = "in_use", "interrupted"
_ASKS: Mapping[Step, str] = {
    Step.REBIND: "rebind",
    Step.REAUTHORIZE: "reauthorize",
    Step.USB_RESET: "reset",
}
_STOPS = frozenset({"session_lock", "not_held", "step_budget", "step_running", "step_stuck"})
"""Refusals of hands that a stronger step would meet as well."""


class Room(Protocol):
    """What this needs of the room."""

    watched: dict[str, Watched]
    measuring: set[str]
    hands: Hands | None

    def now(self) -> Moment:
        """This instant."""
        ...


@dataclass(frozen=True, slots=True)
class Pace:
    """How patient a recovery is, in seconds; `window_s` takes the place of what the profiles say
    of a device that is away."""

    poll_s: float = 0.3
    settle_s: float = 1.0
    again_s: float = 3.0
    window_s: float | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """Who wants a device back, and how far it may go."""

    device: str
    by: str
    reason: str = ""
    glass: bool = False
    shared_power: bool = False
    only: Step | None = None

    @property
    def wish(self) -> Wish:
        """As the rules see it."""
        return Wish(self.device, self.by == BY_AGENT, self.glass)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a check saw. `known` is False where the device was not looked at: then `codes` are
    what stood before. `held`: a program has it open. `again`: the look itself failed (no worker,
    say), which is no fault of the device."""

    codes: frozenset[str] = frozenset()
    known: bool = True
    held: bool = False
    again: bool = False

    def __str__(self) -> str:
        """`ok`, the codes, or that it was not looked at."""
        return joined(sorted(self.codes)) or ("ok" if self.known else "not_checked")


@dataclass(slots=True)
class Result:
    """What came of a recipe. `healed` is None where it cannot be said; `step` is the last that was
    carried out."""

    device: str
    before: Seen = field(default_factory=Seen)
    after: Seen = field(default_factory=Seen)
    step: Step | None = None
    word: str = NOT_HEALED
    healed: bool | None = False

    @property
    def effect(self) -> dict[str, Scalar]:
        """Flat, as it was seen."""
        told: dict[str, Scalar] = {"device": self.device}
        if self.step is not None:
            told["step"] = str(self.step)
        told |= {"before": str(self.before), "after": str(self.after)}
        return told if self.healed is None else {**told, "healed": self.healed}


Tell = Callable[..., None]
"""Records what happens: a word (`started`, `step`, `ended`), the ask, flat facts."""


class Remedy:
    """Takes the steps of recipes. `held` are the devices that a step is being done to."""

    def __init__(
        self, room: Room, means: Means, presses: Presses, tell: Tell, pace: Pace | None = None
    ) -> None:
        self.held: set[str] = set()
        self._room = room
        self._means = means
        self._presses = presses
        self._tell = tell
        self._pace = pace or Pace()

    async def run(
        self,
        ask: Ask,
        before: Seen,
        steps: Iterable[Planned],
        may_go_on: Callable[[], Refusal | None],
    ) -> Result:
        """Take the steps one by one until the device is healed, or something forbids the next."""
        result = Result(ask.device, before, before)
        for planned in steps:
            if (refusal := may_go_on()) is not None:
                result.word, result.healed = refusal.code, None
                break
            if await self._step(ask, planned, result):
                break
        return result

    # -- checks --------------------------------------------------------------------------------

    async def look(self, ask: Ask) -> Seen:
        """The same check, before and after."""
        watched = self._room.watched[ask.device]
        reading = await watched.ask_now(ask.by)
        if reading.fault in (Fault.SKIPPED, Fault.ERROR):
            return replace(self.standing(ask.device), again=reading.fault is Fault.ERROR)
        if reading.fault is Fault.BUSY:
            return Seen(known=False, held=True)
        found = kinds.load(watched.device.kind).judge(reading, watched.settings)
        return Seen(frozenset(f.code for f in found if f.level in BAD))

    def standing(self, device: str) -> Seen:
        """What stands about a device without looking at it."""
        found = self._room.watched[device].findings
        codes = frozenset(f.code for f in found if f.level in BAD and f.code != NO_EVIDENCE)
        return Seen(codes, known=False)

    def curable(self, device: Device) -> frozenset[str]:
        """The codes that a recovery may cure: the kind's, and what the model is known for."""
        known = [c.codes for c in self._means.cures(device.id) if c.step is not Step.REPLUG_SOURCE]
        return kinds.recoverable(device.kind).union(*known)

    def _healed(self, device: str, before: Seen, after: Seen) -> bool | None:
        """Whether what was wrong, and whatever else a recovery could cure, is over."""
        if not after.known:
            return None
        curable = self.curable(self._room.watched[device].device)
        return not after.codes & (before.codes | curable)

    async def _look_until(self, ask: Ask, before: Seen, ends_s: float) -> Seen:
        """Look again while the device may still be on its way."""
        while True:
            seen = await self.look(ask)
            over = self._room.now().up_s >= ends_s
            if over or not (seen.again or self._healed(ask.device, before, seen) is False):
                return seen
            await asyncio.sleep(self._pace.again_s)

    # -- steps ---------------------------------------------------------------------------------

    async def _step(self, ask: Ask, planned: Planned, result: Result) -> bool:
        """One step and the check after it; True where the recipe ends with it."""
        started_s = self._room.now().up_s
        before = result.after
        log.info("%s: %s, touches %s", ask.device, planned.step, joined(planned.touches))
        async with self._holding(planned):
            there = [n for n in planned.touches if n == ask.device or await self._means.there(n)]
            code, errno = await self._take(ask, planned)
            ends_s = self._room.now().up_s
            if code == DONE and planned.step is not Step.REOPEN:
                ends_s += self._window_s(ask.device)
                await self._come_back(there, ends_s)
        if code in (DONE, FAILED):
            result.step = planned.step
            result.after = await self._look_until(ask, result.before, ends_s)
            result.healed = self._healed(ask.device, result.before, result.after)
            result.word = _word(result)
        elif result.step is None or code in _STOPS:  # it says nothing of the device
            result.word, result.healed = code, None
        self._tell(
            "step",
            ask,
            step=planned.step,
            touches=joined(planned.touches),
            relay=planned.relay or None,
            before=before,
            after=result.after,
            result=code,
            errno=errno,
            took_ms=round((self._room.now().up_s - started_s) * 1000),
        )
        return code in _STOPS or result.word in (HEALED, IN_USE)

    async def _take(self, ask: Ask, planned: Planned) -> tuple[str, int | None]:
        """Do it: `done`, `failed` with an errno, or why it was refused."""
        watched = self._room.watched[ask.device]
        if planned.step is Step.REOPEN:
            gone = watched.lane is not None and await watched.lane.renew()
            return (DONE if gone else "quarantined"), None
        hands = self._room.hands
        if hands is None:
            return recipe.NO_HANDS, None
        args: dict[str, Any] = {"by": ask.by, "glass": ask.glass}
        if planned.relay:
            return await self._pulse(ask, planned.relay, hands, args)
        if planned.hubs:
            return await self._usb(hands, "power_cycle", {**args, "hubs": list(planned.hubs)})
        port = self._means.port(ask.device)
        if not port:
            return recipe.NOT_ON_USB, None
        args |= {"port": port, "usb": self._means.usb_id(port)}
        if planned.step is Step.REBIND:
            args["driver"] = recipe.DRIVERS.get(watched.device.kind)
        return await self._usb(hands, _ASKS[planned.step], args)

    async def _usb(
        self, hands: Hands, step: str, args: Mapping[str, Any]
    ) -> tuple[str, int | None]:
        """hands begins a step, and is asked until it is over."""
        reading = await hands.ask("usb", step, **args)
        number = reading.values.get("number")
        ends_s = self._room.now().up_s + STEP_S
        while reading.fault is None and reading.values.get("running") is True:
            if self._room.now().up_s >= ends_s:
                return "step_stuck", None
            await asyncio.sleep(self._pace.poll_s)
            reading = await hands.ask("usb", "read")
            if reading.fault is None and reading.values.get("number") != number:
                return FAILED, None  # another hands: it knows nothing of the step
        return _outcome(reading)

    async def _pulse(
        self, ask: Ask, relay: str, hands: Hands, args: Mapping[str, Any]
    ) -> tuple[str, int | None]:
        name = self._presses.asked(ask.by, ask.reason)
        reading = await hands.ask("relay", "pulse", relay=relay, **{**args, "by": name})
        if reading.fault is not None:
            return _outcome(reading)
        await asyncio.sleep(float(reading.values.get("due_in_s", 0.0)))
        return DONE, None

    @contextlib.asynccontextmanager
    async def _holding(self, planned: Planned) -> AsyncIterator[None]:
        """Nobody reads the devices that a step disturbs; looks under way come to their end, and no
        worker has one open."""
        names = {n for n in planned.touches if n in self._room.watched}
        self.held |= names
        try:
            while names & self._room.measuring:  # noqa: ASYNC110 - bounded, a look has a deadline
                await asyncio.sleep(self._pace.poll_s)
            for name in names if planned.step is not Step.REOPEN else ():
                if (lane := self._room.watched[name].lane) is not None:
                    await lane.renew()
            yield
        finally:
            self.held -= names
            for name in names:
                self._room.watched[name].hurry()

    async def _come_back(self, names: Iterable[str], ends_s: float) -> None:
        """Wait for those that were disturbed, as far as the kernel can tell."""
        while self._room.now().up_s < ends_s:
            if all([await self._means.there(name) for name in names]):
                await asyncio.sleep(self._pace.settle_s)
                return
            await asyncio.sleep(self._pace.poll_s)

    def _window_s(self, device: str) -> float:
        if self._pace.window_s is not None:
            return self._pace.window_s
        return self._means.window_s(device)


def joined(names: Iterable[str]) -> str:
    """Some words as one flat text that may leave the room."""
    return ",".join(names)[:200]


def _word(result: Result) -> str:
    if result.after.held:
        return IN_USE
    return {True: HEALED, False: NOT_HEALED, None: DONE}[result.healed]


def _outcome(reading: Reading) -> tuple[str, int | None]:
    """What an answer of hands means: `done`, `failed` and perhaps an errno, or a rule's name."""
    errno = reading.values.get("errno")
    number = int(errno) if errno is not None else None
    if reading.fault is None:
        return (DONE, None) if number == 0 else (FAILED, number)
    if reading.fault is Fault.SKIPPED:
        return reading.why, None
    return reading.why if reading.why not in ("", "errno") else FAILED, number
