"""The button on a simulated pin: what it means, what it lights, and that it breaks the glass."""

from __future__ import annotations

import errno

import pytest
from hands_stage import Box, light, relay

from agent.hands.layout import Button
from agent.model import Fault

PIN = 4
BUTTON = Button("button", PIN)


def meanings(box: Box) -> list[str]:
    return [e["meaning"] for e in box.news() if e["event"] == "pressed"]


def press(box: Box, seconds: float) -> None:
    box.press(PIN)
    box.wait(seconds)
    box.let_go(PIN)
    box.wait(0.1)


@pytest.mark.parametrize(
    ("held_s", "words"),
    [
        (0.02, []),
        (0.5, ["short"]),
        (2.99, ["short"]),
        (3.0, ["check"]),
        (7.99, ["check"]),
        (8.0, ["maintenance"]),
        (29.9, ["maintenance"]),
        (30.5, ["maintenance", "stuck", "freed"]),
    ],
)
def test_a_press_means_what_its_length_says(box: Box, held_s: float, words: list[str]) -> None:
    box.start(BUTTON, light())
    press(box, held_s)
    assert meanings(box) == words


def test_the_light_answers_a_hold_and_a_short_press(box: Box) -> None:
    box.start(BUTTON, light())
    box.say(state="not_ready", family=2)
    box.press(PIN)
    box.wait(2.9)
    assert box.pattern() == "not_ready_2"
    box.wait(0.2)
    assert box.pattern() == "held_check"
    box.wait(4.8)
    assert box.pattern() == "held_check"
    box.wait(0.2)
    assert box.pattern() == "not_ready_2", "from here on it is what the room becomes"
    box.let_go(PIN)
    box.wait(0.1)
    box.say("maintenance", "unknown")
    assert box.pattern() == "maintenance"
    press(box, 0.2)
    assert box.pattern() == "unknown", "no reason is known"
    box.say("maintenance", "not_ready", family=4)
    assert box.pattern() == "not_ready_4", "the reason, though the room is in maintenance"
    box.wait(8)
    box.say("maintenance", "not_ready", family=4)
    assert box.pattern() == "maintenance"


def test_the_light_that_answers_a_hold_is_on_time(box: Box) -> None:
    """With a steady light nothing else wakes the loop."""
    box.start(BUTTON, light())
    box.press(PIN)
    box.wait(0.1)
    assert box.desk.tick() == pytest.approx(1_000 + BUTTON.check_s)
    box.wait(BUTTON.check_s)
    assert box.desk.tick() == pytest.approx(1_000 + BUTTON.maintenance_s)


def test_in_a_quiet_session_a_press_says_for_a_moment_how_it_is(box: Box) -> None:
    box.start(BUTTON, light())
    box.say("in_session", "ready")
    assert box.pattern() == "dark"
    press(box, 0.2)
    assert box.pattern() == "ready"
    box.wait(8)
    assert box.pattern() == "dark"


def test_a_press_brings_no_green_back_when_the_agent_is_silent(box: Box) -> None:
    box.start(BUTTON, light())
    press(box, 0.2)
    box.wait(10)
    press(box, 0.2)
    assert box.pattern() == "monitor_lost"


def test_the_light_answers_a_hold_without_any_debounce(box: Box) -> None:
    box.start(Button("button", PIN, debounce_s=0), light())
    box.press(PIN)
    for _ in range(4):
        box.wait(1)
        box.say()
    assert box.pattern() == "held_check"


def test_two_buttons_each_have_their_own_times(box: Box) -> None:
    slow = Button("slow", 5, check_s=6)
    box.start(BUTTON, slow, light())
    box.press(5)
    box.wait(4)
    assert box.pattern() == "ready"
    box.wait(2.1)
    assert box.pattern() == "held_check"


def test_a_stuck_button_says_so_and_recovers(box: Box) -> None:
    box.start(BUTTON)
    box.press(PIN)
    box.wait(31)
    reading = box.ask("button", "read", button="button")
    assert reading is not None
    assert reading.values == {"pressed": True, "stuck": True}
    box.let_go(PIN)
    box.wait(1)
    reading = box.ask("button", "read", button="button")
    assert reading is not None
    assert reading.values == {"pressed": False, "stuck": False}


def test_while_it_is_held_it_reads_as_pressed(box: Box) -> None:
    box.start(BUTTON)
    box.press(PIN)
    for _ in range(4):
        box.wait(4)
        reading = box.ask("button", "read", button="button")
        assert reading is not None
        assert reading.values["pressed"] is True


def test_a_button_that_pulls_to_3v3(box: Box) -> None:
    box.start(Button("button", PIN, pull_up=False))
    box.let_go(PIN)  # drives it high: pressed
    box.wait(1)
    box.press(PIN)
    box.wait(1)
    assert meanings(box) == ["short"]


def test_a_button_whose_pin_is_taken_is_told_and_had_later(box: Box) -> None:
    box.start(BUTTON, busy={PIN})
    reading = box.ask("button", "read", button="button")
    assert reading is not None
    assert (reading.fault, reading.values["errno"]) == (Fault.ABSENT, errno.EBUSY)
    box.pins.busy.clear()
    reading = box.ask("button", "read", button="button")
    assert reading is not None
    assert reading.fault is None
    press(box, 0.5)
    assert meanings(box) == ["short"]


def test_an_unknown_button_is_none(box: Box) -> None:
    box.start(BUTTON)
    reading = box.ask("button", "read", button="x")
    assert reading is not None
    assert reading.why == "unknown_button"


# -- the glass -------------------------------------------------------------------------------------


def test_in_session_a_relay_moves_only_with_the_button_held_and_the_wish_for_it(box: Box) -> None:
    box.start(BUTTON, relay("lamp"))
    box.say("in_session")
    assert box.set("lamp", True, glass=True).why == "not_held"
    box.press(PIN)
    assert box.set("lamp", True, glass=True).why == "not_held", "not before the contact is sure"
    box.wait(0.1)
    assert box.set("lamp", True).why == "session_lock", "a held button alone allows nothing"
    assert box.set("lamp", True, glass=True).fault is None
    assert box.set("lamp", False, glass=True).why == "not_held", "once a press"
    box.let_go(PIN)
    box.wait(0.1)
    assert box.set("lamp", False, glass=True).why == "not_held"
    box.press(PIN)
    box.wait(0.1)
    assert box.set("lamp", False, glass=True).fault is None
    assert box.switchings() == [("lamp", True, "command"), ("lamp", False, "command")]


def test_a_press_that_broke_the_glass_means_nothing_else(box: Box) -> None:
    box.start(BUTTON, relay("lamp"))
    box.say("in_session")
    box.press(PIN)
    box.wait(4)
    box.set("lamp", True, glass=True)
    box.wait(20)
    box.let_go(PIN)
    box.wait(1)
    assert meanings(box) == []


def test_who_speaks_with_the_centre_may_hold_for_as_long_as_that_takes(box: Box) -> None:
    box.start(BUTTON, relay("lamp"))
    box.say("in_session")
    box.press(PIN)
    box.wait(25)
    assert box.set("lamp", True, glass=True).fault is None


def test_a_button_that_is_stuck_breaks_no_glass(box: Box) -> None:
    box.start(BUTTON, relay("lamp"))
    box.press(PIN)
    box.wait(31)
    box.say("in_session")
    assert box.set("lamp", True, glass=True).why == "not_held"
    box.let_go(PIN)
    box.wait(1)
    box.press(PIN)
    box.wait(1)
    assert box.set("lamp", True, glass=True).fault is None


def test_a_wish_that_is_refused_does_not_use_up_the_press(box: Box) -> None:
    box.start(BUTTON, relay("lamp", min_on_s=5), relay("fan", 20))
    box.say("in_session")
    box.press(PIN)
    box.wait(0.1)
    assert box.set("nothing", True, glass=True).why == "unknown_relay"
    assert box.set("lamp", True, glass=True).fault is None


def test_the_glass_breaks_no_other_rule(box: Box) -> None:
    box.start(BUTTON, relay("up", group="g", min_on_s=600), relay("down", 20, group="g"))
    box.set("up", True)
    box.say("in_session")
    box.press(PIN)
    box.wait(0.1)
    assert box.set("down", True, glass=True).why == "interlocked"
    assert box.set("up", False, glass=True).why == "too_soon"
    assert (box.level(26), box.level(20)) == (True, False)


def test_without_a_button_no_glass_can_be_broken(box: Box) -> None:
    box.start(relay("lamp"))
    assert box.set("lamp", True, glass=True).why == "not_held"
    assert box.level(26) is False
