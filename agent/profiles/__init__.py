"""What is known about models of devices, boxes and relay boards: firmware_profiles/ as values.

One TOML per model, named after it. A file gives facts only: every fact stands in a table with the
`source` it was taken from, and what nobody has found out is absent.

This is for the commands that a person types. The daemon takes the few facts that it needs through
`agent.known_models`, which costs it no schema.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import resources
from typing import TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from agent.model import ConfigError
from agent.profiles.shape import (
    USB_ID,
    BoxProfile,
    DeviceProfile,
    Match,
    OutOfService,
    Profile,
    RelayBoard,
    Sourced,
)

__all__ = [
    "FOLDERS",
    "BoxProfile",
    "DeviceProfile",
    "Match",
    "OutOfService",
    "Profile",
    "RelayBoard",
    "Sourced",
    "all_boxes",
    "all_devices",
    "all_relay_boards",
    "box_of",
    "clashes",
    "match",
    "match_relay_board",
    "out_of_service",
    "parse",
    "version_of",
]

P = TypeVar("P", bound=Profile)
FOLDERS: Mapping[str, type[Profile]] = {
    "devices": DeviceProfile,
    "boxes": BoxProfile,
    "relay_boards": RelayBoard,
}
"""The folders of firmware_profiles/ and what stands in them."""


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
            f"{'.'.join(map(str, e['loc'])) or name}: {_told(e)}"
            for e in error.errors(include_url=False)
        ]
        count = f"{len(mistakes)} mistake{'s' if len(mistakes) > 1 else ''}"
        raise ConfigError("\n  ".join([f"{name}: {count}", *mistakes])) from None


def _told(error: ErrorDetails) -> str:
    """One mistake in the words of whoever wrote the file."""
    kind, given = error["type"], error["input"]
    if kind == "extra_forbidden":
        return "unknown key"
    if kind == "missing":
        source = error["loc"][-1] == "source"
        return "missing; say where the facts come from" if source else "missing"
    if kind == "string_pattern_mismatch" and error.get("ctx", {}).get("pattern") == USB_ID:
        return f"{given!r} is no USB id; vid:pid, four lower-case hexadecimal digits each"
    if kind == "value_error":
        return str(error["ctx"]["error"])
    return f"{error['msg'][:1].lower()}{error['msg'][1:]}, not {given!r}"


def _all(model: type[P], folder: str) -> dict[str, P]:
    found: dict[str, P] = {}
    mistakes: list[str] = []
    place = resources.files("firmware_profiles").joinpath(folder)
    for file in sorted(place.iterdir(), key=lambda f: f.name.removesuffix(".toml")):
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


def clashes(named: Iterable[tuple[str, Profile]]) -> Iterator[tuple[str, str]]:
    """What profiles say against each other, as (place, mistake); `named` are (place, profile).

    An id or a name that is taken, a box that two profiles claim, and a USB id that two claim: two
    may share one only where the product string tells both apart.
    """
    ids: dict[str, str] = {}
    names: dict[str, str] = {}
    boxes: dict[str, str] = {}
    usb: dict[str, list[tuple[str, bool]]] = {}
    for place, profile in named:
        for taken, what, key in (
            (ids, profile.id, "the name of the file"),
            (names, profile.name, "name"),
        ):
            if other := taken.get(what):
                yield place, f"{key}: {what!r} is taken by {other}"
            taken.setdefault(what, place)
        if isinstance(profile, BoxProfile):
            if other := boxes.get(profile.compatible.value):
                yield place, f"compatible: {profile.compatible.value} is taken by {other}"
            boxes.setdefault(profile.compatible.value, place)
        for usb_id, shares in _claims(profile):
            for other, also in usb.get(usb_id, ()):
                if other != place and not (shares and also):
                    yield place, f"match: {usb_id} is taken by {other}; tell both by their product"
            usb.setdefault(usb_id, []).append((place, shares))


def _claims(profile: Profile) -> Iterator[tuple[str, bool]]:
    """The USB ids of a profile, and whether others may have them as well."""
    found = getattr(profile, "match", None)
    if isinstance(found, Match):
        for usb_id in found.usb:
            yield usb_id, found.ambiguous or found.product is not None
    if isinstance(profile, DeviceProfile):
        for mode in profile.modes:
            yield mode.usb, False
