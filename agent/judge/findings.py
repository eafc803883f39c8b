"""Readings -> findings, with watching periods both ways.

A fault is raised when it was seen at least twice and for `raise_s`; it is cleared when good was
seen at least twice and for `clear_s`. A good reading resets what was about to be raised, a bad
one what was about to be cleared. Evidence that is too old is `unknown` by itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from agent.model import Fault, Finding, Incident, Level, Moment, Reading

TIMES = 2
"""How often a thing must be seen before it counts, whatever the period."""

NO_EVIDENCE = "agent.no_evidence"
_BAD = (Level.WARN, Level.FAIL, Level.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Watch:
    """The watching periods of one device, and how long a reading of it is evidence (seconds).

    `times` is how often a thing must be seen before it counts.
    """

    raise_s: float
    clear_s: float
    valid_s: float
    times: int = TIMES


@dataclass(frozen=True, slots=True)
class Track:
    """One code of one device on its way up or down."""

    finding: Finding
    since: Moment
    last_bad_s: float
    bad: int = 1
    raised: bool = False
    good: int = 0
    good_from_s: float | None = None


@dataclass(frozen=True, slots=True)
class DeviceState:
    """All that is known of one device. `settled` is False until a first verdict stands."""

    tracks: Mapping[str, Track] = field(default_factory=dict)
    settled: bool = False
    evidence: Moment | None = None
    reading: Reading | None = None

    @property
    def pending(self) -> bool:
        """Whether a fault is about to be raised or cleared: worth asking again soon."""
        return any(not t.raised or t.good for t in self.tracks.values())


def restore(incidents: Iterable[Incident], now: Moment) -> DeviceState:
    """The state of a device after a restart: what was open stays open until good is seen."""
    tracks = {
        i.code: Track(
            finding=Finding(i.code, i.level, i.numbers, i.device),
            since=i.since,
            last_bad_s=now.up_s,
            bad=TIMES,
            raised=True,
        )
        for i in incidents
        if not i.code.startswith("agent.")  # those are the agent's own, not a reading's
    }
    return DeviceState(tracks=tracks)


def fold(
    state: DeviceState,
    reading: Reading,
    findings: Collection[Finding],
    watch: Watch,
    now: Moment,
    *,
    scope: Collection[str] | None = None,
    evidence: bool = True,
) -> DeviceState:
    """The state after one reading.

    `scope` are the codes that this reading can speak about (None = all of them): a passive one
    says nothing about a picture. `evidence` is False where it does not renew the verdict (a
    passive reading out of session). A skipped reading changes nothing but the last numbers.
    """
    if reading.fault is Fault.SKIPPED:
        return replace(state, reading=reading)
    seen = {f.code: f for f in findings if f.level is not Level.OK}
    tracks: dict[str, Track] = {}
    for code in state.tracks.keys() | seen.keys():
        before = state.tracks.get(code)
        if scope is not None and code not in scope and code not in seen:
            kept = before
        elif code in seen:
            kept = _worse(before, seen[code], watch, now)
        else:
            kept = _better(before, watch, now)
        if kept is not None:
            tracks[code] = kept
    waiting = any(not t.raised and t.finding.level in _BAD for t in tracks.values())
    raised = any(t.raised for t in tracks.values())
    settled = state.settled or (evidence and not waiting) or (raised and not waiting)
    return DeviceState(
        tracks=tracks,
        settled=settled,
        evidence=now if evidence or seen else state.evidence,
        reading=reading,
    )


def _worse(before: Track | None, finding: Finding, watch: Watch, now: Moment) -> Track:
    if before is None:
        first = Track(finding, since=now, last_bad_s=now.up_s)
        # What is merely worth knowing needs no watching.
        return replace(first, raised=watch.raise_s == 0 or finding.level is Level.INFO)
    bad = before.bad + 1
    long_enough = now.up_s - before.since.up_s >= watch.raise_s
    return replace(
        before,
        finding=finding,
        last_bad_s=now.up_s,
        bad=bad,
        raised=before.raised or (bad >= watch.times and long_enough),
        good=0,
        good_from_s=None,
    )


def _better(before: Track | None, watch: Watch, now: Moment) -> Track | None:
    if before is None or not before.raised or before.finding.level is Level.INFO:
        return None
    good = before.good + 1
    start = now.up_s if before.good_from_s is None else before.good_from_s
    if good >= watch.times and now.up_s - start >= watch.clear_s:
        return None
    return replace(before, good=good, good_from_s=start)


def extend(state: DeviceState, now: Moment) -> DeviceState:
    """The state with its evidence renewed: in session the kernel's word keeps a verdict alive."""
    return replace(state, evidence=now) if state.settled else state


def valid_until_s(state: DeviceState, watch: Watch) -> float | None:
    """Boot time at which what is known runs out; None while nothing is known."""
    if not state.settled or state.evidence is None:
        return None
    return state.evidence.up_s + watch.valid_s


def current(state: DeviceState, device: str, watch: Watch, now: Moment) -> list[Finding]:
    """The findings that stand now, worst knowledge first: empty means `ok`.

    A device never judged, or judged too long ago, carries `agent.no_evidence`. Only the second
    is dated (when the evidence ran out): it is an incident, a start is not.
    """
    until = valid_until_s(state, watch)
    found = [
        replace(t.finding, device=device, since=t.since, valid_until_s=until)
        for t in state.tracks.values()
        if t.raised
    ]
    if until is None or state.evidence is None:
        found.append(Finding(NO_EVIDENCE, Level.UNKNOWN, device=device))
    elif now.up_s > until:
        ran_out = state.evidence.after(watch.valid_s)
        age = {"age_s": round(now.up_s - state.evidence.up_s)}
        found.append(Finding(NO_EVIDENCE, Level.UNKNOWN, age, device, ran_out, until))
    return sorted(found, key=lambda f: f.code)
