"""Hearings + now -> mode. The full timetable (T-60, T-30, T-15, T-10) stands on this."""

from __future__ import annotations

from collections.abc import Sequence

from agent.model import Hearing, Mode, Moment

PREPARE_S = 3_600.0
"""T-60: the technician is in the room and the active test runs (Lam Dong operating manual)."""


def current_hearing(hearings: Sequence[Hearing], now: Moment) -> Hearing | None:
    """The hearing that runs now, else the next one, else None."""
    coming = [h for h in hearings if h.ends_s > now.utc_s]
    return min(coming, key=lambda h: (h.starts_s, h.ends_s), default=None)


def mode_of(hearings: Sequence[Hearing], now: Moment, override: Mode | None = None) -> Mode:
    """What the room is doing: a mode that a person set wins, then the schedule."""
    if override is not None:
        return override
    hearing = current_hearing(hearings, now)
    if hearing is None or now.utc_s < hearing.starts_s - PREPARE_S:
        return Mode.IDLE
    return Mode.PREPARING if now.utc_s < hearing.starts_s else Mode.IN_SESSION


def next_change_s(hearings: Sequence[Hearing], now: Moment) -> float | None:
    """Seconds until the schedule changes the mode, None when it never will."""
    edges = [e for h in hearings for e in (h.starts_s - PREPARE_S, h.starts_s, h.ends_s)]
    return min((e - now.utc_s for e in edges if e > now.utc_s), default=None)
