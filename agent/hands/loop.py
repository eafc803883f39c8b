"""The loop of hands: one thread, one selector for questions, edges, timers and signals."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import selectors
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from agent import clock, notify
from agent.hands.desk import MAX_WAIT_S, Desk
from agent.lanes import wire
from agent.model import Fault, Reading, WireError

log = logging.getLogger("hands")

MAX_CLIENTS = 8
LOOK_S = 5.0
"""How often a hands that was started by hand looks whether its folder is still there."""


@dataclass(slots=True)
class _Client:
    """Somebody who asks, and the question that waits for news."""

    sock: socket.socket
    pending: bytes = b""
    waiting: wire.Question | None = None
    until_s: float = math.inf


class Loop:
    """Serves those who ask, and does what is due."""

    def __init__(self, listener: socket.socket, users: frozenset[int], hello: wire.Hello) -> None:
        self._selector = selectors.DefaultSelector()
        self._listener = listener
        self._users = users
        self._hello = wire.encode_hello(hello)
        self._clients: dict[int, _Client] = {}
        self._ended = False
        self._selector.register(listener, selectors.EVENT_READ, self._accept)

    def watch(self, fd: int, callback: Callable[[], None] | None) -> None:
        """Call back when a descriptor is readable; None ends it."""
        with contextlib.suppress(KeyError):
            self._selector.unregister(fd)
        if callback is not None:
            self._selector.register(fd, selectors.EVENT_READ, callback)

    def run(self, desk: Desk, path: Path | None) -> None:
        """Serve until told to stop. By hand (`path`) also until the socket's folder is gone."""
        self._desk = desk
        own = _identity(path)
        look_s = math.inf if path is None else LOOK_S
        feed_s = (notify.watchdog_period_s() or math.inf) / 2
        fed_s = looked_s = clock.up_s()
        with _signals(self._selector, self._signalled):
            notify.ready("holding relays and lights")
            while not (self._ended or desk.stopping):
                due_s = desk.tick()
                self._tell_news()
                now_s = clock.up_s()
                if now_s >= fed_s + feed_s / 2:  # not with every question, it costs PID 1 time
                    notify.watchdog()
                    fed_s = now_s
                due_s = min(due_s, self._waits_end_s(), fed_s + feed_s, looked_s + look_s)
                for key, _ in self._selector.select(max(0.0, min(due_s - now_s, 3_600.0))):
                    key.data()
                self._let_waits_end()
                if clock.up_s() >= looked_s + look_s:
                    looked_s = clock.up_s()
                    self._ended = self._ended or _is_gone(path, own)
            notify.stopping()
        for client in list(self._clients.values()):
            self._drop(client)
        self._listener.close()
        if path is not None and _identity(path) == own:
            path.unlink()

    def _signalled(self, number: int) -> None:
        if number == signal.SIGUSR2:
            log.info("handing over: everything stays as it is")
            self._ended = True
        else:
            self._desk.stop(clock.up_s())

    # -- clients -------------------------------------------------------------------------------

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        _, uid, _ = struct.unpack("3i", raw)
        if uid not in self._users or len(self._clients) >= MAX_CLIENTS:
            log.warning("uid %d may not ask, or too many do", uid)
            sock.close()
            return
        sock.setblocking(False)
        client = _Client(sock)
        self._clients[sock.fileno()] = client
        self._selector.register(sock, selectors.EVENT_READ, lambda: self._hear(client))
        self._send(client, self._hello)

    def _hear(self, client: _Client) -> None:
        try:
            data = client.sock.recv(65_536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(client)
            return
        *lines, client.pending = (client.pending + data).split(b"\n")
        if len(client.pending) > wire.MAX_QUESTION:
            log.warning("a question without an end")
            self._drop(client)
            return
        for line in lines:
            if client.sock.fileno() >= 0:
                self._ask(client, line)

    def _ask(self, client: _Client, line: bytes) -> None:
        try:
            question = wire.decode_question(line)
        except WireError as error:
            log.warning("no question: %s", error)
            self._drop(client)
            return
        if client.waiting is not None:  # one question at a time: this ends the one that waits
            self._say(client, client.waiting, Reading())
            client.waiting = None
        reading = self._desk.answer(question)
        if reading is not None:
            self._say(client, question, reading)
            return
        within_s = min(float(question.settings.get("within_s", 0.0)), MAX_WAIT_S)
        client.waiting, client.until_s = question, clock.up_s() + within_s

    def _waits_end_s(self) -> float:
        return min((c.until_s for c in self._clients.values() if c.waiting), default=math.inf)

    def _tell_news(self) -> None:
        """Answer those who wait, if something has happened."""
        for client in [c for c in self._clients.values() if c.waiting]:
            assert client.waiting is not None
            reading = self._desk.answer(client.waiting)
            if reading is not None:
                self._say(client, client.waiting, reading)
                client.waiting = None

    def _let_waits_end(self) -> None:
        now_s = clock.up_s()
        for client in list(self._clients.values()):
            if client.waiting is not None and now_s >= client.until_s:
                self._say(client, client.waiting, Reading())
                client.waiting = None

    def _say(self, client: _Client, question: wire.Question, reading: Reading) -> None:
        try:
            line = wire.encode(question.id, reading)
        except WireError as error:
            log.error("%s %s: %s", question.kind, question.ask, error)
            line = wire.encode(question.id, Reading(fault=Fault.ERROR, why="exception"))
        self._send(client, line)

    def _send(self, client: _Client, line: bytes) -> None:
        """An answer is far smaller than a socket's buffer: who does not take it is not there."""
        try:
            sent = client.sock.send(line)
        except OSError:
            sent = 0
        if sent != len(line):
            self._drop(client)

    def _drop(self, client: _Client) -> None:
        if client.sock.fileno() >= 0:
            self._clients.pop(client.sock.fileno(), None)
            self._selector.unregister(client.sock)
            client.sock.close()
        client.waiting = None


def _is_gone(path: Path | None, own: tuple[int, int] | None) -> bool:
    gone = _identity(path) != own
    if gone:
        log.info("%s is gone, and so is what it was for", path)
    return gone


def _identity(path: Path | None) -> tuple[int, int] | None:
    if path is None:
        return None
    try:
        info = path.stat()
    except OSError:
        return None
    return info.st_dev, info.st_ino


@contextlib.contextmanager
def _signals(selector: selectors.BaseSelector, callback: Callable[[int], None]) -> Iterator[None]:
    """Signals become events of the loop; elsewhere than in the main thread there are none."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = signal.set_wakeup_fd(writer)

    def read() -> None:
        for number in os.read(reader, 64):
            callback(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
        signal.signal(number, lambda *_: None)
    selector.register(reader, selectors.EVENT_READ, read)
    try:
        yield
    finally:
        selector.unregister(reader)
        signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)
