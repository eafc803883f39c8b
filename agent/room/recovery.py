"""Bringing devices back: by itself where a fault has stood, or because somebody asks.

What may be tried, and when, is decided in `judge` (`recipe`, `recovery`); `remedy` takes the steps,
and what touches hardware is done by hands. Here is what is remembered and recorded: who, why,
before, after.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol

from agent import kinds
from agent.judge import own, recipe, recovery
from agent.judge.recipe import Planned, Step
from agent.lanes.watch import BY_AGENT, Watched
from agent.model import (
    Device,
    Fault,
    Finding,
    Incident,
    Level,
    Mode,
    Moment,
    Reading,
    Refused,
    Scalar,
)
from agent.room import remedy
from agent.room.means import Means
from agent.room.modes import Modes
from agent.room.presses import Presses
from agent.room.remedy import BAD, IN_USE, INTERRUPTED, Ask, Pace, Remedy, Result, Seen, joined
from agent.settings import Room as Settings

log = logging.getLogger("agent.recovery")

RECOVERING = "recovering"
"""Why a device is not read while a step is done to it."""
DOCUMENT = "recovery"
AGAIN_S = 300.0
"""So long a device is left alone that was found healthy, held or out of reach after all."""
KEPT_S = 5.0
"""How long the record of a try may take: without it the agent would not know of its own failure."""
_IMPORTANCE = 2


class Room(remedy.Room, Protocol):
    """What this needs of the room."""

    room: Settings
    mode: Mode
    modes: Modes

    def event(self, type_: str, importance: int, **fields: Any) -> asyncio.Future[int]:
        """Record an event."""
        ...

    def open_incident(self, device: str, code: str) -> Incident | None:
        """An incident that is open, by device and code."""
        ...

    def recovered(self) -> None:
        """A recipe is over: fold again."""
        ...


class Recovery:
    """Brings the devices of one room back."""

    def __init__(
        self,
        room: Room,
        presses: Presses,
        root: Path,
        *,
        spawn: Callable[[Coroutine[Any, Any, Any]], None],
        keep: Callable[[str, bytes], Coroutine[Any, Any, bool]],
        pace: Pace | None = None,
    ) -> None:
        """`spawn` runs something for as long as the agent lives; `keep` puts a document on disk
        and says whether it is there."""
        self._room = room
        self._means = Means(room.room, root)
        self._remedy = Remedy(room, self._means, presses, self._tell, pace)
        self._spawn = spawn
        self._keep = keep
        self._history = recovery.History()
        self._kept = recovery.dump(self._history)
        self._not_before_s: dict[str, float] = {}
        self._since: dict[str, Moment] = {}

    # -- what the room asks --------------------------------------------------------------------

    @property
    def held(self) -> set[str]:
        """The devices that a step is being done to."""
        return self._remedy.held

    def restore(self, saved: bytes | None) -> None:
        """Go on with what is known of tries before a restart. One that it broke off is a failure,
        and is said."""
        history, broken_off = recovery.load(saved)
        records = {n: r for n, r in history.records.items() if n in self._room.watched}
        self._history = recovery.History(records)
        if broken_off in records:
            log.warning("%s: the restart broke its recovery off", broken_off)
            self._tell("ended", Ask(broken_off, BY_AGENT), result=INTERRUPTED)
            self._save()

    def part(self, device: Device, root: Path) -> kinds.Passive | None:
        """The passive part of a device that may be brought back; it says nothing while a step is
        done to it. None for other kinds."""
        passive = kinds.passive_of(device.kind, device.settings, root)
        if passive is None or not self._means.recoverable(device.id):
            return None
        return _Paused(passive, lambda: device.id in self.held)

    def findings(self, now: Moment) -> list[Finding]:
        """A person is called for what failed too often; dated."""
        stopped = recovery.stopped(self._history)
        code = own.RECOVERY_FAILED
        for name in stopped.keys() - self._since.keys():
            known = self._room.open_incident(name, code)  # of before a restart
            self._since[name] = known.since if known is not None else now
        self._since = {name: self._since[name] for name in stopped}
        return [
            Finding(code, own.CODES[code], {"failures": count}, name, self._since[name])
            for name, count in stopped.items()
            if name in self._room.watched
        ]

    def consider(self, now: Moment) -> None:
        """Begin by itself what is due; forget the failures of what is well again."""
        for name in [n for n, r in self._history.records.items() if r.failures]:
            watched = self._room.watched.get(name)
            if name != self._history.running and (watched is None or _is_well(watched)):
                self._history = recovery.cleared(self._history, name)
                self._save()
        hands, quiet = self._room.hands, self._room.mode in (Mode.IDLE, Mode.PREPARING)
        if self._history.running or not quiet or hands is None or hands.lost_s is not None:
            return
        for watched in self._due(now):
            ask = Ask(watched.device.id, BY_AGENT, "; ".join(sorted(self._cured(watched))))
            if self._refusal(ask) is None:
                self._not_before_s[ask.device] = now.up_s + AGAIN_S
                self._spawn(self._by_itself(ask))
                return

    async def recover(self, ask: Ask) -> Result:
        """Bring a device back now. Raises `Refused`."""
        self._check_device(ask.device)
        if ask.glass and not ask.reason.strip():
            raise Refused("no_reason", "to break the glass takes a reason")
        if refusal := self._refusal(ask):
            raise Refused(refusal.code, _explain(ask.device, refusal))
        self._history = recovery.claimed(self._history, ask.device)
        try:
            result = await self._run(ask)
        except Exception:
            self._over()
            raise
        # Not when it is cancelled: then the agent ends, and the next one finds it broken off.
        self._over()
        return result

    async def dry_run(self, ask: Ask) -> tuple[dict[str, Scalar], dict[str, Any]]:
        """What would be done now: flat, and in full. Opens nothing, touches nothing."""
        self._check_device(ask.device)
        refusal = self._refusal(ask)
        plan = await self._plan(ask, self._remedy.standing(ask.device))
        now = refusal.code if refusal else "allowed"
        effect: dict[str, Scalar] = {"device": ask.device, "now": now}
        full = []
        for number, planned in enumerate(plan, 1):
            told = {"why_not": planned.why_not, "relay": planned.relay, "note": planned.note}
            flat = {"touches": joined(planned.touches), **{k: v for k, v in told.items() if v}}
            effect[f"step_{number}"] = str(planned.step)
            effect |= {f"step_{number}_{key}": value for key, value in flat.items()}
            lists = {"touches": list(planned.touches), "hubs": list(planned.hubs)}
            full.append({"step": str(planned.step), **told, **lists})
        return effect, {"plan": full, "wait_s": refusal.wait_s if refusal else None}

    # -- what is due ---------------------------------------------------------------------------

    def _due(self, now: Moment) -> list[Watched]:
        """Devices whose fault has stood long enough; required ones first, then the oldest."""
        due = []
        for name, watched in self._room.watched.items():
            settings = watched.device.settings
            if not self._means.recoverable(name) or watched.device.virtual:
                continue
            if settings.recover != "auto" or now.up_s < self._not_before_s.get(name, 0.0):
                continue
            ages = [recovery.age_s(since, now) for since in self._cured(watched).values()]
            long_enough = bool(ages) and max(ages) >= settings.recover_after_s
            if long_enough and self._means.within_reach(name):
                due.append((not watched.device.required, -max(ages), name))
        return [self._room.watched[name] for *_, name in sorted(due)]

    def _cured(self, watched: Watched) -> dict[str, Moment]:
        """The findings of a device that a recovery may cure, and since when each stands. What is
        not surely a fault is left to people; a worker that hangs in a driver is one."""
        reading = watched.state.reading
        hangs = reading is not None and reading.fault is Fault.QUARANTINED
        found = [
            f
            for f in watched.findings
            if f.level is Level.FAIL or (hangs and f.level is Level.UNKNOWN)
        ]
        curable = self._remedy.curable(watched.device) if found else frozenset()
        return {f.code: f.since for f in found if f.since is not None and f.code in curable}

    async def _by_itself(self, ask: Ask) -> None:
        """What the agent begins may come to nothing, and never ends the agent."""
        try:
            await self.recover(ask)
            self._not_before_s.pop(ask.device, None)  # from here on the rules' pauses count
        except Refused as refusal:
            log.info("%s: not brought back now: %s", ask.device, refusal)
        except Exception:
            log.exception("%s: the recovery failed", ask.device)

    # -- one recipe ----------------------------------------------------------------------------

    async def _run(self, ask: Ask) -> Result:
        before = await self._remedy.look(ask)
        curable = self._remedy.curable(self._room.watched[ask.device].device)
        if ask.by == BY_AGENT and not before.codes & curable:
            raise Refused("not_needed", f"{ask.device}: {before}")
        steps = _chosen(ask, before, await self._plan(ask, before))
        if refusal := self._may_go_on(ask):  # the check took its time
            raise Refused(refusal.code, _explain(ask.device, refusal))
        self._history = recovery.begun(self._history, ask.wish, self._room.now())
        if not await self._saved() and ask.by == BY_AGENT:
            self._history = recovery.ended(self._history, None)
            raise Refused("not_kept", "the disk did not take the record of the try")
        started_s = self._room.now().up_s
        self._tell("started", ask, before=before, steps=joined(str(p.step) for p in steps))
        result = await self._remedy.run(ask, before, steps, lambda: self._may_go_on(ask))
        self._history = recovery.ended(self._history, result.healed)
        self._tell(
            "ended",
            ask,
            before=before,
            after=result.after,
            step=result.step,
            result=result.word,
            took_ms=round((self._room.now().up_s - started_s) * 1000),
        )
        log.info("%s: %s, %s -> %s", ask.device, result.word, before, result.after)
        return result

    async def _plan(self, ask: Ask, before: Seen) -> tuple[Planned, ...]:
        layout = self._room.hands.layout if self._room.hands is not None else None
        facts = await self._means.facts(self._room.watched, layout, self._room.measuring)
        return recipe.plan(
            ask.device,
            facts,
            codes=before.codes,
            cures=self._means.cures(ask.device),
            by_agent=ask.by == BY_AGENT,
            shared_power=ask.shared_power,
            glass=ask.glass,
            only=ask.only,
        )

    def _check_device(self, name: str) -> None:
        watched = self._room.watched.get(name)
        if watched is None:
            raise Refused("unknown_device", f"no device {name!r} in this room")
        if not self._means.recoverable(name):
            kind = watched.device.kind
            raise Refused("not_recoverable", f"{name} is a {kind}; cameras and sound come back")
        if watched.device.settings.recover == "off":
            raise Refused("recover_off", f'{name} has recover = "off" in room.toml')

    def _refusal(self, ask: Ask) -> recovery.Refusal | None:
        now, mode = self._room.now(), self._room.mode
        left_s = self._room.modes.lock_in_s(now)
        return recovery.may_begin(self._history, ask.wish, mode=mode, session_in_s=left_s, now=now)

    def _may_go_on(self, ask: Ask) -> recovery.Refusal | None:
        left_s = self._room.modes.lock_in_s(self._room.now())
        return recovery.may_go_on(ask.wish, mode=self._room.mode, session_in_s=left_s)

    # -- records -------------------------------------------------------------------------------

    def _tell(self, what: str, ask: Ask, **fields: Any) -> None:
        """An event with code and date of the incident that it is about: both are one story."""
        watched = self._room.watched.get(ask.device)
        codes = sorted(self._remedy.curable(watched.device)) if watched is not None else []
        open_ = [self._room.open_incident(ask.device, code) for code in codes]
        about = next((i for i in open_ if i is not None), None)
        self._room.event(
            f"recovery.{what}",
            _IMPORTANCE,
            device=ask.device,
            code=about.code if about else None,
            since=about.since.iso if about else None,
            by=ask.by,
            reason=ask.reason[:200] or None,
            **{k: str(v) if isinstance(v, Seen | Step) else v for k, v in fields.items()},
        )

    def _over(self) -> None:
        self._history = recovery.released(self._history)
        self._save()
        self._room.recovered()

    def _save(self) -> None:
        body = recovery.dump(self._history)
        if body != self._kept:
            self._kept = body
            self._spawn(self._keep(DOCUMENT, body))

    async def _saved(self) -> bool:
        """Whether the record is on disk; a disk that hangs is not waited for."""
        self._kept = recovery.dump(self._history)
        keeping = asyncio.ensure_future(self._keep(DOCUMENT, self._kept))
        done, _ = await asyncio.wait({keeping}, timeout=KEPT_S)
        if not done or not keeping.result():
            self._kept = b""
            return False
        return True


class _Paused:
    """A passive part that says nothing while a step is done to its device."""

    def __init__(self, part: kinds.Passive, held: Callable[[], bool]) -> None:
        self._part = part
        self._held = held

    async def read(self) -> Reading:
        """What the kernel says, unless it would be of a device half way."""
        if not self._held():
            reading = await self._part.read()
            if not self._held():
                return reading
        return Reading(fault=Fault.SKIPPED, why=RECOVERING)


def _chosen(ask: Ask, before: Seen, plan: tuple[Planned, ...]) -> tuple[Planned, ...]:
    """The steps that will be taken. Raises `Refused` where there is none, or no need."""
    if before.held and not ask.glass:
        raise Refused(IN_USE, f"a program has {ask.device} open")
    if ask.by == BY_AGENT and not before.known:
        raise Refused("not_checked", f"{ask.device} could not be looked at")
    if before.known and not before.codes and ask.only is None:
        raise Refused("not_needed", f"{ask.device} is in order; name a step to take it anyway")
    steps = recipe.taken(plan)
    if ask.glass:  # a press of the button is worth one step
        steps = tuple(p for p in steps if p.step is not Step.REOPEN or ask.only)[:1]
    if ask.by == BY_AGENT and all(p.step is Step.REOPEN for p in steps):
        steps = ()  # after a failed look the next one has a new worker anyway
    if not steps:
        why = ", ".join(f"{p.step}: {p.why_not}" for p in plan if p.why_not)
        raise Refused("no_step", f"nothing can be done with {ask.device} here ({why})")
    return steps


def _is_well(watched: Watched) -> bool:
    """Whether it was looked at and nothing is wrong with it."""
    reading = watched.state.reading
    looked = reading is not None and reading.fault is None
    return looked and not any(f.level in BAD for f in watched.findings)


def _explain(device: str, refusal: recovery.Refusal) -> str:
    words = {
        "running": "a device is being brought back already; one at a time",
        "over_budget": "tried too often today",
        "paused": "tried a short while ago",
        "stopped": "it failed twice; a person has to ask",
        "too_close": "a hearing begins too soon; only held button and break_glass do it",
        "maintenance": "the room is in maintenance: no device is opened",
    }
    why = words.get(refusal.code, f"mode is {refusal.code}: nothing is touched")
    when = f", again in {refusal.wait_s:.0f} s" if refusal.wait_s else ""
    return f"{device}: {why}{when}"
