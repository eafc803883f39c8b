"""Whether a device may be brought back now: budget, pauses, sessions, and when a person is called.

A state machine of plain values: time comes in, a refusal or a new state comes out. A try counts as
failed from its first moment, so that whatever ends the agent in the midst of it is a failure.

Ages are on the boot clock. Of a try before this boot nothing is certain but that it was before it,
unless UTC was set by a time server both then and now: so a clock that jumps gives no budget back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from agent.model import Clock, Mode, Moment

DAY_S = 86_400.0
PAUSES_S = (60.0, 300.0, 1_800.0, 7_200.0)
"""The agent waits so long after the first, second ... try of a day; the last one stays."""
BY_AGENT_A_DAY = 4
A_DAY = 12
"""Tries a day, of the agent by itself, and of agent and people together."""
MAX_FAILURES = 2
"""So many failures in a row, then a person is called."""
LAST_S = 900.0
"""T-15: from here on the agent does nothing by itself, people are in the room."""
SOON_S = 60.0
"""A person's step has to be over when the session begins."""

RUNNING, OVER_BUDGET, PAUSED, STOPPED = "running", "over_budget", "paused", "stopped"
TOO_CLOSE = "too_close"


@dataclass(frozen=True, slots=True)
class Try:
    """One recipe that was begun, by the agent itself or for somebody."""

    at: Moment
    by_agent: bool


@dataclass(frozen=True, slots=True)
class Record:
    """What was tried with one device: the tries of a day, and the failures in a row."""

    tries: tuple[Try, ...] = ()
    failures: int = 0


@dataclass(frozen=True, slots=True)
class History:
    """All devices of the room; `running` is the one that is being brought back now, `begun` says
    that this is a try already: before, it is only looked at."""

    records: Mapping[str, Record] = field(default_factory=dict)
    running: str = ""
    begun: bool = False

    def of(self, device: str) -> Record:
        """What was tried with a device."""
        return self.records.get(device, Record())


@dataclass(frozen=True, slots=True)
class Wish:
    """Somebody wants a device back: the agent, or a person, perhaps with the glass broken."""

    device: str
    by_agent: bool
    glass: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why not now; `wait_s` is when to ask again, where time alone can help."""

    code: str
    wait_s: float | None = None


def age_s(at: Moment, now: Moment) -> float:
    """How long ago something was, at least: a moment of an earlier boot counts as this boot's
    beginning unless both clocks can be trusted."""
    if at.boot == now.boot:
        return max(0.0, now.up_s - at.up_s)
    if at.clock is Clock.SYNCED and now.clock is Clock.SYNCED:
        return max(now.up_s, now.utc_s - at.utc_s)
    return now.up_s


def may_begin(
    history: History, wish: Wish, *, mode: Mode, session_in_s: float | None, now: Moment
) -> Refusal | None:
    """None where a recipe may begin now, else why not. `session_in_s` is how long until the next
    session, None where none is known."""
    if history.running:
        return Refusal(RUNNING)
    return may_go_on(wish, mode=mode, session_in_s=session_in_s) or _too_often(
        history.of(wish.device), wish, now
    )


def may_go_on(wish: Wish, *, mode: Mode, session_in_s: float | None) -> Refusal | None:
    """None where the next step of a recipe may be taken now, else why not."""
    if mode is Mode.MAINTENANCE:
        return Refusal(mode.value)
    if wish.glass and not wish.by_agent:
        return None
    if mode not in (Mode.IDLE, Mode.PREPARING):
        return Refusal(mode.value)
    last_s = LAST_S if wish.by_agent else SOON_S
    if session_in_s is not None and session_in_s <= last_s:
        return Refusal(TOO_CLOSE)
    return None


def _too_often(record: Record, wish: Wish, now: Moment) -> Refusal | None:
    ages = sorted(age for t in record.tries if (age := age_s(t.at, now)) < DAY_S)
    if len(ages) >= A_DAY:
        return Refusal(OVER_BUDGET, DAY_S - ages[A_DAY - 1])
    if not wish.by_agent:
        return None
    if record.failures >= MAX_FAILURES:
        return Refusal(STOPPED)
    own = sorted(a for t in record.tries if t.by_agent and (a := age_s(t.at, now)) < DAY_S)
    if len(own) >= BY_AGENT_A_DAY:
        return Refusal(OVER_BUDGET, DAY_S - own[BY_AGENT_A_DAY - 1])
    if ages:
        pause_s = PAUSES_S[min(len(ages), len(PAUSES_S)) - 1]
        if ages[0] < pause_s:
            return Refusal(PAUSED, pause_s - ages[0])
    return None


def claimed(history: History, device: str) -> History:
    """A device is looked at in order to be brought back; nothing else begins meanwhile."""
    if history.running:
        raise ValueError(f"{history.running} is being brought back")
    return replace(history, running=device)


def begun(history: History, wish: Wish, now: Moment) -> History:
    """A recipe begins. A person who asks has seen the failures before: they count no more."""
    record = history.of(wish.device)
    kept = tuple(t for t in record.tries if age_s(t.at, now) < DAY_S)
    failures = record.failures if wish.by_agent else 0
    new = Record((*kept, Try(now, wish.by_agent)), failures + 1)
    return History({**history.records, wish.device: new}, wish.device, begun=True)


def ended(history: History, healed: bool | None) -> History:
    """The recipe that runs is over. None: it came to nothing, and says nothing of the device (a
    session began, somebody took the device); then it was a try, but no failure."""
    record = history.of(history.running)
    if healed is False:
        return released(history)
    failures = 0 if healed else record.failures - 1
    records = {**history.records, history.running: replace(record, failures=failures)}
    return History(records)


def released(history: History) -> History:
    """Nothing runs any more."""
    return History(history.records)


def cleared(history: History, device: str) -> History:
    """The fault of a device is over, whoever cured it: failures before count no more."""
    record = history.of(device)
    if not record.failures or history.running == device:
        return history
    return replace(history, records={**history.records, device: replace(record, failures=0)})


def stopped(history: History) -> Mapping[str, int]:
    """The devices for which a person is called, and how many failures in a row that was."""
    return {
        name: record.failures
        for name, record in history.records.items()
        if record.failures >= MAX_FAILURES and name != history.running
    }


# -- a restart ---------------------------------------------------------------------------------


def dump(history: History) -> bytes:
    """A history as JSON; what was running is not running after a restart."""
    records = {
        name: {"failures": r.failures, "tries": [[*_moment(t.at), t.by_agent] for t in r.tries]}
        for name, r in history.records.items()
    }
    running = history.running if history.begun else ""
    return json.dumps({"running": running, "records": records}).encode()


def load(saved: bytes | None) -> tuple[History, str]:
    """The history before a restart, and the device whose recipe was broken off by it, if any.
    Nonsense is an empty history."""
    try:
        raw = json.loads(saved or b"{}")
        records = {str(name): _record(one) for name, one in raw.get("records", {}).items()}
        running = str(raw.get("running", ""))
    except (AttributeError, KeyError, TypeError, ValueError):
        return History(), ""
    return History(records), running if running in records else ""


def _moment(at: Moment) -> tuple[float, float, str, str]:
    return at.up_s, at.utc_s, at.clock.value, at.boot


def _record(raw: Mapping[str, object]) -> Record:
    tries, failures = raw["tries"], raw["failures"]
    if not isinstance(tries, list) or not isinstance(failures, int):
        raise TypeError("no record")
    made = tuple(
        Try(Moment(float(up), float(utc), Clock(clock), str(boot)), bool(by_agent))
        for up, utc, clock, boot, by_agent in tries
    )
    return Record(made, max(0, failures))
