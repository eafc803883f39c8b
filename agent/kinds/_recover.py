"""What cameras and sound devices have in common when they do not answer: how far the agent goes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from agent.kinds import DeviceSettings


class RecoverableSettings(DeviceSettings):
    """A device that may be brought back. Durations are seconds."""

    recover: Literal["auto", "ask", "off"] = Field(
        default="auto",
        description="bring it back: auto by itself (never in a hearing), ask on command, off never",
    )
    recover_after_s: float = Field(
        default=60.0, ge=10, le=3_600, description="auto: after the fault has stood for so long"
    )
