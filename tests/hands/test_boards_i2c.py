"""I2C relay boards: where they are, and what is written to their registers."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from relay_boards import Chip

from agent import profiles
from agent.hands import plan
from agent.hands.boards import i2c, node, open_board
from agent.hands.layout import Place

FOUR = (0x10, 0x11, 0x12, 0x13)


@pytest.mark.parametrize(
    ("at", "addresses", "found"),
    [
        ("", (0x48,), ("i2c-1", 0x48)),
        ("0x12", FOUR, ("i2c-1", 0x12)),
        ("i2c-3@0x12", FOUR, ("i2c-3", 0x12)),
        ("i2c-20", (0x48,), ("i2c-20", 0x48)),
        ("0x3F", (0x3F,), ("i2c-1", 0x3F)),
    ],
)
def test_where_a_board_is(at: str, addresses: tuple[int, ...], found: tuple[str, int]) -> None:
    assert i2c.where(at, addresses) == found


@pytest.mark.parametrize(
    ("at", "said"),
    [
        ("", "it may be at 0x10, 0x11, 0x12, 0x13: say where"),
        ("i2c-1", "say where"),
        ("0x20", "it answers at 0x10, 0x11, 0x12, 0x13 only"),
        ("1-1.2", 'write "0x20", "i2c-1" or "i2c-1@0x20"'),
        ("16", "is no address"),
        ("i2c-1@", "say where"),
        ("i2c-10x10", "is no address"),
        ("/dev/i2c-1", "is no address"),
    ],
)
def test_where_no_board_can_be(at: str, said: str) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        i2c.where(at, FOUR)
    assert said in str(error.value)


# -- registers -----------------------------------------------------------------------------------


def test_a_seeed_board_is_switched_by_its_directions() -> None:
    chip = Chip(x06=0xFF)
    board = i2c.Bits(chip, 0x06, range(4))
    board.set(2, False)  # active low: the contact turns it round
    board.set(4, False)
    assert chip.writes == [(6, 0b1111_1101), (6, 0b1111_0101)]
    assert [board.get(n) for n in (1, 2, 3, 4)] == [True, False, True, False]
    board.set(2, True)
    assert chip.registers[6] == 0b1111_0111


def test_what_is_found_stays_for_the_other_relays() -> None:
    """hands was restarted: the chip still has what was written before."""
    chip = Chip(x06=0b1111_0100)
    i2c.Bits(chip, 0x06, range(4)).set(1, True)
    assert chip.registers[6] == 0b1111_0101


def test_a_pin_becomes_an_output_only_with_its_level() -> None:
    """After power comes the latch of a PCA9534 is all ones, its pins are inputs: relays off."""
    chip = Chip(x01=0xFF, x03=0xFF)
    board = i2c.Bits(chip, 0x01, (0, 2, 6, 4, 5, 7, 3, 1), 0x03)
    assert [board.get(n) for n in range(1, 9)] == [False] * 8
    assert chip.writes == [], "looking changes nothing"
    board.set(3, False)
    assert chip.writes == [(0x01, 0b1011_1111), (0x03, 0b1011_1111)], "the level first"
    board.set(2, True)
    assert chip.registers == {0x01: 0b1011_1111, 0x03: 0b1011_1011}
    assert [board.get(n) for n in range(1, 9)] == [False, True, *[False] * 6]
    chip.writes.clear()
    board.set(2, False)
    assert chip.writes == [(0x01, 0b1011_1011)], "an output stays one"


def test_a_dockerpi_has_a_register_for_each_relay() -> None:
    chip = Chip(x01=0, x02=0, x03=1, x04=0xFF)
    board = i2c.Registers(chip, (1, 2, 3, 4), 0xFF, 0x00, reads_back=True)
    assert [board.get(n) for n in (1, 2, 3, 4)] == [False, False, True, True]
    board.set(1, True)
    board.set(4, False)
    assert chip.writes == [(1, 0xFF), (4, 0x00)]
    silent = i2c.Registers(chip, (1, 2, 3, 4), 0xFF, 0x00, reads_back=False)
    assert silent.get(1) is None


@pytest.mark.parametrize("channel", [-1, 0, 5])
def test_a_relay_that_is_not_there_touches_nothing(channel: int) -> None:
    chip = Chip(x06=0xFF, x01=0, x02=0, x03=0, x04=0)
    bits = i2c.Bits(chip, 0x06, range(4))
    registers = i2c.Registers(chip, (1, 2, 3, 4), 255, 0, reads_back=True)
    for act in (
        bits.get,
        registers.get,
        lambda n: bits.set(n, True),
        lambda n: registers.set(n, True),
    ):
        with pytest.raises(OSError, match="has 4 relays") as error:
            act(channel)
        assert error.value.errno == errno.ENXIO
    assert chip.writes == []


WISHES = st.lists(st.tuples(st.integers(1, 8), st.booleans()), max_size=30)


@given(WISHES, st.permutations(range(8)), st.booleans(), st.integers(0, 255), st.integers(0, 255))
def test_whatever_is_asked_for_only_that_relay_moves(
    wishes: list[tuple[int, bool]], bits: list[int], directed: bool, latch: int, pins: int
) -> None:
    chip = Chip(x01=latch, x03=pins)
    board = i2c.Bits(chip, 0x01, bits, 0x03 if directed else None)

    def pulled() -> list[bool]:
        inputs = chip.registers[3] if directed else 0
        return [bool(chip.registers[1] & ~inputs & 1 << bit) for bit in bits]

    model = pulled()
    for channel, on in wishes:
        board.set(channel, on)
        model[channel - 1] = on
        assert pulled() == model
        assert [board.get(n) for n in range(1, 9)] == model
    if not directed:
        assert chip.registers[3] == pins


# -- the bus -------------------------------------------------------------------------------------


class Bus:
    """The kernel's side of i2c-dev: a bus, its chips, and the addresses that drivers hold."""

    def __init__(self) -> None:
        self.chips: dict[int, Chip] = {}
        self.held: set[int] = set()
        self.selected: dict[int, int] = {}
        self.trouble = 0

    def ioctl(self, fd: int, request: int, argument: Any) -> int:
        if request == 0x0703:  # I2C_SLAVE
            if argument in self.held:
                raise OSError(errno.EBUSY, "Device or resource busy")
            self.selected[fd] = argument
            return 0
        assert request == 0x0720  # I2C_SMBUS
        raw = bytes(argument)
        assert len(raw) == 16, "struct i2c_smbus_ioctl_data of 64 bits"
        assert int.from_bytes(raw[4:8], "little") == 2, "I2C_SMBUS_BYTE_DATA"
        data = ctypes.c_uint8.from_address(int.from_bytes(raw[8:16], "little"))
        if self.trouble:
            raise OSError(self.trouble, os.strerror(self.trouble))
        chip = self.chips.get(self.selected[fd])
        if chip is None:
            raise OSError(errno.EREMOTEIO, "Remote I/O error")
        if raw[0] == 1:
            data.value = chip.read(raw[1])
        else:
            chip.write(raw[1], data.value)
        return 0


@pytest.fixture
def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bus:
    made = Bus()
    monkeypatch.setattr(fcntl, "ioctl", made.ioctl)
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/i2c-1").touch()
    return made


def place(board: str, at: str, channel: int = 1) -> Place:
    profile = profiles.all_relay_boards()[board]
    return Place(board=board, spec=plan._spec(profile), at=at, channel=channel)


def test_every_board_of_a_profile_is_switched_and_read(tmp_path: Path, bus: Bus) -> None:
    bus.chips = {
        0x20: Chip(x06=0xFF),
        0x12: Chip(x01=0, x02=0, x03=0, x04=0),
        0x3F: Chip(x01=0xFF, x03=0xFF),
        0x21: Chip(x0a=0x00, x00=0xFF),
    }
    seeed = open_board(place("seeed-4ch-i2c", "0x20"), tmp_path)
    seeed.set(1, False)
    assert bus.chips[0x20].registers == {6: 0xFE}
    docker = open_board(place("dockerpi-4ch-i2c", "i2c-1@0x12"), tmp_path)
    docker.set(3, True)
    assert bus.chips[0x12].registers[3] == 0xFF
    assert docker.get(3) is True
    sequent = open_board(place("sequent-8relay", "0x3f"), tmp_path)
    sequent.set(2, True)
    assert bus.chips[0x3F].registers == {1: 0xFF, 3: 0b1111_1011}
    hat = open_board(place("plasmadan-30a", "0x21"), tmp_path)
    hat.set(2, True)
    assert bus.chips[0x21].registers == {0x0A: 0b10, 0x00: 0b1111_1101}
    for board in (seeed, docker, sequent, hat):
        board.close()


def test_a_board_that_is_taken_off_and_put_back_works_again(tmp_path: Path, bus: Bus) -> None:
    board = open_board(place("dockerpi-4ch-i2c", "0x10"), tmp_path)
    with pytest.raises(OSError, match="nothing answers at 0x10 of i2c-1") as error:
        board.get(1)
    assert error.value.errno == errno.ENODEV
    bus.chips[0x10] = Chip(x01=0, x02=0, x03=0, x04=0)
    board.set(1, True)
    assert board.get(1) is True
    board.close()


def test_an_address_that_the_kernel_uses_is_busy(tmp_path: Path, bus: Bus) -> None:
    bus.chips[0x20] = Chip(x06=0xFF)
    bus.held.add(0x20)
    board = open_board(place("seeed-4ch-i2c", "0x20"), tmp_path)
    with pytest.raises(OSError, match="busy") as error:
        board.set(1, True)
    assert error.value.errno == errno.EBUSY
    bus.held.clear()
    board.set(1, True)
    board.close()


def test_a_bus_that_hangs_is_a_timeout(
    tmp_path: Path, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(node, "monotonic", lambda: now[0])
    bus.chips[0x20] = Chip(x06=0xFF)
    bus.trouble = errno.ETIMEDOUT
    board = open_board(place("seeed-4ch-i2c", "0x20"), tmp_path)
    with pytest.raises(TimeoutError):
        board.get(1)
    bus.trouble = 0
    now[0] += node.REST_S
    assert board.get(1) is True
    board.close()


def test_without_the_bus_it_is_said_how_to_switch_it_on(tmp_path: Path) -> None:
    board = open_board(place("seeed-4ch-i2c", "0x20"), tmp_path)
    with pytest.raises(OSError, match="dtparam=i2c_arm=on") as error:
        board.get(1)
    assert error.value.errno == errno.ENODEV


def test_a_place_that_cannot_be_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="say where") as error:
        open_board(place("seeed-4ch-i2c", ""), tmp_path)
    assert error.value.errno == errno.EINVAL
