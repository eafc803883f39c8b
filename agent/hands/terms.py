"""Every word that an answer of hands may hold, besides the ids of devices and the patterns."""

from __future__ import annotations

from agent.hands import usb
from agent.hands.engine import CAUSES, REFUSALS
from agent.hands.press import MEANINGS

EVENTS = frozenset({"switched", "dropped", "failed", "pressed"})
REASONS = frozenset({"unknown_light", "unknown_button", "not_held", "in_session"})
WORDS = EVENTS | CAUSES | REFUSALS | REASONS | MEANINGS | usb.STEPS | usb.REFUSALS
