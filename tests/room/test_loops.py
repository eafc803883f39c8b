"""When a room makes its loop test by itself. Times are seconds before the hearing."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from agent.lanes.watch import Watched
from agent.model import Clock, Fault, Hearing, Moment, Reading
from agent.room.loops import Loops

STARTS_S = 1_800_000_000.0
HEARING = Hearing("HS-1", STARTS_S, STARTS_S + 7_200)
NEXT = Hearing("HS-2", STARTS_S + 18_000, STARTS_S + 20_000)


class Loudspeaker:
    """Counts its tests and answers as told."""

    def __init__(self, can: bool = True) -> None:
        self.device = type("Device", (), {"id": "speaker"})
        self.asked: list[tuple[str, str]] = []
        self.answer = Reading({"microphones": 1, "microphones_heard": 1})
        self._can = can

    def can(self, question: str) -> bool:
        return self._can and question == "loop"

    async def ask_now(self, by: str, question: str) -> Reading:
        self.asked.append((by, question))
        return self.answer


def at(before_s: float) -> Moment:
    return Moment(100_000 - before_s, STARTS_S - before_s, Clock.SYNCED)


class Day:
    """A room with one loudspeaker, and the ticks of a day."""

    def __init__(self, *hearings: Hearing, can: bool = True) -> None:
        self.speaker = Loudspeaker(can)
        self.hearings = hearings or (HEARING,)
        self.kept = b""
        self.loops = Loops({"speaker": cast(Watched, self.speaker)}, self.keep)

    def keep(self, body: bytes) -> None:
        self.kept = body

    def restart(self) -> None:
        self.loops = Loops({"speaker": cast(Watched, self.speaker)}, self.keep)
        self.loops.restore(self.kept or None)

    def tick(self, *before_s: float) -> int:
        """How many tests are made at these times."""
        asked = len(self.speaker.asked)

        async def make() -> None:
            for when_s in before_s:
                await asyncio.gather(*self.loops.due(self.hearings, at(when_s)))

        asyncio.run(make())
        return len(self.speaker.asked) - asked


def test_it_is_made_once_in_the_first_part_of_the_hour_before() -> None:
    day = Day()
    assert day.tick(7_200, 3_630) == 0
    assert day.tick(3_590) == 1
    assert day.speaker.asked == [("agent", "loop")]
    assert day.tick(3_560, 2_000, 1_000) == 0


@pytest.mark.parametrize("before_s", [900, 899, 60, 0, -60, -7_000])
def test_it_is_not_made_in_the_last_quarter_of_an_hour_nor_in_the_hearing(before_s: float) -> None:
    assert Day().tick(before_s) == 0


def test_an_agent_that_starts_late_in_the_hour_still_makes_it() -> None:
    assert Day().tick(1_000) == 1


def test_without_a_hearing_or_a_loudspeaker_that_may_none_is_made() -> None:
    day = Day()
    day.hearings = ()
    assert day.tick(3_000) == 0
    assert Day(can=False).tick(3_000) == 0


@pytest.mark.parametrize(
    "answer",
    [
        Reading(fault=Fault.BUSY, why="held"),
        Reading(fault=Fault.SKIPPED, why="maintenance"),
        Reading(fault=Fault.ERROR, why="no_samples"),
        Reading(fault=Fault.NO_ANSWER, why="restarting"),
    ],
)
def test_one_that_could_not_be_made_is_tried_again_after_five_minutes(answer: Reading) -> None:
    day = Day()
    day.speaker.answer = answer
    assert day.tick(3_500, 3_470, 3_210) == 1
    assert day.tick(3_190) == 1
    day.speaker.answer = Reading({"microphones": 1, "microphones_heard": 0})
    assert day.tick(2_800) == 1
    assert day.tick(2_400, 1_500) == 0, "one that failed was made"


def test_an_agent_that_starts_again_and_again_does_not_sound_again_and_again() -> None:
    day = Day()
    day.restart()
    assert day.tick(3_000) == 1
    day.restart()
    assert day.tick(2_000) == 0
    day = Day()
    begun = day.loops.due(day.hearings, at(3_000))  # and the agent dies in it
    for test in begun:
        test.close()
    day.restart()
    assert day.tick(2_000) == 0
    day = Day()
    day.speaker.answer = Reading(fault=Fault.BUSY, why="held")
    assert day.tick(3_000) == 1
    day.restart()
    assert day.tick(2_900) == 1, "what was not made is still to be made"


def test_hearings_that_come_and_go_do_not_make_it_sound_again_and_again() -> None:
    day = Day()
    made = 0
    for number in range(20):
        day.hearings = (Hearing(f"HS-{number}", STARTS_S, STARTS_S + 7_200),)
        made += day.tick(3_000 - 10 * number)
    assert made == 1


def test_every_hearing_has_its_own() -> None:
    day = Day(HEARING, NEXT)
    assert day.tick(3_000, 2_500) == 1
    assert day.tick(-10_000) == 0
    assert day.tick(-15_000, -16_000) == 1


def test_a_loudspeaker_that_hangs_counts_as_tested() -> None:
    day = Day()
    day.speaker.answer = Reading(fault=Fault.NO_ANSWER, why="deadline")
    assert day.tick(3_000, 2_000) == 1


def test_a_hearing_that_is_called_off_takes_its_test_with_it() -> None:
    day = Day()
    waiting: list[Any] = day.loops.due(day.hearings, at(3_000))
    assert len(waiting) == 1
    day.hearings = (NEXT,)
    assert day.tick(-15_000) == 1
    asyncio.run(waiting[0])  # it comes late, for a hearing that is past
    assert day.tick(-16_000) == 0
