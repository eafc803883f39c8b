"""The settings of a camera: where it is, what is expected of it, and every limit of its judge."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, field_validator

from agent.kinds._recover import RecoverableSettings
from agent.kinds._usb import Modes
from agent.kinds.camera import controls as picture_controls
from agent.kinds.camera import source as sources

Share = Annotated[float, Field(ge=0, le=1)]
Luma = Annotated[float, Field(ge=0, le=255)]
Int32 = Annotated[int, Field(ge=-(2**31), lt=2**31)]
_Nibble = Annotated[int, Field(ge=0, le=15)]


class Settings(RecoverableSettings):
    """One camera. Grey values ("luma") are 0..255; shares are of the picture, 0..1."""

    model_config = ConfigDict(hide_input_in_errors=True)  # a URL may hold a password

    source: str = Field(repr=False, max_length=1024, description=sources.FORMS)
    credentials_file: Path | None = Field(
        default=None, description="file with user:password of a camera on the network"
    )
    width: int | None = Field(default=None, ge=16, le=16_384, description="pixels ordered")
    height: int | None = Field(default=None, ge=16, le=16_384, description="lines ordered")
    fps: float | None = Field(default=None, gt=0, le=1_000, description="pictures/s ordered")
    usb_id: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{4}:[0-9a-f]{4}$",
        description="vid:pid that must be behind a v4l2 source",
    )
    controls: Mapping[str, Int32] = Field(
        default={}, max_length=16, description="V4L2 controls to set, such as power_line_frequency"
    )
    modes: Modes = Field(default={})
    look_s: float = Field(default=3.0, ge=0.2, le=3, description="pictures taken at one look")

    no_signal_bars: Share = Field(
        default=0.22, description="exactly flat tiles in several colours; a sensor makes none"
    )
    no_signal_flat: Share = Field(
        default=0.6, description="exactly flat tiles of a card of one colour, with or without text"
    )
    no_signal_one_level: Share = Field(
        default=0.8, description="of a card of one colour, within one grey level"
    )
    black_below: Luma = Field(default=20, description="mean of no picture (definition of the code)")
    black_spread: Luma = Field(
        default=3.5, description="tiles differ by less: no scene is there, noise aside"
    )
    covered_share: Share = Field(
        default=0.48, description="plain surface with a fading border (tiles; 60 % of the lens)"
    )
    covered_softness: float = Field(
        default=0.8, ge=0, le=9, description="detail at its border over detail elsewhere"
    )
    covered_mostly: Share = Field(
        default=0.75, description="plain surface where no outline is sharp"
    )
    covered_whole: Share = Field(default=0.9, description="plain surface, whatever its border")
    frozen_s: float = Field(
        default=2.0, ge=0.5, le=60, description="the same picture for so long (definition)"
    )
    stuck_share: Share = Field(default=0.25, description="equal lines in one run")
    lost_channel: Share = Field(default=0.85, description="points without blue, green or red")
    tint_above: float = Field(
        default=36, ge=0, le=180, description="colour difference that every point has"
    )
    colour_shift: float = Field(
        default=0.2, gt=0, le=2, description="outlines of colour match better elsewhere"
    )
    block_steps: float = Field(
        default=1.0, gt=0, le=1_000, description="steps on the block grid, per mille of its length"
    )
    tear: Share = Field(default=0.68, description="match of neighbouring lines, but shifted")
    damaged_share: Share = Field(default=0.1, description="pictures that came damaged")
    overexposed_share: Share = Field(
        default=0.38, description="at 245 and above (definition: about half; a window is a sixth)"
    )
    underexposed_below: Luma = Field(default=20, description="mean (definition of the code)")
    underexposed_high: Luma = Field(
        default=60, description="98th percentile: a bright screen in a dark room is no fault"
    )
    blurred_above: float = Field(
        default=1.18,
        gt=0,
        le=20,
        description="width of the sharpest edges, in points of 320; a sharp lens has 0.7 to 0.9",
    )
    smeared_above: float = Field(
        default=1.45, gt=0, le=20, description="the same across the direction of a smear"
    )
    noisy_above: Luma = Field(
        default=8, description="noise after compression (definition: 15 before it)"
    )
    speckle_above: Share = Field(default=0.009, description="single wrong pixels")
    low_fps_below: float = Field(
        default=10,
        gt=0,
        le=240,
        description="different pictures/s; never more than 2/3 of what is expected",
    )
    dark_below: Luma = Field(
        default=60, description="mean under which a webcam may halve its rate by itself"
    )
    moved_above: float = Field(
        default=0.5, gt=0, le=2, description="distance from the view at commissioning"
    )
    flicker_above_pct: float = Field(
        default=4, gt=0, le=100, description="swing of the light, percent of the mean"
    )
    baseline_fingerprint: tuple[_Nibble, ...] | None = Field(
        default=None, min_length=64, max_length=64, description="the view at commissioning"
    )

    @field_validator("source")
    @classmethod
    def _source(cls, text: str) -> str:
        sources.parse(text)
        return text.strip()

    @field_validator("controls")
    @classmethod
    def _controls(cls, wanted: Mapping[str, int]) -> Mapping[str, int]:
        return picture_controls.known(wanted)

    def where(self) -> sources.Source:
        """The source, taken apart."""
        return sources.parse(self.source)

    def claims(self) -> Mapping[str, str]:
        """Two cameras of a room cannot be the same device."""
        source = self.where()
        if source.local:
            return {"source": self.source.removeprefix("v4l2:")}
        return {}
