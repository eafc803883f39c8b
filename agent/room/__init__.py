"""The wiring of a room, readable as the drawing: devices -> findings -> readiness -> documents,
events, status file; commands in. One task per device, one tick for everything merely due."""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent import kinds, notify, patterns
from agent.control import ControlServer, Folders, Peer, remove_status
from agent.judge import findings as judging
from agent.judge import incidents, readiness, schedule
from agent.kinds import host
from agent.lanes.air import Air
from agent.lanes.lane import Lane
from agent.lanes.watch import Look, Watched, new_lane
from agent.link import documents
from agent.link.client import Link
from agent.link.commands import Inbox
from agent.link.contract import ReplyTo, parse_schedule
from agent.link.publisher import PUBLISHED_FOR_S
from agent.model import (
    Command,
    ConfigError,
    Device,
    Finding,
    Incident,
    Mode,
    Moment,
    Readiness,
    Reading,
    StoreError,
)
from agent.room.baseline import Baseline
from agent.room.commands import CAPABILITIES, LOOKING, ON_A_BOX, Commands
from agent.room.itself import Itself
from agent.room.loops import Loops
from agent.room.modes import Modes
from agent.room.presses import Presses
from agent.room.reboot import DOCUMENT as REBOOT
from agent.room.reboot import Reboot
from agent.room.record import HEARD, Record
from agent.room.recovery import DOCUMENT as RECOVERY
from agent.room.recovery import RECOVERING, Recovery
from agent.room.remedy import Pace
from agent.room.voice import Voice, seen_of
from agent.settings import Room
from agent.store import Store

if TYPE_CHECKING:
    from agent.lanes.hands import Connect
    from agent.room.hands import Hands

log = logging.getLogger("agent.room")

TICK_S = 30.0
TELEMETRY_S = 60.0
GRACE_S = 5.0
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
        hands: Connect | None = None,
        pace: Pace | None = None,
        reboots: bool = False,
    ) -> None:
        """`hands` reaches the process that holds relays and lights; without it the agent starts
        its own, if the room has any. `pace` is how patient a recovery is; `reboots` says that
        somebody waits for a wish to restart the box. Raises `ConfigError` for relays and lights
        that cannot be."""
        self.room = room
        self.requirements = room.requirements
        self._folders = folders
        self._clock = clock
        self._root = root
        self._virtual_root = virtual_root or root
        self._lane_for = lane_for
        self._store = Store(folders.state / "agent.db", clock=clock)
        self._record = Record(self._store, clock)
        self._link: Link | None = None
        self._devices = {d.id: d for d in room.devices}
        self.watched: dict[str, Watched] = {}
        self.modes = Modes()
        self._air = Air()
        self.mode = Mode.IDLE
        self.answer: Readiness | None = None
        self.measuring: set[str] = set()
        """Devices that are being looked at or listened to at this moment."""
        self.loud: set[str] = set()
        """Those of them that make a sound for it."""
        self.locate_until_s = float("-inf")
        self._open: Mapping[incidents.Key, Incident] = {}
        self._itself = Itself(room)
        self.baseline = Baseline(self._store)
        self._presses = Presses(self)
        self.recovery = Recovery(
            self, self._presses, root, spawn=self._spawn, keep=self._record.keep, pace=pace
        )
        self.reboot = Reboot(self, folders.runtime if reboots else None, self._record.keep)
        self._commands = Commands(self, self._presses)
        self._loops = Loops(
            self.watched, lambda made: self._spawn(self._record.keep("loops", made))
        )
        self._telemetry_at_s = clock().up_s
        self._folded_s = clock().up_s
        self._fold_asked = False
        self._stopping = asyncio.Event()
        self.why = "shutdown"
        self._tasks: set[asyncio.Task[Any]] = set()
        self.voice = Voice(
            room,
            host.box_model(root),
            ON_A_BOX if reboots else CAPABILITIES,
            folders.runtime / "status.json",
            self.baseline.shown,
        )
        self.hands = self._reach_hands(hands)
        self._inbox = Inbox(
            dispatch=self._commands.over_mqtt,
            ledger=self._store,
            answer=self._answer,
            clock=clock,
            refused=self._refused,
        )

    def _reach_hands(self, connect: Connect | None) -> Hands | None:
        if not any(kinds.in_hands(d.kind) for d in self.room.devices):
            return None
        from agent.room import hands  # 1 MiB that a room without relays and lights does not pay

        return hands.reach(self, self.room, self._folders, connect)

    # -- life ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Watch the room until `stop`. Nothing here waits for a broker, a device or a disk."""
        self._claim()
        self.reboot.take_back()
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
                    subscriptions=("schedule", "command", "_all/command"),
                    heartbeat_gate=lambda: self.alive(self._clock()),
                )
                self.voice.link = self._record.link = self._link
                self._spawn(self._link.run())
                await self._forget_devices(self._link)
            self._fold()
            if self.hands is not None:
                self._spawn(self.hands.run())
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

    def stop(self, why: str = "") -> None:
        """Ask `run` to end; `why` is what the broker is told."""
        self.why = why or self.why
        self._stopping.set()

    async def _close(self) -> None:
        await self._inbox.close()
        if self._link is not None:
            await self._link.stop(self.why)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        lanes = [w.lane.close() for w in self.watched.values() if w.lane]
        await asyncio.gather(*lanes, return_exceptions=True)
        if self.hands is not None:
            await self.hands.close()
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
        tries: bytes | None = None
        try:
            if saved := await self._store.document("schedule"):
                self.modes.hearings = parse_schedule(saved)
            self.modes.restore(await self._store.document("mode"), self._clock())
            known = await self._store.open_incidents()
            await self.baseline.restore()
            tries = await self._store.document(RECOVERY)
            await self.reboot.restore(await self._store.document(REBOOT))
            if self.hands is not None and (heard := await self._store.document(HEARD)):
                self.hands.resume(int(heard))
            self._loops.restore(await self._store.document("loops"))
        except StoreError as error:  # a bad disk costs the memory, not the watch
            log.error("what was known before cannot be read: %s", error)
        self._open = {(i.device, i.code): i for i in known}
        now = self._clock()
        for device in self.room.devices:
            self.watched[device.id] = Watched(
                device,
                self,
                lane=self._lane_of(device),
                passive=self._part_of(device),
                root=self._virtual_root if device.virtual else self._root,
                clock=self._clock,
                max_age_s=self.requirements.max_age_s.get(device.kind, float("inf")),
                state=judging.restore([i for i in known if i.device == device.id], now),
                air=self._air,
            )
            self.baseline.teach(self.watched[device.id])
        self.recovery.restore(tries)

    def _lane_of(self, device: Device) -> Lane | None:
        return self._lane_for(device) if kinds.has_driver(device.kind, device.settings) else None

    def _part_of(self, device: Device) -> kinds.Passive | None:
        """Relays, lights and the button are read by hands; a device that may be brought back is
        left alone meanwhile."""
        if not kinds.in_hands(device.kind):
            return self.recovery.part(device, self._virtual_root if device.virtual else self._root)
        if self.hands is None:
            return None
        return self.hands.part(device, kinds.load(device.kind).WORDS)

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
            self._spawn(self._record.keep("devices", names))

    def now(self) -> Moment:
        """This instant, on both clocks."""
        return self._clock()

    def standing(self) -> dict[str, dict[str, Any]]:
        """The documents as published, by topic suffix."""
        return self.voice.standing

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
            for loop in self._loops.due(self.modes.hearings, now):
                self._spawn(loop)
            if now.up_s - self._telemetry_at_s >= TELEMETRY_S - 1:
                self._telemetry_at_s = now.up_s
                self.voice.telemetry(self._seen([]), now)
            await asyncio.sleep(self._until_next(now, step_s))

    def _until_next(self, now: Moment, step_s: float) -> float:
        """Seconds until something is due by itself: the grid, a change of mode, evidence that
        runs out."""
        pauses = [step_s - now.up_s % step_s]
        change_s = self.modes.next_change_s(now)
        if change_s is not None:
            pauses.append(change_s + 0.01)
        if (locate_s := self.locate_until_s - now.up_s) > 0:
            pauses.append(locate_s + 0.01)
        runs_out = [w.valid_until_s for w in self.watched.values() if w.valid_until_s is not None]
        pauses += [until - now.up_s + 0.01 for until in runs_out if until > now.up_s]
        return max(0.01, min(pauses))

    # -- what a watched device asks and tells ----------------------------------------------------

    def may_look(self, device: Device) -> str:
        """Not in session, and not so shortly before one that a look could reach into it; nor while
        a step is done to it."""
        if device.id in self.recovery.held:
            return RECOVERING
        if self.mode not in LOOKING:
            return "maintenance" if self.mode is Mode.MAINTENANCE else "in_session"
        now = self._clock()
        soon = now.after(device.settings.deadline_s + GRACE_S)
        return "" if schedule.mode_of(self.modes.hearings, soon) in LOOKING else "in_session"

    def looking(self, device: Device, look: Look, reading: Reading | None) -> None:
        """Every active look leaves two events: who opened what, when, what for."""
        fields: dict[str, Any] = {"device": device.id, "purpose": look.purpose, "by": look.by}
        if reading is None:
            self.measuring.add(device.id)
            if look.question == "loop":
                self.loud.add(device.id)
            self.event("look.started", _DETAIL, **fields)
            self._tell_lights()
            return
        self.measuring.discard(device.id)
        self.loud.discard(device.id)
        self._tell_lights()
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
        self.modes.seen_held(self._held(), now)
        self._enter(self.modes.at(now))
        found = readiness.apply_levels(
            [f for w in self.watched.values() for f in w.findings]
            + self._own(now)
            + self.recovery.findings(now),
            self.requirements,
        )
        edges = incidents.step(self._open, found, now)
        self._open = edges.now_open
        for incident in edges.opened:
            self._record.incident("incident.opened", incident, opened=incident)
        for incident in edges.closed:
            self._record.incident("incident.closed", incident, closed=incident)
        answer = readiness.fold(
            self.room.devices,
            found,
            mode=self.mode,
            hearing=schedule.current_hearing(self.modes.hearings, now),
            requirements=self.requirements,
            now=now,
            valid_for_s=PUBLISHED_FOR_S,
        )
        self.answer = answer
        self.recovery.consider(now)
        self.voice.publish(self._seen(found), answer, now)
        self._tell_lights()

    def _held(self) -> bool:
        """Whether another program holds a camera and a microphone: somebody is in a call."""
        return {"camera", "microphone"} <= {
            w.device.kind
            for w in self.watched.values()
            if w.state.reading is not None and w.state.reading.values.get("in_use") is True
        }

    def _own(self, now: Moment) -> list[Finding]:
        lanes = [w.lane for w in self.watched.values() if w.lane]
        return self._itself.findings(now, self._link, self._store, lanes, self.hands)

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
        return [seen_of(w.device, found, w.reading, w.valid_until_s) for w in self.watched.values()]

    def status(self) -> dict[str, Any]:
        """What `hearing-room status` shows."""
        return self.voice.status(self._clock())

    # -- lights and button ----------------------------------------------------------------------

    def word(self, now: Moment) -> dict[str, Any]:
        """What the lights have to say."""
        answer = self.answer
        worst = answer.reasons[0].code if answer and answer.reasons else ""
        live = [
            w.state.reading.values.get("in_use") if w.state.reading else None
            for w in self.watched.values()
            if w.device.kind == "microphone"
        ]
        return {
            "state": answer.state.value if answer else "unknown",
            "mode": self.mode.value,
            "family": patterns.family_of(worst) if worst else 0,
            "measuring": bool(self.measuring),
            "locate": now.up_s < self.locate_until_s,
            "commissioned": self.room.commissioned and any(d.required for d in self.room.devices),
            "mic_live": True if True in live else False if live and None not in live else None,
            "lock_in_s": self.modes.lock_in_s(now),
        }

    def _tell_lights(self) -> None:
        if self.hands is not None and self.hands.changed():
            self._spawn(self.hands.say())

    def happened(self, event: Mapping[str, Any]) -> asyncio.Future[int]:
        """Something happened at a relay or a button. Resolves when the record has it."""
        return self._presses.happened(event)

    def set_mode(self, mode: Mode | None, minutes: float, by: str) -> None:
        """A person says what the room is doing; None gives it back to the schedule."""
        self.modes.say(mode, minutes, by, self._clock())
        self._spawn(self._record.keep("mode", self.modes.save()))
        self._fold()

    def report(self) -> None:
        """Say everything again."""
        self.voice.again()
        self._fold()

    def refresh(self) -> None:
        """Something that the lights show has changed."""
        self._tell_lights()

    def recovered(self) -> None:
        """A recipe is over: fold again."""
        self._fold()

    def open_incident(self, device: str, code: str) -> Incident | None:
        """An incident that is open, by device and code."""
        return self._open.get((device, code))

    # -- the record ---------------------------------------------------------------------------

    def event(self, type_: str, importance: int, **fields: Any) -> asyncio.Future[int]:
        """Record an event; the future resolves when it is durable."""
        return self._record.event(type_, importance, **fields)

    def act(self, type_: str, number: int, **fields: Any) -> asyncio.Future[int]:
        """Record what hands tells, and in the same transaction that it was heard."""
        return self._record.act(type_, number, **fields)

    # -- what comes in ------------------------------------------------------------------------

    def _on_message(
        self, suffix: str, payload: bytes, retained: bool, reply_to: ReplyTo | None
    ) -> None:
        if suffix.endswith("command"):
            broadcast = suffix.startswith("_all/")
            self._inbox.receive(payload, retained=retained, broadcast=broadcast, reply_to=reply_to)
            return
        try:
            hearings = parse_schedule(payload) if payload else ()
        except ValueError as error:
            # What is known stays known: a typing error at central cancels no hearing.
            log.warning("schedule refused: %s", error)
            # An outside word may be endless, and then it may not leave the room.
            self.event("schedule.refused", _KEPT, why=documents.short(str(error)))
            return
        self.modes.hearings = hearings
        self._spawn(self._record.keep("schedule", payload))
        self._fold()

    async def dispatch(self, command: Command, peer: Peer) -> dict[str, Any]:
        """Carry out a command of the control socket; every outcome is an event."""
        return await self._commands.over_socket(command, peer)

    def _answer(self, result: bytes, reply_to: ReplyTo | None) -> None:
        if self._link is not None:
            self._link.answer(result, reply_to)

    def _refused(self, code: str, why: str) -> None:
        self.event("command.refused", _KEPT, code=code, why=documents.short(why))
