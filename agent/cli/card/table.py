"""What the card says, as data: made of the patterns, the button and the words, and of nothing else.

A pattern, family or lamp without words in both languages is an error here, not a gap on the card.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent import patterns, words
from agent.hands import lights, plan
from agent.hands.layout import Button
from agent.hands.lights import Word
from agent.kinds import button as button_kind
from agent.model import ConfigError
from agent.patterns import Colour, Pattern
from agent.room.presses import MAINTENANCE_MIN
from agent.settings import Room

SECONDS = 12.0
"""How much of a rhythm is drawn: twice the longest."""
DATE = "2026-11-25"
"""When the table last changed; a test holds it to `revision`."""
ANY = "any"
"""Stands for the colour of a light that has one lamp, whatever its colour."""

Both = Mapping[str, str]
"""Language -> text."""


@dataclass(frozen=True, slots=True)
class Row:
    """One entry. `burns` names the lamps that make the colour in this room."""

    key: str
    name: Both
    means: Both
    do: Both
    pattern: Pattern | None = None
    burns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LightFacts:
    """One light of the room: what it is called, what it is for, and its lamps."""

    name: str
    role: str
    lamps: tuple[str, ...]
    quiet: bool
    of_kernel: bool = False


@dataclass(frozen=True, slots=True)
class Card:
    """All that stands on a card; what a room does not have is empty. `families` belong below the
    state `not_ready`."""

    room: Room | None
    lights: tuple[LightFacts, ...]
    states: tuple[Row, ...]
    families: tuple[Row, ...]
    buttons: tuple[Row, ...]
    lamps: tuple[Row, ...]


def has_hands(room: Room) -> bool:
    """Whether a room has anything that a card could explain."""
    return any(d.kind in ("indicator", "button") for d in room.devices)


def of(room: Room | None) -> Card:
    """The card of a room, or the general one. Raises `ConfigError` for a room without lights and
    button, or one whose lights cannot be."""
    if room is None:
        return _card(None, (), (_general_button(),))
    if not has_hands(room):
        raise ConfigError(
            f"{room.path or 'room.toml'}: no light and no button, so the card would be empty; add"
            " [indicator.NAME] or [button.NAME], or print the general card with --general"
        )
    made = plan.of(room)
    return _card(room, tuple(_lights(room)), made.buttons)


def _card(room: Room | None, there: tuple[LightFacts, ...], buttons: tuple[Button, ...]) -> Card:
    general = room is None
    status = [light for light in there if light.role == "status"]
    roles = {"door", "mic_live"} if general else {light.role for light in there}
    richest = max(status, key=lambda light: len(light.lamps), default=None)
    has_status = general or richest is not None
    quiet = None if general else all(light.quiet for light in status)
    of_kernel = general or any(light.of_kernel for light in status)
    return Card(
        room=room,
        lights=there,
        states=tuple(_states(richest, quiet, of_kernel)) if has_status else (),
        families=tuple(_families(richest)) if has_status else (),
        buttons=tuple(_presses(buttons, seen=has_status)) if buttons else (),
        lamps=tuple(_lamps(roles)),
    )


def _states(light: LightFacts | None, quiet: bool | None, of_kernel: bool) -> Iterator[Row]:
    """`of_kernel`: whether a light goes on blinking when no program is left."""
    shown: dict[str, Pattern | None] = {}
    for name, known in patterns.PATTERNS.items():
        if known in patterns.NOT_READY.values():
            shown["not_ready"] = None
        elif known is not patterns.STOPPED or of_kernel:
            shown[name] = known
    shown["off"] = patterns.DARK
    for name, pattern in shown.items():
        means = name
        if name == "in_session" and quiet is not None:
            means = "in_session_dark" if quiet else "in_session_lit"
            pattern = patterns.DARK if quiet else pattern
        elif name == "off" and quiet is not False:
            means = "off_or_session"
        colour = Colour.RED if pattern is None else pattern.colour
        yield Row(
            name,
            _both(f"pattern.{name}"),
            _both(f"pattern_means.{means}"),
            _both(f"pattern_do.{name}"),
            pattern,
            burning(colour, light),
        )


def _families(light: LightFacts | None) -> Iterator[Row]:
    for count, pattern in patterns.NOT_READY.items():
        yield Row(
            str(count),
            {lang: f"{count} = {text}" for lang, text in _both(f"family.{count}").items()},
            {},
            _both(f"family_do.{count}"),
            pattern,
            burning(pattern.colour, light),
        )


def _presses(buttons: Sequence[Button], *, seen: bool) -> Iterator[Row]:
    def lead(key: str, of: Callable[[Button], float]) -> Both:
        lengths = sorted({of(b) for b in buttons})
        return {
            language: f"{terms[key]} {number(lengths, language)} {terms['card.seconds']}"
            for language, terms in _terms()
        }

    leads = {
        "short": _both("press.short"),
        "check": lead("card.hold", lambda b: b.check_s),
        "maintenance": lead("card.hold", lambda b: b.maintenance_s),
        "glass": _both("press.glass"),
        "stuck": lead("card.longer_than", lambda b: b.stuck_s),
    }
    for key, name in leads.items():
        unseen = not seen and key in ("short", "check", "maintenance")
        means = "short_unseen" if unseen and key == "short" else key
        do = {} if unseen else _both(f"press_do.{key}")
        yield Row(key, name, _ends(_both(f"press_means.{means}"), key), do)


def _ends(means: Both, key: str) -> Both:
    """Of maintenance also how long it lasts at most."""
    if key != "maintenance":
        return means
    return {
        language: f"{means[language]} {MAINTENANCE_MIN:g} {terms['card.minutes']}."
        for language, terms in _terms()
    }


def _lamps(roles: Collection[str]) -> Iterator[Row]:
    shown: dict[str, Pattern] = {}
    if "door" in roles:
        shown["door"] = lights.door("in_session")
    if "mic_live" in roles:
        shown["mic_live"] = lights.mic_live(Word(mic_live=True), 0)
        shown["mic_unknown"] = lights.mic_live(None, 0)
    for name, pattern in shown.items():
        yield Row(
            name,
            _both(f"lamp.{name}"),
            _both(f"lamp_means.{name}"),
            _both(f"lamp_do.{name}"),
            pattern,
            (ANY,),
        )


def burning(colour: Colour | None, light: LightFacts | None) -> tuple[str, ...]:
    """Which lamps of a light burn for a colour. Three in one (red, green, blue) mix it; one lamp of
    whatever colour is `ANY`."""
    if colour is None:
        return ()
    if light is None or set(light.lamps) == {"red", "green", "blue"}:
        return (str(colour),)
    if light.lamps == (ANY,):
        return (ANY,)
    lit = lights.lamps(colour, light.lamps)
    return tuple(name for name in light.lamps if name in lit)


def flashes(pattern: Pattern, seconds: float) -> Iterator[tuple[float, float]]:
    """When a pattern is lit, from and to, in the first `seconds` of it."""
    if pattern.colour is None:
        return
    if not pattern.times:
        yield 0.0, seconds
        return
    start, place = 0.0, 0
    while round(start, 6) < seconds:
        end = start + pattern.times[place % len(pattern.times)]
        if place % 2 == 0:
            yield round(start, 6), round(min(end, seconds), 6)
        start, place = end, place + 1


def number(values: Sequence[float], language: str) -> str:
    """Numbers as they are written in a language: 2,5 in Vietnamese."""
    text = " / ".join(f"{v:g}" for v in values)
    return text.replace(".", ",") if language == "vi" else text


def revision() -> str:
    """Eight hex digits that are the same for the same table: a card on a wall is compared by it."""
    general = document(of(None), revised=False)
    return hashlib.sha256(json.dumps(general, sort_keys=True).encode()).hexdigest()[:8]


def document(card: Card, *, revised: bool = True) -> dict[str, Any]:
    """The card as JSON."""
    made: dict[str, Any] = {"table": {"date": DATE, "revision": revision()}} if revised else {}
    if card.room is not None:
        made["room"] = {"site": card.room.site, "id": card.room.id, "name": card.room.name}
        made["lights"] = [
            {"name": light.name, "role": light.role, "lamps": light.lamps} for light in card.lights
        ]
    for section in ("states", "families", "buttons", "lamps"):
        made[section] = [_entry(row) for row in getattr(card, section)]
    return made


def _entry(row: Row) -> dict[str, Any]:
    entry: dict[str, Any] = {"key": row.key, "name": row.name}
    entry |= {key: text for key, text in (("means", row.means), ("do", row.do)) if text}
    if row.pattern is not None:
        entry["colour"] = row.pattern.colour and str(row.pattern.colour)
        entry["times_s"] = row.pattern.times
        entry["burns"] = row.burns
    return entry


def _general_button() -> Button:
    """A button with the times that hold where a room says nothing else."""
    fields = button_kind.Settings.model_fields
    times = {key: fields[key].default for key in ("check_s", "maintenance_s", "stuck_s")}
    return Button(id="", pin=0, **times)


def _lights(room: Room) -> Iterator[LightFacts]:
    for device in room.devices:
        if device.kind != "indicator":
            continue
        s = device.settings
        single = set(s.lamps) <= {"pin", "led"}
        yield LightFacts(
            device.name,
            s.role,
            (ANY,) if single else tuple(s.lamps),
            s.quiet_in_session,
            s.led is not None,
        )


def _both(key: str) -> Both:
    return {language: terms[key] for language, terms in _terms()}


def _terms() -> list[tuple[str, Mapping[str, str]]]:
    return [(language, words.terms(language)) for language in words.LANGUAGES]
