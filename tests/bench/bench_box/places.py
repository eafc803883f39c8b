"""Where the bench keeps images and run state: never in the repository."""

from __future__ import annotations

import os
from pathlib import Path

BENCH = Path(__file__).resolve().parents[1]
CHECKOUT = BENCH.parents[1]
HANDS = BENCH / "bench_hands"


def cache() -> Path:
    """`$HEARING_ROOM_BENCH_DIR`, or `~/.cache/hearing-room-bench`. About 1 GB."""
    named = os.environ.get("HEARING_ROOM_BENCH_DIR")
    return Path(named or "~/.cache/hearing-room-bench").expanduser().absolute()


def run_folder(name: str) -> Path:
    """Sockets, disk and log of the box of that name."""
    return cache() / "boxes" / name
