"""The part of Video4Linux that a look needs: ioctls and memory-mapped capture, nothing else.

Own calls instead of OpenCV's, because OpenCV hides what matters here: EBUSY reads as "cannot
open", a dead device as an empty picture after ten seconds, lost and damaged buffers not at all.

Structures as in <linux/videodev2.h>; errors are `OSError` with the driver's errno.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import select
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

CAPTURE = 1  # V4L2_BUF_TYPE_VIDEO_CAPTURE
_MMAP = 1  # V4L2_MEMORY_MMAP
_FIELD_ANY = 0
_CAP_CAPTURE, _CAP_STREAMING, _CAP_DEVICE_CAPS = 0x1, 0x0400_0000, 0x8000_0000
_FLAG_ERROR = 0x40  # V4L2_BUF_FLAG_ERROR: the data may be damaged
_CTRL_DISABLED = 0x1  # V4L2_CTRL_FLAG_DISABLED: the hardware lacks it
_BUFFERS = 4
_TICK_MS = 250


class _Capability(ctypes.Structure):
    _fields_ = [
        ("driver", ctypes.c_char * 16),
        ("card", ctypes.c_char * 32),
        ("bus_info", ctypes.c_char * 32),
        ("version", ctypes.c_uint32),
        ("capabilities", ctypes.c_uint32),
        ("device_caps", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32 * 3),
    ]


class _FormatDescription(ctypes.Structure):
    _fields_ = [
        ("index", ctypes.c_uint32),
        ("type", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("description", ctypes.c_char * 32),
        ("pixelformat", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32 * 4),
    ]


class _Pixels(ctypes.Structure):
    _fields_ = [
        ("width", ctypes.c_uint32),
        ("height", ctypes.c_uint32),
        ("pixelformat", ctypes.c_uint32),
        ("field", ctypes.c_uint32),
        ("bytesperline", ctypes.c_uint32),
        ("sizeimage", ctypes.c_uint32),
        ("colorspace", ctypes.c_uint32),
    ]


class _FormatUnion(ctypes.Union):
    # The kernel's union holds pointers, hence its alignment.
    _fields_ = [
        ("pix", _Pixels),
        ("raw", ctypes.c_uint8 * 200),
        ("align", ctypes.c_void_p),
    ]


class _Format(ctypes.Structure):
    _fields_ = [("type", ctypes.c_uint32), ("fmt", _FormatUnion)]


class _Fraction(ctypes.Structure):
    _fields_ = [("numerator", ctypes.c_uint32), ("denominator", ctypes.c_uint32)]


class _CaptureParameters(ctypes.Structure):
    _fields_ = [
        ("capability", ctypes.c_uint32),
        ("capturemode", ctypes.c_uint32),
        ("timeperframe", _Fraction),
        ("extendedmode", ctypes.c_uint32),
        ("readbuffers", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32 * 4),
    ]


class _ParametersUnion(ctypes.Union):
    _fields_ = [("capture", _CaptureParameters), ("raw", ctypes.c_uint8 * 200)]


class _Parameters(ctypes.Structure):
    _fields_ = [("type", ctypes.c_uint32), ("parm", _ParametersUnion)]


class _Request(ctypes.Structure):
    _fields_ = [
        ("count", ctypes.c_uint32),
        ("type", ctypes.c_uint32),
        ("memory", ctypes.c_uint32),
        ("capabilities", ctypes.c_uint32),
        ("flags", ctypes.c_uint8),
        ("reserved", ctypes.c_uint8 * 3),
    ]


class _ControlQuery(ctypes.Structure):
    _fields_ = [
        ("id", ctypes.c_uint32),
        ("type", ctypes.c_uint32),
        ("name", ctypes.c_char * 32),
        ("minimum", ctypes.c_int32),
        ("maximum", ctypes.c_int32),
        ("step", ctypes.c_int32),
        ("default", ctypes.c_int32),
        ("flags", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32 * 2),
    ]


class _Control(ctypes.Structure):
    _fields_ = [("id", ctypes.c_uint32), ("value", ctypes.c_int32)]


class _Place(ctypes.Union):
    _fields_ = [
        ("offset", ctypes.c_uint32),
        ("userptr", ctypes.c_ulong),
        ("planes", ctypes.c_void_p),
        ("fd", ctypes.c_int32),
    ]


class _Buffer(ctypes.Structure):
    _fields_ = [
        ("index", ctypes.c_uint32),
        ("type", ctypes.c_uint32),
        ("bytesused", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("field", ctypes.c_uint32),
        ("seconds", ctypes.c_long),
        ("microseconds", ctypes.c_long),
        ("timecode", ctypes.c_uint8 * 16),
        ("sequence", ctypes.c_uint32),
        ("memory", ctypes.c_uint32),
        ("m", _Place),
        ("length", ctypes.c_uint32),
        ("reserved2", ctypes.c_uint32),
        ("request_fd", ctypes.c_int32),
    ]


def _code(direction: int, number: int, shape: type[ctypes.Structure] | type[ctypes.c_int]) -> int:
    """_IOC of <asm-generic/ioctl.h>: direction 1 = write, 2 = read, 3 = both; type is 'V'."""
    return direction << 30 | ctypes.sizeof(shape) << 16 | ord("V") << 8 | number


QUERYCAP = _code(2, 0, _Capability)
ENUM_FMT = _code(3, 2, _FormatDescription)
G_FMT = _code(3, 4, _Format)
S_FMT = _code(3, 5, _Format)
REQBUFS = _code(3, 8, _Request)
QUERYBUF = _code(3, 9, _Buffer)
QBUF = _code(3, 15, _Buffer)
DQBUF = _code(3, 17, _Buffer)
STREAMON = _code(1, 18, ctypes.c_int)
STREAMOFF = _code(1, 19, ctypes.c_int)
G_PARM = _code(3, 21, _Parameters)
S_PARM = _code(3, 22, _Parameters)
G_CTRL = _code(3, 27, _Control)
S_CTRL = _code(3, 28, _Control)
QUERYCTRL = _code(3, 36, _ControlQuery)


@dataclass(frozen=True, slots=True)
class Capability:
    """QUERYCAP: who the device says it is, and whether pictures can be streamed from it."""

    driver: str
    card: str
    bus: str
    captures: bool


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """A format as the driver set it: four characters, pixels, lines, bytes a line and in all."""

    fourcc: str
    width: int
    height: int
    stride: int
    size: int


@dataclass(frozen=True, slots=True)
class Picture:
    """One buffer as it came; `at_s` is the driver's time (monotonic)."""

    data: bytes
    at_s: float
    sequence: int
    damaged: bool


def fourcc(code: int) -> str:
    """Four characters of a pixel format code."""
    return code.to_bytes(4, "little").decode("latin-1").rstrip()


def to_code(text: str) -> int:
    """Pixel format code of four characters."""
    return int.from_bytes(text.ljust(4).encode("latin-1"), "little")


class Camera:
    """An open node. Opening, `capability`, `formats` and `current` disturb nobody who streams."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._maps: list[mmap.mmap] = []
        self._requested = False
        self._streaming = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stops the stream, frees the buffers, closes the node; errors no longer matter here."""
        if self._streaming:
            self._quietly(STREAMOFF, ctypes.c_int(CAPTURE))
            self._streaming = False
        for area in self._maps:
            area.close()
        self._maps = []
        if self._requested:
            self._quietly(REQBUFS, _Request(count=0, type=CAPTURE, memory=_MMAP))
            self._requested = False
        os.close(self._fd)

    def _quietly(self, code: int, argument: ctypes.Structure | ctypes.c_int) -> None:
        try:
            fcntl.ioctl(self._fd, code, argument)
        except OSError:
            return

    def _call(self, code: int, argument: ctypes.Structure | ctypes.c_int) -> None:
        fcntl.ioctl(self._fd, code, argument)

    def capability(self) -> Capability:
        """QUERYCAP. Judged by `device_caps`: of a camera's nodes only some give pictures."""
        raw = _Capability()
        self._call(QUERYCAP, raw)
        caps = raw.device_caps if raw.capabilities & _CAP_DEVICE_CAPS else raw.capabilities
        return Capability(
            driver=raw.driver.decode("latin-1"),
            card=raw.card.decode("latin-1"),
            bus=raw.bus_info.decode("latin-1"),
            captures=bool(caps & _CAP_CAPTURE and caps & _CAP_STREAMING),
        )

    def formats(self) -> list[str]:
        """ENUM_FMT: the pixel formats on offer, in the driver's order."""
        found: list[str] = []
        while len(found) < 64:
            raw = _FormatDescription(index=len(found), type=CAPTURE)
            try:
                self._call(ENUM_FMT, raw)
            except OSError as error:
                if error.errno == errno.EINVAL:  # the end of the list
                    break
                raise
            found.append(fourcc(raw.pixelformat))
        return found

    def current(self) -> PixelFormat:
        """G_FMT: the format that is set."""
        raw = _Format(type=CAPTURE)
        self._call(G_FMT, raw)
        return _pixel_format(raw)

    def set_format(self, fourcc: str, width: int, height: int) -> PixelFormat:
        """S_FMT: what the driver made of it. EBUSY when somebody streams."""
        raw = _Format(type=CAPTURE)
        raw.fmt.pix.width, raw.fmt.pix.height = width, height
        raw.fmt.pix.pixelformat, raw.fmt.pix.field = to_code(fourcc), _FIELD_ANY
        self._call(S_FMT, raw)
        return _pixel_format(raw)

    def rate(self) -> float | None:
        """G_PARM: pictures/s the driver says it will send, None where it does not say."""
        raw = _Parameters(type=CAPTURE)
        try:
            self._call(G_PARM, raw)
        except OSError:
            return None
        each = raw.parm.capture.timeperframe
        return each.denominator / each.numerator if each.numerator and each.denominator else None

    def set_rate(self, fps: float) -> None:
        """S_PARM: asks for a rate; a driver without one (ENOTTY) keeps its own."""
        raw = _Parameters(type=CAPTURE)
        raw.parm.capture.timeperframe.numerator = 1_000
        raw.parm.capture.timeperframe.denominator = round(fps * 1_000)
        try:
            self._call(S_PARM, raw)
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise

    def has_control(self, number: int) -> bool:
        """QUERYCTRL: whether the camera has a control."""
        raw = _ControlQuery(id=number)
        try:
            self._call(QUERYCTRL, raw)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOTTY):
                return False
            raise
        return not raw.flags & _CTRL_DISABLED

    def control(self, number: int) -> int:
        """G_CTRL: the value of a control."""
        raw = _Control(id=number)
        self._call(G_CTRL, raw)
        return int(raw.value)

    def set_control(self, number: int, value: int) -> None:
        """S_CTRL: another value. EBUSY or EACCES when another control has it in hand."""
        self._call(S_CTRL, _Control(id=number, value=value))

    def start(self) -> None:
        """REQBUFS, QUERYBUF, mmap, QBUF, STREAMON. EBUSY when somebody else streams."""
        request = _Request(count=_BUFFERS, type=CAPTURE, memory=_MMAP)
        self._call(REQBUFS, request)
        self._requested = True
        for index in range(request.count):
            buffer = _Buffer(index=index, type=CAPTURE, memory=_MMAP)
            self._call(QUERYBUF, buffer)
            self._maps.append(
                mmap.mmap(
                    self._fd,
                    buffer.length,
                    flags=mmap.MAP_SHARED,
                    prot=mmap.PROT_READ,
                    offset=buffer.m.offset,
                )
            )
            self._call(QBUF, buffer)
        self._call(STREAMON, ctypes.c_int(CAPTURE))
        self._streaming = True

    def pictures(self, also: int | None = None) -> Iterator[Picture | None]:
        """Pictures without end; None when there is none for 0.25 s, or `also` (a descriptor) wakes.

        Raises `OSError` when the driver gives the stream up.
        """
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        if also is not None:
            poll.register(also, select.POLLIN)
        while True:
            ready = dict(poll.poll(_TICK_MS))
            if self._fd not in ready or also in ready:
                yield None
            if self._fd not in ready:
                continue
            buffer = _Buffer(type=CAPTURE, memory=_MMAP)
            try:
                self._call(DQBUF, buffer)
            except BlockingIOError:
                continue
            picture = Picture(
                data=self._maps[buffer.index][: buffer.bytesused],
                at_s=buffer.seconds + buffer.microseconds / 1e6,
                sequence=buffer.sequence,
                damaged=bool(buffer.flags & _FLAG_ERROR),
            )
            # Back at once: a slow decoder must not look like a camera that loses pictures. Only
            # now, because the call clears time and sequence.
            self._call(QBUF, buffer)
            yield picture


def _pixel_format(raw: _Format) -> PixelFormat:
    pix = raw.fmt.pix
    return PixelFormat(
        fourcc(pix.pixelformat), pix.width, pix.height, pix.bytesperline, pix.sizeimage
    )
