"""Frames from a source: a device node, a file, a camera on the network.

Each is a generator of `Frame`s that ends by itself, and raises `Failed` for what a reading then
says. Nothing here writes, logs or keeps a picture.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2

from agent import clock
from agent.kinds.camera import reach, v4l2
from agent.kinds.camera.frames import (
    FORMATS,
    JPEG,
    Frame,
    cut_short,
    decode,
    from_picture,
    undecodable,
)
from agent.kinds.camera.watch import OtherOpeners
from agent.model import Fault, Scalar

_ONE_THREAD = [cv2.CAP_PROP_N_THREADS, 1]  # more threads keep more pictures in memory
_WHOLE_LIMIT_S = 3_600.0
_STALLED_TICKS = 6  # of 0.25 s without a picture: a stream that has died in mid-look
_WARM_UP_S, _WARM_UP_SHARE = 0.8, 1 / 3
_STEADY_S, _STEADY_CHANGE = 0.2, 0.03


class Failed(Exception):
    """A source that gave no (more) pictures, in the words of a reading."""

    def __init__(self, fault: Fault, why: str = "", number: int | None = None) -> None:
        super().__init__(fault, why, number)
        self.fault = fault
        self.why = why
        self.errno = number


@dataclass(slots=True)
class About:
    """What is known of a source before its pictures: filled while it is opened."""

    width: int = 0
    height: int = 0
    fps: float | None = None
    """Pictures/s that the source itself declares."""
    intra_only: bool = False
    """Each picture comes whole; nothing is carried over from the one before."""
    identity: dict[str, str] = field(default_factory=dict)
    controls: dict[str, Scalar] = field(default_factory=dict)
    """What became of the controls that were to be set."""


def from_errno(number: int | None) -> Failed:
    """The fault behind an errno of a device."""
    if number == errno.EBUSY:
        return Failed(Fault.BUSY, "held", number)
    if number in (errno.ENOENT, errno.ENXIO):
        return Failed(Fault.ABSENT, "no_node", number)
    if number in (errno.EACCES, errno.EPERM):
        return Failed(Fault.ERROR, "not_permitted", number)
    if number in (errno.ENOTTY, errno.EINVAL):
        return Failed(Fault.ERROR, "not_supported", number)
    return Failed(Fault.NO_ANSWER, "errno", number)


def settled(frames: Iterator[Frame], look_s: float) -> Iterator[Frame]:
    """The frames of a live camera without those on which its automatic exposure still works.

    Steady is a mean luma that changes by less than 3 % in 0.2 s; no more than 0.8 s, or a third
    of the look, are left out.
    """
    limit_s = min(_WARM_UP_S, _WARM_UP_SHARE * look_s)
    seen: list[tuple[float, float]] = []
    first_s: float | None = None
    for frame in frames:
        first_s = frame.at_s if first_s is None else first_s
        steady = False
        if frame.shown:
            mean = float(frame.luma[::16, ::16].mean())
            seen.append((frame.at_s, mean))
            older = [m for at_s, m in seen if at_s <= frame.at_s - _STEADY_S]
            steady = bool(older) and abs(mean - older[-1]) <= max(2.0, _STEADY_CHANGE * mean)
        if steady or frame.at_s - first_s >= limit_s:
            yield frame
            break
    yield from frames


# -- files --------------------------------------------------------------------------------------


def check_file(path: Path) -> None:
    """Raises `Failed` for a file that cannot be read. Does not open it: a FIFO would hang."""
    try:
        if path.is_dir():
            raise Failed(Fault.ERROR, "bad_file", errno.EISDIR)
        if not path.exists():
            raise Failed(Fault.ABSENT, "no_node", errno.ENOENT)
    except OSError as error:
        raise from_errno(error.errno) from None
    if not os.access(path, os.R_OK):
        raise Failed(Fault.ERROR, "not_permitted", errno.EACCES)


def _open_file(path: Path, about: About) -> cv2.VideoCapture:
    check_file(path)
    source = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, _ONE_THREAD)
    if not source.isOpened():
        raise Failed(Fault.ERROR, "bad_file")
    _describe(source, about)
    return source


def _describe(source: cv2.VideoCapture, about: About) -> None:
    about.width = int(source.get(cv2.CAP_PROP_FRAME_WIDTH))
    about.height = int(source.get(cv2.CAP_PROP_FRAME_HEIGHT))
    rate = source.get(cv2.CAP_PROP_FPS)
    about.fps = rate if 0 < rate < 240 else None
    about.intra_only = v4l2.fourcc(int(source.get(cv2.CAP_PROP_FOURCC))).upper() in JPEG


def whole_file(path: Path, about: About) -> Iterator[Frame]:
    """Every picture of a file, as fast as they decode."""
    source = _open_file(path, about)
    try:
        for frame in _play(source, about):
            yield frame
            if frame.at_s > _WHOLE_LIMIT_S:
                return
    finally:
        source.release()


def paced_file(path: Path, about: About, look_s: float) -> Iterator[Frame]:
    """Pictures of a file at its own pace, as if it had been running since the boot.

    The position is the boot time modulo the length, and the end is followed by the beginning.
    The file is opened anew at each look, so its content may be exchanged between two.
    """
    source = _open_file(path, about)
    try:
        length = _length_s(source, about)
        place = clock.up_s() % length if length else 0.0
        if place:
            source.set(cv2.CAP_PROP_POS_MSEC, place * 1_000)
        started, offset, seen = time.monotonic(), -place, False
        while True:
            for frame in _play(source, about):
                seen = True
                frame.at_s += offset
                if frame.at_s < 0:  # a seek lands on the key frame before the place
                    continue
                if frame.at_s >= look_s:
                    return
                time.sleep(max(0.0, started + frame.at_s - time.monotonic()))
                yield frame
            offset += length
            # No picture may be left behind the place; none from the beginning is an empty file.
            if not (seen or place) or not length or offset >= look_s:
                return
            seen, place = False, 0.0
            source.set(cv2.CAP_PROP_POS_MSEC, 0)
    finally:
        source.release()


def _length_s(source: cv2.VideoCapture, about: About) -> float:
    count = source.get(cv2.CAP_PROP_FRAME_COUNT)
    return count / about.fps if about.fps and count > 0 else 0.0


def _play(source: cv2.VideoCapture, about: About) -> Iterator[Frame]:
    """Frames of an opened file with the file's own times (seconds from its beginning)."""
    step = 1 / about.fps if about.fps else 1 / 25
    last, picture = -step, None
    while True:
        # Decoded over the one before: a second picture in colour is 6 MB at 1080p.
        good, picture = source.read(picture)
        if not good or picture is None:
            return
        at = source.get(cv2.CAP_PROP_POS_MSEC) / 1_000
        if at <= last - 10 * step or at < last + 0.2 * step:  # a container without times
            at = last + step
        last = at
        yield from_picture(picture, at)


# -- cameras on the network ---------------------------------------------------------------------

_FFMPEG_LIMITS = "rtsp_transport;tcp|rw_timeout;{us}|timeout;{us}|stimeout;{us}|max_delay;500000"


def network(url: str, about: About, until_s: float, look_s: float) -> Iterator[Frame]:
    """Pictures of an RTSP or MJPEG stream until `look_s` after the first, or `until_s` (monotonic).

    RTSP goes over TCP: over UDP a lossy network looks like a broken camera.
    """
    wait_ms = max(500, int((until_s - time.monotonic()) * 1_000))
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = _FFMPEG_LIMITS.format(us=wait_ms * 1_000)
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, wait_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, wait_ms]
    source = cv2.VideoCapture(url, cv2.CAP_FFMPEG, [*limits, *_ONE_THREAD])
    try:
        if not source.isOpened():
            if (left_s := until_s - time.monotonic()) <= 0:
                raise Failed(Fault.NO_ANSWER, "no_frame")
            raise Failed(Fault.NO_ANSWER, "refused", reach.errno_of(url, left_s))
        _describe(source, about)
        end_s = None
        while True:
            good, picture = source.read()
            now = time.monotonic()
            if not good or picture is None:
                raise Failed(Fault.NO_ANSWER, "no_frame")
            end_s = min(until_s, now + look_s) if end_s is None else end_s
            yield from_picture(picture, now)
            if now >= end_s:
                return
    finally:
        source.release()


# -- device nodes -------------------------------------------------------------------------------


def open_node(paths: list[Path], about: About) -> tuple[v4l2.Camera, Path]:
    """The first of some nodes that gives pictures, open and asked, not streaming yet.

    Which node that is, `device_caps` says: a webcam's second node carries metadata only.
    """
    failed = Failed(Fault.ABSENT, "no_node")
    for path in paths:
        try:
            camera = v4l2.Camera(path)
        except OSError as error:
            failed = from_errno(error.errno)
            continue
        try:
            capability = camera.capability()
        except OSError as error:
            camera.close()
            failed = from_errno(error.errno)
            continue
        if capability.captures:
            about.identity = {
                "card": _printable(capability.card),
                "driver": _printable(capability.driver),
                "bus": _printable(capability.bus),
            }
            return camera, path
        camera.close()
        failed = Failed(Fault.ERROR, "not_supported")
    raise failed


def _printable(text: str) -> str:
    return "".join(c for c in text if c.isascii() and c.isprintable())[:64]


def choose(
    camera: v4l2.Camera, width: int | None, height: int | None, fps: float | None
) -> v4l2.PixelFormat:
    """Sets what was ordered and gives what the driver made of it. `OSError` as the driver says.

    Nothing ordered: the format that is set stays, if its pixels can be read.
    """
    offered = camera.formats()
    now = camera.current()
    readable = [f for f in FORMATS if f in offered]
    if not readable and now.fourcc not in FORMATS:
        raise Failed(Fault.ERROR, "not_supported")
    wanted = (width or now.width, height or now.height)
    keep = now.fourcc in FORMATS and (now.width, now.height) == wanted
    fourcc = now.fourcc if keep or not readable else readable[0]
    chosen = camera.set_format(fourcc, *wanted)
    if fps:
        camera.set_rate(fps)
    return chosen


def node(
    camera: v4l2.Camera,
    path: Path,
    chosen: v4l2.PixelFormat,
    about: About,
    until_s: float,
    look_s: float,
) -> Iterator[Frame]:
    """Pictures of a device until `look_s` after the first, or `until_s` (monotonic).

    Lets go as soon as somebody else opens the node: `Failed` with `yielded`.
    """
    about.width, about.height, about.fps = chosen.width, chosen.height, camera.rate()
    about.intra_only = True
    try:
        with OtherOpeners(path) as others:
            camera.start()
            yield from _stream(camera, chosen, about, until_s, look_s, others)
    except OSError as error:
        raise from_errno(error.errno) from None


def _stream(
    camera: v4l2.Camera,
    chosen: v4l2.PixelFormat,
    about: About,
    until_s: float,
    look_s: float,
    others: OtherOpeners,
) -> Iterator[Frame]:
    jpeg = chosen.fourcc in JPEG
    before: Frame | None = None
    bytes_before, sequence, end_s, idle = b"", -1, until_s, 0
    for picture in camera.pictures(others.fd):
        now = time.monotonic()
        if picture is None:
            idle += 1
            if others.came():
                raise Failed(Fault.BUSY, "yielded")
            if (now >= end_s and before is None) or (before is not None and idle >= _STALLED_TICKS):
                raise Failed(Fault.NO_ANSWER, "no_frame")
            if now >= end_s:
                return
            continue
        idle = 0
        if before is None:
            end_s = min(until_s, now + look_s)
        if jpeg and before is not None and picture.data == bytes_before:
            frame = Frame(before.luma, before.bgr, picture.at_s, same=True, damaged=before.damaged)
        else:
            frame = _decode(picture, chosen)
        frame.steps = max(1, picture.sequence - sequence)
        sequence = picture.sequence
        bytes_before, before = picture.data, frame
        yield frame
        if now >= end_s:
            return


def _decode(picture: v4l2.Picture, chosen: v4l2.PixelFormat) -> Frame:
    jpeg = chosen.fourcc in JPEG
    damaged = picture.damaged or (jpeg and cut_short(picture.data))
    shown = decode(picture.data, chosen.fourcc, chosen.width, chosen.height, chosen.stride)
    if shown is None:
        return undecodable(picture.at_s)
    return from_picture(shown, picture.at_s, damaged=damaged)
