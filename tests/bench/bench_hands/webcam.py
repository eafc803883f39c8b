"""A USB webcam (UVC 1.0): YUYV 640x480, MJPEG 1280x720 and 640x480.

It streams isochronously in an alternate setting of its own, as webcams do; `transfer=bulk` makes
one of those that send in bulk. A transfer is answered when a picture is due, not 8000 times a
second, which an emulated processor could not keep up with and no class driver asks for.
"""

from __future__ import annotations

import json
import mmap
import struct
import time
from dataclasses import dataclass

from bench_hands import MEDIA
from bench_hands.usb_device import EPROTO, Ids, Stall, Transfer, UsbDevice, descriptor, u16, u32

MODES = (
    "live",
    "black",
    "white",
    "dark",
    "blur",
    "moved",
    "covered",
    "noise",
    "freeze",
    "torn",
    "stall",
    "error",
)
FORMATS = (("YUYV", ((640, 480),)), ("MJPG", ((1280, 720), (640, 480))))
_YUYV = b"YUY2\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71"
_STREAM = 1  # the interface
_ISOCHRONOUS_ROOM = 3072  # bytes a packet: three times 1024, the most that high speed allows
_BULK_ROOM = 16_384
_HEAD = 2
_END_OF_PICTURE = 2
_INTERFACE, _ENDPOINT, _ASSOCIATION, _CLASS = 4, 5, 11, 0x24
_PROBE_SIZE = 26
_SET, _GET_LENGTH, _GET_INFO = 1, 0x85, 0x86


def ids() -> Ids:
    """As a Logitech C920 says it."""
    return Ids(0x046D, 0x082D, 0x0011, product="HD Pro Webcam C920", serial="5FC7A4DF")


@dataclass(slots=True)
class _Loop:
    """Pictures of one mode in one format, mapped from a file."""

    data: mmap.mmap
    sizes: list[int]

    def picture(self, number: int) -> bytes:
        number %= len(self.sizes)
        start = sum(self.sizes[:number])
        return self.data[start : start + self.sizes[number]]


class Webcam(UsbDevice):
    """`fps` and `transfer` are settings beside the ids."""

    MODES = MODES
    device_class = b"\xef\2\1"

    def __init__(self, name: str, ids: Ids) -> None:
        super().__init__(name, ids)
        self._fps = float(ids.other.get("fps", 15))
        self._bulk = ids.other.get("transfer") == "bulk"
        self._room = _BULK_ROOM if self._bulk else _ISOCHRONOUS_ROOM
        self._index: dict[str, list[int]] = json.loads((MEDIA / "pictures.json").read_text())
        self._loops: dict[str, _Loop] = {}
        self._chosen = (0, 0)
        self._queue: list[bytes] = []
        self._number = self._toggle = 0
        self._next_s = 0.0

    # -- descriptors and controls ---------------------------------------------------------------

    def interfaces(self) -> bytes:
        """Video control with a camera terminal, video streaming with the formats."""
        units = descriptor(_CLASS, 2, 1, u16(0x0201), 0, 0, u16(0), u16(0), u16(0), 3, b"\0\0\0")
        units += descriptor(_CLASS, 3, 2, u16(0x0101), 0, 1, 0)
        formats = self._formats()
        count = len(FORMATS)
        head = (count, u16(13 + count + len(formats)), 0x81, 0, 2, 0, 0, 0, 1, bytes(count))
        return b"".join(
            (
                descriptor(_ASSOCIATION, 0, 2, 14, 3, 0, 2),
                descriptor(_INTERFACE, 0, 0, 0, 14, 1, 0, 2),
                descriptor(
                    _CLASS, 1, u16(0x0100), u16(13 + len(units)), u32(48_000_000), 1, _STREAM
                ),
                units,
                descriptor(_INTERFACE, _STREAM, 0, 1 if self._bulk else 0, 14, 2, 0, 0),
                descriptor(_CLASS, 1, *head),
                formats,
                self._endpoint(),
            )
        )

    def _endpoint(self) -> bytes:
        if self._bulk:
            return descriptor(_ENDPOINT, 0x81, 2, u16(512), 0)
        # 1024 bytes, three a microframe; asynchronous isochronous.
        return descriptor(_INTERFACE, _STREAM, 1, 1, 14, 2, 0, 0) + descriptor(
            _ENDPOINT, 0x81, 5, u16(0x1400), 1
        )

    def _formats(self) -> bytes:
        tick, said = u32(int(1e7 / self._fps)), b""
        for number, (name, sizes) in enumerate(FORMATS, 1):
            plain = name == "YUYV"
            what: bytes = _YUYV + b"\x10" if plain else b"\1"
            said += descriptor(_CLASS, 4 if plain else 6, number, len(sizes), what, 1, 0, 0, 0, 0)
            for place, (width, height) in enumerate(sizes, 1):
                pixels = width * height
                rates = (u32(pixels * 8), u32(pixels * 480), u32(pixels * 2), tick, 1, tick)
                said += descriptor(
                    _CLASS, 5 if plain else 7, place, 0, u16(width), u16(height), *rates
                )
        return said

    def class_request(self, kind: int, request: int, value: int, index: int, data: bytes) -> bytes:
        """The probe and commit controls, and no others."""
        if index & 255 != _STREAM or value >> 8 not in (1, 2):
            raise Stall
        if request == _SET:
            number = min(max(data[2], 1), len(FORMATS)) - 1
            self._chosen = number, min(max(data[3], 1), len(FORMATS[number][1])) - 1
            self._begin()
            return b""
        number, place = self._chosen
        width, height = FORMATS[number][1][place]
        probe = struct.pack(
            "<HBBI5HII",
            1,
            number + 1,
            place + 1,
            int(1e7 / self._fps),
            *(0, 0, 0, 0, 0),
            width * height * 2,
            self._room,
        )
        return {_GET_LENGTH: u16(_PROBE_SIZE), _GET_INFO: b"\3"}.get(request, probe)

    def stream_change(self, interface: int, setting: int) -> None:
        """A stream begins with a new picture."""
        if interface == _STREAM:
            self._begin()

    def _begin(self) -> None:
        self._queue, self._next_s = [], time.monotonic()

    # -- pictures -------------------------------------------------------------------------------

    def due_s(self) -> float | None:
        """Until the next picture."""
        if not self.pending:
            return None
        if self.mode == "stall":
            return 0.1
        return 0 if self._queue else max(0.0, self._next_s - time.monotonic())

    def tick(self) -> None:
        """Sends what is left of a picture, or begins the next."""
        mode, now = self.mode, time.monotonic()
        if not self.pending or mode == "stall":
            return
        if mode == "error":
            while self.pending:
                transfer = self.pending.pop(0)
                self.reply(
                    transfer.number, EPROTO, packets=[(room, 0) for room in transfer.packets]
                )
            return
        if not self._queue and now >= self._next_s:
            self._next_s = max(self._next_s + 1 / self._fps, now - 0.2)
            self._queue = self._payloads(self._picture(mode))
        while self._queue and self.pending:
            self._send(self.pending.pop(0))

    def _send(self, transfer: Transfer) -> None:
        if self._bulk:
            self.reply(transfer.number, 0, self._queue.pop(0))
            return
        count = len(transfer.packets)
        sent, self._queue = self._queue[:count], self._queue[count:]
        used = [len(payload) for payload in sent] + [0] * (count - len(sent))
        packets = list(zip(transfer.packets, used, strict=True))
        self.reply(transfer.number, 0, b"".join(sent), packets)

    def _payloads(self, picture: bytes) -> list[bytes]:
        """A picture in packets, each with the header of UVC."""
        self._toggle ^= 1
        step = self._room - _HEAD
        starts = range(0, len(picture), step)
        return [
            bytes([_HEAD, self._toggle | (_END_OF_PICTURE if start + step >= len(picture) else 0)])
            + picture[start : start + step]
            for start in starts
        ]

    def _picture(self, mode: str) -> bytes:
        number, place = self._chosen
        fourcc, sizes = FORMATS[number]
        width, height = sizes[place]
        shown = "live" if mode in ("freeze", "torn") else mode
        self._number += mode != "freeze"
        picture = self._loop(f"{shown}-{fourcc}-{width}x{height}").picture(self._number)
        if mode != "torn":
            return picture
        if fourcc == "MJPG":
            return picture[: len(picture) // 3]
        # A raw picture that is too short the kernel drops; one whose lines have slipped it shows.
        cut = width * height * 2 // 3
        slip = width // 2
        return picture[:cut] + picture[cut + slip :] + picture[cut : cut + slip]

    def _loop(self, key: str) -> _Loop:
        if key not in self._loops:
            with (MEDIA / f"{key}.bin").open("rb") as file:
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._loops[key] = _Loop(data, self._index[key])
        return self._loops[key]
