"""Relay boards that do not sit on the header: USB HID, serial, I2C.

How a board is spoken to is its protocol, a fact of its profile; the other facts that a protocol
needs come with it in `Place.spec`. Opening and reading a board switches nothing.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from agent.hands.boards import hid, i2c, lcus
from agent.hands.layout import Place


class Board(Protocol):
    """One board. Levels are the board's own: a board that inverts says so by `active_low`.

    Errors are `OSError`: ENODEV not plugged in, ENXIO no such relay, EACCES no right, EBUSY held by
    another program, ETIMEDOUT no answer, ENOTUNIQ more than one is plugged in. After an error the
    next use opens the board anew: one that was unplugged and is back works again.
    """

    def set(self, channel: int, on: bool) -> None:
        """Switch a relay, counted from 1."""
        ...

    def get(self, channel: int) -> bool | None:
        """What a relay is, None where the board does not tell."""
        ...

    def close(self) -> None:
        """Let go of the board; a later use opens it again."""
        ...


class _Speaks(Protocol):
    def set(self, channel: int, on: bool) -> None: ...
    def get(self, channel: int) -> bool | None: ...


class _Wire(Protocol):
    def close(self) -> None: ...


class _Board:
    """A protocol on the wire it is spoken over."""

    def __init__(self, speaks: _Speaks, wire: _Wire) -> None:
        self.set = speaks.set
        self.get = speaks.get
        self.close = wire.close


def _dcttech(place: Place, root: Path) -> Board:
    wire = hid.Hidraw(place, root, serial_too=True)
    return _Board(hid.Dcttech(wire), wire)


def _hidrelay(place: Place, root: Path) -> Board:
    wire = hid.Hidraw(place, root)
    return _Board(hid.HidRelay(wire), wire)


def _lcus(place: Place, root: Path) -> Board:
    wire = lcus.Port(place, root)
    return _Board(lcus.Lcus(wire), wire)


def _smbus(place: Place, root: Path) -> Board:
    wire, spec = i2c.I2c(place, root), place.spec
    if spec["bit_per_relay"]:
        (register,) = spec["registers"]
        bits = spec["bits"] or range(spec["relays"])
        return _Board(i2c.Bits(wire, register, bits, spec["direction_register"]), wire)
    back = bool(spec["reads_back"])
    registers = i2c.Registers(wire, spec["registers"], spec["on"], spec["off"], reads_back=back)
    return _Board(registers, wire)


PROTOCOLS: Mapping[str, Callable[[Place, Path], Board]] = {
    "dcttech": _dcttech,
    "hidrelay": _hidrelay,
    "lcus": _lcus,
    "smbus": _smbus,
}
"""What a profile may name as its protocol."""


def open_board(place: Place, root: Path = Path("/")) -> Board:
    """The board that `place` names. It is opened at its first use; what cannot be a board at all is
    an `OSError` at once."""
    make = PROTOCOLS.get(place.spec.get("protocol") or "")
    if make is None:
        raise OSError(errno.EPROTONOSUPPORT, f"no protocol is known for board {place.board}")
    return make(place, root)
