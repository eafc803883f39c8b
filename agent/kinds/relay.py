"""A relay of the room: its settings, codes and judge. The work is done by hands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from agent.kinds import DeviceSettings
from agent.model import Fault, Finding, Level, Reading

CODES: Mapping[str, Level] = {
    "relay.absent": Level.FAIL,
    "relay.no_answer": Level.FAIL,
    "relay.readback_differs": Level.FAIL,
    "relay.interlocked": Level.INFO,
    "relay.over_budget": Level.INFO,
}
WORDS: frozenset[str] = frozenset()
_FAULTS = {Fault.ABSENT: "relay.absent", Fault.NO_ANSWER: "relay.no_answer"}


class Settings(DeviceSettings):
    """One relay: where it is wired, what it powers, and the rules that hands keeps for it."""

    required: bool = Field(default=False, description="the room is not ready without it")
    pin: int | None = Field(default=None, ge=0, le=27, description="BCM number on the header")
    board: str | None = Field(default=None, max_length=64, description="relay board profile")
    channel: int | None = Field(default=None, ge=1, le=64, description="relay on that board")
    active_low: bool = Field(default=False, description="the relay pulls when the line is 0")
    power_on: Literal["off", "on", "last"] = Field(default="off", description="state after boot")
    on_stop: Literal["hold", "safe"] = Field(default="hold", description="when hands ends")
    group: str | None = Field(default=None, max_length=64, description="only one of a group is on")
    wait_ms: int = Field(default=500, ge=0, le=60_000, description="pause between two of a group")
    min_on_s: float = Field(default=0, ge=0, le=86_400, description="stays on at least")
    min_off_s: float = Field(default=0, ge=0, le=86_400, description="stays off at least")
    max_per_h: int = Field(default=60, ge=1, le=3_600, description="switchings an hour")
    pulse_s: float = Field(default=1.0, gt=0, le=60, description="length of a pulse")
    max_on_s: float | None = Field(default=None, gt=0, le=604_800, description="off by itself")
    feedback_pin: int | None = Field(default=None, ge=0, le=27, description="contact read back")
    powers: str | tuple[str, ...] = Field(default=(), description="devices that lose power")
    session_lock: bool = Field(default=True, description="does not move in session")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.pin is None) == (self.board is None):
            raise ValueError("give either pin (0 to 27), or board and channel")
        if (self.board is None) != (self.channel is None):
            raise ValueError("board and channel go together")
        if self.feedback_pin is not None and self.feedback_pin == self.pin:
            raise ValueError("feedback_pin is the relay's own pin")
        return self

    def refers(self) -> Mapping[str, tuple[str, ...]]:
        """Fields that name other devices."""
        return {"powers": (self.powers,) if isinstance(self.powers, str) else self.powers}

    def claims(self) -> Mapping[str, str]:
        """What only one device may have."""
        taken: dict[str, str] = {}
        if self.pin is not None:
            taken["pin"] = f"GPIO {self.pin}"
        if self.board is not None:
            taken["channel"] = f"channel {self.channel} of board {self.board}"
        if self.feedback_pin is not None:
            taken["feedback_pin"] = f"GPIO {self.feedback_pin}"
        return taken


def judge(reading: Reading, limits: Settings) -> list[Finding]:
    """A relay that is not there, does not answer, or whose contact says otherwise."""
    if code := _FAULTS.get(reading.fault) if reading.fault else None:
        return [Finding(code, CODES[code], dict(reading.values), reading.device)]
    wanted, seen = reading.values.get("on"), reading.values.get("feedback_on")
    if seen is not None and wanted != seen:
        code = "relay.readback_differs"
        return [Finding(code, CODES[code], dict(reading.values), reading.device)]
    return []
