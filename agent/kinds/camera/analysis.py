"""Frames of one look -> flat numbers. Pictures go in, and nothing that could be one comes out.

Every picture is compared with the one before it; a few a second are looked at closely. What is
told is how the picture was in the last two seconds (a fault may begin in mid-look), and the worst
of what comes and goes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.kinds.camera import damage, picture
from agent.kinds.camera.capture import About
from agent.kinds.camera.fingerprint import Fingerprint
from agent.kinds.camera.frames import Frame, Grey, from_picture
from agent.kinds.camera.stillness import Changes
from agent.model import Scalar

SMALL = (320, 180)
"""Width and height of the grey picture on which a frame is judged."""
_SAMPLE_S = 0.5
_TAIL_S = 2.0
_OFTEN = 0.8  # quantile over a look of what comes and goes: a fifth of it is enough


@dataclass(slots=True)
class _Sample:
    at_s: float
    numbers: dict[str, float]


class Look:
    """Gathers the frames of one look.

    Looking closely takes no more than a third of the time of a `live` source: on a slow box
    pictures would be lost meanwhile.
    """

    def __init__(self, *, live: bool = False) -> None:
        self._live = live
        self._frames = self._damaged = 0
        self._first_s = self._last_s = 0.0
        self._next_s = float("-inf")
        self._intervals: list[float] = []
        self._changes = Changes()
        self._samples: list[_Sample] = []
        self._relief: NDArray[np.float32] | None = None
        self._average: NDArray[np.float32] | None = None

    def add(self, frame: Frame) -> None:
        """Takes one frame into account."""
        if not self._frames:
            self._first_s = frame.at_s
        elif frame.steps is not None:
            self._intervals.append((frame.at_s - self._last_s) / frame.steps)
        self._frames += 1
        self._damaged += frame.damaged
        self._last_s = frame.at_s
        if not frame.shown:
            return
        small = shrink(frame.luma)
        before = self._changes.before
        differs = self._changes.add(frame.luma, small, frame.at_s, frame.same)
        if frame.at_s >= self._next_s:
            started = time.monotonic()
            usable = differs and before is not None and before.shape == frame.luma.shape
            self._samples.append(
                _Sample(frame.at_s, self._closely(frame, small, before if usable else None))
            )
            took_s = 3 * (time.monotonic() - started) if self._live else 0.0
            self._next_s = frame.at_s + max(_SAMPLE_S, took_s)

    def _closely(self, frame: Frame, small: Grey, before: Grey | None) -> dict[str, float]:
        """All that is measured on one picture; `before` only where it differs from it.

        What costs most is measured every second time.
        """
        relief = picture.relief(small)
        light, edges = picture.light(small), picture.edges(small)
        plain = picture.plain(relief, relief if self._relief is None else self._relief, small)
        self._relief = relief
        colour = frame.colour()
        flat = picture.flat(small, colour)
        numbers = {
            "luma_mean": light.mean,
            "luma_high": light.high,
            "luma_spread": light.spread,
            "bright_share": light.bright_share,
            "edge_contrast": edges.contrast,
            "plain_share": plain.share,
            "plain_softness": plain.softness,
            "flat_share": flat.share,
            "flat_colours": flat.colours,
            "one_level_share": flat.one_level_share,
            "stuck_share": damage.stuck_share(small),
        }
        if edges.width is not None:
            numbers["edge_width"] = edges.width
        if edges.axis_width is not None:
            numbers["edge_axis_width"] = edges.axis_width
        if colour is not None:
            numbers["lost_channel_share"] = damage.lost_channel_share(colour)
            numbers["tint"] = damage.tint(colour)
        # A slow box has time for two: what needs no picture before it comes first.
        if (len(self._samples) + self._live) % 2:
            numbers["tear"] = damage.tear(frame.luma)
            numbers["block_steps"] = damage.block_steps(frame.luma)
            if colour is not None:
                numbers["colour_shift"] = damage.colour_shift(colour)
        elif before is not None:
            grain = picture.grain(frame.luma, before)
            numbers["speckle_share"] = grain.speckle_share
            if grain.noise is not None:
                numbers["noise"] = grain.noise
            numbers["block_steps"] = damage.new_block_steps(frame.luma, before)
        if self._average is None:
            self._average = small.astype(np.float32)
        else:
            cv2.accumulateWeighted(small, self._average, 0.3)
        return numbers

    def fingerprint(self) -> Fingerprint | None:
        """The coarse fingerprint of the view, the last second weighing most; None before any."""
        return None if self._average is None else Fingerprint.of(self._average)

    def values(self, about: About) -> dict[str, Scalar]:
        """What the look comes to: flat numbers, coarsely rounded."""
        values: dict[str, Scalar] = {"frames": self._frames}
        if about.width and about.height:
            values.update(width=about.width, height=about.height)
        values["intra_only"] = about.intra_only
        if about.fps:
            values["fps_declared"] = round(about.fps, 1)
        values.update(self._in_time())
        for key, (aggregate, digits) in _TOLD.items():
            numbers = [s.numbers[key] for s in self._of(aggregate) if key in s.numbers]
            if numbers:
                values[key] = round(aggregate(numbers), digits)
        return values

    def _in_time(self) -> Mapping[str, Scalar]:
        span = self._last_s - self._first_s
        values: dict[str, Scalar] = {}
        if self._damaged:
            values["damaged_share"] = round(self._damaged / self._frames, 2)
        if self._frames < 2 or span <= 0:
            return values
        fps = (self._frames - 1) / span
        if self._intervals:
            # Of a driver's own times the median: a slow box misses pictures, the camera does not.
            fps = 1 / max(1e-3, float(np.median(self._intervals)))
        values["span_s"] = round(span, 1)
        values["fps"] = round(fps, 1)
        values["unchanged_s"] = round(self._changes.unchanged_s, 1)
        values["stopped_s"] = round(self._changes.stopped_s(), 1)
        share = self._changes.different_share()
        if share is not None:
            values["fps_different"] = round(fps * share, 1)
        flicker = self._changes.flicker_pct(fps)
        if flicker is not None:
            values["flicker_pct"] = round(flicker, 1)
        return values

    def _of(self, aggregate: Callable[[list[float]], float]) -> list[_Sample]:
        if aggregate is _often:
            return self._samples
        return [s for s in self._samples if s.at_s >= self._last_s - _TAIL_S]


def shrink(luma: Grey) -> Grey:
    """The small picture. Halved first where that is exact: OpenCV does it four times as fast."""
    height, width = luma.shape
    if width >= 2 * SMALL[0] and height >= 2 * SMALL[1] and width % 2 == height % 2 == 0:
        luma = cv2.resize(luma, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(luma, SMALL, interpolation=cv2.INTER_AREA), np.uint8)


def rehearse() -> None:
    """Runs every test once on pictures of noise, so that none is slow the first time."""
    look = Look()
    for index in range(6):
        # Not NumPy's dice: they are 3 MB that nothing else needs.
        noise = cv2.randu(np.empty((SMALL[1], SMALL[0], 3), np.uint8), 0, 255)
        look.add(from_picture(cv2.blur(noise, (3, 3)), index * _SAMPLE_S))
    look.values(About())


def _usual(numbers: list[float]) -> float:
    """The median: how it was."""
    return float(np.median(numbers))


def _often(numbers: list[float]) -> float:
    """A high quantile: what was there for a fifth of the time at least."""
    return float(np.quantile(numbers, _OFTEN))


_TOLD: Mapping[str, tuple[Callable[[list[float]], float], int]] = {
    "luma_mean": (_usual, 0),
    "luma_high": (_usual, 0),
    "luma_spread": (_usual, 1),
    "bright_share": (_usual, 2),
    "edge_contrast": (_usual, 1),
    "edge_width": (_usual, 2),
    "edge_axis_width": (_usual, 2),
    "plain_share": (_usual, 2),
    "plain_softness": (_usual, 2),
    "flat_share": (_usual, 2),
    "flat_colours": (_usual, 0),
    "one_level_share": (_usual, 2),
    "lost_channel_share": (_usual, 2),
    "tint": (_usual, 0),
    "colour_shift": (_usual, 2),
    "noise": (_usual, 1),
    "speckle_share": (_usual, 4),
    "tear": (_usual, 2),
    "stuck_share": (_often, 2),
    "block_steps": (_often, 1),
}
"""What is told of the samples: how it is gathered over the look, and to how many digits."""
