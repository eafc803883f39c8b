"""Findings + requirements + next hearing -> readiness."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from agent.model import (
    Clock,
    ConfigError,
    Device,
    Finding,
    Hearing,
    Level,
    Mode,
    Moment,
    Readiness,
    State,
    worst,
)

_FOLDER = Path(__file__).with_name("requirements")
_ORDER = (State.READY, State.AT_RISK, State.UNKNOWN, State.NOT_READY)
_REQUIRED = {Level.FAIL: State.NOT_READY, Level.UNKNOWN: State.UNKNOWN, Level.WARN: State.AT_RISK}
_SEVERITY = {Level.FAIL: 0, Level.UNKNOWN: 1, Level.WARN: 2, Level.INFO: 3, Level.OK: 4}


@dataclass(frozen=True, slots=True)
class Requirements:
    """What a room must have: a versioned file of data.

    `levels` raises or lowers the level of a code, `max_age_s` says per kind how old the evidence
    may be (seconds).
    """

    id: str
    version: int
    title: Mapping[str, str] = field(default_factory=dict)
    levels: Mapping[str, Level] = field(default_factory=dict)
    max_age_s: Mapping[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """`generic@1`."""
        return f"{self.id}@{self.version}"


def names() -> list[str]:
    """The requirements that are shipped."""
    return sorted(file.stem for file in _FOLDER.glob("*.toml"))


def load(name: str) -> Requirements:
    """Requirements by name. Raises `ConfigError` for one that is not shipped."""
    if name not in names():
        raise ConfigError(f"no requirements {name!r}; there are {', '.join(names())}")
    raw = tomllib.loads((_FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    return Requirements(
        id=name,
        version=raw["version"],
        title=raw.get("title", {}),
        levels={code: Level(level) for code, level in raw.get("levels", {}).items()},
        max_age_s=raw.get("max_age_s", {}),
    )


def apply_levels(findings: Sequence[Finding], requirements: Requirements) -> list[Finding]:
    """The findings with the levels that the requirements give them."""
    return [replace(f, level=requirements.levels.get(f.code, f.level)) for f in findings]


def fold(
    devices: Sequence[Device],
    findings: Sequence[Finding],
    *,
    mode: Mode,
    hearing: Hearing | None,
    requirements: Requirements,
    now: Moment,
    valid_for_s: float,
) -> Readiness:
    """The room's answer, from the findings that stand now.

    A required device that fails makes the room `not_ready`, one that is not known `unknown`, one
    that warns `at_risk`; what is not required (and the agent itself) can only put it at risk.
    With no required device there is nothing to be ready with: `unknown`. A named hearing cannot
    be placed by a clock that nobody set: `unknown`. `valid_for_s` is how long the answer stands
    when nothing more is heard.
    """
    levels = {d.id: worst(f.level for f in findings if f.device == d.id) for d in devices}
    required = {d.id for d in devices if d.required}
    reasons = [f for f in findings if f.level in _REQUIRED]
    states = [State.READY]
    states += [_REQUIRED[f.level] if f.device in required else State.AT_RISK for f in reasons]
    if not required:
        reasons.append(Finding("agent.nothing_configured", Level.UNKNOWN))
        states.append(State.UNKNOWN)
    if hearing is not None and now.clock is Clock.UNSYNCED:
        reasons = [f for f in reasons if f.code != "host.clock_unsynced"]
        reasons.append(Finding("host.clock_unsynced", Level.UNKNOWN))
        states.append(State.UNKNOWN)
    reasons.sort(key=lambda f: (f.device not in required, _SEVERITY[f.level], f.device, f.code))
    return Readiness(
        state=max(states, key=_ORDER.index),
        mode=mode,
        hearing=hearing,
        reasons=tuple(reasons),
        devices=Counter(levels.values()),
        virtual=sum(d.virtual for d in devices),
        requirements=requirements.name,
        valid_until_s=now.up_s + valid_for_s,
    )
