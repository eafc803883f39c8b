"""Serial relays, at the end of a real line."""

from __future__ import annotations

import errno
import fcntl
import os
import termios
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import relay_boards
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from relay_boards import SerialRelay

from agent.hands.boards import lcus, node, open_board
from agent.hands.layout import Place

SPEC = {"protocol": "lcus", "usb": ["1a86:7523"], "product": None, "baud": 9600}


def place(at: str = "1-1.3", spec: dict[str, Any] = SPEC) -> Place:
    return Place(board="lcus-serial", spec=spec, at=at, channel=1)


@pytest.fixture
def board() -> Iterator[SerialRelay]:
    with SerialRelay(4) as made:
        yield made


def spoken_to(at: str, gap_s: float = 0.0) -> tuple[lcus.Lcus, lcus.Port]:
    port = lcus.Port(place(at), Path("/"))
    return lcus.Lcus(port, gap_s), port


# -- which one -----------------------------------------------------------------------------------


def test_a_port_leads_to_the_adapter_that_is_there(tmp_path: Path) -> None:
    relay_boards.plug(tmp_path, "1-1.3", "1a86:7523", node="ttyUSB1")
    relay_boards.plug(tmp_path, "1-1.4", "1a86:7523", node="ttyUSB0")
    assert lcus.find(place(), tmp_path) == tmp_path / "dev/ttyUSB1"


@pytest.mark.parametrize(
    ("plugged", "said"),
    [
        (None, "no serial adapter is plugged in at 1-1.3"),
        ("0403:6001", "at 1-1.3 there is 0403:6001, no lcus-serial (1a86:7523)"),
    ],
)
def test_what_is_not_there_is_enodev(tmp_path: Path, plugged: str | None, said: str) -> None:
    if plugged:
        relay_boards.plug(tmp_path, "1-1.3", plugged, node="ttyUSB0")
    with pytest.raises(OSError, match=r".") as error:
        lcus.find(place(), tmp_path)
    assert error.value.errno == errno.ENODEV
    assert said in str(error.value)


def test_a_path_is_a_path(tmp_path: Path) -> None:
    by_path = "/dev/serial/by-path/platform-xhci-usb-0:1.3:1.0-port0"
    assert lcus.find(place(by_path), tmp_path) == tmp_path / by_path[1:]
    with pytest.raises(FileNotFoundError):
        open_board(place("/dev/ttyUSB7"), tmp_path).set(1, True)


# -- what is said --------------------------------------------------------------------------------


def test_frames_are_the_maker_s() -> None:
    assert lcus.frame(1, True) == bytes.fromhex("A0 01 01 A2")
    assert lcus.frame(1, False) == bytes.fromhex("A0 01 00 A1")
    assert lcus.frame(8, True) == bytes.fromhex("A0 08 01 A9")


@pytest.mark.parametrize(
    ("answer", "states"),
    [
        (b"CH1: ON\r\nCH2: OFF\r\n", {1: True, 2: False}),
        (b"CH1:OFF \r\nCH2:ON \r\n", {1: False, 2: True}),
        (b"\xffF\r\nCH2: ON\r\n", {2: True}),
        (b"CH1: ON\r\nCH2: OF", {1: True}),
        (b"CH16: ON\r\n", {16: True}),
        (b"", {}),
        (b"A0\x01\x01\xa2", {}),
    ],
)
def test_an_answer_is_taken_apart(answer: bytes, states: dict[int, bool]) -> None:
    assert lcus.parse(answer) == states


@given(st.binary(max_size=200))
def test_any_answer_can_be_taken_apart(answer: bytes) -> None:
    states = lcus.parse(answer)
    assert all(0 <= channel <= 99 for channel in states)


def test_a_board_is_switched_and_tells_its_state(board: SerialRelay) -> None:
    spoken, port = spoken_to(board.path)
    spoken.set(2, True)
    spoken.set(4, True)
    assert board.becomes([False, True, False, True])
    assert [spoken.get(n) for n in (1, 2, 3, 4)] == [False, True, False, True]
    assert board.queries == 1, "one answer tells of all relays"
    spoken.set(2, False)
    assert spoken.get(2) is False
    assert board.queries == 2, "after a switching it is asked again"
    assert board.bad == []
    port.close()


def test_the_line_is_raw_and_9600_and_does_not_drop_its_signals(board: SerialRelay) -> None:
    port = lcus.Port(place(board.path), Path("/"))
    port.check()
    fd = os.open(board.path, os.O_RDWR | os.O_NOCTTY)
    iflag, oflag, cflag, lflag, ispeed, ospeed, _ = termios.tcgetattr(fd)
    os.close(fd)
    assert (iflag, oflag, lflag) == (0, 0, 0)
    assert (ispeed, ospeed) == (termios.B9600, termios.B9600)
    assert cflag & termios.CSIZE == termios.CS8
    assert not cflag & (termios.PARENB | termios.CSTOPB | termios.HUPCL | termios.CRTSCTS)
    port.close()


def test_other_prints_of_the_answer_are_read_too() -> None:
    with SerialRelay(2, "spaced") as board:
        spoken, port = spoken_to(board.path)
        spoken.set(2, True)
        assert (spoken.get(1), spoken.get(2)) == (False, True)
        port.close()


def test_an_older_board_does_not_tell_and_is_asked_no_more() -> None:
    with SerialRelay(2, "silent") as board:
        spoken, port = spoken_to(board.path)
        assert spoken.get(1) is None
        assert board.queries == 2
        spoken.set(1, True)
        assert spoken.get(1) is None
        assert board.becomes([True, False])
        assert board.queries == 2
        board.pull()
        with pytest.raises(OSError, match="unplugged") as error:
            spoken.get(1)
        assert error.value.errno == errno.ENODEV
        port.close()


def test_a_board_that_answered_before_and_does_not_any_more_has_failed(board: SerialRelay) -> None:
    spoken, port = spoken_to(board.path)
    assert spoken.get(1) is False
    board.answers = "silent"
    spoken.set(1, True)
    for _ in range(2):
        with pytest.raises(TimeoutError, match="any more"):
            spoken.get(1)
    board.answers = "lines"
    assert spoken.get(1) is True
    port.close()


def test_a_relay_that_the_board_does_not_tell_of_is_not_there(board: SerialRelay) -> None:
    spoken, port = spoken_to(board.path)
    with pytest.raises(OSError, match="relays 1, 2, 3, 4, not of 8") as error:
        spoken.get(8)
    assert error.value.errno == errno.ENXIO
    for channel in (0, -1, 256):
        with pytest.raises(OSError, match="no relay"):
            spoken.set(channel, True)
    assert board.becomes([False] * 4)
    port.close()


@pytest.mark.parametrize("answers", ["noise", "flood"])
def test_nonsense_ends_in_time(answers: str) -> None:
    with SerialRelay(2, answers) as board:
        spoken, port = spoken_to(board.path)
        assert spoken.get(1) is (None if answers == "noise" else True)
        port.close()


def test_between_two_commands_there_is_a_gap(
    board: SerialRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(lcus.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(lcus.time, "sleep", sleep)
    spoken, port = spoken_to(board.path, lcus.GAP_S)
    spoken.set(1, True)
    assert slept == [], "nobody waits for the first"
    now[0] += 0.03
    spoken.set(1, False)
    assert slept == [pytest.approx(0.07)]
    now[0] += 5
    spoken.set(1, True)
    assert len(slept) == 1
    port.close()


# -- the line ------------------------------------------------------------------------------------


def test_the_line_belongs_to_one(board: SerialRelay) -> None:
    first, second = (lcus.Port(place(board.path), Path("/")) for _ in range(2))
    first.send(lcus.frame(1, True))
    with pytest.raises(OSError, match="another program") as error:
        second.send(lcus.frame(1, False))
    assert error.value.errno == errno.EBUSY
    fd = os.open(board.path, os.O_RDWR | os.O_NOCTTY)
    exclusive = fcntl.ioctl(fd, 0x80045440, b"\0\0\0\0")  # TIOCGEXCL
    os.close(fd)
    assert exclusive == b"\1\0\0\0", "the refused one has not taken it from the first"
    first.send(lcus.frame(2, True))
    assert board.becomes([True, True, False, False])
    first.close()
    second.send(lcus.frame(3, True))
    assert board.becomes([True, True, True, False])
    second.close()


def test_a_line_that_takes_nothing_is_given_up_and_nothing_comes_late(
    board: SerialRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(node, "monotonic", lambda: now[0])
    line = os.open(board.path, os.O_RDWR | os.O_NOCTTY)
    spoken, port = spoken_to(board.path)
    spoken.set(1, True)
    assert board.becomes([True, False, False, False])
    termios.tcflow(line, termios.TCOOFF)
    for act in (lambda: spoken.set(2, True), lambda: spoken.get(1)):
        with pytest.raises(TimeoutError, match="takes nothing"):
            act()
        with pytest.raises(TimeoutError, match="left alone"):
            act()
        now[0] += node.REST_S
    termios.tcflow(line, termios.TCOON)
    spoken.set(3, True)
    assert board.becomes([True, False, True, False])
    assert spoken.get(2) is False
    os.close(line)
    port.close()


def test_a_line_that_cannot_be_closed_at_once_is_closed_aside(
    board: SerialRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An adapter that hangs makes `close` wait for half a minute."""
    may_end, ended = threading.Event(), threading.Event()
    closes = os.close

    def close(fd: int) -> None:
        may_end.wait(30)
        closes(fd)
        ended.set()

    monkeypatch.setattr(node, "CLOSE_S", 0.02)
    port = lcus.Port(place(board.path), Path("/"))
    port.check()
    monkeypatch.setattr(os, "close", close)
    port.close()
    monkeypatch.setattr(os, "close", closes)
    assert not ended.is_set(), "nobody waits for it"
    port.send(lcus.frame(1, True))
    assert board.becomes([True, False, False, False]), "and nobody is kept out by it"
    may_end.set()
    assert ended.wait(10)
    port.close()


def test_what_is_no_terminal_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/ttyUSB0").touch()
    with pytest.raises(OSError, match=r".") as error:
        open_board(place("/dev/ttyUSB0"), tmp_path).get(1)
    assert error.value.errno == errno.ENOTTY


def test_a_board_that_is_pulled_and_plugged_in_again_works_again(tmp_path: Path) -> None:
    with SerialRelay(2) as before, SerialRelay(2) as after:
        device = relay_boards.plug(
            tmp_path, "1-1.3", "1a86:7523", node="ttyUSB0", behind=before.path
        )
        board = open_board(place(), tmp_path)
        board.set(1, True)
        assert board.get(1) is True
        before.pull()
        relay_boards.pull(tmp_path, device, "ttyUSB0")
        for act in (lambda: board.set(1, False), lambda: board.get(1)):
            with pytest.raises(OSError, match=r".") as error:
                act()
            assert error.value.errno == errno.ENODEV
        relay_boards.plug(tmp_path, "1-1.3", "1a86:7523", node="ttyUSB1", behind=after.path)
        assert board.get(1) is False
        board.set(2, True)
        assert after.becomes([False, True])
        board.close()


@pytest.mark.parametrize(("first", "second"), [("lines", "silent"), ("silent", "lines")])
def test_what_was_learned_of_a_board_outlives_its_replug_only_where_it_is_a_promise(
    tmp_path: Path, first: str, second: str
) -> None:
    """A board that used to answer and is mute after it was plugged in anew has failed; one that
    never answered may be another one now."""
    with SerialRelay(1, first) as before, SerialRelay(1, second) as after:
        device = relay_boards.plug(
            tmp_path, "1-1.3", "1a86:7523", node="ttyUSB0", behind=before.path
        )
        board = open_board(place(), tmp_path)
        assert board.get(1) is (False if first == "lines" else None)
        before.pull()
        relay_boards.pull(tmp_path, device, "ttyUSB0")
        with pytest.raises(OSError, match="unplugged"):
            board.get(1)
        relay_boards.plug(tmp_path, "1-1.3", "1a86:7523", node="ttyUSB1", behind=after.path)
        if second == "lines":
            assert board.get(1) is False
        else:
            with pytest.raises(TimeoutError, match="any more"):
                board.get(1)
        board.close()


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(wishes=st.lists(st.tuples(st.integers(1, 4), st.booleans(), st.booleans()), max_size=12))
def test_whatever_is_asked_for_every_frame_is_whole(
    board: SerialRelay, wishes: list[tuple[int, bool, bool]]
) -> None:
    spoken, port = spoken_to(board.path)
    model = list(board.state)
    for channel, on, look in wishes:
        spoken.set(channel, on)
        model[channel - 1] = on
        if look:
            assert [spoken.get(n) for n in (1, 2, 3, 4)] == model
    assert board.becomes(model)
    assert board.bad == []
    port.close()
