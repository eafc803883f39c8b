from __future__ import annotations

from agent.judge.incidents import step
from agent.model import Finding, Level, Moment


def at(up_s: float) -> Moment:
    return Moment(up_s, 1_800_000_000 + up_s)


FROZEN = Finding("camera.frozen", Level.FAIL, {"unchanged_s": 9}, "cam", since=at(5))


def test_an_incident_is_opened_once_and_closed_once() -> None:
    first = step({}, [FROZEN], at(10))
    assert [(i.device, i.code, i.since) for i in first.opened] == [("cam", "camera.frozen", at(5))]
    again = step(first.now_open, [FROZEN], at(20))
    assert again.opened == again.closed == ()
    healed = step(again.now_open, [], at(30))
    assert [i.until for i in healed.closed] == [at(30)]
    assert step(healed.now_open, [], at(40)).closed == ()


def test_what_is_merely_worth_knowing_is_no_incident() -> None:
    busy = Finding("camera.busy", Level.INFO, device="cam", since=at(5))
    assert step({}, [busy], at(10)).opened == ()


def test_a_start_is_no_incident_but_evidence_that_ran_out_is() -> None:
    start = Finding("agent.no_evidence", Level.UNKNOWN, device="cam")
    assert step({}, [start], at(10)).opened == ()
    stale = Finding("agent.no_evidence", Level.UNKNOWN, device="cam", since=at(60))
    assert len(step({}, [stale], at(70)).opened) == 1


def test_a_level_that_changes_opens_nothing() -> None:
    known = step({}, [FROZEN], at(10)).now_open
    milder = Finding("camera.frozen", Level.WARN, {}, "cam", since=at(5))
    after = step(known, [milder], at(20))
    assert after.opened == after.closed == ()
    assert after.now_open["cam", "camera.frozen"].level is Level.WARN


def test_the_incident_of_a_device_that_left_the_room_is_closed() -> None:
    known = step({}, [FROZEN], at(10)).now_open
    assert [i.device for i in step(known, [], at(20)).closed] == ["cam"]
