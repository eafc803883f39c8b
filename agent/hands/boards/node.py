"""What all boards have in common: a node that is opened when it is needed, and again after it
failed. A board that was unplugged and is plugged in again works again by itself.

hands is one loop, and a board must not hold it up. What is done to a node is done in a thread that
nobody waits for longer than `LIMIT_S`. The kernel ends each of these calls by itself (a USB control
transfer after 5 s, a transfer on I2C after 1 s, closing a serial line after 30 s), and then the
thread ends too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

T = TypeVar("T")

LIMIT_S = 1.0
"""Nothing that is healthy takes so long."""
CLOSE_S = 0.2
REST_S = 30.0
"""How long a board is left alone after it hung: as long as its thread may be busy."""


@dataclass(slots=True)
class _Job:
    """Something that is done aside. Who does it owns the descriptor meanwhile, and closes it
    afterwards when nobody waits any more."""

    fd: int
    result: Any = None
    error: BaseException | None = None
    finished: bool = False
    abandoned: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)
    done: threading.Event = field(default_factory=threading.Event)


class Node:
    """A device node of the kernel. `find` says where it is now."""

    def __init__(
        self,
        find: Callable[[], Path],
        flags: int = os.O_RDWR,
        prepare: Callable[[int], None] = lambda fd: None,
        release: Callable[[int], None] = os.close,
    ) -> None:
        """`prepare` is done to a descriptor that was just opened and may raise `OSError`; `release`
        closes one that was prepared."""
        self._find = find
        self._flags = flags | os.O_CLOEXEC
        self._prepare = prepare
        self._release = release
        self._fd = -1
        self._opened: tuple[str, int] = ("", 0)
        self._rests_until_s = -1.0

    def do(self, act: Callable[[int], T]) -> T:
        """What comes of `act` on the open descriptor. What fails is opened anew the next time: a
        stale descriptor never answers for a device that was plugged in meanwhile. What is late is
        ETIMEDOUT, and so is at once what hung in the last `REST_S`, unless it was plugged in anew.
        """
        self._check_rest()
        job = _Job(self._fd)
        _aside(lambda: self._run(job, act))
        self._fd = -1
        if not job.done.wait(LIMIT_S):
            with job.lock:
                job.abandoned = not job.finished
        if job.abandoned:
            self._rests_until_s = monotonic() + REST_S
            raise OSError(errno.ETIMEDOUT, f"no answer in {LIMIT_S:.0f} s")
        self._fd = job.fd
        if job.error is None:
            return job.result  # type: ignore[no-any-return] # it is what `act` returned
        self.close()
        if isinstance(job.error, OSError) and job.error.errno == errno.ETIMEDOUT:
            self._rests_until_s = monotonic() + REST_S
        raise job.error

    def close(self) -> None:
        """Let go. The next use opens it again."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            closed = threading.Event()

            def release() -> None:
                with contextlib.suppress(OSError):
                    self._release(fd)
                closed.set()

            _aside(release)
            closed.wait(CLOSE_S)

    def _run(self, job: _Job, act: Callable[[int], Any]) -> None:
        try:
            if job.fd < 0:
                job.fd = self._open()
            job.result = act(job.fd)
        except BaseException as error:  # raised again where it is waited for
            job.error = error
        with job.lock:
            job.finished = True
        job.done.set()
        if job.abandoned and job.fd >= 0:
            with contextlib.suppress(OSError):
                self._release(job.fd)

    def _open(self) -> int:
        path = self._find()
        self._opened = _identity(path)
        fd = os.open(path, self._flags)
        try:
            self._prepare(fd)
        except OSError:
            os.close(fd)  # not `release`: it may be in use by somebody else
            raise
        return fd

    def _check_rest(self) -> None:
        left_s = self._rests_until_s - monotonic()
        if left_s <= 0:
            return
        if self._is_what_it_was():
            raise OSError(errno.ETIMEDOUT, f"it hung, and is left alone for {left_s:.0f} s")
        self._rests_until_s = -1.0

    def _is_what_it_was(self) -> bool:
        path, _ = self._opened
        try:
            return not path or _identity(Path(path)) == self._opened
        except OSError:
            return False


def _aside(act: Callable[[], None]) -> None:
    """In a thread that does not keep the process alive. Raises `OSError`: EAGAIN for no thread."""
    try:
        threading.Thread(target=act, daemon=True).start()
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, str(error)) from None


def _identity(path: Path) -> tuple[str, int]:
    """What is another one after a device was plugged in anew. Raises `OSError`."""
    return str(path), path.stat().st_ino


def no_channel(what: str, channel: int, count: int) -> OSError:
    """For a relay that the board does not have."""
    return OSError(errno.ENXIO, f"{what} has {count} relays, no relay {channel}")
