"""The SQLite file and the mark of its numbers: opened, examined, set aside when it is broken.

Beside `agent.db` lies `agent.n`: a number that no event has passed. It is moved ahead a thousand at
a time, so that a database that was lost or replaced goes on above every number that may have been
published: `(room, n)` names one event for ever.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from pathlib import Path
from typing import Any

log = logging.getLogger("agent.store")

Rows = list[tuple[Any, ...]]

BLOCK = 1_000
"""How far ahead numbers are reserved: one small durable write for a thousand events."""
SET_ASIDE_KEPT = 2
_BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def is_broken(error: Exception) -> bool:
    """Whether an error means that the file is no sound database, and never will be again."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _BROKEN


class Mark:
    """The file that remembers which numbers may have been used. `at` is 0 where there is none,
    or where it cannot be read: then the database is all there is to know."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.at = 0

    def read(self) -> None:
        """Look at the file. Raises `OSError` where the disk does not answer."""
        try:
            text = self.path.read_bytes()[:20].strip()
        except FileNotFoundError:
            text = b""
        self.at = int(text) if text.isdigit() else 0

    def reserve(self, n: int) -> None:
        """Make sure, durably, that `n` is not above the mark before anybody can see it."""
        if n <= self.at:
            return
        fresh = self.path.with_name(self.path.name + ".new")
        with fresh.open("wb") as file:
            file.write(b"%d\n" % (n + BLOCK))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path)
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self.at = n + BLOCK


class File:
    """One SQLite file. Every method may raise `sqlite3.Error` or `OSError`, and may hang with
    the disk."""

    def __init__(self, path: Path, *, application_id: int, busy_s: float) -> None:
        self.path = path
        self._application_id = application_id
        self._busy_s = busy_s
        self._db: sqlite3.Connection | None = None
        self._inode: tuple[int, int] | None = None

    @property
    def is_open(self) -> bool:
        """Whether there is a connection."""
        return self._db is not None

    @property
    def db(self) -> sqlite3.Connection:
        """The connection; transactions are begun and ended by hand."""
        assert self._db is not None, "open first"
        return self._db

    def open(self) -> None:
        """Connect, and make the file where there is none. A broken one is no error yet."""
        self.close()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        uri = self.path.resolve().as_uri()
        try:
            self._db = self._dial(uri)
        except sqlite3.OperationalError as error:
            # A cleanly closed file on a read-only disk: SQLite would make a WAL to read it.
            readable = self.path.exists() and not self._beside("-wal").exists()
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_CANTOPEN or not readable:
                raise
            self._db = self._dial(uri + "?immutable=1")
        self._inode = self._identity()

    def close(self) -> None:
        """Let go; SQLite writes the WAL back and removes it."""
        db, self._db = self._db, None
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                db.close()

    def was_removed(self) -> bool:
        """Whether the path now leads elsewhere: what is written here, nobody would find."""
        return self._identity() != self._inode

    def tables(self) -> int:
        """How many tables there are; none in a new file."""
        count: int = self.db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        return count

    def examine(self, *, whole: bool) -> str:
        """Why the file cannot be used (`corrupt`, `foreign`), "" for a good or an empty one.

        `whole` reads every page (`PRAGMA quick_check`)."""
        try:
            if not self.tables():
                return ""
            if self.db.execute("PRAGMA application_id").fetchone()[0] != self._application_id:
                return "foreign"
            found = self.db.execute("PRAGMA quick_check(1)").fetchone()[0] if whole else "ok"
        except sqlite3.DatabaseError as error:
            if not is_broken(error):
                raise
            return "corrupt"
        return "" if found == "ok" else "corrupt"

    def salvage(self, queries: dict[str, str]) -> dict[str, Rows]:
        """The rows of those queries that can still be read."""
        saved: dict[str, Rows] = {}
        for name, query in queries.items():
            with contextlib.suppress(sqlite3.Error):
                saved[name] = self.db.execute(query).fetchall()
        return saved

    def set_aside(self, why: str) -> None:
        """Rename the file and its WAL, and let go; the newest two such files are kept."""
        prefix = f"{self.path.name}.corrupt-"
        found = [p.name.removeprefix(prefix) for p in self.path.parent.glob(f"{prefix}*")]
        numbers = sorted(int(n) for n in found if n.isdigit())
        number = numbers[-1] + 1 if numbers else 1
        log.error("%s is %s: set aside as %s%d", self.path, why, prefix, number)
        # Renamed while it is open: closing would delete the WAL, which may hold the newest events.
        self.path.rename(self._beside(f".corrupt-{number}"))
        with contextlib.suppress(FileNotFoundError):
            self._beside("-wal").rename(self._beside(f".corrupt-{number}-wal"))
        self.close()
        for n in numbers[: len(numbers) + 1 - SET_ASIDE_KEPT]:
            for suffix in ("", "-wal"):
                self._beside(f".corrupt-{n}{suffix}").unlink(missing_ok=True)

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)

    def _identity(self) -> tuple[int, int] | None:
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            return None
        return stat.st_dev, stat.st_ino

    def _dial(self, uri: str) -> sqlite3.Connection:
        db = sqlite3.connect(uri, timeout=self._busy_s, isolation_level=None, uri=True)
        try:
            db.execute("PRAGMA temp_store=MEMORY")
            db.execute("PRAGMA cache_size=-512")
            db.execute("PRAGMA schema_version").fetchone()
        except sqlite3.DatabaseError as error:
            if not is_broken(error):
                db.close()
                raise
        return db
