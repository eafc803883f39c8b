"""Samples -> a few numbers. Needs numpy; only a worker imports this.

`Ear` is fed pieces of sound and keeps only statistics of them: no sample outlives the call after
the one that brought it. What comes out spans the whole look and is rounded to half a decibel, so
that no speech can be rebuilt and no speakers be counted. Levels are AES17 dBFS (see `settings`);
inside, power is the mean square of samples in -1..1.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from agent.kinds.microphone.blocks import TINY, Array, by, faded, falls, lowest_tenth, quantiles
from agent.model import Scalar

Sound = NDArray[np.float32]
"""Shape (frames, channels), full scale is 1."""

AES17_DB = 10 * math.log10(2)
"""What AES17 adds to a plain RMS level: a full-scale sine, mean square 1/2, is 0 dBFS."""
LOWEST_DBFS = -120.0
"""Levels end here: exact zero has no logarithm. Below the noise of any 24-bit converter."""

BLOCK_S = 0.005  # for what happens suddenly
LEVEL_BLOCKS = 4  # 20 ms: for levels, as in speech coding
FRAME_S = 0.05  # one spectrum each, of the power of two nearest to 25 ms: half of it is enough
EDGES_HZ = (250, 500, 1_000, 2_000, 4_000, 8_000)
"""Octaves in which hiss is looked for, and all above: below is the rumble of rooms and fans."""
DECIMATED_HZ = 2_000  # hum is looked for below 500 Hz
HARMONICS = 10
DITHER_STEPS = 1.3
"""RMS of a converter that hears nothing, in its own steps: 0 for zeros or a constant, 0.8 for
plus or minus one step at random."""


def to_sound(raw: bytes, bits: int, channels: int) -> Sound:
    """Little-endian PCM as `Sound`; an incomplete frame at the end is left out. 8 bits are
    unsigned, as in WAV."""
    size = channels * bits // 8
    raw = raw[: len(raw) // size * size]
    if bits == 24:
        wide = np.zeros((len(raw) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(raw, np.uint8).reshape(-1, 3)
        raw = wide.tobytes()
    kind, scale = {8: ("u1", 2**-7), 16: ("<i2", 2**-15)}.get(bits, ("<i4", 2**-31))
    flat = np.multiply(np.frombuffer(raw, kind), np.float32(scale), dtype=np.float32)
    if bits == 8:
        flat -= 1
    sound: Sound = flat.reshape(-1, channels)
    return sound


def dbfs(power: float) -> float:
    """A mean square as AES17 dBFS, never below `LOWEST_DBFS`."""
    return max(LOWEST_DBFS, 10 * math.log10(power) + AES17_DB) if power > 0 else LOWEST_DBFS


class Ear:
    """Statistics of one stream of sound at `rate` Hz, of samples that had `bits` bits."""

    def __init__(self, rate: int, channels: int, bits: int, mains_hz: float = 50.0) -> None:
        self.rate = rate
        self.channels = channels
        self._mains_hz = mains_hz
        self._step = max(2.0 ** (1 - bits), 2.0**-15)
        self._half_block = round(rate * BLOCK_S / 2)
        self._hop = round(rate * FRAME_S)
        self._fft = 1 << round(math.log2(rate * 0.025))
        self._window = _hann(self._fft)
        bins = np.fft.rfftfreq(self._fft, 1 / rate)
        edges = {int(np.searchsorted(bins, hz)) for hz in (*EDGES_HZ, rate)}
        self._edges = sorted(edges)  # at a low rate the upper octaves are not there
        self._factor = max(1, rate // DECIMATED_HZ)
        self._second = _hann(rate // self._factor)
        self._frames = 0
        self._blocks = 0
        self._peak = 0.0
        self._flat = np.zeros(channels)  # samples that were cut flat, and out of how many
        self._whole = 0
        self._holes = np.zeros(channels, np.int64)
        self._broke_at = -1_000  # block in which sound last stopped within a millisecond
        self._spectrum = np.zeros((channels, len(bins)), np.float32)
        # One array a piece, shape (channels, blocks): power, power without offset, peak.
        self._power: list[Array] = []
        self._moving: list[Array] = []
        self._peaks: list[Array] = []
        self._octaves: list[Array] = []  # (channels, frames, octaves): power
        self._lines: list[Array] = []  # (channels, seconds, harmonics, 2): line, noise in it

    def hear(self, sound: Sound) -> None:
        """Take in a piece, best of some seconds: nothing is looked for across two of them."""
        frames = len(sound)
        blocks = frames // (2 * self._half_block)
        if not blocks:
            return
        raw = np.ascontiguousarray(sound.T)
        offset = raw.mean(axis=1, keepdims=True)
        self._hear_blocks(raw, offset, blocks)
        raw -= offset
        self._hear_octaves(raw)
        if frames >= self.rate:
            seconds = raw[:, : frames // self.rate * self.rate]
            seconds = seconds.reshape(self.channels, -1, self.rate)
            self._hear_hum(seconds)
        else:
            seconds = raw[:, None, :]
        self._hear_clipping(seconds)
        self._frames += frames
        self._blocks += blocks

    def _hear_blocks(self, raw: Array, offset: Array, blocks: int) -> None:
        size = 2 * self._half_block
        halves = raw[:, : blocks * size].reshape(self.channels, 2 * blocks, self._half_block)
        top, bottom = halves.max(axis=2), halves.min(axis=2)
        self._peak = max(self._peak, float(top.max()), -float(bottom.min()))
        peaks = np.maximum(top - offset, offset - bottom)
        self._peaks.append(np.maximum(peaks[:, ::2], peaks[:, 1::2]))
        whole = halves.reshape(self.channels, blocks, size) - offset[:, :, None]
        power = np.einsum("ijk,ijk->ij", whole, whole) / size
        mean = whole @ np.full(size, 1 / size, np.float32)
        self._power.append(power)
        self._moving.append(np.maximum(power - mean * mean, 0))
        still = top - bottom <= 2.02 * self._step
        for channel in np.flatnonzero(still.any(axis=1)):
            self._hear_holes(raw[channel], int(channel), still[channel])

    def _hear_holes(self, sound: Array, channel: int, still: NDArray[np.bool_]) -> None:
        """Finds stretches of 3.5 ms or more without any input that begin abruptly: what was there
        a moment before is still loud in the last millisecond. A noise suppressor fades, over 5 ms
        at least. A hole in a mere noise floor is not missed, so it does not count."""
        ms, half = self.rate / 1000, self._half_block
        edges = np.flatnonzero(np.diff(still, prepend=False, append=False))
        for first, end in zip(edges[::2] * half, edges[1::2] * half, strict=True):
            level = float(sound[first:end].mean())  # zero or an offset, but no flat top
            if first < 10 * ms or abs(level) > 0.25 * self._peak:
                continue
            # Around the blocks that are still, to the sample.
            moves = np.abs(sound[first - half : first] - level) > 1.01 * self._step
            start = first - int(moves[::-1].argmax()) if moves.any() else first - half
            moves = np.abs(sound[end : end + half] - level) > 1.01 * self._step
            stop = end + (int(moves.argmax()) if moves.any() else half)
            if stop - start < 3.5 * ms:
                continue
            before = np.abs(sound[start - round(6 * ms) : start] - level)
            last, earlier = before[-round(ms) :].max(), before[: -round(2 * ms)].max()
            if last >= max(4 * self._step, 0.2 * earlier):
                self._broke_at = self._blocks + int(start) // (2 * half)
                self._holes[channel] += last >= _MISSED

    def _hear_octaves(self, sound: Array) -> None:
        frames = sound.shape[1] // self._hop
        if not frames:
            return
        cut = sound[:, : frames * self._hop].reshape(self.channels, frames, self._hop)
        wave = np.fft.rfft(cut[:, :, : self._fft] * self._window)
        power = wave.real**2 + wave.imag**2
        power *= 2 / (self._fft * float((self._window**2).sum()))
        self._spectrum += power.sum(axis=1)
        self._octaves.append(np.add.reduceat(power, self._edges[:-1], axis=2))

    def _hear_hum(self, seconds: Array) -> None:
        """The power at each harmonic of the mains, and that of the noise around it.

        One second of sound resolves 1 Hz: mains within 0.2 Hz stays in the middle bins up to the
        tenth harmonic, a voice at the same pitch does not keep still for so long.
        """
        count, factor = len(self._second), self._factor
        slow = seconds[:, :, : count * factor].reshape(self.channels, -1, count, factor)
        slow = slow @ np.full(factor, 1 / factor, np.float32)
        wave = np.fft.rfft(slow * self._second)
        power = wave.real**2 + wave.imag**2
        power *= 2 / (count * float((self._second**2).sum()))
        per_hz = count * factor / self.rate
        lines = np.zeros((*power.shape[:2], HARMONICS, 2), np.float32)
        for harmonic in range(HARMONICS):
            middle = round((harmonic + 1) * self._mains_hz * per_hz)
            near = 1 if harmonic < 4 else 2
            wide = 2 * near + 1
            line = power[:, :, middle - near : middle + near + 1].sum(axis=2)
            around = power[:, :, middle - 14 : middle + 15].sum(axis=2) - line
            lines[:, :, harmonic, 0], lines[:, :, harmonic, 1] = line, around * wide / (29 - wide)
        self._lines.append(lines)

    def _hear_clipping(self, seconds: Array) -> None:
        """Counts samples that pile up at the top or the bottom, at full scale or below it.

        A wave that was cut has far more samples in its last 0.2 % than in the 0.2 % below, a sine
        (the flattest thing that is whole) 2.4 times as many, speech about as many.
        """
        self._whole += seconds.shape[1] * seconds.shape[2]
        tops, bottoms = seconds.max(axis=2), -seconds.min(axis=2)
        for channel, second in np.ndindex(seconds.shape[:2]):
            sound = seconds[channel, second]
            for top, sign, beyond in ((tops, 1, np.greater_equal), (bottoms, -1, np.less_equal)):
                peak = float(top[channel, second])
                if peak < 0.01:  # -40 dBFS: nothing clips there, and steps are coarse
                    continue
                near = max(1.01 * self._step, 0.002 * peak)
                last = int(np.count_nonzero(beyond(sound, sign * (peak - near))))
                if last > 8:
                    before = int(np.count_nonzero(beyond(sound, sign * (peak - 2 * near)))) - last
                    self._flat[channel] += max(0, last - 4 * before)

    def values(self) -> dict[str, Scalar]:
        """What was heard, rounded; empty where it was too short to say anything.

        `level_dbfs`, `peak_dbfs`   of the loudest channel, over all that was heard
        `floor_dbfs`                the quietest tenth of it, in blocks of 20 ms
        `speech_dbfs`               the louder part, where somebody speaks (else absent)
        `hiss_dbfs`, `snr_db`       steady noise above 250 Hz; what stands out above it
        `hum_dbfs`                  lines at the mains frequency and its harmonics
        `clip_pct`                  samples that were cut flat
        `breaks`                    times that the sound broke off abruptly and came back
        `dead_pct`, `dead_tail_s`   share without any input; how long it has been so at the end
        `broke_off`                 whether that began abruptly
        `dead_channels`             channels without input beside one that has it
        """
        if not self._power:
            return {}
        power, moving = np.concatenate(self._power, axis=1), np.concatenate(self._moving, axis=1)
        levels = power.mean(axis=1)
        loudest = int(levels.argmax())
        blocks = by(power[loudest], LEVEL_BLOCKS)
        if not len(blocks):
            return {}
        values: dict[str, Scalar] = {
            "heard_s": round(self._frames / self.rate, 1),
            "rate_hz": self.rate,
            "channels": self.channels,
            "level_dbfs": _half(dbfs(float(levels[loudest]))),
            "peak_dbfs": _half(dbfs(self._peak**2 / 2)),
            "floor_dbfs": _half(dbfs(float(quantiles(blocks, 0.1)[0]))),
            "clip_pct": round(100 * float(self._flat.max()) / self._whole, 2),
        }
        values |= self._dead(moving, levels)
        values |= self._breaks(power)
        values |= self._noise_and_speech(loudest, blocks)
        values |= self._hum(loudest)
        return values

    def _dead(self, moving: Array, levels: Array) -> dict[str, Scalar]:
        """Where no channel has any input, and channels that have none beside one that has."""
        blocks = np.stack([by(channel, LEVEL_BLOCKS) for channel in moving])
        nothing = (DITHER_STEPS * self._step) ** 2
        dead = blocks <= nothing
        everywhere: NDArray[np.bool_] = dead.min(axis=0)
        tail = len(everywhere) if everywhere.all() else int((~everywhere)[::-1].argmax())
        values: dict[str, Scalar] = {"dead_pct": round(100 * float(everywhere.mean()), 1)}
        if 0 < tail < len(everywhere):
            start = (len(everywhere) - tail) * LEVEL_BLOCKS
            values["dead_tail_s"] = round(tail * LEVEL_BLOCKS * BLOCK_S, 1)
            abrupt = abs(self._broke_at - start) <= 2 * LEVEL_BLOCKS
            if tail * LEVEL_BLOCKS * BLOCK_S >= _LONG_S:
                abrupt |= not faded(moving[int(levels.argmax())], nothing)
            values["broke_off"] = bool(abrupt)
        if self.channels > 1:
            level_db = 10 * np.log10(levels + TINY)
            below = level_db.max() - level_db
            gone = (dead.mean(axis=1) >= _ALL) & (dead.mean(axis=1).min() < _ALL)
            gone |= (level_db < _NO_ROOM_DB) & (below >= 12)
            gone |= below >= 40
            values["dead_channels"] = int(gone.sum())
        return values

    def _breaks(self, power: Array) -> dict[str, Scalar]:
        """The worst channel's count of holes, in whichever way they show: exact silence that
        begins within a millisecond; sound that falls to nothing within 10 ms; sound that falls by
        25 dB within 10 ms with a click, as a loose contact does."""
        peaks = np.concatenate(self._peaks, axis=1)
        counts = [
            max(int(holes), falls(level, peak, (DITHER_STEPS * self._step) ** 2))
            for holes, level, peak in zip(self._holes, power, peaks, strict=True)
        ]
        return {"breaks": max(counts)}

    def _noise_and_speech(self, channel: int, blocks: Array) -> dict[str, Scalar]:
        if not self._octaves:
            return {}
        octaves = np.concatenate(self._octaves, axis=1)[channel]
        octaves = octaves[octaves.sum(axis=1) > (DITHER_STEPS * self._step) ** 2]
        if len(octaves) < _FEWEST:
            return {}
        low, middle = (level + TINY for level in quantiles(octaves, 0.1, 0.5))
        widths = np.diff(self._edges)
        steady = middle / low < _STEADY / lowest_tenth(widths)
        for number, (first, end) in enumerate(pairwise(self._edges)):
            bins = np.sort(self._spectrum[channel, first:end])
            if bins[-3:].sum() > _TONE * bins.sum():  # a tone is steady, but it is not hiss
                steady[number] = False
        hiss = float(middle[steady].sum())
        floor = float((low / lowest_tenth(widths)).sum())
        total = octaves.sum(axis=1)
        loud = float(quantiles(total, 0.9)[0])
        values: dict[str, Scalar] = {}
        if hiss > TINY * len(widths):
            values["hiss_dbfs"] = _half(dbfs(hiss))
            stands_out_db = 10 * math.log10((loud + TINY) / hiss)
            if stands_out_db >= _MODULATED_DB:
                values["snr_db"] = _half(stands_out_db)
        talking = float((total > floor * 10**0.8).mean())
        if loud > 10 * floor and talking >= _TALKING:
            # As an active speech level (ITU-T P.56): what is within 15.9 dB of the loud parts.
            active = blocks[blocks >= quantiles(blocks, 0.95)[0] * 10**-1.59]
            values["speech_dbfs"] = _half(dbfs(float(active.mean())))
        return values

    def _hum(self, channel: int) -> dict[str, Scalar]:
        """Lines that stand out of the noise around them in nearly all seconds, added up."""
        if not self._lines:
            return {}
        lines = np.concatenate(self._lines, axis=1)[channel]
        (stands_out,) = quantiles(lines[:, :, 0] / (lines[:, :, 1] + TINY), 0.25)
        (line,) = quantiles(lines[:, :, 0] - lines[:, :, 1], 0.25)
        hum = np.where(stands_out > _LINE, line, 0.0)
        total = float(hum.sum())
        # A tone that happens to be a high harmonic is not hum.
        if total <= TINY or hum[:3].sum() < 0.05 * total:
            return {}
        return {"hum_dbfs": _half(dbfs(total))}


_ALL = 0.97  # of the blocks: one that differs is a click
_NO_ROOM_DB = -74.0  # plain dB: an input without a microphone; rooms are louder
_MISSED = 0.001  # -60 dBFS
_LONG_S = 2.0  # no input for so long at the end: then any end that is no fade is a break
_STEADY = 1.41  # +1.5 dB beyond what noise of that bandwidth does by itself
_TONE = 0.6  # of an octave's power in its three highest bins
_LINE = 6.0  # +8 dB
_MODULATED_DB = 3.0
_TALKING = 0.15
_FEWEST = 10  # spectra (0.5 s) from which to tell noise from speech


def _hann(size: int) -> Array:
    return np.hanning(size + 1)[:-1].astype(np.float32)


def _half(value: float) -> float:
    """Half decibels are fine enough to judge by, and too coarse to carry a voice."""
    return round(value * 2) / 2
