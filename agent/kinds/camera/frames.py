"""Pictures as numbers in memory: one shape for every source, and how buffers become it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.uint8]
"""Height x width, 0..255."""
Colour = NDArray[np.uint8]
"""Height x width x 3, blue, green, red."""


@dataclass(slots=True)
class Frame:
    """One picture in memory; it never leaves the process.

    `bgr` is None for a colourless source. `at_s` is the source's own time. `same` says that the
    bytes that came were those of the picture before, `damaged` that the source itself says so (a
    driver's flag, a JPEG that is cut short); then `luma` may be empty, where nothing could be made
    of it. `steps` is by how much the driver's own count rose: more than 1 where pictures were
    lost, None where nobody counts.
    """

    luma: Grey
    bgr: Colour | None
    at_s: float
    same: bool = False
    damaged: bool = False
    steps: int | None = None

    @property
    def shown(self) -> bool:
        """Whether there is a picture: one that could not be decoded must not pass for a black one
        or for the one before."""
        return self.luma.size > 0

    def colour(self) -> Colour | None:
        """A coarse sample of the picture, 80 x 45: enough to see a colour fault."""
        if self.bgr is None:
            return None
        points = cv2.resize(self.bgr, (320, 180), interpolation=cv2.INTER_NEAREST)
        return np.asarray(cv2.resize(points, (80, 45), interpolation=cv2.INTER_AREA), np.uint8)


def undecodable(at_s: float) -> Frame:
    """A frame in place of a picture that nothing could be made of."""
    return Frame(np.empty((0, 0), np.uint8), None, at_s, damaged=True)


def from_picture(picture: NDArray[np.uint8], at_s: float, *, damaged: bool = False) -> Frame:
    """A frame of an OpenCV picture: height x width x 3 (blue, green, red), or height x width."""
    if picture.ndim == 2:
        return Frame(picture, None, at_s, damaged=damaged)
    luma = np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), np.uint8)
    return Frame(luma, picture, at_s, damaged=damaged)


_PLANAR = {"NV12", "NV21", "YU12", "YV12"}
_TO_BGR = {
    "NV12": cv2.COLOR_YUV2BGR_NV12,
    "NV21": cv2.COLOR_YUV2BGR_NV21,
    "YU12": cv2.COLOR_YUV2BGR_I420,
    "YV12": cv2.COLOR_YUV2BGR_YV12,
    "YUYV": cv2.COLOR_YUV2BGR_YUYV,
    "UYVY": cv2.COLOR_YUV2BGR_UYVY,
}
JPEG = frozenset({"MJPG", "JPEG"})
FORMATS = ("MJPG", "JPEG", "YUYV", "UYVY", "NV12", "NV21", "YU12", "YV12", "BGR3", "RGB3", "GREY")
"""Pixel formats that can be read, the preferred first: what costs a USB bus least."""


def decode(
    data: bytes, fourcc: str, width: int, height: int, stride: int
) -> NDArray[np.uint8] | None:
    """A driver's buffer as an OpenCV picture; None when it is too short or no picture at all."""
    raw = np.frombuffer(data, np.uint8)
    if fourcc in JPEG:
        picture = cv2.imdecode(raw, cv2.IMREAD_COLOR) if raw.size else None
        return None if picture is None else np.asarray(picture, np.uint8)
    if fourcc in _PLANAR:
        lines, row = height * 3 // 2, width
    else:
        lines, row = height, width * {"GREY": 1, "BGR3": 3, "RGB3": 3}.get(fourcc, 2)
    stride = max(stride, row)
    padded_planes = fourcc in ("YU12", "YV12") and stride != row
    if raw.size < stride * lines or padded_planes:
        return None
    rows = raw[: stride * lines].reshape(lines, stride)[:, :row]
    if fourcc == "GREY":
        return rows
    if fourcc in ("BGR3", "RGB3"):
        picture = np.ascontiguousarray(rows).reshape(height, width, 3)
        return picture if fourcc == "BGR3" else np.ascontiguousarray(picture[..., ::-1])
    rows = np.ascontiguousarray(rows)
    if fourcc not in _PLANAR:
        rows = rows.reshape(height, width, 2)
    return np.asarray(cv2.cvtColor(rows, _TO_BGR[fourcc]), np.uint8)


def cut_short(data: bytes) -> bool:
    """Whether a JPEG lacks its end marker (some cameras pad behind it with zeros)."""
    return not data.rstrip(b"\0").endswith(b"\xff\xd9")
