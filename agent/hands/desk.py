"""What hands answers, and what it tells by itself: relays, lights and button behind one line.

Questions, as on every lane (`agent.lanes.wire`):

    hands      about | say {word} | wait {after, within_s} | reload | stop
    relay      read {relay} | set {relay, on, by, glass} | pulse {relay, by, glass}
    indicator  read {light}
    button     read {button}
    usb        rebind {port, usb, driver, by, glass} | reauthorize {...} | reset {...}
               | power_cycle {hubs, by, glass} | read

`say` is the agent's word: what the room is, and that it is alive. `wait` is answered when
something has happened after event number `after`, or when `within_s` is over; device and asker are
names and stand in its `identity`. What happened while nobody asked is kept, up to a bound. `reload`
begins to read room.toml again; `about` tells when it is done. A rule that forbids something answers
`skipped` with its name.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from agent import patterns
from agent.hands import layout as layouts
from agent.hands import lights, press
from agent.hands import usb as usb_steps
from agent.hands.engine import SESSION_LOCK
from agent.hands.hardware import Hardware
from agent.hands.keeper import Keeper, Kept
from agent.hands.lamps import AllLamps
from agent.hands.layout import Layout
from agent.hands.lights import Word
from agent.hands.news import News
from agent.hands.press import Press
from agent.hands.relays import Relays
from agent.hands.usb import UsbSteps
from agent.lanes.wire import Question
from agent.model import Fault, Reading, Scalar
from agent.patterns import Pattern

log = logging.getLogger("hands")

MAX_WAIT_S = 60.0
MAX_NAME = 64
MAX_PUZZLES = 16
KEEP_AGAIN_S = 30.0
"""How often a state file that could not be written is tried again."""
REASON_S = 8.0
"""How long a light says the reason again after a short press: twice the longest counted blink."""


Adopt = Callable[[Layout | None], None]


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
        reload: Callable[[Adopt], None] = lambda adopt: None,
        usb: Callable[[tuple[float, ...]], UsbSteps] = lambda kept: UsbSteps(kept=kept),
    ) -> None:
        """`reload` begins to read the file again, and later calls back with the layout; with None
        where it cannot be read. `usb` gives the steps with USB devices, after those kept."""
        self.stopping = False
        self.layout = layout
        self._hardware = hardware
        self._keeper = keeper
        self._boot = boot
        self._clock = clock
        self._reload = reload
        self._puzzles: dict[tuple[str, str], str] = {}
        self._word: Word | None = None
        self._heard_s = -math.inf
        self._silent = False
        self._again_until_s = -math.inf
        self._dirty = True
        self._keep_s = -math.inf
        kept, now_s = keeper.read(), clock()
        same = kept.boot == boot
        self._mode = kept.mode if same else ""
        self._news = News(
            now_s, number=kept.number, lost=kept.lost, events=kept.events, same_boot=same
        )
        # After another boot the steps of the last hour count as done at its beginning.
        self._usb = usb(kept.usb if same else tuple(0.0 for _ in kept.usb))
        self._relays = Relays(layout.relays, hardware, self._tell)
        self._relays.start(kept.relays, now_s, same_boot=same)
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
            reading = self._answers(question, question.settings, now_s)
            self._puzzles.pop((question.kind, question.ask), None)
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            self._puzzled(question, f"{error!r:.200}")
            return Reading(fault=Fault.ERROR, why="not_understood")
        except Exception:  # nothing that is asked may end what holds the relays
            log.exception("%s %s", question.kind, question.ask)
            return Reading(fault=Fault.ERROR, why="exception")
        finally:
            self._save()
        return reading

    def _puzzled(self, question: Question, why: str) -> None:
        """Say it once: who asks so asks so again, every few seconds."""
        key = (question.kind, question.ask)
        if self._puzzles.get(key) != why:
            log.warning("%s %s cannot be understood: %s", *key, why)
        if len(self._puzzles) >= MAX_PUZZLES:
            self._puzzles.clear()
        self._puzzles[key] = why

    def _answers(self, question: Question, args: Mapping[str, Any], now_s: float) -> Reading | None:
        match question.kind, question.ask:
            case "hands", "about":
                return self._about()
            case "hands", "say":
                return self._say(args, now_s)
            case "hands", "wait":
                float(args["within_s"])
                self._dirty |= self._news.taken(int(args["after"]))
                return self._news.oldest()
            case "hands", "reload":
                return self._read_again(now_s)
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
                return self._button(args["button"])
            case "usb", "read":
                return self._usb.read(now_s)
            case "usb", step if step in usb_steps.STEPS:
                return self._step(step, args, now_s)
        raise ValueError("no such question")

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
        return Reading({**values, **self._trouble()}, identity=identity)

    def _trouble(self) -> dict[str, Scalar]:
        """The state file cannot be written: a power cut would cost the last states."""
        return {"state_errno": self._keeper.failing} if self._keeper.failing else {}

    def _say(self, args: Mapping[str, Any], now_s: float) -> Reading:
        word = lights.heard(args)
        if self._silent:
            log.info("the agent speaks again")
        self._word, self._heard_s, self._silent = word, now_s, False
        self._dirty = self._dirty or word.mode != self._mode
        self._mode = word.mode
        engine = self._relays.engine
        engine.locked = word.locks
        engine.lock_at_s = math.inf if word.lock_in_s is None else now_s + word.lock_in_s
        return Reading({"number": self._news.number, **self._trouble()})

    def _move(self, wish: str, args: Mapping[str, Any], now_s: float) -> Reading:
        relay, glass = args["relay"], args.get("glass", False)
        on = args["on"] if wish == "set" else True
        if not isinstance(relay, str) or not isinstance(on, bool) or not isinstance(glass, bool):
            raise ValueError(f"relay = {relay!r:.70}, on = {on!r:.10}, glass = {glass!r:.10}")
        by = _name(args.get("by", ""))
        self._dirty = True
        if wish == "pulse":
            return self._behind_glass(glass, partial(self._relays.pulse, relay, now_s, by=by))
        return self._behind_glass(glass, partial(self._relays.set, relay, on, now_s, by=by))

    def _behind_glass(self, glass: bool, act: Callable[..., Reading]) -> Reading:
        """Do something that a session forbids unless the glass is broken: somebody holds the
        button down at the box, now. One press breaks it once, and only for what is done."""
        held = [press for press in self._presses.values() if press.held]
        if glass and not held:
            return Reading(fault=Fault.SKIPPED, why="not_held")
        reading = act(glass=glass)
        if glass and reading.fault is not Fault.SKIPPED:
            for one in held:
                one.spend()
        return reading

    def _step(self, step: str, args: Mapping[str, Any], now_s: float) -> Reading:
        """A step with a USB device: as a relay it does not move in session, nor so shortly before
        one that it could reach into it."""
        glass = args.get("glass", False)
        if not isinstance(glass, bool):
            raise ValueError(f"glass = {glass!r:.10}")
        args = {**args, "by": _name(args.get("by", ""))}
        return self._behind_glass(glass, partial(self._take_step, step, args, now_s))

    def _take_step(
        self, step: str, args: Mapping[str, Any], now_s: float, *, glass: bool
    ) -> Reading:
        if not glass and self._in_session(now_s + usb_steps.LONGEST_S):
            return Reading(fault=Fault.SKIPPED, why=SESSION_LOCK)
        on_usb = [r for r in self.layout.relays if r.place.spec.get("bus") in ("hid", "serial")]
        if step == usb_steps.POWER_CYCLE and on_usb:  # they would drop
            return Reading(fault=Fault.SKIPPED, why=usb_steps.NEEDED)
        self._dirty = True
        return self._usb.take(step, args, now_s)

    def _button(self, name: str) -> Reading:
        if name in self._missing:
            self._take_buttons()
        if name in self._missing:
            return Reading({"errno": self._missing[name]}, Fault.ABSENT, "no_node")
        if name not in self._presses:
            return Reading(fault=Fault.SKIPPED, why="unknown_button")
        found = self._presses[name]
        return Reading({"pressed": found.down, "stuck": found.stuck})

    def _read_again(self, now_s: float) -> Reading:
        if self._in_session(now_s):
            return Reading(fault=Fault.SKIPPED, why="in_session")
        self._reload(self._adopt)
        return Reading()

    def _adopt(self, layout: Layout | None) -> None:
        """The file was read again: hold what it says now, unless a session has begun meanwhile."""
        now_s = self._clock()
        if layout is None or layout == self.layout or self._in_session(now_s):
            return
        self._let_go()
        relays = Relays(layout.relays, self._hardware, self._tell)
        relays.adopt(self._relays, now_s)
        self.layout, self._relays, self._dirty = layout, relays, True
        self._take_lights_and_buttons()
        self._save()
        log.info("room.toml was read again: layout %s", layout.digest)

    def _in_session(self, now_s: float) -> bool:
        engine = self._relays.engine
        return engine.locked or now_s >= engine.lock_at_s

    # -- time ----------------------------------------------------------------------------------

    def tick(self) -> float:
        """Do what is due, and say when there is more to do (boot time)."""
        now_s = self._clock()
        self._relays.tick(now_s)
        for name, one in self._presses.items():
            for word in one.tick(now_s):
                self._pressed(name, word, now_s)
        if self._word is not None and not self._silent and now_s >= self._heard_s + patterns.LOST_S:
            self._silent = True
            log.warning("no word from the agent for %.0f s", patterns.LOST_S)
        instead = self._instead(now_s)
        lamps_due_s = self._lamps.show(
            self._word, self._heard_s, now_s, mode=self._mode, instead=instead
        )
        self._save()
        due = [self._relays.engine.due_s(), lamps_due_s, self._usb.tick(now_s)]
        if self._keeper.failing:
            due.append(self._keep_s)
        due += [p.due_s() for p in self._presses.values()]
        if now_s < self._again_until_s:
            due.append(self._again_until_s)
        due += [s for s in self._hold_steps() if s > now_s]
        return min(due)

    def stop(self, now_s: float) -> None:
        """Make safe what has to be; the loop ends."""
        self._relays.stop(now_s)
        self._save()
        self.stopping = True

    def close(self) -> None:
        """Lights out. The relays stay open: what happens to them is for the kernel, or for
        systemd's store, which may hold them for the next process."""
        self._let_go()

    def _let_go(self) -> None:
        self._lamps.close()
        for device in self._inputs.values():
            with contextlib.suppress(OSError):
                device.close()

    def _save(self) -> None:
        """Keep what has to outlive this process."""
        now_s = self._clock()
        if not self._dirty and not (self._keeper.failing and now_s >= self._keep_s):
            return
        self._dirty, self._keep_s = False, now_s + KEEP_AGAIN_S
        news = self._news
        self._keeper.write(
            Kept(
                boot=self._boot,
                relays=self._relays.engine.save(),
                mode=self._mode,
                layout=layouts.dump(self.layout),
                number=news.number,
                lost=news.lost,
                events=news.events,
                usb=tuple(self._usb.save()),
            )
        )

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
                down = bool(device.is_active)
            except OSError as error:
                if self._missing.get(name) != error.errno:
                    log.warning("button %s (GPIO %d): %s", name, button.pin, error)
                self._missing[name] = error.errno or -1
                continue
            self._missing.pop(name, None)
            self._inputs[name] = device
            self._presses[name] = Press(button, down=down, now_s=self._clock())

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
        if any(now_s >= step_s for step_s in self._hold_steps()):
            return patterns.HELD_CHECK
        if now_s < self._again_until_s and not self._silent:
            return lights.reason(self._word)
        return None

    def _hold_steps(self) -> list[float]:
        """When a button that is held reaches its next meaning, for the light that answers."""
        held = [(b, p) for b in self.layout.buttons if (p := self._presses.get(b.id))]
        return [p.since_s + b.check_s for b, p in held if p.since_s is not None]

    def _tell(self, event: str, device: str, facts: Mapping[str, Scalar], by: str = "") -> None:
        self._dirty = True
        self._news.tell(event, device, facts, by, self._clock())


def _name(text: Any) -> str:
    """Who asks, as it may stand in a log and on the line: 64 printable ASCII characters at most."""
    return "".join(c if c.isascii() and c.isprintable() else "?" for c in str(text))[:MAX_NAME]
