"""A USB microphone (UAC 1.0): 48 kHz, mono, 16 bits, with a capture switch and a volume."""

from __future__ import annotations

import struct
import time

from bench_hands import MEDIA
from bench_hands.usb_device import FULL_SPEED, Ids, Stall, Transfer, UsbDevice, descriptor, u16, u24

RATE = 48_000
MODES = ("live", "silence", "tone", "clip", "noise", "hum", "stall")
_A_PACKET = RATE // 1000 * 2  # bytes a millisecond
_CLASS, _INTERFACE, _ENDPOINT, _CLASS_ENDPOINT = 0x24, 4, 5, 0x25
_MUTE, _VOLUME = 1, 2
_SET, _GET_MIN, _GET_MAX, _GET_STEP = 1, 0x82, 0x83, 0x84
_FULL_DB = 20 * 256  # the unit of a volume is 1/256 dB


def ids() -> Ids:
    """As a cheap USB sound card says it."""
    return Ids(0x0D8C, 0x0014, 0x0100, "C-Media Electronics Inc.", "USB PnP Audio Device")


class UsbMicrophone(UsbDevice):
    """Gives samples at the pace of a clock, in packets of a millisecond."""

    MODES = MODES
    speed = FULL_SPEED

    def __init__(self, name: str, ids: Ids) -> None:
        super().__init__(name, ids)
        self._sounds = {m: (MEDIA / f"{m}.pcm").read_bytes() for m in MODES if m != "stall"}
        self._muted = self._volume = self._place = 0
        self._clock: float | None = None

    def interfaces(self) -> bytes:
        """Audio control (a microphone, its feature unit, the USB stream) and audio streaming."""
        units = descriptor(_CLASS, 2, 1, u16(0x0201), 0, 1, u16(0), 0, 0)
        units += descriptor(_CLASS, 6, 2, 1, 1, 3, 0, 0)
        units += descriptor(_CLASS, 3, 3, u16(0x0101), 0, 2, 0)
        return b"".join(
            (
                descriptor(_INTERFACE, 0, 0, 0, 1, 1, 0, 0),
                descriptor(_CLASS, 1, u16(0x0100), u16(9 + len(units)), 1, 1),
                units,
                descriptor(_INTERFACE, 1, 0, 0, 1, 2, 0, 0),
                descriptor(_INTERFACE, 1, 1, 1, 1, 2, 0, 0),
                descriptor(_CLASS, 1, 3, 1, u16(1)),
                descriptor(_CLASS, 2, 1, 1, 2, 16, 1, u24(RATE)),
                descriptor(_ENDPOINT, 0x81, 5, u16(_A_PACKET + 2), 1, 0, 0),
                descriptor(_CLASS_ENDPOINT, 1, 1, 0, u16(0)),
            )
        )

    def class_request(self, kind: int, request: int, value: int, index: int, data: bytes) -> bytes:
        """Rate, switch and volume."""
        if kind & 31 == 2:  # of the endpoint
            return b"" if request == _SET else u24(RATE)
        if value >> 8 == _MUTE:
            if request == _SET:
                self._muted = data[0]
            return bytes([self._muted])
        if value >> 8 == _VOLUME:
            if request == _SET:
                self._volume = struct.unpack("<h", data)[0]
            limits = {_GET_MIN: -60 * 256, _GET_MAX: 0, _GET_STEP: 256}
            return struct.pack("<h", limits.get(request, self._volume))
        raise Stall

    def stream_change(self, interface: int, setting: int) -> None:
        """The clock runs while somebody records."""
        self._clock = time.monotonic() if setting else None

    def due_s(self) -> float | None:
        """A few milliseconds."""
        return 0.004 if self.pending else None

    def tick(self) -> None:
        """Fills the transfers whose time has come."""
        mode, now = self.mode, time.monotonic()
        if not self.pending or self._clock is None or mode == "stall":
            return
        if now - self._clock > 0.5:  # too far behind: skip, do not catch up
            self._clock = now - 0.02
        sound = self._sounds["silence" if self._muted else mode]
        while self.pending and self._clock <= now:
            self._clock += 0.001 * self._fill(self.pending.pop(0), sound)

    def _fill(self, transfer: Transfer, sound: bytes) -> int:
        """Answers one transfer; gives how many milliseconds were in it."""
        data, done = b"", []
        for room in transfer.packets:
            size = min(room, _A_PACKET)
            self._place %= len(sound)
            part = (sound[self._place : self._place + size] + sound[:size])[:size]
            self._place += size
            data += part
            done.append((room, size))
        self.reply(transfer.number, 0, self._turned_down(data), done)
        return len(done)

    def _turned_down(self, data: bytes) -> bytes:
        if not self._volume:
            return data
        gain = 10 ** (self._volume / _FULL_DB)
        samples = struct.unpack(f"<{len(data) // 2}h", data)
        return struct.pack(f"<{len(samples)}h", *(int(s * gain) for s in samples))
