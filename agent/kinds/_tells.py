"""What a worker may tell: every key with its unit, its rounding and its range.

A kind that has a driver declares its `TELLS`. The driver rounds as declared, and the agent does it
once more with `coarse`, so that the bound on what leaves a worker holds whatever the worker says:
what is not declared is dropped. The tables of docs/privacy.md are made of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.model import Scalar


@dataclass(frozen=True, slots=True)
class Tell:
    """One key. A number is rounded to whole `step`s and kept within `low`..`high`; a flag is a
    number of one bit, a word one of `words`."""

    says: str
    unit: str
    low: float = 0.0
    high: float = 1.0
    step: float = 1.0
    words: frozenset[str] = field(default=frozenset())

    @property
    def bits(self) -> float:
        """How much it can say at most."""
        many = len(self.words) or round((self.high - self.low) / self.step) + 1
        return math.log2(many)

    @property
    def rounding(self) -> str:
        """Step and range, for people."""
        if self.words:
            return ", ".join(sorted(self.words))
        if self.unit == YES_NO:
            return "yes or no"
        return f"{self.step:g} ({self.low:g} to {self.high:g})"


YES_NO, WORD = "flag", "word"


def flag(says: str) -> Tell:
    """Yes or no."""
    return Tell(says, YES_NO)


def word(says: str, words: frozenset[str]) -> Tell:
    """One word of a closed list."""
    return Tell(says, WORD, words=words)


COMMON: Mapping[str, Tell] = {
    "present": flag("the kernel shows the device"),
    "errno": Tell("error number of the kernel", "", 0, 255),
}
"""What every worker may tell: why there is no reading."""


def coarse(
    values: Mapping[str, Scalar], tells: Mapping[str, Tell]
) -> tuple[dict[str, Scalar], list[str]]:
    """The values rounded as declared, and the keys that had to be dropped. What is rounded already
    stays as it is."""
    kept: dict[str, Scalar] = {}
    dropped: list[str] = []
    for key, value in values.items():
        tell = tells.get(key) or COMMON.get(key)
        rounded = None if tell is None else _round(value, tell)
        if rounded is None:
            dropped.append(key)
        else:
            kept[key] = rounded
    return kept, dropped


def _round(value: Scalar, tell: Tell) -> Scalar | None:
    """The value on the grid, None where it is of another sort than declared."""
    if isinstance(value, bool) or tell.unit == YES_NO:
        return value if isinstance(value, bool) and tell.unit == YES_NO else None
    if isinstance(value, str) or tell.words:
        return value if isinstance(value, str) and value in tell.words else None
    if value != value:
        return None
    steps = round(min(max(value, tell.low), tell.high) / tell.step)
    whole = isinstance(value, int) and float(tell.step).is_integer()
    return int(steps * tell.step) if whole else round(steps * tell.step, 6)


def bits(tells: Mapping[str, Tell]) -> float:
    """The most that one answer can say, all its keys together; whether a key is there or not is a
    bit more for each."""
    return sum(tell.bits + 1 for tell in (*tells.values(), *COMMON.values()))


def table(tells: Mapping[str, Tell]) -> str:
    """The keys of a kind, as the rows of a table in Markdown."""
    lines = ["| key | what | unit | rounded to | bits |", "|---|---|---|---|---|"]
    for key, tell in tells.items():
        unit = "" if tell.unit in (YES_NO, WORD) else tell.unit
        rounding, size = tell.rounding, f"{tell.bits:.1f}"
        lines.append(f"| `{key}` | {tell.says} | {unit} | {rounding} | {size} |")
    return "\n".join(lines)
