"""A light of the room: its settings, codes and judge. It is lit by hands, from the table of
patterns; a reading says which pattern is shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from agent import patterns
from agent.kinds import DeviceSettings
from agent.model import Fault, Finding, Level, Reading

CODES: Mapping[str, Level] = {"indicator.absent": Level.WARN}
WORDS: frozenset[str] = frozenset(
    {
        *patterns.PATTERNS,
        "dark",
        "door",
        "mic_live",
        "mic_unknown",
        "held_check",
        "held_maintenance",
    }
)
IN_HANDS = True
COLOURS = tuple(str(colour) for colour in patterns.Colour)
_BOARD = re.compile(
    r"(?P<board>[a-z0-9][a-z0-9-]*)(?:@(?P<at>[^:]{1,64}))?:(?P<channel>[0-9]{1,2})"
)
_LED_NAME = r"[A-Za-z0-9*][A-Za-z0-9:_.*-]{0,63}"
_LED = re.compile(f"led:{_LED_NAME}")
FORMS = "a BCM pin (0 to 27), BOARD:CHANNEL, BOARD@PORT:CHANNEL or led:NAME (of /sys/class/leds)"


def _lamp(value: int | str) -> int | str:
    if isinstance(value, int):
        if not 0 <= value <= 27:
            raise ValueError(f"must be {FORMS}")
    elif not (_LED if value.startswith("led:") else _BOARD).fullmatch(value):
        raise ValueError(f"must be {FORMS}, not {value!r}")
    return value


Lamp = Annotated[int | str, AfterValidator(_lamp)]


class Settings(DeviceSettings):
    """One light. A lamp of its own for each colour, three in one (RGB), or a single one of any
    colour (`pin`, or a LED that the kernel drives: `led`)."""

    required: bool = Field(default=False, description="the room is not ready without it")
    period_s: float = Field(default=60.0, ge=1, le=86_400, description="time between readings")
    role: Literal["status", "door", "mic_live"] = Field(
        default="status",
        description="status: the room's state; door: lit in session, nothing else; "
        "mic_live: lit while a microphone is open",
    )
    pin: Lamp | None = Field(default=None, description=f"a single lamp: {FORMS}")
    led: str | None = Field(
        default=None,
        pattern=f"^{_LED_NAME}$",
        description="a single lamp: a name under /sys/class/leds, such as ACT; * stands for"
        " anything",
    )
    red: Lamp | None = Field(default=None, description=f"the red lamp: {FORMS}")
    yellow: Lamp | None = Field(default=None, description="the yellow lamp")
    green: Lamp | None = Field(default=None, description="the green lamp")
    blue: Lamp | None = Field(default=None, description="the blue lamp")
    white: Lamp | None = Field(default=None, description="the white lamp")
    active_low: bool | None = Field(
        default=None, description="a lamp burns when its line is 0; unset: as its board says"
    )
    quiet_in_session: bool = Field(default=True, description="a status light is dark in session")

    @model_validator(mode="after")
    def _has_lamps(self) -> Self:
        if not self.lamps:
            colours = ", ".join(COLOURS)
            raise ValueError(f"give pin, led, or one or more of {colours}")
        if len(set(self.lamps.values())) != len(self.lamps):
            raise ValueError("two lamps on the same pin or channel")
        if (self.pin is not None or self.led is not None) and len(self.lamps) > 1:
            raise ValueError("pin and led are for a single lamp: name the colours instead")
        return self

    @property
    def lamps(self) -> dict[str, int | str]:
        """Colour -> where its lamp hangs; a single lamp of any colour counts as white."""
        named = {c: getattr(self, c) for c in COLOURS}
        found = {c: place for c, place in named.items() if place is not None}
        if self.pin is not None:
            found["pin"] = self.pin
        if self.led is not None:
            found["led"] = f"led:{self.led}"
        return found

    def claims(self) -> Mapping[str, str]:
        """What only one device may have."""
        return {key: claimed(place) for key, place in self.lamps.items()}


def split(place: str) -> tuple[str, str, int]:
    """`BOARD@AT:CHANNEL` taken apart: board, at, channel."""
    parts = _BOARD.fullmatch(place)
    assert parts is not None, "checked by Settings"
    return parts["board"], parts["at"] or "", int(parts["channel"])


def claimed(place: int | str) -> str:
    """What a lamp takes, in the words in which a relay says it."""
    if isinstance(place, int):
        return f"GPIO {place}"
    if place.startswith("led:"):
        return f"LED {place.removeprefix('led:')}"
    board, at, channel = split(place)
    return f"channel {channel} of board {f'{board}@{at}' if at else board}"


def judge(reading: Reading, limits: Settings) -> list[Finding]:
    """A light that cannot be lit. It says nothing about the room: a warning at most."""
    if reading.fault in (None, Fault.SKIPPED):
        return []
    level = CODES["indicator.absent"] if reading.fault is Fault.ABSENT else Level.UNKNOWN
    return [Finding("indicator.absent", level, dict(reading.values), reading.device)]


_LIGHTS = ("luxafor", "thingm", "delcom", "riso_kagaku", "dream_cheeky")
"""What the kernel's hid-led driver calls its lights in the names of their LEDs, as in
`luxafor0:red:led3`, `delcom1:green` (drivers/hid/hid-led.c). The number does not stay."""
_COLOURS = ("red", "green", "blue")


def discover(root: Path = Path("/")) -> list[dict[str, Any]]:
    """A USB light of the kernel's own driver, else the board's activity LED: better than none."""
    folder = root / "sys/class/leds"
    for light in _LIGHTS:
        if any(folder.glob(f"{light}[0-9]*:red*")):
            return [{colour: f"led:{light}*:{colour}*" for colour in _COLOURS}]
    for name in ("ACT", "led0"):  # led0 on older images
        if (folder / name / "brightness").exists():
            return [{"led": name}]
    return []
