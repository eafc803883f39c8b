"""The clock: UTC is carried on when its source is lost; nobody moves a hearing by setting it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from agent.clock import SystemClock
from agent.model import Clock

UTC_S = 1_790_000_000.0
TWO_YEARS_S = 2 * 365 * 86_400.0


@dataclass
class Box:
    """A box whose clocks are handed in."""

    up_s: float = 100.0
    ahead_s: float = UTC_S
    synced: bool = True
    asked: int = 0

    def passes(self, seconds: float) -> None:
        self.up_s += seconds

    def is_synced(self) -> bool:
        self.asked += 1
        return self.synced


@pytest.fixture
def box() -> Box:
    return Box()


@pytest.fixture
def clock(box: Box) -> SystemClock:
    return SystemClock(
        up_s=lambda: box.up_s, utc_s=lambda: box.up_s + box.ahead_s, synced=box.is_synced
    )


def test_a_clock_that_is_set_in_holdover_moves_nothing(box: Box, clock: SystemClock) -> None:
    assert clock.now().clock is Clock.SYNCED
    box.passes(5)
    box.synced = False
    box.ahead_s -= TWO_YEARS_S  # seen at once, not at the next time to ask
    for _ in range(3):
        now = clock.now()
        assert (now.clock, now.utc_s) == (Clock.HOLDOVER, box.up_s + UTC_S)
        box.passes(3_600)
    # The source is back, and has set it right: to the second that it says.
    box.ahead_s = UTC_S + 3
    box.synced = True
    now = clock.now()
    assert (now.clock, now.utc_s) == (Clock.SYNCED, box.up_s + UTC_S + 3)


def test_what_the_source_sets_counts(box: Box, clock: SystemClock) -> None:
    clock.now()
    box.ahead_s += 60
    now = clock.now()
    assert (now.clock, now.utc_s) == (Clock.SYNCED, box.up_s + UTC_S + 60)


def test_a_clock_that_nobody_set_is_taken_as_it_is(box: Box, clock: SystemClock) -> None:
    box.synced = False
    box.ahead_s -= TWO_YEARS_S
    now = clock.now()
    assert (now.clock, now.utc_s) == (Clock.UNSYNCED, box.up_s + UTC_S - TWO_YEARS_S)
    box.ahead_s = UTC_S  # by a person
    assert clock.now().utc_s == box.up_s + UTC_S
    assert clock.now().clock is Clock.UNSYNCED


def test_holdover_ends_after_a_day(box: Box, clock: SystemClock) -> None:
    clock.now()
    box.synced = False
    box.ahead_s += 5
    box.passes(86_399)
    assert clock.now().utc_s == box.up_s + UTC_S
    box.passes(10)
    now = clock.now()
    assert (now.clock, now.utc_s) == (Clock.UNSYNCED, box.up_s + UTC_S + 5)


def test_the_kernel_is_asked_seldom(box: Box, clock: SystemClock) -> None:
    for _ in range(10):
        clock.now()
        box.passes(1)
    assert box.asked == 1
    box.synced = False
    box.ahead_s -= TWO_YEARS_S
    for _ in range(8):
        clock.now()
        box.passes(1)
    assert box.asked == 2, "a step is one reason, not one with every look"
