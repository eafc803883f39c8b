"""Frames of one look -> flat numbers. Pictures go in, and nothing that could be one comes out."""

from __future__ import annotations

import cv2
import numpy as np

from agent.kinds.camera.capture import About
from agent.kinds.camera.frames import Frame, Grey
from agent.model import Scalar

SMALL = (320, 180)
"""Width and height of the grey picture on which a frame is judged."""


class Look:
    """Gathers the frames of one look. `values` is small: numbers and booleans."""

    def __init__(self) -> None:
        self._frames = 0
        self._first_s = self._last_s = 0.0
        self._before: Grey | None = None
        self._changed_s = 0.0
        self._unchanged_s = 0.0
        self._different = 0
        self._luma: list[float] = []
        self._structure: list[float] = []

    def add(self, frame: Frame) -> None:
        """Takes one frame into account."""
        at = frame.at_s
        if not self._frames:
            self._first_s = self._changed_s = at
        self._frames += 1
        self._last_s = at
        same = frame.same or (
            self._before is not None
            and self._before.shape == frame.luma.shape
            and cv2.norm(self._before, frame.luma, cv2.NORM_INF) == 0
        )
        if not same:
            self._different += 1
            self._changed_s = at
        self._unchanged_s = max(self._unchanged_s, at - self._changed_s)
        self._before = frame.luma
        small = cv2.resize(frame.luma, SMALL, interpolation=cv2.INTER_AREA)
        mean, deviation = cv2.meanStdDev(cv2.resize(small, (32, 18), interpolation=cv2.INTER_AREA))
        self._luma.append(float(mean[0][0]))
        self._structure.append(float(deviation[0][0]))

    def values(self, about: About) -> dict[str, Scalar]:
        """What the look comes to."""
        values: dict[str, Scalar] = {"frames": self._frames, "width": about.width}
        values["height"] = about.height
        span = self._last_s - self._first_s
        if about.fps:
            values["fps_declared"] = round(about.fps, 1)
        if self._frames > 1 and span > 0:
            values["span_s"] = round(span, 1)
            values["fps"] = round((self._frames - 1 + about.lost) / span, 1)
            values["fps_different"] = round(self._different / span, 1)
            values["unchanged_s"] = round(self._unchanged_s, 1)
        tail = max(1, len(self._luma) // 3)
        values["luma_mean"] = round(float(np.median(self._luma[-tail:])), 1)
        values["luma_spread"] = round(float(np.median(self._structure[-tail:])), 1)
        return values
