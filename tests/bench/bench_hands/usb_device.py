"""A USB device in a process of its own, served to this very kernel over USB/IP.

One end of a socket pair goes to the kernel's vhci_hcd, which shows a device on its port; the usual
class driver binds to it. It is gone, as if pulled, when this process ends.

Formats: USB 2.0, chapter 9; Documentation/usb/usbip_protocol.rst of the kernel.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench_hands import STATE

VHCI = Path("/sys/devices/platform/vhci_hcd.0")
EPIPE, EPROTO, ECONNRESET = -32, -71, -104
HIGH_SPEED, FULL_SPEED = 3, 2
_HEADER = 48
_SUBMIT, _UNLINK, _RET_SUBMIT, _RET_UNLINK = 1, 2, 3, 4
_MODE_AGE_S = 0.05
_DEVICE, _CONFIGURATION, _STRING = 1, 2, 3
_GET_DESCRIPTOR, _SET_INTERFACE, _GET_INTERFACE = (0x80, 6), (0x01, 11), (0x81, 10)
_PLAIN_ANSWERS = {
    (0x80, 0): b"\0\0",  # GET_STATUS of device, interface, endpoint
    (0x81, 0): b"\0\0",
    (0x82, 0): b"\0\0",
    (0x80, 8): b"\1",  # GET_CONFIGURATION
    (0x00, 9): b"",  # SET_CONFIGURATION
    (0x00, 1): b"",  # CLEAR_FEATURE and SET_FEATURE
    (0x00, 3): b"",
    (0x02, 1): b"",
    (0x02, 3): b"",
}


def u16(number: int) -> bytes:
    """Two bytes, the low one first."""
    return struct.pack("<H", number)


def u24(number: int) -> bytes:
    """Three bytes."""
    return struct.pack("<I", number)[:3]


def u32(number: int) -> bytes:
    """Four bytes."""
    return struct.pack("<I", number)


def descriptor(kind: int, *parts: int | bytes) -> bytes:
    """A descriptor with its length in front; a number is one byte."""
    body = b"".join(p if isinstance(p, bytes) else bytes([p]) for p in parts)
    return bytes([len(body) + 2, kind]) + body


@dataclass(slots=True)
class Ids:
    """Who a device says it is. An empty string is left out of its descriptors."""

    vid: int
    pid: int
    rev: int
    manufacturer: str = ""
    product: str = ""
    serial: str = ""
    other: dict[str, str] = field(default_factory=dict)

    def take(self, settings: Sequence[str]) -> None:
        """`key=value` words; the ids are hexadecimal."""
        for setting in settings:
            key, _, value = setting.partition("=")
            if key in ("vid", "pid", "rev"):
                setattr(self, key, int(value, 16))
            elif key in ("manufacturer", "product", "serial"):
                setattr(self, key, value)
            else:
                self.other[key] = value


@dataclass(slots=True)
class Transfer:
    """One that waits for data; `packets` are the room in each packet of an isochronous one."""

    number: int
    length: int
    packets: list[int]


class UsbDevice:
    """What all devices have in common. A kind fills in descriptors, class requests and data."""

    MODES: tuple[str, ...] = ()
    speed = HIGH_SPEED
    device_class = b"\0\0\0"

    def __init__(self, name: str, ids: Ids) -> None:
        self.name = name
        self.ids = ids
        self.alternate: dict[int, int] = {}
        self.pending: list[Transfer] = []
        self._out = bytearray()
        self._strings = ["", ids.manufacturer, ids.product, ids.serial]
        self._mode, self._mode_at = self.MODES[0], 0.0

    # -- what a kind fills in -------------------------------------------------------------------

    def interfaces(self) -> bytes:
        """The descriptors behind that of the configuration."""
        raise NotImplementedError

    @property
    def interface_count(self) -> int:
        """How many there are."""
        return 2

    def class_request(self, kind: int, request: int, value: int, index: int, data: bytes) -> bytes:
        """The answer to a class request. Raises `Stall`."""
        raise NotImplementedError

    def stream_change(self, interface: int, setting: int) -> None:
        """An alternate setting was chosen."""

    def due_s(self) -> float | None:
        """How long nothing has to be done; None for as long as the kernel asks nothing."""
        raise NotImplementedError

    def tick(self) -> None:
        """Answer those of the pending transfers that are due."""
        raise NotImplementedError

    # -- for a kind -----------------------------------------------------------------------------

    @property
    def mode(self) -> str:
        """How it behaves now; the first of `MODES` until it is told otherwise."""
        now = time.monotonic()
        if now - self._mode_at > _MODE_AGE_S:
            self._mode_at = now
            try:
                self._mode = (STATE / f"{self.name}.mode").read_text().strip()
            except OSError:
                self._mode = self.MODES[0]
        return self._mode

    def reply(
        self,
        number: int,
        status: int,
        data: bytes = b"",
        packets: Sequence[tuple[int, int]] = (),
        sent: int = 0,
    ) -> None:
        """Ends a transfer. `packets` are (room, used) of an isochronous one, `sent` what an
        outward one took."""
        count = len(packets)
        size = sent or len(data)
        self._out += struct.pack(">5I5i8x", _RET_SUBMIT, number, 0, 0, 0, status, size, 0, count, 0)
        self._out += data
        offset = 0
        for room, used in packets:
            self._out += struct.pack(">3Ii", offset, room, used, 0)
            offset += room

    # -- the bus --------------------------------------------------------------------------------

    def _descriptor(self, kind: int, number: int) -> bytes:
        ids = self.ids
        if kind == _DEVICE:
            said = [place if self._strings[place] else 0 for place in (1, 2, 3)]
            who = (u16(ids.vid), u16(ids.pid), u16(ids.rev))
            return descriptor(_DEVICE, u16(0x0200), self.device_class, 64, *who, *said, 1)
        if kind == _CONFIGURATION:
            body = self.interfaces()
            head = (u16(9 + len(body)), self.interface_count, 1, 0, 0x80, 250)
            return descriptor(_CONFIGURATION, *head) + body
        if kind == _STRING and number < len(self._strings):
            text = self._strings[number].encode("utf-16-le") if number else u16(0x0409)
            return descriptor(_STRING, text)
        raise Stall

    def _control(self, setup: bytes, data: bytes) -> bytes:
        kind, request, value, index, _ = struct.unpack("<BBHHH", setup)
        if kind & 0x60 == 0x20:
            return self.class_request(kind, request, value, index, data)
        if (kind, request) == _GET_DESCRIPTOR:
            return self._descriptor(value >> 8, value & 255)
        if (kind, request) == _SET_INTERFACE:
            self.alternate[index] = value
            self.stream_change(index, value)
            return b""
        if (kind, request) == _GET_INTERFACE:
            return bytes([self.alternate.get(index, 0)])
        if (kind, request) in _PLAIN_ANSWERS:
            return _PLAIN_ANSWERS[kind, request]
        raise Stall

    def _packet(self, came: bytearray) -> int:
        """Takes the first whole message; how many bytes it had, 0 when there is none yet."""
        if len(came) < _HEADER:
            return 0
        number: int
        command, number, _, inward, endpoint = struct.unpack_from(">5I", came)
        if command == _UNLINK:
            self._unlink(number, struct.unpack_from(">I", came, 20)[0])
            return _HEADER
        length: int
        length, packets = struct.unpack_from(">i4xi", came, 24)
        packets = max(packets, 0)
        used: int = _HEADER + (0 if inward else length) + 16 * packets
        if len(came) < used:
            return 0
        if endpoint == 0:
            data = b"" if inward else bytes(came[_HEADER : _HEADER + length])
            try:
                answer = self._control(bytes(came[40:48]), data)
            except Stall:
                self.reply(number, EPIPE)
            else:
                inward_data = answer[:length] if inward else b""
                self.reply(number, 0, inward_data, sent=0 if inward else length)
        elif inward:
            rooms = [struct.unpack_from(">I", came, 52 + 16 * n)[0] for n in range(packets)]
            self.pending.append(Transfer(number, length, rooms))
        else:
            self.reply(number, 0, sent=length)
        return used

    def _unlink(self, number: int, victim: int) -> None:
        left = [t for t in self.pending if t.number != victim]
        status = ECONNRESET if len(left) < len(self.pending) else 0
        self._out += struct.pack(">5Ii24x", _RET_UNLINK, number, 0, 0, 0, status)
        self.pending = left

    def serve(self) -> None:
        """Plugs the device in and serves it until the kernel lets go of it."""
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        ports = [line.split() for line in (VHCI / "status").read_text().splitlines()[1:]]
        port = next(int(p[1]) for p in ports if p[0] == "hs" and p[2] == "004")
        (VHCI / "attach").write_text(f"{port} {theirs.fileno()} {port + 1} {self.speed}")
        theirs.close()
        bus = next(VHCI.glob("usb*")).name[3:]  # the root hub of high speed comes first
        (STATE / f"{self.name}.path").write_text(f"{VHCI}/usb{bus}/{bus}-{port + 1}")
        ours.setblocking(False)
        came = bytearray()
        while True:
            ready, _, _ = select.select([ours], [ours] if self._out else [], [], self.due_s())
            if ready:
                try:
                    piece = ours.recv(1 << 18)
                except BlockingIOError:
                    piece = None
                if piece == b"":
                    return
                came += piece or b""
                while used := self._packet(came):
                    del came[:used]
            self.tick()
            if self._out:
                try:
                    del self._out[: ours.send(bytes(self._out[: 1 << 18]))]
                except BlockingIOError:
                    continue
                except BrokenPipeError:  # the kernel let go of the port; it says why
                    return


class Stall(Exception):
    """A request that the device does not know."""
