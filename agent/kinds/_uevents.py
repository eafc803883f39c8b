"""Kernel events of devices that come, go or change: NETLINK_KOBJECT_UEVENT, no privilege needed.

The kernel's own messages (group 1) are `ACTION@PATH` and then `KEY=VALUE`, all NUL-terminated. The
ones of udevd (group 2) come later, and only where it runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncGenerator, Collection, Mapping

_KOBJECT_UEVENT = 15
_KERNEL_GROUP = 1
_MAX_MESSAGE = 8192  # the kernel builds them in a buffer of 2 KiB


def parse(message: bytes) -> dict[str, str]:
    """The keys of one message; none of something that is no kernel event."""
    head, _, rest = message.partition(b"\0")
    if b"@" not in head:
        return {}
    fields = (field.partition("=") for field in rest.decode("utf-8", "replace").split("\0"))
    return {key: value for key, equals, value in fields if key and equals}


async def uevents(subsystem: str) -> AsyncGenerator[Mapping[str, str] | None, None]:
    """The events of one subsystem (`drm`, `video4linux`, ...) as they come.

    None stands for some that came faster than they were read: what happened is not known. Ends
    where there is no such socket (a sandbox without AF_NETLINK).
    """
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    try:
        events = socket.socket(socket.AF_NETLINK, kind, _KOBJECT_UEVENT)
    except OSError:
        return
    loop = asyncio.get_running_loop()
    with events:
        try:
            events.bind((0, _KERNEL_GROUP))
        except OSError:
            return
        while True:
            try:
                message, sender = await loop.sock_recvfrom(events, _MAX_MESSAGE)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    return
                yield None
                continue
            event = parse(message)
            if sender[0] == 0 and event.get("SUBSYSTEM") == subsystem:  # 0 is the kernel
                yield event


async def repeated(
    events: AsyncGenerator[Mapping[str, str] | None, None], after_s: Collection[float]
) -> AsyncGenerator[None, None]:
    """Yields at once when a device came or went, and again so long after it came: what has just
    been plugged in may not answer yet. Ends with the events."""
    loop = asyncio.get_running_loop()
    again: list[float] = []
    async with contextlib.aclosing(events):
        waiting = asyncio.ensure_future(anext(events, _END))
        try:
            while True:
                pause_s = max(0.0, again[0] - loop.time()) if again else None
                await asyncio.wait({waiting}, timeout=pause_s)
                if not waiting.done():
                    again.pop(0)
                    yield None
                    continue
                event = waiting.result()
                if event is _END:
                    return
                waiting = asyncio.ensure_future(anext(events, _END))
                action = event.get("ACTION") if event is not None else "add"
                if action in ("add", "remove"):
                    came = action == "add"
                    again = [loop.time() + pause for pause in sorted(after_s)] if came else []
                    yield None
        finally:
            waiting.cancel()
            await asyncio.wait({waiting})


_END: Mapping[str, str] = {"": ""}  # no event: it has no keys without a name
