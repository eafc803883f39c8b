"""What the numbers of a microphone mean: a table, and the order of its rows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import kinds
from agent.kinds import microphone
from agent.model import Fault, Level, Reading, Scalar

HEALTHY: dict[str, Scalar] = {
    "heard_s": 3.0,
    "rate_hz": 48_000,
    "channels": 1,
    "level_dbfs": -24.0,
    "peak_dbfs": -8.0,
    "floor_dbfs": -57.0,
    "speech_dbfs": -21.0,
    "hiss_dbfs": -60.0,
    "snr_db": 38.0,
    "clip_pct": 0.0,
    "breaks": 0,
    "dead_pct": 0.0,
    "xruns": 0,
}
QUIET_ROOM = {k: v for k, v in HEALTHY.items() if k not in ("speech_dbfs", "snr_db")} | {
    "level_dbfs": -57.0,
    "hiss_dbfs": -60.0,
}


def judged(values: dict[str, Scalar], **limits: object) -> list[str]:
    settings = microphone.Settings.model_validate({"source": "hw:0", **limits})
    return [f.code.removeprefix("microphone.") for f in microphone.judge(Reading(values), settings)]


@pytest.mark.parametrize("values", [HEALTHY, QUIET_ROOM, {}, {"present": True, "in_use": False}])
def test_nothing_is_said_of_what_is_well(values: dict[str, Scalar]) -> None:
    assert judged(values) == []


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"dead_pct": 100.0, "level_dbfs": -120.0}, "silent"),
        ({"dead_pct": 97.0}, "silent"),
        ({"dead_tail_s": 1.0, "broke_off": True}, "silent"),
        ({"dead_tail_s": 4.0, "broke_off": False}, "silent"),
        ({"level_dbfs": -82.0}, "muted"),
        ({"switch": "off", "level_dbfs": -120.0, "dead_pct": 100.0}, "muted"),
        ({"dead_channels": 1}, "dead_channel"),
        ({"breaks": 1}, "dropouts"),
        ({"breaks": 2, "heard_s": 6.0}, "dropouts"),
        ({"xruns": 3}, "dropouts"),
        ({"clip_pct": 0.1}, "clipping"),
        ({"hum_dbfs": -40.0}, "hum"),
        ({"speech_dbfs": -3.0}, "too_loud"),
        ({"hiss_dbfs": -30.0}, "noisy"),
        ({"hiss_dbfs": -44.0, "snr_db": 8.0}, "noisy"),
        ({"speech_dbfs": -48.0}, "too_quiet"),
    ],
)
def test_each_fault_has_its_code_and_good_clears_it(change: dict[str, Scalar], code: str) -> None:
    assert judged(HEALTHY | change) == [code]
    assert judged(HEALTHY) == []


@pytest.mark.parametrize(
    "change",
    [
        {"dead_pct": 90.0},  # a noise suppressor between phrases
        {"dead_tail_s": 2.0, "broke_off": False},
        {"breaks": 1, "heard_s": 6.0},
        {"clip_pct": 0.05},
        {"hum_dbfs": -60.0},
        {"hum_dbfs": -46.0, "level_dbfs": -15.0},  # far below the speech
        {"hiss_dbfs": -46.0},  # air conditioning
        {"hiss_dbfs": -55.0, "snr_db": 6.0},  # far below anything that disturbs
        {"speech_dbfs": -35.0},  # a distant talker
        {"speech_dbfs": -12.5},  # a lively one
        {"switch": "off"},  # of another input: this one hears
        {"xruns": 2},
    ],
)
def test_what_looks_suspicious_but_is_well(change: dict[str, Scalar]) -> None:
    assert judged(HEALTHY | change) == []


def test_the_first_fault_names_the_look_and_the_rest_stays_in_its_numbers() -> None:
    order = [
        ({"dead_pct": 99.0}, "silent"),
        ({"dead_channels": 1}, "dead_channel"),
        ({"breaks": 9}, "dropouts"),
        ({"clip_pct": 5.0}, "clipping"),
        ({"hum_dbfs": -30.0}, "hum"),
        ({"speech_dbfs": -2.0}, "too_loud"),
        ({"hiss_dbfs": -20.0}, "noisy"),
    ]
    values = dict(HEALTHY)
    for change, code in reversed(order):
        values |= change
        settings = microphone.Settings(source="hw:0")
        (found,) = microphone.judge(Reading(values), settings)
        assert found.code == f"microphone.{code}"
        assert found.numbers == values


@pytest.mark.parametrize(
    ("fault", "code", "level"),
    [
        (Fault.ABSENT, "microphone.absent", Level.FAIL),
        (Fault.NO_ANSWER, "microphone.no_answer", Level.FAIL),
        (Fault.QUARANTINED, "microphone.no_answer", Level.FAIL),
        (Fault.BUSY, "microphone.busy", Level.INFO),
        (Fault.ERROR, "microphone.no_answer", Level.UNKNOWN),
    ],
)
def test_what_could_not_be_read_is_never_well(fault: Fault, code: str, level: Level) -> None:
    reading = Reading(fault=fault)
    (found,) = microphone.judge(reading, microphone.Settings(source="hw:0"))
    assert (found.code, found.level) == (code, level)


def test_a_look_that_was_skipped_says_nothing() -> None:
    reading = Reading(fault=Fault.SKIPPED, why="in_session")
    assert microphone.judge(reading, microphone.Settings(source="hw:0")) == []


def test_the_day_of_commissioning_is_the_measure_of_drift() -> None:
    quiet = QUIET_ROOM | {"level_dbfs": -74.0}
    assert judged(quiet) == []
    assert judged(quiet, baseline_floor_dbfs=-55) == ["muted"]
    assert judged(HEALTHY | {"speech_dbfs": -38.0}, baseline_level_dbfs=-20) == ["too_quiet"]
    assert judged(HEALTHY | {"hiss_dbfs": -45.0}, baseline_floor_dbfs=-65) == ["noisy"]
    assert judged(HEALTHY, baseline_floor_dbfs=-57, baseline_level_dbfs=-21) == []


def test_a_limit_can_be_moved() -> None:
    assert judged(HEALTHY | {"hum_dbfs": -55.0}, hum_above_dbfs=-60, hum_within_db=40) == ["hum"]


numbers = st.one_of(st.none(), st.booleans(), st.integers(-200, 200), st.floats(-200, 200))


@given(st.dictionaries(st.sampled_from([*HEALTHY, "hum_dbfs", "dead_tail_s", "switch"]), numbers))
def test_at_most_one_content_fault_whatever_the_numbers(values: dict[str, Scalar]) -> None:
    assert len(judged(values)) <= 1


def test_every_code_is_declared_with_its_level() -> None:
    assert len(microphone.CODES) == 12
    assert all(code.startswith("microphone.") for code in microphone.CODES)
    assert kinds.load("microphone").CODES is microphone.CODES
