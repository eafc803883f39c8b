"""What is told of a device, of all that is known about it.

- Nothing that its worker did not declare, and that only as coarsely as declared (`TELLS`).
- Of a device that hears no series: its numbers are renewed once a minute, whatever its period is,
  and when its verdict changes. Levels of every second would show who speaks when.
- In session nothing that was measured, not even before: the verdict stands, bare.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from agent import kinds
from agent.kinds._tells import coarse
from agent.model import Device, Fault, Finding, Reading, Scalar

log = logging.getLogger("agent.watch")

RENEWED_S = 60.0
"""As often as telemetry."""
AT_ONCE_S = 10.0
"""The least between two changes that renew them: a verdict that flickers is no series either."""


class Told:
    """What is told of one device. Times are boot-time seconds."""

    def __init__(self, device: Device, *, hears: bool) -> None:
        self._device = device
        self._hears = hears
        self._tells = kinds.tells(device.kind)
        self._warned: set[str] = set()
        self._reading: Reading | None = None
        self._renewed_s = self._changed_s = float("-inf")
        self._whole = False  # it has the numbers of its look
        self._codes: frozenset[str] = frozenset()
        self._looked = False

    def coarse(self, reading: Reading) -> Reading:
        """An answer of the worker with what it may tell, rounded."""
        if self._tells is None:
            return reading
        values, dropped = coarse(reading.values, self._tells)
        for key in set(dropped) - self._warned:
            self._warned.add(key)
            log.warning("%s: a worker may not tell %s", self._device.id, key)
        return replace(reading, values=values)

    def renew(self, reading: Reading, found: Sequence[Finding], *, looked: bool) -> None:
        """There is a new reading, and what now stands. `looked`: a worker has answered."""
        mine = f"{self._device.kind}."  # what else stands rests on no number of it
        codes = frozenset(f.code for f in found if f.code.startswith(mine))
        if self._hears and looked and reading.fault is None:
            if not self._due(reading.asked_s, changed=not self._whole or codes != self._codes):
                if not self._whole:  # it is back, and its numbers are told a little later
                    self._reading, self._looked = self._without(reading), looked
                return
            self._renewed_s = reading.asked_s
        self._whole = reading.fault is None
        self._reading, self._codes, self._looked = reading, codes, looked

    def _due(self, now_s: float, *, changed: bool) -> bool:
        """Whether the numbers may be renewed."""
        if self._reading is None or now_s - self._renewed_s >= RENEWED_S:
            return True
        if not changed or now_s - self._changed_s < AT_ONCE_S:
            return False
        self._changed_s = now_s
        return True

    def _without(self, reading: Reading) -> Reading:
        """The reading without what a worker has measured."""
        known = {k: v for k, v in reading.values.items() if k not in (self._tells or {})}
        return replace(reading, values=known)

    def reading(self, forbidden: str) -> Reading | None:
        """The reading to tell; `forbidden` is why the device may not be opened now, if so."""
        reading = self._reading
        if forbidden and self._looked and reading is not None:
            if reading.fault is Fault.SKIPPED:
                return reading
            return replace(reading, values={}, fault=Fault.SKIPPED, why=forbidden)
        return reading

    def finding(self, finding: Finding, forbidden: str) -> Finding:
        """A finding with the numbers to tell: those of the reading that is told."""
        if forbidden:
            return replace(finding, numbers={})
        if not self._hears:
            return finding
        known: Mapping[str, Scalar] = self._reading.values if self._reading else {}
        if finding.code not in self._codes:
            known = {}  # the reading is older than the finding
        # What is not measured (a limit, the day of commissioning) says nothing about this day.
        tells = self._tells or {}
        numbers = {k: known.get(k) if k in tells else v for k, v in finding.numbers.items()}
        return replace(finding, numbers={k: v for k, v in numbers.items() if v is not None})
