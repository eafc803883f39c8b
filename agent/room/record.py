"""What the room puts on record: numbered events, and documents that outlive a restart."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

from agent.link import documents
from agent.link.client import Link
from agent.model import Incident, Level, Moment, StoreError
from agent.store import Store

log = logging.getLogger("agent.room")

HEARD = "hands"
"""The document with the number of the last news of hands that is in the record."""
_IMPORTANCE = {Level.FAIL: 3, Level.UNKNOWN: 3, Level.WARN: 2}
_KEPT = 1


class Record:
    """Writes to the store; the broker gets an event once it is durable."""

    def __init__(self, store: Store, clock: Callable[[], Moment]) -> None:
        self.link: Link | None = None
        self._store = store
        self._clock = clock

    def event(self, type_: str, importance: int, **fields: Any) -> asyncio.Future[int]:
        """Record an event; the future resolves when it is durable."""
        return self._post(documents.event(type_, self._clock(), **fields), importance)

    def act(self, type_: str, number: int, **fields: Any) -> asyncio.Future[int]:
        """Record what hands tells under a number, and that it was heard: both or neither."""
        event = documents.event(type_, self._clock(), **fields)
        return self._post(event, _KEPT, beside=(HEARD, b"%d" % number))

    def incident(self, type_: str, incident: Incident, **row: Incident) -> None:
        """Record that an incident is `opened` or `closed`, and keep the register of open ones."""
        log.info("%s %s %s %s", type_, incident.device or "agent", incident.code, incident.level)
        fields: dict[str, Any] = {
            "device": incident.device or None,
            "code": incident.code,
            "level": incident.level.value,
            "since": incident.since.iso,
            "until": incident.until.iso if incident.until else None,
            "numbers": dict(incident.numbers) or None,
        }
        event = documents.event(type_, self._clock(), **fields)
        self._post(event, _IMPORTANCE.get(incident.level, _KEPT), **row)

    async def keep(self, name: str, body: bytes) -> bool:
        """Keep a document; whether it is durable."""
        with contextlib.suppress(StoreError):  # the store is closed, and has said so
            await self._store.put_document(name, body)
            return True
        return False

    def _post(self, event: dict[str, Any], importance: int, **more: Any) -> asyncio.Future[int]:
        kept = self._store.post(event, importance=importance, **more)
        if (link := self.link) is not None:
            kept.add_done_callback(lambda _: link.kick())
        return kept
