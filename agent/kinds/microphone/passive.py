"""The microphone as the kernel sees it: nothing is opened, nothing is heard."""

from __future__ import annotations

from pathlib import Path

from agent.kinds import _alsa
from agent.kinds.microphone.settings import Settings
from agent.model import Fault, Reading


class Passive:
    """Whether the device is there, whether somebody records from it and whether samples come."""

    def __init__(self, settings: Settings, root: Path) -> None:
        self._file = settings.where.path
        self._observer = _alsa.Observer(root, settings.where, _alsa.CAPTURE)

    async def read(self) -> Reading:
        """As `_alsa.Observer.read`; of a file only whether it is there."""
        if not self._file:
            return self._observer.read()
        if Path(self._file).exists():
            return Reading({"present": True})
        return Reading({"present": False}, Fault.ABSENT, "no_node")
