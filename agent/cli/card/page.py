"""The card as one page of A4, as PDF: the largest type that lets everything stand on it.

Needs reportlab and a font with Vietnamese letters (the extra `card`); both are embedded or used
here only. The same card gives the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from agent import words
from agent.cli.card import fonts, table, text
from agent.cli.card.fonts import BOLD, PLAIN, STRONG
from agent.cli.card.ink import INK, LINE, MUTED, Block, Ink, Run
from agent.cli.card.table import Card, Row
from agent.model import AgentError

WIDTH, HEIGHT, MARGIN = 210.0, 297.0, 10.0
"""A4 in millimetres, and what printers need to be left white."""
_INNER = WIDTH - 2 * MARGIN
_SECONDS, _PER_SECOND = 8, 6.0
"""How much of a rhythm is drawn, and millimetres for each second of it."""
_LAMP_SECONDS = 3.2
_STRIP, _NAME, _GAP = _SECONDS * _PER_SECOND, 43.0, 3.5
_NAME_X = MARGIN + _STRIP + _GAP
_TEXT_X = _NAME_X + _NAME + _GAP
_TEXT = WIDTH - MARGIN - _TEXT_X
_WIDE = [0.52 * (_INNER - 2 * _GAP), 0.48 * (_INNER - 2 * _GAP)]
"""Of the two columns: more is said about the button."""
_SCALES = [n / 100 for n in range(130, 49, -1)]
_SMALLER = 0.03
_LEAST_GAP, _MOST_GAP = 0.6, 2.6


@dataclass(frozen=True, slots=True)
class _Box:
    """Something as wide as the page: its height in millimetres, and how it is drawn at a height."""

    height: float
    draw: Callable[[float], None]
    gap: bool = True
    """Whether the white above it may grow."""


def draw(card: Card, languages: Sequence[str], *, contact: str = "") -> bytes:
    """The page. Raises `AgentError` where library or font is missing."""
    reportlab = fonts.library()
    target = io.BytesIO()
    known = fonts.register()
    canvas = reportlab.Canvas(
        target,
        pagesize=(WIDTH * fonts.MM, HEIGHT * fonts.MM),
        invariant=1,  # no date, no chance: the same bytes again
        initialFontName=PLAIN,
    )
    title = " · ".join(words.terms(language)["card.title"] for language in languages)
    canvas.setTitle(f"{title} · {card.room.name}" if card.room else title)
    canvas.setSubject(text.stamp(languages[0]))
    canvas.setAuthor("hearing-room-agent")
    _Page(card, languages, contact, Ink(canvas, known)).draw()
    canvas.showPage()
    canvas.save()
    return target.getvalue()


@dataclass(frozen=True, slots=True)
class _Cell:
    """Something in a column, drawn at any place."""

    height: float
    draw_at: Callable[[float, float], None]


class _Page:
    """Lays the boxes out: as large as they fit, the white between them shared out evenly."""

    def __init__(self, card: Card, languages: Sequence[str], contact: str, ink: Ink) -> None:
        self._card = card
        self._languages = languages
        self._contact = contact
        self._ink = ink
        self._scale = 1.0
        self._between = 0.0

    def draw(self) -> None:
        boxes = self._fit()
        top = MARGIN
        for box in boxes[:-1]:
            top += self._between if box.gap else 0.0
            box.draw(top)
            top += box.height
        boxes[-1].draw(HEIGHT - MARGIN - boxes[-1].height)

    def _fit(self) -> list[_Box]:
        """The boxes in the largest type that fits, or a little smaller where that saves lines;
        sets the white between them."""
        fitting: dict[float, float] = {}
        for scale in _SCALES:
            boxes = self._at(scale)
            if self._between >= _LEAST_GAP * scale:
                fitting[scale] = sum(box.height for box in boxes) / scale
            if scale <= max(fitting, default=0.0) - _SMALLER:
                break
        if not fitting:
            raise AgentError("the card does not fit on one page; shorten the names of the lights")
        return self._at(min(fitting, key=lambda scale: (round(fitting[scale], 1), -scale)))

    def _at(self, scale: float) -> list[_Box]:
        self._scale = scale
        boxes = list(self._boxes())
        free = HEIGHT - 2 * MARGIN - sum(box.height for box in boxes)
        self._between = min(free / sum(box.gap for box in boxes), _MOST_GAP * scale)
        return boxes

    # -- boxes ---------------------------------------------------------------------------------

    def _boxes(self) -> Iterator[_Box]:
        card = self._card
        yield self._head()
        if card.states:
            yield self._heading("card.states")
        for number, row in enumerate(card.states):
            yield self._row(row, ruled=number > 0, shaded=row.key == "not_ready")
            if row.key == "not_ready":
                yield from (self._row(family, shaded=True) for family in card.families)
        if card.buttons or card.lamps:
            yield self._columns()
        yield self._foot()

    def _head(self) -> _Box:
        card, ink, s = self._card, self._ink, self._scale
        parts = [ink.set(self._term("card.title", BOLD, 20, 11), _INNER, space=1.6)]
        if card.room is not None:
            place = f"{card.room.site} / {card.room.id}"
            name = [Run(card.room.name, BOLD, 13 * s), Run(place, PLAIN, 8 * s, MUTED)]
            parts.append(ink.set(name, _INNER, most=3))
        if card.lights:
            first = self._languages[0]
            of_room = [
                Run(f"{words.terms(first)['card.lights']}:", STRONG, 8 * s),
                Run(text.lights(card, first), PLAIN, 8 * s),
            ]
            parts.append(ink.set(of_room, _INNER, most=3))
        parts.append(ink.set(self._term("card.rhythm", STRONG, 10, 7.6), _INNER))
        between = 0.8 * s

        def drawn(top: float) -> None:
            for part in parts:
                part.draw(MARGIN, top)
                top += part.height + between

        return _Box(sum(p.height + between for p in parts), drawn, gap=False)

    def _heading(self, key: str) -> _Box:
        """The head of the table: the time axis over the strips, the title over the names."""
        ink, s = self._ink, self._scale
        height = 7.2 * s
        label = ink.set(self._section(key), _INNER - _STRIP - _GAP, most=1)

        def drawn(top: float) -> None:
            ink.rule(MARGIN, top + height, _INNER, 0.5, INK)
            label.draw(_NAME_X, top + height - label.height - 0.9 * s)
            self._axis(top + height, words.terms(self._languages[0])["card.seconds"])

        return _Box(height, drawn)

    def _axis(self, bottom: float, unit: str) -> None:
        ink, s = self._ink, self._scale
        base, size = bottom - 2.2 * s, 6.4 * s
        for second in range(_SECONDS + 1):
            x = MARGIN + second * _PER_SECOND
            ink.tick(x, bottom, 1.2 * s)
            if second < _SECONDS:
                ink.label(str(second), x, base, size)
        ink.label(unit, MARGIN + _STRIP, base, size, right=True)

    def _row(self, row: Row, *, ruled: bool = True, shaded: bool = False) -> _Box:
        """One line of the table. `shaded` ones belong together; a family is the smaller kind."""
        ink, s = self._ink, self._scale
        family = shaded and row.pattern is not None
        name = ink.set(self._name(row, 11.2 if family else 12.4), _NAME)
        said = ink.set(self._said(row, 10.0 if family else 10.4), _TEXT)
        caption = ink.set([] if family else self._caption(row), _STRIP)
        below = caption.height + (0.3 * s if caption.lines else 0.0)
        height = max(name.height, said.height, 4.2 * s + below)
        strip = min(height - below, 7.0 * s)

        def drawn(top: float) -> None:
            if shaded:
                ink.shade(MARGIN, top - 0.4 * s, _INNER, height + self._between)
            if ruled:
                ink.rule(MARGIN, top - 0.4 * s, _INNER, 0.2, LINE)
            if row.pattern is not None:
                self._strip(row, MARGIN, top, _SECONDS, strip)
            caption.draw(MARGIN, top + strip + 0.3 * s)
            name.draw(_NAME_X, top)
            said.draw(_TEXT_X, top)

        return _Box(height, drawn)

    def _columns(self) -> _Box:
        """Button and other lamps side by side; one alone has the whole width."""
        both = (("card.button", self._card.buttons), ("card.lamps", self._card.lamps))
        there = [(key, rows) for key, rows in both if rows]
        widths = _WIDE if len(there) == 2 else [_INNER]
        columns = [self._column(*one, wide) for one, wide in zip(there, widths, strict=True)]
        space, above = 1.3 * self._scale, 1.5 * self._scale

        def drawn(top: float) -> None:
            x = MARGIN
            for boxes, wide in zip(columns, widths, strict=True):
                y = top + above
                for box in boxes:
                    box.draw_at(x, y)
                    y += box.height + space
                x += wide + 2 * _GAP

        height = max(sum(box.height + space for box in boxes) for boxes in columns)
        return _Box(above + height - space, drawn)

    def _column(self, key: str, rows: Sequence[Row], width: float) -> list[_Cell]:
        ink, s = self._ink, self._scale
        title = ink.set(self._section(key), width)

        def heading(x: float, top: float) -> None:
            title.draw(x, top)
            ink.rule(x, top + title.height + 0.5 * s, width, 0.5, INK)

        return [_Cell(title.height + 0.5 * s, heading), *(self._entry(r, width) for r in rows)]

    def _entry(self, row: Row, width: float) -> _Cell:
        ink, s = self._ink, self._scale
        beside = _LAMP_SECONDS * _PER_SECOND + _GAP if row.pattern else 0.0
        said = ink.set(self._told(row), width - beside)

        def drawn(x: float, top: float) -> None:
            if row.pattern:
                self._strip(row, x, top + 0.6 * s, _LAMP_SECONDS, 5.0 * s)
            said.draw(x + beside, top)

        return _Cell(said.height, drawn)

    def _foot(self) -> _Box:
        ink, s = self._ink, self._scale
        inset, between = 3.0, 6.0
        half = (_INNER - 2 * inset - between) / 2
        note = self._section("card.call") + self._term("card.in_session", STRONG, 9.2, 7.2)
        head = ink.set(note, _INNER - 2 * inset, space=2.0)
        people = [
            ink.set(self._term(f"who.{who}", STRONG, 9.2, 7.2), half, most=1)
            for who in ("technician", "central")
        ]
        stamp = [Run(text.stamp(self._languages[0]), PLAIN, 6.2 * s, MUTED)]
        table_is = ink.set(stamp, _INNER, most=1)
        contact = self._fitted(self._contact, half)
        to_people = 1.8 * s + head.height + 1.2 * s
        to_line = to_people + people[0].height + 7.0 * s
        frame = to_line + 2.2 * s

        def drawn(top: float) -> None:
            ink.frame(MARGIN, top, _INNER, frame)
            head.draw(MARGIN + inset, top + 1.8 * s)
            for number, person in enumerate(people):
                x = MARGIN + inset + number * (half + between)
                person.draw(x, top + to_people)
                ink.rule(x, top + to_line, half, 0.3, INK)
            contact.draw(MARGIN + inset, top + to_line - contact.height - 0.5 * s)
            table_is.draw(MARGIN, top + frame + 0.8 * s)

        return _Box(frame + 0.8 * s + table_is.height, drawn)

    def _fitted(self, contact: str, width: float) -> Block:
        """Somebody's name and number in one line: smaller where it is long, but never cut."""
        for size in range(11, 6, -1):
            block = self._ink.set([Run(contact, BOLD, size)], width)
            if block.lines <= 1:
                return block
        raise AgentError("--contact: too long for its line; a name and a number are enough")

    def _strip(self, row: Row, x: float, top: float, seconds: float, height: float) -> None:
        lit = list(table.flashes(row.pattern, seconds)) if row.pattern else []
        self._ink.strip(x, top, _PER_SECOND, seconds, height, lit, row.burns)

    # -- texts ---------------------------------------------------------------------------------

    def _term(self, key: str, font: str, size: float, small: float) -> list[Run]:
        """One of the words, and smaller beside it the same in the other languages."""
        first, *others = (words.terms(language)[key] for language in self._languages)
        runs = [Run(first, font, size * self._scale)]
        return runs + [Run(other, PLAIN, small * self._scale, MUTED) for other in others]

    def _section(self, key: str) -> list[Run]:
        first, *others = self._term(key, BOLD, 10.5, 7.6)
        return [replace(first, text=first.text.upper()), *others]

    def _name(self, row: Row, size: float) -> list[Run]:
        first, *others = self._languages
        runs = [Run(row.name[first], BOLD, size * self._scale)]
        return runs + [
            Run(row.name[o], PLAIN, 7.4 * self._scale, MUTED, new_line=True) for o in others
        ]

    def _said(self, row: Row, size: float) -> list[Run]:
        first, *others = self._languages
        runs = []
        if first in row.means:
            runs.append(Run(row.means[first], PLAIN, size * self._scale))
        if first in row.do:
            runs.append(Run(row.do[first], STRONG, size * self._scale))
        return runs + [
            Run(text.sentences(row, o), PLAIN, 7.4 * self._scale, MUTED, new_line=True)
            for o in others
        ]

    def _told(self, row: Row) -> list[Run]:
        """Name, meaning and what to do as one paragraph."""
        name, *translated = self._name(row, 10.6)
        said = self._said(row, 9.8)
        mine = [run for run in said if not run.new_line]
        theirs = [
            Run(f"{n.text}: {t.text}", PLAIN, t.size, MUTED, new_line=True)
            for n, t in zip(translated, (r for r in said if r.new_line), strict=True)
        ]
        return [Run(f"{name.text}:", BOLD, name.size), *mine, *theirs]

    def _caption(self, row: Row) -> list[Run]:
        named = " · ".join(text.colours(row, language) for language in self._languages)
        return [Run(named, PLAIN, 6.6 * self._scale, MUTED)] if named else []
