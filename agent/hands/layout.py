"""What hands has to hold, as plain values: read from JSON, for hands has no room for pydantic.

`plan` makes it from room.toml, with all checks; what arrives here was checked there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from agent.hands.tables import made

VERSION = 1
MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Place:
    """Where a contact or a lamp hangs: a BCM pin, a channel of a board, or a LED of the kernel.

    `board` is the id of a profile and `spec` what it says about how the board is spoken to, `at`
    which one it is (a USB port, a device path; empty: the only one there is).
    """

    pin: int | None = None
    board: str = ""
    spec: Mapping[str, Any] = field(default_factory=dict)
    at: str = ""
    channel: int = 0
    led: str = ""
    active_low: bool = False

    @property
    def wire(self) -> tuple[int | None, str, str, int, str]:
        """Which contact it is, however it is spoken to."""
        return self.pin, self.board, self.at, self.channel, self.led

    def __str__(self) -> str:
        """How a person would say it: `GPIO 26`, `lcus-serial@1-1.2 channel 3`, `LED ACT`."""
        if self.pin is not None:
            return f"GPIO {self.pin}"
        if self.led:
            return f"LED {self.led}"
        return f"{self.board}{'@' if self.at else ''}{self.at} channel {self.channel}"


@dataclass(frozen=True, slots=True)
class Relay:
    """One relay and its rules; durations in seconds. An empty `group` is a group of its own."""

    id: str
    place: Place = Place()
    group: str = ""
    power_on: str = "off"
    on_stop: str = "hold"
    wait_s: float = 0.5
    min_on_s: float = 0.0
    min_off_s: float = 0.0
    max_per_h: int = 60
    pulse_s: float = 1.0
    max_on_s: float | None = None
    session_lock: bool = True
    feedback_pin: int | None = None
    feedback_active_low: bool = True


@dataclass(frozen=True, slots=True)
class Light:
    """One light: `role` is status, door or mic_live; `lamps` says where each colour hangs."""

    id: str
    role: str = "status"
    lamps: Mapping[str, Place] = field(default_factory=dict)
    quiet_in_session: bool = True


@dataclass(frozen=True, slots=True)
class Button:
    """The button: its pin, and after how many seconds of holding it means something else."""

    id: str
    pin: int
    pull_up: bool = True
    debounce_s: float = 0.03
    check_s: float = 3.0
    maintenance_s: float = 8.0
    stuck_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Layout:
    """All that hands holds in one room."""

    relays: tuple[Relay, ...] = ()
    lights: tuple[Light, ...] = ()
    buttons: tuple[Button, ...] = ()

    @property
    def pins(self) -> frozenset[int]:
        """Every pin of the header that is used."""
        places = [r.place.pin for r in self.relays] + [r.feedback_pin for r in self.relays]
        places += [p.pin for light in self.lights for p in light.lamps.values()]
        places += [b.pin for b in self.buttons]
        return frozenset(p for p in places if p is not None)

    @property
    def digest(self) -> str:
        """16 hex digits that are the same for the same layout: agent and hands compare them."""
        return hashlib.sha256(dump(self).encode()).hexdigest()[:16]


def dump(layout: Layout) -> str:
    """A layout as one line of JSON."""
    return json.dumps({"version": VERSION, **asdict(layout)}, sort_keys=True, separators=(",", ":"))


def parse(text: str) -> Layout:
    """The layout of a line that `dump` wrote. Raises `ValueError` for any other."""
    try:
        raw = json.loads(text)
        if not isinstance(raw, dict) or raw.get("version") != VERSION:
            raise ValueError("not a layout of this version")
        return Layout(
            relays=tuple(
                made(Relay, {**r, "place": made(Place, r["place"])}) for r in raw["relays"]
            ),
            lights=tuple(made(Light, {**v, "lamps": _lamps(v["lamps"])}) for v in raw["lights"]),
            buttons=tuple(made(Button, b) for b in raw["buttons"]),
        )
    except (AttributeError, KeyError, RecursionError, TypeError) as error:
        raise ValueError(f"not a layout: {error}") from None


def _lamps(raw: Mapping[str, Any]) -> dict[str, Place]:
    return {colour: made(Place, place) for colour, place in raw.items()}
