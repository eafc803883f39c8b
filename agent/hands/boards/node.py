"""What all boards have in common: a node that is opened when it is needed, and again after it
failed. A board that was unplugged and is plugged in again works again by itself."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

SLOW_S = 0.9
"""Nothing that is healthy takes so long."""
REST_S = 30.0
"""How long a board is left alone after it hung: hands is one loop, and a board with eight relays,
each of them asked once a minute, would hold it up for most of that minute."""


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

    @contextlib.contextmanager
    def use(self) -> Iterator[int]:
        """The open descriptor. What fails is opened anew the next time: a stale descriptor never
        answers for a device that was plugged in meanwhile. What hung is ETIMEDOUT at once for
        `REST_S`, unless it is plugged in anew."""
        self._check_rest()
        begin_s = monotonic()
        try:
            if self._fd < 0:
                self._open()
            yield self._fd
        except OSError as error:
            self.close()
            if error.errno == errno.ETIMEDOUT or monotonic() - begin_s >= SLOW_S:
                self._rests_until_s = monotonic() + REST_S
            raise

    def close(self) -> None:
        """Let go. The next use opens it again."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                self._release(fd)

    def _open(self) -> None:
        path = self._find()
        self._opened = _identity(path)
        fd = os.open(path, self._flags)
        try:
            self._prepare(fd)
        except OSError:
            os.close(fd)  # not `release`: it may be in use by somebody else
            raise
        self._fd = fd

    def _check_rest(self) -> None:
        left_s = self._rests_until_s - monotonic()
        if left_s <= 0:
            return
        if _identity(self._find()) == self._opened:
            raise OSError(errno.ETIMEDOUT, f"it hung, and is left alone for {left_s:.0f} s")
        self._rests_until_s = -1.0


def _identity(path: Path) -> tuple[str, int]:
    """What is another one after a device was plugged in anew. Raises `OSError`."""
    return str(path), path.stat().st_ino


def no_channel(what: str, channel: int, count: int) -> OSError:
    """For a relay that the board does not have."""
    return OSError(errno.ENXIO, f"{what} has {count} relays, no relay {channel}")
