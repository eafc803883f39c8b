"""USB relay boards: the HID ones (`USBRelayN`, `HIDRelay`) and the serial one (LCUS on a CH340).

`bench-hands relay NAME` tells what the relays really are, a digit for each. The HID boards are
those of darrylb123/usbrelay's README and of libusb/hidapi#487; the adapter answers what the
kernel's drivers/usb/serial/ch341.c asks.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from bench_hands import STATE, Wrong, set_mode
from bench_hands.usb_device import FULL_SPEED, Ids, Stall, Transfer, UsbDevice, descriptor, u16

_INTERFACE, _ENDPOINT, _HID, _REPORT = 4, 5, 0x21, 0x22
_GET_REPORT, _SET_REPORT, _SET_IDLE = 0x01, 0x09, 0x0A
_GET_DESCRIPTOR = (0x81, 6)  # of an interface
_FEATURE, _OUTPUT = 3, 2
_SUBMIT, _HEADER = 1, 48
_INTERRUPT, _BULK = 3, 2

_FEATURE_ONLY = bytes.fromhex("0600ff 0901 a101 1500 26ff00 7508 9508 0900 b20201 c0")
"""V-USB's: eight bytes as a feature report, without a number."""
_IN_AND_OUT = bytes.fromhex(
    "0600ff 0901 a101 0902 1500 2600ff 7508 9508 8106 0902 1500 2600ff 7508 9508 9106 c0"
)
"""libusb/hidapi#487: eight bytes each way, without numbers."""


def dcttech_ids() -> Ids:
    """Two relays; `product=USBRelay4` makes it four. It has no serial of USB's."""
    return Ids(0x16C0, 0x05DF, 0x0100, "www.dcttech.com", "USBRelay2")


def hidrelay_ids() -> Ids:
    """All of them say that they are A0001."""
    return Ids(0x0519, 0x2018, 0x0001, "Ucreatefun.com", "HIDRelay", "A0001")


def lcus_ids() -> Ids:
    """A CH340 that says nothing of what is behind it."""
    return Ids(0x1A86, 0x7523, 0x0264)


class RelayDevice(UsbDevice):
    """What they have in common: relays, which are off when power comes, and a way in for data."""

    MODES = ("live", "stall", "hang")
    speed = FULL_SPEED
    RELAYS = 8

    def __init__(self, name: str, ids: Ids) -> None:
        super().__init__(name, ids)
        self.state = [False] * self.RELAYS
        self.endpoints: dict[int, int] = {}
        self._told()

    @property
    def interface_count(self) -> int:
        """One."""
        return 1

    def switch(self, number: int, on: bool) -> None:
        """A relay clicks, where there is one of that number."""
        if 1 <= number <= len(self.state):
            self.state[number - 1] = on
            self._told()

    def take(self, data: bytes) -> None:
        """Data that came over an endpoint other than 0."""

    def due_s(self) -> float | None:
        """Nothing comes by itself."""
        return None

    def tick(self) -> None:
        """Nothing is due."""

    def _told(self) -> None:
        text = "".join(str(int(on)) for on in self.state)
        (STATE / f"{self.name}.relays").write_text(text)

    def _packet(self, came: bytearray) -> int:
        if len(came) < _HEADER:
            return 0
        command, number, _, inward, endpoint = struct.unpack_from(">5I", came)
        (length,) = struct.unpack_from(">i", came, 24)
        used = _HEADER + (0 if inward else length)
        if command == _SUBMIT and len(came) >= used and self._hangs(endpoint, inward, came):
            self.pending.append(Transfer(number, 0, []))  # until the kernel takes it back
            return used
        used = super()._packet(came)
        if used and command == _SUBMIT and endpoint:
            if inward:
                self.endpoints[number] = endpoint
            else:
                self.take(bytes(came[_HEADER : _HEADER + length]))
        return used

    def _hangs(self, endpoint: int, inward: int, came: bytearray) -> bool:
        """In mode `hang` the device is on the bus and answers nothing that is its own."""
        if self.mode != "hang":
            return False
        return came[40] & 0x60 != 0 if endpoint == 0 else not inward


class HidBoard(RelayDevice):
    """A HID device with one interrupt endpoint each way, or inward only."""

    report = _FEATURE_ONLY
    outward = False

    def interfaces(self) -> bytes:
        """One HID interface that is no keyboard and no mouse."""
        ends = descriptor(_ENDPOINT, 0x81, _INTERRUPT, u16(8), 20)
        if self.outward:
            ends += descriptor(_ENDPOINT, 0x01, _INTERRUPT, u16(8), 20)
        hid = descriptor(_HID, u16(0x0101), 0, 1, _REPORT, u16(len(self.report)))
        return descriptor(_INTERFACE, 0, 0, 1 + self.outward, 3, 0, 0, 0) + hid + ends

    def _control(self, setup: bytes, data: bytes) -> bytes:
        kind, request, value, _, _ = struct.unpack("<BBHHH", setup)
        if (kind, request) == _GET_DESCRIPTOR and value >> 8 == _REPORT:
            return self.report
        return super()._control(setup, data)

    def class_request(self, kind: int, request: int, value: int, index: int, data: bytes) -> bytes:
        """Reports, by the control endpoint."""
        if request == _SET_IDLE:
            return b""
        if self.mode == "stall":
            raise Stall
        if request == _SET_REPORT:
            self.set_report(value >> 8, data)
            return b""
        if request == _GET_REPORT:
            return self.get_report(value >> 8)
        raise Stall

    def set_report(self, kind: int, data: bytes) -> None:
        """A report was sent. Raises `Stall`."""
        raise Stall

    def get_report(self, kind: int) -> bytes:
        """A report is wanted. Raises `Stall`."""
        raise Stall


class UsbRelay(HidBoard):
    """DCTTECH: FF and FD switch one, FE and FC all; five letters and the state come back. The
    firmware takes feature and output reports alike, as V-USB's does."""

    SERIAL = b"PSUIS"

    def __init__(self, name: str, ids: Ids) -> None:
        super().__init__(name, ids)
        self.state = [False] * int(ids.product[-1])
        self._told()

    def set_report(self, kind: int, data: bytes) -> None:
        """Switches."""
        command, number = data[:2]
        if command in (0xFF, 0xFD):
            self.switch(number, command == 0xFF)
        elif command in (0xFE, 0xFC):
            for relay in range(1, len(self.state) + 1):
                self.switch(relay, command == 0xFE)

    def get_report(self, kind: int) -> bytes:
        """Serial and state."""
        if kind != _FEATURE:
            raise Stall
        serial = self.ids.other.get("own", "").encode() or self.SERIAL
        bits = sum(1 << n for n, on in enumerate(self.state) if on)
        return serial[:5].ljust(7, b"\0") + bytes([bits])


class HidRelay(HidBoard):
    """F0 + n on, n off, 9 for all; nothing comes back."""

    RELAYS = 2
    report = _IN_AND_OUT
    outward = True

    def set_report(self, kind: int, data: bytes) -> None:
        """Output reports may come over the control endpoint too."""
        if kind != _OUTPUT:
            raise Stall
        self.take(data)

    def take(self, data: bytes) -> None:
        """Switches."""
        if data and self.mode != "stall":
            number, on = data[0] & 0x0F, data[0] >= 0xF0
            for relay in range(1, len(self.state) + 1) if number == 9 else (number,):
                self.switch(relay, on)


class LcusBoard(RelayDevice):
    """A CH340 and the small processor behind it. Silent is an older one, which tells nothing."""

    MODES = ("live", "silent", "hang")
    device_class = b"\xff\0\0"
    RELAYS = 4
    _VERSION, _READ_REGISTER, _READ, _WRITE = 0x5F, 0x95, 0xC0, 0x40

    def __init__(self, name: str, ids: Ids) -> None:
        super().__init__(name, ids)
        self._came = b""
        self._answer = b""

    def interfaces(self) -> bytes:
        """Bulk both ways for data, interrupts for the modem's lines."""
        ends = descriptor(_ENDPOINT, 0x82, _BULK, u16(32), 0)
        ends += descriptor(_ENDPOINT, 0x02, _BULK, u16(32), 0)
        ends += descriptor(_ENDPOINT, 0x81, _INTERRUPT, u16(8), 1)
        return descriptor(_INTERFACE, 0, 0, 3, 0xFF, 1, 2, 0) + ends

    def class_request(self, kind: int, request: int, value: int, index: int, data: bytes) -> bytes:
        """It has none."""
        raise Stall

    def _control(self, setup: bytes, data: bytes) -> bytes:
        kind, request, _, _, length = struct.unpack("<BBHHH", setup)
        if (kind, request) == (self._READ, self._VERSION):
            return b"\x31\0"
        if (kind, request) == (self._READ, self._READ_REGISTER):
            return b"\xff\xee"[:length]
        if kind == self._WRITE:
            return b""
        return super()._control(setup, data)

    def take(self, data: bytes) -> None:
        """Whole frames with a right sum switch; FF is answered line by line."""
        self._came += data
        while self._came:
            if self._came[0] == 0xFF:
                self._came = self._came[1:]
                if self.mode == "live":
                    for number, on in enumerate(self.state, 1):
                        self._answer += f"CH{number}: {'ON' if on else 'OFF'}\r\n".encode()
            elif self._came[0] != 0xA0:
                self._came = self._came[1:]
            elif len(self._came) < 4:
                return
            else:
                _, number, wanted, check = frame = self._came[:4]
                self._came = self._came[4:]
                if sum(frame[:3]) & 0xFF == check and wanted in (0, 1):
                    self.switch(number, wanted == 1)

    def tick(self) -> None:
        """The answer, 32 bytes at a time."""
        for transfer in list(self.pending):
            if self._answer and self.endpoints.get(transfer.number) == 2:
                self._give(transfer)

    def _give(self, transfer: Transfer) -> None:
        self.pending.remove(transfer)
        piece, self._answer = self._answer[:32], self._answer[32:]
        self.reply(transfer.number, 0, piece)


KINDS: dict[str, tuple[Callable[[str, Ids], UsbDevice], Callable[[], Ids]]] = {
    "usbrelay": (UsbRelay, dcttech_ids),
    "hidrelay": (HidRelay, hidrelay_ids),
    "lcus": (LcusBoard, lcus_ids),
}


def relay(words: list[str]) -> None:
    """`NAME` prints a digit for each relay, `NAME MODE` says how the board behaves from now on."""
    name, *rest = words
    if rest:
        set_mode(name, rest[0], (*HidBoard.MODES, *LcusBoard.MODES))
        return
    try:
        print((STATE / f"{name}.relays").read_text())
    except OSError:
        raise Wrong(f"no relay board {name!r} is plugged in") from None
