"""A view's fingerprint: 64 numbers of 0..15 that a moved camera changes, and no picture comes from.

4 x 4 cells, and in each the share of the outlines that run in four directions: where a table ends
and a door stands, not what is on it. Position inside a cell, contrast, light and colour are gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

_CELLS = 4
_DIRECTIONS = 4
SIZE = _CELLS * _CELLS * _DIRECTIONS


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """64 integers of 0..15, cell by cell from the top left."""

    values: tuple[int, ...]

    @classmethod
    def of(cls, view: NDArray[np.float32]) -> Fingerprint:
        """The fingerprint of a grey view, best the average of several pictures."""
        soft = cv2.GaussianBlur(view, (0, 0), 1.5)
        x, y = (cv2.Sobel(soft, cv2.CV_32F, *xy) for xy in ((1, 0), (0, 1)))
        strength = cv2.magnitude(x, y)
        strength = np.minimum(strength, np.quantile(strength, 0.95))
        direction = np.round(np.arctan2(y, x) / (np.pi / _DIRECTIONS)).astype(int) % _DIRECTIONS
        height, width = strength.shape
        cell = (np.arange(height) * _CELLS // height)[:, None] * _CELLS
        cell = cell + (np.arange(width) * _CELLS // width)[None, :]
        sums = np.bincount(
            (cell * _DIRECTIONS + direction).ravel(), strength.ravel(), minlength=SIZE
        )
        usual = sums.mean() + 1e-6
        # Twice the usual amount is the end of the scale.
        return cls(tuple(int(v) for v in np.clip(np.round(7.5 * sums / usual), 0, 15)))

    def distance(self, other: Sequence[int]) -> float:
        """0 for the same view, about 1 for views that have nothing in common.

        The median over the cells, so that people who came into half of the view do not count.
        """
        mine = np.array(self.values, float).reshape(-1, _DIRECTIONS)
        theirs = np.array(other, float).reshape(-1, _DIRECTIONS)
        apart = np.abs(mine - theirs).sum(axis=1)
        return float(np.median(apart / np.maximum(8.0, mine.sum(axis=1) + theirs.sum(axis=1)) * 2))
