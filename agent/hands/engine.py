"""The rules of relays: a state machine without clock and pins. Time comes in, acts come out.

Every rule holds whatever is asked and whenever: at most one relay of a group is on, the next goes
on no sooner than `wait_s` after the last went off, nothing goes on beyond its budget, nothing
stays on beyond `max_on_s`, nothing is switched back before its shortest time. In session only
three things move a relay that has `session_lock`: a command with the glass broken, the end of a
pulse that began before, and `max_on_s`, which guards the thing itself.

Times are boot-time seconds.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.hands import pasts
from agent.hands.layout import Relay
from agent.hands.pasts import LONG_AGO_S

HOUR_S = 3_600.0
RETRY_S = 10.0
"""What a rule demands and the hardware did not do is tried again after so long."""
BOOT_S = 120.0
"""So long after the box came up a relay that was out of reach still gets its first state, whatever
the room is doing: boards on USB come up late."""

OK, PENDING = "ok", "pending"
UNKNOWN_RELAY = "unknown_relay"
SESSION_LOCK = "session_lock"
INTERLOCKED = "interlocked"
OVER_BUDGET = "over_budget"
TOO_SOON = "too_soon"
REFUSALS = frozenset({UNKNOWN_RELAY, SESSION_LOCK, INTERLOCKED, OVER_BUDGET, TOO_SOON})

CAUSES = frozenset(
    {"command", "pulse", "pulse_end", "interlock", "max_on", "power_on", "restore", "stop", "found"}
)
"""Why a relay was switched; `found`: it was not, somebody or something else has moved it."""
_DEMANDED = frozenset({"pulse_end", "max_on", "power_on", "restore"})
"""Causes that are rules: nobody is there to ask again, so the rule itself does."""
_LOCKABLE = frozenset({"command", "power_on"})
"""Causes that a session stops when their time comes in it."""


@dataclass(frozen=True, slots=True)
class Act:
    """A relay that has to be switched now. `by` asked for it; empty where a rule did."""

    relay: str
    on: bool
    cause: str
    by: str = ""


@dataclass(frozen=True, slots=True)
class Dropped:
    """A switching that was promised and is not done after all, and which rule forbids it."""

    relay: str
    code: str
    by: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What becomes of a wish: `ok`, `pending` (due at `due_s`) or a word of `REFUSALS`; and what
    has to be switched now, in this order."""

    code: str
    acts: tuple[Act | Dropped, ...] = ()
    due_s: float | None = None


@dataclass(frozen=True, slots=True)
class _Job:
    on: bool
    at_s: float
    cause: str
    by: str
    glass: bool


@dataclass(slots=True)
class _Track:
    rules: Relay
    on: bool = False
    changed_s: float = LONG_AGO_S
    before_s: float = LONG_AGO_S
    switched: deque[float] = field(default_factory=deque)
    job: _Job | None = None

    def recent(self, now_s: float) -> int:
        while self.switched and self.switched[0] <= now_s - HOUR_S:
            self.switched.popleft()
        return len(self.switched)

    @property
    def must_end_s(self) -> float:
        longest = self.rules.max_on_s
        if not self.on or longest is None or (self.job and self.job.cause == "max_on"):
            return math.inf
        return self.changed_s + longest


class Engine:
    """The relays of a room. Starts with all of them off; `restore` and `power_on` say otherwise."""

    def __init__(self, relays: Iterable[Relay]) -> None:
        self._tracks = {r.id: _Track(r) for r in relays}
        self.locked = True
        """In session, or nobody has said otherwise yet."""
        self.lock_at_s = math.inf
        """When the next session begins, as far as it is known."""
        self._began_s = LONG_AGO_S

    # -- what is -------------------------------------------------------------------------------

    def on(self, relay: str) -> bool:
        """Whether a relay is on, as far as this machine switched it."""
        return self._tracks[relay].on

    def since_s(self, relay: str, now_s: float) -> float:
        """For how long a relay has been what it is; infinite where it never moved."""
        return now_s - self._tracks[relay].changed_s

    def alone(self, relay: str) -> bool:
        """Whether no other relay of its group is on."""
        return not self._others_on(self._tracks[relay])

    def is_locked(self, relay: str, now_s: float) -> bool:
        """Whether a session keeps a relay where it is."""
        return self._is_locked(self._tracks[relay], now_s, glass=False)

    def owes(self, relay: str) -> bool:
        """Whether a rule is going to switch a relay by itself."""
        job = self._tracks[relay].job
        return job is not None and job.cause in _DEMANDED

    def facts(self, relay: str, now_s: float) -> dict[str, Any]:
        """Flat facts about a relay: `on`, `wanted_on`, `changed_s` (age; absent where never),
        `budget_left`, `locked`."""
        track = self._tracks[relay]
        wanted = (
            track.job.on if track.job is not None and track.job.cause == "command" else track.on
        )
        facts: dict[str, Any] = {
            "on": track.on,
            "wanted_on": wanted,
            "budget_left": max(0, track.rules.max_per_h - track.recent(now_s)),
            "locked": self._is_locked(track, now_s, glass=False),
        }
        if math.isfinite(track.changed_s):
            facts["changed_s"] = round(max(0.0, now_s - track.changed_s), 1)
        return facts

    def due_s(self) -> float:
        """When `tick` has something to do next; infinite for never."""
        times = [t.must_end_s for t in self._tracks.values()]
        times += [t.job.at_s for t in self._tracks.values() if t.job is not None]
        return min(times, default=math.inf)

    # -- wishes --------------------------------------------------------------------------------

    def set(
        self, relay: str, on: bool, now_s: float, *, by: str = "", glass: bool = False
    ) -> Answer:
        """Switch a relay. A wish takes the place of all older ones about the same relay. What was
        due before should have been done by now (`tick`): it may have failed."""
        track = self._tracks.get(relay)
        if track is None:
            return Answer(UNKNOWN_RELAY)
        acts = self.tick(now_s)  # what is due goes first
        answer = self._on(track, now_s, by, glass) if on else self._off(track, now_s, by, glass)
        return Answer(answer.code, (*acts, *answer.acts), answer.due_s)

    def pulse(self, relay: str, now_s: float, *, by: str = "", glass: bool = False) -> Answer:
        """Switch a relay over for `pulse_s`, then back. A second pulse prolongs the first."""
        track = self._tracks.get(relay)
        if track is None:
            return Answer(UNKNOWN_RELAY)
        acts = self.tick(now_s)  # what is due goes first
        answer = self._pulse(track, now_s, by, glass)
        return Answer(answer.code, (*acts, *answer.acts), answer.due_s)

    def _on(self, track: _Track, now_s: float, by: str, glass: bool) -> Answer:
        if track.on:
            if track.job is not None and self._is_locked(track, now_s, glass):
                return Answer(SESSION_LOCK)
            track.job = None
            return Answer(OK)
        ready_s = max(now_s, self._group_free_s(track))
        others = self._others_on(track)
        if others:
            ready_s = now_s + track.rules.wait_s
        if self._is_locked(track, now_s, glass) or self._is_locked(track, ready_s, glass):
            return Answer(SESSION_LOCK)
        if refusal := self._refuses_on(track, ready_s):
            return Answer(refusal)
        for other in others:
            if self._is_locked(other, now_s, glass) or not self._may_go_off(other, now_s):
                return Answer(INTERLOCKED)
        for member in self._group(track):
            member.job = None
        acts = tuple(self._switch(o, False, now_s, "interlock", by) for o in others)
        if ready_s > now_s:
            track.job = _Job(True, ready_s, "command", by, glass)
            return Answer(PENDING, acts, ready_s)
        return Answer(OK, (*acts, self._switch(track, True, now_s, "command", by)))

    def _off(self, track: _Track, now_s: float, by: str, glass: bool) -> Answer:
        if not track.on:
            back = track.job is not None and track.job.cause == "pulse_end"
            if back and self._is_locked(track, now_s, glass):
                return Answer(SESSION_LOCK)  # it would leave off what was on before the pulse
            track.job = None
            return Answer(OK)
        if self._is_locked(track, now_s, glass):
            return Answer(SESSION_LOCK)
        if not self._may_go_off(track, now_s):
            return Answer(TOO_SOON)
        track.job = None
        return Answer(OK, (self._switch(track, False, now_s, "command", by),))

    def _pulse(self, track: _Track, now_s: float, by: str, glass: bool) -> Answer:
        rules, end_s = track.rules, now_s + track.rules.pulse_s
        if self._is_locked(track, now_s, glass) or self._is_locked(track, end_s, glass):
            return Answer(SESSION_LOCK)
        if track.job is not None and track.job.cause == "pulse_end":
            track.job = _Job(track.job.on, end_s, "pulse_end", by, glass)
            return Answer(OK, due_s=end_s)
        shortest = rules.min_off_s if track.on else rules.min_on_s
        if rules.pulse_s < shortest:
            return Answer(TOO_SOON)
        if track.on:
            if not self._may_go_off(track, now_s):
                return Answer(TOO_SOON)
            if track.recent(now_s) + 2 > rules.max_per_h:
                return Answer(OVER_BUDGET)
        else:
            if self._others_on(track) or self._group_free_s(track) > now_s:
                return Answer(INTERLOCKED)
            if refusal := self._refuses_on(track, now_s):
                return Answer(refusal)
        for member in self._group(track):
            member.job = None
        act = self._switch(track, not track.on, now_s, "pulse", by)
        track.job = _Job(not track.on, end_s, "pulse_end", by, glass)
        return Answer(OK, (act,), end_s)

    def failed(self, act: Act, now_s: float) -> None:
        """An act could not be done: the relay is as it was, since when it was. A wish is over, its
        attempt stays counted, and what was to follow is off; what a rule demands is tried again."""
        track = self._tracks[act.relay]
        track.on, track.changed_s, track.job = not act.on, track.before_s, None
        if act.cause in _DEMANDED:
            track.switched.pop()
            track.job = _Job(act.on, now_s + RETRY_S, act.cause, act.by, glass=False)

    def found(self, relay: str, on: bool, now_s: float) -> bool:
        """A relay that was out of reach is back, in this state. True where that is another one."""
        track = self._tracks[relay]
        if track.on is on:
            return False
        track.on, track.changed_s, track.job = on, now_s, None
        return True

    # -- time ----------------------------------------------------------------------------------

    def tick(self, now_s: float) -> list[Act | Dropped]:
        """What has come due by `now_s`, in the order in which it came due."""
        done: list[Act | Dropped] = []
        while (due_s := self.due_s()) <= now_s:
            ending = next((t for t in self._tracks.values() if t.must_end_s <= due_s), None)
            if ending is not None:
                ending.job = None
                done.append(self._switch(ending, False, now_s, "max_on"))
                continue
            track = next(t for t in self._tracks.values() if t.job and t.job.at_s <= due_s)
            done += self._do(track, now_s)
        return done

    def _do(self, track: _Track, now_s: float) -> Iterator[Act | Dropped]:
        job, track.job = track.job, None
        assert job is not None
        if job.on is track.on:
            return
        if job.on:
            refusal = "" if job.cause == "power_on" else self._refuses_on(track, now_s)
            free = job.glass or (job.cause == "power_on" and now_s < self._began_s + BOOT_S)
            if job.cause in _LOCKABLE and self._is_locked(track, now_s, free):
                refusal = SESSION_LOCK
            if self._others_on(track) or self._group_free_s(track) > now_s:
                refusal = INTERLOCKED
            if refusal:
                yield Dropped(track.rules.id, refusal, job.by)
                return
        yield self._switch(track, job.on, now_s, job.cause, job.by)

    # -- rules ---------------------------------------------------------------------------------

    def _is_locked(self, track: _Track, at_s: float, glass: bool) -> bool:
        return track.rules.session_lock and not glass and (self.locked or at_s >= self.lock_at_s)

    def _group(self, track: _Track) -> list[_Track]:
        name = track.rules.group
        return [t for t in self._tracks.values() if t is track or (name and t.rules.group == name)]

    def _others_on(self, track: _Track) -> list[_Track]:
        return [t for t in self._group(track) if t.on and t is not track]

    def _group_free_s(self, track: _Track) -> float:
        """From when on this relay may go on, after the others of its group went off."""
        others = [t.changed_s for t in self._group(track) if t is not track]
        return max(others, default=LONG_AGO_S) + track.rules.wait_s

    def _refuses_on(self, track: _Track, at_s: float) -> str:
        rules = track.rules
        if at_s - track.changed_s < rules.min_off_s:
            return TOO_SOON
        return OVER_BUDGET if track.recent(at_s) + 1 > rules.max_per_h else ""

    def _may_go_off(self, track: _Track, now_s: float) -> bool:
        return now_s - track.changed_s >= track.rules.min_on_s

    def _switch(self, track: _Track, on: bool, now_s: float, cause: str, by: str = "") -> Act:
        track.on = on
        track.before_s, track.changed_s = track.changed_s, now_s
        track.switched.append(now_s)
        return Act(track.rules.id, on, cause, by)

    # -- starts and stops ----------------------------------------------------------------------

    def power_on(self, last: Mapping[str, bool], now_s: float) -> list[Act]:
        """The states after the box was switched on, as each relay's `power_on` says. `last` are
        the states before. Of a group only the first one goes on."""
        self._began_s = now_s
        acts: list[Act] = []
        for name, track in self._tracks.items():
            rule = track.rules.power_on
            wanted = rule == "on" or (rule == "last" and last.get(name, False))
            if wanted and not self._others_on(track):
                acts.append(self._switch(track, True, now_s, "power_on"))
        return acts

    def stop(self, now_s: float) -> list[Act]:
        """What has to be switched before hands ends: relays with `on_stop = "safe"` go off."""
        acts: list[Act] = []
        for track in self._tracks.values():
            track.job = None
            if track.on and track.rules.on_stop == "safe":
                acts.append(self._switch(track, False, now_s, "stop"))
        return acts

    def save(self) -> dict[str, Any]:
        """What a later engine has to know, as plain JSON."""
        return {
            name: {
                "on": t.on,
                "changed_s": t.changed_s if math.isfinite(t.changed_s) else None,
                "switched": list(t.switched),
                "back": _job_saved(t.job),
            }
            for name, t in self._tracks.items()
        }

    def restore(
        self,
        saved: Mapping[str, Any],
        now_s: float,
        *,
        same_boot: bool,
        seen: Mapping[str, bool] | None = None,
    ) -> list[Act]:
        """Go on from what `save` gave. `seen` is what was read back from lines that were held
        meanwhile: it counts more than what was saved. After another boot the switchings of the
        last hour count as done at its beginning, and no relay is on before `power_on` says so.
        Returns what has to be switched to make the lines agree with the rules. Raises `ValueError`
        for what `save` never gave."""
        seen = seen or {}
        for name, track in self._tracks.items():
            past = pasts.of(saved.get(name))
            if not same_boot:
                track.switched.extend(0.0 for _ in past.switched)
                track.changed_s = LONG_AGO_S if past.changed_s == LONG_AGO_S else 0.0
                continue
            track.switched.extend(min(t, now_s) for t in past.switched)
            track.on, track.changed_s = past.on, min(past.changed_s, now_s)
            if name in seen and seen[name] is not track.on:
                track.on, track.changed_s = seen[name], now_s
            if track.on and not math.isfinite(track.changed_s):
                track.changed_s = now_s
            if (back := past.back) is not None:
                at_s = min(back.at_s, now_s + track.rules.pulse_s)
                track.job = _Job(back.on, at_s, "pulse_end", back.by, glass=False)
        return self._mend(now_s)

    def _mend(self, now_s: float) -> list[Act]:
        """Lines may be found as no rule allows: two of a group on. All but one go off."""
        return [
            self._switch(track, False, now_s, "restore")
            for track in self._tracks.values()
            if track.on and self._others_on(track)
        ]


def _job_saved(job: _Job | None) -> Mapping[str, Any] | None:
    """Only the end of a pulse outlives a restart: a wish that waits is asked again."""
    if job is None or job.cause != "pulse_end":
        return None
    return {"on": job.on, "at_s": job.at_s, "by": job.by}
