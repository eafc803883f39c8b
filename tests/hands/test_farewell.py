"""What is left to be seen when hands has ended: the kernel blinks the LED that was a light."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from agent import patterns
from agent.hands import farewell
from agent.hands.keeper import Keeper, Kept
from agent.hands.layout import Layout, Light, Place, dump


def led(root: Path, name: str) -> Path:
    folder = root / "sys/class/leds" / name
    folder.mkdir(parents=True)
    for file in ("trigger", "delay_on", "delay_off"):
        (folder / file).write_text("before")
    return folder


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    monkeypatch.setenv("STATE_DIRECTORY", str(folder))
    return folder


def keep(state: Path, *lights: Light) -> None:
    Keeper(state).write(Kept(layout=dump(Layout(lights=lights))))


def test_the_led_of_a_status_light_goes_on_saying_stopped(tmp_path: Path, state: Path) -> None:
    act, other, door = (led(tmp_path, name) for name in ("ACT", "PWR", "door"))
    status = Light("status", lamps={"white": Place(led="ACT")})
    keep(
        state,
        status,
        Light("lamp", lamps={"red": Place(pin=17)}),
        dataclasses.replace(status, id="door", role="door", lamps={"white": Place(led="door")}),
    )
    assert farewell.main(tmp_path) == 0
    assert (act / "trigger").read_text() == "timer"
    lit, dark = patterns.STOPPED.times
    assert (act / "delay_on").read_text() == str(int(lit * 1000))
    assert (act / "delay_off").read_text() == str(int(dark * 1000))
    # A door lamp that blinks would say that a hearing runs; the others are nobody's.
    for untouched in (other, door):
        assert (untouched / "trigger").read_text() == "before"


def test_nothing_kept_or_no_such_led_is_no_trouble(
    tmp_path: Path, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert farewell.main(tmp_path) == 0
    keep(state, Light("status", lamps={"white": Place(led="GONE")}))
    assert farewell.main(tmp_path) == 0
    assert capsys.readouterr().err == ""
    act = led(tmp_path, "GONE")
    (act / "trigger").unlink()
    (act / "trigger").mkdir()
    assert farewell.main(tmp_path) == 0
    assert "GONE cannot blink" in capsys.readouterr().err
