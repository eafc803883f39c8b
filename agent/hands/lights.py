"""Which pattern a light shows: pure, from the agent's last word and how old it is."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any

from agent import patterns
from agent.hands.tables import made
from agent.patterns import Colour, Pattern

STATES = frozenset({"ready", "at_risk", "not_ready", "unknown"})
MODES = frozenset({"idle", "preparing", "in_session", "recess", "maintenance"})

_MIXED: Mapping[Colour, tuple[frozenset[str], ...]] = {
    Colour.RED: (frozenset({"red"}),),
    Colour.YELLOW: (frozenset({"yellow"}), frozenset({"red", "green"})),
    Colour.GREEN: (frozenset({"green"}),),
    Colour.BLUE: (frozenset({"blue"}), frozenset({"yellow", "green"})),
    Colour.WHITE: (
        frozenset({"white"}),
        frozenset({"red", "green", "blue"}),
        frozenset({"red", "yellow", "green"}),
    ),
}
"""Which lamps make a colour, the best first; a set of lamps that is not there is passed over."""


@dataclass(frozen=True, slots=True)
class Word:
    """What the agent said last. `family` counts the blinks of a fault (0: none), `lock_in_s` runs
    until the next session that is known, `mic_live` is None where nobody can tell."""

    state: str = "unknown"
    mode: str = "idle"
    family: int = 0
    measuring: bool = False
    locate: bool = False
    updating: bool = False
    commissioned: bool = True
    mic_live: bool | None = None
    lock_in_s: float | None = None

    @property
    def locks(self) -> bool:
        """Whether relays stay where they are: in session, and in a mode that is not known here."""
        return self.mode == "in_session" or self.mode not in MODES


def heard(raw: Mapping[str, Any]) -> Word:
    """The agent's word as it came. What a newer agent says beyond it is passed over; a state that
    is not known is shown as unknown. Raises `ValueError` for a value of another type."""
    known = {field.name for field in fields(Word)}
    return made(Word, {key: value for key, value in raw.items() if key in known})


def status(word: Word | None, age_s: float, *, quiet_in_session: bool) -> Pattern:
    """The pattern of the room's state. `age_s` is how long ago the word was heard."""
    if word is None or age_s >= patterns.LOST_S:
        return patterns.LOST
    if word.locate:
        return patterns.LOCATE
    if word.measuring:
        return patterns.MEASURING
    if word.updating:
        return patterns.UPDATING
    if word.mode == "maintenance":
        return patterns.MAINTENANCE
    if word.mode == "in_session":
        return patterns.DARK if quiet_in_session else patterns.IN_SESSION
    if not word.commissioned:
        return patterns.UNCOMMISSIONED
    if word.state == "not_ready":
        return reason(word)
    if word.state == "at_risk":
        return patterns.AT_RISK
    if word.state == "ready":
        return patterns.PREPARING if word.mode == "preparing" else patterns.READY
    return patterns.UNKNOWN


def reason(word: Word | None) -> Pattern:
    """The worst reason as a counted blink; without one, that all is well or nothing is known."""
    if word is None:
        return patterns.LOST
    if word.family in patterns.NOT_READY:
        return patterns.NOT_READY[word.family]
    return patterns.READY if word.state == "ready" else patterns.UNKNOWN


def door(mode: str) -> Pattern:
    """ĐANG XÉT XỬ: one meaning. What the agent said last holds, however long ago it was."""
    return Pattern("door", Colour.WHITE) if mode == "in_session" else patterns.DARK


def mic_live(word: Word | None, age_s: float) -> Pattern:
    """Lit while a microphone of the room is open, dark while none is; a flash where that is not
    known: dark would be a promise."""
    if word is None or age_s >= patterns.LOST_S or word.mic_live is None:
        return Pattern("mic_unknown", Colour.RED, (0.1, 2.9))
    return Pattern("mic_live", Colour.RED) if word.mic_live else patterns.DARK


def lamps(colour: Colour | None, there: Collection[str]) -> frozenset[str]:
    """Which of the lamps that are there have to burn to show a colour. Where the colour cannot be
    made all of them do: the rhythm tells what it means."""
    if colour is None:
        return frozenset()
    for mix in _MIXED[colour]:
        if mix <= set(there):
            return mix
    return frozenset(there)
