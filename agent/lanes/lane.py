"""The agent's end of a lane: one question, one answer, one outstanding, a deadline.

A worker that is late or breaks the rules must die; one that does not is quarantined, and its
device with it, until it is gone. Nothing here waits without limit, starts a thread or wakes the
loop while nothing is asked, except for the one idle timer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from agent.clock import up_s
from agent.lanes import wire
from agent.lanes.process import Connection, Process, Unanswered, Worker
from agent.lanes.spawn import Spawn, by_hand, by_socket
from agent.model import Fault, LaneError, Reading

__all__ = ["Connection", "Lane", "Process", "Spawn", "by_hand", "by_socket"]

log = logging.getLogger("agent.lane")

START_S = 45.0
"""How long a worker may take to say hello and to load a kind's libraries. Two that were started at
once by systemd on an emulated, busy box took more than 20 s, and a worker that is ended for being
slow begins at nothing again."""
MAX_PAUSE_S = 60.0
LIFE_S = 1800.0
"""A worker older than this is replaced between two questions, so that nothing it leaks adds up
and a service manager may end any worker that lasts much longer."""
_RESTARTING, _NO_WORKER, _BROKE_RULES = "restarting", "no_worker", "broke_rules"


class Lane:
    """The questions to one worker, which is started when it is needed and ended when idle.

    Concurrent asks wait their turn. After a failure the next start waits 1, 2, 4 ... 60 s, counted
    from when the failed attempt began; an answer that keeps the rules ends the series. An ask takes
    at most 2 s for the worker before it to go, `start_s` to start one, and its own deadline.
    """

    def __init__(
        self,
        spawn: Spawn,
        *,
        name: str,
        idle_s: float = 30.0,
        start_s: float = START_S,
        clock: Callable[[], float] = up_s,
    ) -> None:
        self._spawn = spawn
        self._clock = clock
        self._name = name
        self._idle_s = idle_s
        self._start_s = start_s
        self._lock = asyncio.Lock()
        self._worker: Worker | None = None
        self._since_s = 0.0
        self._hello: wire.Hello | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._number = 0
        self._failures = 0
        self._not_before_s = float("-inf")
        self._closed = False

    @property
    def hello(self) -> wire.Hello | None:
        """How the latest worker introduced itself; None before the first."""
        return self._hello

    @property
    def state(self) -> str:
        """`none`, `running`, `paused` (after a failure) or `quarantined`."""
        worker = self._worker
        if worker is not None and worker.stuck:
            return "quarantined"
        if worker is not None and not worker.leaving:
            return "running"
        return "paused" if self._clock() < self._not_before_s else "none"

    @property
    def clings(self) -> bool:
        """Whether a worker that was told to go is still there: what it had open may be open yet."""
        worker = self._worker
        return worker is not None and worker.leaving and not worker.is_gone()

    async def ask(
        self,
        *,
        device: str,
        kind: str,
        settings: Mapping[str, Any],
        ask: str,
        deadline_s: float,
        words: Collection[str],
    ) -> Reading:
        """The worker's answer, or a reading with the fault that took its place.

        `settings` are plain JSON, `words` the closed list of the kind. `deadline_s` runs from when
        the question is sent (`asked_s`), behind the asks before it and the worker's start. A
        cancelled ask takes the worker with it. Raises `WireError` for a question that cannot be
        written as a line.
        """
        async with self._lock:
            question = wire.Question(self._next(), kind, ask, deadline_s, settings)
            line = wire.encode_question(question)
            if self._idle is not None:
                self._idle.cancel()
            try:
                reading = await self._answer(question, line, words)
            finally:
                self._rest()
            return replace(reading, device=device)

    async def renew(self) -> bool:
        """Lets the worker go, within 3 s and after the ask under way, and forgets its failures: the
        next ask starts a new one at once. False where it does not go: it stays in quarantine."""
        async with self._lock:
            if self._idle is not None:
                self._idle.cancel()
            if (worker := self._worker) is not None:
                worker.retire()
                await worker.settled.wait()
                if not worker.is_gone():
                    return False
                self._worker = None
            self._failures, self._not_before_s = 0, float("-inf")
            return True

    async def close(self) -> None:
        """Ends the worker for good, within 3 s; an ask under way fails."""
        self._closed = True
        if self._idle is not None:
            self._idle.cancel()
        if (worker := self._worker) is not None:
            worker.retire()
            await worker.settled.wait()
            worker.let_go()

    async def _answer(
        self, question: wire.Question, line: bytes, words: Collection[str]
    ) -> Reading:
        """Two tries: a worker may say that a device came which only a new worker may open."""
        reading = Reading()
        for _ in range(2):
            asked_s = self._clock()
            worker = await self._ready(question.kind)
            if isinstance(worker, Reading):
                return replace(worker, asked_s=asked_s, took_s=self._clock() - asked_s)
            asked_s = self._clock()
            try:
                reading = await worker.put(question, line, words)
            except Unanswered as failure:
                reading = replace(self._failed(failure.why, asked_s), active=True)
            else:
                self._failures = 0
            reading = replace(reading, asked_s=asked_s, took_s=self._clock() - asked_s)
            if reading.why != _RESTARTING:
                break
            worker.retire()
        return reading

    async def _ready(self, kind: str) -> Worker | Reading:
        """A worker that has this kind loaded, or the reading that says why there is none."""
        worker = self._worker
        if self._closed:
            return Reading(fault=Fault.ERROR, why=_NO_WORKER)
        if worker is not None:
            worker.listen()  # it may have died since the loop looked
            if worker.leaving:
                await worker.settled.wait()
                if not worker.is_gone():
                    return Reading(fault=Fault.QUARANTINED, why=worker.cause)
                worker = self._worker = None
        if worker is None and self._clock() < self._not_before_s:
            return Reading(fault=Fault.NO_ANSWER, why=_RESTARTING)
        began_s = self._clock()
        try:
            async with asyncio.timeout(self._start_s):
                worker = worker or await self._start()
                if kind not in worker.prepared:
                    await self._prepare(worker, kind)
        except (LaneError, TimeoutError) as error:
            log.info("%s: no worker: %s", self._name, error or "late")
            return self._failed(_NO_WORKER, began_s)
        except Unanswered as failure:
            why = failure.why if failure.why == _BROKE_RULES else _NO_WORKER
            return self._failed(why, began_s)
        return worker

    async def _start(self) -> Worker:
        connection = await self._spawn()
        worker = self._worker = Worker(self._name, connection)
        self._since_s = self._clock()
        if self._closed:  # meanwhile
            worker.kill()
        self._hello = await worker.introduce()
        return worker

    async def _prepare(self, worker: Worker, kind: str) -> None:
        """Has the kind's libraries loaded. Where that fails, the question itself will tell."""
        question = wire.Question(self._next(), kind, "prepare", self._start_s, {})
        await worker.put(question, wire.encode_question(question), ())
        worker.prepared.add(kind)

    def _failed(self, why: str, began_s: float) -> Reading:
        """Notes a failure of the worker and gives the reading for it."""
        self._not_before_s = began_s + min(MAX_PAUSE_S, 2.0 ** min(self._failures, 6))
        self._failures += 1
        error = why in (_NO_WORKER, _BROKE_RULES)
        return Reading(fault=Fault.ERROR if error else Fault.NO_ANSWER, why=why)

    def _rest(self) -> None:
        """After an ask: lets an old worker go, and arms the one timer for an idle one."""
        worker = self._worker
        if worker is None or worker.leaving:
            return
        if self._clock() - self._since_s > LIFE_S:
            worker.retire()
            return
        loop = asyncio.get_running_loop()
        self._idle = loop.call_at(loop.time() + self._idle_s, worker.retire)

    def _next(self) -> int:
        self._number += 1
        return self._number
