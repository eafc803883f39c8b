"""LEDs of the kernel: trees of files as /sys/class/leds has them."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest
from relay_boards import as_nobody, open_folder

from agent.hands.hardware import Hardware
from agent.hands.layout import Place
from agent.hands.leds import SystemLeds
from agent.kinds import indicator

TRIGGERS = "none kbd-scrolllock timer heartbeat [mmc0] default-on\n"
LUXAFOR = [f"luxafor0:{colour}:led{n}" for colour in ("red", "green", "blue") for n in range(6)]


def add(root: Path, name: str, full: int = 255, triggers: str | None = TRIGGERS) -> Path:
    """One LED as the kernel shows it; the class has links to the devices."""
    folder = root / "sys/devices/leds" / name
    folder.mkdir(parents=True)
    (folder / "brightness").write_text("0\n")
    (folder / "max_brightness").write_text(f"{full}\n")
    if triggers is not None:
        (folder / "trigger").write_text(triggers)
    classes = root / "sys/class/leds"
    classes.mkdir(parents=True, exist_ok=True)
    (classes / name).symlink_to(folder)
    return folder


def said(folder: Path, attribute: str = "brightness") -> str:
    return (folder / attribute).read_text()


def test_a_led_burns_and_goes_dark(tmp_path: Path) -> None:
    folder = add(tmp_path, "ACT", full=1)
    led = SystemLeds("ACT", tmp_path)
    assert led.get() is False
    led.set(True)
    assert (said(folder), led.get()) == ("1", True)
    led.set(False)
    assert (said(folder)[:1], led.get()) == ("0", False)


def test_full_is_what_the_led_calls_full(tmp_path: Path) -> None:
    folder = add(tmp_path, "dream_cheeky0:red", full=31, triggers="[none] timer\n")
    SystemLeds("dream_cheeky0:red", tmp_path).set(True)
    assert said(folder) == "31"


def test_what_it_was_for_comes_back_at_the_end(tmp_path: Path) -> None:
    folder = add(tmp_path, "ACT")
    led = SystemLeds("ACT", tmp_path)
    assert said(folder, "trigger").startswith("none"), "nothing else may blink it meanwhile"
    led.set(True)
    led.close()
    assert said(folder, "trigger").startswith("mmc0")
    assert said(folder)[:1] == "0"


@pytest.mark.parametrize("triggers", ["[none] mmc0\n", None], ids=["none chosen", "no file"])
def test_without_a_trigger_there_is_nothing_to_bring_back(
    tmp_path: Path, triggers: str | None
) -> None:
    folder = add(tmp_path, "ACT", triggers=triggers)
    led = SystemLeds("ACT", tmp_path)
    led.set(True)
    assert led.get() is True
    led.close()
    assert (
        not (folder / "trigger").exists()
        if triggers is None
        else said(folder, "trigger") == triggers
    )


@pytest.mark.parametrize("there", [[], ["PWR", "mmc0::"]])
def test_a_led_that_is_not_there_is_named_with_those_that_are(
    tmp_path: Path, there: list[str]
) -> None:
    for name in there:
        add(tmp_path, name)
    with pytest.raises(OSError, match="no LED ACT; there are") as error:
        SystemLeds("ACT", tmp_path)
    assert error.value.errno == errno.ENODEV
    assert ", ".join(there) in str(error.value)
    add(tmp_path, "ACT")
    SystemLeds("ACT", tmp_path).set(True)


def test_a_light_that_is_unplugged_is_an_error_and_works_again(tmp_path: Path) -> None:
    folder = add(tmp_path, "delcom0:red", triggers=None)
    led = SystemLeds("delcom0:red", tmp_path)
    led.set(True)
    shutil.rmtree(folder)
    for act in (led.get, lambda: led.set(False), lambda: led.set(True)):
        with pytest.raises(OSError, match="is gone") as error:
            act()
        assert error.value.errno == errno.ENODEV
    led.close()
    assert not folder.exists(), "nothing was made in its place"
    (tmp_path / "sys/class/leds/delcom0:red").unlink()
    again = add(tmp_path, "delcom3:red", triggers=None)
    SystemLeds("delcom*:red", tmp_path).set(True)
    assert said(again) == "255"


def test_without_the_right_nothing_is_changed() -> None:
    with open_folder() as root:
        folder = add(root, "ACT")
        for file in folder.iterdir():
            file.chmod(0o444)
        before = said(folder, "trigger")
        with as_nobody(), pytest.raises(PermissionError) as error:
            SystemLeds("ACT", root)
        assert error.value.errno == errno.EACCES
        assert said(folder, "trigger") == before
        for file in folder.iterdir():
            file.chmod(0o666)
        with as_nobody():
            led = SystemLeds("ACT", root)
            led.set(True)
            assert led.get() is True


def test_of_several_all_are_had_or_none() -> None:
    with open_folder() as root:
        first, second = add(root, "luxafor0:red:led0"), add(root, "luxafor0:red:led1")
        for file in (*first.iterdir(), *second.iterdir()):
            file.chmod(0o666)
        (second / "trigger").chmod(0o444)
        with as_nobody(), pytest.raises(PermissionError):
            SystemLeds("luxafor*:red:*", root)
        assert said(first, "trigger").startswith("mmc0"), "the first one was given back"
        (second / "trigger").chmod(0o666)
        with as_nobody():
            SystemLeds("luxafor*:red:*", root)


def test_a_colour_of_a_usb_light_is_all_its_leds_of_that_colour(tmp_path: Path) -> None:
    folders = {name: add(tmp_path, name, triggers="[none]\n") for name in [*LUXAFOR, "ACT"]}
    red = SystemLeds("luxafor*:red:led*", tmp_path)
    red.set(True)
    burning = sorted(name for name, folder in folders.items() if said(folder).strip() != "0")
    assert burning == LUXAFOR[:6]
    assert red.get() is True
    red.close()
    assert all(said(folder).strip() == "0" for folder in folders.values())


def test_hands_holds_a_led_as_a_lamp(tmp_path: Path) -> None:
    folder = add(tmp_path, "luxafor0:red:led0")
    held = Hardware(watch=lambda fd, callback: None, root=tmp_path, environ={})
    lamp = held.lamp(Place(led="luxafor*:red:*"))
    assert lamp.get() is False
    lamp.set(True)
    assert said(folder) == "255"
    lamp.close()
    assert said(folder, "trigger").startswith("mmc0")
    with pytest.raises(OSError, match="no LED nope"):
        held.lamp(Place(led="nope"))


# -- what adopt proposes -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "proposed"),
    [
        ([], []),
        (["PWR", "ACT"], [{"led": "ACT"}]),
        (["led0", "led1"], [{"led": "led0"}]),
        (
            ["ACT", *LUXAFOR],
            [{c: f"led:luxafor*:{c}*" for c in ("red", "green", "blue")}],
        ),
        (
            ["delcom2:red", "delcom2:green", "delcom2:blue"],
            [{c: f"led:delcom*:{c}*" for c in ("red", "green", "blue")}],
        ),
        (["input3::scrolllock", "tpacpi:red:status"], []),
    ],
)
def test_a_usb_light_is_proposed_before_the_box_s_own(
    tmp_path: Path, there: list[str], proposed: list[dict[str, str]]
) -> None:
    for name in there:
        add(tmp_path, name)
    assert indicator.discover(tmp_path) == proposed
    for table in proposed:
        lamps = indicator.Settings(**table).lamps
        for place in lamps.values():
            SystemLeds(str(place).removeprefix("led:"), tmp_path).set(True)
