"""The disk and the clock of the box."""

from __future__ import annotations

import os
import time
from pathlib import Path

from bench_hands import Wrong, run

_FILLER = Path("/var/lib/bench-filler")


def disk(words: list[str]) -> None:
    """`fill` (leaving so many MB), `free`, `readonly` (as after an error of the disk)."""
    what = words[0]
    if what == "fill":
        left = int(words[1]) if words[1:] else 0
        state = os.statvfs("/")
        size = state.f_bavail * state.f_frsize - (left << 20)
        if size > 0 and run("fallocate", "-l", size, _FILLER):
            raise Wrong("the disk could not be filled")
    elif what == "free":
        _FILLER.unlink(missing_ok=True)
    elif what == "readonly":
        Path("/sys/fs/ext4/vda/trigger_fs_error").write_text("1")
    else:
        raise Wrong("fill, free or readonly")


def clock(words: list[str]) -> None:
    """Sets the wall clock; the others run on."""
    time.clock_settime(time.CLOCK_REALTIME, float(words[0]))
