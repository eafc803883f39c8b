"""Contacts and lamps on boards, as hands holds them."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace

import pytest
import relay_boards
from relay_boards import SerialRelay

from agent.hands import hardware as module
from agent.hands.hardware import Hardware
from agent.hands.layout import Place
from agent.hands.lines import Chip

SPEC = {"protocol": "lcus", "usb": ["1a86:7523"], "product": None, "baud": 9600}


def place(channel: int, *, active_low: bool = False) -> Place:
    return Place(board="lcus-serial", spec=SPEC, at="1-1.3", channel=channel, active_low=active_low)


def hardware(root: Path) -> Hardware:
    return Hardware(watch=lambda fd, callback: None, root=root, environ={})


def plug(root: Path, board: SerialRelay, node: str = "ttyUSB0") -> Path:
    return relay_boards.plug(root, "1-1.3", "1a86:7523", node=node, behind=board.path)


def test_a_contact_that_is_as_it_should_be_is_not_switched(tmp_path: Path) -> None:
    with SerialRelay(2) as board:
        plug(tmp_path, board)
        board.state = [True, False]
        held = hardware(tmp_path)
        assert held.contact(place(1), on=True).get() is True
        assert held.contact(place(2, active_low=True), on=True).get() is True
        assert held.peek(place(1)) is True
        assert board.switched == 0
        held.close()


def test_a_contact_takes_its_state_where_it_has_another(tmp_path: Path) -> None:
    with SerialRelay(2) as board:
        plug(tmp_path, board)
        held = hardware(tmp_path)
        contact = held.contact(place(2, active_low=True), on=False)
        assert board.becomes([False, True])
        contact.set(True)
        assert board.becomes([False, False])
        lamp = held.lamp(place(1))
        lamp.set(True)
        assert lamp.get() is True
        held.close()


def test_contacts_of_one_board_come_back_together(tmp_path: Path) -> None:
    """Whichever is used first finds it again, and none of them is left with the old descriptor."""
    with SerialRelay(2) as before, SerialRelay(2) as after:
        device = plug(tmp_path, before)
        held = hardware(tmp_path)
        one, two = (held.contact(place(n), on=False) for n in (1, 2))
        before.pull()
        relay_boards.pull(tmp_path, device, "ttyUSB0")
        with pytest.raises(OSError, match=r".") as error:
            one.get()
        assert error.value.errno == errno.ENODEV
        held.forget_board(place(1))
        plug(tmp_path, after, "ttyUSB1")
        again = held.contact(place(1), on=True)
        for _ in range(3):
            assert two.get() is False
            assert again.get() is True
        two.set(True)
        assert after.becomes([True, True])
        held.close()


def test_a_board_that_is_not_there_yet_is_had_when_it_comes(tmp_path: Path) -> None:
    held = hardware(tmp_path)
    with pytest.raises(OSError, match="no serial adapter") as error:
        held.contact(place(1), on=False)
    assert error.value.errno == errno.ENODEV
    assert held.peek(place(1)) is None
    with SerialRelay(1) as board:
        plug(tmp_path, board)
        assert held.peek(place(1)) is False
        assert held.contact(place(1), on=True).get() is True
        held.close()


def test_a_chip_that_comes_after_hands_is_had_with_the_next_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its driver is a module, or its node has not got its group yet."""
    late = Chip(tmp_path / "gpiochip9", "pinctrl-rp1", {26: 26})

    def forbidden(dev: Path) -> Chip | None:
        raise PermissionError(errno.EACCES, "not yet")

    monkeypatch.setattr(module, "find_chip", forbidden)
    held = hardware(tmp_path)
    for found, number in ((forbidden, errno.EACCES), (lambda dev: None, errno.ENODEV)):
        monkeypatch.setattr(module, "find_chip", found)
        for take in (held.lamp, lambda place: held.contact(place, on=False)):
            with pytest.raises(OSError, match=r".") as error:
                take(Place(pin=26))
            assert error.value.errno == number
        assert held.kind == "none"
    monkeypatch.setattr(module, "find_chip", lambda dev: late)
    factory = SimpleNamespace(close=lambda: None)
    monkeypatch.setattr(module, "GpiodFactory", lambda chip, watch: factory)
    with pytest.raises(OSError, match=r"."):  # it is asked: here is no such node
        held.contact(Place(pin=26), on=False)
    assert (held.kind, held.label) == ("gpiod", "pinctrl-rp1")
    held.close()
