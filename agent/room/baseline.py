"""The day of commissioning: what every device gave when a person said that the room is good.

Kept in the agent's store, never in room.toml. A camera's fingerprint is in it, so it stays there:
`shown` is what others may see.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from agent import kinds
from agent.lanes.watch import BASELINE, Watched
from agent.model import Device, Level, Mode, Moment, Reading, Refused, StoreError
from agent.room.voice import Voice
from agent.store import Store

log = logging.getLogger("agent.room")

DOCUMENT = "baseline"
KEEP_S = 10.0
"""How long a disk may take; then nothing is said to be recorded."""
_SHOWN = ("kind", "at", "clock", "by", "anyway", "readings", "identity")


class Baseline:
    """What was recorded, by device id. A later one takes the place of an earlier one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept: dict[str, dict[str, Any]] = {}

    async def restore(self) -> None:
        """Read back what was recorded before a restart. Raises `StoreError`."""
        kept = json.loads(await self._store.document(DOCUMENT) or b"{}")
        self._kept = kept if isinstance(kept, dict) else {}

    def teach(self, watched: Watched) -> None:
        """Have a device judged against its own baseline, where it has one."""
        entry = self._kept.get(watched.device.id, {})
        if entry.get("kind") != watched.device.kind:  # another device has its id by now
            return
        try:
            watched.learn(entry["settings"])
        except ValueError:  # of an older version that had other settings
            log.warning("%s: its baseline cannot be used; record it again", watched.device.id)

    async def record(
        self, good: Iterable[tuple[Watched, Reading]], *, by: str, anyway: bool, now: Moment
    ) -> None:
        """Keep these readings and judge by them from now on. Raises `Refused` where the store does
        not take it in time; then nothing has changed."""
        taken = list(good)
        kept = dict(self._kept)
        for watched, reading in taken:
            kept[watched.device.id] = {
                "kind": watched.device.kind,
                "at": now.iso,
                "clock": now.clock.value,
                "by": by,
                "anyway": anyway,
                "readings": dict(reading.values),
                "identity": dict(reading.identity),
                "settings": kinds.baseline_of(watched.device.kind, reading) or {},
            }
        body = json.dumps(kept, ensure_ascii=False, separators=(",", ":")).encode()
        try:
            async with asyncio.timeout(KEEP_S):
                await self._store.put_document(DOCUMENT, body)
        except (StoreError, TimeoutError):
            raise Refused("store_failing", "the disk did not take it; try again") from None
        self._kept = kept
        for watched, _ in taken:
            self.teach(watched)

    def shown(self) -> dict[str, dict[str, Any]]:
        """What may be seen of it: numbers, who and when; never a fingerprint."""
        return {
            name: {key: entry[key] for key in _SHOWN if entry.get(key)}
            for name, entry in sorted(self._kept.items())
        }

    def numbers(self, device: str) -> Mapping[str, Any]:
        """The single numbers and words that a device is judged against from now on."""
        learnt = self._kept.get(device, {}).get("settings", {})
        return {k: v for k, v in learnt.items() if isinstance(v, bool | int | float | str)}


class Room(Protocol):
    """What commissioning needs of the room."""

    mode: Mode
    watched: dict[str, Watched]
    baseline: Baseline
    voice: Voice

    def now(self) -> Moment:
        """This instant."""
        ...

    def event(self, type_: str, importance: int, **fields: Any) -> asyncio.Future[int]:
        """Record an event; the future resolves when it is durable."""
        ...


Checked = Callable[[Device, Reading, Any], dict[str, Any]]
"""What a reading means by some settings: `level`, `findings`, `readings`, `name`, `kind`."""


async def commission(
    room: Room, device: str | None, *, anyway: bool, by: str, checked: Checked
) -> dict[str, dict[str, Any]]:
    """A person says that the room is good: ask every device that takes part (or one), one after
    the other, and record what they give. All or nothing: where one is not in order, nothing is
    recorded, unless `anyway`; a device that gave no reading never is.

    Judged by what room.toml says, not by the baseline before. Raises `Refused`.
    """
    chosen = [
        watched
        for name, watched in room.watched.items()
        if device in (None, name) and kinds.takes_baseline(watched.device.kind)
    ]
    if not chosen:
        what = "this room has no such device" if device is None else f"no such device: {device!r}"
        raise Refused("unknown_device", f"{what} that takes part in commissioning")
    seen: dict[str, dict[str, Any]] = {}
    good: list[tuple[Watched, Reading]] = []
    for watched in chosen:
        if room.mode is not Mode.IDLE:
            raise Refused(room.mode.value, "only in an idle room; nothing was recorded")
        reading = await watched.ask_now(by, BASELINE)
        entry = checked(watched.device, reading, watched.device.settings)
        seen[watched.device.id] = entry
        in_order = Level(entry["level"]) in (Level.OK, Level.INFO)
        if reading.fault is None and (in_order or anyway):
            good.append((watched, reading))
    names = {watched.device.id for watched, _ in good}
    wrong = "; ".join(_why(name, entry) for name, entry in seen.items() if name not in names)
    if not names or (wrong and not anyway):
        raise Refused("not_in_order", f"{wrong}; nothing was recorded")
    await room.baseline.record(good, by=by, anyway=anyway, now=room.now())
    for watched, _ in good:
        numbers = dict(room.baseline.numbers(watched.device.id)) or None
        facts = {"device": watched.device.id, "by": by, "anyway": anyway, "numbers": numbers}
        room.event("baseline.recorded", 1, **facts)
        watched.hurry()
    room.voice.write_status(room.now())
    return {name: {**entry, "recorded": name in names} for name, entry in seen.items()}


def _why(name: str, entry: Mapping[str, Any]) -> str:
    return f"{name}: {', '.join(str(f['code']) for f in entry['findings']) or entry['level']}"
