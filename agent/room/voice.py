"""What the room says: retained documents, telemetry, the status file. Nothing is decided here."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agent import __version__
from agent.clock import process_start
from agent.control import write_status
from agent.link import documents
from agent.link.client import Link
from agent.link.contract import encode
from agent.link.publisher import PUBLISHED_FOR_S, Publisher
from agent.model import Device, Finding, Moment, Readiness
from agent.settings import Room

log = logging.getLogger("agent.room")


class Voice:
    """Says what stands, to the broker where there is one and to the status file."""

    def __init__(
        self,
        room: Room,
        box: str,
        capabilities: Sequence[str],
        file: Path,
        baseline: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        """`baseline` is what may be seen of the day of commissioning."""
        self.link: Link | None = None
        self._room = room
        self._box = box
        self._capabilities = capabilities
        self._file = file
        self._baseline = baseline
        self._devices: Mapping[str, Device] = {d.id: d for d in room.devices}
        self._publisher = Publisher(self._put)

    @property
    def standing(self) -> dict[str, dict[str, Any]]:
        """The documents as published, by topic suffix."""
        return self._publisher.standing

    def publish(self, seen: Sequence[documents.Seen], answer: Readiness, now: Moment) -> None:
        """Publish what is news, and write the status file with it."""
        about = documents.about(
            name=self._room.name,
            version=__version__,
            box=self._box,
            python=".".join(str(n) for n in sys.version_info[:3]),
            requirements=self._room.requirements.name,
            capabilities=self._capabilities,
            seen=seen,
            now=now,
        )
        document = documents.readiness(answer, self._devices, now, self._room.language)
        news = [
            self._publisher.about(about),
            self._publisher.devices(seen, now),
            self._publisher.readiness(document, now),
        ]
        if any(news):
            self.write_status(now)

    def write_status(self, now: Moment) -> None:
        """The status file anew."""
        try:
            write_status(self._file, self.status(now))
        except OSError as error:  # an old file says by its age that it is old
            log.warning("the status file could not be written: %s", error)

    def again(self) -> None:
        """Have everything said again with the next `publish`: somebody asked for it."""
        self._publisher.forget()

    def telemetry(self, seen: Sequence[documents.Seen], now: Moment) -> None:
        """All numbers, once a minute."""
        if self.link is not None:
            self.link.telemetry(encode(documents.telemetry(seen, now)))

    def status(self, now: Moment) -> dict[str, Any]:
        """What `hearing-room status` shows: the documents as published, and the agent itself."""
        stands = self._publisher.standing
        broker = None
        if self.link is not None:
            broker = {
                "connected": self.link.connected,
                "host": self.link.broker_host,
                "error": self.link.last_error,
            }
        room = self._room
        return {
            "agent": {
                "pid": os.getpid(),
                "start": process_start(os.getpid()),
                "version": __version__,
                "boot": now.boot,
            },
            "room": {
                "site": room.site,
                "id": room.id,
                "language": room.language,
                "commissioned": room.commissioned,
                "trouble": room.trouble or None,
            },
            "broker": broker,
            "valid_until_up_s": now.up_s + PUBLISHED_FOR_S,
            "about": stands.get("about"),
            "readiness": stands.get("readiness"),
            "devices": [stands[n] for n in stands if n.startswith("device/")],
            "baseline": self._baseline(),
        }

    def _put(self, suffix: str, doc: dict[str, Any]) -> None:
        if self.link is not None:
            self.link.put(suffix, encode(doc))


def seen_of(
    device: Device, findings: Sequence[Finding], reading: Any, until_s: float | None
) -> documents.Seen:
    """What stands about one device."""
    mine = [f for f in findings if f.device == device.id]
    return documents.Seen(device, mine, reading, until_s)
