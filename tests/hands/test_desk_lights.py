"""Lights on simulated pins and on a LED of the kernel: never a word that nobody says any more."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
from hands_stage import Box, light

from agent import patterns
from agent.hands.layout import Layout, Light, Place
from agent.model import Fault

RED, GREEN, DOOR = 17, 27, 22


def lit(box: Box, *pins: int) -> tuple[bool, ...]:
    return tuple(box.level(pin) for pin in pins)


def test_green_burns_for_ready_and_goes_out_after_exactly_ten_seconds(box: Box) -> None:
    box.start(light())
    assert lit(box, RED, GREEN) == (False, True)
    box.wait(patterns.LOST_S - 0.001)
    assert (box.pattern(), *lit(box, RED, GREEN)) == ("ready", False, True)
    box.wait(0.001)
    assert (box.pattern(), *lit(box, RED, GREEN)) == ("monitor_lost", True, False)
    box.wait(60)
    assert box.pattern() == "monitor_lost"
    box.say()
    assert (box.pattern(), *lit(box, RED, GREEN)) == ("ready", False, True)


@pytest.mark.parametrize("began_s", [12345.678, 0.1, 8185.801, 254.838, 262142.259])
def test_a_steady_green_has_its_end_planned_whatever_is_rounded(box: Box, began_s: float) -> None:
    """With a steady light nothing else wakes the loop."""
    box.now_s = began_s
    box.start(light())
    box.now_s = box.desk.tick()
    box.desk.tick()
    assert box.pattern() == "monitor_lost"


def test_before_the_first_word_nothing_is_said_of_the_room(box: Box) -> None:
    box.start(
        light(), light("door", "door", white=DOOR), light("mic", "mic_live", red=5), idle=False
    )
    box.wait(1)
    assert (box.pattern(), box.pattern("door"), box.pattern("mic")) == (
        "monitor_lost",
        "dark",
        "mic_unknown",
    )


def test_the_door_lamp_holds_when_the_agent_dies_and_when_hands_does(box: Box) -> None:
    door = light("door", "door", white=DOOR)
    box.start(light(), door)
    box.say("in_session")
    assert box.history(DOOR) == [False, True]
    box.wait(3_600)
    assert (box.pattern(), box.history(DOOR)) == ("monitor_lost", [False, True])
    box.start(light(), door, idle=False)
    box.desk.tick()
    assert (box.pattern("door"), box.history(DOOR)) == ("door", [False, True])
    box.say("recess")
    assert box.history(DOOR) == [False, True, False]


def test_after_a_power_cut_no_door_lamp_says_that_a_hearing_runs(box: Box) -> None:
    door = light("door", "door", white=DOOR)
    box.start(door)
    box.say("in_session")
    box.reboot()
    box.start(door, idle=False)
    box.wait(1)
    assert box.history(DOOR) == [False]
    box.say("in_session")
    assert box.level(DOOR) is True


def test_a_hands_that_ends_leaves_no_light_burning(box: Box) -> None:
    box.start(light(), light("door", "door", white=DOOR))
    box.say("in_session")
    box.desk.close()
    assert lit(box, RED, GREEN, DOOR) == (False, False, False)


@pytest.mark.parametrize(
    ("word", "pattern", "lamps"),
    [
        ({"state": "at_risk"}, "at_risk", (True, True)),
        ({"state": "not_ready", "family": 2}, "not_ready_2", (True, False)),
        ({"state": "unknown"}, "unknown", (True, True)),
        ({"state": "ready", "mode": "maintenance"}, "maintenance", (True, True)),
    ],
)
def test_colours_that_are_not_there_are_made_of_those_that_are(
    box: Box, word: dict[str, Any], pattern: str, lamps: tuple[bool, bool]
) -> None:
    box.start(light())
    box.say(**word)
    assert (box.pattern(), *lit(box, RED, GREEN)) == (pattern, *lamps)


def test_a_counted_blink_is_counted(box: Box) -> None:
    box.start(light())
    box.say(state="not_ready", family=3)
    box.wait(3.06)  # three blinks and their pause are 3.05 s
    ups = box.history(RED).count(True)
    assert ups == 4, "three, and the first of the next round"


def test_a_word_that_does_not_change_does_not_disturb_the_rhythm(box: Box) -> None:
    box.start(light())
    box.say(state="at_risk")
    for _ in range(8):
        box.wait(0.25)
        box.say(state="at_risk", lock_in_s=100)
    assert box.history(RED) == [False, True, False, True]


# -- words -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "word",
    [
        {"mode": ["idle"]},
        {"mode": None},
        {"state": 5},
        {"state": None},
        {"family": []},
        {"family": "1"},
        {"family": True},
        {"family": 1.5},
        {"measuring": "no"},
        {"locate": 1},
        {"mic_live": "yes"},
        {"commissioned": None},
        {"lock_in_s": "5"},
        {"lock_in_s": True},
        {"lock_in_s": [1]},
    ],
    ids=str,
)
def test_a_word_of_another_type_is_not_heard_and_changes_nothing(
    box: Box, word: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    box.start(light(), light("door", "door", white=DOOR))
    for _ in range(4):
        box.wait(2.4)
        reading = box.ask("hands", "say", **{"mode": "in_session", "state": "ready", **word})
        assert reading is not None
        assert (reading.fault, reading.why) == (Fault.ERROR, "not_understood")
        box.desk.tick()
        assert (box.pattern(), box.level(DOOR)) == ("ready", False)
    assert caplog.text.count("cannot be understood") == 1, "said once, though asked every 4 s"
    box.wait(0.5)
    assert box.pattern() == "monitor_lost", "who cannot be understood is not there"
    box.say()
    assert box.pattern() == "ready"


def test_what_a_newer_agent_says_beyond_is_passed_over(box: Box) -> None:
    box.start(light())
    box.say("idle", "ready", moon="full", depth=[1, 2, {"a": None}])
    assert box.pattern() == "ready"


def test_a_state_that_is_not_known_here_is_shown_as_unknown(box: Box) -> None:
    box.start(light())
    box.say("idle", "splendid")
    assert box.pattern() == "unknown"


def test_in_a_mode_that_is_not_known_here_relays_stay(box: Box) -> None:
    from hands_stage import relay

    box.start(relay("lamp"), light("door", "door", white=DOOR))
    box.say("rehearsal", "ready")
    assert box.set("lamp", True).why == "session_lock"
    assert box.level(DOOR) is False
    box.say("idle")
    assert box.set("lamp", True).fault is None


def test_the_time_to_a_session_counts_from_when_it_was_said(box: Box) -> None:
    from hands_stage import relay

    box.start(relay("lamp"))
    box.say("preparing", lock_in_s=5)
    box.wait(4.9)
    assert box.set("lamp", True).fault is None
    box.wait(0.2)
    assert box.set("lamp", False).why == "session_lock"
    box.say("preparing", lock_in_s=0)
    assert box.set("lamp", False).why == "session_lock"
    box.say("idle", lock_in_s=None)
    assert box.set("lamp", False).fault is None


# -- lamps that are not there ----------------------------------------------------------------------


def test_a_lamp_that_comes_back_burns_again(box: Box) -> None:
    """A steady light has no next blink that would light it."""
    box.start(Light("door", "door", {"white": Place(board="usb", channel=3)}))
    box.say("in_session")
    assert box.board.on == {3: True}
    box.say("idle")
    box.board.unplug()
    box.say("in_session")  # the lamp is found to be gone when it is to be switched
    reading = box.ask("indicator", "read", light="door")
    assert reading is not None
    assert (reading.fault, reading.values["errno"]) == (Fault.ABSENT, errno.ENODEV)
    box.board.plugged = True
    assert box.pattern("door") == "door"
    box.desk.tick()
    assert box.board.on == {3: True}


def test_a_steady_lamp_that_lost_its_power_meanwhile_burns_again(box: Box) -> None:
    """Nothing was to be switched, and so nothing failed: it is seen when it is read."""
    box.start(Light("door", "door", {"white": Place(board="usb", channel=3)}))
    box.say("in_session")
    box.board.unplug()
    box.board.plugged = True
    box.wait(5)
    assert box.board.on == {}
    assert box.pattern("door") == "door"
    box.desk.tick()
    assert box.board.on == {3: True}
    sent = len(box.board.sent)
    assert box.pattern("door") == "door"
    box.desk.tick()
    assert len(box.board.sent) == sent, "what is as it should be is left alone"


def test_a_lamp_whose_board_was_unplugged_while_it_burnt_is_told(box: Box) -> None:
    box.start(Light("door", "door", {"white": Place(board="usb", channel=3)}))
    box.say("in_session")
    box.board.unplug()
    reading = box.ask("indicator", "read", light="door")
    assert reading is not None
    assert (reading.fault, reading.values["errno"]) == (Fault.ABSENT, errno.ENODEV)


def test_one_lamp_that_is_missing_costs_the_others_nothing(box: Box) -> None:
    box.start(light(), light("door", "door", white=DOOR), busy={GREEN})
    reading = box.ask("indicator", "read", light="status")
    assert reading is not None
    assert (reading.fault, reading.values["errno"]) == (Fault.ERROR, errno.EBUSY)
    assert box.level(RED) is True, "green cannot be made: the rhythm tells"
    box.say("in_session")
    assert box.level(DOOR) is True
    box.pins.busy.clear()
    box.say()
    assert box.pattern() == "ready"
    box.desk.tick()
    assert lit(box, RED, GREEN) == (False, True)


def test_an_unknown_light_is_none(box: Box) -> None:
    box.start(light())
    reading = box.ask("indicator", "read", light="moon")
    assert reading is not None
    assert (reading.fault, reading.why) == (Fault.SKIPPED, "unknown_light")


# -- a LED of the kernel ---------------------------------------------------------------------------


def led(box: Box, **files: str) -> Path:
    folder = box.folder / "sys/class/leds/ACT"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {
        "brightness": "0\n",
        "max_brightness": "255\n",
        "trigger": "none rc-feedback [mmc0] timer default-on\n",
        **files,
    }.items():
        (folder / name).write_text(text)
    return folder


def act(role: str = "status") -> Light:
    return Light("status", role, {"white": Place(led="ACT")})


def test_the_led_of_the_board_shows_the_rhythm_and_is_given_back(box: Box) -> None:
    folder = led(box)
    box.start(act())
    assert (folder / "trigger").read_text() == "none"
    assert (folder / "brightness").read_text() == "255"
    box.say(state="at_risk")
    box.wait(1.2)
    assert (folder / "brightness").read_text() == "0"
    box.desk.close()
    assert (folder / "brightness").read_text() == "0"
    assert (folder / "trigger").read_text() == "mmc0"


def test_a_led_that_is_not_there_is_told_and_taken_when_it_comes(box: Box) -> None:
    box.start(act())
    reading = box.ask("indicator", "read", light="status")
    assert reading is not None
    assert (reading.fault, reading.values["errno"]) == (Fault.ABSENT, errno.ENODEV)
    folder = led(box)
    assert box.pattern() == "ready"
    box.desk.tick()
    assert (folder / "brightness").read_text() == "255"


def test_lights_change_with_the_layout(box: Box) -> None:
    box.start(light())
    box.file = Layout(lights=(light("status", blue=6),))
    box.ask("hands", "reload")
    box.desk.tick()
    assert lit(box, RED, GREEN, 6) == (False, False, True)
