"""Samples -> a few numbers. Needs numpy; only a worker imports this.

`Ear` is fed pieces of sound and keeps only statistics of them: no sample outlives the call that
brought it, and what comes out is rounded and spans the whole look, so that no speech can be
rebuilt and no speakers be counted. Levels are AES17 dBFS (see `settings`).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from agent.model import Scalar

Sound = NDArray[np.float32]
"""Shape (frames, channels), full scale is 1."""

AES17_DB = 20 * math.log10(math.sqrt(2))
"""What AES17 adds to a plain RMS level: a full-scale sine, RMS 0.707, is 0 dBFS."""
LOWEST_DBFS = -120.0
"""Levels end here: exact zero has no logarithm. Below the noise of any 24-bit converter."""
BLOCK_S = 0.02


def to_sound(raw: bytes, bits: int, channels: int) -> Sound:
    """Little-endian PCM as `Sound`; an incomplete frame at the end is left out. 8 bits are
    unsigned, as in WAV."""
    size = channels * bits // 8
    raw = raw[: len(raw) // size * size]
    if bits == 8:
        flat = (np.frombuffer(raw, np.uint8).astype(np.float32) - 128) / 128
    elif bits == 16:
        flat = np.frombuffer(raw, "<i2").astype(np.float32) / 32_768
    elif bits == 24:
        wide = np.zeros((len(raw) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(raw, np.uint8).reshape(-1, 3)
        flat = wide.view("<i4")[:, 0].astype(np.float32) / 2_147_483_648
    else:
        flat = np.frombuffer(raw, "<i4").astype(np.float32) / 2_147_483_648
    return flat.astype(np.float32).reshape(-1, channels)


def dbfs(rms: float) -> float:
    """An RMS of samples in -1..1 as AES17 dBFS, never below `LOWEST_DBFS`."""
    return max(LOWEST_DBFS, 20 * math.log10(rms) + AES17_DB) if rms > 0 else LOWEST_DBFS


class Ear:
    """Statistics of one stream of sound at `rate` Hz with `channels` channels."""

    def __init__(self, rate: int, channels: int, bits: int) -> None:
        self.rate = rate
        self.channels = channels
        self._block = max(1, round(rate * BLOCK_S))
        self._frames = 0
        self._peak = 0.0
        self._blocks: list[NDArray[np.float32]] = []  # mean square per 20 ms, (n, channels)

    def hear(self, sound: Sound) -> None:
        """Take in a piece, best about one second of it."""
        count = len(sound) // self._block
        if not count:
            return
        self._frames += len(sound)
        part = sound[: count * self._block]
        part = part - part.mean(axis=0)
        self._peak = max(self._peak, float(np.abs(sound).max()))
        blocks = part.reshape(count, self._block, self.channels)
        mean = blocks.mean(axis=1)
        self._blocks.append(np.einsum("ijk,ijk->ik", blocks, blocks) / self._block - mean**2)

    def cut(self) -> None:
        """What comes next does not follow on what came before."""

    def values(self) -> dict[str, Scalar]:
        """What was heard, rounded; empty where it was too short to say anything."""
        if not self._blocks:
            return {}
        power = np.maximum(np.concatenate(self._blocks), 0.0)
        level = np.sqrt(power.mean(axis=0))
        loudest = int(level.argmax())
        rms = np.sqrt(np.sort(power[:, loudest]))
        return {
            "heard_s": round(self._frames / self.rate, 1),
            "rate_hz": self.rate,
            "channels": self.channels,
            "level_dbfs": _tenth(dbfs(float(level[loudest]))),
            "speech_dbfs": _tenth(dbfs(float(rms[int(len(rms) * 0.9)]))),
            "floor_dbfs": _tenth(dbfs(float(rms[int(len(rms) * 0.1)]))),
            "peak_dbfs": _tenth(dbfs(self._peak) - AES17_DB),
        }


def _tenth(value: float) -> float:
    """Half decibels are fine enough to judge by, and too coarse to carry a voice."""
    return round(value * 2) / 2
