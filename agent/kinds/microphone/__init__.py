"""A microphone, judged by what it hears and not by being there.

`Passive` reads kernel facts; `Driver` listens for a moment through `arecord` (or reads a WAV
file), keeps statistics and no sample; `judge` names at most one thing that is wrong. Levels are
AES17 dBFS.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import AsyncIterator, Collection, Mapping
from pathlib import Path
from typing import Any

from agent.kinds._alsa import STATES, nearest
from agent.kinds._uevents import uevents
from agent.kinds._usb import MODE_WORDS, modes_of
from agent.kinds.microphone.discover import discover
from agent.kinds.microphone.driver import Driver
from agent.kinds.microphone.judge import CODES, RECOVERABLE, judge
from agent.kinds.microphone.passive import Passive, usb_port
from agent.kinds.microphone.settings import Settings
from agent.kinds.microphone.tells import SWITCH, TELLS
from agent.model import Reading

WORDS: frozenset[str] = STATES | SWITCH | MODE_WORDS
"""States of a stream, and of a capture switch; why a device is there and not in service."""
HEARS = True

__all__ = [
    "CODES",
    "HEARS",
    "RECOVERABLE",
    "TELLS",
    "WORDS",
    "Driver",
    "Passive",
    "Settings",
    "baseline",
    "changes",
    "discover",
    "from_profile",
    "judge",
    "prepare",
    "usb_port",
]


def prepare() -> None:
    """Imports what a look needs (numpy), so that a worker is warm. Opens no device."""
    importlib.import_module("agent.kinds.microphone.listening")


def from_profile(facts: Mapping[str, Any], told: Collection[str]) -> dict[str, Any]:
    """Settings out of a profile: its native format, for where the kernel does not tell it; the ids
    of its boot loader."""
    settings = modes_of(facts)
    if audio := facts.get("audio"):
        settings["usual_rate"] = nearest(tuple(audio["rates"]))
        settings["usual_channels"] = audio["channels"]
    return settings


def baseline(reading: Reading) -> dict[str, Any]:
    """The hiss of the room, and how loud somebody spoke, where somebody did."""
    pairs = (("baseline_hiss_dbfs", "hiss_dbfs"), ("baseline_speech_dbfs", "speech_dbfs"))
    return {ours: reading.values[key] for ours, key in pairs if key in reading.values}


async def changes(settings: Settings, root: Path = Path("/")) -> AsyncIterator[None]:
    """Yields when a sound card came or went. Ends at once for a file or a recorded tree."""
    if settings.where.path or root != Path("/"):
        return
    async with contextlib.aclosing(uevents("sound")) as events:
        async for event in events:
            if event is None or event.get("ACTION") in ("add", "remove"):
                yield None
