"""What hands answers, and what it tells by itself: relays, lights and button behind one line.

Questions, as on every lane (`agent.lanes.wire`):

    hands      about | say {word} | wait {after, within_s} | reload | stop
    relay      read {relay} | set {relay, on, by, glass} | pulse {relay, by, glass}
    indicator  read {light}
    button     read {button}

`say` is the agent's word: what the room is, and that it is alive. `wait` is answered when
something has happened after event number `after`, or when `within_s` is over. What happened while
nobody asked is kept, up to a bound. A rule that forbids something answers `skipped` with its name.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from agent import patterns
from agent.hands import layout as layouts
from agent.hands import lights, press
from agent.hands.hardware import Hardware
from agent.hands.keeper import Keeper, Kept
from agent.hands.lamps import AllLamps
from agent.hands.layout import Layout
from agent.hands.lights import Word
from agent.hands.press import Press
from agent.hands.relays import Relays
from agent.lanes.wire import Question
from agent.model import Fault, Reading, Scalar
from agent.patterns import Pattern

log = logging.getLogger("hands")

MAX_EVENTS = 256
MAX_WAIT_S = 60.0
REASON_S = 8.0
"""How long a light says the reason again after a short press: twice the longest counted blink."""


@dataclass(frozen=True, slots=True)
class _Event:
    number: int
    at_s: float
    values: Mapping[str, Scalar]


class Desk:
    """All that hands holds, and the answers to what it is asked. Times are boot-time seconds."""

    def __init__(
        self,
        layout: Layout,
        hardware: Hardware,
        keeper: Keeper,
        *,
        boot: str,
        clock: Callable[[], float],
        reload: Callable[[], Layout | None] = lambda: None,
    ) -> None:
        """`reload` gives the layout of the file as it is now, None when it cannot be read."""
        self.stopping = False
        self.layout = layout
        self._hardware = hardware
        self._keeper = keeper
        self._boot = boot
        self._clock = clock
        self._reload = reload
        self._events: deque[_Event] = deque(maxlen=MAX_EVENTS)
        self._number = self._lost = 0
        self._word: Word | None = None
        self._heard_s = -math.inf
        self._silent = False
        self._again_until_s = -math.inf
        self._lamps_due_s = 0.0
        self._dirty = True
        kept = keeper.read()
        self._mode = kept.mode if kept.boot == boot else ""
        self._relays = Relays(layout.relays, hardware, self._tell)
        self._relays.start(kept.relays, clock(), same_boot=kept.boot == boot)
        hardware.release_strangers()
        self._presses: dict[str, Press] = {}
        self._inputs: dict[str, Any] = {}
        self._missing: dict[str, int] = {}
        self._take_lights_and_buttons()
        self._save()

    # -- questions -----------------------------------------------------------------------------

    def answer(self, question: Question) -> Reading | None:
        """The answer; None for a `wait` that goes on."""
        now_s = self._clock()
        try:
            return self._answers(question, question.settings, now_s)
        except (KeyError, TypeError, ValueError) as error:
            log.warning("%s %s cannot be understood: %s", question.kind, question.ask, error)
            return Reading(fault=Fault.ERROR, why="not_understood")
        finally:
            self._save()

    def _answers(self, question: Question, args: Mapping[str, Any], now_s: float) -> Reading | None:
        match question.kind, question.ask:
            case "hands", "about":
                return self._about()
            case "hands", "say":
                return self._say(args, now_s)
            case "hands", "wait":
                return self.news(int(args["after"]))
            case "hands", "reload":
                return self._load_again(now_s)
            case "hands", "stop":
                self.stop(now_s)
                return Reading()
            case "relay", "read":
                return self._relays.read(args["relay"], now_s)
            case "relay", ("set" | "pulse") as wish:
                return self._move(wish, args, now_s)
            case "indicator", "read":
                return self._lamps.read(args["light"])
            case "button", "read":
                return self._button(args["button"], now_s)
        raise ValueError("no such question")

    def news(self, after: int) -> Reading | None:
        """The oldest event that nobody has taken yet, None where there is none. Whoever asks has
        taken all up to `after`; a number beyond the last one is that of an earlier process."""
        if after <= self._number:
            while self._events and self._events[0].number <= after:
                self._events.popleft()
                self._lost = 0
        if not self._events:
            return None
        event = self._events[0]
        values = {"number": event.number, "at_s": round(event.at_s, 3), **event.values}
        if self._lost:
            values["lost"] = self._lost
        return Reading(values)

    def _about(self) -> Reading:
        held = self._hardware
        identity = {"layout": self.layout.digest, "pins": held.kind}
        if held.label:
            identity["chip"] = held.label[:64]
        values: dict[str, Scalar] = {
            "relays": len(self.layout.relays),
            "lights": len(self.layout.lights),
            "buttons": len(self.layout.buttons),
        }
        if self._keeper.failing:
            values["state_errno"] = self._keeper.failing
        return Reading(values, identity=identity)

    def _say(self, args: Mapping[str, Any], now_s: float) -> Reading:
        word = Word(**args)
        if word.state not in lights.STATES or word.mode not in lights.MODES:
            raise ValueError(f"{word.state}, {word.mode}: no such state or mode")
        if self._silent:
            log.info("the agent speaks again")
        self._word, self._heard_s, self._silent = word, now_s, False
        self._dirty = self._dirty or word.mode != self._mode
        self._mode = word.mode
        engine = self._relays.engine
        engine.locked = word.mode == "in_session"
        engine.lock_at_s = math.inf if word.lock_in_s is None else now_s + word.lock_in_s
        self._lamps_due_s = now_s
        return Reading({"number": self._number})

    def _move(self, wish: str, args: Mapping[str, Any], now_s: float) -> Reading:
        relay, by = str(args["relay"]), str(args.get("by", ""))
        glass = bool(args.get("glass", False))
        if glass and not self._break_glass(now_s):
            return Reading(fault=Fault.SKIPPED, why="not_held")
        self._dirty = True
        if wish == "pulse":
            return self._relays.pulse(relay, now_s, by=by, glass=glass)
        on = args["on"]
        if not isinstance(on, bool):
            raise ValueError(f"on = {on!r} is no boolean")
        return self._relays.set(relay, on, now_s, by=by, glass=glass)

    def _break_glass(self, now_s: float) -> bool:
        """Somebody holds the button down at the box, now: a command from far away may pass."""
        held = [p for p in self._presses.values() if p.held_s(now_s) > 0]
        for one in held:
            one.spend()
        return bool(held)

    def _button(self, name: str, now_s: float) -> Reading:
        if name in self._missing:
            self._take_buttons()
        if name in self._missing:
            return Reading({"errno": self._missing[name]}, Fault.ABSENT, "no_node")
        if name not in self._presses:
            return Reading(fault=Fault.SKIPPED, why="unknown_button")
        held = self._presses[name]
        pressed = held.held_s(now_s) > 0
        return Reading({"pressed": pressed or held.stuck, "stuck": held.stuck})

    def _load_again(self, now_s: float) -> Reading:
        if self._relays.engine.locked or now_s >= self._relays.engine.lock_at_s:
            return Reading(fault=Fault.SKIPPED, why="in_session")
        layout = self._reload()
        if layout is None:
            return Reading(fault=Fault.ERROR, why="bad_file")
        if layout != self.layout:
            self._lamps.close()
            for device in self._inputs.values():
                device.close()
            relays = Relays(layout.relays, self._hardware, self._tell)
            relays.adopt(self._relays, now_s)
            self.layout, self._relays, self._dirty = layout, relays, True
            self._take_lights_and_buttons()
            log.info("room.toml was read again: layout %s", layout.digest)
        return self._about()

    # -- time ----------------------------------------------------------------------------------

    def tick(self) -> float:
        """Do what is due, and say when there is more to do (boot time)."""
        now_s = self._clock()
        self._relays.tick(now_s)
        for name, one in self._presses.items():
            for word in one.tick(now_s):
                self._pressed(name, word, now_s)
        if self._word is not None and not self._silent and now_s - self._heard_s >= patterns.LOST_S:
            self._silent = True
            log.warning("no word from the agent for %.0f s", patterns.LOST_S)
            self._lamps_due_s = now_s
        instead = self._instead(now_s)
        self._lamps_due_s = self._lamps.show(
            self._word, self._heard_s, now_s, mode=self._mode, instead=instead
        )
        self._save()
        due = [self._relays.engine.due_s(), self._lamps_due_s]
        due += [p.due_s() for p in self._presses.values()]
        if now_s < self._again_until_s:
            due.append(self._again_until_s)
        due += [s for s in self._hold_steps(now_s) if s > now_s]
        return min(due)

    def stop(self, now_s: float) -> None:
        """Make safe what has to be; the loop ends."""
        self._relays.stop(now_s)
        self.stopping = True

    def close(self) -> None:
        """Lights out. The relays stay open: what happens to them is for the kernel, or for
        systemd's store, which may hold them for the next process."""
        self._lamps.close()
        for device in self._inputs.values():
            device.close()

    def _save(self) -> None:
        """Keep what has to outlive this process."""
        if self._dirty or self._keeper.failing:
            self._dirty = False
            engine = self._relays.engine
            kept = Kept(self._boot, engine.save(), self._mode, layouts.dump(self.layout))
            self._keeper.write(kept)

    # -- lights and button ---------------------------------------------------------------------

    def _take_lights_and_buttons(self) -> None:
        self._lamps = AllLamps(self.layout.lights, self._hardware)
        self._presses, self._inputs, self._missing = {}, {}, {}
        self._take_buttons()

    def _take_buttons(self) -> None:
        for button in self.layout.buttons:
            if button.id in self._presses:
                continue
            name = button.id
            try:
                device = self._hardware.input(
                    button.pin,
                    pull_up=button.pull_up,
                    changed=partial(self._edge, name),
                )
            except OSError as error:
                if self._missing.get(name) != error.errno:
                    log.warning("button %s (GPIO %d): %s", name, button.pin, error)
                self._missing[name] = error.errno or -1
                continue
            self._missing.pop(name, None)
            self._inputs[name] = device
            self._presses[name] = Press(button, down=device.is_active, now_s=self._clock())

    def _edge(self, name: str, down: bool) -> None:
        now_s = self._clock()
        for word in self._presses[name].edge(down, now_s):
            self._pressed(name, word, now_s)

    def _pressed(self, name: str, word: str, now_s: float) -> None:
        log.info("button %s: %s", name, word)
        if word == press.SHORT:
            self._again_until_s = now_s + REASON_S
        self._tell("pressed", name, {"meaning": word})

    def _instead(self, now_s: float) -> Pattern | None:
        """What the button puts in the place of the room's state: that it has been noticed."""
        held_s = max((p.held_s(now_s) for p in self._presses.values()), default=0.0)
        first = self.layout.buttons[0] if self.layout.buttons else None
        if first is not None and held_s >= first.check_s:
            return patterns.HELD_CHECK
        if now_s < self._again_until_s and not self._silent:
            return lights.reason(self._word)
        return None

    def _hold_steps(self, now_s: float) -> list[float]:
        """When a button that is held reaches its next meaning, for the light that answers."""
        return [
            now_s - held_s + button.check_s
            for button in self.layout.buttons
            if button.id in self._presses and (held_s := self._presses[button.id].held_s(now_s)) > 0
        ]

    def _tell(self, event: str, device: str, facts: Mapping[str, Scalar]) -> None:
        self._dirty = True
        self._number += 1
        self._lost += len(self._events) == MAX_EVENTS
        values = {"event": event, "device": device, **facts}
        self._events.append(_Event(self._number, self._clock(), values))
