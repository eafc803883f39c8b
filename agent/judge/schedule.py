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


def mode_of(
    hearings: Sequence[Hearing], now: Moment, override: Mode | None = None, *, held: bool = False
) -> Mode:
    """What the room is doing. A person's word on the session (begun, paused, over) wins; then the
    schedule; then maintenance, which a hearing ends; then `held`: another program has camera and
    microphone, so somebody is in a call."""
    if override not in (None, Mode.MAINTENANCE):
        return override
    hearing = current_hearing(hearings, now)
    scheduled = Mode.IDLE
    if hearing is not None and now.utc_s >= hearing.starts_s - PREPARE_S:
        scheduled = Mode.PREPARING if now.utc_s < hearing.starts_s else Mode.IN_SESSION
    if scheduled is Mode.IN_SESSION:
        return scheduled
    if override is not None:
        return override
    return Mode.IN_SESSION if held else scheduled


def session_in_s(hearings: Sequence[Hearing], now: Moment) -> float | None:
    """Seconds until the next session that is known begins, None without one; 0 in a session."""
    hearing = current_hearing(hearings, now)
    return None if hearing is None else max(0.0, hearing.starts_s - now.utc_s)


def next_change_s(hearings: Sequence[Hearing], now: Moment) -> float | None:
    """Seconds until the schedule changes the mode, None when it never will."""
    edges = [e for h in hearings for e in (h.starts_s - PREPARE_S, h.starts_s, h.ends_s)]
    return min((e - now.utc_s for e in edges if e > now.utc_s), default=None)
