from __future__ import annotations

import pytest

from agent.judge.schedule import current_hearing, mode_of, next_change_s, session_in_s
from agent.model import Hearing, Mode, Moment

EIGHT = Hearing("HS-1", 100_000, 110_000)
HALF_PAST_ONE = Hearing("HS-2", 120_000, 130_000)


def at(utc_s: float) -> Moment:
    return Moment(0, utc_s)


@pytest.mark.parametrize(
    ("utc_s", "mode", "hearing"),
    [
        (96_399, Mode.IDLE, "HS-1"),
        (96_400, Mode.PREPARING, "HS-1"),
        (99_999.9, Mode.PREPARING, "HS-1"),
        (100_000, Mode.IN_SESSION, "HS-1"),
        (109_999, Mode.IN_SESSION, "HS-1"),
        (110_000, Mode.IDLE, "HS-2"),
        (116_400, Mode.PREPARING, "HS-2"),
        (125_000, Mode.IN_SESSION, "HS-2"),
        (130_000, Mode.IDLE, None),
    ],
)
def test_the_mode_follows_the_schedule(utc_s: float, mode: Mode, hearing: str | None) -> None:
    hearings = [HALF_PAST_ONE, EIGHT]
    assert mode_of(hearings, at(utc_s)) is mode
    found = current_hearing(hearings, at(utc_s))
    assert (found.id if found else None) == hearing


def test_without_a_schedule_the_room_is_idle() -> None:
    assert mode_of([], at(5)) is Mode.IDLE
    assert next_change_s([], at(5)) is None


@pytest.mark.parametrize("said", [Mode.IN_SESSION, Mode.RECESS, Mode.IDLE])
def test_what_a_person_says_of_the_session_wins(said: Mode) -> None:
    for utc_s in (90_000, 98_000, 105_000):
        assert mode_of([EIGHT], at(utc_s), said) is said
        assert mode_of([EIGHT], at(utc_s), said, held=True) is said


def test_maintenance_lasts_until_a_hearing_begins() -> None:
    assert mode_of([EIGHT], at(99_999), Mode.MAINTENANCE) is Mode.MAINTENANCE
    assert mode_of([EIGHT], at(100_000), Mode.MAINTENANCE) is Mode.IN_SESSION
    assert mode_of([EIGHT], at(110_000), Mode.MAINTENANCE) is Mode.MAINTENANCE


def test_a_call_that_nobody_announced_is_a_session() -> None:
    assert mode_of([], at(5), held=True) is Mode.IN_SESSION
    assert mode_of([EIGHT], at(98_000), held=True) is Mode.IN_SESSION
    assert mode_of([], at(5), Mode.MAINTENANCE, held=True) is Mode.MAINTENANCE


def test_how_long_until_the_next_session() -> None:
    assert session_in_s([], at(5)) is None
    assert session_in_s([EIGHT], at(99_000)) == 1_000
    assert session_in_s([EIGHT], at(105_000)) == 0
    assert session_in_s([EIGHT], at(110_000)) is None


def test_hearings_back_to_back_leave_no_gap_to_look_in() -> None:
    second = Hearing("HS-2", 110_000, 111_000)
    assert mode_of([EIGHT, second], at(110_000)) is Mode.IN_SESSION


def test_overlapping_hearings_stay_in_session_until_the_last_ends() -> None:
    long = Hearing("HS-3", 90_000, 115_000)
    assert mode_of([EIGHT, long], at(112_000)) is Mode.IN_SESSION


def test_the_next_change_is_the_nearest_edge() -> None:
    assert next_change_s([EIGHT], at(90_000)) == 6_400
    assert next_change_s([EIGHT], at(96_400)) == 3_600
    assert next_change_s([EIGHT], at(110_000)) is None
