"""The display kind on recorded trees of /sys/class/drm, and on EDIDs in files."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest
from make_edid import edid
from pydantic import ValidationError

from agent import kinds
from agent.kinds import display
from agent.model import Fault, Level, Reading, Scalar

DRM = "sys/class/drm"
EXPECTED = {
    "expect_manufacturer": "DEL",
    "expect_product": "0xd0d8",
    "expect_name": "DELL P2419H",
    "expect_serial": "7LM1234",
}


def plug(
    root: Path,
    connector: str,
    *,
    status: str = "connected",
    raw: bytes = edid(),
    enabled: str = "enabled",
    dpms: str = "On",
    modes: str = "1920x1080\n1920x1080i\n1280x720\n",
) -> None:
    place = root / DRM / connector
    place.mkdir(parents=True, exist_ok=True)
    there = status == "connected"
    (place / "status").write_text(f"{status}\n")
    (place / "enabled").write_text(f"{enabled}\n")
    (place / "dpms").write_text(f"{dpms}\n")
    (place / "modes").write_text(modes if there else "")
    (place / "edid").write_bytes(raw if there else b"")


def pi(root: Path) -> Path:
    """A Pi 4: the 3D part took card0, and the second connector is free."""
    (root / DRM / "card0").mkdir(parents=True)
    (root / DRM / "card1").mkdir()
    (root / DRM / "renderD128").mkdir()
    (root / DRM / "version").write_text("drm 1.1.0 20060810\n")
    plug(root, "card1-HDMI-A-1")
    plug(root, "card1-HDMI-A-2", status="disconnected", enabled="disabled", dpms="Off")
    plug(root, "card1-Writeback-1", status="unknown")
    return root


def read(root: Path, **settings: str | float) -> Reading:
    limits = display.Settings.model_validate(settings)
    return asyncio.run(display.Passive(limits, root).read())


def judged(root: Path, **settings: str | float) -> list[tuple[str, Level]]:
    limits = display.Settings.model_validate(settings)
    found = display.judge(read(root, **settings), limits)
    return [(f.code.removeprefix("display."), f.level) for f in found]


def test_the_module_keeps_the_contract_of_a_kind(tmp_path: Path) -> None:
    settings = display.Settings(connector="HDMI-A-1")
    assert kinds.load("display").Settings is display.Settings
    assert (settings.required, settings.period_s) == (True, 60)
    assert isinstance(kinds.passive_of("display", settings, tmp_path), display.Passive)
    assert not kinds.has_driver("display")


def test_a_connected_display_says_who_it_is(tmp_path: Path) -> None:
    reading = read(pi(tmp_path), connector="HDMI-A-1")
    assert reading.fault is None
    assert reading.values == {
        "connector_known": True,
        "connected": True,
        "enabled": True,
        "dpms": "on",
        "modes": 3,
        "width": 1920,
        "height": 1080,
        "edid_bytes": 256,
        "edid_header_ok": True,
        "edid_blocks": 2,
        "edid_blocks_declared": 2,
        "edid_bad_blocks": 0,
        "edid_truncated": False,
    }
    assert reading.identity == {
        "name": "DELL P2419H",
        "manufacturer": "DEL",
        "product": "0xd0d8",
        "serial": "7LM1234",
    }
    assert judged(tmp_path, connector="HDMI-A-1", **EXPECTED) == []


def test_the_card_may_be_named_or_not(tmp_path: Path) -> None:
    pi(tmp_path)
    assert read(tmp_path, connector="card1-HDMI-A-1").values["connected"] is True
    missing = read(tmp_path, connector="card0-HDMI-A-1")
    assert (missing.fault, missing.values) == (Fault.ABSENT, {"connector_known": False})


def test_with_two_cards_the_connected_one_is_meant(tmp_path: Path) -> None:
    plug(tmp_path, "card0-HDMI-A-1", status="disconnected")
    plug(tmp_path, "card1-HDMI-A-1")
    assert judged(tmp_path, connector="HDMI-A-1") == []


def test_a_part_of_a_name_is_not_the_name(tmp_path: Path) -> None:
    plug(tmp_path, "card0-eDP-1")
    assert read(tmp_path, connector="DP-1").values == {"connector_known": False}


def test_an_unplugged_display_is_absent_and_comes_back(tmp_path: Path) -> None:
    pi(tmp_path)
    plug(tmp_path, "card1-HDMI-A-1", status="disconnected")
    reading = read(tmp_path, connector="HDMI-A-1")
    assert reading.fault is Fault.ABSENT
    assert (reading.values["connector_known"], reading.values["connected"]) == (True, False)
    assert judged(tmp_path, connector="HDMI-A-1") == [("absent", Level.FAIL)]
    plug(tmp_path, "card1-HDMI-A-1")
    assert judged(tmp_path, connector="HDMI-A-1") == []


def test_a_connector_that_is_not_there_is_told_from_an_empty_one(tmp_path: Path) -> None:
    pi(tmp_path)
    limits = display.Settings(connector="HDMI-A-3")
    reading = read(tmp_path, connector="HDMI-A-3")
    assert (reading.fault, reading.why) == (Fault.ABSENT, "no_node")
    assert display.judge(reading, limits)[0].numbers == {"connector_known": False}
    assert judged(tmp_path / "nothing", connector="HDMI-A-1") == [("absent", Level.FAIL)]


@pytest.mark.parametrize("status", ["unknown", "", "strange"])
def test_what_the_kernel_cannot_tell_is_unknown_and_not_ok(tmp_path: Path, status: str) -> None:
    plug(tmp_path, "card0-VGA-1", status=status)
    assert "connected" not in read(tmp_path, connector="VGA-1").values
    assert judged(tmp_path, connector="VGA-1") == [("absent", Level.UNKNOWN)]


def test_connected_is_told_when_the_box_sends_nothing_and_power_is_not_guessed(
    tmp_path: Path,
) -> None:
    plug(tmp_path, "card0-HDMI-A-1", enabled="disabled", dpms="Off")
    reading = read(tmp_path, connector="HDMI-A-1")
    assert (reading.values["enabled"], reading.values["dpms"]) == (False, "off")
    assert judged(tmp_path, connector="HDMI-A-1") == []


def test_another_display_at_the_connector_is_a_change_until_it_is_put_back(tmp_path: Path) -> None:
    plug(tmp_path, "card0-HDMI-A-1", raw=edid(name="DELL P2422H", product=0xA1C3))
    limits = display.Settings.model_validate({"connector": "HDMI-A-1", **EXPECTED})
    (finding,) = display.judge(read(tmp_path, connector="HDMI-A-1"), limits)
    assert (finding.code, finding.level) == ("display.changed", Level.WARN)
    assert finding.numbers == {"name_differs": True, "product_differs": True}
    plug(tmp_path, "card0-HDMI-A-1")
    assert judged(tmp_path, connector="HDMI-A-1", **EXPECTED) == []


def test_only_what_is_expected_is_compared(tmp_path: Path) -> None:
    plug(tmp_path, "card0-HDMI-A-1", raw=edid(serial="OTHER"))
    assert judged(tmp_path, connector="HDMI-A-1") == []
    assert judged(tmp_path, connector="HDMI-A-1", expect_name="DELL P2419H") == []
    changed = [("changed", Level.WARN)]
    assert judged(tmp_path, connector="HDMI-A-1", expect_serial="7LM1234") == changed


@pytest.mark.parametrize("raw", [b"", edid()[:100], b"\1" + edid()[1:], bytes(256)])
def test_an_edid_that_cannot_be_believed_names_nobody(tmp_path: Path, raw: bytes) -> None:
    plug(tmp_path, "card0-HDMI-A-1", raw=raw)
    reading = read(tmp_path, connector="HDMI-A-1")
    assert (reading.fault, reading.identity) == (None, {})
    assert (reading.values["connected"], reading.values["edid_bytes"]) == (True, len(raw))
    assert judged(tmp_path, connector="HDMI-A-1", **EXPECTED) == []


@pytest.mark.parametrize(
    ("listed", "size"), [("", None), ("bad\n", None), ("720x576i\n", (720, 576))]
)
def test_the_size_is_that_of_the_first_mode(
    tmp_path: Path, listed: str, size: tuple[int, int] | None
) -> None:
    plug(tmp_path, "card0-HDMI-A-1", modes=listed)
    values = read(tmp_path, connector="HDMI-A-1").values
    assert values["modes"] == len(listed.split())
    found = (values["width"], values["height"]) if "width" in values else None
    assert found == size


def test_an_edid_in_a_file_is_a_source(tmp_path: Path) -> None:
    file = tmp_path / "edid.bin"
    file.write_bytes(edid())
    source = f"file:{file}"
    reading = read(tmp_path, source=source)
    assert reading.identity["name"] == "DELL P2419H"
    assert (reading.values["width"], reading.values["refresh_hz"]) == (1920, 60.0)
    assert judged(tmp_path, source=source, **EXPECTED) == []
    assert judged(tmp_path, source=source, expect_name="TV") == [("changed", Level.WARN)]


@pytest.mark.parametrize("keep", [128, 200])
def test_a_truncated_file_still_names_its_display_and_shows_it(tmp_path: Path, keep: int) -> None:
    file = tmp_path / "edid.bin"
    file.write_bytes(edid()[:keep])
    reading = read(tmp_path, source=f"file:{file}")
    assert reading.values["edid_truncated"] is True
    assert reading.identity["manufacturer"] == "DEL"


def test_a_file_that_is_not_there_is_an_absent_display_until_it_is(tmp_path: Path) -> None:
    source = f"file:{tmp_path}/edid.bin"
    reading = read(tmp_path, source=source)
    assert (reading.fault, reading.why) == (Fault.ABSENT, "no_node")
    assert judged(tmp_path, source=source) == [("absent", Level.FAIL)]
    (tmp_path / "edid.bin").write_bytes(edid())
    assert judged(tmp_path, source=source) == []


@pytest.mark.parametrize("raw", [b"", b"\x89PNG\r\n", edid()[:127], bytes(128)])
def test_a_file_that_is_no_edid_cannot_be_judged(tmp_path: Path, raw: bytes) -> None:
    file = tmp_path / "edid.bin"
    file.write_bytes(raw)
    reading = read(tmp_path, source=f"file:{file}")
    assert (reading.fault, reading.why) == (Fault.ERROR, "bad_file")
    assert judged(tmp_path, source=f"file:{file}") == [("absent", Level.UNKNOWN)]


def test_a_driver_that_hangs_is_left_alone_until_it_is_back(tmp_path: Path) -> None:
    """The EDID is a FIFO: opening it waits, as the kernel's lock would."""
    plug(tmp_path, "card0-HDMI-A-1")
    hung = tmp_path / DRM / "card0-HDMI-A-1/edid"
    hung.unlink()
    os.mkfifo(hung)
    settings = display.Settings(connector="HDMI-A-1", deadline_s=0.1)
    passive = display.Passive(settings, tmp_path)
    threads = threading.active_count()

    async def course() -> None:
        beats = 0

        async def beat() -> None:
            nonlocal beats
            while True:
                await asyncio.sleep(0.005)
                beats += 1

        async with asyncio.timeout(10):
            heart = asyncio.ensure_future(beat())
            for _ in range(3):
                reading = await passive.read()
                assert (reading.fault, reading.why) == (Fault.NO_ANSWER, "deadline")
                assert display.judge(reading, settings)[0].level is Level.UNKNOWN
            assert beats >= 3, "the loop went on"
            assert threading.active_count() == threads + 1, "nobody else was sent in"
            with hung.open("wb") as writer:
                writer.write(edid())
            hung.unlink()
            plug(tmp_path, "card0-HDMI-A-1")
            for _ in range(1_000):
                reading = await passive.read()
                if reading.fault is None:
                    break
                await asyncio.sleep(0.005)
            assert reading.identity["name"] == "DELL P2419H"
            heart.cancel()

    asyncio.run(course())
    for thread in threading.enumerate():
        if thread.name == "display":
            thread.join(5)
            assert not thread.is_alive()


ROWS: list[tuple[Reading, list[tuple[str, Level]]]] = [
    (Reading({"connected": True}), []),
    (Reading({"connected": True, "edid_bytes": 0}), []),
    (Reading({"edid_bytes": 128}), []),
    (Reading(), [("display.absent", Level.UNKNOWN)]),
    (Reading({"connector_known": True}), [("display.absent", Level.UNKNOWN)]),
    (Reading(fault=Fault.ABSENT), [("display.absent", Level.FAIL)]),
    (Reading(fault=Fault.ERROR, why="exception"), [("display.absent", Level.UNKNOWN)]),
    (Reading(fault=Fault.NO_ANSWER, why="deadline"), [("display.absent", Level.UNKNOWN)]),
    (
        Reading({"connected": True}, identity={"name": "B"}),
        [("display.changed", Level.WARN)],
    ),
    (Reading({"connected": True}, identity={"name": "A"}), []),
    (
        Reading({"connected": True}, identity={"product": "0x0001"}),
        [("display.changed", Level.WARN)],
    ),
]


@pytest.mark.parametrize(("reading", "expected"), ROWS)
def test_what_a_reading_means(reading: Reading, expected: list[tuple[str, Level]]) -> None:
    limits = display.Settings(connector="HDMI-A-1", expect_name="A")
    found = display.judge(reading, limits)
    assert [(f.code, f.level) for f in found] == expected
    assert all(f.code in display.CODES for f in found)


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"connector": "HDMI-A-1", "source": "file:x"},
        {"connector": "../../etc"},
        {"connector": "HDMI-A-*"},
        {"connector": "HDMI"},
        {"source": "edid.bin"},
        {"connector": "HDMI-A-1", "expect_product": "d0d8"},
        {"connector": "HDMI-A-1", "expect_manufacturer": "Dell"},
        {"connector": "HDMI-A-1", "on": True},
    ],
)
def test_settings_that_name_no_one_place_are_refused(wrong: dict[str, Scalar]) -> None:
    with pytest.raises(ValidationError):
        display.Settings.model_validate(wrong)


@pytest.mark.parametrize(
    "name", ["HDMI-A-1", "card1-HDMI-A-2", "DP-1", "eDP-1", "DVI-I-1", "DP-1-2"]
)
def test_connectors_are_named_as_the_kernel_does(name: str) -> None:
    assert display.Settings(connector=name).claims() == {"connector": f"connector {name}"}


def test_values_are_numbers_and_words_of_the_list(tmp_path: Path) -> None:
    for value in read(pi(tmp_path), connector="HDMI-A-1").values.values():
        assert not isinstance(value, str) or value in display.WORDS
