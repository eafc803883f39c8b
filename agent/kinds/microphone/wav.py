"""WAV files as sound sources: PCM of 8, 16, 24 or 32 bits, also WAVE_FORMAT_EXTENSIBLE.

The standard library's `wave` refuses the extensible header before Python 3.12 (that of every
24-bit and multichannel recording) and files whose sizes were never written (made through a
pipe), so the few chunks are read here.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from agent.kinds.microphone.sound import Sound, to_sound

_PCM = 1
_EXTENSIBLE = 0xFFFE
_SUBFORMAT_TAIL = bytes.fromhex("0000 0000 1000 8000 00aa 0038 9b71".replace(" ", ""))
"""KSDATAFORMAT_SUBTYPE_*: the format code as 2 bytes, then this."""
_MAX_CHUNKS = 256


class BadFileError(ValueError):
    """Not a WAV file of whole-number PCM."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the samples are: rate in Hz, `bits` of a sample, byte offset, whole frames."""

    rate: int
    channels: int
    bits: int
    offset: int
    frames: int

    @property
    def frame_size(self) -> int:
        """Bytes of one frame."""
        return self.channels * self.bits // 8


class Wav:
    """An open WAV file. Raises `BadFileError` for what is none, `OSError` if it cannot be read."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("rb")
        try:
            self.layout = read_layout(self._file, os.fstat(self._file.fileno()).st_size)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def read(self, start: int, frames: int) -> Sound:
        """Frames from `start` on, float32 of shape (frames, channels), full scale is 1; fewer
        where the file ends."""
        layout = self.layout
        frames = max(0, min(frames, layout.frames - start))
        self._file.seek(layout.offset + start * layout.frame_size)
        return to_sound(self._file.read(frames * layout.frame_size), layout.bits, layout.channels)


def read_layout(file: BinaryIO, size: int) -> Layout:
    """The layout of a WAV file of `size` bytes, from its first byte on. Raises `BadFileError`."""
    head = file.read(12)
    if len(head) < 12 or head[:4] != b"RIFF" or head[8:] != b"WAVE":
        raise BadFileError("not a WAV file")
    form: tuple[int, int, int] | None = None
    for _ in range(_MAX_CHUNKS):
        chunk = file.read(8)
        if len(chunk) < 8:
            break
        name, length = chunk[:4], struct.unpack("<I", chunk[4:])[0]
        if name == b"fmt ":
            form = _form(file.read(min(length, 64)))
            file.seek(max(0, length - 64) + length % 2, os.SEEK_CUR)
        elif name == b"data":
            if form is None:
                break
            rate, channels, bits = form
            offset = file.tell()
            # A length of 0 or 2^32-1 was never filled in: the samples go on to the end.
            there = max(0, size - offset)
            length = min(length, there) if length not in (0, 0xFFFFFFFF) else there
            return Layout(rate, channels, bits, offset, length // (channels * bits // 8))
        else:
            file.seek(length + length % 2, os.SEEK_CUR)
    raise BadFileError("no samples in it")


def _form(raw: bytes) -> tuple[int, int, int]:
    """Rate, channels and bits out of a `fmt ` chunk."""
    if len(raw) < 16:
        raise BadFileError("short fmt chunk")
    code, channels, rate, _, align, bits = struct.unpack("<HHIIHH", raw[:16])
    if code == _EXTENSIBLE and len(raw) >= 40 and raw[26:40] == _SUBFORMAT_TAIL:
        code = struct.unpack("<H", raw[24:26])[0]
    if code != _PCM:
        raise BadFileError(f"coding {code:#x} is not PCM")
    if bits not in (8, 16, 24, 32) or not 1 <= channels <= 32 or not 4_000 <= rate <= 384_000:
        raise BadFileError(f"{bits} bits, {channels} channels, {rate} Hz")
    if align != channels * bits // 8:
        raise BadFileError(f"frames of {align} bytes")
    return rate, channels, bits
