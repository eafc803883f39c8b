"""The nouns of the agent, and no more: frozen values, standard library only.

Durations, deadlines and ages are seconds on the boot-time clock (`up_s`); UTC is a label
that says whether the clock could be trusted when it was written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

Scalar = bool | int | float | str
"""What a reading may hold: flat, units in the key, words from a closed list."""


class AgentError(Exception):
    """Root of the errors that the agent raises on purpose.

    AgentError
    |- ConfigError(ValueError)    a file or table the person must mend
    |- WireError(ValueError)      a line that breaks the rules of a lane
    |- LaneError(RuntimeError)    a worker that could not be had at all
    |- StoreError(RuntimeError)   the database did not take it
    `- Refused(RuntimeError)      a command that may not run; carries its code

    A device that fails is none of these: it is a `Reading` with a fault.
    """


class ConfigError(AgentError, ValueError):
    """A configuration that cannot be used; the message names place and fix."""


class WireError(AgentError, ValueError):
    """A line on a lane that is late, too long, not JSON or says what it may not."""


class LaneError(AgentError, RuntimeError):
    """No worker could be started."""


class StoreError(AgentError, RuntimeError):
    """The store did not answer, or the disk did not take it."""


class Refused(AgentError, RuntimeError):
    """A command that is refused: `code` is a closed word, the message is for people."""

    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(message or code)
        self.code = code


class Level(StrEnum):
    """How bad a finding is; `UNKNOWN` is never a kind of good."""

    OK = "ok"
    INFO = "info"
    WARN = "warn"
    FAIL = "fail"
    UNKNOWN = "unknown"


_SEVERITY = {Level.OK: 0, Level.INFO: 1, Level.WARN: 2, Level.UNKNOWN: 3, Level.FAIL: 4}


def worst(levels: Iterable[Level]) -> Level:
    """The worst of some levels, `ok` of none: fail > unknown > warn > info > ok."""
    return max(levels, key=_SEVERITY.__getitem__, default=Level.OK)


class Fault(StrEnum):
    """Why the hardware could not be read."""

    ABSENT = "absent"
    NO_ANSWER = "no_answer"
    ERROR = "error"
    BUSY = "busy"
    SKIPPED = "skipped"
    QUARANTINED = "quarantined"


class Mode(StrEnum):
    """What the room is doing."""

    IDLE = "idle"
    PREPARING = "preparing"
    IN_SESSION = "in_session"
    RECESS = "recess"
    MAINTENANCE = "maintenance"


class State(StrEnum):
    """The room's answer for its next hearing."""

    READY = "ready"
    AT_RISK = "at_risk"
    NOT_READY = "not_ready"
    UNKNOWN = "unknown"


class Clock(StrEnum):
    """How far UTC can be trusted."""

    SYNCED = "synced"
    HOLDOVER = "holdover"
    UNSYNCED = "unsynced"


class Seat(StrEnum):
    """Whose device it is."""

    JUDGE = "judge"
    PROSECUTOR = "prosecutor"
    DEFENDANT = "defendant"
    COUNSEL = "counsel"
    INTERPRETER = "interpreter"
    CLERK = "clerk"
    PUBLIC = "public"


@dataclass(frozen=True, slots=True)
class Moment:
    """One instant, on both clocks.

    `up_s` is CLOCK_BOOTTIME in seconds, `utc_s` Unix seconds, `boot` the first 8 hex digits of
    the kernel's boot id. Two moments compare by `up_s` only within one boot.
    """

    up_s: float
    utc_s: float
    clock: Clock = Clock.SYNCED
    boot: str = "00000000"

    def after(self, seconds: float) -> Moment:
        """This moment moved by `seconds` on both clocks."""
        return Moment(self.up_s + seconds, self.utc_s + seconds, self.clock, self.boot)

    @property
    def iso(self) -> str:
        """UTC as `2026-11-23T01:00:00.000Z`."""
        return iso(self.utc_s)


def iso(utc_s: float) -> str:
    """Unix seconds as ISO 8601 in UTC, with milliseconds and `Z`."""
    at = datetime.fromtimestamp(utc_s, UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"


@dataclass(frozen=True, slots=True)
class Device:
    """Who is watched; never changes while the agent runs.

    `settings` is the kind's own validated `Settings` (its limits are in it).
    """

    id: str
    kind: str
    settings: Any
    name: str = ""
    required: bool = True
    seat: Seat | None = None
    profile: str | None = None
    virtual: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """What the hardware said, or why it could not.

    `values` are flat scalars with the unit in the key; a value that could not be measured is
    absent. `why` is a closed word that explains a fault (`in_session`, `errno`, ...). `identity`
    holds printable strings read before any stream is open; `fingerprint` up to 64 integers of
    0..15, only for the question `baseline`. `asked_s` is boot time, `took_s` a duration.
    `active` says that a device node was opened for it.
    """

    values: Mapping[str, Scalar] = field(default_factory=dict)
    fault: Fault | None = None
    why: str = ""
    device: str = ""
    asked_s: float = 0.0
    took_s: float = 0.0
    identity: Mapping[str, str] = field(default_factory=dict)
    fingerprint: tuple[int, ...] = ()
    active: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """One judged statement about one device.

    A kind's `judge` fills the first four; `since` and `valid_until_s` (boot time) are added when
    readings are folded.
    """

    code: str
    level: Level
    numbers: Mapping[str, Scalar] = field(default_factory=dict)
    device: str = ""
    since: Moment | None = None
    valid_until_s: float | None = None


@dataclass(frozen=True, slots=True)
class Incident:
    """An interval of not-ok: opened once, closed once, dated when it happened."""

    device: str
    code: str
    level: Level
    since: Moment
    numbers: Mapping[str, Scalar] = field(default_factory=dict)
    until: Moment | None = None


@dataclass(frozen=True, slots=True)
class Hearing:
    """One line of the schedule: opaque id, Unix seconds."""

    id: str
    starts_s: float
    ends_s: float


@dataclass(frozen=True, slots=True)
class Readiness:
    """The room's answer for its next hearing (or for now, without a schedule)."""

    state: State
    mode: Mode
    hearing: Hearing | None
    reasons: tuple[Finding, ...]
    devices: Mapping[Level, int]
    virtual: int
    requirements: str
    valid_until_s: float


@dataclass(frozen=True, slots=True)
class Command:
    """A wish with an id and an expiry."""

    id: str
    name: str
    args: Mapping[str, Scalar] = field(default_factory=dict)
    ttl_s: float = 30.0
    by: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The one answer to a command, with the state that was read back."""

    id: str
    state: str
    code: str
    effect: Mapping[str, Scalar] = field(default_factory=dict)
    took_s: float = 0.0
