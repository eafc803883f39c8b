"""Reads the box, and tells when it is worth reading again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path

from agent import clock
from agent.kinds.host import facts
from agent.kinds.host.memory import Dips, Errors, Steps, Stuck
from agent.kinds.host.settings import Settings
from agent.model import Reading

_COOL_C = 60.0
"""The lowest limit a Raspberry Pi has (the soft one of a 3B+). Cooler, heat does not slow it."""


class Passive:
    """Reads the box. Remembers what one look cannot tell: dips, steps, sleepers, new errors."""

    def __init__(
        self,
        settings: Settings,
        root: Path = Path("/"),
        *,
        synced: Callable[[], bool] | None = None,
        utc_s: Callable[[], float] = time.time,
        up_s: Callable[[], float] = clock.up_s,
    ) -> None:
        """`synced` tells whether UTC is disciplined; unset, the kernel on the real root tells."""
        self._settings = settings
        self._root = root
        self._synced = synced or (clock.kernel_synchronised if root == Path("/") else None)
        self._utc_s = utc_s
        self._up_s = up_s
        self._dips = Dips()
        self._steps = Steps()
        self._stuck = Stuck()
        self._errors = Errors()

    async def read(self) -> Reading:
        """One reading. It waits for nothing: the kernel answers all of it from memory.

        The values are those of `facts` and of `memory`; times of the past are ages in seconds.
        """
        root, now_s = self._root, self._up_s()
        values = {
            **facts.load(root),
            **facts.memory(root),
            **facts.disk(root, self._settings.path),
            **facts.temperature(root),
            **facts.frequency_cap(root),
            **self._errors.see(facts.storage_errors(root)),
            **self._dips.see(facts.undervoltage(root), now_s),
            **self._steps.see(self._utc_s(), now_s, self._synced() if self._synced else None),
        }
        if values.get("undervoltage") or not facts.is_below(values, "temp_c", _COOL_C):
            values |= facts.throttling(root)
        if facts.is_below(values, "load1", facts.STUCK_LOAD) and not self._stuck.watching:
            values |= self._stuck.see((), now_s)
        elif (asleep := facts.sleepers(root)) is not None:
            values |= self._stuck.see(asleep, now_s)
        return Reading(values)


async def changes(settings: Settings, root: Path = Path("/")) -> AsyncIterator[None]:
    """Yields on both edges of a Raspberry Pi's supply alarm, so that no dip falls between two
    readings. Ends at once on a box without one."""
    file = facts.undervoltage_file(root)
    if file is None:
        return
    async with contextlib.aclosing(notices(file)) as edges:
        async for _ in edges:
            yield None


async def notices(file: Path) -> AsyncGenerator[None, None]:
    """Yields whenever the kernel says that a /sys attribute changed (`sysfs_notify`).

    That arrives as EPOLLPRI, which an event loop does not ask for. An epoll of its own does, and
    the loop watches that one. Ends where the file is none that notifies, or is found gone.
    """
    with contextlib.ExitStack() as stack:
        try:
            descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
            epoll = stack.enter_context(select.epoll())
            os.pread(descriptor, 64, 0)  # only what happens after a read is announced
            epoll.register(descriptor, select.EPOLLPRI)
        except OSError:  # EPERM: a plain file, as in a recorded tree
            return
        loop = asyncio.get_running_loop()
        arrived, gone = asyncio.Event(), asyncio.Event()

        def take() -> None:
            try:
                os.pread(descriptor, 64, 0)
            except OSError:  # ENODEV: its driver went away, and it would be ready for ever
                loop.remove_reader(epoll)
                gone.set()
            arrived.set()

        loop.add_reader(epoll, take)
        stack.callback(loop.remove_reader, epoll)
        while not gone.is_set():
            await arrived.wait()
            arrived.clear()
            yield None
