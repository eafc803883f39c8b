"""The store: numbered events, open incidents, documents and command ids, safe on disk.

One daemon thread owns the database, and the event loop never waits for it except by `await`: a disk
that is full, read-only or hung costs durability, not the agent. What cannot be written waits in
memory, is tried again, and `failing` and `pending_age_s` say so.

SD cards wear out by small synchronous writes, so what is queued shares one transaction, and what is
not urgent (events of importance 0, the marks of sent events) waits up to `linger_s` for company.
Nothing is acknowledged before it is durable (WAL, synchronous=FULL).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import math
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from agent.link.contract import encode
from agent.model import Incident, Moment, StoreError
from agent.store.database import BATCH, Database, Entry, trusted
from agent.store.file import is_broken

log = logging.getLogger("agent.store")

T = TypeVar("T")

MARKS_MAX = 500
MARKS_LINGERS = 12
"""Marks wait this many lingers for company: to send twice is no loss, to wake a disk is."""
RETRY_MAX_S = 30.0
_SQLITE_WORDS = {
    sqlite3.SQLITE_FULL: "full",
    sqlite3.SQLITE_READONLY: "read_only",
    sqlite3.SQLITE_PERM: "not_permitted",
    sqlite3.SQLITE_BUSY: "busy",
    sqlite3.SQLITE_LOCKED: "busy",
    sqlite3.SQLITE_CANTOPEN: "no_file",
}
_ERRNO_WORDS = {
    errno.ENOSPC: "full",
    errno.EDQUOT: "full",
    errno.EFBIG: "full",
    errno.EROFS: "read_only",
    errno.EACCES: "not_permitted",
    errno.EPERM: "not_permitted",
    errno.EEXIST: "no_file",
    errno.ENOENT: "no_file",
    errno.ENOTDIR: "no_file",
}


def trouble(error: Exception) -> str:
    """Why the disk did not take it, as a closed word for `Store.failing`."""
    if is_broken(error):
        return "corrupt"
    if isinstance(error, OSError):
        return _ERRNO_WORDS.get(error.errno or 0, "io_error")
    return _SQLITE_WORDS.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, "io_error")


def _of_the_disk(error: Exception) -> bool:
    """Whether an error is the disk's or the file's fault, and not that of what was asked."""
    if isinstance(error, sqlite3.Error):
        asked = sqlite3.IntegrityError | sqlite3.InterfaceError | sqlite3.ProgrammingError
        return not isinstance(error, asked | sqlite3.DataError)
    return isinstance(error, OSError)


@dataclass(slots=True, eq=False)
class _Job:
    """One request: `work` runs in the store's thread, what it gives goes to `future`."""

    work: Callable[[Database], Any]
    future: asyncio.Future[Any] | None = None
    asked_s: float = 0.0
    event: Entry | None = None
    incident: tuple[str, str] | None = None


Answer = tuple[_Job, Any, Exception | None]


class Store:
    """The store of one room, in the file `path`; beside it `.n` remembers the numbers used.

    `clock` is called from the store's thread too. Sent events are kept as the record for
    `max_age_s` and up to `max_bytes`; at most `unsent_max` wait to be sent, and `memory_max` for
    a disk that takes nothing. `linger_s` bounds how long what is not urgent waits for company,
    `retry_s` is the first pause after a failure (they grow to 30 s), `busy_s` the patience with
    somebody else who holds the file, `answer_s` the patience of a question.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], Moment],
        max_bytes: int = 64 * 1024 * 1024,
        max_age_s: float = 90 * 86_400.0,
        unsent_max: int = 20_000,
        linger_s: float = 5.0,
        retry_s: float = 1.0,
        busy_s: float = 2.0,
        answer_s: float = 10.0,
        memory_max: int = 2_000,
    ) -> None:
        self._clock = clock
        self._linger_s = linger_s
        self._retry_s = retry_s
        self._answer_s = answer_s
        self._memory_max = memory_max
        self._database = Database(
            path, max_bytes=max_bytes, max_age_s=max_age_s, unsent_max=unsent_max, busy_s=busy_s
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = asyncio.Event()
        self._asked: dict[_Job, None] = {}  # not answered yet, oldest first; the loop's own
        # The thread's own:
        self._failing = ""
        self._pause_s = retry_s
        self._retry_at_s = 0.0
        # Shared, under `_wake`; times on the monotonic clock:
        self._wake = threading.Condition()
        self._writes: deque[_Job] = deque()
        self._reads: deque[_Job] = deque()
        self._marks: set[int] = set()
        self._lost = (0, 0)
        self._due_s = math.inf
        self._stopping = False

    # -- the loop's side ------------------------------------------------------------------------

    @property
    def failing(self) -> str:
        """Why the disk takes nothing (`full`, `read_only`, `busy`, ...); "" while it does."""
        return self._failing

    def pending_age_s(self, now_up_s: float) -> float:
        """How long the oldest unanswered request has waited, in seconds; 0 without any. A disk
        that hangs raises no error: this is what tells."""
        oldest = next(iter(self._asked), None)
        return max(0.0, now_up_s - oldest.asked_s) if oldest else 0.0

    async def open(self, timeout_s: float = 10.0) -> None:
        """Start the thread and wait for the first attempt, which `failing` tells about. On a
        disk that hangs the attempt goes on behind our back."""
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._serve, name="store", daemon=True).start()
        with contextlib.suppress(StoreError):
            await self._ask(lambda db: None, timeout_s)

    async def close(self, timeout_s: float) -> bool:
        """Write what waits, if the disk takes it, and stop. Answers whether all of it is safe;
        never later than `timeout_s`, also when the disk hangs."""
        if self._loop is None:
            return True
        with self._wake:
            self._stopping = True
            self._wake.notify()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._ended.wait()
        safe = self._ended.is_set() and not self._asked and not self._marks
        if not safe:
            log.error("store closed with %d requests unanswered", len(self._asked))
        gone = StoreError("the store was closed before the disk took it")
        self._settle([(j, 0, None) if j.event else (j, None, gone) for j in list(self._asked)])
        return safe

    async def record(
        self,
        event: Mapping[str, Any],
        *,
        importance: int = 1,
        opened: Incident | None = None,
        closed: Incident | None = None,
    ) -> int:
        """Number and keep an event (its payload without `n` and `prev`), and open or close its
        incident in the same transaction. Returns its number when it is durable; 0 when it had to
        be given up, which a gap event will tell. Raises `ValueError` for what may not leave the
        room (`contract.encode`), and nothing else: a disk that fails is waited for."""
        return await self.post(event, importance=importance, opened=opened, closed=closed)

    def post(
        self,
        event: Mapping[str, Any],
        *,
        importance: int = 1,
        opened: Incident | None = None,
        closed: Incident | None = None,
        beside: tuple[str, bytes] | None = None,
    ) -> asyncio.Future[int]:
        """`record` for those who do not wait: the event is in the queue when this returns, and
        queued events keep their order. Importance 0 waits up to `linger_s` for company. `beside`
        is a document (name, body) that is kept in the same transaction."""
        now = self._clock()
        entry = Entry(encode(event), importance, trusted(now), opened, closed, beside)
        lazy_s = self._linger_s if importance <= 0 else 0.0
        job = _Job(lambda db: db.append(entry), event=entry)
        future = self._write(job, now.up_s, lazy_s)
        self._shed()
        return future

    async def unsent(self, after: int, limit: int) -> list[tuple[int, bytes]]:
        """Events that wait to be sent: number and exact payload, in the order of numbers.
        Raises `StoreError` when the disk does not answer, as every question here does."""

        def work(db: Database) -> list[tuple[int, bytes]]:
            with self._wake:
                marks = frozenset(self._marks)
            return db.unsent(after, limit, marks)

        return await self._ask(work)

    async def mark_sent(self, numbers: Iterable[int]) -> None:
        """Events that the broker has: they are not given out again. On disk within a minute;
        after a crash before that they are sent again, and recognised by their number."""
        with self._wake:
            self._marks.update(numbers)
            urgent = self._database.gap_open or len(self._marks) >= MARKS_MAX
            self._hurry(0.0 if urgent else MARKS_LINGERS * self._linger_s)

    async def open_incidents(self) -> list[Incident]:
        """The incidents that are open."""
        return await self._ask(Database.incidents)

    async def events(self, limit: int, before: int | None = None) -> list[tuple[int, bytes]]:
        """The record, newest first: at most `limit` events with numbers below `before`."""
        return await self._ask(lambda db: db.events(limit, before))

    async def document(self, name: str) -> bytes | None:
        """A document as it was put, None where there is none."""
        return await self._ask(lambda db: db.document(name))

    async def put_document(self, name: str, body: bytes) -> None:
        """Keep a document; returns when it is durable. Raises `StoreError` only when the store
        is closed before."""
        await self._write(_Job(lambda db: db.put_document(name, body)), self._clock().up_s)

    async def seen_command(self, id_: str) -> bytes | None:
        """The result of a command that was remembered in the last day, None for a new one."""
        return await self._ask(lambda db: db.command(id_))

    async def remember_command(self, id_: str, result: bytes) -> None:
        """Keep the result of a command, or replace it; durable when this returns."""
        now = self._clock()
        await self._write(_Job(lambda db: db.put_command(id_, result, now)), now.up_s)

    def _write(self, job: _Job, asked_s: float, lazy_s: float = 0.0) -> asyncio.Future[Any]:
        future = self._expect(job, asked_s + lazy_s)
        with self._wake:
            if self._stopping:
                gone = None if job.event else StoreError("the store is closed")
                self._settle([(job, 0, gone)])
                return future
            self._writes.append(job)
            self._hurry(lazy_s)
        return future

    async def _ask(self, work: Callable[[Database], T], timeout_s: float | None = None) -> T:
        job = _Job(work)
        future = self._expect(job, self._clock().up_s)
        with self._wake:
            self._reads.append(job)
            self._wake.notify()
        try:
            async with asyncio.timeout(self._answer_s if timeout_s is None else timeout_s):
                answer: T = await future
                return answer
        except TimeoutError:
            raise StoreError("the disk does not answer") from None
        finally:
            with self._wake:
                if job in self._reads:  # the thread never came to it
                    self._reads.remove(job)
                    self._asked.pop(job, None)

    def _expect(self, job: _Job, asked_s: float) -> asyncio.Future[Any]:
        assert self._loop is not None, "open the store first"
        job.asked_s = asked_s
        job.future = self._loop.create_future()
        self._asked[job] = None
        return job.future

    def _hurry(self, within_s: float) -> None:
        self._due_s = min(self._due_s, time.monotonic() + within_s)
        self._wake.notify()

    def _shed(self) -> None:
        """Bound what waits in memory: the least important event goes, of those the oldest. What
        it said about an incident stays, in its place: the register must come right."""
        with self._wake:
            if len(self._writes) <= self._memory_max:
                return
            events = [(j.event.importance, i, j) for i, j in enumerate(self._writes) if j.event]
            events.sort(key=lambda e: e[:2])
            for importance, _, job in events[: max(0, len(events) - self._memory_max)]:
                self._lost = (self._lost[0] + 1, max(self._lost[1], importance))
                self._settle([(job, 0, None)])
                self._forget(job)

    def _forget(self, job: _Job) -> None:
        entry = job.event
        assert entry is not None
        touched = entry.opened or entry.closed
        if touched is None:
            self._writes.remove(job)
            return
        job.work = partial(Database.note, opened=entry.opened, closed=entry.closed)
        job.event, job.future = None, None
        job.incident = (touched.device, touched.code)
        for older in [j for j in self._writes if j.incident == job.incident][:-1]:
            self._writes.remove(older)

    def _settle(self, answers: Iterable[Answer]) -> None:
        for job, result, error in answers:
            self._asked.pop(job, None)
            if job.future is None or job.future.done():
                continue
            if error is None:
                job.future.set_result(result)
            else:
                job.future.set_exception(error)

    # -- the thread's side ----------------------------------------------------------------------

    def _serve(self) -> None:
        going = True
        while going:
            with self._wake:
                while (pause_s := self._rest_s()) > 0:
                    self._wake.wait(pause_s if math.isfinite(pause_s) else None)
                stopping = self._stopping
                jobs, marks, lost = self._take()
                reads = list(self._reads)
                self._reads.clear()
            if jobs or marks or lost[0]:
                self._commit(jobs, marks, lost)
            self._report([self._answer(job) for job in reads])
            with self._wake:
                idle = not (self._writes or self._marks or self._reads)
                going = not stopping or not (idle or self._failing)
        self._database.close()
        self._call(self._ended.set)

    def _rest_s(self) -> float:
        """How long there is nothing to do."""
        if self._stopping or self._reads:
            return 0.0
        return max(self._due_s, self._retry_at_s) - time.monotonic()

    def _take(self) -> tuple[list[_Job], set[int], tuple[int, int]]:
        """What shall be written now."""
        if not self._stopping and max(self._due_s, self._retry_at_s) > time.monotonic():
            return [], set(), (0, 0)
        jobs = [self._writes.popleft() for _ in range(min(BATCH, len(self._writes)))]
        marks, self._marks = self._marks, set()
        lost, self._lost = self._lost, (0, 0)
        self._due_s = 0.0 if self._writes else math.inf
        return jobs, marks, lost

    def _give_back(self, jobs: list[_Job], marks: set[int], lost: tuple[int, int]) -> None:
        with self._wake:
            self._writes.extendleft(reversed(jobs))
            self._marks |= marks
            self._lost = (self._lost[0] + lost[0], max(self._lost[1], lost[1]))
            self._due_s = 0.0

    def _commit(self, jobs: list[_Job], marks: set[int], lost: tuple[int, int]) -> None:
        """One transaction, whole or not at all; what failed goes back to the queue."""
        db = self._database
        answers: list[Answer] = []
        job: _Job | None = None
        try:
            now = self._clock()
            if not db.is_open:
                db.open(now)
            db.begin(now)
            if lost[0]:
                db.tell_lost(now, *lost)
            for job in jobs:
                result = job.work(db)
                answers.append((job, result, None))
            job = None
            db.mark_sent(marks)
            db.sweep(now)
            db.commit()
        except Exception as error:
            if job is None or _of_the_disk(error):
                self._fail(error)
            else:  # a request that no disk would take must not hold up the others
                db.rollback()
                log.exception("a request to the store cannot be done")
                jobs.remove(job)
                self._report([(job, None, StoreError(f"cannot be stored: {error}"))])
            self._give_back(jobs, marks, lost)
        else:
            self._heal()
            self._report(answers)

    def _answer(self, job: _Job) -> Answer:
        db = self._database
        try:
            if not db.is_open:
                db.open(self._clock())
            result = job.work(db)
        except Exception as error:
            self._fail(error)
            return job, None, StoreError(f"the disk does not answer: {error}")
        with self._wake:
            waiting = self._writes or self._marks
        if not waiting:
            self._heal()
        return job, result, None

    def _fail(self, error: Exception) -> None:
        """Back to a known state; the next attempt after a pause that grows."""
        self._database.rollback()
        word = trouble(error)
        if word == "corrupt":
            self._database.condemn()
        elif word not in ("busy", "full"):
            self._database.close()
        if word != self._failing:
            log.error("the store does not work (%s): %s", word, error)
        self._failing = word
        self._retry_at_s = time.monotonic() + self._pause_s
        self._pause_s = min(2 * self._pause_s, RETRY_MAX_S)

    def _heal(self) -> None:
        if self._failing:
            log.warning("the store works again (was %s)", self._failing)
        self._failing = ""
        self._retry_at_s = 0.0
        self._pause_s = self._retry_s

    def _report(self, answers: list[Answer]) -> None:
        if answers:
            self._call(partial(self._settle, answers))

    def _call(self, what: Callable[[], None]) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(what)
