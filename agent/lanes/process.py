"""One worker as the agent sees it: from its start until it is gone.

Driven by the loop's events alone: no thread, no child watcher, no waiting without limit. A worker
that must die gets SIGABRT, a second later SIGKILL, and is given up another second later.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from agent.lanes import wire
from agent.model import Reading, WireError

log = logging.getLogger("agent.lane")

KILL_S = 1.0
"""Between end of file, SIGABRT, SIGKILL and giving up."""
MAX_TAIL = 8192
MAX_NOISE = 1 << 20
"""Bytes on standard error during one question; more is a flood that costs the agent its time."""


class Process(Protocol):
    """A worker as the lane sees it, however it was started."""

    pid: int
    fd: int | None
    """Becomes readable when the process ends (a pidfd); the lane closes it. None: not to be had."""

    def met(self, pid: int) -> None:
        """The worker said hello and gave this pid."""
        ...

    def send_signal(self, number: int) -> None:
        """Sends a signal if that is allowed; raises nothing."""
        ...

    def gone(self) -> bool:
        """Whether it is gone and reaped. Never blocks."""
        ...


@dataclass(frozen=True, slots=True)
class Connection:
    """A worker that was started: the lane's socket, its standard error, the process."""

    sock: socket.socket
    process: Process
    stderr: int | None = None


class Unanswered(Exception):
    """There is no answer; `why` is a word of `wire.WHY_WORDS`."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Worker:
    """One worker process, from its start until it is gone; driven by the loop's events."""

    def __init__(self, name: str, connection: Connection) -> None:
        self.prepared: set[str] = set()
        self.settled = asyncio.Event()  # gone, or given up
        self.leaving = False
        self.cause = "died"
        self.tail = b""  # of what it said on standard error
        self._name = name
        self._gone = False
        self._sock = connection.sock
        self._stderr = connection.stderr
        self._process = connection.process
        self._watched: int | None = None
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._waiter: asyncio.Future[bytes] | None = None
        self._pending = b""
        self._noise = 0
        self._sock.setblocking(False)
        self._loop.add_reader(self._sock, self.listen)
        if self._stderr is not None:
            os.set_blocking(self._stderr, False)
            self._loop.add_reader(self._stderr, self._drain)
        self._watch()

    @property
    def stuck(self) -> bool:
        """Given up and still there."""
        return self.settled.is_set() and not self._gone

    async def introduce(self) -> wire.Hello:
        """Its hello. Raises `Unanswered`; then, or if cancelled, the worker dies."""
        try:
            hello = wire.decode_hello(await self._exchange(b"", None))
        except WireError as error:
            raise self._disgraced(error) from None
        self._process.met(hello.pid)
        self._watch()
        return hello

    async def put(self, question: wire.Question, line: bytes, words: Collection[str]) -> Reading:
        """The answer to a question. Raises `Unanswered`; then, or if cancelled, the worker dies."""
        self._noise = 0
        answer = await self._exchange(line, question.deadline_s)
        try:
            return wire.decode(answer, words, number=question.id, ask=question.ask)
        except WireError as error:
            raise self._disgraced(error) from None

    def listen(self) -> None:
        """Takes what has come in, without waiting; what is not an answer ends the worker."""
        if self.leaving:
            return
        try:
            data = self._sock.recv(wire.MAX_LINE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        waiter = self._waiter
        if not data:
            self._break("died")
        elif waiter is None or waiter.done():  # nobody asked
            self._break("broke_rules")
        else:
            self._pending += data
            head, end, rest = self._pending.partition(b"\n")
            if rest or len(head) >= wire.MAX_LINE:
                self._break("broke_rules")
            elif end:
                self._pending = b""
                waiter.set_result(head + end)

    def kill(self) -> None:
        """Starts the end of the worker: two signals at most, then it is given up."""
        if not self.leaving:
            log.info("%s: worker %d: %s", self._name, self._process.pid, self.cause)
            self._leave()
            self._step(signal.SIGABRT, signal.SIGKILL)

    def retire(self) -> None:
        """Lets an idle worker go by end of file; one that stays is killed."""
        if not self.leaving:
            self._leave()
            self._timer = self._loop.call_later(KILL_S, self._step, signal.SIGABRT, signal.SIGKILL)

    def is_gone(self) -> bool:
        """Whether the process is gone and reaped; tries, never blocks."""
        if self._gone:
            return True
        if not self._process.gone():
            return False
        if self.stuck:
            log.warning("%s: worker %d is gone at last", self._name, self._process.pid)
        self._gone = True
        self.listen()  # its last answer may still be in the socket
        if not self.leaving:
            self._leave()
        self.let_go()
        self.settled.set()
        return True

    def let_go(self) -> None:
        """Closes everything that leads to the worker, gone or not."""
        if self._timer is not None:
            self._timer.cancel()
        self._unwatch()
        if self._stderr is not None:
            self._drain()
            self._loop.remove_reader(self._stderr)
            os.close(self._stderr)
            self._stderr = None
        if self._process.fd is not None:
            os.close(self._process.fd)
            self._process.fd = None
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock)
            self._sock.close()

    async def _exchange(self, line: bytes, within_s: float | None) -> bytes:
        """Sends a line, waits for the one that comes back. Raises `Unanswered`."""
        if self.leaving:
            raise Unanswered(self.cause)
        waiter: asyncio.Future[bytes] = self._loop.create_future()
        self._waiter = waiter
        try:
            async with asyncio.timeout(within_s):
                if line:
                    self._send(line)
                answer = await waiter
        except TimeoutError:
            self.cause = "deadline"
            self.kill()
            raise Unanswered("deadline") from None
        except BaseException:  # cancelled: its answer must not pass for the next one
            self.kill()
            raise
        finally:
            self._waiter = None
        if self.cause == "broke_rules":  # it said more than the answer
            raise Unanswered(self.cause)
        return answer

    def _send(self, line: bytes) -> None:
        try:
            sent = self._sock.send(line)
        except OSError:
            sent = 0
        if sent != len(line):  # one outstanding: the buffer was empty, so nobody is there
            self._break("died")

    def _disgraced(self, error: WireError) -> Unanswered:
        log.warning("%s: worker %d: %s", self._name, self._process.pid, error)
        self._break("broke_rules")
        return Unanswered("broke_rules")

    def _break(self, cause: str) -> None:
        self.cause = cause
        self.kill()

    def _leave(self) -> None:
        """No answer is taken any more, and the worker sees the end of file."""
        self.leaving = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(Unanswered(self.cause))
        self._loop.remove_reader(self._sock)
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
        if self._stderr is not None:  # its last words wait in the pipe
            self._loop.remove_reader(self._stderr)

    def _step(self, *signals: int) -> None:
        """Sends the first signal now and the next later; after the last gives up."""
        if self.is_gone():
            return
        if not signals:
            log.error("%s: worker %d will not die: quarantine", self._name, self._process.pid)
            self.settled.set()
            return
        self._process.send_signal(signals[0])
        self._timer = self._loop.call_later(KILL_S, self._step, *signals[1:])

    def _watch(self) -> None:
        if self._watched is None and self._process.fd is not None:
            self._watched = self._process.fd
            self._loop.add_reader(self._watched, self._ended)

    def _unwatch(self) -> None:
        if self._watched is not None:
            self._loop.remove_reader(self._watched)
            self._watched = None

    def _ended(self) -> None:
        if not self.is_gone():  # never a loop over a descriptor that stays readable
            self._unwatch()

    def _drain(self) -> None:
        """Takes what is on standard error, keeps the end of it, and stops a flood."""
        if self._stderr is None:
            return
        try:
            data = os.read(self._stderr, 65536)
        except BlockingIOError:
            return
        if not data:
            self._loop.remove_reader(self._stderr)
            return
        self.tail = (self.tail + data)[-MAX_TAIL:]
        if log.isEnabledFor(logging.DEBUG):
            for text in data[-MAX_TAIL:].decode("ascii", "backslashreplace").splitlines():
                log.debug("%s: %s", self._name, text)
        self._noise += len(data)
        if self._noise > MAX_NOISE and not self.leaving:
            self._break("broke_rules")
