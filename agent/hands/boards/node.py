"""What all boards have in common: a node that is opened when it is needed, and again after it
failed. A board that was unplugged and is plugged in again works again by itself."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path


class Node:
    """A device node of the kernel. `find` says where it is now."""

    def __init__(
        self,
        find: Callable[[], Path],
        flags: int = os.O_RDWR,
        prepare: Callable[[int], None] = lambda fd: None,
        release: Callable[[int], None] = lambda fd: None,
    ) -> None:
        """`prepare` is done to a descriptor that was just opened, `release` before it is closed;
        both may raise `OSError`."""
        self._find = find
        self._flags = flags | os.O_CLOEXEC
        self._prepare = prepare
        self._release = release
        self._fd = -1

    @contextlib.contextmanager
    def use(self) -> Iterator[int]:
        """The open descriptor. What fails is opened anew the next time: a stale descriptor never
        answers for a device that was plugged in meanwhile."""
        try:
            if self._fd < 0:
                self._open()
            yield self._fd
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Let go. The next use opens it again."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                self._release(fd)
            with contextlib.suppress(OSError):
                os.close(fd)

    def _open(self) -> None:
        fd = os.open(self._find(), self._flags)
        try:
            self._prepare(fd)
        except OSError:
            os.close(fd)  # without `release`: it may be somebody else's
            raise
        self._fd = fd


def no_channel(what: str, channel: int, count: int) -> OSError:
    """For a relay that the board does not have."""
    return OSError(errno.ENXIO, f"{what} has {count} relays, no relay {channel}")
