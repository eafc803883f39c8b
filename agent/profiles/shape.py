"""The shape of a profile: what may stand in a file of firmware_profiles/, and what goes together.

Every fact stands in a table with the `source` it was taken from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Generic, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

T = TypeVar("T")

USB_ID = r"^[0-9a-f]{4}:[0-9a-f]{4}$"
UsbId = Annotated[str, Field(pattern=USB_ID)]
"""`vid:pid`, four lower-case hexadecimal digits each."""
BcmPin = Annotated[int, Field(ge=0, le=27)]
"""A GPIO number of the 40-pin header."""
I2cAddress = Annotated[int, Field(ge=0x08, le=0x77)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Sourced(_Model):
    """A table of facts and where they were taken from."""

    source: str = Field(min_length=8, description="where the facts of this table come from")


class Fact(Sourced, Generic[T]):
    """A single fact."""

    value: T


class Match(Sourced):
    """How a device is recognised. A vendor-and-product id that many makers share is `ambiguous`:
    its profile has to be named in room.toml and is never chosen by itself."""

    usb: tuple[UsbId, ...] = Field(min_length=1)
    product: str | None = Field(default=None, description="regex for the whole product string")
    ambiguous: bool = False

    @field_validator("product")
    @classmethod
    def _is_regex(cls, value: str | None) -> str | None:
        return _regex(value) if value is not None else None


class Function(Sourced):
    """One of the USB devices that a single product shows up as."""

    usb: UsbId
    kinds: tuple[str, ...] = Field(min_length=1)


class Firmware(Sourced):
    """Versions. `minimum`, `known_good` and `forbidden` are written as `version_of` gives them,
    `certified` as the vendor writes it."""

    minimum: str | None = None
    known_good: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()
    certified: tuple[str, ...] = ()


class OutOfService(Sourced):
    """An id that the product shows while it cannot work. It may be updating itself: leave it."""

    usb: UsbId
    mode: Literal["dfu", "bootloader", "adapter_only"]


class Controls(Sourced):
    """V4L2 controls to set again each time the device appears, by their names."""

    values: Mapping[str, int] = Field(min_length=1)


class Audio(Sourced):
    """What the capture side really delivers: sample rates in hertz, ALSA's name of the format."""

    rates: tuple[int, ...] = Field(min_length=1)
    channels: int = Field(ge=1, le=32)
    format: str | None = Field(default=None, pattern=r"^[A-Z0-9_]+$")


class Video(Sourced):
    """The mode to order from a camera where room.toml orders none; one of its own, seen."""

    width: int = Field(ge=16, le=16_384)
    height: int = Field(ge=16, le=16_384)
    fps: float = Field(gt=0, le=1_000)


class MinimumSpeed(Sourced):
    """The slowest USB speed that will do, from a picture height on where one is given."""

    value: Literal["full", "high", "super"]
    from_height_px: int | None = Field(default=None, ge=1)


class LogNoise(Sourced):
    """Kernel lines of a healthy device that look like trouble."""

    regex: str

    @field_validator("regex")
    @classmethod
    def _is_regex(cls, value: str) -> str:
        return _regex(value)


class Recovery(Sourced):
    """A step known to cure a trouble of this model; the order in the file is the order to try."""

    step: Literal["reopen", "rebind", "reauthorize", "usb_reset", "power_cycle", "replug_source"]
    cures: str
    codes: tuple[Annotated[str, Field(pattern=r"^[a-z]+\.[a-z_]+$")], ...] = Field(
        min_length=1, description="the findings that it cures"
    )


class Trouble(Sourced):
    """Something that users met, for people to read."""

    text: str


class Profile(_Model):
    """What all profiles have. `id` is the name of the file."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    name: str = Field(min_length=1, max_length=120)


class DeviceProfile(Profile):
    """A model of camera, microphone, speakerphone or capture dongle."""

    kinds: tuple[str, ...] = Field(min_length=1, description="what it can serve as")
    match: Match
    functions: tuple[Function, ...] = ()
    version_source: (
        Fact[
            Literal[
                "bcd", "bcd_prefix", "hex_decimal", "model_constant", "fwupd", "network", "none"
            ]
        ]
        | None
    ) = None
    bcd_seen: Fact[tuple[str, ...]] | None = Field(
        default=None, description="bcdDevice as sysfs writes it, four digits"
    )
    firmware: Firmware | None = None
    modes: tuple[OutOfService, ...] = ()
    reenumeration_s: Fact[float] | None = Field(
        default=None, description="seconds that the device may be away after a reset or update"
    )
    controls_on_attach: Controls | None = None
    video: Video | None = None
    audio: Audio | None = None
    usb_speed_min: MinimumSpeed | None = None
    noise_log: tuple[LogNoise, ...] = ()
    recovery: tuple[Recovery, ...] = ()
    trouble: tuple[Trouble, ...] = ()

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        for function in self.functions:
            if function.usb not in self.match.usb:
                raise ValueError(f"functions: {function.usb} is not among match.usb")
        for mode in self.modes:
            if mode.usb in self.match.usb:
                raise ValueError(f"modes: {mode.usb} cannot be in service and out of it")
        return self


class GpioChip(Sourced):
    """The chip behind the 40-pin header, by label: its number changes with the kernel."""

    label: str
    lines: int | None = Field(default=None, ge=1)


class Leds(Sourced):
    """Names under /sys/class/leds, the newest first."""

    activity: tuple[str, ...] = ()
    power: tuple[str, ...] = ()


class Rtc(Sourced):
    """A clock chip that runs without mains; `name` as /sys/class/rtc/rtcN/name tells it."""

    present: bool
    name: str | None = None


class Watchdog(Sourced):
    """The hardware watchdog and the longest period it takes, in seconds."""

    driver: str
    max_s: float = Field(gt=0)


class UsbPower(Sourced):
    """How the power of the USB ports can be switched. `ganged`: all ports go together."""

    switchable: bool
    ganged: bool | None = None
    hubs: tuple[str, ...] = Field(default=(), description="hub locations to switch, together")
    budget_ma: int | None = Field(default=None, ge=1, description="all ports, weak supply")


class BoxProfile(Profile):
    """A model of box, recognised by the device tree's `compatible`."""

    compatible: Fact[str]
    model: Fact[str] | None = Field(default=None, description="/proc/device-tree/model, seen")
    gpiochip: GpioChip
    leds: Leds | None = None
    rtc: Rtc | None = None
    watchdog: Watchdog | None = None
    usb_power: UsbPower | None = None


class Relays(Sourced):
    """The relays in the board's own order; `pins` are BCM numbers where they hang on the header."""

    count: tuple[int, ...] = Field(default=(), description="how many there are, per variant")
    count_in_product: bool = Field(default=False, description="last digit of the product string")
    pins: tuple[BcmPin, ...] = ()


class Polarity(Sourced):
    """Whether a relay pulls when its line (or bit) is 0."""

    active_low: bool


class I2c(Sourced):
    """Where the board answers, one register for all relays or one for each."""

    addresses: tuple[I2cAddress, ...] = Field(min_length=1)
    registers: tuple[int, ...] = ()
    bit_per_relay: bool | None = None
    bits: tuple[Annotated[int, Field(ge=0, le=7)], ...] = Field(
        default=(), description="the bit of each relay; absent: in their order"
    )
    direction_register: int | None = Field(
        default=None, description="a 0 in here makes a pin an output, and only then it counts"
    )
    on: int | None = Field(default=None, ge=0, le=255)
    off: int | None = Field(default=None, ge=0, le=255)


class Serial(Sourced):
    """The line of a board that is spoken to over a serial port."""

    baud: int = Field(ge=300)
    framing: Literal["8N1"] = "8N1"


class RelayBoard(Profile):
    """A model of relay board."""

    bus: Literal["gpio", "i2c", "hid", "serial"]
    protocol: Fact[Literal["dcttech", "hidrelay", "lcus", "smbus"]] | None = Field(
        default=None, description="how it is spoken to, where it does not sit on the header"
    )
    relays: Relays | None = None
    polarity: Polarity | None = None
    match: Match | None = None
    i2c: I2c | None = None
    serial: Serial | None = None
    reads_back: Fact[bool] | None = Field(
        default=None, description="whether the board tells the state of its relays"
    )
    trouble: tuple[Trouble, ...] = ()

    @model_validator(mode="after")
    def _has_what_its_bus_needs(self) -> Self:
        needed = {"gpio": "polarity", "i2c": "i2c", "hid": "match", "serial": "serial"}[self.bus]
        if getattr(self, needed) is None:
            raise ValueError(f"a {self.bus} board needs [{needed}]")
        return self


def _regex(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return text
