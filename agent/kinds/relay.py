"""A relay of the room: its settings, codes and judge. The work is done by hands, which keeps the
rules; a reading is what hands reads back."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

import firmware_profiles
from agent import usb_tree
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
IN_HANDS = True
_FAULTS = {Fault.ABSENT: "relay.absent", Fault.ERROR: "relay.no_answer"}
_SHOWN = ("on", "feedback_on", "readback_on", "wanted_on", "budget_left", "errno", "feedback_errno")


class Settings(DeviceSettings):
    """One relay: where it is wired, what it powers, and the rules that hands keeps for it."""

    required: bool = Field(default=False, description="the room is not ready without it")
    period_s: float = Field(default=60.0, ge=1, le=86_400, description="time between readings")
    pin: int | None = Field(default=None, ge=0, le=27, description="BCM number on the header")
    board: str | None = Field(default=None, max_length=64, description="relay board profile")
    at: str = Field(
        default="",
        max_length=128,
        description="which board: USB port, device path or I2C address; only one: leave out",
    )
    channel: int | None = Field(default=None, ge=1, le=64, description="relay on that board")
    active_low: bool | None = Field(
        default=None, description="the relay pulls when the line is 0; unset: as its board says"
    )
    power_on: Literal["off", "on", "last"] = Field(default="off", description="state after boot")
    on_stop: Literal["hold", "safe"] = Field(default="hold", description="when hands ends")
    group: str | None = Field(default=None, max_length=64, description="only one of a group is on")
    wait_ms: int = Field(default=500, ge=0, le=60_000, description="pause between two of a group")
    min_on_s: float = Field(default=0, ge=0, le=86_400, description="stays on at least")
    min_off_s: float = Field(default=0, ge=0, le=86_400, description="stays off at least")
    max_per_h: int = Field(default=60, ge=2, le=3_600, description="switchings an hour")
    pulse_s: float = Field(default=1.0, gt=0, le=60, description="length of a pulse")
    max_on_s: float | None = Field(
        default=None, gt=0, le=604_800, description="off by itself, also in session"
    )
    feedback_pin: int | None = Field(default=None, ge=0, le=27, description="contact read back")
    feedback_active_low: bool = Field(
        default=True, description="the contact pulls its pin to ground while the relay is on"
    )
    powers: str | tuple[str, ...] = Field(default=(), description="devices that lose power")
    session_lock: bool = Field(default=True, description="does not move in session")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.pin is None) == (self.board is None):
            raise ValueError("give either pin (0 to 27), or board and channel")
        if (self.board is None) != (self.channel is None):
            raise ValueError("board and channel go together")
        if self.at and self.board is None:
            raise ValueError("at names a board, and there is none")
        if self.feedback_pin is not None and self.feedback_pin == self.pin:
            raise ValueError("feedback_pin is the relay's own pin")
        return self

    @model_validator(mode="after")
    def _rules_agree(self) -> Self:
        if self.max_on_s is not None and self.max_on_s < max(self.min_on_s, self.pulse_s):
            raise ValueError("max_on_s is shorter than min_on_s or pulse_s")
        if self.max_on_s is not None and self.power_on == "on":
            raise ValueError('power_on = "on" and max_on_s: it would be off soon after every boot')
        return self

    def refers(self) -> Mapping[str, tuple[str, ...]]:
        """Fields that name other devices."""
        return {"powers": self.powered}

    @property
    def powered(self) -> tuple[str, ...]:
        """The devices that lose power when it goes off."""
        return (self.powers,) if isinstance(self.powers, str) else self.powers

    def claims(self) -> Mapping[str, str]:
        """What only one device may have."""
        taken: dict[str, str] = {}
        if self.pin is not None:
            taken["pin"] = f"GPIO {self.pin}"
        if self.board is not None:
            where = f"{self.board}@{self.at}" if self.at else self.board
            taken["channel"] = f"channel {self.channel} of board {where}"
        if self.feedback_pin is not None:
            taken["feedback_pin"] = f"GPIO {self.feedback_pin}"
        return taken


def judge(reading: Reading, limits: Settings) -> list[Finding]:
    """A relay that is not there, does not answer, or whose contact says otherwise; one that waits
    for others of its group, or has used up its hour."""
    numbers = {key: reading.values[key] for key in _SHOWN if key in reading.values}
    if reading.fault is Fault.SKIPPED:
        return []
    if reading.fault is not None:
        code = _FAULTS.get(reading.fault, "relay.no_answer")
        # Without hands nothing is known of the relay, which holds its state meanwhile.
        level = CODES[code] if reading.fault in _FAULTS else Level.UNKNOWN
        return [Finding(code, level, numbers, reading.device)]
    on = reading.values.get("on")
    seen = [reading.values.get(key) for key in ("feedback_on", "readback_on")]
    code = ""
    if any(one is not None and one != on for one in seen):
        code = "relay.readback_differs"
    elif "feedback_errno" in reading.values:
        # It was switched, and whether it obeyed is not known.
        return [Finding("relay.no_answer", Level.UNKNOWN, numbers, reading.device)]
    elif reading.values.get("wanted_on") is True and on is False:
        code = "relay.interlocked"
    elif reading.values.get("budget_left") == 0:
        code = "relay.over_budget"
    return [Finding(code, CODES[code], numbers, reading.device)] if code else []


@dataclass(frozen=True, slots=True)
class Plugged:
    """A relay board that is plugged in: the id of its profile, what it calls itself, its USB port,
    and how many relays it has; None where it does not tell."""

    board: str
    product: str
    port: str
    relays: int | None


def plugged(root: Path = Path("/")) -> list[Plugged]:
    """The relay boards that are surely what they look like: by id and product string. Nothing is
    opened. Serial and I2C boards say nothing of themselves and are not among them."""
    return [
        Plugged(board, node.product, node.port, _count(facts, node.product))
        for node in usb_tree.nodes("hidraw", root)
        for board, facts in _profiles()
        if _is(facts.get("match", {}), node)
    ]


def discover(root: Path = Path("/")) -> list[dict[str, Any]]:
    """A settings table for every relay of the boards that are plugged in; of a board that does not
    tell how many it has, for the first. Two boards alike are told apart by their port."""
    boards = plugged(root)
    alike = Counter(one.board for one in boards)
    return [
        {
            "name": f"{one.product} #{channel}",
            "board": one.board,
            **({"at": one.port} if alike[one.board] > 1 else {}),
            "channel": channel,
        }
        for one in boards
        for channel in range(1, (one.relays or 1) + 1)
    ]


def _profiles() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The facts about relay boards, straight from the files: as validated values all profiles
    would stay in the daemon's memory for good."""
    folder = Path(firmware_profiles.__path__[0]) / "relay_boards"
    for file in sorted(folder.glob("*.toml")):
        yield file.stem, tomllib.loads(file.read_text(encoding="utf-8"))


def _is(match: Mapping[str, Any], node: usb_tree.UsbNode) -> bool:
    product = match.get("product")
    return (
        product is not None
        and not match.get("ambiguous", False)
        and node.usb_id in match["usb"]
        and re.fullmatch(product, node.product) is not None
    )


def _count(facts: Mapping[str, Any], product: str) -> int | None:
    relays = facts.get("relays", {})
    if relays.get("count_in_product"):
        return int(product[-1])
    counts = relays.get("count", ())
    return int(counts[0]) if len(counts) == 1 else None
