"""A restart of the whole box: not for the agent to do, it leaves a wish to systemd."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

from agent.model import Mode, Moment, Refused
from agent.room.modes import Modes

log = logging.getLogger("agent.room")

WISH = "reboot-requested"
"""In the agent's runtime folder, where nobody else can make a file (hearing-room-reboot.path)."""
DOCUMENT = "reboot"
LEAVES_S = 2.0
"""The answer goes out first."""
TAKEN_S = 60.0
"""systemd sees the file at once; a box that still runs after this long will not go by itself."""
DISK_S = 2.0
SOON_S = 900.0
"""Not so shortly before a hearing: a box that does not come back needs somebody who goes there."""
_KEPT, _WARNING = 1, 2


class Room(Protocol):
    """What this needs of the room."""

    mode: Mode
    modes: Modes
    why: str
    """What the broker is told when the agent ends."""

    def now(self) -> Moment:
        """This instant."""
        ...

    def event(self, type_: str, importance: int, **fields: Any) -> asyncio.Future[int]:
        """Record an event."""
        ...


class Reboot:
    """Leaves the wish, takes it back when nobody hears it, and knows the next boot by its id."""

    def __init__(
        self, room: Room, folder: Path | None, keep: Callable[[str, bytes], Awaitable[bool]]
    ) -> None:
        """`folder` is the runtime folder where somebody waits for the wish; None where nobody
        does: an agent that was started by hand restarts nobody's machine."""
        self._room = room
        self._wish = folder / WISH if folder is not None else None
        self._keep = keep

    def take_back(self) -> None:
        """No wish: one that nobody took must not come true in a hearing."""
        if self._wish is not None:
            for file in (self._wish, self._wish.with_name(WISH + ".new")):
                file.unlink(missing_ok=True)

    async def restore(self, saved: bytes | None) -> None:
        """What became of the wish of an agent before."""
        try:
            before = json.loads(saved or b"{}")
            boot, by, reason = str(before["boot"]), str(before["by"]), str(before["reason"])
        except (KeyError, TypeError, ValueError):
            return
        await self._keep(DOCUMENT, b"{}")
        if boot != self._room.now().boot:
            self._room.event("box.rebooted", _KEPT, by=by, reason=reason or None)

    async def ask(self, by: str, reason: str) -> float:
        """Have the box restarted; returns in how many seconds. Raises `Refused` when a hearing
        runs or is near, `OSError` when the wish cannot be left."""
        if self._wish is None:
            raise Refused("not_available", "only an installed box can be restarted (install.sh)")
        if self._room.mode in (Mode.IN_SESSION, Mode.RECESS):
            raise Refused(self._room.mode.value, "not while a hearing runs")
        lock_in_s = self._room.modes.lock_in_s(self._room.now())
        if lock_in_s is not None and lock_in_s < SOON_S:
            raise Refused("session_lock", f"a hearing begins in less than {SOON_S / 60:.0f} min")
        fresh = self._wish.with_name(WISH + ".new")
        fresh.touch()
        whose = {"boot": self._room.now().boot, "by": by, "reason": reason}
        with contextlib.suppress(TimeoutError):  # a disk that hangs may be why somebody asks
            async with asyncio.timeout(DISK_S):
                await self._keep(DOCUMENT, json.dumps(whose).encode())
        asyncio.get_running_loop().call_later(LEAVES_S, self._leave, fresh, self._wish)
        return LEAVES_S

    def _leave(self, fresh: Path, wish: Path) -> None:
        if self._room.mode in (Mode.IN_SESSION, Mode.RECESS):  # it has begun in these two seconds
            self._failed("in_session")
            return
        self._room.why = "reboot"
        try:
            fresh.replace(wish)
        except OSError as error:
            log.error("%s: %s", wish, error.strerror)
            self._failed("error")
            return
        asyncio.get_running_loop().call_later(TAKEN_S, self._failed, "not_taken")

    def _failed(self, why: str) -> None:
        self.take_back()
        self._room.why = "shutdown"
        self._room.event("box.reboot_failed", _WARNING, why=why)
