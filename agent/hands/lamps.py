"""The lights of the room: patterns on real lamps. Which pattern is shown, `lights` says."""

from __future__ import annotations

import contextlib
import errno
import logging
import math
from collections.abc import Iterable

from agent import patterns
from agent.hands import lights
from agent.hands.hardware import Contact, Hardware
from agent.hands.layout import Light
from agent.hands.lights import Word
from agent.model import Fault, Reading, Scalar
from agent.patterns import Pattern

log = logging.getLogger("hands")

SHORTEST_S = 0.005
"""No blink is shorter: the next moment to look is later than this one, whatever is rounded."""


class Lamps:
    """One light: its lamps, the pattern that is shown, and since when."""

    def __init__(self, light: Light, hardware: Hardware) -> None:
        self.light = light
        self.errno = 0
        self._hardware = hardware
        self._lamps: dict[str, Contact] = {}
        self._pattern = patterns.DARK
        self._began_s = 0.0
        self._burning: frozenset[str] = frozenset()
        self._take()

    @property
    def pattern(self) -> Pattern:
        """What is shown."""
        return self._pattern

    def show(self, pattern: Pattern, now_s: float) -> float:
        """Show a pattern at this moment; returns when it changes next (infinite: never). A new
        pattern begins at its beginning."""
        if pattern != self._pattern:
            self._pattern, self._began_s = pattern, now_s
        colour, left_s = pattern.at(now_s - self._began_s)
        self._burn(lights.lamps(colour, self._lamps))
        return now_s + max(left_s, SHORTEST_S)

    def read(self) -> Reading:
        """Which pattern is shown, or why none can be. What is missing is tried again, and a lamp
        that is not what it should be is set with the next look at the clock."""
        self._look()
        if self.errno:
            self._take()
        if self.errno:
            gone = self.errno in (errno.ENODEV, errno.ENXIO, errno.ENOENT)
            fault = Fault.ABSENT if gone else Fault.ERROR
            return Reading({"errno": self.errno}, fault, "no_node" if gone else "errno")
        values: dict[str, Scalar] = {"pattern": self._pattern.name, "lit": bool(self._burning)}
        return Reading(values)

    def close(self) -> None:
        """Dark, and let go."""
        for lamp in self._lamps.values():
            with contextlib.suppress(OSError):
                lamp.set(False)
            with contextlib.suppress(OSError):
                lamp.close()
        self._lamps.clear()

    def _take(self) -> None:
        number = 0
        for colour, place in self.light.lamps.items():
            if colour in self._lamps:
                continue
            try:
                self._lamps[colour] = self._hardware.lamp(place)
                self._burning -= {colour}  # it comes dark
            except OSError as error:
                number = error.errno or errno.EIO
                if number != self.errno:
                    log.warning("light %s (%s): %s", self.light.id, place, error.strerror or error)
        self.errno = number

    def _look(self) -> None:
        """A lamp on USB may have lost its power meanwhile."""
        for colour, lamp in list(self._lamps.items()):
            try:
                lit = lamp.get()
            except OSError as error:
                self._lose(colour, error)
                continue
            if lit is not None and lit is not (colour in self._burning):
                self._burning ^= {colour}

    def _burn(self, wanted: frozenset[str]) -> None:
        if wanted == self._burning:
            return
        for colour in (*(self._burning - wanted), *(wanted - self._burning)):
            lamp = self._lamps.get(colour)
            if lamp is None:
                continue
            try:
                lamp.set(colour in wanted)
            except OSError as error:
                self._lose(colour, error)
        self._burning = wanted

    def _lose(self, colour: str, error: OSError) -> None:
        place = self.light.lamps[colour]
        self.errno = error.errno or errno.EIO
        log.warning("light %s (%s): %s", self.light.id, place, error.strerror or error)
        with contextlib.suppress(OSError):
            self._lamps.pop(colour).close()
        self._hardware.forget_board(place)


class AllLamps:
    """The lights of the room."""

    def __init__(self, layout: Iterable[Light], hardware: Hardware) -> None:
        self._lights = {light.id: Lamps(light, hardware) for light in layout}

    def show(
        self,
        word: Word | None,
        heard_s: float,
        now_s: float,
        *,
        mode: str,
        instead: Pattern | None = None,
    ) -> float:
        """Show what the room is; `instead` takes the place of the state on status lights. Returns
        when something changes next by itself."""
        lost_s = math.inf if word is None else heard_s + patterns.LOST_S
        age_s = patterns.LOST_S if now_s >= lost_s else now_s - heard_s
        due = [lost_s if now_s < lost_s else math.inf]
        for lamps in self._lights.values():
            light = lamps.light
            if light.role == "door":
                pattern = lights.door(mode)
            elif light.role == "mic_live":
                pattern = lights.mic_live(word, age_s)
            else:
                quiet = light.quiet_in_session
                pattern = instead or lights.status(word, age_s, quiet_in_session=quiet)
            due.append(lamps.show(pattern, now_s))
        return min(due)

    def read(self, light: str) -> Reading:
        """Which pattern a light shows."""
        found = self._lights.get(light)
        return found.read() if found else Reading(fault=Fault.SKIPPED, why="unknown_light")

    def close(self) -> None:
        """All dark."""
        for lamps in self._lights.values():
            lamps.close()
