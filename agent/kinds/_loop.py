"""A chirp, and how it is found again in what a microphone heard. Needs numpy; pure.

The chirp is a linear sweep through the band of speech. Correlation with it gathers its energy in
one point: the sweep of 0.5 s over 3 kHz is found some 30 dB below the noise of the room, so it may
be played quietly. What comes out is gain, delay and the strongest late copy; no sample does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

LOW_HZ, HIGH_HZ = 300.0, 3_300.0
CHIRP_S = 0.5
_EDGE_S = 0.03  # faded in and out, so that it does not click
_ROOM_S = 0.06  # what comes later is no reflection of an ordinary room, but another device
_LATE_S = 1.0
FOUND_DB = 20.0
"""Peak of the correlation over its background (RMS). The highest of 50,000 values of noise lies
13 dB above their RMS, and once in 10^9 looks 17 dB."""


@dataclass(frozen=True, slots=True)
class Found:
    """What became of a chirp. `found` is False where it is not in the sound; then only `peak_db`
    says something.

    `gain_db` is the level heard over the level played, `delay_ms` from the first sample recorded
    that could hold it, `echo_db` the strongest copy 60 ms or more later, over the first one, None
    where there is none above the background, and `echo_ms` how much later.
    """

    found: bool
    peak_db: float
    gain_db: float = 0.0
    delay_ms: float = 0.0
    echo_db: float | None = None
    echo_ms: float | None = None


def chirp(rate: int, level_dbfs: float) -> Array:
    """The sweep at `rate` Hz with an AES17 level (a sine of that level), in -1..1."""
    time = np.arange(round(rate * CHIRP_S)) / rate
    slope = (HIGH_HZ - LOW_HZ) / CHIRP_S
    wave = np.sin(2 * np.pi * (LOW_HZ + slope / 2 * time) * time)
    edge = round(rate * _EDGE_S)
    fade = np.sin(np.linspace(0, np.pi / 2, edge)) ** 2
    wave[:edge] *= fade
    wave[-edge:] *= fade[::-1]
    return np.asarray(wave * 10 ** (level_dbfs / 20), np.float32)


def find(sound: Array, rate: int, level_dbfs: float) -> Found:
    """Look for a chirp that was played at `level_dbfs` in `sound`, shape (frames,)."""
    reference = chirp(rate, level_dbfs).astype(np.float64)
    if len(sound) <= len(reference):
        return Found(False, 0.0)
    size = 1 << (len(sound) + len(reference) - 1).bit_length()
    bins = np.arange(size // 2 + 1) * rate / size
    spectrum = np.fft.rfft(sound - sound.mean(), size) * np.fft.rfft(reference, size).conj()
    spectrum[(bins < LOW_HZ) | (bins > HIGH_HZ)] = 0  # hum and rumble are not its band
    # The envelope: the one-sided spectrum gives the analytic signal.
    whole = np.zeros(size, np.complex128)
    whole[: size // 2 + 1] = 2 * spectrum
    match = np.abs(np.fft.ifft(whole))[: len(sound) - len(reference) + 1]
    match /= float((reference**2).sum())
    at = int(match.argmax())
    peak = float(match[at])
    room, late = round(rate * _ROOM_S), round(rate * _LATE_S)
    away = np.concatenate((match[: max(0, at - room)], match[at + late :]))
    if len(away) < rate // 20:  # too little without it: then the quieter half of what there is
        away = np.sort(match)[: len(match) // 2] * 1.5
    background = float(np.sqrt((away**2).mean()))
    if peak <= 0:
        return Found(False, 0.0)
    peak_db = 20 * math.log10(peak / max(background, peak * 1e-5))
    if peak_db < FOUND_DB:
        return Found(False, peak_db)
    found = Found(True, peak_db, 20 * math.log10(peak), 1000 * at / rate)
    after = match[at + room : at + late]
    if len(after) and float(after.max()) > background * 10 ** (FOUND_DB / 20):
        place = int(after.argmax())
        echo_db = 20 * math.log10(float(after[place]) / peak)
        found = Found(
            True, peak_db, found.gain_db, found.delay_ms, echo_db, 1000 * (place + room) / rate
        )
    return found


def from_pcm(raw: bytes, channels: int) -> Array:
    """S16_LE as float32 in -1..1, shape (channels, frames)."""
    raw = raw[: len(raw) // (2 * channels) * 2 * channels]
    flat = np.frombuffer(raw, "<i2").astype(np.float32) / 32_768
    return np.ascontiguousarray(flat.reshape(-1, channels).T)
