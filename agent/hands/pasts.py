"""What was saved of a relay, read back with suspicion: the file may be another's, or damaged."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LONG_AGO_S = -math.inf
_FAR_S = 1e10  # 300 years: no clock of a box has come so far


@dataclass(frozen=True, slots=True)
class Back:
    """The end of a pulse that was under way: the state, when, and who asked for it."""

    on: bool
    at_s: float
    by: str


@dataclass(frozen=True, slots=True)
class Past:
    """One relay as it was; boot-time seconds of the boot it was saved in."""

    on: bool = False
    changed_s: float = LONG_AGO_S
    switched: tuple[float, ...] = ()
    back: Back | None = None

    @property
    def last(self) -> bool:
        """What it was, or would have been again after the pulse it was in."""
        return self.on if self.back is None else self.back.on


def of(raw: Any) -> Past:
    """One relay from what `Engine.save` gave of it; None is nothing known. Raises `ValueError` for
    anything else."""
    if raw is None:
        return Past()
    try:
        changed, back = raw["changed_s"], raw["back"]
        return Past(
            on=_flag(raw["on"]),
            changed_s=LONG_AGO_S if changed is None else time(changed),
            switched=tuple(time(t) for t in raw["switched"]),
            back=None
            if back is None
            else Back(_flag(back["on"]), time(back["at_s"]), str(back["by"])),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"no saved relay: {error!r}") from None


def all_of(raw: Mapping[str, Any]) -> dict[str, Past]:
    """Every relay that was saved. Raises `ValueError`."""
    return {name: of(one) for name, one in raw.items()}


def _flag(raw: Any) -> bool:
    if not isinstance(raw, bool):
        raise ValueError(f"{raw!r} is neither true nor false")
    return raw


def time(raw: Any) -> float:
    """A boot time that a box can have, in seconds. Raises `ValueError`."""
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not -_FAR_S < raw < _FAR_S:
        raise ValueError(f"{raw!r} is no time")
    return float(raw)
