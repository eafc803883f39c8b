"""The settings of a camera: where it is, what is expected of it, and every limit of its judge."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, field_validator

from agent.kinds import DeviceSettings
from agent.kinds.camera import source as sources

_Nibble = Annotated[int, Field(ge=0, le=15)]


class Settings(DeviceSettings):
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
    look_s: float = Field(default=3.0, ge=0.2, le=3, description="pictures taken at one look")

    black_below: float = Field(
        default=20, ge=0, le=255, description="mean luma of no picture (definition of the code)"
    )
    frozen_s: float = Field(
        default=2.0, ge=0.5, le=60, description="the same picture for so long (definition)"
    )
    low_fps_below: float = Field(
        default=10,
        gt=0,
        le=240,
        description="different pictures/s; never more than 2/3 of what is expected",
    )

    @field_validator("source")
    @classmethod
    def _source(cls, text: str) -> str:
        sources.parse(text)
        return text.strip()

    def where(self) -> sources.Source:
        """The source, taken apart."""
        return sources.parse(self.source)

    def claims(self) -> Mapping[str, str]:
        """Two cameras of a room cannot be the same device."""
        source = self.where()
        if source.local:
            return {"source": self.source.removeprefix("v4l2:")}
        return {}
