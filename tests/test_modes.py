"""What the room is doing, when people, the schedule and other programs all have a say."""

from __future__ import annotations

import pytest

from agent.model import Hearing, Mode, Moment
from agent.room.modes import HELD_ENDS_S, Modes

EIGHT = Hearing("HS-1", 10_000, 20_000)
NINE = Hearing("HS-2", 21_000, 22_000)


def at(utc_s: float, boot: str = "00000001") -> Moment:
    return Moment(utc_s, utc_s, boot=boot)


def modes(*hearings: Hearing) -> Modes:
    made = Modes()
    made.hearings = hearings
    return made


def test_maintenance_ends_by_itself_and_by_a_word() -> None:
    room = modes()
    room.say(Mode.MAINTENANCE, 10, "lan", at(1_000))
    assert room.at(at(1_000)) is Mode.MAINTENANCE
    assert room.next_change_s(at(1_000)) == 600
    assert room.at(at(1_599)) is Mode.MAINTENANCE
    assert room.at(at(1_600)) is Mode.IDLE
    room.say(Mode.MAINTENANCE, 10, "lan", at(2_000))
    room.say(None, 10, "lan", at(2_010))
    assert room.at(at(2_010)) is Mode.IDLE
    assert room.next_change_s(at(2_010)) is None


def test_a_session_that_ended_early_does_not_open_the_next_one() -> None:
    room = modes(EIGHT, NINE)
    room.say(Mode.IDLE, 1_000, "clerk", at(15_000))
    assert room.at(at(19_999)) is Mode.IDLE
    assert room.at(at(21_000)) is Mode.IN_SESSION


def test_a_recess_ends_with_its_time_or_with_the_next_hearing() -> None:
    room = modes(EIGHT, NINE)
    room.say(Mode.RECESS, 15, "clerk", at(15_000))
    assert room.at(at(15_899)) is Mode.RECESS
    assert room.at(at(15_900)) is Mode.IN_SESSION
    room.say(Mode.RECESS, 500, "clerk", at(19_000))
    assert room.at(at(20_999)) is Mode.RECESS
    assert room.at(at(21_000)) is Mode.IN_SESSION


def test_a_session_by_word_has_no_need_of_a_schedule() -> None:
    room = modes()
    room.say(Mode.IN_SESSION, 60, "clerk", at(0))
    assert room.at(at(3_599)) is Mode.IN_SESSION
    assert room.at(at(3_600)) is Mode.IDLE


def test_a_call_outlasts_a_moment_of_silence() -> None:
    room = modes()
    room.seen_held(True, at(100))
    assert room.at(at(100)) is Mode.IN_SESSION
    room.seen_held(False, at(110))
    assert room.at(at(110)) is Mode.IN_SESSION
    assert room.next_change_s(at(110)) == HELD_ENDS_S - 10
    assert room.at(at(100 + HELD_ENDS_S)) is Mode.IDLE


def test_when_nothing_may_be_switched_any_more() -> None:
    assert modes().lock_in_s(at(5)) is None
    assert modes(EIGHT).lock_in_s(at(9_000)) == 1_000
    assert modes(EIGHT, NINE).lock_in_s(at(15_000)) == 0
    assert modes(EIGHT, NINE).lock_in_s(at(20_000)) == 1_000


@pytest.mark.parametrize(
    ("mode", "minutes", "hearings", "now_s", "lock_in_s"),
    [
        (Mode.IN_SESSION, 10, (), 15_000, 0),
        (Mode.IN_SESSION, 10, (EIGHT,), 9_000, 0),
        # A session that is paused or over locks nothing, until the word ends or the next begins.
        (Mode.RECESS, 15, (EIGHT, NINE), 15_000, 900),
        (Mode.RECESS, 500, (EIGHT, NINE), 15_000, 6_000),
        (Mode.IDLE, 1_000, (EIGHT, NINE), 15_000, 6_000),
        (Mode.IDLE, 1_000, (EIGHT,), 15_000, None),
        (Mode.RECESS, 15, (), 15_000, None),
        # Maintenance does not hold a hearing up.
        (Mode.MAINTENANCE, 500, (EIGHT,), 9_000, 1_000),
        (Mode.MAINTENANCE, 500, (EIGHT,), 15_000, 0),
    ],
)
def test_what_a_person_says_of_the_session_counts_for_the_relays_too(
    mode: Mode,
    minutes: float,
    hearings: tuple[Hearing, ...],
    now_s: float,
    lock_in_s: float | None,
) -> None:
    room = modes(*hearings)
    room.say(mode, minutes, "clerk", at(now_s))
    assert room.lock_in_s(at(now_s)) == lock_in_s
    if lock_in_s:
        assert room.at(at(now_s + lock_in_s - 1)) is not Mode.IN_SESSION
        assert room.at(at(now_s + lock_in_s)) is Mode.IN_SESSION
    elif lock_in_s == 0:
        assert room.at(at(now_s)) is Mode.IN_SESSION


@pytest.mark.parametrize(
    ("now", "mode"),
    [
        (at(2_000), Mode.MAINTENANCE),
        (at(4_700), Mode.IDLE),
        (Moment(30, 2_000, boot="00000002"), Mode.MAINTENANCE),
        (Moment(30, 4_700, boot="00000002"), Mode.IDLE),
    ],
)
def test_what_was_said_outlives_a_restart_for_the_time_that_is_left(
    now: Moment, mode: Mode
) -> None:
    before = modes()
    before.say(Mode.MAINTENANCE, 60, "lan", at(1_000))
    after = modes()
    after.restore(before.save(), now)
    assert after.at(now) is mode
    if after.said:
        assert after.said.by == "lan"
        assert after.said.until.utc_s == 4_600


def test_a_clock_in_the_past_does_not_make_it_last_for_years() -> None:
    before = modes()
    before.say(Mode.MAINTENANCE, 60, "lan", Moment(100, 1.7e9, boot="00000001"))
    after = modes()
    now = Moment(30, 1.0e9, boot="00000002")
    after.restore(before.save(), now)
    assert after.at(now.after(86_401)) is Mode.IDLE


@pytest.mark.parametrize("boot", ["00000001", "00000002"])
@pytest.mark.parametrize("until", ["1e999", "1" + "0" * 400, "9e15"])
def test_no_word_lasts_for_more_than_a_day(boot: str, until: str) -> None:
    room = modes()
    text = f'{{"mode":"maintenance","by":"x","boot":"00000001","until_up_s":{until},'
    room.restore(f'{text}"until_utc_s":{until}}}'.encode(), at(5, boot))
    assert room.at(at(5).after(86_401)) is Mode.IDLE


@pytest.mark.parametrize("saved", [None, b"", b"{}", b"[]", b"nope", b'{"mode":"x"}'])
def test_nonsense_is_nothing_said(saved: bytes | None) -> None:
    room = modes()
    room.restore(saved, at(5))
    assert room.said is None
    assert modes().save() == b"{}"
