"""What the host kind remembers between two looks, for any course of events."""

from __future__ import annotations

import itertools

from hypothesis import example, given
from hypothesis import strategies as st

from agent.kinds.host.facts import Sleeper
from agent.kinds.host.memory import Dips, Errors, Steps, Stuck

PAUSES = st.floats(0.5, 3_600)


@given(st.lists(st.tuples(PAUSES, st.sampled_from([True, False, None])), max_size=40))
def test_dips_are_counted_by_their_beginnings(course: list[tuple[float, bool | None]]) -> None:
    dips, now, known, values = Dips(), 0.0, [False], {}
    last: float | None = None
    for pause, on in course:
        now += pause
        known += [] if on is None else [on]
        last = now if known[-1] else last
        values = dips.see(on, now)
    if values:
        begins = sum(b and not a for a, b in itertools.pairwise(known))
        assert values["undervoltage_count"] == begins
    assert ("undervoltage_age_s" in values) == (last is not None)
    if last is not None:
        assert values["undervoltage_age_s"] == round(now - last)


@given(st.lists(st.tuples(PAUSES, st.floats(-1e8, 1e8)), min_size=1, max_size=20))
@example([(1.0, 1.0625), (1.0, 0.0)])
def test_every_step_is_found_with_its_size(course: list[tuple[float, float]]) -> None:
    steps, now, utc = Steps(), 0.0, 1.7e9
    steps.see(utc, now, True)
    count = 0
    for pause, step in course:
        now, utc = now + pause, utc + pause + step
        values = steps.see(utc, now, True)
        if abs(step) > 1.1:
            assert values["clock_steps"] == count + 1
            assert values["clock_step_age_s"] == 0
            assert abs(float(values["clock_step_s"]) - step) < 0.01
        elif abs(step) < 0.9:
            assert values["clock_steps"] == count
        count = int(values["clock_steps"])  # between the two it may be a step or none
        assert ("clock_step_s" in values) == (count > 0)


@given(st.lists(st.sets(st.integers(1, 5)), min_size=1, max_size=20))
def test_who_is_asleep_at_each_look_is_stuck_since_the_first(course: list[set[int]]) -> None:
    stuck, values = Stuck(), {}
    for look, pids in enumerate(course):
        values = stuck.see([Sleeper(pid, 7, 3) for pid in pids], 60.0 * look)
    longest = 0
    for pid in course[-1]:
        runs = 0
        for pids in reversed(course):
            if pid not in pids:
                break
            runs += 1
        longest = max(longest, runs)
    assert values.get("stuck_s", 0) == 60 * max(0, longest - 1)
    assert stuck.watching == bool(course[-1])


@given(st.lists(st.integers(0, 1_000), min_size=1, max_size=20))
def test_new_errors_are_those_above_the_lowest_count_seen(counts: list[int]) -> None:
    errors = Errors()
    for seen, count in enumerate(counts, 1):
        new = count - min(counts[:seen])
        assert errors.see(count) == {"storage_errors": count, "storage_errors_new": new}
    assert errors.see(None) == {}
