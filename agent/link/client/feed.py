"""What goes out on one connection, and in which order: `about`, the other retained documents,
`status` online, then stored events; later, whatever is new, documents before events.

Documents are newest-wins and wait only as a name; events are fetched from the outbox by the free
places of the window, so that a long absence costs no memory.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from agent.link.client.timing import Backoff, Bucket, Pace
from agent.model import StoreError

log = logging.getLogger("agent.link")

REFUSED = 0x80
"""MQTT reason codes from here on are failures; 0x10 says that nobody listens, which is fine."""

What = str | int
"""What a message is: the suffix of a retained document, or the number of an event."""


class Outbox(Protocol):
    """Where events wait until the broker has them. Both raise `StoreError` when the disk fails."""

    async def unsent(self, after: int, limit: int) -> list[tuple[int, bytes]]:
        """Up to `limit` events with numbers above `after`, in the order of numbers."""
        ...

    async def mark_sent(self, numbers: Sequence[int]) -> None:
        """The broker has these."""
        ...


class Wire(Protocol):
    """The end of the connection that a feed speaks to."""

    @property
    def free(self) -> int:
        """Places in the window of unacknowledged messages."""
        ...

    def send(self, what: What, payload: bytes) -> bool:
        """Send a document or an event, at QoS 1; False when the window is full or all is over."""
        ...


class Feed:
    """Feeds one connection. `acked` holds numbers that the broker has and the store not yet knows
    of; it outlives the connection, so that they are not sent again."""

    def __init__(
        self,
        wire: Wire,
        documents: Mapping[str, bytes],
        outbox: Outbox,
        acked: set[int],
        *,
        online: Callable[[], bytes],
        pace: Pace,
        chance: Callable[[], float],
    ) -> None:
        self._wire = wire
        self._documents = documents
        self._outbox = outbox
        self._acked = acked
        self._online = online
        self._bucket = Bucket(pace.events_per_s, pace.events_at_once)
        self._refusals = Backoff(pace.refused_base_s, pace.refused_cap_s, chance)
        self._store_retry_s = pace.store_retry_s
        self._dirty = dict.fromkeys(sorted(documents, key=lambda suffix: suffix != "about"))
        self._published: dict[str, bytes] = {}
        self._open = False
        self._born = False
        self._beat_due = False
        self._wake = asyncio.Event()
        self._cursor = 0
        self._more = True
        self._flying = 0
        self._refused = False
        self._probing = False
        self._store_failed = False
        self._resume_s = 0.0

    # -- documents and status -----------------------------------------------------------------

    def open(self) -> None:
        """The subscriptions are made, or cannot be: begin to speak."""
        self._open = True
        self.pump()

    def close(self) -> None:
        """Say nothing more, but go on taking acknowledgements."""
        self._open = self._more = False

    def offer(self, suffix: str) -> None:
        """A document has changed."""
        self._dirty[suffix] = None
        self.pump()

    def beat(self) -> None:
        """Say `online` again."""
        self._beat_due = True
        self.pump()

    @property
    def born(self) -> bool:
        """Whether the birth was sent."""
        return self._born

    def pump(self) -> None:
        """Send what is due, as far as the window allows."""
        if not self._open:
            return
        if self._born and self._beat_due:
            if not self._wire.send("status", self._online()):
                return
            self._beat_due = False
        for suffix in list(self._dirty):
            payload = self._documents[suffix]
            if self._published.get(suffix) != payload:
                if not self._wire.send(suffix, payload):
                    return
                self._published[suffix] = payload
            del self._dirty[suffix]
        if not self._born and self._wire.send("status", self._online()):
            self._born = True
            self._wake.set()

    def answered(self, what: What, code: int) -> None:
        """The broker has acknowledged a message, or refused it."""
        if isinstance(what, int):
            self._flying -= 1
            if code < REFUSED:
                self._acked.add(what)
                self._probing = False
                self._refusals.reset()
            else:
                self._refused = True
            self._wake.set()
        elif self._more:
            self._wake.set()  # a place in the window is free again
        self.pump()

    # -- events -------------------------------------------------------------------------------

    def kick(self) -> None:
        """There are new events in the outbox."""
        self._more = True
        self._wake.set()

    async def events(self) -> None:
        """Feed events for as long as the connection lives. A failing store delays events only."""
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle | None = None
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                if timer is not None:
                    timer.cancel()
                try:
                    await self.mark()
                    pause_s = await self._feed(loop)
                    self._store_failed = False
                except StoreError as error:
                    if not self._store_failed:
                        log.warning("events wait for the store: %s", error)
                    self._store_failed = self._more = True
                    pause_s = self._store_retry_s
                timer = loop.call_later(pause_s, self._wake.set) if pause_s else None
        finally:
            if timer is not None:
                timer.cancel()

    async def mark(self) -> None:
        """Tell the store what the broker has. Raises `StoreError`."""
        if numbers := sorted(self._acked):
            await self._outbox.mark_sent(numbers)
            self._acked.difference_update(numbers)

    async def _feed(self, loop: asyncio.AbstractEventLoop) -> float:
        """Send events until none is left, the window is full (0), or it must pause (seconds)."""
        if self._refused:
            if self._flying:
                return 0.0
            # A refusal is of the topic, not of the event: wait, then begin again with the first,
            # and with that one alone until it is taken.
            self._refused, self._more, self._cursor = False, True, 0
            self._probing = True
            self._resume_s = loop.time() + self._refusals.next_s()
        if (pause_s := self._resume_s - loop.time()) > 0:
            return pause_s
        while self._open and self._born and self._more and not self._refused and self._wire.free:
            limit = min(self._wire.free, self._bucket.left(loop.time()))
            if not limit:
                return self._bucket.wait_s()
            if self._probing:
                if self._flying:
                    break
                limit = 1
            self._more = False  # a kick while we wait for the store sets it again
            rows = await self._outbox.unsent(self._cursor, limit)
            for number, payload in rows:
                if self._refused or not (number in self._acked or self._send(number, payload)):
                    self._more = True
                    break
                self._cursor = number
            self._more |= len(rows) == limit
        return 0.0

    def _send(self, number: int, payload: bytes) -> bool:
        if not self._wire.send(number, payload):
            return False
        self._flying += 1
        self._bucket.take()
        return True
