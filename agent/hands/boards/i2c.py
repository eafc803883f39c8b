"""Relay boards on I2C, over /dev/i2c-N and without a library.

Which one: `at` is an address (`0x20`), a bus (`i2c-1`) or both (`i2c-1@0x20`). The header of a
Raspberry Pi is i2c-1. An address that a driver of the kernel holds is EBUSY; one where nothing
answers is ENODEV. A bus that is held down is ETIMEDOUT after what its controller waits, 1 s on a
Raspberry Pi (i2c-bcm2835, i2c-designware).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from agent.hands.boards.node import Node, no_channel
from agent.hands.layout import Place

_SLAVE, _SMBUS = 0x0703, 0x0720  # I2C_SLAVE, I2C_SMBUS, linux/i2c-dev.h
_WRITE, _READ, _BYTE_DATA = 0, 1, 2  # linux/i2c.h
_HEADER_BUS = "i2c-1"
_AT = re.compile(r"(?:(?P<bus>i2c-[0-9]+)(?:@|$))?(?P<address>0x[0-9A-Fa-f]{2})?")
_NOBODY = frozenset({errno.EREMOTEIO, errno.ENXIO})
"""How controllers say that nobody acknowledged."""


class Smbus(Protocol):
    """One address of one bus. Both raise `OSError`."""

    def read(self, register: int) -> int:
        """The byte of a register."""
        ...

    def write(self, register: int, value: int) -> None:
        """Set the byte of a register."""
        ...


class _Block(ctypes.Union):
    _fields_ = (("byte", ctypes.c_uint8), ("block", ctypes.c_uint8 * 34))


class _Transfer(ctypes.Structure):
    """struct i2c_smbus_ioctl_data"""

    _fields_ = (
        ("read_write", ctypes.c_uint8),
        ("command", ctypes.c_uint8),
        ("size", ctypes.c_uint32),
        ("data", ctypes.POINTER(_Block)),
    )


def where(at: str, addresses: Sequence[int]) -> tuple[str, int]:
    """Bus and address that `at` means. Raises `ValueError` with what is wrong and what to write."""
    parts = _AT.fullmatch(at)
    if parts is None:
        raise ValueError(f'at = "{at}" is no address: write "0x20", "i2c-1" or "i2c-1@0x20"')
    bus = parts["bus"] or _HEADER_BUS
    known = ", ".join(f"0x{a:02x}" for a in addresses)
    if parts["address"] is None:
        if len(addresses) != 1:
            raise ValueError(f"it may be at {known}: say where, at = ...")
        return bus, addresses[0]
    address = int(parts["address"], 16)
    if address not in addresses:
        raise ValueError(f'at = "{at}": it answers at {known} only')
    return bus, address


class I2c:
    """The real thing."""

    def __init__(self, place: Place, root: Path) -> None:
        try:
            self._bus, self._address = where(place.at, place.spec["addresses"])
        except ValueError as error:
            raise OSError(errno.EINVAL, str(error)) from None
        self._node = Node(lambda: root / "dev" / self._bus, prepare=self._prepare)

    def read(self, register: int) -> int:
        """SMBus "read byte data"."""
        return self._transfer(_READ, register, 0)

    def write(self, register: int, value: int) -> None:
        """SMBus "write byte data"."""
        self._transfer(_WRITE, register, value)

    def close(self) -> None:
        """Let go of the bus."""
        self._node.close()

    def _prepare(self, fd: int) -> None:
        fcntl.ioctl(fd, _SLAVE, self._address)

    def _transfer(self, direction: int, register: int, value: int) -> int:
        data = _Block(byte=value)
        transfer = _Transfer(direction, register, _BYTE_DATA, ctypes.pointer(data))
        try:
            self._node.do(lambda fd: fcntl.ioctl(fd, _SMBUS, transfer))
        except FileNotFoundError:
            raise OSError(
                errno.ENODEV, f"no bus {self._bus}: switch I2C on (dtparam=i2c_arm=on)"
            ) from None
        except OSError as error:
            if error.errno not in _NOBODY:
                raise
            spot = f"0x{self._address:02x} of {self._bus}"
            raise OSError(errno.ENODEV, f"nothing answers at {spot}") from None
        return int(data.byte)


class Bits:
    """A register with a bit for each relay. Where `direction` is given, a relay follows its bit
    only once its pin is an output (0 in that register), which it is not when power comes; until
    then it counts as low. Opening and reading change nothing."""

    def __init__(
        self, bus: Smbus, register: int, bits: Sequence[int], direction: int | None = None
    ) -> None:
        self._bus = bus
        self._register = register
        self._masks = tuple(1 << bit for bit in bits)
        self._direction = direction

    def set(self, channel: int, on: bool) -> None:
        """Switch; a pin that is none yet becomes an output, with its level from the start."""
        mask = self._mask(channel)
        before = self._bus.read(self._register)
        self._bus.write(self._register, before | mask if on else before & ~mask)
        if self._direction is not None:
            inputs = self._bus.read(self._direction)
            if inputs & mask:
                self._bus.write(self._direction, inputs & ~mask)

    def get(self, channel: int) -> bool | None:
        """What the chip holds."""
        mask = self._mask(channel)
        if self._direction is not None and self._bus.read(self._direction) & mask:
            return False
        return bool(self._bus.read(self._register) & mask)

    def _mask(self, channel: int) -> int:
        if not 1 <= channel <= len(self._masks):
            raise no_channel("the board", channel, len(self._masks))
        return self._masks[channel - 1]


class Registers:
    """A register for each relay."""

    def __init__(
        self, bus: Smbus, registers: Sequence[int], on: int, off: int, *, reads_back: bool
    ) -> None:
        self._bus = bus
        self._registers = tuple(registers)
        self._on, self._off = on, off
        self._reads_back = reads_back

    def set(self, channel: int, on: bool) -> None:
        """Switch."""
        self._bus.write(self._register(channel), self._on if on else self._off)

    def get(self, channel: int) -> bool | None:
        """What the board holds; None where it cannot be read."""
        register = self._register(channel)
        return self._bus.read(register) != self._off if self._reads_back else None

    def _register(self, channel: int) -> int:
        if not 1 <= channel <= len(self._registers):
            raise no_channel("the board", channel, len(self._registers))
        return self._registers[channel - 1]
