"""Statistics over blocks of sound: power and peak of 5 ms each. Needs numpy; pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

TINY = 1e-12
"""Added to powers before a logarithm: -120 dB."""


def quantiles(values: Array, *shares: float) -> list[Array]:
    """Quantiles along the first axis, between neighbours. numpy's own takes twenty times as
    long for so few values."""
    values = np.sort(values, axis=0)
    found = []
    for share in shares:
        place = share * (len(values) - 1)
        low, part = int(place), np.float32(place % 1)
        found.append(values[low] * (1 - part) + values[min(low + 1, len(values) - 1)] * part)
    return found


def by(blocks: Array, count: int) -> Array:
    """Means of `count` blocks each."""
    whole = len(blocks) // count * count
    means: Array = blocks[:whole].reshape(-1, count).mean(axis=1)
    return means


def lowest_tenth(bins: NDArray[np.int64]) -> NDArray[np.float64]:
    """How far the lowest tenth of the power of noise lies below its mean, as a ratio, in a band
    of so many bins: chi-square with 2 degrees of freedom for each independent bin (a Hann window
    leaves 1 in 1.5), by the approximation of Wilson and Hilferty."""
    freedom = 2 * np.maximum(bins / 1.5, 1.0)
    spread = 2 / (9 * freedom)
    ratio: NDArray[np.float64] = np.maximum(1 - spread - 1.2816 * np.sqrt(spread), 0.4) ** 3
    return ratio


def faded(power: Array, nothing: float) -> bool:
    """Whether the last 60 ms before the end of sound went down through levels well between its
    quietest tenth and nothing, as a noise suppressor does and a broken line does not."""
    live = power[: len(power) - int((power > nothing)[::-1].argmax())]
    (floor,) = quantiles(live[live > nothing], 0.1)
    return int(np.count_nonzero(live[-12:] < floor / 4)) > 1


def falls(power: Array, peaks: Array, dead: float) -> int:
    """Abrupt ends of sound in blocks of 5 ms: falls to nothing, or falls with a click, whichever
    are more. A voice falls as fast now and then, but to the noise of the room and silently."""
    if len(power) < 12:
        return 0
    level = 10 * np.log10(power + TINY)
    nothing = power <= dead
    to_nothing = np.maximum(level[:-4], level[1:-3]) >= -48
    to_nothing &= nothing[3:-1] & nothing[4:] & ~nothing[:-4]
    before = np.minimum(level[:-5], level[1:-4])
    after = np.maximum(np.maximum(level[3:-2], level[4:-1]), level[5:])
    clicks = 0
    for start in firsts(before - after >= 25):
        if peaks[start + 1 : start + 4].max() >= 2.5 * peaks[max(0, start - 6) : start + 1].max():
            clicks += 1
    return max(len(firsts(to_nothing)), clicks)


def firsts(flags: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Where each group of flags begins; gaps of up to two blocks do not part a group."""
    places = np.flatnonzero(flags)
    return places[np.diff(places, prepend=-9) > 3]
