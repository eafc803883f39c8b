"""The sound of a room: many may listen at once, and one may make a sound while nobody listens.

A microphone that is looked at while a loudspeaker is tested would hear the test, and the test
needs the microphones for itself. Whoever is next is next: a sound waits for the looks under way,
and looks that come later wait for the sound.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

Held = Callable[[], Awaitable[bool]]


class Air:
    """One per room. Devices that hear or sound join it and say whether somebody else has them."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._still = asyncio.Event()
        self._still.set()
        self._listeners = 0
        self._members: dict[str, Held] = {}

    def join(self, device: str, held: Held) -> None:
        """A device of the room; `held` asks the kernel whether a program has it."""
        self._members[device] = held

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """As long as a device is listened to."""
        async with self._lock:
            self._listeners += 1
            self._still.clear()
        try:
            yield
        finally:
            self._listeners -= 1
            if not self._listeners:
                self._still.set()

    @asynccontextmanager
    async def sounding(self) -> AsyncIterator[None]:
        """As long as a sound is made."""
        async with self._lock:
            await self._still.wait()
            yield

    async def held_by_others(self) -> str:
        """A device that somebody else has (none of ours is open while we sound), else empty."""
        for device, held in self._members.items():
            if await held():
                return device
        return ""
