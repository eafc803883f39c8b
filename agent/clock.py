"""The two clocks of a box: boot time for durations, UTC as a label that says how good it is."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from pathlib import Path

from agent.model import Clock, Moment

_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
STEP_S = 1.0
"""A clock that moved by more than this against the boot-time clock was set, not disciplined:
slewing speeds up both alike. A leap second stays below it."""
_HOLDOVER_S = 86_400.0
"""How long a clock that was synchronised in this boot counts as holdover. A Pi's crystal drifts
by some 50 ppm (4 s a day), still good enough to find a hearing in a schedule."""


def up_s() -> float:
    """CLOCK_BOOTTIME in seconds: goes on through suspend, never jumps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id(root: Path = Path("/")) -> str:
    """The first 8 hex digits of the kernel's boot id, zeros where it cannot be read."""
    try:
        return (root / "proc/sys/kernel/random/boot_id").read_text()[:8]
    except OSError:
        return "00000000"


def process_start(pid: int) -> int | None:
    """When a process began, in clock ticks since boot (proc(5), field 22 of stat): tells it from
    the next one with its number. None where there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[19])


def kernel_synchronised() -> bool:
    """Whether the kernel says that an NTP client disciplines the clock (adjtimex(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    timex = ctypes.create_string_buffer(512)  # struct timex is 208 bytes on 64-bit Linux
    state: int = libc.adjtimex(timex)
    return 0 <= state < _TIME_ERROR


class SystemClock:
    """Reads `Moment`s. Asks the kernel about synchronisation at most every `recheck_s`, and at
    once when UTC was set.

    In holdover UTC is what it was when it was last synchronised, carried on by the boot clock:
    whoever sets the clock of the box then moves no hearing and ends no session.
    """

    def __init__(
        self,
        recheck_s: float = 10.0,
        *,
        up_s: Callable[[], float] = up_s,
        utc_s: Callable[[], float] = time.time,
        synced: Callable[[], bool] = kernel_synchronised,
    ) -> None:
        self._boot = boot_id()
        self._recheck_s = recheck_s
        self._up_s = up_s
        self._utc_s = utc_s
        self._synced = synced
        self._checked_s = float("-inf")
        self._synced_s: float | None = None
        self._clock = Clock.UNSYNCED
        self._ahead_s = 0.0
        self._trusted_s = 0.0
        """UTC minus boot time: as seen last, and as it was when synchronised."""

    def now(self) -> Moment:
        """This instant on both clocks."""
        up, utc = self._up_s(), self._utc_s()
        stepped = abs(utc - up - self._ahead_s) > STEP_S
        self._ahead_s = utc - up
        if stepped or up - self._checked_s >= self._recheck_s:
            self._checked_s = up
            if self._synced():
                self._synced_s = up
                self._clock = Clock.SYNCED
            elif self._synced_s is not None and up - self._synced_s < _HOLDOVER_S:
                self._clock = Clock.HOLDOVER
            else:
                self._clock = Clock.UNSYNCED
        if self._clock is Clock.SYNCED:
            self._trusted_s = self._ahead_s
        elif self._clock is Clock.HOLDOVER:
            utc = up + self._trusted_s
        return Moment(up, utc, self._clock, self._boot)
