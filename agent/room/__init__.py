"""The wiring of a room, readable as the drawing: devices -> findings -> readiness -> documents,
events, status file; commands in. One task per device, one tick for everything merely due."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import sys
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

from agent import __version__, kinds, notify
from agent.clock import process_start
from agent.control import ControlServer, Folders, Peer, remove_status, write_status
from agent.judge import findings as judging
from agent.judge import incidents, readiness, schedule
from agent.kinds import host
from agent.lanes.lane import Lane
from agent.lanes.watch import Watched, new_lane
from agent.link import documents
from agent.link.client import Link
from agent.link.contract import encode, parse_schedule
from agent.link.publisher import PUBLISHED_FOR_S, Publisher
from agent.model import (
    Command,
    ConfigError,
    Device,
    Finding,
    Hearing,
    Incident,
    Level,
    Mode,
    Moment,
    Readiness,
    Reading,
    StoreError,
)
from agent.room.commands import CAPABILITIES, LOOKING, Commands
from agent.room.itself import Itself
from agent.settings import Room
from agent.store import Store

log = logging.getLogger("agent.room")

TICK_S = 30.0
TELEMETRY_S = 60.0
GRACE_S = 5.0
_IMPORTANCE = {Level.FAIL: 3, Level.UNKNOWN: 3, Level.WARN: 2}
_KEPT, _DETAIL = 1, 0


class RoomAgent:
    """The agent of one room. `run` watches until `stop`; an agent runs once."""

    def __init__(
        self,
        room: Room,
        folders: Folders,
        clock: Callable[[], Moment],
        *,
        root: Path = Path("/"),
        virtual_root: Path | None = None,
        lane_for: Callable[[Device], Lane] = new_lane,
    ) -> None:
        self.room = room
        self.requirements = room.requirements
        self._folders = folders
        self._clock = clock
        self._root = root
        self._virtual_root = virtual_root or root
        self._lane_for = lane_for
        self._store = Store(folders.state / "agent.db", clock=clock)
        self._link: Link | None = None
        self._publisher = Publisher(self._put)
        self._devices = {d.id: d for d in room.devices}
        self.watched: dict[str, Watched] = {}
        self._hearings: tuple[Hearing, ...] = ()
        self.mode = Mode.IDLE
        self._open: Mapping[incidents.Key, Incident] = {}
        self._itself = Itself(room.broker)
        self._commands = Commands(self)
        self._telemetry_at_s = clock().up_s
        self._folded_s = clock().up_s
        self._fold_asked = False
        self._stopping = asyncio.Event()
        self.why = "shutdown"
        self._tasks: set[asyncio.Task[Any]] = set()
        self._box = host.box_model(root)

    # -- life ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Watch the room until `stop`. Nothing here waits for a broker, a device or a disk."""
        self._claim()
        await self._store.open()
        await self._restore()
        server = ControlServer(self._folders.runtime / "control.sock", self.dispatch)
        await server.start()
        try:
            if self.room.broker is not None:
                self._link = Link(
                    self.room.broker,
                    self.room.site,
                    self.room.id,
                    outbox=self._store,
                    clock=self._clock,
                    on_message=self._on_message,
                    heartbeat_gate=lambda: self.alive(self._clock()),
                )
                self._spawn(self._link.run())
                await self._forget_devices(self._link)
            self._fold()
            for watched in self.watched.values():
                self._spawn(watched.run())
                self._spawn(watched.follow_changes())
            self._spawn(self._tick())
            notify.ready(f"watching {len(self.watched)} devices")
            await self._stopping.wait()
        finally:
            notify.stopping()
            await server.stop()
            await self._close()

    def stop(self, why: str = "shutdown") -> None:
        """Ask `run` to end; `why` is what the broker is told."""
        self.why = why
        self._stopping.set()

    async def _close(self) -> None:
        if self._link is not None:
            await self._link.stop(self.why)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        lanes = [w.lane.close() for w in self.watched.values() if w.lane]
        await asyncio.gather(*lanes, return_exceptions=True)
        await self._store.close(timeout_s=3.0)
        self._lock.close()
        remove_status(self._folders.runtime / "status.json")

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            # Half an agent would go on saying what it last knew: end, and be restarted.
            log.critical("a part of the agent failed", exc_info=error)
            self.stop("failed")

    def _claim(self) -> None:
        """One agent for one store: two would share its numbers. The lock goes with the process.

        Raises `ConfigError` where another agent holds it.
        """
        self._lock = (self._folders.state / "agent.lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise ConfigError(f"another agent works in {self._folders.state}") from None

    async def _restore(self) -> None:
        """What was open before a restart is open until good is seen; the schedule is kept."""
        known: list[Incident] = []
        try:
            if saved := await self._store.document("schedule"):
                self._hearings = parse_schedule(saved)
            known = await self._store.open_incidents()
        except StoreError as error:  # a bad disk costs the memory, not the watch
            log.error("what was known before cannot be read: %s", error)
        self._open = {(i.device, i.code): i for i in known}
        now = self._clock()
        for device in self.room.devices:
            self.watched[device.id] = Watched(
                device,
                self,
                lane=self._lane_of(device),
                root=self._virtual_root if device.virtual else self._root,
                clock=self._clock,
                max_age_s=self.requirements.max_age_s.get(device.kind, float("inf")),
                state=judging.restore([i for i in known if i.device == device.id], now),
            )

    def _lane_of(self, device: Device) -> Lane | None:
        return self._lane_for(device) if kinds.has_driver(device.kind, device.settings) else None

    async def _forget_devices(self, link: Link) -> None:
        """Take back what the broker keeps of devices that have left the configuration. Every id
        that this room ever had is remembered: a removal that is sent again does no harm, one
        that was never sent leaves a ghost."""
        try:
            known = set(json.loads(await self._store.document("devices") or b"[]"))
        except StoreError:  # already said; what the broker keeps is taken back another time
            return
        for name in sorted(known - self._devices.keys()):
            link.put(f"device/{name}", None)
        if new := self._devices.keys() - known:
            names = json.dumps(sorted(known | new)).encode()
            self._spawn(self._keep("devices", names))

    def now(self) -> Moment:
        """This instant, on both clocks."""
        return self._clock()

    def standing(self) -> dict[str, dict[str, Any]]:
        """The documents as published, by topic suffix."""
        return self._publisher.standing

    def alive(self, now: Moment) -> bool:
        """Whether the watchdog may be fed: every device gave some reading in time, good or bad,
        and the fold ran. A hung device, broker or disk does not stop it; a stuck loop does."""
        folded = now.up_s - self._folded_s <= 2 * TICK_S + GRACE_S
        return folded and not any(w.late(now) for w in self.watched.values())

    async def _tick(self) -> None:
        feed_s = notify.watchdog_period_s()
        step_s = min(TICK_S, feed_s / 2) if feed_s else TICK_S
        while True:
            now = self._clock()
            if self.alive(now):
                notify.watchdog()
            self._fold()
            if now.up_s - self._telemetry_at_s >= TELEMETRY_S - 1:
                self._telemetry_at_s = now.up_s
                if self._link is not None:
                    self._link.telemetry(encode(documents.telemetry(self._seen([]), now)))
            await asyncio.sleep(self._until_next(now, step_s))

    def _until_next(self, now: Moment, step_s: float) -> float:
        """Seconds until something is due by itself: the grid, a change of mode, evidence that
        runs out."""
        pauses = [step_s - now.up_s % step_s]
        change_s = schedule.next_change_s(self._hearings, now)
        if change_s is not None:
            pauses.append(change_s + 0.01)
        runs_out = [w.valid_until_s for w in self.watched.values() if w.valid_until_s is not None]
        pauses += [until - now.up_s + 0.01 for until in runs_out if until > now.up_s]
        return max(0.01, min(pauses))

    # -- what a watched device asks and tells ----------------------------------------------------

    def may_look(self, device: Device) -> str:
        """Not in session, and not so shortly before one that a look could reach into it."""
        if self.mode not in LOOKING:
            return "maintenance" if self.mode is Mode.MAINTENANCE else "in_session"
        now = self._clock()
        soon = now.after(device.settings.deadline_s + GRACE_S)
        return "" if schedule.mode_of(self._hearings, soon) in LOOKING else "in_session"

    def looking(self, device: Device, by: str, reading: Reading | None) -> None:
        """Every active look leaves two events: who opened what, when, what for."""
        fields: dict[str, Any] = {"device": device.id, "purpose": self.mode.value, "by": by}
        if reading is None:
            self.event("look.started", _DETAIL, **fields)
            return
        fault = reading.fault.value if reading.fault else None
        took_ms = round(reading.took_s * 1000)
        self.event("look.ended", _DETAIL, **fields, fault=fault, took_ms=took_ms)

    def taken(self, watched: Watched) -> None:
        """A device has a new state: fold once, after all that came in this round."""
        if not self._fold_asked:
            self._fold_asked = True
            asyncio.get_running_loop().call_soon(self._fold)

    # -- findings -> incidents, readiness, documents ----------------------------------------------

    def _fold(self) -> None:
        self._fold_asked = False
        now = self._clock()
        self._folded_s = now.up_s
        self._enter(schedule.mode_of(self._hearings, now))
        found = readiness.apply_levels(
            [f for w in self.watched.values() for f in w.findings] + self._own(now),
            self.requirements,
        )
        edges = incidents.step(self._open, found, now)
        self._open = edges.now_open
        for incident in edges.opened:
            self._incident("incident.opened", incident, opened=incident)
        for incident in edges.closed:
            self._incident("incident.closed", incident, closed=incident)
        answer = readiness.fold(
            self.room.devices,
            found,
            mode=self.mode,
            hearing=schedule.current_hearing(self._hearings, now),
            requirements=self.requirements,
            now=now,
            valid_for_s=PUBLISHED_FOR_S,
        )
        self._publish(found, answer, now)

    def _own(self, now: Moment) -> list[Finding]:
        lanes = [w.lane for w in self.watched.values() if w.lane]
        return self._itself.findings(now, self._link, self._store, lanes)

    def _enter(self, mode: Mode) -> None:
        if mode is self.mode:
            return
        before, self.mode = self.mode, mode
        log.info("mode %s -> %s", before, mode)
        self.event("mode", _KEPT, **{"from": before.value, "to": mode.value})
        for watched in self.watched.values():
            if mode not in LOOKING:
                watched.let_go()
            watched.hurry()

    def _seen(self, found: list[Finding]) -> list[documents.Seen]:
        return [
            documents.Seen(
                w.device, [f for f in found if f.device == name], w.state.reading, w.valid_until_s
            )
            for name, w in self.watched.items()
        ]

    def _publish(self, found: list[Finding], answer: Readiness, now: Moment) -> None:
        seen = self._seen(found)
        about = documents.about(
            name=self.room.name,
            version=__version__,
            box=self._box,
            python=".".join(str(n) for n in sys.version_info[:3]),
            requirements=self.requirements.name,
            capabilities=CAPABILITIES,
            seen=seen,
            now=now,
        )
        document = documents.readiness(answer, self._devices, now, self.room.language)
        news = [
            self._publisher.about(about),
            self._publisher.devices(seen, now),
            self._publisher.readiness(document, now),
        ]
        if any(news):
            try:
                write_status(self._folders.runtime / "status.json", self.status())
            except OSError as error:  # an old file says by its age that it is old
                log.warning("the status file could not be written: %s", error)

    def _put(self, suffix: str, doc: dict[str, Any]) -> None:
        if self._link is not None:
            self._link.put(suffix, encode(doc))

    def status(self) -> dict[str, Any]:
        """What `hearing-room status` shows: the documents as published, and the agent itself."""
        now = self._clock()
        stands = self._publisher.standing
        link = self._link
        broker = None
        if link is not None:
            broker = {
                "connected": link.connected,
                "host": link.broker_host,
                "error": link.last_error,
            }
        return {
            "agent": {
                "pid": os.getpid(),
                "start": process_start(os.getpid()),
                "version": __version__,
                "boot": now.boot,
            },
            "room": {"site": self.room.site, "id": self.room.id, "language": self.room.language},
            "broker": broker,
            "valid_until_up_s": now.up_s + PUBLISHED_FOR_S,
            "about": stands.get("about"),
            "readiness": stands.get("readiness"),
            "devices": [stands[n] for n in stands if n.startswith("device/")],
        }

    # -- events -------------------------------------------------------------------------------

    def _incident(self, type_: str, incident: Incident, **row: Incident) -> None:
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
        self._record(event, _IMPORTANCE.get(incident.level, _KEPT), **row)

    def event(self, type_: str, importance: int, **fields: Any) -> asyncio.Future[int]:
        """Record an event; the future resolves when it is durable."""
        return self._record(documents.event(type_, self._clock(), **fields), importance)

    def _record(
        self, event: dict[str, Any], importance: int, **row: Incident
    ) -> asyncio.Future[int]:
        kept = self._store.post(event, importance=importance, **row)
        if self._link is not None:
            link = self._link
            kept.add_done_callback(lambda _: link.kick())
        return kept

    async def _keep(self, name: str, body: bytes) -> None:
        with contextlib.suppress(StoreError):  # the store is closed, and has said so
            await self._store.put_document(name, body)

    # -- what comes in ------------------------------------------------------------------------

    def _on_message(self, suffix: str, payload: bytes, retained: bool) -> None:
        if suffix != "schedule":
            return
        try:
            hearings = parse_schedule(payload) if payload else ()
        except ValueError as error:
            # What is known stays known: a typing error at central cancels no hearing.
            log.warning("schedule refused: %s", error)
            # An outside word may be endless, and then it may not leave the room.
            why = " ".join(word[:40] for word in str(error).split())[:200]
            self.event("schedule.refused", _KEPT, why=why)
            return
        self._hearings = hearings
        self._spawn(self._keep("schedule", payload))
        self._fold()

    async def dispatch(self, command: Command, peer: Peer) -> dict[str, Any]:
        """Carry out a command of the control socket; every outcome is an event."""
        return await self._commands.carry_out(command, peer)
