"""Findings -> incidents: opened once, closed once, dated when it happened."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from agent.model import Finding, Incident, Level, Moment

_NOT_OK = (Level.WARN, Level.FAIL, Level.UNKNOWN)
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Edges:
    """What began and what ended; `now_open` is the register after both."""

    opened: tuple[Incident, ...]
    closed: tuple[Incident, ...]
    now_open: Mapping[Key, Incident]


def step(known: Mapping[Key, Incident], findings: Iterable[Finding], now: Moment) -> Edges:
    """Compare the open incidents with the findings that stand now.

    A finding without a date (nothing was looked at yet) is no incident. A level that changes
    keeps the incident open: the register carries the new level, nothing is opened twice.
    """
    standing = {
        (f.device, f.code): f for f in findings if f.level in _NOT_OK and f.since is not None
    }
    opened = tuple(
        Incident(f.device, f.code, f.level, f.since, f.numbers)
        for key, f in standing.items()
        if key not in known and f.since is not None
    )
    closed = tuple(replace(i, until=now) for key, i in known.items() if key not in standing)
    now_open = {
        key: replace(i, level=standing[key].level) for key, i in known.items() if key in standing
    }
    now_open.update({(i.device, i.code): i for i in opened})
    return Edges(opened, closed, now_open)
