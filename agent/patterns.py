"""What the lights say: one table for the process that lights them, for the card and for the tests.

No pattern relies on colour: each is told from every other by its rhythm alone, so that one lamp of
one colour, or eyes that cannot tell red from green, are enough. Colours follow IEC 60073: red a
fault, yellow something abnormal, green normal, blue an action that is asked for, white neutral.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

LOST_S = 10.0
"""Without a word from the agent for so long, no light may say how the room is."""


class Colour(StrEnum):
    """What a lamp can show."""

    RED = "red"
    YELLOW = "yellow"
    GREEN = "green"
    BLUE = "blue"
    WHITE = "white"


@dataclass(frozen=True, slots=True)
class Pattern:
    """A rhythm of one colour: seconds lit, dark, lit, dark ... repeated. No times: steady."""

    name: str
    colour: Colour | None
    times: tuple[float, ...] = ()

    def at(self, elapsed_s: float) -> tuple[Colour | None, float]:
        """What is shown `elapsed_s` after the pattern began, and in how many seconds that changes
        (infinite for a steady light)."""
        if not self.times or self.colour is None:
            return self.colour, math.inf
        place = elapsed_s % sum(self.times)
        for number, length in enumerate(self.times):
            if place < length:
                return (None if number % 2 else self.colour), length - place
            place -= length
        return self.colour, self.times[0]  # a rounding error at the very end


def counted(name: str, colour: Colour, count: int) -> Pattern:
    """`count` short blinks and a pause, to be counted by a person."""
    return Pattern(name, colour, (0.25, 0.35) * (count - 1) + (0.25, 1.6))


FAMILIES: Mapping[int, tuple[str, ...]] = {
    1: ("camera",),
    2: ("microphone", "speaker"),
    3: ("display",),
    4: ("network",),
    5: ("host", "usb", "ups", "relay", "button", "indicator", "firmware"),
    6: ("agent",),
}
"""How often a light blinks for a fault of which kinds: 5 is the box, 6 broker or clock."""
_CLOCK = ("host.clock_unsynced", "host.clock_stepped")


def family_of(code: str) -> int:
    """The family of a code, 1 to 6."""
    if code in _CLOCK:
        return 6
    kind = code.partition(".")[0]
    return next((number for number, kinds in FAMILIES.items() if kind in kinds), 5)


DARK = Pattern("dark", None)
READY = Pattern("ready", Colour.GREEN)
PREPARING = Pattern("preparing", Colour.GREEN, (2.7, 0.3))
AT_RISK = Pattern("at_risk", Colour.YELLOW, (1.0, 1.0))
NOT_READY = {n: counted(f"not_ready_{n}", Colour.RED, n) for n in FAMILIES}
UNKNOWN = Pattern("unknown", Colour.BLUE, (0.1, 2.9))
IN_SESSION = Pattern("in_session", Colour.WHITE, (0.15, 0.2, 0.15, 5.5))
MEASURING = Pattern("measuring", Colour.WHITE, (1.0, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1))
LOCATE = Pattern("locate", Colour.WHITE, (0.1, 0.1))
MAINTENANCE = Pattern("maintenance", Colour.BLUE, (1.2, 0.3, 0.3, 0.6))
UPDATING = Pattern("updating", Colour.BLUE, (0.3, 0.3, 0.3, 0.3, 1.2, 0.9))
LOST = Pattern("monitor_lost", Colour.RED, (1.0, 0.5, 1.0, 3.5))
STOPPED = Pattern("stopped", Colour.RED, (3.0, 3.0))
"""Shown by the kernel alone, on a LED of its own, when no program is left to show anything: it can
do no more than lit and dark in turn."""
UNCOMMISSIONED = Pattern("not_commissioned", Colour.BLUE, (0.6, 0.6, 0.6, 1.8))
HELD_CHECK = Pattern("held_check", Colour.WHITE)
HELD_MAINTENANCE = Pattern("held_maintenance", Colour.BLUE)

PATTERNS: Mapping[str, Pattern] = {
    p.name: p
    for p in (
        READY,
        PREPARING,
        AT_RISK,
        *NOT_READY.values(),
        UNKNOWN,
        UNCOMMISSIONED,
        IN_SESSION,
        MEASURING,
        LOCATE,
        MAINTENANCE,
        UPDATING,
        LOST,
        STOPPED,
    )
}
"""Every pattern that stands for a state of the room, in the order in which the card shows them."""
