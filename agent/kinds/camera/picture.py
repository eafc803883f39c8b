"""One picture -> numbers: light, sharpness, plain surfaces, noise. Sampled a few times a second.

Each function says what it measures, in which unit and why it holds in rooms not seen before. "The
small picture" is the grey one of 320 x 180 points on which all but noise is measured.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.kinds.camera.frames import Grey

Float = NDArray[np.float32]

_TILES = (16, 9)
_FINE, _COARSE = 0.8, 2.0  # points; the two scales between which an edge's width is read
_BRIGHT = 245
_PLAIN_LEVEL, _PLAIN_SHARE = 0.8, 0.012  # grey levels, share of the luma (Weber)
_FLAT_RANGE = 1  # grey levels in a whole tile: rounding of a codec
_PATCH = (32, 32)  # lines, pixels at full size: enough for a standard deviation
_PATCHES = (6, 8)


@dataclass(frozen=True, slots=True)
class Light:
    """How the light is spread. Luma in grey levels, shares of the picture."""

    mean: float
    high: float
    """98th percentile."""
    spread: float
    """From the 2nd to the 98th percentile of tile means: what is left of a scene without noise."""
    bright_share: float


def light(small: Grey) -> Light:
    """Mean, highlights, spread and share at the upper end."""
    histogram = np.bincount(small.ravel(), minlength=256)
    levels = np.arange(256)
    total = small.size
    high = int(np.searchsorted(np.cumsum(histogram), 0.98 * total))
    tiles = cv2.resize(small, (32, 18), interpolation=cv2.INTER_AREA)
    ranked = np.sort(tiles, axis=None)
    low_tile, high_tile = float(ranked[11]), float(ranked[-12])
    return Light(
        mean=float((histogram * levels).sum() / total),
        high=float(high),
        spread=float(high_tile - low_tile),
        bright_share=float(histogram[_BRIGHT:].sum() / total),
    )


@dataclass(frozen=True, slots=True)
class Edges:
    """How wide the sharpest edges are, in points of the small picture; None where none is seen."""

    width: float | None
    axis_width: float | None
    """Of the edges across the direction in which they are widest: a smear has one."""
    contrast: float
    """Grey levels a point of the strongest hundredth of the gradient."""


def edges(small: Grey) -> Edges:
    """Width of edges from the ratio of their slopes at two scales.

    An edge blurred by s has the slope A / sqrt(2 pi (s^2 + k^2)) after a further blur by k, so the
    ratio of two such slopes gives s whatever the contrast A. (Zhuo and Sim, "Defocus map
    estimation from a single image", 2011.) Noise and light cancel out, unlike in the variance of a
    Laplacian. The sharpest fifth counts: a soft background is no fault.
    """
    picture = small.astype(np.float32)
    fine = cv2.GaussianBlur(picture, (7, 7), _FINE)
    coarse = cv2.GaussianBlur(picture, (13, 13), _COARSE)
    inner = np.s_[6:-6, 6:-6]
    slopes = [cv2.Sobel(p, cv2.CV_32F, *xy, scale=1 / 8) for p in (fine, coarse) for xy in _XY]
    fine_x, fine_y, x, y = (s[inner] for s in slopes)
    strength = cv2.magnitude(x, y)
    rank = max(1, strength.size // 100)
    contrast = float(np.partition(strength.ravel(), -rank)[-rank])
    strong = np.flatnonzero(strength > max(1.0, 0.3 * contrast))
    if len(strong) < 80:
        return Edges(None, None, contrast)
    strong = strong[:: len(strong) // _ENOUGH_POINTS + 1]
    fine_x, fine_y, x, y = (s.ravel()[strong] for s in (fine_x, fine_y, x, y))
    ratio = np.maximum((fine_x * fine_x + fine_y * fine_y) / (x * x + y * y), 1.0001)
    width = np.sqrt(np.clip((_COARSE**2 - ratio * _FINE**2) / (ratio - 1), 0, 400))
    across, down = np.abs(x) > 2.414 * np.abs(y), np.abs(y) > 2.414 * np.abs(x)  # tan 67.5 deg
    rising = ~(across | down) & (x * y > 0)
    sharpest = [
        _low_fifth(width[way])
        for way in (across, down, rising, ~(across | down | rising))
        if int(way.sum()) >= _ENOUGH_POINTS // 20
    ]
    return Edges(_low_fifth(width), max(sharpest, default=None), contrast)


def _low_fifth(numbers: Float) -> float:
    rank = len(numbers) // 5
    return float(np.partition(numbers, rank)[rank])


_ENOUGH_POINTS = 4_000
_XY = ((1, 0), (0, 1))


def relief(small: Grey) -> Float:
    """The small picture without its broad light: what makes a surface not plain."""
    picture = small.astype(np.float32)
    result: Float = picture - cv2.blur(picture, (17, 17))
    return result


@dataclass(frozen=True, slots=True)
class Plain:
    """The largest surface without any detail."""

    share: float
    softness: float
    """Detail at its border over detail elsewhere. A hand or cloth on the lens is far out of focus:
    its border fades (below 1). A wall ends at the sharp outline of something (well above 1)."""


def plain(now: Float, before: Float, small: Grey) -> Plain:
    """The largest plain surface of two pictures taken shortly after one another.

    The product of their reliefs keeps what stands in both; noise, which differs, averages out.
    """
    tiles = cv2.resize(now * before, (32, 18), interpolation=cv2.INTER_AREA)
    detail = np.sqrt(np.maximum(tiles, 0))
    luma = cv2.resize(small, (32, 18), interpolation=cv2.INTER_AREA).astype(np.float32)
    empty = (detail < np.maximum(_PLAIN_LEVEL, _PLAIN_SHARE * luma)).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(empty, connectivity=4)
    if count < 2:
        return Plain(0.0, 9.0)
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    inside = (labels == largest).astype(np.uint8)
    grown = cv2.dilate(inside, cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)))
    border, outside = (grown > 0) & (inside == 0), grown == 0
    softness = 0.0
    if border.sum() > 4 and outside.sum() > 10:
        softness = float(np.median(detail[border]) / max(0.1, float(np.median(detail[outside]))))
    return Plain(float(inside.mean()), min(9.0, softness))


@dataclass(frozen=True, slots=True)
class Flat:
    """Surfaces without even noise: drawn by a machine, not seen by a sensor."""

    share: float
    """Of tiles, clipped white ones left out."""
    colours: int
    """Different ones among the flat tiles: colour bars have several."""
    one_level_share: float
    """Share of the picture within one grey level of the most frequent one."""


def flat(small: Grey, colour: NDArray[np.uint8] | None) -> Flat:
    """Exactly flat tiles and their colours (`colour`: coarse blue, green, red sample)."""
    tiles = small.reshape(_TILES[1], 20, _TILES[0], 20).transpose(0, 2, 1, 3).reshape(-1, 400)
    low, high = tiles.min(axis=1), tiles.max(axis=1)
    is_flat = (high - low <= _FLAT_RANGE) & (high < 248)
    histogram = np.bincount(small.ravel(), minlength=256)
    level = np.convolve(histogram, (1, 1, 1), "same").max() / small.size
    if colour is None:
        kinds = (low[is_flat] // 8).astype(np.int64)
    else:
        coarse = cv2.resize(colour, _TILES, interpolation=cv2.INTER_AREA).reshape(-1, 3)
        kinds = (coarse[is_flat] // 24).astype(np.int64) @ (121, 11, 1)
    counts = np.unique(kinds, return_counts=True)[1]
    return Flat(float(is_flat.mean()), int((counts >= 3).sum()), float(level))


def patches(luma: Grey) -> Grey:
    """A grid of small pieces at full size, one below the other: 48 x 32 lines of 32 pixels."""
    height, width = luma.shape
    tall, wide = min(_PATCH[0], height), min(_PATCH[1], width)
    ys = np.linspace(0, height - tall, _PATCHES[0]).astype(int)
    xs = np.linspace(0, width - wide, _PATCHES[1]).astype(int)
    return np.vstack([luma[y : y + tall, x : x + wide] for y in ys for x in xs])


@dataclass(frozen=True, slots=True)
class Grain:
    """What a sensor adds. `noise` in grey levels, None where nothing can be said."""

    noise: float | None
    speckle_share: float


def grain(luma: Grey, before: Grey) -> Grain:
    """Noise: standard deviation of the fine change between two pictures, in the calmest quarter.

    Movement is elsewhere and texture cancels out; what is clipped (below 12, above 243) hides its
    noise and is left out. Speckle: pixels off by more than 25 levels from all their neighbours.
    """
    now, then = patches(luma), patches(before)
    piece = min(_PATCH[0], luma.shape[0])
    change = now.astype(np.float32) - then
    fine = change - cv2.blur(change, (7, 7))
    deviation = fine.reshape(-1, piece * fine.shape[1]).std(axis=1) / np.sqrt(2)
    mean = now.reshape(-1, piece * now.shape[1]).mean(axis=1)
    usable = (mean > 12) & (mean < 243)
    around = np.ones((3, 3), np.uint8)
    around[1, 1] = 0
    above = cv2.subtract(now, cv2.dilate(now, around)) > 25
    below = cv2.subtract(cv2.erode(now, around), now) > 25
    wrong = (above | below).reshape(len(mean), -1).mean(axis=1)
    noise = float(np.quantile(deviation[usable], 0.25)) if usable.sum() >= 8 else None
    return Grain(noise, float(np.median(wrong)))
