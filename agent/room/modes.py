"""What the room is doing: the schedule, what a person said, and whether others hold the devices."""

from __future__ import annotations

import json
from dataclasses import dataclass

from agent.judge import schedule
from agent.model import Hearing, Mode, Moment

HELD_ENDS_S = 60.0
"""So long nobody must hold camera or microphone before a call that nobody announced is over."""
LONGEST_S = 86_400.0
"""Nobody can say a mode for longer."""


@dataclass(frozen=True, slots=True)
class Said:
    """A mode that a person set: until when (both clocks), and who."""

    mode: Mode
    until: Moment
    by: str


class Modes:
    """The mode of the room at any moment. Time is handed in."""

    def __init__(self) -> None:
        self.hearings: tuple[Hearing, ...] = ()
        self.said: Said | None = None
        self._held_s = float("-inf")

    def say(self, mode: Mode | None, minutes: float, by: str, now: Moment) -> None:
        """A person sets a mode, or (None) gives the room back to the schedule. What is said of one
        session does not reach into the next."""
        if mode is None:
            self.said = None
            return
        last_s = minutes * 60
        if mode is not Mode.MAINTENANCE:
            starts = [h.starts_s - now.utc_s for h in self.hearings if h.starts_s > now.utc_s]
            ends = [h.ends_s - now.utc_s for h in self.hearings if h.starts_s <= now.utc_s]
            if mode is Mode.IDLE:
                starts += [s for s in ends if s > 0]
            last_s = min([last_s, *starts])
        self.said = Said(mode, now.after(last_s), by)

    def seen_held(self, held: bool, now: Moment) -> None:
        """Whether another program holds a camera and a microphone now."""
        if held:
            self._held_s = now.up_s

    def at(self, now: Moment) -> Mode:
        """The mode at a moment."""
        if self.said is not None and now.up_s >= self.said.until.up_s:
            self.said = None
        override = self.said.mode if self.said else None
        held = now.up_s - self._held_s < HELD_ENDS_S
        return schedule.mode_of(self.hearings, now, override, held=held)

    def next_change_s(self, now: Moment) -> float | None:
        """Seconds until the mode may change by itself, None when it never will."""
        changes = [schedule.next_change_s(self.hearings, now)]
        changes.append(self.said.until.up_s - now.up_s if self.said else None)
        held_s = self._held_s + HELD_ENDS_S - now.up_s
        changes.append(held_s if held_s > 0 else None)
        return min((c for c in changes if c is not None), default=None)

    def lock_in_s(self, now: Moment) -> float | None:
        """Seconds until nothing may be switched any more, as far as is known; 0 in a session. A
        session that a person has paused or ended is none until that word is over."""
        said = self.said
        if said is None or said.mode is Mode.MAINTENANCE or now.up_s >= said.until.up_s:
            return schedule.session_in_s(self.hearings, now)
        if said.mode is Mode.IN_SESSION:
            return 0.0
        left_s = said.until.up_s - now.up_s
        then_s = schedule.session_in_s(self.hearings, now.after(left_s))
        return None if then_s is None else left_s + then_s

    # -- a restart -----------------------------------------------------------------------------

    def save(self) -> bytes:
        """What a later agent has to know."""
        if self.said is None:
            return b"{}"
        until = self.said.until
        return json.dumps(
            {
                "mode": self.said.mode,
                "by": self.said.by,
                "boot": until.boot,
                "until_up_s": until.up_s,
                "until_utc_s": until.utc_s,
            }
        ).encode()

    def restore(self, saved: bytes | None, now: Moment) -> None:
        """Go on with what was said before a restart, for the time that is left of it. After
        another boot UTC has to say how much that is; a nonsense lets it end."""
        try:
            raw = json.loads(saved or b"{}")
            left_s = float(raw["until_up_s"]) - now.up_s
            if raw["boot"] != now.boot:
                left_s = float(raw["until_utc_s"]) - now.utc_s
            left_s = min(left_s, LONGEST_S)
            mode, by = Mode(raw["mode"]), str(raw["by"])
        except (ArithmeticError, KeyError, TypeError, ValueError):
            return
        if left_s > 0:
            self.said = Said(mode, now.after(left_s), by)
