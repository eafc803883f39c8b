"""The one small file of hands: what the relays were, so that a restart or a power cut changes
nothing that its rules do not say."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import threading
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from agent.hands import pasts
from agent.hands.news import Event
from agent.hands.tables import made
from agent.lanes import wire
from agent.model import Reading

log = logging.getLogger("hands")

VERSION = 1
NAME = "hands.json"
MAX_BYTES = 1 << 20
WAIT_S = 1.0
"""How long a write is waited for. A card that hangs for longer must not freeze the lights."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What was kept: the boot it was written in, the engine's own state, the mode that was said
    last, the layout that was in force, as `layout.dump` wrote it, the news that nobody took, and
    when steps with USB devices were begun in the last hour (boot time)."""

    boot: str = ""
    relays: dict[str, Any] = field(default_factory=dict)
    mode: str = ""
    layout: str = ""
    number: int = 0
    lost: int = 0
    events: tuple[Event, ...] = ()
    usb: tuple[float, ...] = ()


class Keeper:
    """Writes and reads the file. Each write is whole and on disk before it returns, unless the
    disk hangs: then a thread goes on with it, and with what is newest when it is through."""

    def __init__(self, folder: Path, wait_s: float = WAIT_S) -> None:
        self._path = folder / NAME
        self._wait_s = wait_s
        self._changed = threading.Condition()
        self._wanted = b""
        self._asked = self._done = 0
        self._writer: threading.Thread | None = None
        self._errno = 0
        self._said = 0

    @property
    def failing(self) -> int:
        """The errno of the last write, 0 when it went well; ETIMEDOUT while one hangs."""
        return errno.ETIMEDOUT if self._done < self._asked else self._errno

    def read(self) -> Kept:
        """What was kept; nothing where there is no file, or none that can be read."""
        try:
            with self._path.open("rb") as file:
                return _parse(file.read(MAX_BYTES))
        except FileNotFoundError:
            return Kept()
        except (OSError, ValueError) as error:
            log.error("%s cannot be used: %s; relays begin as after a power cut", self._path, error)
            return Kept()

    def write(self, kept: Kept) -> None:
        """Replace the file; the same again writes nothing, unless the last write failed. A disk
        that does not take it costs the memory of a power cut, not the relays: `failing` tells."""
        document = json.dumps({"version": VERSION, **asdict(kept)}).encode()
        with self._changed:
            if document == self._wanted and not self.failing:
                return
            hung = self._done < self._asked
            self._wanted = document
            self._asked += 1
            if self._writer is None:
                self._writer = threading.Thread(target=self._write_on, daemon=True)
                self._writer.start()
            self._changed.notify_all()
            if not hung:
                self._changed.wait_for(lambda: self._done == self._asked, self._wait_s)
            number, self._said = self._said, self.failing
        if self._said not in (0, number):
            log.error("%s cannot be written: %s", self._path, os.strerror(self._said))

    def _write_on(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._done < self._asked)
                asked, document = self._asked, self._wanted
            number = self._replace(document)
            with self._changed:
                self._done, self._errno = asked, number
                self._changed.notify_all()

    def _replace(self, document: bytes) -> int:
        """The file's new content, whole and on disk; the errno, 0 when it went well."""
        fresh = self._path.with_name(f".{NAME}.new")
        try:
            with fresh.open("wb") as file:
                file.write(document)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            with contextlib.suppress(OSError):
                fresh.unlink()
            return error.errno or errno.EIO
        return 0


def _parse(text: bytes) -> Kept:
    """Raises `ValueError` for anything but what `write` wrote."""
    try:
        raw = json.loads(text)
        if raw.pop("version") != VERSION:
            raise ValueError("another version")
        events = tuple(_event(one) for one in raw["events"])
        known = {at.name: raw[at.name] for at in fields(Kept)}
        usb = tuple(pasts.time(at_s) for at_s in raw["usb"])
        kept = made(Kept, {**known, "events": events, "usb": usb})
        pasts.all_of(kept.relays)
    except (AttributeError, KeyError, RecursionError, TypeError) as error:
        raise ValueError(f"not what was written: {error!r}") from None
    return kept


def _event(raw: dict[str, Any]) -> Event:
    event = made(Event, raw)
    if not all(isinstance(v, bool | int | float | str) for v in event.values.values()):
        raise ValueError("an event that is not flat")
    wire.encode(event.number, Reading(event.values, identity=event.names))  # has to go on the line
    return event
