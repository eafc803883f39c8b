"""What is left to be seen when hands has ended: no light that was true before."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import relay_boards
from relay_boards import SerialRelay

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


def test_lamps_on_a_board_are_dark_and_the_door_lamp_holds(
    tmp_path: Path, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = {"protocol": "lcus", "usb": ["1a86:7523"], "product": None, "baud": 9600}

    def place(channel: int, *, low: bool = False) -> Place:
        return Place(board="lcus", spec=spec, at="1-1.3", channel=channel, active_low=low)

    keep(
        state,
        Light("status", lamps={"green": place(1), "red": place(2, low=True)}),
        Light("door", role="door", lamps={"white": place(3)}),
        Light("mic", role="mic_live", lamps={"red": place(4)}),
    )
    assert farewell.main(tmp_path) == 0, "the board is not there"
    assert "cannot be darkened" in capsys.readouterr().err
    with SerialRelay(4) as board:
        relay_boards.plug(tmp_path, "1-1.3", "1a86:7523", node="ttyUSB0", behind=board.path)
        board.state = [True, False, True, True]
        assert farewell.main(tmp_path) == 0
        assert board.becomes([False, True, True, True])
    assert capsys.readouterr().err == ""


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
