"""The microphone as the kernel sees it: nothing is opened, nothing is heard."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from agent.kinds import _alsa
from agent.kinds._usb import mode_of
from agent.kinds.microphone.settings import Settings
from agent.model import Fault, Reading


class Passive:
    """Whether the device is there, whether somebody records from it and whether samples come."""

    def __init__(self, settings: Settings, root: Path) -> None:
        self._settings = settings
        self._root = root
        self._file = settings.where.path
        self._observer = _alsa.Observer(root, settings.where, _alsa.CAPTURE)

    async def read(self) -> Reading:
        """As `_alsa.Observer.read`, and the `mode` of one that is there and not in service; of a
        file only whether it is there."""
        if not self._file:
            return self._with_mode(self._observer.read())
        if Path(self._file).exists():
            return Reading({"present": True})
        return Reading({"present": False}, Fault.ABSENT, "no_node")

    def _with_mode(self, reading: Reading) -> Reading:
        if reading.fault is not Fault.ABSENT:
            return reading
        where = self._settings.where
        mode = mode_of(self._root, self._settings.modes, where.port) if where.usb else None
        return replace(reading, values={**reading.values, "mode": mode}) if mode else reading


def usb_port(settings: Settings, root: Path) -> str:
    """As `_alsa.usb_port`."""
    return _alsa.usb_port(root, settings.where, _alsa.CAPTURE)
