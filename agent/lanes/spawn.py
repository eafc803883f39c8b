"""The two ways to a worker: a plain child by hand, a connection to the service manager's socket."""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path

from agent.lanes.process import Connection
from agent.model import LaneError

log = logging.getLogger("agent.lane")

Spawn = Callable[[], Awaitable[Connection]]
"""Starts a worker. Raises `LaneError`."""
SOCKETS = Path("/run/hearing-room-senses")
"""Where the service manager listens for those who want a worker: `senses.sock`, and one socket for
each camera on the network, `netcam-ID.sock`."""


def by_hand(
    variant: str = "senses", ports: Sequence[int] = (), argv: Sequence[str] | None = None
) -> Spawn:
    """Workers as plain children of this process; `argv` is another program than the worker.

    A child has its own session, no descriptor but the lane and standard error, and none of this
    process's environment: no secret reaches it.
    """
    worker = [sys.executable, "-P", "-s", "-m", "agent.lanes.worker", "--variant", variant]
    worker += [word for port in ports for word in ("--port", str(port))]
    command = list(argv) if argv is not None else worker

    async def spawn() -> Connection:
        ours, theirs = socket.socketpair()
        reader, writer = os.pipe()
        try:
            child = subprocess.Popen(  # noqa: ASYNC220 - back as soon as the program has started
                command,
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=writer,
                cwd="/",
                env=_environment(),
                start_new_session=True,
                close_fds=True,
            )
        except (OSError, ValueError) as error:
            ours.close()
            os.close(reader)
            raise LaneError(f"cannot start {command[0]}: {error}") from error
        finally:
            theirs.close()
            os.close(writer)
        return Connection(ours, _Child(child), reader)

    return spawn


def by_socket(path: Path) -> Spawn:
    """Workers of the service manager: one for each connection to its socket (`Accept=yes`).

    They belong to another user. They are not signalled: end of file or the timer that they armed
    themselves ends them, and the pid of the hello tells when.
    """

    async def spawn() -> Connection:
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        try:
            sock.connect(str(path))
        except OSError as error:
            sock.close()
            raise LaneError(f"cannot connect to {path}: {error}") from error
        return Connection(sock, _Elsewhere(sock))

    return spawn


def _environment() -> dict[str, str]:
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": "/nonexistent",
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYDANTIC_DISABLE_PLUGINS": "1",  # looking for some is a tenth of the start
    }


class _Child:
    """A worker that this process started."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child
        self.pid = child.pid
        self.fd = _pidfd(child.pid)

    def met(self, pid: int) -> None:
        """Nothing new."""

    def send_signal(self, number: int) -> None:
        """To the worker and all it started; never to a pid that was reaped."""
        if self._child.returncode is None:
            with suppress(OSError):
                os.killpg(self.pid, number)

    def gone(self) -> bool:
        """Reaps it; what it started and left behind goes with it."""
        if self._child.returncode is None:
            with suppress(ChildProcessError):  # reaped by somebody else
                if not os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                    return False
                self.send_signal(signal.SIGKILL)
            self._tell(self._child.poll() or 0)
        return True

    def _tell(self, status: int) -> None:
        """How it ended: without this a library that crashes looks like a device that hangs."""
        by_itself = status in (0, -signal.SIGABRT, -signal.SIGKILL)
        how = signal.Signals(-status).name if status < 0 else f"status {status}"
        log.log(logging.DEBUG if by_itself else logging.INFO, "worker %d: %s", self.pid, how)


class _Elsewhere:
    """A worker that the service manager started."""

    def __init__(self, sock: socket.socket) -> None:
        self.pid = 0
        self.fd: int | None = None
        self._sock = sock

    def met(self, pid: int) -> None:
        """Watches the process that said hello."""
        self.pid = pid
        self.fd = _pidfd(pid)

    def send_signal(self, number: int) -> None:
        """Another user's process: not allowed."""

    def gone(self) -> bool:
        """By its pidfd; by the hang-up of its socket when it has none (yet)."""
        ear = select.poll()
        if self.fd is None:
            ear.register(self._sock, 0)
        else:
            ear.register(self.fd, select.POLLIN)
        return bool(ear.poll(0))


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None
