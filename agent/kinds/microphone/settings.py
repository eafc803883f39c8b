"""The settings of a microphone: which one, and the limits that `judge` uses.

Levels are in dBFS as defined in AES17: the RMS of a full-scale sine is 0 dBFS, so a level here
is 3.01 dB higher than 20*log10 of the RMS of samples in -1..1. Peaks are 20*log10 of the largest
absolute sample (the same sine peaks at 0 dBFS).
"""

from __future__ import annotations

from pydantic import Field, field_validator

from agent.kinds import DeviceSettings
from agent.kinds._alsa import Source, parse_source


class Settings(DeviceSettings):
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
    look_s: float = Field(default=3.0, ge=1, le=3, description="length of a look")
    warm_up_s: float = Field(
        default=0.3, ge=0, le=2, description="first samples of a look that are dropped"
    )
    mains_hz: float = Field(default=50.0, ge=50, le=60, description="frequency of the mains")

    silent_below_dbfs: float = Field(
        default=-85.0,
        ge=-120,
        le=-60,
        description="a sound card's own dither (one step of 16 bits is -89)",
    )
    muted_below_dbfs: float = Field(
        default=-77.0, ge=-110, le=-50, description="less than any room: analog path without sound"
    )
    too_quiet_below_dbfs: float = Field(
        default=-44.0, ge=-80, le=-20, description="speech below this is not understood"
    )
    too_loud_above_dbfs: float = Field(
        default=-8.0, ge=-20, le=0, description="speech above this is squeezed"
    )
    baseline_floor_dbfs: float | None = Field(
        default=None, ge=-120, le=0, description="noise floor on the day of commissioning"
    )
    baseline_level_dbfs: float | None = Field(
        default=None, ge=-120, le=0, description="speech level on the day of commissioning"
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
