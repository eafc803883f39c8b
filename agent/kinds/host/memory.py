"""What one look at the box cannot tell: what was before. Pure state; times are boot seconds."""

from __future__ import annotations

from collections.abc import Sequence

from agent.clock import STEP_S
from agent.kinds.host.facts import Sleeper, Values


class Dips:
    """Counts how often the supply was too weak, and when it last was."""

    def __init__(self) -> None:
        self._on = False
        self._count = 0
        self._last_s: float | None = None

    def see(self, on: bool | None, now_s: float) -> Values:
        """`undervoltage` as it is now, `undervoltage_count` since the start of the agent, and
        `undervoltage_age_s` once there was one. `on` is None where it could not be read."""
        values: Values = {}
        if on is not None:
            self._count += on and not self._on
            self._on = on
            values["undervoltage"] = on
        if self._on:
            self._last_s = now_s
        if on is not None or self._count:
            values["undervoltage_count"] = self._count
        if self._last_s is not None:
            values["undervoltage_age_s"] = round(now_s - self._last_s)
        return values


class Steps:
    """Notices that the clock was set: UTC against boot time, from one look to the next."""

    def __init__(self) -> None:
        self._offset_s: float | None = None
        self._synced = False
        self._count = 0
        self._last: tuple[float, float, bool] | None = None

    def see(self, utc_s: float, now_s: float, synced: bool | None) -> Values:
        """`clock_synced`, `clock_steps` (how often), and of the last step `clock_step_s` (ahead is
        positive), `clock_step_age_s`, `clock_step_synced` (it was thought right before)."""
        offset_s = utc_s - now_s
        if self._offset_s is not None and abs(offset_s - self._offset_s) > STEP_S:
            self._count += 1
            self._last = (offset_s - self._offset_s, now_s, self._synced)
        self._offset_s = offset_s
        self._synced = bool(synced)
        values: Values = {} if synced is None else {"clock_synced": synced}
        values["clock_steps"] = self._count
        if self._last is not None:
            step_s, at_s, before = self._last
            values["clock_step_s"] = round(step_s, 3)
            values["clock_step_age_s"] = round(now_s - at_s)
            values["clock_step_synced"] = before
        return values


class Stuck:
    """Tells a process that has not run since the last look from one that is merely waiting."""

    def __init__(self) -> None:
        self._since_s: dict[Sleeper, float] = {}

    @property
    def watching(self) -> bool:
        """Whether somebody was asleep at the last look."""
        return bool(self._since_s)

    def see(self, sleepers: Sequence[Sleeper], now_s: float) -> Values:
        """`stuck_processes`, and of the one asleep longest `stuck_pid` and `stuck_s`.

        A sleeper seen again with the same count of switches has not run in between, which is how
        the kernel's own hung-task watch tells it; a busy disk user has.
        """
        self._since_s = {s: self._since_s.get(s, now_s) for s in sleepers}
        values: Values = {"stuck_processes": 0}
        stuck = {s: since for s, since in self._since_s.items() if since < now_s}
        if stuck:
            oldest = min(stuck, key=stuck.__getitem__)
            values["stuck_processes"] = len(stuck)
            values["stuck_pid"] = oldest.pid
            values["stuck_s"] = round(now_s - stuck[oldest])
        return values


class Errors:
    """Tells errors that came while we watched from those of the past."""

    def __init__(self) -> None:
        self._first: int | None = None

    def see(self, count: int | None) -> Values:
        """`storage_errors` in all, `storage_errors_new` since the start of the agent."""
        if count is None:
            return {}
        # A full check of the file system starts the count again.
        self._first = count if self._first is None else min(self._first, count)
        return {"storage_errors": count, "storage_errors_new": count - self._first}
