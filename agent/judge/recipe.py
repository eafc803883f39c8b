"""What may bring a device back: an ordered list of steps, and what each of them touches.

Pure: facts of the room come in, a plan goes out. A step that cannot be taken stays in the plan and
says why not, so that a person sees the whole of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum


class Step(StrEnum):
    """What can be done to a device, the mildest first."""

    REOPEN = "reopen"
    """A new worker process opens it again."""
    REBIND = "rebind"
    """The kernel's driver lets go of it and takes it again."""
    REAUTHORIZE = "reauthorize"
    """The kernel throws it off the bus and takes it back: it is enumerated again."""
    USB_RESET = "usb_reset"
    """A reset of its USB port."""
    POWER_CYCLE = "power_cycle"
    """Its power goes off and on: by a relay, else with all ports of the box."""
    REPLUG_SOURCE = "replug_source"
    """A person pulls the cable of what hangs behind it."""


LADDER = tuple(Step)[:-1]
"""The order that is tried where nothing better is known: reset does not cure what another
enumeration does (Brio), and another enumeration not what a reset does (Cam Link), so the milder
one goes first."""
ON_USB = frozenset({Step.REBIND, Step.REAUTHORIZE, Step.USB_RESET})
SHORT_PULSE_S = 2.0
"""A shorter pause may not empty a device's capacitors (uhubctl takes 2 s)."""
DRIVERS: Mapping[str, str] = {
    "camera": "uvcvideo",
    "microphone": "snd-usb-audio",
    "speaker": "snd-usb-audio",
}
"""The kernel's driver of each kind."""

NO_WORKER = "no_worker"
NO_HANDS = "no_hands"
NOT_ON_USB = "not_on_usb"
NO_SWITCH = "no_switch"
UPDATING = "updating"
SHARED_POWER = "shared_power"
IN_USE = "in_use"
BY_PERSON = "by_person"
WHY_NOT = frozenset(
    {NO_WORKER, NO_HANDS, NOT_ON_USB, NO_SWITCH, UPDATING, SHARED_POWER, IN_USE, BY_PERSON}
)
"""Why a step is not taken. `no_worker`: nothing is open that could be opened again; `no_hands`:
no process may do it (a room without relay, light and button has none); `not_on_usb`: its port is
not known, or nothing sits there; `no_switch`: nothing here switches its power; `updating`: it, or
another that it would touch, is in its boot loader; `shared_power`: others that the room needs
would lose power; `in_use`: a program has another device that it would touch; `by_person`: only
people do this."""


@dataclass(frozen=True, slots=True)
class Cure:
    """A step known to help a model of device, and the codes it helps with; none named: any."""

    step: Step
    codes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Thing:
    """A device of the room as a plan sees it. `port` is its USB port now, empty without one."""

    id: str
    kind: str
    required: bool = True
    port: str = ""
    worker: bool = False
    in_use: bool = False
    updating: bool = False


@dataclass(frozen=True, slots=True)
class Switch:
    """A relay that cuts the power of devices."""

    id: str
    powers: tuple[str, ...]
    pulse_s: float = SHORT_PULSE_S


@dataclass(frozen=True, slots=True)
class Facts:
    """What a room has that a recipe could use. `hubs` are those whose power goes off together,
    as the box's profile names them; `on_usb` are other things of the room that hang on its USB
    (relay boards, lamps)."""

    things: Mapping[str, Thing]
    hands: bool = False
    switches: tuple[Switch, ...] = ()
    hubs: tuple[str, ...] = ()
    on_usb: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Planned:
    """One step of a plan. `touches` are the devices that it disturbs, the one that is to be healed
    first; `why_not` says why it will not be taken; `note` what to know of it."""

    step: Step
    touches: tuple[str, ...]
    why_not: str = ""
    relay: str = ""
    hubs: tuple[str, ...] = ()
    note: str = ""


def plan(
    device: str,
    facts: Facts,
    *,
    codes: Collection[str] = (),
    cures: Iterable[Cure] = (),
    by_agent: bool = False,
    shared_power: bool = False,
    glass: bool = False,
    only: Step | None = None,
) -> tuple[Planned, ...]:
    """The steps for a device whose findings are `codes`, in the order to try.

    What is known to help goes first, after `reopen`, which costs nothing; then what is stronger
    than that. `shared_power` says that a person accepts that others lose power, `glass` that what
    is in use may be disturbed. The agent by itself (`by_agent`) never cuts the power of the whole
    USB, nor of anything else that the room needs.
    """
    steps = (only,) if only else order(codes, cures)
    who = _Who(by_agent, shared_power and not by_agent, glass and not by_agent)
    return tuple(_planned(s, facts.things[device], facts, who) for s in steps)


@dataclass(frozen=True, slots=True)
class _Who:
    agent: bool
    shared_power: bool
    glass: bool


def order(codes: Collection[str], cures: Iterable[Cure]) -> tuple[Step, ...]:
    """The steps to try for these codes."""
    known = [c.step for c in cures if c.codes.intersection(codes) or (codes and not c.codes)]
    hands_on = [s for s in known if s in LADDER]
    reached = max((LADDER.index(s) for s in hands_on), default=0)
    steps = [Step.REOPEN, *hands_on, *LADDER[reached + 1 :]]
    steps += [s for s in known if s not in LADDER]
    return tuple(dict.fromkeys(steps))


def taken(plan: Iterable[Planned]) -> tuple[Planned, ...]:
    """The steps of a plan that will be taken."""
    return tuple(p for p in plan if not p.why_not)


def _planned(step: Step, thing: Thing, facts: Facts, who: _Who) -> Planned:
    if step is Step.REOPEN:
        return Planned(step, (thing.id,), "" if thing.worker else NO_WORKER)
    if step is Step.REPLUG_SOURCE:
        return Planned(step, (thing.id,), BY_PERSON)
    if step is Step.POWER_CYCLE:
        return _power(thing, facts, who)
    touches = _at_port(step, thing, facts)
    if not thing.port:
        return Planned(step, touches, NOT_ON_USB)
    return Planned(step, touches, _forbids(touches, facts, who))


def _power(thing: Thing, facts: Facts, who: _Who) -> Planned:
    """By a relay that cuts this device's power, the one that cuts fewest others; else all ports."""
    own = [s for s in facts.switches if thing.id in s.powers]
    if own:
        switch = min(own, key=lambda s: (len(s.powers), s.id))
        others = set(switch.powers)
        planned = Planned(
            Step.POWER_CYCLE,
            (),
            relay=switch.id,
            note="short_pulse" if switch.pulse_s < SHORT_PULSE_S else "",
        )
    elif facts.hubs and thing.port:
        others = {t.id for t in facts.things.values() if t.port} | set(facts.on_usb)
        planned = Planned(Step.POWER_CYCLE, (), hubs=facts.hubs, note="all_usb_ports")
    else:
        return Planned(Step.POWER_CYCLE, (thing.id,), NO_SWITCH)
    others.discard(thing.id)
    touches = (thing.id, *sorted(others))
    why_not = _forbids(touches, facts, who)
    if not why_not and planned.hubs and who.agent:
        why_not = BY_PERSON
    needed = [o for o in others if o not in facts.things or facts.things[o].required]
    if not why_not and needed and not who.shared_power:
        why_not = SHARED_POWER
    return replace(planned, touches=touches, why_not=why_not)


def _at_port(step: Step, thing: Thing, facts: Facts) -> tuple[str, ...]:
    """Who shares the USB device: a webcam is camera and microphone at once. A driver that lets go
    disturbs only what it drives."""
    others = [
        t.id
        for t in facts.things.values()
        if t.id != thing.id
        and t.port == thing.port != ""
        and (step is not Step.REBIND or DRIVERS.get(t.kind) == DRIVERS.get(thing.kind))
    ]
    return (thing.id, *sorted(others))


def _forbids(touches: Iterable[str], facts: Facts, who: _Who) -> str:
    """What touches hardware needs hands; an update under way is never disturbed, and what a
    program uses only behind broken glass."""
    things = [facts.things[t] for t in touches if t in facts.things]
    if any(t.updating for t in things):
        return UPDATING
    if any(t.in_use for t in things) and not who.glass:
        return IN_USE
    return "" if facts.hands else NO_HANDS
