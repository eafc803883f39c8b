"""What the store keeps: the rows of one SQLite file. Blocking, for one thread.

events     n -> the exact payload that is published; only ever appended, then pruned
outbox     n -> importance, of what is not sent yet; a small table, so that marking an event
           as sent never rewrites the event
incidents  what is open; documents and commands: what must survive a restart
gaps       events that will never be sent, until one event says so
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.link.contract import common, encode
from agent.model import Clock, Incident, Level, Moment
from agent.store.file import BLOCK, File, Mark, Rows

log = logging.getLogger("agent.store")

BATCH = 200
"""Most jobs in one transaction. A transaction that fails after it moved the mark leaves it at most
this far (and a few numbers) beyond `BLOCK`."""
STEP = 256
"""Most rows pruned at once; more than a batch, so that pruning keeps up with writing."""
AGE_CHECK_S = 3_600.0
COMMANDS_KEPT = 1_000
COMMAND_AGE_S = 86_400.0
GAP_IMPORTANCE = 2**31 - 1
APPLICATION_ID = 0x68724131
_SCHEMA = (
    "CREATE TABLE events(n INTEGER PRIMARY KEY, utc_s REAL, payload BLOB NOT NULL)",
    "CREATE TABLE outbox(n INTEGER PRIMARY KEY, importance INTEGER NOT NULL)",
    "CREATE TABLE incidents(device TEXT NOT NULL, code TEXT NOT NULL, body TEXT NOT NULL,"
    " PRIMARY KEY(device, code)) WITHOUT ROWID",
    "CREATE TABLE documents(name TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE commands(id TEXT PRIMARY KEY, utc_s REAL, result BLOB NOT NULL)",
    "CREATE TABLE gaps(why TEXT PRIMARY KEY, first INTEGER NOT NULL, last INTEGER NOT NULL,"
    " count INTEGER NOT NULL, importance INTEGER NOT NULL, room_at INTEGER NOT NULL)"
    " WITHOUT ROWID",
    f"PRAGMA application_id={APPLICATION_ID}",
)
_SALVAGE = {
    "incidents": "SELECT device, code, body FROM incidents",
    "documents": "SELECT name, body FROM documents",
    "commands": "SELECT id, utc_s, result FROM commands",
    "unsent": "SELECT min(n), max(n) FROM outbox",
    "last": "SELECT max(n) FROM events",
}
"""The schedule above all: without it nobody knows when to keep hands off."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An event on its way in: `body` is its JSON object without `n` and `prev`.

    `utc_s` is None where the clock could not be trusted; `beside` is a document (name, body) that
    is kept if the event is, and only then.
    """

    body: bytes
    importance: int
    utc_s: float | None
    opened: Incident | None = None
    closed: Incident | None = None
    beside: tuple[str, bytes] | None = None


def trusted(now: Moment) -> float | None:
    """UTC as far as it is worth keeping: a box without a clock chip boots in the past."""
    return None if now.clock is Clock.UNSYNCED else now.utc_s


class Database:
    """Every method may raise `sqlite3.Error` or `OSError`, and may hang with the disk.

    To write: `begin`, any number of changes, `sweep`, `commit`; `rollback` after an error.
    """

    def __init__(
        self, path: Path, *, max_bytes: int, max_age_s: float, unsent_max: int, busy_s: float
    ) -> None:
        self.gap_open = False
        self._file = File(path, application_id=APPLICATION_ID, busy_s=busy_s)
        self._mark = Mark(path.with_suffix(".n"))
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._unsent_max = unsent_max
        self._floor = 0
        self._n = 0
        self._prev = ""
        self._checked = False
        self._condemned = ""
        self._aged_s = float("-inf")

    # -- life ---------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether there is a connection."""
        return self._file.is_open

    def open(self, now: Moment) -> None:
        """Open or make the file. It is read whole once per process, and replaced when it is
        broken or was condemned; the first event of the new one says so."""
        try:
            self._file.open()
            why = self._condemned or self._file.examine(whole=not self._checked)
            saved: dict[str, Rows] = {}
            if why:
                saved = self._file.salvage(_SALVAGE) if why == "corrupt" else {}
                self._file.set_aside(why)
                self._file.open()
            self._prepare(now, why, saved)
        except BaseException:
            self._file.close()
            raise
        self._checked, self._condemned = True, ""

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def condemn(self) -> None:
        """The file was found broken while in use: the next `open` replaces it."""
        self._condemned = "corrupt"
        self._file.close()

    def _prepare(self, now: Moment, why: str, saved: Mapping[str, Rows]) -> None:
        db = self._file.db
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.execute("PRAGMA journal_size_limit=4194304")
        self._mark.read()
        known = self._file.tables() > 0
        last = self._last()[0] if known else 0
        # No database, or an older copy, where numbers above it may have been published. An empty
        # one of our own is neither: what was never committed was never published.
        lost = self._mark.at - last > BLOCK + 2 * BATCH if known else self._mark.at > 0
        self._floor = self._mark.at if lost else last
        if why and not self._mark.at:  # then the wreck is all there is to know
            seen = (*saved.get("last", ()), *saved.get("unsent", ()))
            self._floor = max((n for row in seen for n in row if isinstance(n, int)), default=0)
        if known and not lost:
            self._look_for_gap()
            return
        db.execute("BEGIN IMMEDIATE")
        if not known:
            self._create(saved)
        self._load()
        if why or lost:
            first = next((row[0] for row in saved.get("unsent", ())), None)
            numbers = {"from": first, "to": self._floor or None}
            self._tell_gap(now, why or ("rolled_back" if known else "missing"), numbers)
        self.commit()

    def _create(self, saved: Mapping[str, Rows]) -> None:
        db = self._file.db
        for statement in _SCHEMA:
            db.execute(statement)
        for table, places in (("incidents", "?,?,?"), ("documents", "?,?"), ("commands", "?,?,?")):
            db.executemany(f"INSERT OR IGNORE INTO {table} VALUES({places})", saved.get(table, ()))

    def _load(self) -> None:
        """Where the chain stands, read inside the transaction that goes on with it."""
        n, payload = self._last()
        self._n = max(n, self._floor)
        self._prev = hashlib.sha256(payload).hexdigest() if n else ""
        self._look_for_gap()

    # -- writing ------------------------------------------------------------------------------

    def begin(self, now: Moment) -> None:
        """Start a transaction. A file that was removed under us is opened anew."""
        if self._file.was_removed():
            log.error("%s was removed while in use", self._file.path)
            self._checked = False
            self.open(now)
        self._file.db.execute("BEGIN IMMEDIATE")
        self._load()

    def _look_for_gap(self) -> None:
        row = self._file.db.execute("SELECT EXISTS(SELECT 1 FROM gaps)").fetchone()
        self.gap_open = bool(row[0])

    def commit(self) -> None:
        """Make it durable."""
        self._file.db.execute("COMMIT")

    def rollback(self) -> None:
        """Forget what was begun, if anything was."""
        if self._file.is_open and self._file.db.in_transaction:
            try:
                self._file.db.execute("ROLLBACK")
            except sqlite3.Error:
                self._file.close()

    def _last(self) -> tuple[int, bytes]:
        row: tuple[int, bytes] | None = self._file.db.execute(
            "SELECT n, payload FROM events ORDER BY n DESC LIMIT 1"
        ).fetchone()
        return row or (0, b"")

    def append(self, entry: Entry) -> int:
        """Number and chain an event, put it into the outbox, open or close its incident."""
        n = self._n + 1
        self._mark.reserve(n)
        payload = b'{"n":%d,"prev":"%s",%s' % (n, self._prev.encode(), entry.body[1:])
        self._file.db.execute("INSERT INTO events VALUES(?,?,?)", (n, entry.utc_s, payload))
        self._file.db.execute("INSERT INTO outbox VALUES(?,?)", (n, entry.importance))
        self.note(entry.opened, entry.closed)
        if entry.beside is not None:
            self.put_document(*entry.beside)
        self._n, self._prev = n, hashlib.sha256(payload).hexdigest()
        return n

    def note(self, opened: Incident | None, closed: Incident | None) -> None:
        """Keep the register of open incidents; one that is open already keeps its date."""
        if opened is not None:
            since = opened.since
            body = {
                "level": opened.level,
                "since": [since.up_s, since.utc_s, since.clock, since.boot],
                "numbers": dict(opened.numbers),
            }
            self._file.db.execute(
                "INSERT OR IGNORE INTO incidents VALUES(?,?,?)",
                (opened.device, opened.code, json.dumps(body)),
            )
        if closed is not None:
            self._file.db.execute(
                "DELETE FROM incidents WHERE device=? AND code=?", (closed.device, closed.code)
            )

    def mark_sent(self, numbers: Collection[int]) -> None:
        """Take events out of the outbox; they stay as the record."""
        self._file.db.executemany("DELETE FROM outbox WHERE n=?", [(n,) for n in sorted(numbers)])

    def put_document(self, name: str, body: bytes) -> None:
        """Keep a document; the same one again costs nothing."""
        self._file.db.execute(
            "INSERT INTO documents VALUES(?,?) ON CONFLICT(name) DO UPDATE SET body=excluded.body"
            " WHERE body IS NOT excluded.body",
            (name, body),
        )

    def put_command(self, id_: str, result: bytes, now: Moment) -> None:
        """Keep the result of a command for a day, and of the last thousand at most."""
        self._file.db.execute(
            "INSERT INTO commands VALUES(?,?,?)"
            " ON CONFLICT(id) DO UPDATE SET result=excluded.result",
            (id_, trusted(now), result),
        )
        if (utc_s := trusted(now)) is not None:
            oldest_s = utc_s - COMMAND_AGE_S
            self._file.db.execute("DELETE FROM commands WHERE utc_s < ?", (oldest_s,))
        self._file.db.execute(
            "DELETE FROM commands WHERE rowid <= (SELECT max(rowid) FROM commands) - ?",
            (COMMANDS_KEPT,),
        )

    def tell_lost(self, now: Moment, count: int, importance: int) -> None:
        """Events that never got a number, because the disk was away for too long."""
        self._tell_gap(now, "memory", {"count": count, "importance": importance})

    def _tell_gap(self, now: Moment, why: str, numbers: Mapping[str, int | None]) -> None:
        event = {
            **common(now),
            "type": "gap",
            "code": "agent.store_gap",
            "level": Level.INFO,
            "why": why,
            "numbers": {k: v for k, v in numbers.items() if v is not None},
        }
        self.append(Entry(encode(event), GAP_IMPORTANCE, trusted(now)))

    # -- bounds -------------------------------------------------------------------------------

    def sweep(self, now: Moment) -> None:
        """Hold the bounds, a small step at a time."""
        waiting = self._file.db.execute("SELECT count(*) FROM outbox").fetchone()[0]
        if waiting > self._unsent_max:
            self._drop(waiting - self._unsent_max)
        elif self.gap_open:
            self._close_gap(now, waiting)
        for _ in range(4):
            if self._used() <= self._max_bytes:
                break
            if not self._prune(self._n) and not self._drop(STEP):
                break
        self._prune_old(now)

    def _drop(self, count: int) -> bool:
        """Give up sending the least important, of those the oldest. The record keeps them; the
        gap grows until the outbox has shrunk by a quarter, and one event tells it then."""
        rows = self._file.db.execute(
            "SELECT n, importance FROM outbox WHERE importance < ? ORDER BY importance, n LIMIT ?",
            (GAP_IMPORTANCE, count),
        ).fetchall()
        if not rows:
            return False
        numbers = [n for n, _ in rows]
        self.mark_sent(numbers)
        self._file.db.execute(
            "INSERT INTO gaps VALUES('overflow',?,?,?,?,(SELECT count(*) * 3 / 4 FROM outbox))"
            " ON CONFLICT(why) DO UPDATE SET"
            " first=min(first, excluded.first), last=max(last, excluded.last),"
            " count=count+excluded.count, importance=max(importance, excluded.importance),"
            " room_at=excluded.room_at",
            (min(numbers), max(numbers), len(rows), rows[-1][1]),
        )
        if not self.gap_open:
            log.warning("outbox full: the least important events are given up")
        self.gap_open = True
        return True

    def _close_gap(self, now: Moment, waiting: int) -> None:
        rows = self._file.db.execute(
            "SELECT why, first, last, count, importance FROM gaps WHERE room_at >= ?", (waiting,)
        ).fetchall()
        for why, first, last, count, importance in rows:
            numbers = {"from": first, "to": last, "count": count, "importance": importance}
            self._tell_gap(now, why, numbers)
        if rows:
            self._file.db.execute("DELETE FROM gaps")
            self.gap_open = False

    def _used(self) -> int:
        """Bytes in use; pages that pruning has freed are used again, the file does not shrink."""
        pages, free, size = (
            self._file.db.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    def _prune(self, upto: int) -> int:
        """Delete the oldest sent events up to a number; never the newest, it holds the chain."""
        return self._file.db.execute(
            "DELETE FROM events WHERE n IN (SELECT n FROM events WHERE n <= ? AND n < ?"
            " AND n NOT IN (SELECT n FROM outbox) ORDER BY n LIMIT ?)",
            (upto, self._n, STEP),
        ).rowcount

    def _prune_old(self, now: Moment) -> None:
        """By age, as far as clocks can be trusted: what stands before an old event is older."""
        utc_s = trusted(now)
        if utc_s is None or now.up_s - self._aged_s < AGE_CHECK_S:
            return
        upto = self._file.db.execute(
            "SELECT max(n) FROM (SELECT n, utc_s FROM events ORDER BY n LIMIT ?) WHERE utc_s < ?",
            (STEP, utc_s - self._max_age_s),
        ).fetchone()[0]
        pruned = self._prune(upto) if upto is not None else 0
        if pruned < STEP // 2:  # else there may be more: look again with the next write
            self._aged_s = now.up_s

    # -- reading ------------------------------------------------------------------------------

    def unsent(self, after: int, limit: int, skip: Collection[int]) -> list[tuple[int, bytes]]:
        """The outbox in the order of numbers, without what is being marked just now."""
        rows = self._file.db.execute(
            "SELECT n, payload FROM outbox JOIN events USING(n) WHERE n > ? ORDER BY n LIMIT ?",
            (after, limit + len(skip)),
        ).fetchall()
        return [(n, payload) for n, payload in rows if n not in skip][:limit]

    def events(self, limit: int, before: int | None) -> list[tuple[int, bytes]]:
        """The record, newest first."""
        return self._file.db.execute(
            "SELECT n, payload FROM events WHERE n < ? ORDER BY n DESC LIMIT ?",
            (2**62 if before is None else before, limit),
        ).fetchall()

    def incidents(self) -> list[Incident]:
        """What is open. A row that makes no sense is left out: the next look opens it again."""
        found = []
        for device, code, body in self._file.db.execute("SELECT * FROM incidents").fetchall():
            try:
                raw = json.loads(body)
                up_s, utc_s, clock, boot = raw["since"]
                since = Moment(float(up_s), float(utc_s), Clock(clock), str(boot))
                level, numbers = Level(raw["level"]), dict(raw["numbers"])
            except (ValueError, TypeError, KeyError):
                log.warning("open incident %s %s cannot be read", device, code)
                continue
            found.append(Incident(device, code, level, since, numbers))
        return found

    def document(self, name: str) -> bytes | None:
        """A document, None where there is none."""
        row = self._file.db.execute("SELECT body FROM documents WHERE name=?", (name,)).fetchone()
        return bytes(row[0]) if row else None

    def command(self, id_: str) -> bytes | None:
        """The result of a command that was remembered, None for a new one."""
        row = self._file.db.execute("SELECT result FROM commands WHERE id=?", (id_,)).fetchone()
        return bytes(row[0]) if row else None
