"""The relays of the room: the engine's acts done with real contacts, and what is read back."""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from agent.hands.engine import Act, Answer, Dropped, Engine
from agent.hands.hardware import Contact, Hardware
from agent.hands.layout import Relay
from agent.model import Fault, Reading, Scalar

log = logging.getLogger("hands")

Told = Callable[[str, str, Mapping[str, Scalar]], None]
"""Tells of something that happened: event, relay, facts."""
_GONE = frozenset({errno.ENODEV, errno.ENXIO, errno.ENOENT})


class Relays:
    """Holds contacts and engine together. Times are boot-time seconds."""

    def __init__(self, relays: Iterable[Relay], hardware: Hardware, told: Told) -> None:
        self._rules = {r.id: r for r in relays}
        self._hardware = hardware
        self._told = told
        self._contacts: dict[str, Contact] = {}
        self._feedback: dict[str, Any] = {}
        self._trouble: dict[str, int] = {}
        self.engine = Engine(self._rules.values())

    # -- starts and stops ----------------------------------------------------------------------

    def start(self, kept: Mapping[str, Any], now_s: float, *, same_boot: bool) -> None:
        """Take hold of every contact, each in its right state from the first moment. Lines that an
        earlier process left are as they are."""
        held = {name: self._hardware.held(r.place) for name, r in self._rules.items()}
        seen = {name: on for name, on in held.items() if on is not None}
        if same_boot or seen:
            acts = self.engine.restore(kept, now_s, same_boot=True, seen=seen)
        else:
            self.engine.restore(kept, now_s, same_boot=False)
            last = {name: bool(past.get("on")) for name, past in kept.items()}
            acts = self.engine.power_on(last, now_s)
        for name in self._rules:
            self._take(name)
        self._tell(acts)

    def adopt(self, older: Relays, now_s: float) -> None:
        """Take over from the relays of the layout before: contacts that hang where they hung stay
        untouched, others are let go as their `on_stop` says."""
        before, kept = older._rules, older.engine.save()
        same = {n for n, r in self._rules.items() if n in before and before[n].place == r.place}
        for act in older.engine.stop(now_s):
            if act.relay not in same:
                older._perform(act)
        self.engine.restore({n: kept[n] for n in same}, now_s, same_boot=True)
        self.engine.locked = older.engine.locked
        self.engine.lock_at_s = older.engine.lock_at_s
        for name in same & older._contacts.keys():
            self._contacts[name] = older._contacts.pop(name)
        older.close()
        for name in self._rules:
            self._take(name)

    def close(self) -> None:
        """Let go of every contact."""
        for contact in self._contacts.values():
            with contextlib.suppress(OSError):
                contact.close()
        for device in self._feedback.values():
            device.close()
        self._contacts.clear()
        self._feedback.clear()

    def stop(self, now_s: float) -> None:
        """Make safe what has to be, before hands ends."""
        self._do(self.engine.stop(now_s))

    # -- wishes and time -----------------------------------------------------------------------

    def set(self, relay: str, on: bool, now_s: float, *, by: str, glass: bool) -> Reading:
        """Switch a relay; the reading says what came of it (`why`: the rule that forbids it)."""
        return self._wish(relay, self.engine.set(relay, on, now_s, by=by, glass=glass), now_s)

    def pulse(self, relay: str, now_s: float, *, by: str, glass: bool) -> Reading:
        """Switch a relay over and back."""
        return self._wish(relay, self.engine.pulse(relay, now_s, by=by, glass=glass), now_s)

    def tick(self, now_s: float) -> bool:
        """Do what has come due; True when something was."""
        due = self.engine.tick(now_s)
        self._do(due)
        return bool(due)

    def read(self, relay: str, now_s: float) -> Reading:
        """What a relay is, read back. One that was out of reach is tried again."""
        if relay not in self._rules:
            return Reading(fault=Fault.SKIPPED, why="unknown_relay")
        if relay not in self._contacts:
            self._come_back(relay, now_s)
        values: dict[str, Scalar] = self.engine.facts(relay, now_s)
        if relay not in self._contacts:
            return self._broken(relay, values)
        try:
            seen = self._contacts[relay].get()
        except OSError as error:
            self._lose(relay, error)
            return self._broken(relay, values)
        if seen is not None:
            values["readback_on"] = seen
        if (feedback := self._feedback.get(relay)) is not None:
            values["feedback_on"] = bool(feedback.is_active)
        return Reading(values)

    # -- contacts ------------------------------------------------------------------------------

    def _wish(self, relay: str, answer: Answer, now_s: float) -> Reading:
        done = self._do(answer.acts)
        reading = self.read(relay, now_s)
        if answer.code not in ("ok", "pending"):
            return Reading(reading.values, Fault.SKIPPED, answer.code)
        if not done and reading.fault is None:
            return Reading(reading.values, Fault.ERROR, "errno")
        if answer.due_s is None:
            return reading
        values = {**reading.values, "due_in_s": round(max(0.0, answer.due_s - now_s), 2)}
        return Reading(values, reading.fault, reading.why)

    def _do(self, acts: Iterable[Act | Dropped]) -> bool:
        """Do acts in their order; what cannot be done is taken back."""
        well = True
        for act in acts:
            if isinstance(act, Dropped):
                log.warning("relay %s: not switched after all: %s", act.relay, act.code)
                self._told("dropped", act.relay, {"code": act.code})
            elif self._perform(act):
                self._tell([act])
            else:
                self.engine.failed(act.relay)
                self._told("failed", act.relay, {"on": act.on, "errno": self._trouble[act.relay]})
                well = False
        return well

    def _perform(self, act: Act) -> bool:
        contact = self._contacts.get(act.relay)
        if contact is None:
            self._trouble.setdefault(act.relay, errno.ENODEV)
            return False
        try:
            contact.set(act.on)
        except OSError as error:
            self._lose(act.relay, error)
            return False
        return True

    def _tell(self, acts: Iterable[Act]) -> None:
        for act in acts:
            by = f" for {act.by}" if act.by else ""
            log.info("relay %s %s: %s%s", act.relay, "on" if act.on else "off", act.cause, by)
            self._told("switched", act.relay, {"on": act.on, "cause": act.cause})

    def _take(self, name: str) -> None:
        """Get hold of a contact, where it is not held yet, in the state that the engine says."""
        rules = self._rules[name]
        try:
            if name not in self._contacts:
                self._contacts[name] = self._hardware.contact(rules.place, self.engine.on(name))
            if rules.feedback_pin is not None and name not in self._feedback:
                self._feedback[name] = self._hardware.input(
                    rules.feedback_pin, pull_up=rules.feedback_active_low, changed=None
                )
        except OSError as error:
            self._lose(name, error)
        else:
            self._trouble.pop(name, None)

    def _come_back(self, name: str, now_s: float) -> None:
        """A contact that was out of reach: in session it stays as it is found, else it becomes
        what it should be."""
        rules = self._rules[name]
        if rules.session_lock and self.engine.locked:
            found = self._hardware.peek(rules.place)
            if found is None:
                return
            self.engine.found(name, found, now_s)
        self._take(name)

    def _lose(self, name: str, error: OSError) -> None:
        number = error.errno or errno.EIO
        if self._trouble.get(name) != number:
            place = self._rules[name].place
            log.warning("relay %s (%s): %s", name, place, error.strerror or error)
        self._trouble[name] = number
        if (contact := self._contacts.pop(name, None)) is not None:
            with contextlib.suppress(OSError):
                contact.close()
        self._hardware.forget_board(self._rules[name].place)

    def _broken(self, name: str, values: dict[str, Scalar]) -> Reading:
        number = self._trouble.get(name, errno.ENODEV)
        fault = Fault.ABSENT if number in _GONE else Fault.ERROR
        return Reading(
            {**values, "errno": number}, fault, "no_node" if number in _GONE else "errno"
        )
