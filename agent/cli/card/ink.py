"""Drawing in millimetres from the top of the page: set text, rules, rhythms."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.cli.card.fonts import MM, PLAIN

INK, MUTED, LINE = 0.0, 0.28, 0.72
"""Greys, 0 black: for what has to be read, for the second language, for rules."""
_GRID, _GROUND = 0.80, 0.94
_FILLS: Mapping[str, tuple[float, float, float]] = {
    "red": (0.80, 0.08, 0.14),
    "yellow": (0.99, 0.80, 0.10),
    "green": (0.20, 0.62, 0.30),
    "blue": (0.12, 0.33, 0.75),
    "white": (1, 1, 1),
    "any": (0.45, 0.45, 0.45),
}
_LEADING = 1.16
"""Height of a line of type over its size: marks stand two high on Vietnamese letters."""

_BLANK = 1.12
"""Of the font's own blank, which the horn of ư eats into."""


@dataclass(frozen=True, slots=True)
class Run:
    """Text of one weight, size (points) and grey. The next one goes on in the same line."""

    text: str
    font: str
    size: float
    grey: float = INK
    new_line: bool = False


@dataclass(frozen=True, slots=True)
class _Word:
    text: str
    run: Run
    width: float


class Ink:
    """A canvas of reportlab with the fonts of the card."""

    def __init__(self, canvas: Any, fonts: Mapping[str, Any]) -> None:
        self._canvas = canvas
        self._fonts = fonts
        self._height = canvas._pagesize[1] / MM

    def set(
        self, runs: Sequence[Run], width: float, *, most: int = 99, space: float = 1.0
    ) -> Block:
        """Runs as a block of lines no wider than `width`; beyond `most` lines it ends in dots.
        `space` widens the white between runs."""
        lines: list[list[_Word]] = [[]]
        room = width
        for number, run in enumerate(runs):
            if run.new_line and lines[-1]:
                lines.append([])
                room = width
            blank = self._width(" ", run) * _BLANK
            first = number > 0
            for word in self._words(run, width):
                before = blank * (space if first else 1.0) if lines[-1] else 0.0
                first = False
                if word.width + before > room and lines[-1]:
                    lines.append([])
                    room, before = width, 0.0
                lines[-1].append(_Word(word.text, run, word.width + before))
                room -= word.width + before
        if len(lines) > most:
            lines = lines[:most]
            self._dots(lines[-1], width)
        return Block(self, [line for line in lines if line])

    def _words(self, run: Run, width: float) -> Iterator[_Word]:
        for text in self._clean(run.text, run.font).split():
            rest = text
            while rest:
                fits = len(rest)
                while fits > 1 and self._width(rest[:fits], run) > width:
                    fits -= 1
                yield _Word(rest[:fits], run, self._width(rest[:fits], run))
                rest = rest[fits:]

    def _dots(self, line: list[_Word], width: float) -> None:
        dots = _Word("…", line[-1].run, self._width("…", line[-1].run))
        while len(line) > 1 and sum(w.width for w in line) + dots.width > width:
            line.pop()
        line.append(dots)

    def _clean(self, text: str, font: str) -> str:
        """Letters in one piece, and a question mark for what the font does not have."""
        known = self._fonts[font].face.charToGlyph
        whole = unicodedata.normalize("NFC", text)
        return "".join(c if ord(c) in known or c.isspace() else "?" for c in whole)

    def _width(self, text: str, run: Run) -> float:
        return float(self._fonts[run.font].stringWidth(text, run.size)) / MM

    # -- marks ---------------------------------------------------------------------------------

    def write(self, text: str, x: float, base: float, run: Run) -> None:
        """One word on a base line."""
        self._canvas.setFillGray(run.grey)
        self._canvas.setFont(run.font, run.size)
        self._canvas.drawString(x * MM, self._up(base), text)

    def label(self, text: str, x: float, base: float, size: float, *, right: bool = False) -> None:
        """A small text with its middle (or right end) at `x`."""
        run = Run(text, PLAIN, size, MUTED)
        wide = self._width(text, run)
        self.write(text, x - (wide if right else wide / 2), base, run)

    def rule(self, x: float, y: float, width: float, weight: float, grey: float) -> None:
        """A horizontal line, `weight` millimetres thick."""
        self._canvas.setStrokeGray(grey)
        self._canvas.setLineWidth(weight * MM)
        self._canvas.line(x * MM, self._up(y), (x + width) * MM, self._up(y))

    def tick(self, x: float, bottom: float, length: float) -> None:
        """A mark of the time axis."""
        self._canvas.setStrokeGray(INK)
        self._canvas.setLineWidth(0.25 * MM)
        self._canvas.line(x * MM, self._up(bottom - length), x * MM, self._up(bottom))

    def shade(self, x: float, y: float, width: float, height: float) -> None:
        """A light ground."""
        self._canvas.setFillGray(_GROUND)
        self._canvas.rect(x * MM, self._up(y + height), width * MM, height * MM, stroke=0, fill=1)

    def frame(self, x: float, y: float, width: float, height: float) -> None:
        """A box with round corners."""
        self._canvas.setStrokeGray(INK)
        self._canvas.setLineWidth(0.4 * MM)
        self._canvas.roundRect(x * MM, self._up(y + height), width * MM, height * MM, 2 * MM)

    def strip(
        self,
        x: float,
        y: float,
        per_second: float,
        seconds: float,
        height: float,
        lit: Sequence[tuple[float, float]],
        burns: Sequence[str],
    ) -> None:
        """A rhythm: a line while it is dark, a box while it is lit."""
        bottom = y + height
        self._canvas.setStrokeGray(_GRID)
        self._canvas.setLineWidth(0.15 * MM)
        for second in range(int(seconds) + 1):
            at = (x + second * per_second) * MM
            self._canvas.line(at, self._up(y), at, self._up(bottom))
        self.rule(x, bottom - 0.3, per_second * seconds, 0.6, INK)
        for start, end in lit:
            left, wide = x + start * per_second, (end - start) * per_second
            for number, colour in enumerate(burns):
                part = height / len(burns)
                self._fill(left, y + number * part, wide, part, colour)
            self._canvas.setStrokeGray(INK)
            self._canvas.setLineWidth((0.25 if wide > 1 else 0.12) * MM)
            self._canvas.rect(left * MM, self._up(bottom), wide * MM, height * MM)

    def _fill(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        """A lamp's colour, and a hatch that tells it from the others in black and white."""
        canvas = self._canvas
        canvas.saveState()
        area = canvas.beginPath()
        area.rect(x * MM, self._up(y + height), width * MM, height * MM)
        canvas.setFillColorRGB(*_FILLS[colour])
        canvas.drawPath(area, stroke=0, fill=1)
        canvas.clipPath(area, stroke=0, fill=0)
        canvas.setLineWidth(0.35 * MM)
        canvas.setStrokeGray(0 if colour == "yellow" else 1)
        for (x1, y1), (x2, y2) in _hatch(colour, x, y, width, height):
            canvas.line(x1 * MM, self._up(y1), x2 * MM, self._up(y2))
        canvas.restoreState()

    def _up(self, y: float) -> float:
        return float((self._height - y) * MM)


Point = tuple[float, float]


def _hatch(
    colour: str, x: float, y: float, width: float, height: float
) -> Iterator[tuple[Point, Point]]:
    """Red leans, blue lies, yellow stands; green is full and white is empty."""
    if colour == "red":
        for n in range(int((width + height) / 1.7) + 1):
            yield (x + n * 1.7 - height, y + height), (x + n * 1.7, y)
    elif colour == "blue":
        for n in range(1, int(height / 1.2) + 1):
            yield (x, y + n * 1.2), (x + width, y + n * 1.2)
    elif colour == "yellow":
        for n in range(1, int(width / 1.55) + 1):
            yield (x + n * 1.55, y), (x + n * 1.55, y + height)


class Block:
    """Lines of text that know how high they are."""

    def __init__(self, ink: Ink, lines: list[list[_Word]]) -> None:
        self._ink = ink
        self._words = lines
        self.lines = len(lines)
        self.height = sum(self._high(line) for line in lines)

    @staticmethod
    def _high(line: list[_Word]) -> float:
        return max(word.run.size for word in line) * _LEADING / MM

    def draw(self, x: float, top: float) -> None:
        """With the upper left corner there."""
        for line in self._words:
            high = self._high(line)
            base, at = top + high * 0.80, x
            for word in line:
                wide = self._ink._width(word.text, word.run)
                self._ink.write(word.text, at + word.width - wide, base, word.run)
                at += word.width
            top += high
