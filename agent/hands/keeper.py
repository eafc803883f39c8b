"""The one small file of hands: what the relays were, so that a restart or a power cut changes
nothing that its rules do not say."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

log = logging.getLogger("hands")

VERSION = 1
NAME = "hands.json"
MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Kept:
    """What was kept: the boot it was written in, the engine's own state, the mode that was said
    last, and the layout that was in force, as `layout.dump` wrote it."""

    boot: str = ""
    relays: dict[str, Any] = field(default_factory=dict)
    mode: str = ""
    layout: str = ""


class Keeper:
    """Writes and reads the file. Each write is whole and on disk before it returns."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._written: dict[str, Any] = {}
        self.failing = 0
        """The errno of the last write, 0 when it went well."""

    def read(self) -> Kept:
        """What was kept; nothing where there is no file, or none that can be read."""
        try:
            with self._path.open("rb") as file:
                raw = json.loads(file.read(MAX_BYTES))
            if raw.get("version") != VERSION:
                raise ValueError("another version")
            kept = Kept(raw["boot"], dict(raw["relays"]), raw["mode"], raw["layout"])
        except FileNotFoundError:
            return Kept()
        except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
            log.error("%s cannot be used: %s; relays begin as after a power cut", self._path, error)
            return Kept()
        return kept

    def write(self, kept: Kept) -> None:
        """Replace the file; the same again writes nothing. A disk that does not take it costs the
        memory of a power cut, not the relays: `failing` tells."""
        document = {
            "version": VERSION,
            "boot": kept.boot,
            "relays": kept.relays,
            "mode": kept.mode,
            "layout": kept.layout,
        }
        if document == self._written:
            return
        fresh = self._path.with_name(f".{NAME}.new")
        try:
            with fresh.open("wb") as file:
                file.write(json.dumps(document).encode())
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            if self.failing != error.errno:
                log.error("%s cannot be written: %s", self._path, error.strerror)
            self.failing = error.errno or -1
            with contextlib.suppress(OSError):
                fresh.unlink()
            return
        self.failing = 0
        self._written = document
