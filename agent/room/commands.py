"""The commands that a room carries out: a closed list, checked arguments, one outcome each.

The same handlers serve the control socket and the broker. An outcome's `effect` is flat and is what
was read back; `detail` is more of it, for the socket only.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from agent import kinds
from agent.control import Peer
from agent.judge import readiness
from agent.judge.recipe import Step
from agent.lanes.watch import Watched
from agent.link import documents
from agent.link.commands import typed
from agent.model import (
    Command,
    Device,
    Fault,
    Finding,
    Incident,
    Level,
    Mode,
    Moment,
    Reading,
    Refused,
    Scalar,
)
from agent.room.baseline import Baseline, commission
from agent.room.presses import Presses
from agent.room.reboot import Reboot
from agent.room.recovery import Recovery
from agent.room.remedy import DONE, Ask
from agent.room.voice import Voice
from agent.settings import Room as Settings

if TYPE_CHECKING:
    from agent.room.hands import Hands

log = logging.getLogger("agent.room")

RECORD_S = 2.0
"""How long an answer waits for its record, when the disk hangs."""
LOOKING = (Mode.IDLE, Mode.PREPARING)
"""The modes in which a device may be opened. In recess people are in the room."""
SETTLE_S = 0.15
"""A contact that is wired back is believed by hands 0.1 s after its relay was switched."""
CAPABILITIES = (
    "check",
    "report",
    "locate",
    "relay.set",
    "relay.pulse",
    "device.recover",
    "mode.set",
    "incident.ack",
    "agent.restart",
)
ON_A_BOX = (*CAPABILITIES, "box.reboot")
"""Of an installed box, where systemd waits for the wish."""


class Room(Protocol):
    """What a command needs of the room."""

    room: Settings
    mode: Mode
    watched: dict[str, Watched]
    requirements: readiness.Requirements
    hands: Hands | None
    recovery: Recovery
    reboot: Reboot
    locate_until_s: float
    baseline: Baseline
    voice: Voice

    def now(self) -> Moment:
        """This instant."""
        ...

    def standing(self) -> dict[str, dict[str, Any]]:
        """The documents as published."""
        ...

    def event(self, type_: str, importance: int, **fields: Any) -> asyncio.Future[int]:
        """Record an event; the future resolves when it is durable."""
        ...

    def set_mode(self, mode: Mode | None, minutes: float, by: str) -> None:
        """A person says what the room is doing."""
        ...

    def report(self) -> None:
        """Say everything again."""
        ...

    def refresh(self) -> None:
        """Something that the lights or documents show has changed."""
        ...

    def open_incident(self, device: str, code: str) -> Incident | None:
        """An incident that is open, by device and code."""
        ...

    def stop(self, why: str = "shutdown") -> None:
        """Ask the agent to end."""
        ...


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a command."""

    effect: Mapping[str, Scalar]
    detail: Mapping[str, Any] | None = None


class Failed(Exception):
    """A command that could not be done; `code` is a closed word, `effect` what there is all the
    same."""

    def __init__(self, code: str, message: str, effect: Mapping[str, Scalar] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.effect = effect


Handler = Callable[[Command, str], Awaitable[Done]]


class Commands:
    """Carries out commands, one method each."""

    def __init__(self, room: Room, presses: Presses) -> None:
        self._room = room
        self._presses = presses
        self._handlers: dict[str, Handler] = {
            "check": self._check,
            "report": self._report,
            "locate": self._locate,
            "relay.set": self._relay_set,
            "relay.pulse": self._relay_pulse,
            "device.recover": self._recover,
            "mode.set": self._mode_set,
            "incident.ack": self._acknowledge,
            "agent.restart": self._restart,
            "box.reboot": self._reboot,
            "baseline": self._baseline,
        }

    async def over_socket(self, command: Command, peer: Peer) -> dict[str, Any]:
        """The outcome of a command of the control socket, with detail and a message for people."""
        return await self._carry_out(command, command.by or f"uid:{peer.uid}")

    async def over_mqtt(self, command: Command) -> dict[str, Any]:
        """The outcome of a command of the broker."""
        return await self._carry_out(command, command.by or "mqtt")

    async def _carry_out(self, command: Command, by: str) -> dict[str, Any]:
        """The outcome of a command; it is an event, whatever it is."""
        started_s = self._room.now().up_s
        # Whatever others write goes into the record: a text that may not must not cost the record.
        by = documents.short(by, 64)
        command = replace(command, reason=documents.short(command.reason))
        device = command.args.get("device") or command.args.get("relay") or ""
        try:
            command = typed(command)
            handler = self._handlers.get(command.name)
            if handler is None:
                raise Refused("not_available", f"{command.name} is not available on this box")
            done = await handler(command, by)
            outcome: dict[str, Any] = {"state": "done", "code": "ok", "effect": dict(done.effect)}
            if done.detail is not None:
                outcome["detail"] = done.detail
        except Refused as refusal:
            outcome = {"state": "refused", "code": refusal.code, "message": str(refusal)}
        except Failed as failure:
            outcome = {"state": "failed", "code": failure.code, "message": str(failure)}
            if failure.effect is not None:
                outcome["effect"] = dict(failure.effect)
        took_ms = round((self._room.now().up_s - started_s) * 1000)
        facts = {
            "command": documents.short(command.name, 40),
            "code": outcome["code"],
            "by": by,
            "reason": command.reason or None,
            "device": documents.short(str(device), 64) or None,
        }
        kept = self._room.event(f"command.{outcome['state']}", 1, **facts, took_ms=took_ms)
        # Whoever hears of an outcome may rely on its record, unless the disk hangs.
        await asyncio.wait([kept], timeout=RECORD_S)
        return {**outcome, "took_ms": took_ms}

    # -- looking -------------------------------------------------------------------------------

    async def _check(self, command: Command, by: str) -> Done:
        """Fresh readings, of one device or of all; with `loop`, of loudspeakers that may make their
        short sound."""
        wanted, loop = command.args.get("device"), bool(command.args.get("loop"))
        watched = self._room.watched
        if wanted is not None and wanted not in watched:
            raise Refused("unknown_device", f"no device {wanted!r} in this room")
        chosen = [w for name, w in watched.items() if wanted in (None, name)]
        if loop and not (chosen := [w for w in chosen if w.can("loop")]):
            who = wanted or "no device of this room"
            raise Refused("no_loop_test", f"{who}: only a loudspeaker with loop_test = true")
        if self._room.mode not in LOOKING and any(w.lane for w in chosen):
            message = f"mode is {self._room.mode}: no device is opened, passive readings go on"
            raise Refused(self._room.mode.value, message)
        question = "loop" if loop else "look"
        readings = await asyncio.gather(*(w.ask_now(by, question) for w in chosen))
        detail = {
            w.device.id: self._checked(w.device, r, w.settings)
            for w, r in zip(chosen, readings, strict=True)
        }
        return Done({name: str(one["level"]) for name, one in detail.items()}, detail)

    def _checked(self, device: Device, reading: Reading, settings: Any) -> dict[str, Any]:
        found = kinds.load(device.kind).judge(reading, settings)
        if reading.fault in (Fault.SKIPPED, Fault.QUARANTINED) and not found:
            found = [Finding("agent.no_evidence", Level.UNKNOWN, device=device.id)]
        found = readiness.apply_levels(found, self._room.requirements)
        seen = documents.Seen(device, found, reading, None)
        doc = documents.device(seen, self._room.now(), published_for_s=0)
        return {key: doc[key] for key in ("level", "findings", "readings", "name", "kind")}

    async def _baseline(self, command: Command, by: str) -> Done:
        """The day of commissioning."""
        wanted = command.args.get("device")
        seen = await commission(
            self._room,
            None if wanted is None else str(wanted),
            anyway=bool(command.args["anyway"]),
            by=by,
            checked=self._checked,
        )
        return Done({name: bool(one["recorded"]) for name, one in seen.items()}, seen)

    async def _report(self, command: Command, by: str) -> Done:
        """Everything that stands, published again."""
        standing = self._room.standing()
        self._room.report()
        return Done({"documents": len(standing)}, standing)

    async def _locate(self, command: Command, by: str) -> Done:
        """The status light says where the room is."""
        seconds = int(command.args["seconds"])
        if self._room.hands is None:
            raise Refused("no_lights", "this room has no light: name one, [indicator.status]")
        self._room.locate_until_s = self._room.now().up_s + seconds
        self._room.refresh()
        return Done({"seconds": seconds})

    # -- relays --------------------------------------------------------------------------------

    async def _relay_set(self, command: Command, by: str) -> Done:
        """Switch a relay, and say what was read back."""
        wanted = bool(command.args["on"])
        reading = await self._move(command, by, "set", on=wanted)
        relay = str(command.args["relay"])
        due_in_s = reading.values.get("due_in_s")
        if due_in_s is not None:  # others of its group went off first
            reading = await self._later(relay, float(due_in_s), wanted)
        elif self._has_feedback(relay) and "feedback_on" not in reading.values:
            reading = await self._later(relay, 0.0, wanted)  # its contact is still moving
        return Done({"relay": relay, **_state(reading)})

    async def _relay_pulse(self, command: Command, by: str) -> Done:
        """Switch a relay over, and back."""
        reading = await self._move(command, by, "pulse")
        effect = {"relay": str(command.args["relay"]), **_state(reading)}
        return Done({**effect, "back_in_s": reading.values.get("due_in_s", 0.0)})

    async def _move(self, command: Command, by: str, wish: str, **args: Any) -> Reading:
        relay, glass = str(command.args["relay"]), bool(command.args["break_glass"])
        hands = self._room.hands
        if hands is None or relay not in self._room.watched:
            raise Refused("unknown_relay", f"no relay {relay!r} in this room")
        if glass and not command.reason.strip():
            raise Refused("no_reason", "to break the glass takes a reason")
        name = self._presses.asked(by, command.reason)
        reading = await hands.ask("relay", wish, relay=relay, by=name, glass=glass, **args)
        return _judged(relay, reading)

    def _has_feedback(self, relay: str) -> bool:
        settings = self._room.watched[relay].device.settings
        return getattr(settings, "feedback_pin", None) is not None

    async def _later(self, relay: str, due_in_s: float, wanted: bool) -> Reading:
        """Wait for a relay that is switched after a pause, and read it back."""
        assert self._room.hands is not None
        await asyncio.sleep(due_in_s + SETTLE_S)
        reading = _judged(relay, await self._room.hands.ask("relay", "read", relay=relay))
        if reading.values.get("on") is not wanted:
            raise Refused("interlocked", f"{relay} was not switched after all: see its events")
        return reading

    # -- devices -------------------------------------------------------------------------------

    async def _recover(self, command: Command, by: str) -> Done:
        """Bring a device back, or say what would be done."""
        args = command.args
        step = args.get("step")
        ask = Ask(
            device=str(args["device"]),
            by=by,
            reason=command.reason,
            glass=bool(args["break_glass"]),
            shared_power=bool(args["shared_power"]),
            only=Step(str(step)) if step else None,
        )
        if args["dry_run"]:
            return Done(*await self._room.recovery.dry_run(ask))
        result = await self._room.recovery.recover(ask)
        if result.step is None:
            raise Refused(result.word, f"{ask.device}: nothing was done: {result.word}")
        if result.healed or result.word == DONE:
            return Done(result.effect)
        seen = f"{result.before} before, {result.after} after"
        raise Failed(result.word, f"{ask.device} is not healed: {seen}", result.effect)

    # -- the room ------------------------------------------------------------------------------

    async def _mode_set(self, command: Command, by: str) -> Done:
        """Say what the room is doing."""
        word, minutes = str(command.args["mode"]), float(command.args["minutes"])
        room = self._room
        of_session = word in ("in_session", "recess", "idle")
        if of_session and not room.room.session_by_command:
            raise Refused(
                "not_allowed",
                "this room takes its sessions from the schedule; session_by_command = true in"
                " [room] lets people say it",
            )
        if word == "maintenance" and room.mode is Mode.IN_SESSION:
            raise Refused("in_session", "no maintenance while a hearing runs")
        room.set_mode(None if word == "auto" else Mode(word), minutes, by)
        return Done({"mode": room.mode.value})

    async def _acknowledge(self, command: Command, by: str) -> Done:
        """Somebody has seen an incident."""
        code, device = str(command.args["code"]), str(command.args["device"])
        incident = self._room.open_incident(device, code)
        if incident is None:
            raise Refused("no_incident", f"no incident {code!r} is open for {device or 'the room'}")
        fields: dict[str, Any] = {"device": device or None, "code": code, "by": by}
        self._room.event("incident.acknowledged", 1, **fields, since=incident.since.iso)
        return Done({"code": code, "device": device})

    async def _restart(self, command: Command, by: str) -> Done:
        """End; whoever started the agent starts it again. Relays hold meanwhile."""
        if self._room.mode is Mode.IN_SESSION:
            raise Refused("in_session", "not while a hearing runs")
        loop = asyncio.get_running_loop()
        loop.call_later(1.0, self._room.stop, "restart")
        return Done({"restarts_in_s": 1})

    async def _reboot(self, command: Command, by: str) -> Done:
        """Restart the box. What became of it is an event of the next boot."""
        try:
            return Done({"reboots_in_s": await self._room.reboot.ask(by, command.reason)})
        except OSError as error:
            raise Failed("error", f"the wish cannot be left: {error}") from error


def _judged(relay: str, reading: Reading) -> Reading:
    """The reading of a wish, or what became of it instead."""
    if reading.fault is Fault.SKIPPED:
        raise Refused(reading.why, f"relay {relay}: {_EXPLAINED.get(reading.why, reading.why)}")
    if reading.fault is not None:
        number = reading.values.get("errno")
        code = "hands_lost" if reading.why == "hands_lost" else str(reading.fault)
        raise Failed(code, f"relay {relay} could not be switched: {code} (errno {number})")
    return reading


_EXPLAINED = {
    "session_lock": "a hearing runs or begins too soon; only held button and break_glass move it",
    "interlocked": "another relay of its group may not go off yet",
    "over_budget": "switched too often in this hour (max_per_h)",
    "too_soon": "switched too short a time ago (min_on_s, min_off_s)",
    "not_held": "to break the glass, the button at the box has to be held down at the same time",
}


def _state(reading: Reading) -> dict[str, Scalar]:
    """What was read back: the line where it can be read, and the contact."""
    values = reading.values
    state: dict[str, Scalar] = {"on": values.get("readback_on", values["on"])}
    if "feedback_on" in values:
        state["feedback_on"] = values["feedback_on"]
    return state
