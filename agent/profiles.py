"""What is known about models of devices, boxes and relay boards: firmware_profiles/ as values.

One TOML per model, named after it. A file gives facts only: every fact stands in a table with the
`source` it was taken from, and what nobody has found out is absent.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from typing import Annotated, Generic, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from agent.model import ConfigError

T = TypeVar("T")
P = TypeVar("P", bound="Profile")

UsbId = Annotated[str, Field(pattern=r"^[0-9a-f]{4}:[0-9a-f]{4}$")]
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


def parse(model: type[P], name: str, text: str) -> P:
    """A profile from the text of its file. Raises `ConfigError` with all mistakes of the file."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name}: not TOML: {error}") from None
    if "id" in table:
        raise ConfigError(f"{name}: id: the name of the file is the id")
    try:
        # Through JSON: strict mode then takes arrays for tuples, and "false" for no boolean.
        return model.model_validate_json(
            json.dumps({"id": name, **table}, default=str), strict=True
        )
    except ValidationError as error:
        mistakes = [
            f"{'.'.join(map(str, e['loc'])) or name}: {e['msg']}"
            for e in error.errors(include_url=False, include_input=False)
        ]
        count = f"{len(mistakes)} mistake{'s' if len(mistakes) > 1 else ''}"
        raise ConfigError("\n  ".join([f"{name}: {count}", *mistakes])) from None


def _all(model: type[P], folder: str) -> dict[str, P]:
    found: dict[str, P] = {}
    mistakes: list[str] = []
    place = resources.files("firmware_profiles").joinpath(folder)
    for file in sorted(place.iterdir(), key=lambda f: f.name):
        if file.name.endswith(".toml"):
            name = file.name.removesuffix(".toml")
            try:
                found[name] = parse(model, name, file.read_text(encoding="utf-8"))
            except ConfigError as error:
                mistakes.append(str(error))
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return found


@cache
def all_devices() -> Mapping[str, DeviceProfile]:
    """The device profiles, by id."""
    return _all(DeviceProfile, "devices")


@cache
def all_boxes() -> Mapping[str, BoxProfile]:
    """The boxes, by id."""
    return _all(BoxProfile, "boxes")


@cache
def all_relay_boards() -> Mapping[str, RelayBoard]:
    """The relay boards, by id."""
    return _all(RelayBoard, "relay_boards")


def _fits(match: Match, usb_id: str, product: str) -> bool:
    return (
        not match.ambiguous
        and usb_id in match.usb
        and (match.product is None or re.fullmatch(match.product, product) is not None)
    )


def match(usb_id: str, product: str) -> DeviceProfile | None:
    """The profile of a device with this `vid:pid` and product string, None where no profile is
    sure of it. Ambiguous profiles never match."""
    return next((p for p in all_devices().values() if _fits(p.match, usb_id, product)), None)


def match_relay_board(usb_id: str, product: str) -> RelayBoard | None:
    """The relay board with this `vid:pid` and product string, as `match` finds devices."""
    boards = all_relay_boards().values()
    return next((b for b in boards if b.match and _fits(b.match, usb_id, product)), None)


def out_of_service(usb_id: str) -> tuple[DeviceProfile, OutOfService] | None:
    """Whose boot loader (or the like) shows itself under this id, None for any other id."""
    found = ((p, m) for p in all_devices().values() for m in p.modes if m.usb == usb_id)
    return next(found, None)


def box_of(compatible: Iterable[str]) -> BoxProfile | None:
    """The box whose device tree lists these `compatible` strings, None where it is not known."""
    strings = set(compatible)
    return next((b for b in all_boxes().values() if b.compatible.value in strings), None)


def version_of(profile: DeviceProfile, bcd_device: str) -> str | None:
    """The firmware version that a bcdDevice (four digits, as sysfs writes it) tells.

    None where it tells none: for most models it is a constant, for some nobody knows the rule.
    `bcd` and `bcd_prefix` give `major.minor` without leading zeros, as fwupd writes BCD versions;
    `bcd_prefix` is only the beginning of the version. `hex_decimal` gives a plain number.
    """
    rule = profile.version_source.value if profile.version_source else None
    if not re.fullmatch("[0-9a-f]{4}", bcd_device):
        return None
    if rule == "hex_decimal":
        return str(int(bcd_device, 16))
    if rule in ("bcd", "bcd_prefix") and bcd_device.isdecimal():
        return f"{int(bcd_device[:2])}.{int(bcd_device[2:])}"
    return None


def _regex(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return text
