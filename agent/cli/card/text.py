"""The card on a terminal: plain, aligned, the rhythms drawn to one scale."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence

from agent import __version__, words
from agent.cli.card import table
from agent.cli.card.table import ANY, SECONDS, Card, LightFacts, Row
from agent.patterns import Pattern

STEP_S = 0.1
"""What half a character stands for: the shortest flash of the table."""
_SIGNS = {(True, True): "█", (True, False): "▌", (False, True): "▐", (False, False): "▁"}
_WIDEST = 100


def render(card: Card, languages: Sequence[str], *, contact: str = "") -> str:
    """The whole card, for people who read these languages, the first one first."""
    width = min(shutil.get_terminal_size((_WIDEST, 24)).columns, _WIDEST)
    return "\n".join(_lines(card, languages, contact, max(width, 40)))


def strip(pattern: Pattern, seconds: float = SECONDS) -> str:
    """A rhythm as characters, two steps each; dark is a line at the bottom."""
    lit = list(table.flashes(pattern, seconds))

    def at(step: int) -> bool:
        middle = (step + 0.5) * STEP_S
        return any(start <= middle < end for start, end in lit)

    steps = round(seconds / STEP_S)
    return "".join(_SIGNS[at(n), at(n + 1)] for n in range(0, steps, 2))


def colours(row: Row, language: str) -> str:
    """What burns: `red`, or `yellow + green` where those two make the colour."""
    terms = words.terms(language)
    if row.pattern is not None and row.pattern.colour is None:
        return terms["card.dark"]
    return " + ".join(terms[f"colour.{name}"] for name in row.burns)


def sentences(row: Row, language: str) -> str:
    """What it means and what to do, in one line."""
    parts = (row.means.get(language, ""), row.do.get(language, ""))
    return " ".join(part for part in parts if part)


def lights(card: Card, language: str) -> str:
    """The lights of the room, each with its task and its lamps."""
    return "; ".join(_light(light, words.terms(language)) for light in card.lights)


def _light(light: LightFacts, terms: Mapping[str, str]) -> str:
    task = terms[f"card.role_{light.role}"]
    if light.lamps == (ANY,):
        return f"{light.name} ({task})"
    lamps = ", ".join(terms[f"colour.{name}"] for name in light.lamps)
    return f"{light.name} ({task}: {lamps})"


def stamp(language: str) -> str:
    """Which table this is: version, date, revision."""
    terms = words.terms(language)
    year, month, day = table.DATE.split("-")
    date = f"{day}/{month}/{year}" if language == "vi" else table.DATE
    return (
        f"hearing-room-agent, {terms['card.version']} {__version__} · "
        f"{terms['card.table']} {table.revision()} · {date}"
    )


def _lines(card: Card, languages: Sequence[str], contact: str, width: int) -> Iterator[str]:
    first = words.terms(languages[0])
    every = [words.terms(language) for language in languages]

    def heading(key: str) -> Iterator[str]:
        yield ""
        yield "  ·  ".join(terms[key].upper() for terms in every)

    yield "  ·  ".join(terms["card.title"] for terms in every)
    if card.room is not None:
        yield from textwrap.wrap(card.room.name, width)
        yield f"{card.room.site} / {card.room.id}"
        for language, terms in zip(languages, every, strict=True):
            if card.lights:
                yield from _wrapped(f"{terms['card.lights']}: {lights(card, language)}", width)
    yield from (terms["card.rhythm"] for terms in every)
    if card.states:
        yield from heading("card.states")
        yield _axis(first["card.seconds"])
        for row in card.states:
            yield from _row(row, languages, width)
            if row.key == "not_ready":
                for family in card.families:
                    yield from _row(family, languages, width)
    for key, rows in (("card.button", card.buttons), ("card.lamps", card.lamps)):
        if rows:
            yield from heading(key)
            for row in rows:
                yield from _row(row, languages, width)
    yield from heading("card.call")
    yield f"{first['who.technician']}: {contact or '_' * 30}"
    yield from (terms["card.in_session"] for terms in every)
    yield ""
    yield stamp(languages[0])


def _row(row: Row, languages: Sequence[str], width: int) -> Iterator[str]:
    if row.pattern is not None:
        named = " · ".join(colours(row, language) for language in languages)
        yield f"{strip(row.pattern)} {named}"
    for language in languages:
        yield from _wrapped(f"{row.name[language]}: {sentences(row, language)}", width)


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, initial_indent="  ", subsequent_indent="    ")


def _axis(unit: str) -> str:
    per_second = round(1 / STEP_S / 2)
    return "".join(f"{n:<{per_second}}" for n in range(int(SECONDS))) + f"{SECONDS:g} {unit}"
