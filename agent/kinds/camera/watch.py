"""Sees another program open a device node, so that a look can let go of the camera at once."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path
from typing import Self

_IN_OPEN = 0x20


class OtherOpeners:
    """An inotify watch on a node; made after our own opening, so every event is somebody else.

    Where the kernel gives none (no rights, no watches left) it stays silent: `fd` is None.
    """

    def __init__(self, path: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        fd: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if fd >= 0 and libc.inotify_add_watch(fd, os.fsencode(path), _IN_OPEN) < 0:
            os.close(fd)
            fd = -1
        self.fd: int | None = fd if fd >= 0 else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.fd is not None:
            os.close(self.fd)

    def came(self) -> bool:
        """Whether somebody opened the node since the last question."""
        if self.fd is None:
            return False
        with contextlib.suppress(BlockingIOError):
            return bool(os.read(self.fd, 4096))
        return False
