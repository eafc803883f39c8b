"""The microphone as the kernel sees it: nothing is opened, nothing is heard."""

from __future__ import annotations

from pathlib import Path

from agent.kinds import _alsa
from agent.kinds.microphone.settings import Settings
from agent.model import Fault, Reading, Scalar


class Passive:
    """Whether the device is there, whether somebody records from it and whether samples come.

    `advancing` compares the frame counter with that of the last read, so it is there from the
    second read of one running stream on.
    """

    def __init__(self, settings: Settings, root: Path) -> None:
        self._source = settings.where
        self._root = root
        self._before: tuple[str, int] | None = None

    async def read(self) -> Reading:
        """Values `present`, `in_use`, `state`, `advancing`, `alike`; or absent."""
        if self._source.path:
            there = Path(self._source.path).exists()
            return Reading({"present": True}) if there else _absent()
        found = _alsa.find(self._root, self._source, _alsa.CAPTURE)
        if not found:
            self._before = None
            return _absent()
        stream, values = found[0], dict[str, Scalar](present=True)
        if self._source.usb and len({s.card for s in found}) > 1:
            values["alike"] = len({s.card for s in found})
        status = _alsa.status(self._root, stream)
        before, self._before = self._before, None
        if status is not None:
            values["in_use"] = status.state != "closed"
            values["state"] = status.state
            if status.hw_ptr is not None:
                self._before = (stream.name, status.hw_ptr)
                if status.state == "running" and before and before[0] == stream.name:
                    values["advancing"] = status.hw_ptr != before[1]
        return Reading(values, identity=_alsa.identity(self._root, stream))


def _absent() -> Reading:
    return Reading({"present": False}, Fault.ABSENT, "no_node")
