"""What is told of a device that hears is no series, and nothing that was not declared. Times are
handed in."""

from __future__ import annotations

import logging

import pytest

from agent import kinds
from agent.lanes.told import AT_ONCE_S, RENEWED_S, Told
from agent.model import Device, Fault, Finding, Level, Reading

QUIET = Finding("microphone.too_quiet", Level.FAIL, {"speech_dbfs": -50.0, "limit_dbfs": -43.0})


def microphone() -> Told:
    settings = kinds.load("microphone").Settings(source="file:none.wav", period_s=1)
    return Told(Device("mic", "microphone", settings), hears=True)


def reading(level: float, at_s: float, fault: Fault | None = None) -> Reading:
    values = {} if fault else {"level_dbfs": level, "speech_dbfs": level}
    return Reading({"present": True, **values}, fault, asked_s=at_s, active=True)


def level(told: Told) -> object:
    shown = told.reading("")
    assert shown is not None
    return shown.values.get("level_dbfs")


def test_levels_of_every_second_are_told_once_a_minute() -> None:
    told, seen = microphone(), set()
    for second in range(600):
        told.renew(reading(-20.0 - second % 40, second), [], looked=True)
        seen.add((level(told), second - second % RENEWED_S))
    assert len(seen) == 600 / RENEWED_S


def test_a_verdict_that_changes_comes_with_its_numbers() -> None:
    told = microphone()
    nothing = Finding("agent.no_evidence", Level.UNKNOWN)
    told.renew(reading(-30, 0), [nothing], looked=True)
    told.renew(reading(-50, 1), [QUIET], looked=True)
    assert level(told) == -50, "also right after the start"
    assert told.finding(QUIET, "").numbers == {"speech_dbfs": -50.0, "limit_dbfs": -43.0}
    told.renew(reading(-48, AT_ONCE_S + 2), [QUIET], looked=True)
    newer = Finding(QUIET.code, QUIET.level, {"speech_dbfs": -48.0})
    assert told.finding(newer, "").numbers == {"speech_dbfs": -50.0}, "not by a way round"


def test_a_verdict_that_flickers_is_no_series_either() -> None:
    told, seen = microphone(), []
    for second in range(120):
        found = [QUIET] if second % 2 else []
        told.renew(reading(-20.0 - second, second), found, looked=True)
        for finding in found:
            numbers = told.finding(finding, "").numbers.get("speech_dbfs")
            seen += [numbers] if numbers is not None else []
        seen.append(level(told))
    assert len(set(seen)) <= 120 / AT_ONCE_S + 1


def test_a_microphone_that_comes_and_goes_is_told_at_once_and_is_no_series() -> None:
    told, seen = microphone(), []
    for second in range(120):
        fault = Fault.BUSY if second % 2 else None
        told.renew(reading(-20.0 - second, second, fault), [], looked=True)
        shown = told.reading("")
        assert shown is not None
        assert shown.fault is fault
        assert shown.values["present"] is True
        if fault is None and "level_dbfs" in shown.values:
            seen.append(level(told))
    assert 2 < len(set(seen)) <= 120 / AT_ONCE_S + 1


def test_the_numbers_of_a_camera_are_those_of_the_last_look() -> None:
    settings = kinds.load("camera").Settings(source="file:none.avi", period_s=1)
    told = Told(Device("cam", "camera", settings), hears=False)
    black = Finding("camera.black", Level.FAIL, {"luma_mean": 7.0})
    for second in range(3):
        now = Reading({"luma_mean": float(second)}, asked_s=second)
        told.renew(now, [black], looked=True)
        assert told.reading("") == now
    assert told.finding(black, "") == black


def test_after_a_fault_the_numbers_are_back_soon() -> None:
    told = microphone()
    told.renew(reading(-30, 0), [], looked=True)
    told.renew(reading(-30, 1), [QUIET], looked=True)
    told.renew(reading(0, 2, Fault.SKIPPED), [QUIET], looked=True)
    for second in range(3, 20):
        told.renew(reading(-31, second), [QUIET], looked=True)
        assert (level(told) is not None) == (second >= 1 + AT_ONCE_S)


@pytest.mark.parametrize("why", ["in_session", "maintenance"])
def test_where_it_may_not_be_opened_no_number_is_told(why: str) -> None:
    told = microphone()
    told.renew(reading(-30, 0), [QUIET], looked=True)
    shown = told.reading(why)
    assert shown is not None
    assert (shown.values, shown.fault, shown.why) == ({}, Fault.SKIPPED, why)
    assert told.finding(QUIET, why).numbers == {}
    assert level(told) == -30, "and afterwards it is"


def test_a_worker_cannot_tell_what_its_kind_did_not_declare(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told = microphone()
    smuggled = {"level_dbfs": -31.2345, "sample_0": 17, "envelope_1": 0.25, "state": "hidden"}
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert told.coarse(Reading(smuggled)).values == {"level_dbfs": -31.0}
    assert len(caplog.records) == 3, "said once for each key"
