"""What the lights say, and that nobody can take one thing for another."""

from __future__ import annotations

import itertools
import math

import pytest

from agent import kinds, patterns
from agent.hands import lights
from agent.hands.lights import Word
from agent.judge import own
from agent.patterns import Colour, Pattern

STEP_S = 0.05


def lit(pattern: Pattern, from_s: float) -> list[bool]:
    """The first twelve seconds as one lamp shows them, for somebody who comes in at `from_s`."""
    return [pattern.at(from_s + n * STEP_S)[0] is not None for n in range(240)]


PAIRS = list(itertools.combinations(patterns.PATTERNS, 2))


@pytest.mark.parametrize("pair", PAIRS, ids="+".join)
def test_every_two_patterns_differ_by_rhythm_alone(pair: tuple[str, str]) -> None:
    """Whenever one begins to look: over 12 s the lamps differ for at least half a second."""
    one, other = (patterns.PATTERNS[name] for name in pair)
    shifts = [n * STEP_S for n in range(round(sum(other.times) / STEP_S) or 1)]
    apart = min(
        sum(a is not b for a, b in zip(lit(one, 0), lit(other, shift), strict=True))
        for shift in shifts
    )
    assert apart * STEP_S >= 0.5, f"{one.name} looks like {other.name}"


@pytest.mark.parametrize("pattern", patterns.PATTERNS.values(), ids=lambda p: p.name)
def test_a_pattern_repeats_and_says_when_it_changes(pattern: Pattern) -> None:
    if not pattern.times:
        assert pattern.at(1e6) == (pattern.colour, math.inf)
        return
    length, seen, at_s = sum(pattern.times), [], 0.0
    for _ in range(2 * len(pattern.times)):
        colour, left_s = pattern.at(at_s + 1e-6)
        seen.append(colour is not None)
        at_s += left_s + 1e-6
    assert seen == [True, False] * len(pattern.times)
    assert at_s == pytest.approx(2 * length, abs=1e-3)


@pytest.mark.parametrize("count", range(1, 7))
def test_a_counted_blink_can_be_counted(count: int) -> None:
    pattern = patterns.NOT_READY[count]
    assert len(pattern.times) == 2 * count
    assert pattern.times[-1] >= 4 * max(pattern.times[:-1][1::2], default=0.25), "no clear pause"


def test_every_code_has_a_family() -> None:
    known = {kind for kinds_ in patterns.FAMILIES.values() for kind in kinds_}
    assert set(kinds.names()) - known == set(), "a new kind belongs into a family"
    for kind in kinds.names():
        for code in kinds.load(kind).CODES:
            assert patterns.family_of(code) in patterns.FAMILIES
    assert {patterns.family_of(code) for code in own.CODES} == {6}
    assert patterns.family_of("host.clock_unsynced") == 6
    assert patterns.family_of("host.hot") == 5


def shown(word: Word | None, age_s: float = 0.0, *, quiet: bool = True) -> str:
    return lights.status(word, age_s, quiet_in_session=quiet).name


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (Word("ready"), "ready"),
        (Word("ready", "preparing"), "preparing"),
        (Word("at_risk", family=3), "at_risk"),
        (Word("not_ready", family=1), "not_ready_1"),
        (Word("not_ready", "preparing", family=6), "not_ready_6"),
        (Word("unknown"), "unknown"),
        (Word("unknown", commissioned=False), "not_commissioned"),
        (Word("not_ready", "in_session", family=1), "dark"),
        (Word("ready", "recess"), "ready"),
        (Word("ready", "maintenance"), "maintenance"),
        (Word("not_ready", family=2, measuring=True), "measuring"),
        (Word("ready", updating=True), "updating"),
        (Word("ready", "in_session", locate=True), "locate"),
    ],
)
def test_the_room_is_shown_as_it_is(word: Word, expected: str) -> None:
    assert shown(word) == expected


def test_a_room_may_want_to_see_its_session() -> None:
    assert shown(Word("ready", "in_session"), quiet=False) == "in_session"


@pytest.mark.parametrize("word", [Word("ready"), Word("ready", "in_session"), Word(locate=True)])
def test_no_light_is_left_over_from_a_silent_agent(word: Word) -> None:
    assert shown(word, 9.9) != "monitor_lost"
    assert shown(word, 10.0) == "monitor_lost"
    assert shown(None) == "monitor_lost"
    assert shown(word, 0.0) != "monitor_lost", "and it is right again with the next word"


def test_green_is_shown_for_nothing_but_ready() -> None:
    green = {p.name for p in patterns.PATTERNS.values() if p.colour is Colour.GREEN}
    assert green == {"ready", "preparing"}
    for state, mode in itertools.product(lights.STATES, lights.MODES):
        pattern = lights.status(Word(state, mode, family=1), 0.0, quiet_in_session=False)
        assert pattern.colour is not Colour.GREEN or state == "ready"


def test_a_press_says_the_reason_again() -> None:
    assert lights.reason(Word("at_risk", family=4)).name == "not_ready_4"
    assert lights.reason(Word("ready")).name == "ready"
    assert lights.reason(Word("unknown")).name == "unknown"
    assert lights.reason(None).name == "monitor_lost"


@pytest.mark.parametrize("mode", sorted(lights.MODES))
def test_the_door_lamp_burns_in_session_only_and_steadily(mode: str) -> None:
    pattern = lights.door(mode)
    assert pattern.times == ()
    assert (pattern.colour is not None) is (mode == "in_session")


def test_the_microphone_lamp_promises_nothing_that_is_not_known() -> None:
    live, shut = lights.mic_live(Word(mic_live=True), 0), lights.mic_live(Word(mic_live=False), 0)
    assert (live.at(5)[0], shut.at(5)[0]) == (Colour.RED, None)
    for unknown in (
        lights.mic_live(Word(mic_live=None), 0),
        lights.mic_live(Word(mic_live=False), 10),
        lights.mic_live(None, 0),
    ):
        assert unknown.at(0)[0] is not None
        assert unknown.times


@pytest.mark.parametrize(
    ("there", "colour", "burning"),
    [
        ({"red", "green", "blue"}, Colour.YELLOW, {"red", "green"}),
        ({"red", "green", "blue"}, Colour.WHITE, {"red", "green", "blue"}),
        ({"red", "yellow", "green"}, Colour.YELLOW, {"yellow"}),
        ({"red", "yellow", "green"}, Colour.BLUE, {"yellow", "green"}),
        ({"white"}, Colour.RED, {"white"}),
        ({"green"}, Colour.RED, {"green"}),
        ({"red", "green"}, None, set()),
    ],
)
def test_colours_are_made_of_the_lamps_that_are_there(
    there: set[str], colour: Colour | None, burning: set[str]
) -> None:
    assert lights.lamps(colour, there) == burning
