"""The button of the room: its settings, codes and judge. It is read by hands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from pydantic import Field, model_validator

from agent.kinds import DeviceSettings
from agent.model import Fault, Finding, Level, Reading

CODES: Mapping[str, Level] = {"button.stuck": Level.WARN, "button.absent": Level.WARN}
WORDS: frozenset[str] = frozenset()
IN_HANDS = True


class Settings(DeviceSettings):
    """One button between a pin and ground (or 3.3 V). Times are seconds of holding it."""

    required: bool = Field(default=False, description="the room is not ready without it")
    period_s: float = Field(default=60.0, ge=1, le=86_400, description="time between readings")
    pin: int = Field(ge=0, le=27, description="BCM number on the header")
    pull_up: bool = Field(default=True, description="the button connects its pin to ground")
    debounce_s: float = Field(default=0.03, ge=0, le=1, description="a level counts after so long")
    check_s: float = Field(default=3.0, ge=1, le=30, description="held so long: a full check")
    maintenance_s: float = Field(
        default=8.0, ge=2, le=60, description="held so long: maintenance on or off"
    )
    stuck_s: float = Field(default=30.0, ge=5, le=600, description="held so long: it is stuck")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.check_s < self.maintenance_s < self.stuck_s:
            raise ValueError("check_s, maintenance_s and stuck_s must rise in this order")
        return self

    def claims(self) -> Mapping[str, str]:
        """What only one device may have."""
        return {"pin": f"GPIO {self.pin}"}


def judge(reading: Reading, limits: Settings) -> list[Finding]:
    """A button that is not there, or that does not come back."""
    if reading.fault is Fault.SKIPPED:
        return []
    if reading.fault is not None:
        level = CODES["button.absent"] if reading.fault is Fault.ABSENT else Level.UNKNOWN
        return [Finding("button.absent", level, dict(reading.values), reading.device)]
    if reading.values.get("stuck") is True:
        return [Finding("button.stuck", CODES["button.stuck"], dict(reading.values))]
    return []
