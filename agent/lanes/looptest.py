"""The loop tests of one loudspeaker: what they have found stands until the next one.

A loudspeaker is silent otherwise, so that no other reading says whether it is heard. One test is
one verdict, and one that fails is made once more before it is believed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from agent import kinds
from agent.judge.findings import DeviceState, Watch, fold
from agent.model import Fault, Finding, Moment, Reading, Scalar

LOOP = "loop"
_SAYS = ("errno", "deadline")
"""Why a test without an answer is the loudspeaker's fault."""


def tells(reading: Reading) -> bool:
    """Whether a loop test says something of the loudspeaker: it may also not have been made,
    because a program had a device, nobody could listen or the worker failed."""
    if reading.fault is None:
        return True
    return reading.fault is Fault.NO_ANSWER and reading.why in _SAYS


class LoopTest:
    """What the last test of a device has found."""

    def __init__(self, kind: str) -> None:
        self.values: Mapping[str, Scalar] = {}
        """The numbers of the last test."""
        self._codes = frozenset(kinds.load(kind).CODES)
        self._only = kinds.loop_codes(kind)
        self._found: frozenset[str] = frozenset()

    @property
    def scope(self) -> Collection[str] | None:
        """The codes that a reading without a test can speak about; None is all."""
        return self._codes - self._only - self._found if self._only else None

    def doubtful(self, found: Sequence[Finding], state: DeviceState) -> bool:
        """Whether a test has found something that does not stand yet."""
        stands = {code for code, track in state.tracks.items() if track.raised}
        return bool({f.code for f in found} & self._only - stands)

    def take(
        self,
        state: DeviceState,
        passive: Reading,
        reading: Reading,
        found: Sequence[Finding],
        watch: Watch,
        now: Moment,
    ) -> DeviceState:
        """The state of the device after a test; `passive` is what the kernel said before it."""
        self._found = frozenset(f.code for f in found)
        heard = {} if reading.fault is not None else reading.values
        self.values = {k: v for k, v in heard.items() if k not in passive.values}
        return fold(state, reading, found, replace(watch, raise_s=0, clear_s=0, times=1), now)
