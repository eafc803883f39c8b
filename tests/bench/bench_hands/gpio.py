"""The other end of the GPIO lines: what the agent drives, and what it sees.

A button is wired to ground: pressed is low, released is high.
"""

from __future__ import annotations

import time
from pathlib import Path

from bench_hands import Wrong
from bench_hands.hardware import NAMED


def gpio(words: list[str]) -> None:
    """`read`, `high`, `low`, `pulse` (low for some seconds), `list`."""
    what, lines = words[0], _lines()
    if what == "list":
        print(*(f"{n}={_value(lines[n])}" for n in sorted(lines) if n < NAMED))
        return
    try:
        line = lines[int(words[1])]
    except (KeyError, ValueError, IndexError):
        raise Wrong(f"no such line; they are 0 to {max(lines)}") from None
    if what == "read":
        print(_value(line))
    elif what in ("high", "low"):
        _pull(line, up=what == "high")
    elif what == "pulse":
        _pull(line, up=False)
        time.sleep(float(words[2]))
        _pull(line, up=True)
    else:
        raise Wrong("read, high, low, pulse or list")


def _lines() -> dict[int, Path]:
    found = Path("/sys/devices/platform").glob("gpio-sim.*/gpiochip*/sim_gpio*")
    return {int(path.name.removeprefix("sim_gpio")): path for path in found}


def _value(line: Path) -> str:
    return (line / "value").read_text().strip()


def _pull(line: Path, *, up: bool) -> None:
    (line / "pull").write_text("pull-up" if up else "pull-down")
