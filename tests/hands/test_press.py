"""The button, as a finger and a bad contact press it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.hands.layout import Button
from agent.hands.press import MEANINGS, Press

BUTTON = Button("button", pin=17)


def play(*edges: tuple[float, bool], until_s: float, down: bool = False) -> list[tuple[float, str]]:
    """Edges in time, and every tick that `due_s` asks for: what was said, and when."""
    press = Press(BUTTON, down=down, now_s=0.0)
    said: list[tuple[float, str]] = []

    def tick_until(end_s: float) -> None:
        while (due_s := press.due_s()) <= end_s:
            words = press.tick(due_s)
            said.extend((round(due_s, 2), word) for word in words)
            assert words or press.due_s() > due_s, "it would be asked for ever"

    for at_s, level in edges:
        tick_until(at_s)
        said.extend((round(at_s, 2), word) for word in press.edge(level, at_s))
    tick_until(until_s)
    return said


def test_a_short_press_is_told_when_it_is_let_go() -> None:
    assert play((1.0, True), (1.2, False), until_s=60) == [(1.23, "short")]


def test_three_seconds_ask_for_a_check() -> None:
    assert play((1.0, True), (4.1, False), until_s=60) == [(4.13, "check")]
    assert play((1.0, True), (3.9, False), until_s=60) == [(3.93, "short")]


def test_eight_seconds_mean_maintenance_while_still_held() -> None:
    assert play((1.0, True), (9.5, False), until_s=60) == [(9.0, "maintenance")]


def test_a_bouncing_contact_is_one_press() -> None:
    bounces = [(1.0 + n / 200, n % 2 == 0) for n in range(5)]
    assert play(*bounces, (1.5, False), (1.51, True), (1.52, False), until_s=60) == [
        (1.55, "short")
    ]


def test_a_spike_is_no_press() -> None:
    assert play((1.0, True), (1.01, False), until_s=60) == []


def test_a_stuck_button_is_told_once_and_so_is_its_release() -> None:
    said = play((1.0, True), (100.0, False), (200.0, True), (200.2, False), until_s=300)
    assert [w for _, w in said] == ["maintenance", "stuck", "freed", "short"]
    assert said[1][0] == 31.0


def test_what_is_held_at_the_start_means_nothing_but_may_be_stuck() -> None:
    assert play((5.0, False), until_s=60, down=True) == []
    assert [w for _, w in play(until_s=60, down=True)] == ["stuck"]


def test_a_hold_counts_as_one_until_it_is_stuck_whatever_it_has_meant() -> None:
    press = Press(BUTTON, down=False, now_s=0)
    press.edge(True, 1.0)
    assert press.tick(20.0) == ["maintenance"]
    assert (press.since_s, press.held) == (None, True)
    press.edge(False, 21.0)
    assert not press.held, "while it is not certain that it was let go"
    press.edge(True, 21.01)
    assert press.held, "a bounce"
    assert press.tick(31.0) == ["stuck"]
    assert not press.held
    began_down = Press(BUTTON, down=True, now_s=0)
    began_down.tick(5.0)
    assert not began_down.held


def test_a_press_that_was_used_otherwise_has_no_other_effect() -> None:
    press = Press(BUTTON, down=False, now_s=0)
    press.edge(True, 1.0)
    assert press.since_s is None, "not certain yet"
    press.tick(1.03)
    assert (press.since_s, press.held) == (1.0, True)
    press.spend()
    assert (press.since_s, press.held) == (None, False)
    assert press.edge(False, 4.5) + press.tick(4.53) == []
    press.edge(True, 5.0)
    press.tick(5.03)
    assert press.held
    assert press.edge(False, 5.3) + press.tick(5.33) == ["short"], "the next one counts again"


@given(st.lists(st.tuples(st.floats(0.001, 40), st.booleans()), max_size=30))
def test_whatever_the_line_does_words_are_of_the_list_and_time_goes_on(
    steps: list[tuple[float, bool]],
) -> None:
    press, now_s, stuck = Press(BUTTON, down=False, now_s=0.0), 0.0, False
    for pause_s, level in steps:
        end_s = now_s + pause_s
        for _ in range(8):
            if (due_s := press.due_s()) > end_s:
                break
            words = press.tick(due_s)
            assert set(words) <= MEANINGS
            for word in words:
                if word in ("stuck", "freed"):
                    assert stuck is (word == "freed")
                    stuck = word == "stuck"
        else:
            raise AssertionError("it never rests")
        now_s = end_s
        for word in press.edge(level, now_s):
            if word in ("stuck", "freed"):
                stuck = word == "stuck"
        assert press.since_s is None or press.since_s <= now_s
