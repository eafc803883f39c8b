"""Damaged data in one picture: lost colour planes, torn, cut, smeared or blocky parts.

Each test looks for something that a lens and a sensor cannot make.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.kinds.camera.frames import Colour, Grey

_GRID = 16  # pixels of a macroblock of MPEG-4, H.264 and of a JPEG with halved colour
_STEP = 40  # grey levels between two neighbouring pixels, flat on both sides
_DIFFERENCE_STEP = 32
_STUCK_CHANGE, _STUCK_DRIFT = 0.4, 1.5  # mean grey levels, from line to line and over the run
_STUCK_LINES = 18  # a tenth of the small picture; shorter runs are not looked at
_ROW_POINTS, _GAP = 160, 3  # points across, lines between two that are compared
_SHIFTS = (3, 80)  # points of 160 by which torn parts are looked for
_TORN_ENERGY, _TORN_EDGES = 6.0, 6


def stuck_share(small: Grey) -> float:
    """Share of lines in the longest run of equal lines, black and white ones left out.

    A JPEG that is cut short ends in one colour, a lost slice repeats the line above it. A wall or
    a cover changes slowly from line to line, and that adds up.
    """
    lines = small.astype(np.int16)
    calm = np.abs(np.diff(lines, axis=0)).mean(axis=1) <= _STUCK_CHANGE
    ahead = np.abs(lines[_STUCK_LINES:] - lines[:-_STUCK_LINES]).mean(axis=1)
    luma = lines.mean(axis=1)
    count = np.concatenate([[0], np.cumsum(calm)])
    all_calm = count[_STUCK_LINES:] - count[:-_STUCK_LINES] == _STUCK_LINES
    seen = (luma > 20) & (luma < 245)
    equal = all_calm & (ahead <= _STUCK_DRIFT) & seen[:-_STUCK_LINES] & seen[_STUCK_LINES:]
    longest = _longest_run(equal)
    return (longest + _STUCK_LINES) / len(lines) if longest else 0.0


def _longest_run(flags: NDArray[np.bool_]) -> int:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return int((edges[1::2] - edges[::2]).max()) if len(edges) else 0


def block_steps(picture: Grey) -> float:
    """Sharp steps on the 16-pixel grid in both directions, in thousandths of its length.

    Only steps one pixel wide count, which optics cannot make, and only their excess over the same
    off the grid and at half of it (where coarse JPEG blocks end as often).
    """
    return min(_excess(lines, _STEP) for lines in _crossings(picture))


def new_block_steps(picture: Grey, before: Grey) -> float:
    """The same in the change since the picture before: lost blocks that come up."""
    pairs = zip(_crossings(picture), _crossings(before), strict=True)
    return min(_excess(cv2.absdiff(now, then), _DIFFERENCE_STEP) for now, then in pairs)


def _crossings(picture: Grey) -> tuple[Grey, Grey]:
    """Every eighth line, and every eighth column laid down as a line."""
    return picture[::8], np.ascontiguousarray(picture[:, ::8].T)


def _excess(lines: Grey, step: int) -> float:
    jumps = cv2.absdiff(lines[:, 1:], lines[:, :-1])
    jump, side = jumps[:, 1:-1], cv2.max(jumps[:, :-2], jumps[:, 2:])
    lone = (jump > step) & (side <= jump // 4)
    place = (np.arange(lone.shape[1]) + 2) % _GRID
    found = np.bincount(place, lone.sum(axis=0), _GRID)
    steps = 1_000 * found / np.maximum(1, np.bincount(place, minlength=_GRID)) / len(lines)
    off_grid = max(float(np.delete(steps, 0).max()), 0.0)
    excess = float(steps[0]) - off_grid
    return excess if excess > steps[0] / 2 else 0.0


def tear(luma: Grey) -> float:
    """0..1: how well two neighbouring parts match after a sideways shift, but not without it.

    Neighbouring lines of a scene look alike in place (correlation of their slopes near 1); at the
    outline of a thing they look alike nowhere. Alike elsewhere means that a part was displaced.
    """
    points = cv2.resize(luma, (_ROW_POINTS, luma.shape[0]), interpolation=cv2.INTER_LINEAR)
    slopes = cv2.Sobel(points, cv2.CV_32F, 1, 0, ksize=1)
    energy = cv2.reduce(cv2.multiply(slopes, slopes), 1, cv2.REDUCE_SUM)[:, 0]
    above, below = slopes[:-_GAP], slopes[_GAP:]
    energy_a, energy_b = energy[:-_GAP], energy[_GAP:]
    product = cv2.reduce(cv2.multiply(above, below), 1, cv2.REDUCE_SUM)[:, 0]
    in_place = product / np.sqrt(energy_a * energy_b + 1e-6)
    weak = np.minimum(energy_a, energy_b) < _TORN_ENERGY**2 * slopes.shape[1]
    in_place[weak] = 2.0
    best, tried = 0.0, 0
    seen = np.zeros(len(in_place), bool)
    for row in np.argsort(in_place):
        if in_place[row] > 0.25 or tried == 3:
            break
        if not seen[row]:
            seen[max(0, row - 8) : row + 8] = True
            tried += 1
            best = max(best, _shifted_match(above[row], below[row]))
    return best


def _shifted_match(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Best correlation of two lines over the shifts, 0 for lines with too few edges to tell."""
    length = len(a)
    if min(_edge_count(a), _edge_count(b)) < _TORN_EDGES:
        return 0.0
    product = np.fft.irfft(np.fft.rfft(a, 512).conj() * np.fft.rfft(b, 512), 512)
    sum_a, sum_b = (np.concatenate([[0.0], np.cumsum(v * v)]) for v in (a, b))
    best = 0.0
    shift = np.arange(*_SHIFTS)
    for value, left, right in (
        (product[shift], sum_a[length - shift], sum_b[length] - sum_b[shift]),
        (product[-shift], sum_a[length] - sum_a[shift], sum_b[length - shift]),
    ):
        enough = (left > 0.4 * sum_a[length]) & (right > 0.4 * sum_b[length])
        match = np.where(enough, value / np.sqrt(left * right + 1e-6), 0.0)
        best = max(best, float(match.max()))
    return best


def _edge_count(line: NDArray[np.float32]) -> float:
    """How many points share the energy of a line (inverse participation ratio)."""
    share = line * line
    share = share / max(float(share.sum()), 1e-6)
    return float(1 / max(float((share * share).sum()), 1e-6))


_LUMA = np.array([0.114, 0.587, 0.299], np.float32)  # of blue, green, red (BT.601)


def lost_channel_share(colour: Colour) -> float:
    """Share of the not dark points in which the same one of blue, green, red is missing.

    Colour planes that are all zero give green without blue and red, planes at their upper end give
    purple without green. No lamp does that to a whole room.
    """
    points = colour.reshape(-1, 3).astype(np.float32)
    visible = points[points @ _LUMA > 30]
    if len(visible) < 100:
        return 0.0
    return float((visible <= 12).mean(axis=0).max())


def tint(colour: Colour) -> float:
    """Colour difference (Cr, Cb; 0..180) that all but the greyest twentieth of the points have."""
    planes = cv2.cvtColor(colour, cv2.COLOR_BGR2YCrCb).astype(np.float32) - 128
    return float(np.quantile(np.hypot(planes[..., 1], planes[..., 2]), 0.05))


def colour_shift(colour: Colour) -> float:
    """How much better the outlines of colour and of light match when moved, -1..1.

    In a scene they lie on each other; planes that were displaced match elsewhere. 0 for a picture
    with too little colour.
    """
    planes = cv2.cvtColor(colour, cv2.COLOR_BGR2YCrCb).astype(np.float32)
    luma = _outline(planes[..., 0])
    chroma = _outline(planes[..., 1]) + _outline(planes[..., 2])
    if chroma.mean() < 8:
        return 0.0
    luma, chroma = (np.minimum(p, np.quantile(p, 0.97)) for p in (luma, chroma))
    luma, chroma = luma - luma.mean(), chroma - chroma.mean()
    match = np.fft.irfft2(np.fft.rfft2(luma).conj() * np.fft.rfft2(chroma), s=luma.shape)
    match /= np.linalg.norm(luma) * np.linalg.norm(chroma) + 1e-6
    match = np.roll(match, (2, 2), axis=(0, 1))  # no shift is now at 2, 2
    in_place = float(match[1:4, 1:4].max())
    match[:5, :5] = -1
    return float(match.max()) - in_place


def _outline(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    x, y = (cv2.Sobel(plane, cv2.CV_32F, *xy) for xy in ((1, 0), (0, 1)))
    return np.asarray(cv2.magnitude(x, y), np.float32)
