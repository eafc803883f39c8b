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

_COLOUR_WIDTH = 80
"""Points across in a frame's coarse colour sample: enough to see a colour fault."""


@dataclass(slots=True)
class Frame:
    """One picture in memory; it never leaves the process.

    `colour` is a coarse sample of the picture, None for a colourless source. `at_s` is the
    source's own time. `same` says that the bytes that came were those of the picture before,
    `damaged` that the source itself says so (a driver's flag, a JPEG that is cut short).
    """

    luma: Grey
    colour: Colour | None
    at_s: float
    same: bool = False
    damaged: bool = False


def from_bgr(picture: Colour, at_s: float, *, damaged: bool = False) -> Frame:
    """A frame of an OpenCV picture (height x width x 3, or height x width)."""
    if picture.ndim == 2:
        return Frame(picture, None, at_s, damaged=damaged)
    step = max(1, picture.shape[1] // _COLOUR_WIDTH)
    luma = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    return Frame(luma, picture[step // 2 :: step, step // 2 :: step].copy(), at_s, damaged=damaged)


_PLANAR = {"NV12", "NV21", "YU12", "YV12"}
_TO_BGR = {
    "NV12": cv2.COLOR_YUV2BGR_NV12,
    "NV21": cv2.COLOR_YUV2BGR_NV21,
    "YU12": cv2.COLOR_YUV2BGR_I420,
    "YV12": cv2.COLOR_YUV2BGR_YV12,
    "YUYV": cv2.COLOR_YUV2BGR_YUYV,
    "UYVY": cv2.COLOR_YUV2BGR_UYVY,
}
FORMATS = ("MJPG", "JPEG", "YUYV", "UYVY", "NV12", "NV21", "YU12", "YV12", "BGR3", "RGB3", "GREY")
"""Pixel formats that can be read, the preferred first: what costs a USB bus least."""


def from_buffer(data: bytes, fourcc: str, width: int, height: int, stride: int) -> Colour | None:
    """A driver's buffer as an OpenCV picture; None when it is too short or no picture at all."""
    raw = np.frombuffer(data, np.uint8)
    if fourcc in ("MJPG", "JPEG"):
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
        return rows.copy()
    if fourcc == "BGR3":
        return rows.reshape(height, width, 3).copy()
    if fourcc == "RGB3":
        return np.asarray(cv2.cvtColor(rows.reshape(height, width, 3), cv2.COLOR_RGB2BGR), np.uint8)
    if fourcc not in _PLANAR:
        rows = rows.reshape(height, width, 2)
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(rows), _TO_BGR[fourcc]), np.uint8)


def cut_short(data: bytes) -> bool:
    """Whether a JPEG lacks its end marker (some cameras pad behind it with zeros)."""
    return not data.rstrip(b"\0").endswith(b"\xff\xd9")
