"""The settings of a microphone: which one, and the limits that `judge` uses.

Levels are in dBFS as defined in AES17: the RMS of a full-scale sine is 0 dBFS, so a level here
is 3.01 dB higher than 20*log10 of the RMS of samples in -1..1. Peaks are 20*log10 of the largest
absolute sample (the same sine peaks at 0 dBFS).

Where the limits come from: converters (one step of 16 bits), the level at which a fault is plainly
heard, and a place well between the nearest healthy and faulty recordings that we have, which
`tests/benchmarks/golden_microphone.py --margins` prints.
"""

from __future__ import annotations

from pydantic import Field, field_validator

from agent.kinds._alsa import Source, parse_source
from agent.kinds._recover import RecoverableSettings
from agent.kinds._usb import Modes


class Settings(RecoverableSettings):
    """One microphone. Limits are AES17 dBFS, durations seconds."""

    source: str = Field(
        min_length=1,
        max_length=4096,
        description="usb:VID:PID[@PORT], hw:CARD[,DEVICE], plughw:CARD[,DEVICE] or file:PATH.wav",
    )
    rate: int | None = Field(
        default=None, ge=4_000, le=384_000, description="Hz to record at; unset: the native one"
    )
    channels: int | None = Field(
        default=None, ge=1, le=32, description="channels to record; unset: as many as there are"
    )
    usual_rate: int | None = Field(
        default=None, ge=4_000, le=384_000, description="Hz, where the kernel does not tell"
    )
    usual_channels: int | None = Field(
        default=None, ge=1, le=32, description="channels, where the kernel does not tell"
    )
    modes: Modes = Field(default={})
    look_s: float = Field(default=3.0, ge=1, le=3, description="length of a look")
    warm_up_s: float = Field(
        default=0.3, ge=0, le=2, description="first samples of a look that are dropped"
    )
    mains_hz: float = Field(default=50.0, ge=50, le=60, description="frequency of the mains")

    silent_above_pct: float = Field(
        default=97.0, ge=50, le=100, description="share of the look without any input"
    )
    stopped_s: float = Field(
        default=1.0, ge=0.2, le=3, description="no input at the end, after it broke off abruptly"
    )
    faded_s: float = Field(
        default=4.0, ge=0.2, le=60, description="no input at the end, however it began"
    )
    muted_below_dbfs: float = Field(
        default=-77.0, ge=-110, le=-50, description="quieter than any room with a live microphone"
    )
    switched_off_below_dbfs: float = Field(
        default=-55.0, ge=-110, le=-20, description="with the capture switch off: it is obeyed"
    )
    breaks_from: int = Field(
        default=2, ge=1, le=1_000, description="holes in a recording; in a look one is enough"
    )
    xruns_from: int = Field(default=3, ge=1, le=1_000, description="overruns in one look")
    clipping_from_pct: float = Field(
        default=0.1, ge=0.01, le=50, description="samples cut flat; 0.5 is heard plainly"
    )
    hum_above_dbfs: float = Field(
        default=-47.0, ge=-90, le=-10, description="50 Hz and harmonics; from -42 heard plainly"
    )
    hum_within_db: float = Field(
        default=24.0, ge=0, le=60, description="of the level: hum further below is not heard"
    )
    noisy_above_dbfs: float = Field(
        default=-38.0, ge=-80, le=-10, description="steady hiss; from -32 it disturbs by itself"
    )
    noise_from_dbfs: float = Field(
        default=-49.0, ge=-90, le=-20, description="hiss below this never disturbs, nor do fans"
    )
    snr_below_db: float = Field(
        default=14.0,
        ge=0,
        le=40,
        description="the loudest tenth less than this above hiss is masked",
    )
    too_quiet_below_dbfs: float = Field(
        default=-43.0, ge=-80, le=-20, description="speech; -47 is near silent, a far talker -35"
    )
    too_loud_above_dbfs: float = Field(
        default=-8.0, ge=-20, le=0, description="speech; lively is -13, squeezed -3"
    )
    baseline_floor_dbfs: float | None = Field(
        default=None, ge=-120, le=0, description="noise floor on the day of commissioning"
    )
    baseline_level_dbfs: float | None = Field(
        default=None, ge=-120, le=0, description="speech level on the day of commissioning"
    )
    baseline_hiss_dbfs: float | None = Field(
        default=None, ge=-120, le=0, description="hiss at commissioning; `adopt --baseline` sets it"
    )
    baseline_speech_dbfs: float | None = Field(
        default=None, ge=-120, le=0, description="speech then; `adopt --baseline` sets it"
    )
    drift_db: float = Field(
        default=15.0, ge=3, le=60, description="so far from the day of commissioning is a warning"
    )
    # From half a metre to four are 18 dB, from a raised to a normal voice 7 (ANSI S3.5).
    speech_drift_db: float = Field(
        default=25.0, ge=3, le=60, description="speech so far below the recorded one is a warning"
    )

    @field_validator("source")
    @classmethod
    def _source(cls, text: str) -> str:
        parse_source(text)
        return text

    @property
    def where(self) -> Source:
        """The source, taken apart."""
        return parse_source(self.source)
