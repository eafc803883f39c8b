"""Relay boards that are USB HID devices, over /dev/hidrawN and without a library.

The ids of these boards are shared by many other devices: only the product string decides, and
without it nothing is written anywhere.

A request to a healthy board takes milliseconds. One that hangs without leaving the bus takes what
the kernel gives a USB control transfer, 5 s (USB_CTRL_GET_TIMEOUT, linux/usb.h): `node` waits for a
part of it. What was sent may then still come to pass; the next reading tells.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
from pathlib import Path
from typing import Protocol

from agent import usb_tree
from agent.hands.boards.node import Node, no_channel
from agent.hands.layout import Place
from agent.usb_tree import UsbNode

_REPORT_BYTES = 8


def _feature_request(number: int, size: int) -> int:
    return 3 << 30 | size << 16 | ord("H") << 8 | number


SET_FEATURE = _feature_request(0x06, 1 + _REPORT_BYTES)  # HIDIOCSFEATURE, linux/hidraw.h
GET_FEATURE = _feature_request(0x07, 1 + _REPORT_BYTES)  # HIDIOCGFEATURE
_GET_INFO, _INFO_BYTES = 0x80084803, 8  # HIDIOCGRAWINFO: answered by the kernel alone


class Hid(Protocol):
    """The three things that are asked of a HID device. All raise `OSError`."""

    def product(self) -> str:
        """Its product string; ENODEV where it is gone. Costs no transfer."""
        ...

    def send(self, data: bytes, *, feature: bool) -> None:
        """Send a report without a number, as a feature or as an output report."""
        ...

    def feature(self) -> bytes:
        """What it answers to GET_REPORT (feature, number 1)."""
        ...


class Hidraw:
    """The real thing. `serial_too` says that a board may tell a serial of its own in its report."""

    def __init__(self, place: Place, root: Path, *, serial_too: bool = False) -> None:
        self._place = place
        self._root = root
        self._serial_too = serial_too
        self._product = ""
        self._node = Node(self._find)

    def product(self) -> str:
        """Its product string, once the kernel has confirmed that it is still there."""
        self._node.do(lambda fd: fcntl.ioctl(fd, _GET_INFO, bytearray(_INFO_BYTES), True))
        return self._product

    def send(self, data: bytes, *, feature: bool) -> None:
        """One report of eight bytes."""
        report = b"\0" + data.ljust(_REPORT_BYTES, b"\0")
        if feature:
            self._node.do(lambda fd: fcntl.ioctl(fd, SET_FEATURE, bytearray(report), True))
        else:
            self._node.do(lambda fd: os.write(fd, report))

    def feature(self) -> bytes:
        """Its answer, as long as it is."""
        return self._node.do(_get_feature)

    def close(self) -> None:
        """Let go of the node."""
        self._node.close()

    def _find(self) -> Path:
        found = find(self._place, self._root, serial_too=self._serial_too)
        self._product = found.product
        return self._root / "dev" / found.name


def _get_feature(fd: int) -> bytes:
    """A device without numbered reports answers from the first byte on, whatever is asked for."""
    buffer = bytearray([1]) + bytearray(_REPORT_BYTES)
    count = fcntl.ioctl(fd, GET_FEATURE, buffer, True)
    return bytes(buffer[:count])


def find(place: Place, root: Path, *, serial_too: bool = False) -> UsbNode:
    """The node of the one board that `place` means. Raises `OSError`: ENODEV where it is not
    plugged in, ENOTUNIQ where there are several and `at` does not say which."""
    ids, product = place.spec["usb"], re.compile(place.spec["product"])
    boards = [
        node
        for node in usb_tree.nodes("hidraw", root)
        if node.usb_id in ids and product.fullmatch(node.product)
    ]
    meant = [n for n in boards if place.at in (n.port, n.serial)] if place.at else boards
    if place.at and not meant and serial_too and not usb_tree.PORT.fullmatch(place.at):
        meant = [n for n in boards if _own_serial(root / "dev" / n.name) == place.at]
    if len(meant) == 1:
        return meant[0]
    ports = ", ".join(n.port for n in meant or boards)
    if meant:
        raise OSError(
            errno.ENOTUNIQ,
            f"ambiguous: {len(meant)} boards {place.board} are plugged in, at {ports}:"
            f' say which, at = "{meant[0].port}"',
        )
    if boards:
        raise OSError(errno.ENODEV, f"no {place.board} at {place.at}; there is one at {ports}")
    raise OSError(errno.ENODEV, f"no {place.board} is plugged in")


def _own_serial(path: Path) -> str:
    """The five letters that a DCTTECH board tells at the beginning of its report."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        return _get_feature(fd)[:5].decode("ascii", errors="replace")
    finally:
        os.close(fd)


class Dcttech:
    """`USBRelay1` to `USBRelay8`: the digit is the number of relays. One feature report each way:
    `FF n` on, `FD n` off; the last byte of the answer has a bit for each relay
    (darrylb123/usbrelay, pavel-a/usb-relay-hid)."""

    def __init__(self, hid: Hid) -> None:
        self._hid = hid

    def set(self, channel: int, on: bool) -> None:
        """Switch."""
        self._check(channel)
        self._hid.send(bytes([0xFF if on else 0xFD, channel]), feature=True)

    def get(self, channel: int) -> bool | None:
        """What the board says."""
        self._check(channel)
        answer = self._hid.feature()
        if len(answer) < _REPORT_BYTES:
            raise OSError(errno.EPROTO, f"an answer of {len(answer)} bytes in place of 8")
        return bool(answer[7] >> (channel - 1) & 1)

    def _check(self, channel: int) -> None:
        product = self._hid.product()
        count = int(product[-1]) if product[-1:].isdecimal() else 0
        if not 1 <= channel <= count:
            raise no_channel(product, channel, count)


class HidRelay:
    """`HIDRelay`: one output report, `F0 + n` on, `n` off. It tells nothing back, and with n = 9 it
    would switch all relays (darrylb123/usbrelay#34, zwizwa/usb_relay_ch551g)."""

    RELAYS = 8

    def __init__(self, hid: Hid) -> None:
        self._hid = hid

    def set(self, channel: int, on: bool) -> None:
        """Switch."""
        self._check(channel)
        self._hid.send(bytes([0xF0 + channel if on else channel]), feature=False)

    def get(self, channel: int) -> bool | None:
        """Nothing, from a board that is there."""
        self._check(channel)
        return None

    def _check(self, channel: int) -> None:
        product = self._hid.product()
        if not 1 <= channel <= self.RELAYS:
            raise no_channel(product, channel, self.RELAYS)
