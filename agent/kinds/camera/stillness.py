"""What changes from picture to picture: a frozen source, repeated pictures, flickering light.

A still, empty room is not frozen. What tells them apart survives compression: a sensor's noise
makes a codec send something in nearly every picture, if only a few grey levels in a few blocks.
Of a picture that stands still it sends nothing at all, except when it starts over with a key
frame, and then it comes back to what it was.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from agent.kinds.camera.frames import Grey

_QUIET = 1
"""Greatest change of any pixel, in grey levels, that is rounding of a codec. Measured: live
pictures change by 2 and more nearly always, also at low bit rates; stopped ones by 0 or 1."""
_QUIET_SHARE = 0.6
"""Of the pictures of a stop; the rest is key frames and the pictures that refine them."""
_BURST_S = 0.5
"""Longest restlessness that a key frame may cause."""
_KEY_FRAME_S = 0.4
"""Key frames come no faster; pictures that change more often are new ones."""
_SAME_MEAN = 0.1  # mean change in grey levels after which a picture is exactly back
_RESTLESS_S = 2.0
_TILE_MOVED = 2  # grey levels, of the tile that changes most: more than noise does
_TILES = (16, 9)
_TILE_CHANGED = 3  # grey levels, of a tile's mean change between two key frames
_OVERLAY_TILES = 4  # of 144: a clock burnt into a stopped picture
_KEY_FRAME_MEAN = 2.0
_BANDS = 12


class Changes:
    """Follows a stream of pictures; `small` is the grey picture at a fifth or so of its size."""

    def __init__(self) -> None:
        self.unchanged_s = 0.0
        self._luma: Grey | None = None
        self._small: Grey | None = None
        self._last_s = 0.0
        self._times: list[float] = []
        self._largest: list[float] = []
        self._mean: list[float] = []
        self._tile: list[float] = []
        self._bands: list[NDArray[np.float32]] = []
        self._stop = _Stop()

    def add(self, luma: Grey, small: Grey, at_s: float, same: bool) -> bool:
        """Takes the next picture; says whether it differs at all from the one before."""
        largest = mean = tile = 0.0
        if self._luma is None or self._small is None or self._luma.shape != luma.shape:
            self._stop.restart(at_s)
            differs = True
        else:
            largest = 0.0 if same else cv2.norm(luma, self._luma, cv2.NORM_INF)
            differs = largest > 0
            if differs:
                change = cv2.absdiff(small, self._small)
                mean = cv2.mean(change)[0]
                tile = float(cv2.resize(change, _TILES, interpolation=cv2.INTER_AREA).max())
            self._times.append(at_s)
            self._largest.append(largest)
            self._mean.append(mean)
            self._tile.append(tile)
            self._stop.add(small, at_s, quiet=largest <= _QUIET, before_s=self._last_s)
            self.unchanged_s = max(self.unchanged_s, self._stop.lasted_s)
        self._bands.append(_bands(small))
        self._luma, self._small, self._last_s = luma, small, at_s
        return differs

    def stopped_s(self) -> float:
        """How long the picture has stood at the end of the look, if things moved just before.

        Movement ends slowly and noise goes on; both ending at once is a stop.
        """
        lasted = self._stop.lasted_s
        times = np.array(self._times)
        before = times <= self._last_s - lasted
        if lasted <= 0 or int(before.sum()) < 10:
            return 0.0
        recent = before & (times > self._last_s - lasted - _RESTLESS_S)
        quiet = np.array(self._largest)[recent] <= _QUIET
        moved = np.median(np.array(self._tile)[recent]) > _TILE_MOVED
        return lasted if moved and quiet.mean() <= 0.1 else 0.0

    @property
    def before(self) -> Grey | None:
        """The picture before the next one."""
        return self._luma

    def different_share(self) -> float | None:
        """Share of the pictures that are new ones, where the source repeats each several times.

        None where no regular repetition is seen. A new picture stands out from the copies around
        it: by movement, or by any change at all where the copies are exact.
        """
        mean, tile = np.array(self._mean), np.array(self._tile)
        if len(mean) < 12:
            return None
        new = mean >= max(0.3 * float(np.quantile(mean, 0.97)), 0.15)
        at = np.flatnonzero(new)
        if len(at) < 4:
            return None
        padded = np.concatenate([[0.0], mean, [0.0]])
        alone = np.maximum(padded[at], padded[at + 2]) <= 0.3 * mean[at]
        gaps = np.diff(at)
        gap = float(np.median(gaps))
        regular = np.mean(np.abs(gaps - gap) <= max(1.0, 0.2 * gap))
        if alone.mean() < 0.8 or gap < 2 or regular < 0.6:
            return None
        exact = np.mean(np.array(self._largest)[~new] == 0) >= 0.95
        moves = np.median(tile[at]) > _TILE_CHANGED
        return 1 / gap if exact or moves else None

    def flicker_pct(self, fps: float) -> float | None:
        """Amplitude of light that swings faster than 2 Hz, in percent of the mean luma.

        Lamps on 50 Hz mains swing at 100 Hz; with a camera's rate that beats, in bands across the
        picture. Left and right half swing together, which people who move do not.
        """
        count = len(self._bands)
        if count < 20 or fps <= 0:
            return None
        bands = np.array(self._bands)  # time x band x half
        mean = float(bands.mean())
        window = max(3, round(fps / 2)) | 1
        if mean < 10 or count <= 2 * window:
            return None
        sums = np.cumsum(np.concatenate([np.zeros_like(bands[:1]), bands]), axis=0)
        slow = (sums[window:] - sums[:-window]) / window
        fast = bands[window // 2 : window // 2 + len(slow)] - slow
        together = np.median(fast[:, :, 0] * fast[:, :, 1], axis=0)
        return float(100 * np.sqrt(2 * max(0.0, float(np.median(together)))) / mean)


class _Stop:
    """How long the picture has been the same one, key frames and a clock in it aside."""

    def __init__(self) -> None:
        self.lasted_s = 0.0
        self._start_s = 0.0
        self._frames = self._quiet = 0
        self._restless_s: float | None = None
        self._key_s = float("-inf")
        self._small: Grey | None = None

    def restart(self, at_s: float) -> None:
        """Begins a new stop."""
        self._start_s, self._frames, self._quiet = at_s, 0, 0
        self._restless_s = None
        self._small = None

    def add(self, small: Grey, at_s: float, *, quiet: bool, before_s: float) -> None:
        """Takes a picture that is `quiet` when it equals the one before."""
        self._frames += 1
        if not quiet:
            if self._restless_s is None:
                self._restless_s = before_s
            if at_s - self._restless_s > _BURST_S:
                self.restart(at_s)
            return
        if self._restless_s is not None and not self._is_back(small, at_s):
            self.restart(before_s)
        self._restless_s = None
        self._quiet += 1
        self._small = small
        enough = self._quiet >= _QUIET_SHARE * self._frames
        self.lasted_s = at_s - self._start_s if enough else 0.0

    def _is_back(self, small: Grey, at_s: float) -> bool:
        """Whether a restlessness led back to the picture that stood before it."""
        if self._small is None:
            return False
        change = cv2.absdiff(small, self._small)
        tiles = cv2.resize(change, _TILES, interpolation=cv2.INTER_AREA)
        if int((tiles > _TILE_CHANGED).sum()) > _OVERLAY_TILES:
            return False
        mean = cv2.mean(change)[0]
        if mean <= _SAME_MEAN:
            return True
        key = mean <= _KEY_FRAME_MEAN and at_s - self._key_s >= _KEY_FRAME_S
        self._key_s = at_s
        return key


def _bands(small: Grey) -> NDArray[np.float32]:
    """Mean luma of horizontal bands, in the left and in the right half."""
    middle = small.shape[1] // 2
    halves = [
        cv2.reduce(half, 1, cv2.REDUCE_AVG, dtype=cv2.CV_32F)[:, 0]
        for half in (small[:, :middle], small[:, middle:])
    ]
    rows = len(halves[0]) // _BANDS * _BANDS
    each = [h[:rows].reshape(_BANDS, -1).mean(axis=1) for h in halves]
    return np.stack(each, axis=1)
