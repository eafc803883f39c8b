"""The firmware profiles: data that must load, name its sources, and never guess."""

from __future__ import annotations

import contextlib
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import profiles, words
from agent.model import ConfigError

FOLDER = Path(__file__).parent.parent / "firmware_profiles"
FILES = sorted(FOLDER.rglob("*.toml"))
MODELS = {
    "devices": profiles.DeviceProfile,
    "boxes": profiles.BoxProfile,
    "relay_boards": profiles.RelayBoard,
}
IDENTITY = {"name", "kinds", "bus"}
"""What says who a file is about; everything else is a fact and has a source."""


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def unsourced(table: Mapping[str, Any], place: str = "") -> Iterator[str]:
    """The places of facts that do not say where they come from."""
    for key, value in table.items():
        here = f"{place}{key}"
        if isinstance(value, dict):
            if not value.get("source"):
                yield here
        elif isinstance(value, list) and value and all(isinstance(v, dict) for v in value):
            yield from (f"{here}[{n}]" for n, v in enumerate(value) if not v.get("source"))
        elif key not in IDENTITY:
            yield here


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_file_loads_and_every_fact_has_its_source(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    profile = profiles.parse(MODELS[path.parent.name], path.stem, text)
    assert profile.id == path.stem
    assert list(unsourced(tomllib.loads(text))) == []


def test_all_files_are_among_the_profiles() -> None:
    shipped = {
        "devices": profiles.all_devices(),
        "boxes": profiles.all_boxes(),
        "relay_boards": profiles.all_relay_boards(),
    }
    assert {f"{folder}/{id}" for folder, found in shipped.items() for id in found} == {
        name_of(path) for path in FILES
    }
    assert len(shipped["devices"]) >= 10
    assert {
        "raspberry-pi-3b-plus",
        "raspberry-pi-4b",
        "raspberry-pi-5",
        "raspberry-pi-zero-2-w",
        "raspberry-pi-cm4",
    } <= set(shipped["boxes"])


def test_what_is_shipped_does_not_contradict_itself() -> None:
    everything = [
        *profiles.all_devices().items(),
        *profiles.all_boxes().items(),
        *profiles.all_relay_boards().items(),
    ]
    assert list(profiles.clashes(everything)) == []


def device(id: str, usb: str, more: str = "", name: str = "") -> profiles.Profile:
    text = f"""
    name = "{name or id}"
    kinds = ["camera"]
    [match]
    usb = ["{usb}"]
    {more}
    source = "made up for this test"
    """
    return profiles.parse(profiles.DeviceProfile, id, text)


def board(id: str, product: str) -> profiles.Profile:
    text = f"""
    name = "{id}"
    bus = "hid"
    [match]
    usb = ["16c0:05df"]
    product = "{product}"
    source = "made up for this test"
    """
    return profiles.parse(profiles.RelayBoard, id, text)


def box(id: str, compatible: str) -> profiles.Profile:
    text = f"""
    name = "{id}"
    [compatible]
    value = "{compatible}"
    source = "made up for this test"
    [gpiochip]
    label = "pinctrl"
    source = "made up for this test"
    """
    return profiles.parse(profiles.BoxProfile, id, text)


MODE = 'source = "made up for this test"\n[[modes]]\nmode = "dfu"\nusb = "1234:0002"'


@pytest.mark.parametrize(
    ("several", "told"),
    [
        ([device("a", "1234:0001"), device("b", "1234:0003")], None),
        ([device("a", "1234:0001"), device("b", "1234:0001")], "match: 1234:0001 is taken by a"),
        ([device("a", "1234:0001", MODE), device("b", "1234:0002")], "1234:0002 is taken by a"),
        ([device("a", "1234:0001", "ambiguous = true"), device("b", "1234:0001")], "is taken by a"),
        ([board("a", "One"), board("b", "Two")], None),
        ([board("a", "One"), device("b", "16c0:05df")], "match: 16c0:05df is taken by a"),
        ([device("a", "1234:0001"), board("a", "One")], "the name of the file: 'a' is taken by a"),
        ([device("a", "1234:0001"), device("b", "1234:0003", name="a")], "name: 'a'"),
        ([box("a", "x,y"), box("b", "x,y")], "compatible: x,y is taken by a"),
    ],
)
def test_profiles_that_claim_the_same_are_told_apart_or_named(
    several: list[profiles.Profile], told: str | None
) -> None:
    mistakes = [mistake for _, mistake in profiles.clashes((p.id, p) for p in several)]
    assert (mistakes == []) if told is None else any(told in m for m in mistakes), mistakes


def test_kinds_are_kinds_that_have_a_name() -> None:
    known = {t.removeprefix("kind.") for t in words.terms("en") if t.startswith("kind.")}
    for profile in profiles.all_devices().values():
        served = {k for f in profile.functions for k in f.kinds}
        assert set(profile.kinds) <= known
        assert not profile.functions or served == set(profile.kinds)


def test_a_device_is_known_by_its_usb_id() -> None:
    for profile in profiles.all_devices().values():
        for usb in profile.match.usb:
            expected = None if profile.match.ambiguous else profile
            assert profiles.match(usb, "whatever it calls itself") is expected
    assert profiles.match("1d6b:0002", "xHCI Host Controller") is None
    assert profiles.match("046D:082D", "HD Pro Webcam C920") is None, "sysfs writes lower case"


def test_an_ambiguous_profile_never_matches() -> None:
    ambiguous = {p.id for p in profiles.all_devices().values() if p.match.ambiguous}
    assert ambiguous == {
        "macrosilicon-ms2106",
        "macrosilicon-ms2109",
        "macrosilicon-ms2130",
        "ti-pcm2902",
    }
    for product in ("", "USB Video", "MiraBox Capture"):
        assert profiles.match("534d:2109", product) is None
    assert profiles.match_relay_board("1a86:7523", "") is None


def test_a_shared_id_is_told_apart_by_its_product_string() -> None:
    def board(product: str) -> str | None:
        found = profiles.match_relay_board("16c0:05df", product)
        return found.id if found else None

    assert board("USBRelay4") == "dcttech-usbrelay"
    assert board("HIDRelay") is None, "that one has an id of its own"
    assert profiles.match_relay_board("0519:2018", "HIDRelay") is not None
    assert profiles.match_relay_board("0519:2018", "TSP100") is None, "a printer of that maker"
    assert board("USBRelay") is None
    assert board("My USBRelay4") is None, "the whole string must fit"
    assert board("USBRelay44") is None
    assert board("") is None


def test_a_boot_loader_is_recognised_and_is_no_device() -> None:
    for profile in profiles.all_devices().values():
        for mode in profile.modes:
            assert profiles.out_of_service(mode.usb) == (profile, mode)
            assert profiles.match(mode.usb, "") is None
    found = profiles.out_of_service("2bd9:ba01")
    assert found is not None
    assert (found[0].id, found[1].mode) == ("huddly-s1", "adapter_only")
    assert profiles.out_of_service("046d:082d") is None


def test_a_box_is_known_by_its_device_tree() -> None:
    found = profiles.box_of(["raspberrypi,5-model-b", "brcm,bcm2712"])
    assert found is not None
    assert (found.id, found.gpiochip.label) == ("raspberry-pi-5", "pinctrl-rp1")
    assert profiles.box_of(["brcm,bcm2712"]) is None
    assert profiles.box_of([]) is None


def test_gpio_boards_say_which_level_switches_on() -> None:
    boards = [b for b in profiles.all_relay_boards().values() if b.bus == "gpio"]
    assert all(b.polarity is not None and b.relays is not None for b in boards)
    for board in boards:
        assert board.relays is not None
        assert len(set(board.relays.pins)) == len(board.relays.pins)


@pytest.mark.parametrize(
    ("id", "bcd_device", "version"),
    [
        ("jabra-speak-510", "0225", "2.25"),
        ("jabra-speak-510", "0108", "1.8"),
        ("poly-studio-p15", "0120", "1.20"),
        ("jabra-speak-510", "02a5", None),  # not decimal: not BCD
        ("jabra-speak-510", "225", None),
        ("logitech-c920", "0011", None),  # a constant of the model
        ("huddly-s1", "0105", None),  # only fwupd knows
        ("logitech-brio", "0317", None),  # nobody has shown the rule
    ],
)
def test_a_version_is_read_only_where_the_rule_is_known(
    id: str, bcd_device: str, version: str | None
) -> None:
    assert profiles.version_of(profiles.all_devices()[id], bcd_device) == version


MINIMAL = """
name = "A microphone"
kinds = ["microphone"]
[match]
usb = ["1234:abcd"]
source = "made up for this test"
"""


def test_a_hexadecimal_version_is_a_plain_number() -> None:
    rule = '[version_source]\nvalue = "hex_decimal"\nsource = "made up for this test"\n'
    profile = profiles.parse(profiles.DeviceProfile, "a-microphone", MINIMAL + rule)
    assert profiles.version_of(profile, "0645") == "1605"
    assert profiles.version_of(profile, "060b") == "1547"


def test_all_mistakes_of_a_file_stand_in_one_message() -> None:
    text = """
    name = "Bad"
    kinds = ["camera"]
    colour = "black"
    [match]
    usb = ["046D:082D", "82d"]
    product = "C920("
    ambiguous = "false"
    [version_source]
    value = "guessed"
    [audio]
    rates = []
    channels = 0
    source = "made up for this test"
    """
    with pytest.raises(ConfigError) as caught:
        profiles.parse(profiles.DeviceProfile, "bad", text)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"bad: {len(lines) - 1} mistakes"
    told = "\n".join(lines[1:])
    for place in (
        "colour",
        "match.source",
        "match.usb.0",
        "match.usb.1",
        "match.product",
        "match.ambiguous",
        "version_source.value",
        "version_source.source",
        "audio.rates",
        "audio.channels",
    ):
        assert f"\n  {place}: " in f"\n{told}", place
    assert profiles.parse(profiles.DeviceProfile, "good", MINIMAL).id == "good"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('id = "other"\n' + MINIMAL, "the name of the file is the id"),
        ("name = ", "not TOML"),
        ('name = "A microphone"\nkinds = ["microphone"]\n', "1 mistake\n  match: "),
        (MINIMAL + '[reenumeration_s]\nvalue = nan\nsource = "made up here"\n', "finite"),
    ],
)
def test_a_file_that_is_no_profile_is_refused_by_name(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)) as caught:
        profiles.parse(profiles.DeviceProfile, "a-microphone", text)
    assert str(caught.value).startswith("a-microphone: ")


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (
            '[[functions]]\nusb = "1234:0001"\nkinds = ["microphone"]\n',
            "1234:0001 is not among match.usb",
        ),
        ('[[modes]]\nusb = "1234:abcd"\nmode = "dfu"\n', "cannot be in service and out of it"),
    ],
)
def test_tables_that_contradict_each_other_are_refused(table: str, told: str) -> None:
    text = MINIMAL + table + 'source = "made up for this test"\n'
    with pytest.raises(ConfigError, match=re.escape(told)):
        profiles.parse(profiles.DeviceProfile, "a-microphone", text)


@pytest.mark.parametrize(
    ("bus", "needed"),
    [("gpio", "polarity"), ("i2c", "i2c"), ("hid", "match"), ("serial", "serial")],
)
def test_a_board_without_what_its_bus_needs_is_refused(bus: str, needed: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"[{needed}]")):
        profiles.parse(profiles.RelayBoard, "board", f'name = "Board"\nbus = "{bus}"\n')


@given(st.text(max_size=200))
def test_any_text_is_a_profile_or_a_mistake(text: str) -> None:
    with contextlib.suppress(ConfigError):
        profiles.parse(profiles.DeviceProfile, "some", text)


@given(st.text("0123456789abcdefxyz", max_size=6))
def test_a_version_is_a_version_or_nothing(bcd_device: str) -> None:
    for profile in profiles.all_devices().values():
        version = profiles.version_of(profile, bcd_device)
        assert version is None or re.fullmatch(r"\d+(\.\d+)?", version)
