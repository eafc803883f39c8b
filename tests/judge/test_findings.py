from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from agent.judge.findings import (
    NO_EVIDENCE,
    DeviceState,
    Watch,
    current,
    extend,
    fold,
    restore,
)
from agent.model import Fault, Finding, Incident, Level, Moment, Reading

WATCH = Watch(raise_s=10, clear_s=10, valid_s=60)
GOOD = Reading()
FROZEN = [Finding("camera.frozen", Level.FAIL, {"unchanged_s": 9.0})]
BLACK = [Finding("camera.black", Level.FAIL)]
BUSY = [Finding("camera.busy", Level.INFO)]


def at(up_s: float) -> Moment:
    return Moment(up_s, 1_800_000_000 + up_s)


def run(*steps: tuple[float, list[Finding]], state: DeviceState | None = None) -> DeviceState:
    state = state or DeviceState()
    for up_s, found in steps:
        state = fold(state, GOOD, found, WATCH, at(up_s))
    return state


def codes(state: DeviceState, up_s: float) -> list[str]:
    return [f.code for f in current(state, "cam", WATCH, at(up_s))]


def test_a_device_never_looked_at_is_unknown() -> None:
    assert codes(DeviceState(), 5) == [NO_EVIDENCE]
    assert current(DeviceState(), "cam", WATCH, at(5))[0].level is Level.UNKNOWN


def test_one_good_reading_settles_a_new_device() -> None:
    assert codes(run((0, [])), 1) == []


def test_a_device_whose_first_reading_is_bad_stays_unknown_until_it_is_raised() -> None:
    first = run((0, FROZEN))
    assert codes(first, 1) == [NO_EVIDENCE]
    assert codes(run((10, FROZEN), state=first), 11) == ["camera.frozen"]


def test_one_bad_reading_of_a_good_device_raises_nothing() -> None:
    state = run((0, []), (20, FROZEN))
    assert codes(state, 21) == []
    assert state.pending


def test_a_fault_is_raised_after_its_watching_period_and_dated_when_it_began() -> None:
    state = run((0, []), (20, FROZEN), (25, FROZEN), (30, FROZEN))
    found = current(state, "cam", WATCH, at(31))
    assert [f.code for f in found] == ["camera.frozen"]
    assert found[0].since == at(20)
    assert found[0].device == "cam"


def test_a_good_reading_resets_the_raise_counter() -> None:
    state = run((0, []), (20, FROZEN), (25, []), (30, FROZEN), (35, FROZEN))
    assert codes(state, 36) == []


def test_a_raised_fault_is_cleared_only_after_good_was_seen_for_long_enough() -> None:
    raised = run((0, FROZEN), (10, FROZEN))
    once = run((20, []), state=raised)
    assert codes(once, 21) == ["camera.frozen"]
    assert codes(run((25, []), state=once), 26) == ["camera.frozen"]
    assert codes(run((30, []), state=once), 31) == []


def test_a_bad_reading_resets_the_clear_counter() -> None:
    raised = run((0, FROZEN), (10, FROZEN))
    state = run((20, []), (25, FROZEN), (30, []), (35, []), state=raised)
    assert codes(state, 36) == ["camera.frozen"]


def test_information_needs_no_watching_either_way() -> None:
    state = run((0, BUSY))
    assert codes(state, 1) == ["camera.busy"]
    assert codes(run((5, []), state=state), 6) == []


def test_another_fault_replaces_the_first_when_the_first_is_no_longer_seen() -> None:
    state = run((0, FROZEN), (10, FROZEN), (20, BLACK), (30, BLACK))
    assert codes(state, 31) == ["camera.black"]


def test_evidence_that_is_too_old_is_unknown_and_dated_when_it_ran_out() -> None:
    state = run((0, []))
    assert codes(state, 60) == []
    (finding,) = current(state, "cam", WATCH, at(61))
    assert finding.code == NO_EVIDENCE
    assert finding.since == at(60)
    assert codes(run((70, []), state=state), 71) == []


def test_a_skipped_reading_is_no_evidence() -> None:
    state = run((0, []))
    skipped = Reading(fault=Fault.SKIPPED, why="in_session")
    state = fold(state, skipped, [], WATCH, at(50))
    assert codes(state, 61) == [NO_EVIDENCE]
    assert state.reading is skipped


def test_a_passive_reading_speaks_only_about_its_own_codes() -> None:
    raised = run((0, FROZEN), (10, FROZEN))
    state = raised
    for up_s in (20, 30, 40):
        state = fold(state, GOOD, [], WATCH, at(up_s), scope=("camera.absent",), evidence=False)
    assert codes(state, 41) == ["camera.frozen"]
    assert state.evidence == raised.evidence


def test_a_passive_reading_raises_what_it_sees() -> None:
    absent = [Finding("camera.absent", Level.FAIL)]
    state = run((0, []))
    for up_s in (20, 30):
        state = fold(state, GOOD, absent, WATCH, at(up_s), scope=("camera.absent",), evidence=False)
    assert codes(state, 31) == ["camera.absent"]


def test_a_session_keeps_a_verdict_alive_but_makes_none() -> None:
    assert codes(extend(DeviceState(), at(10)), 11) == [NO_EVIDENCE]
    settled = extend(run((0, [])), at(50))
    assert codes(settled, 100) == []


def test_after_a_restart_what_was_open_is_open_until_good_is_seen() -> None:
    incident = Incident("cam", "camera.frozen", Level.FAIL, at(-500))
    state = restore([incident], at(0))
    assert codes(state, 1) == ["camera.frozen", NO_EVIDENCE][::-1]
    seen = run((5, FROZEN), state=state)
    assert current(seen, "cam", WATCH, at(6))[0].since == at(-500)
    assert codes(run((20, []), (30, []), state=seen), 31) == []


def test_the_level_of_a_raised_finding_follows_the_reading() -> None:
    warn = [replace(FROZEN[0], level=Level.WARN)]
    state = run((0, FROZEN), (10, FROZEN), (20, warn))
    assert current(state, "cam", WATCH, at(21))[0].level is Level.WARN


@given(st.lists(st.tuples(st.integers(1, 20), st.booleans()), max_size=40))
def test_nothing_is_ok_before_good_was_seen_and_nothing_raised_before_its_time(
    steps: list[tuple[int, bool]],
) -> None:
    state, now, good_seen, bad_since = DeviceState(), 0.0, False, None
    for pause, bad in steps:
        now += pause
        state = fold(state, GOOD, FROZEN if bad else [], WATCH, at(now))
        good_seen |= not bad
        bad_since = (bad_since if bad_since is not None else now) if bad else None
        shown = codes(state, now)
        if not good_seen:
            assert shown
        if bad_since is not None and now - bad_since >= WATCH.raise_s:
            assert shown == ["camera.frozen"]
        if not bad and "camera.frozen" in shown:
            assert state.pending
