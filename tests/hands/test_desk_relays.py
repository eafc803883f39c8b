"""Rules of relays on real contacts: what is switched, read back and told, and what happens when a
contact does not obey."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from hands_stage import Box, layout, light, on_board, relay

from agent.model import Fault, Reading

PIN, OTHER = 26, 20


def told(box: Box, event: str) -> list[dict[str, Any]]:
    return [e for e in box.news() if e["event"] == event]


def test_a_wish_is_done_read_back_and_told_with_who_asked(box: Box) -> None:
    box.start(relay("lamp"))
    reading = box.set("lamp", True, by="op@central #3")
    assert reading.fault is None
    assert (reading.values["on"], reading.values["readback_on"]) == (True, True)
    (event,) = box.news()
    facts = {k: event[k] for k in ("event", "device", "on", "cause", "by", "at_s")}
    assert facts == {
        "event": "switched",
        "device": "lamp",
        "on": True,
        "cause": "command",
        "by": "op@central #3",
        "at_s": box.now_s,
    }


@pytest.mark.parametrize(
    ("by", "name"),
    [
        ("lan\nrelay fan off: command", "lan?relay fan off: command"),
        ("Nguyễn Văn A", "Nguy?n V?n A"),
        ("x" * 100, "x" * 64),
        ("\x1b[31m\x00", "?[31m?"),
        ("", None),
        (None, "None"),
        (["a"], "['a']"),
    ],
)
def test_who_asks_writes_neither_lines_into_the_log_nor_nonsense_on_the_line(
    box: Box, by: Any, name: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    box.start(relay("lamp"))
    caplog.set_level("INFO", "hands")
    assert box.set("lamp", True, by=by).fault is None
    assert told(box, "switched")[0].get("by") == name
    assert not any("\n" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    "args",
    [
        {},
        {"relay": "lamp"},
        {"relay": "lamp", "on": "true"},
        {"relay": "lamp", "on": 1},
        {"relay": "lamp", "on": None},
        {"relay": ["lamp"], "on": True},
        {"relay": {}, "on": True},
        {"relay": None, "on": True},
        {"relay": "lamp", "on": True, "glass": "false"},
        {"relay": "lamp", "on": True, "glass": 1},
    ],
    ids=str,
)
def test_a_wish_that_makes_no_sense_moves_nothing(box: Box, args: dict[str, Any]) -> None:
    box.start(relay("lamp"))
    reading = box.ask("relay", "set", **args)
    assert reading is not None
    assert (reading.fault, reading.why) == (Fault.ERROR, "not_understood")
    assert box.level(PIN) is False
    assert box.news() == []
    assert box.set("lamp", True).fault is None


@pytest.mark.parametrize(
    ("kind", "ask", "args"),
    [
        ("relay", "read", {}),
        ("relay", "read", {"relay": [1]}),
        ("relay", "shake", {"relay": "lamp"}),
        ("relay", "pulse", {}),
        ("indicator", "read", {}),
        ("indicator", "read", {"light": {"a": 1}}),
        ("indicator", "set", {"light": "status"}),
        ("button", "read", {"button": []}),
        ("hands", "fly", {}),
        ("camera", "look", {}),
        ("hands", "wait", {}),
        ("hands", "wait", {"after": "x", "within_s": 1}),
        ("hands", "wait", {"after": None, "within_s": 1}),
        ("hands", "wait", {"after": 1e308, "within_s": "soon"}),
        ("hands", "wait", {"after": 0, "within_s": None}),
        ("hands", "wait", {"after": 0, "within_s": []}),
    ],
    ids=str,
)
def test_an_odd_question_gets_an_answer_and_harms_nobody(
    box: Box, kind: str, ask: str, args: dict[str, Any]
) -> None:
    box.start(relay("lamp"), light())
    reading = box.ask(kind, ask, **args)
    assert reading is not None
    assert (reading.fault, reading.why) == (Fault.ERROR, "not_understood")
    assert box.set("lamp", True).fault is None


def test_a_number_without_end_is_no_number_of_an_event(box: Box) -> None:
    from agent.lanes import wire

    box.start(relay("lamp"))
    head = b'{"id":1,"kind":"hands","ask":"wait","deadline_s":5,'
    line = head + b'"settings":{"after":1e999,"within_s":1e999}}\n'
    reading = box.desk.answer(wire.decode_question(line))
    assert reading is not None
    assert reading.why == "not_understood"


def test_an_unknown_relay_is_refused(box: Box) -> None:
    box.start(relay("lamp"))
    for ask in ("read", "set", "pulse"):
        reading = box.ask("relay", ask, relay="fan", on=True)
        assert reading is not None
        assert (reading.fault, reading.why) == (Fault.SKIPPED, "unknown_relay")


# -- groups ----------------------------------------------------------------------------------------


def test_of_a_group_the_next_goes_on_after_the_pause(box: Box) -> None:
    box.start(relay("up", group="g", wait_s=0.5), relay("down", OTHER, group="g", wait_s=0.5))
    box.set("up", True)
    reading = box.set("down", True)
    assert reading.values["due_in_s"] == 0.5
    assert (box.level(PIN), box.level(OTHER)) == (False, False)
    box.wait(0.49)
    assert box.level(OTHER) is False
    box.wait(0.02)
    assert box.level(OTHER) is True
    assert box.switchings() == [
        ("up", True, "command"),
        ("up", False, "interlock"),
        ("down", True, "command"),
    ]


@pytest.mark.parametrize("wait_s", [0.0, 0.5])
def test_the_next_of_a_group_stays_off_when_the_other_does_not_let_go(
    box: Box, wait_s: float
) -> None:
    rules = {"group": "g", "wait_s": wait_s}
    box.start(on_board("up", 1, **rules), on_board("down", 2, **rules))
    box.set("up", True)
    box.news()
    box.board.stiff.add(1)
    reading = box.set("down", True)
    box.wait(2)
    assert box.board.on == {1: True}, "both on: a motor that is driven both ways"
    assert box.read("up").values["on"] is True
    if wait_s == 0:
        assert (reading.fault, reading.why) == (Fault.SKIPPED, "interlocked")
    events = [(e["event"], e["device"]) for e in box.news()]
    assert events == [("failed", "up"), ("dropped", "down")]
    box.board.stiff.clear()
    assert box.set("down", True).fault is None
    box.wait(2)
    assert box.board.on == {1: False, 2: True}


def test_a_promise_that_falls_due_with_the_next_question_is_told_like_any_other(box: Box) -> None:
    """The loop hears a question in the very moment in which something is due."""
    box.start(relay("up", group="g", wait_s=1), relay("down", OTHER, group="g", wait_s=1))
    box.set("up", True)
    box.set("down", True)
    box.say("in_session")
    box.now_s += 2
    box.set("up", False)
    assert [(e["device"], e["code"]) for e in told(box, "dropped")] == [("down", "session_lock")]


# -- contacts that do not obey ---------------------------------------------------------------------


def test_a_wish_that_could_not_be_done_is_over(box: Box) -> None:
    box.start(on_board("lamp"))
    box.board.plugged = False
    reading = box.set("lamp", True, by="lan")
    assert (reading.fault, reading.values["errno"]) == (Fault.ABSENT, errno.ENODEV)
    (event,) = box.news()
    assert (event["event"], event["on"], event["by"]) == ("failed", True, "lan")
    box.board.plugged = True
    box.wait(60)
    assert box.read("lamp").values["on"] is False, "nobody is surprised minutes later"
    assert box.set("lamp", True).fault is None


def test_a_board_that_is_back_serves_the_next_wish_at_once(box: Box) -> None:
    box.start(on_board("lamp"))
    box.board.plugged = False
    box.read("lamp")
    box.board.plugged = True
    assert box.set("lamp", True).fault is None
    assert box.board.on[1] is True


def test_the_end_of_a_pulse_that_fails_is_tried_until_it_is_done(box: Box) -> None:
    box.start(on_board("router", pulse_s=5))
    box.set("router", True)
    box.ask("relay", "pulse", relay="router", by="lan")
    box.news()
    box.board.plugged = False
    box.wait(40)
    assert [(e["event"], e["on"], e["by"]) for e in box.news()] == [("failed", True, "lan")]
    box.say("in_session")
    box.board.plugged = True
    box.wait(11)
    assert box.board.on[1] is True, "it is the end of a pulse that began before"
    assert [(e["event"], e["cause"], e["by"]) for e in box.news()] == [
        ("switched", "pulse_end", "lan")
    ]
    assert box.read("router").values["budget_left"] == 60 - 3, "tries that moved nothing are free"


def test_max_on_is_enforced_as_soon_as_the_board_obeys_again(box: Box) -> None:
    box.start(on_board("heater", max_on_s=60))
    box.set("heater", True)
    box.board.stiff.add(1)
    box.wait(200)
    assert box.read("heater").values["on"] is True, "what it is, not what it should be"
    box.board.stiff.clear()
    box.wait(11)
    assert box.board.on[1] is False
    assert [e["event"] for e in box.news()] == ["switched", "failed", "switched"]


def test_what_a_rule_is_about_to_switch_off_is_not_switched_on_before(box: Box) -> None:
    box.start(on_board("heater", max_on_s=60))
    box.set("heater", True)
    box.board.unplug()
    box.wait(65)
    box.board.plugged = True
    sent = list(box.board.sent)
    assert box.read("heater").fault is Fault.ABSENT
    box.wait(10)
    assert (1, True) not in box.board.sent[len(sent) :]
    assert box.read("heater").values["on"] is False


def test_a_rule_that_fails_another_time_is_told_another_time(box: Box) -> None:
    box.start(on_board("heater", max_on_s=60))
    for _ in range(2):
        box.board.stiff.clear()
        box.set("heater", True)
        box.board.stiff.add(1)
        box.wait(75)
        box.board.stiff.clear()
        box.wait(10)
    assert [e["event"] for e in box.news()] == ["switched", "failed", "switched"] * 2


def test_an_off_that_failed_does_not_make_it_stay_on_longer(box: Box) -> None:
    box.start(on_board("heater", max_on_s=60))
    box.set("heater", True)
    box.wait(55)
    box.board.stiff.add(1)
    assert box.set("heater", False).fault is not None
    box.board.stiff.clear()
    box.wait(6)
    assert box.board.on[1] is False


def test_in_session_a_board_that_was_away_is_left_as_it_is_found(box: Box) -> None:
    box.start(on_board("camera"))
    box.set("camera", True)
    box.news()
    box.say("in_session")
    box.board.unplug()
    assert box.read("camera").fault is Fault.ABSENT
    box.board.plugged = True
    sent = len(box.board.sent)
    reading = box.read("camera")
    assert (reading.fault, reading.values["on"]) == (None, False)
    assert len(box.board.sent) == sent
    assert box.switchings() == [("camera", False, "found")]
    box.say("idle")
    assert box.read("camera").values["on"] is False


def test_between_sessions_a_board_that_was_away_becomes_what_it_was_and_it_is_told(
    box: Box,
) -> None:
    box.start(on_board("camera"))
    box.set("camera", True)
    box.news()
    box.board.unplug()
    box.read("camera")
    box.board.plugged = True
    assert box.read("camera").values["on"] is True
    assert box.switchings() == [("camera", True, "restore")]


def test_shortly_before_a_session_that_is_known_it_is_session_too(box: Box) -> None:
    """The agent died, and the hearing begins by the clock."""
    box.start(on_board("camera"))
    box.set("camera", True)
    box.say("preparing", lock_in_s=30)
    box.board.unplug()
    box.read("camera")
    box.wait(31)
    box.board.plugged = True
    assert box.read("camera").values["on"] is False
    assert box.set("camera", True).why == "session_lock"


def test_a_board_that_tells_nothing_is_believed(box: Box) -> None:
    box.board.reads_back = False
    box.start(on_board("lamp"))
    assert "readback_on" not in box.set("lamp", True).values
    assert box.read("lamp").values["on"] is True


# -- feedback --------------------------------------------------------------------------------------


def test_a_contact_that_says_otherwise_is_seen(box: Box) -> None:
    box.start(relay("lamp", feedback_pin=21))
    box.let_go(21)
    assert "feedback_on" not in box.set("lamp", True).values, "it is still moving"
    box.wait(0.11)
    assert box.read("lamp").values["feedback_on"] is False
    box.press(21)  # the contact pulls its pin to ground while the relay is on
    assert box.read("lamp").values["feedback_on"] is True
    box.set("lamp", False)
    box.wait(0.11)
    assert box.read("lamp").values["feedback_on"] is True, "welded"


def test_a_contact_may_pull_to_3v3_as_well(box: Box) -> None:
    box.start(relay("lamp", feedback_pin=21, feedback_active_low=False))
    assert box.read("lamp").values["feedback_on"] is False
    box.let_go(21)  # drives it high
    assert box.read("lamp").values["feedback_on"] is True


def test_trouble_with_the_feedback_costs_no_relay(box: Box) -> None:
    box.start(relay("lamp", feedback_pin=21, power_on="on"), busy={21})
    assert box.history(PIN) == [False, True]
    box.wait(1)
    reading = box.read("lamp")
    assert reading.fault is None
    assert reading.values["feedback_errno"] == errno.EBUSY
    assert box.set("lamp", False).fault is None
    assert box.set("lamp", True).fault is None
    box.pins.busy.clear()
    box.wait(1)
    assert box.read("lamp").values["feedback_on"] is False
    assert box.history(PIN) == [False, True, False, True], "it was never let go"


# -- another layout --------------------------------------------------------------------------------


def reload(box: Box, *nouns: Any) -> Reading:
    box.file = layout(*nouns)
    reading = box.ask("hands", "reload")
    assert reading is not None
    return reading


def test_a_contact_stays_untouched_whatever_else_changes(box: Box) -> None:
    box.start(relay("lamp"), relay("fan", OTHER, on_stop="safe"))
    box.set("lamp", True)
    box.set("fan", True)
    box.news()
    reload(box, relay("fan", OTHER, on_stop="safe", max_per_h=3), relay("lamp"), light())
    assert box.history(PIN) == [False, True]
    assert box.history(OTHER) == [False, True]
    assert box.news() == []
    about = box.ask("hands", "about")
    assert about is not None
    assert (about.values["relays"], about.identity["layout"]) == (2, box.file.digest)  # type: ignore[union-attr]
    assert box.read("lamp").values["on"] is True
    assert box.set("lamp", False).fault is None


def test_a_relay_that_gets_another_name_does_not_drop(box: Box) -> None:
    box.start(relay("lamp"), relay("fan", OTHER))
    box.set("lamp", True)
    box.news()
    reload(box, relay("bench-lamp"), relay("lamp", OTHER))
    assert (box.history(PIN), box.history(OTHER)) == ([False, True], [False])
    assert box.read("bench-lamp").values["on"] is True
    assert box.read("lamp").values["on"] is False
    assert box.news() == []


def test_a_relay_that_leaves_goes_as_its_on_stop_says_and_it_is_told(box: Box) -> None:
    box.start(relay("heater", on_stop="safe"), relay("fan", OTHER))
    box.set("heater", True)
    box.news()
    reload(box, relay("fan", OTHER))
    assert box.switchings() == [("heater", False, "stop")]
    assert box.read("heater").why == "unknown_relay"
    reload(box, relay("heater", on_stop="safe"), relay("fan", OTHER))
    assert box.read("heater").values["on"] is False
    assert box.set("heater", True).fault is None


def test_two_that_become_one_group_are_not_both_left_on(box: Box) -> None:
    box.start(relay("up"), relay("down", OTHER))
    box.set("up", True)
    box.set("down", True)
    box.news()
    reload(box, relay("up", group="g"), relay("down", OTHER, group="g"))
    assert [box.level(PIN), box.level(OTHER)].count(True) == 1
    ((name, on, cause),) = box.switchings()
    assert (on, cause) == (False, "restore")
    assert box.read(name).values["on"] is False


def test_a_pulse_goes_on_through_a_new_layout(box: Box) -> None:
    box.start(relay("router", pulse_s=10))
    box.ask("relay", "pulse", relay="router")
    box.wait(5)
    reload(box, relay("router", pulse_s=10), light())
    assert box.level(PIN) is True
    box.wait(5.1)
    assert box.level(PIN) is False


def test_in_session_no_layout_is_taken(box: Box) -> None:
    box.start(relay("lamp"))
    box.say("in_session")
    reading = reload(box, relay("fan"))
    assert (reading.fault, reading.why) == (Fault.SKIPPED, "in_session")
    box.say("idle", lock_in_s=5)
    box.now_s += 6
    assert reload(box, relay("fan")).why == "in_session"
    box.say("idle")
    assert reload(box, relay("fan")).fault is None
    assert box.read("fan").fault is None


def test_a_session_that_is_near_stays_near_through_a_new_layout(box: Box) -> None:
    box.start(relay("lamp"))
    box.say("preparing", lock_in_s=5)
    reload(box, relay("lamp"), light())
    assert box.set("lamp", True).fault is None, "and it is not locked before"
    box.wait(6)
    assert box.set("lamp", False).why == "session_lock"


def test_a_session_that_begins_while_the_file_is_read_keeps_the_old_layout(box: Box) -> None:
    box.start(relay("lamp"))
    later: list[Any] = []
    box.desk._reload = later.append
    assert reload(box, relay("fan")).fault is None
    box.say("in_session")
    later[0](box.file)
    assert box.read("lamp").fault is None
    box.say("idle")
    later[0](box.file)
    assert box.read("fan").fault is None


def test_a_file_that_cannot_be_read_changes_nothing(box: Box) -> None:
    box.start(relay("lamp"))
    box.set("lamp", True)
    box.file = None
    box.ask("hands", "reload")
    assert box.read("lamp").values["on"] is True
    assert box.history(PIN) == [False, True]


def test_a_new_layout_survives_a_crash_after_it(box: Box) -> None:
    box.start(relay("lamp"))
    box.set("lamp", True)
    reload(box, relay("bench-lamp"))
    box.start(relay("bench-lamp"), idle=False)
    assert box.level(PIN) is True


def test_a_board_whose_driver_learns_something_keeps_its_relay(box: Box) -> None:
    from agent.hands.layout import Place, Relay

    box.start(on_board("lamp"))
    box.set("lamp", True)
    box.news()
    sent = list(box.board.sent)
    reload(box, Relay("lamp", Place(board="usb", channel=1, spec={"bus": "hid"})))
    assert box.board.sent == sent
    assert box.read("lamp").values["on"] is True
    assert box.news() == []
