"""The process that holds relays, lights and the button.

    python -m agent.hands.main --config room.toml --state FOLDER [--socket PATH] [--user NAME]

Under systemd the socket and the lines of an earlier process come with the start; by hand it makes
its socket itself and goes when that is gone. It has no network. SIGTERM makes safe what has to be
and ends it; SIGUSR2 ends it with everything held as it is, for whoever starts it again at once.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import logging
import math
import os
import pwd
import selectors
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agent import __version__, clock, notify
from agent.hands import layout as layouts
from agent.hands.desk import MAX_WAIT_S, Desk
from agent.hands.hardware import KEPT, Hardware
from agent.hands.keeper import Keeper
from agent.hands.layout import Layout
from agent.lanes import wire
from agent.lanes.confine import confine_hands
from agent.model import Fault, Reading, WireError

log = logging.getLogger("hands")

MAX_CLIENTS = 8
LOOK_S = 5.0
"""How often a hands that was started by hand looks whether its folder is still there."""
PLAN_S = 60.0
_CONFIG, _BUSY = 78, 75


def main(arguments: Sequence[str] | None = None) -> int:
    """Hold what the room has, until told to stop. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="agent.hands.main", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the room's file")
    parser.add_argument("--state", type=Path, help="folder of the state file")
    parser.add_argument("--socket", type=Path, help="make this socket (by hand)")
    parser.add_argument("--user", help="the agent's user, who may ask as well")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    handed = notify.handed()
    state = options.state or Path(os.environ.get("STATE_DIRECTORY", "").partition(":")[0] or ".")
    lines, sockets = _sort(handed)
    try:
        listener = _listen(options.socket, sockets)
        users = _users(options.user)
    except OSError as error:
        log.error("%s", error)
        return _BUSY
    layers = confine_hands()
    keeper = Keeper(state)
    layout = plan(options.config) or _kept_layout(keeper)
    if layout is None:
        return _CONFIG
    loop = Loop(listener, users, wire.Hello(wire.PROTO, __version__, os.getpid(), layers))
    hardware = Hardware(watch=loop.watch, handed=lines)
    _advise(hardware, layout)
    desk = Desk(
        layout,
        hardware,
        keeper,
        boot=clock.boot_id(),
        clock=clock.up_s,
        reload=lambda: plan(options.config),
    )
    loop.run(desk, options.socket)
    desk.close()
    return 0


def plan(config: Path) -> Layout | None:
    """The layout of a room.toml, worked out by a child that carries the libraries; None, with the
    mistakes in the log, where there is none."""
    command = [sys.executable, "-P", "-s", "-m", "agent.hands.plan", str(config)]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    try:
        done = subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=PLAN_S, check=False
        )
        if done.returncode == 0:
            return layouts.parse(done.stdout)
        log.error("%s", done.stderr.strip()[-4000:])
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        log.error("%s cannot be worked out: %s", config, error)
    return None


def _kept_layout(keeper: Keeper) -> Layout | None:
    """What was held before: a mistake in room.toml must not drop a relay."""
    kept = keeper.read()
    try:
        layout = layouts.parse(kept.layout)
    except ValueError:
        return None
    log.warning("going on with the relays and lights as they were before")
    return layout


def _advise(hardware: Hardware, layout: Layout) -> None:
    """Says once what is missing, and what would mend it."""
    if hardware.kind == "none" and layout.pins:
        log.warning(
            "no GPIO here (%s): relays, lights and buttons on pins are out of reach; on a Raspberry"
            " Pi be in group gpio, on a laptop simulate them: GPIOZERO_PIN_FACTORY=mock",
            hardware.label,
        )
    elif hardware.kind == "mock":
        log.warning("simulated pins (GPIOZERO_PIN_FACTORY=mock): nothing real is switched")


def _sort(handed: Sequence[tuple[str, int]]) -> tuple[dict[int, int], list[int]]:
    """What was handed over: kept lines by pin, and sockets. Anything else is closed."""
    lines: dict[int, int] = {}
    sockets: list[int] = []
    for name, fd in handed:
        pin = name.removeprefix(KEPT)
        if name.startswith(KEPT) and pin.isdecimal() and int(pin) not in lines:
            lines[int(pin)] = fd
        elif stat.S_ISSOCK(os.fstat(fd).st_mode):
            sockets.append(fd)
        else:
            os.close(fd)
    return lines, sockets


def _listen(path: Path | None, sockets: Sequence[int]) -> socket.socket:
    if sockets:
        listener = socket.socket(fileno=sockets[0])
    elif path is None:
        raise OSError("no socket: start it by its systemd unit, or name one with --socket")
    else:
        lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held till the end of the process
        except BlockingIOError:
            raise OSError(f"another hands is there already: {path}") from None
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(MAX_CLIENTS)
    listener.setblocking(False)
    return listener


def _users(name: str | None) -> frozenset[int]:
    """Who may ask: root, this user, and the agent's."""
    try:
        agent = {pwd.getpwnam(name).pw_uid} if name else set()
    except KeyError:
        raise OSError(f"--user {name}: no such user") from None
    return frozenset({0, os.geteuid()} | agent)


@dataclass(slots=True)
class _Client:
    """Somebody who asks, and the question that waits for news."""

    sock: socket.socket
    pending: bytes = b""
    waiting: wire.Question | None = None
    until_s: float = math.inf
    unsent: bytes = field(default=b"")


class Loop:
    """One thread, one selector: questions, edges, timers, signals."""

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
        feed_s = notify.watchdog_period_s()
        with _signals(self._selector, self._signalled):
            notify.ready("holding relays and lights")
            while not (self._ended or desk.stopping):
                due_s = min(desk.tick(), self._waits_end_s())
                self._news()
                notify.watchdog()
                pauses = [due_s - clock.up_s()]
                if feed_s is not None:
                    pauses.append(feed_s / 2)
                if path is not None:
                    pauses.append(LOOK_S)
                pause_s = min(pauses)
                for key, _ in self._selector.select(max(0.0, min(pause_s, 3_600.0))):
                    key.data()
                self._let_waits_end()
                if path is not None and _identity(path) != own:
                    log.info("%s is gone, and so is what it was for", path)
                    self._ended = True
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

    def _news(self) -> None:
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


if __name__ == "__main__":
    sys.exit(main())
