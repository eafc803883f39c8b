"""The microphone's driver, in a worker: the heavy part is imported when it is made."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from agent import clock
from agent.kinds.microphone.settings import Settings
from agent.model import Reading

if TYPE_CHECKING:
    from agent.kinds.microphone.listening import Listener


class Driver:
    """Answers `look`, `whole` (a file from end to end; a device has no end: a look) and
    `baseline`. `root` is where the kernel's files are."""

    def __init__(self, settings: Settings, root: Path = Path("/")) -> None:
        heavy = importlib.import_module("agent.kinds.microphone.listening")
        self._listener: Listener = heavy.Listener(settings, root)

    def read(self, question: str) -> Reading:
        """What the microphone hears, as numbers; or why nothing was heard."""
        return self._listener.answer(question, clock.up_s())
