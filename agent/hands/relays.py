"""The relays of the room: the engine's acts done with real contacts, and what is read back."""

from __future__ import annotations

import contextlib
import errno
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from agent.hands import pasts
from agent.hands.engine import INTERLOCKED, OK, PENDING, Act, Answer, Dropped, Engine
from agent.hands.hardware import Contact, Hardware
from agent.hands.layout import Relay
from agent.model import Fault, Reading, Scalar

log = logging.getLogger("hands")

Told = Callable[[str, str, Mapping[str, Scalar], str], None]
"""Tells of something that happened: event, relay, facts, and who asked for it."""
SETTLE_S = 0.1
"""A contact needs some 10 ms to move, and bounces: what it says meanwhile is nothing."""
_NOT_ALONE = 0
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
        self._said: set[str] = set()
        self.engine = Engine(self._rules.values())

    # -- starts and stops ----------------------------------------------------------------------

    def start(self, kept: Mapping[str, Any], now_s: float, *, same_boot: bool) -> None:
        """Take hold of every contact, each in its right state from the first moment. Lines that an
        earlier process left are as they are, and so are boards that tell what they are. Raises
        `ValueError` for what `engine.save` never gave."""
        held = _known({name: self._hardware.held(r.place) for name, r in self._rules.items()})
        seen = self._looked_at() | held
        if same_boot or held:
            acts = self.engine.restore(kept, now_s, same_boot=True, seen=seen)
            was = {name: past.on for name, past in pasts.all_of(kept).items()}
            moved = [name for name, on in seen.items() if was.get(name, on) is not on]
            self._tell(Act(name, seen[name], "found") for name in moved)
        else:
            self.engine.restore(kept, now_s, same_boot=False)
            last = {name: past.last for name, past in pasts.all_of(kept).items()}
            acts = self.engine.power_on(last, now_s)
        self._take_all(seen, acts, now_s, cause="restore" if same_boot else "power_on")

    def adopt(self, older: Relays, now_s: float) -> None:
        """Take over from the relays of the layout before: contacts that hang where they hung stay
        untouched, whatever they are called now; others are let go as their `on_stop` says."""
        kept = older.engine.save()
        stays = {
            name: was.id
            for name, rules in self._rules.items()
            for was in older._rules.values()
            if was.place.wire == rules.place.wire
        }
        for act in older.engine.stop(now_s):
            if act.relay not in stays.values():
                older._do([act], now_s)
        acts = self.engine.restore(
            {name: kept[was] for name, was in stays.items()}, now_s, same_boot=True
        )
        self.engine.locked = older.engine.locked
        self.engine.lock_at_s = older.engine.lock_at_s
        for name, was in stays.items():
            if older._rules[was].place == self._rules[name].place and was in older._contacts:
                self._contacts[name] = older._contacts.pop(was)
        for name in older._contacts:
            log.info("relay %s (%s): let go", name, older._rules[name].place)
        older.close()
        was_on = {name: bool(kept[was]["on"]) for name, was in stays.items()}
        seen = self._looked_at() | was_on
        self._take_all(seen, acts, now_s, cause="restore")

    def _looked_at(self) -> dict[str, bool]:
        """What boards say that they are, before anything is switched."""
        return _known({name: self._hardware.peek(r.place) for name, r in self._rules.items()})

    def _take_all(
        self, seen: Mapping[str, bool], acts: Iterable[Act], now_s: float, *, cause: str
    ) -> None:
        """Take every contact in the state that the engine says, those that are off first, and tell
        of each that moves by it. One whose state nobody knew counts as off before."""
        demanded = {act.relay: act for act in acts}
        for name in sorted(self._rules, key=self.engine.on):
            on, act = self.engine.on(name), demanded.get(name)
            held = act is not None and name in self._contacts
            there = self._perform(act) if act and held else self._take(name, on)
            if there and on is not seen.get(name, False):
                self._tell([act or Act(name, on, cause)])
            elif not there and act is not None:
                self._fail(act, now_s)

    def close(self) -> None:
        """Let go of every contact."""
        for contact in self._contacts.values():
            with contextlib.suppress(OSError):
                contact.close()
        for device in self._feedback.values():
            with contextlib.suppress(OSError):
                device.close()
        self._contacts.clear()
        self._feedback.clear()

    def stop(self, now_s: float) -> None:
        """Make safe what has to be, before hands ends."""
        self._do(self.engine.stop(now_s), now_s)

    # -- wishes and time -----------------------------------------------------------------------

    def set(self, relay: str, on: bool, now_s: float, *, by: str, glass: bool) -> Reading:
        """Switch a relay; the reading says what came of it (`why`: the rule that forbids it)."""
        self.tick(now_s)  # done, or found impossible, before anything is decided on it
        return self._wish(relay, self.engine.set(relay, on, now_s, by=by, glass=glass), now_s)

    def pulse(self, relay: str, now_s: float, *, by: str, glass: bool) -> Reading:
        """Switch a relay over and back."""
        self.tick(now_s)
        return self._wish(relay, self.engine.pulse(relay, now_s, by=by, glass=glass), now_s)

    def tick(self, now_s: float) -> None:
        """Do what has come due."""
        self._do(self.engine.tick(now_s), now_s)

    def read(self, relay: str, now_s: float) -> Reading:
        """What a relay is, read back. One that was out of reach is tried again."""
        if relay not in self._rules:
            return Reading(fault=Fault.SKIPPED, why="unknown_relay")
        if relay not in self._contacts and not self.engine.owes(relay):
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
        return Reading({**values, **self._read_feedback(relay, now_s)})

    def _read_feedback(self, relay: str, now_s: float) -> dict[str, Scalar]:
        """What the contact says that is wired back, once it has come to rest; trouble with it is
        none of the relay."""
        rules = self._rules[relay]
        if rules.feedback_pin is None or self.engine.since_s(relay, now_s) < SETTLE_S:
            return {}
        try:
            if relay not in self._feedback:
                self._feedback[relay] = self._hardware.input(
                    rules.feedback_pin, pull_up=rules.feedback_active_low, changed=None
                )
            return {"feedback_on": bool(self._feedback[relay].is_active)}
        except OSError as error:
            if (device := self._feedback.pop(relay, None)) is not None:
                with contextlib.suppress(OSError):
                    device.close()
            return {"feedback_errno": error.errno or errno.EIO}

    # -- contacts ------------------------------------------------------------------------------

    def _wish(self, relay: str, answer: Answer, now_s: float) -> Reading:
        undone = self._do(answer.acts, now_s)
        reading = self.read(relay, now_s)
        if answer.code not in (OK, PENDING):
            return Reading(reading.values, Fault.SKIPPED, answer.code)
        number = undone.get(relay)
        if number == _NOT_ALONE:
            return Reading(reading.values, Fault.SKIPPED, INTERLOCKED)
        if number is not None and reading.fault is None:
            return Reading({**reading.values, "errno": number}, Fault.ERROR, "errno")
        if answer.due_s is None:
            return reading
        values = {**reading.values, "due_in_s": round(max(0.0, answer.due_s - now_s), 2)}
        return Reading(values, reading.fault, reading.why)

    def _do(self, acts: Iterable[Act | Dropped], now_s: float) -> dict[str, int]:
        """Do acts in their order; what cannot be done is taken back. Returns the relays that were
        not switched, and the errno."""
        undone: dict[str, int] = {}
        for act in acts:
            if isinstance(act, Dropped):
                self._drop(act)
            elif act.on and not self.engine.alone(act.relay):
                # The other one of its group should have gone off first, and did not.
                self.engine.failed(act, now_s)
                self._drop(Dropped(act.relay, INTERLOCKED, act.by))
                undone[act.relay] = _NOT_ALONE
            elif self._perform(act):
                self._tell([act])
            else:
                self._fail(act, now_s)
                undone[act.relay] = self._trouble[act.relay]
        return undone

    def _perform(self, act: Act) -> bool:
        contact = self._contacts.get(act.relay)
        if contact is None:
            return self._take(act.relay, act.on)
        try:
            contact.set(act.on)
        except OSError as error:
            self._lose(act.relay, error)
            return False
        self._trouble.pop(act.relay, None)
        return True

    def _tell(self, acts: Iterable[Act]) -> None:
        for act in acts:
            by = f" for {act.by}" if act.by else ""
            log.info("relay %s %s: %s%s", act.relay, "on" if act.on else "off", act.cause, by)
            self._told("switched", act.relay, {"on": act.on, "cause": act.cause}, act.by)
            self._said.discard(act.relay)

    def _drop(self, act: Dropped) -> None:
        log.warning("relay %s: not switched after all: %s", act.relay, act.code)
        self._told("dropped", act.relay, {"code": act.code}, act.by)

    def _fail(self, act: Act, now_s: float) -> None:
        """An act could not be done. What is tried again by itself is told once, not each time."""
        self.engine.failed(act, now_s)
        if not (self.engine.owes(act.relay) and act.relay in self._said):
            facts = {"on": act.on, "errno": self._trouble[act.relay]}
            self._told("failed", act.relay, facts, act.by)
        if self.engine.owes(act.relay):
            self._said.add(act.relay)

    def _take(self, name: str, on: bool) -> bool:
        """Get hold of a contact in this state, where it is not held yet; False where it cannot."""
        try:
            if name not in self._contacts:
                self._contacts[name] = self._hardware.contact(self._rules[name].place, on)
        except OSError as error:
            self._lose(name, error)
            return False
        self._trouble.pop(name, None)
        return True

    def _come_back(self, name: str, now_s: float) -> None:
        """A contact that was out of reach: in session it stays as it is found, else it becomes
        what it should be."""
        found = self._hardware.peek(self._rules[name].place)
        if self.engine.is_locked(name, now_s):
            if found is None:
                return
            if self.engine.found(name, found, now_s):
                self._tell([Act(name, found, "found")])
        on = self.engine.on(name)
        if self._take(name, on) and on is not bool(found):
            self._tell([Act(name, on, "restore")])

    def _lose(self, name: str, error: OSError) -> None:
        number = error.errno or errno.EIO
        if self._trouble.get(name) != number:
            place = self._rules[name].place
            log.warning("relay %s (%s): %s", name, place, error.strerror or error)
        self._trouble[name] = number
        if self._rules[name].place.pin is not None and number not in _GONE:
            return  # to let go of a line is to let it fall
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


def _known(states: Mapping[str, bool | None]) -> dict[str, bool]:
    return {name: on for name, on in states.items() if on is not None}
