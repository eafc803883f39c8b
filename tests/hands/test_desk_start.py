"""How relays come up: at no moment in a state that nobody chose, and as they were or as their rules
say, whatever happened before."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hands_stage import Box, light, on_board, relay

from agent.hands.keeper import NAME
from agent.model import Fault

# GPIO 2 and 3 have a pull-up of their own: high before anybody asks for them.
HIGH, LOW = 2, 26


def document(box: Box) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((box.folder / NAME).read_text())
    return found


@pytest.mark.parametrize("power_on", ["off", "last"])
def test_a_relay_that_pulls_at_low_is_never_driven_low_at_the_start(
    box: Box, power_on: str
) -> None:
    box.start(relay("lamp", HIGH, low=True, power_on=power_on))
    assert box.history(HIGH) == [True]
    assert box.read("lamp").values["readback_on"] is False
    box.set("lamp", True)
    assert box.history(HIGH) == [True, False], "and the test would see it"


def test_a_relay_that_pulls_at_high_is_never_driven_high_at_the_start(box: Box) -> None:
    box.start(relay("lamp", LOW))
    assert box.history(LOW) == [False]
    box.set("lamp", True)
    assert box.history(LOW) == [False, True]


@pytest.mark.parametrize(("pin", "low"), [(HIGH, True), (LOW, False)])
def test_a_relay_that_is_to_be_on_goes_on_once(box: Box, pin: int, low: bool) -> None:
    box.start(relay("lamp", pin, low=low, power_on="on"))
    assert box.history(pin) == [low, not low]
    assert box.switchings() == [("lamp", True, "power_on")]


def test_a_lamp_that_burns_at_low_does_not_flash_at_the_start(box: Box) -> None:
    box.start(light("door", "door", white=LOW))
    assert box.history(LOW) == [False]


def test_a_killed_hands_comes_back_with_its_relays_as_they_were(box: Box) -> None:
    relays = (relay("lamp", HIGH, low=True), relay("fan", 20))
    box.start(*relays)
    box.set("lamp", True)
    box.news()
    box.now_s += 3
    box.start(*relays, idle=False)
    assert box.history(HIGH) == [True, False]
    assert box.history(20) == [False]
    assert box.read("lamp").values["on"] is True
    # It was driven again, and nobody can tell whether it had fallen meanwhile: an act.
    assert box.switchings() == [("lamp", True, "restore")]


@pytest.mark.parametrize(
    ("power_on", "was", "after"),
    [
        ("off", True, False),
        ("on", False, True),
        ("last", True, True),
        ("last", False, False),
    ],
)
def test_after_a_power_cut_the_rule_of_each_relay_counts(
    box: Box, power_on: str, was: bool, after: bool
) -> None:
    lamp = relay("lamp", power_on=power_on)
    box.start(lamp)
    box.set("lamp", was)
    box.news()
    box.reboot()
    box.start(lamp, idle=False)
    assert box.level(LOW) is after
    assert box.switchings() == ([("lamp", True, "power_on")] if after else [])


def test_a_power_cut_in_the_midst_of_a_pulse_leaves_the_state_before_it(box: Box) -> None:
    router = relay("router", power_on="last", pulse_s=10)
    box.start(router)
    box.set("router", True)
    box.ask("relay", "pulse", relay="router")
    assert box.level(LOW) is False
    box.reboot()
    box.start(router)
    assert box.level(LOW) is True, "else it would be dark for ever"


def test_a_pulse_goes_on_where_a_crash_has_left_it(box: Box) -> None:
    router = relay("router", pulse_s=10)
    box.start(router)
    box.ask("relay", "pulse", relay="router", by="lan")
    box.wait(4)
    box.start(router, idle=False)
    assert box.level(LOW) is True
    box.wait(5.9)
    assert box.level(LOW) is True
    box.wait(0.2)
    assert box.level(LOW) is False
    assert [(e["on"], e["cause"], e.get("by")) for e in box.news()] == [
        (True, "pulse", "lan"),
        (True, "restore", None),
        (False, "pulse_end", "lan"),
    ]


def test_what_has_to_be_safe_is_safe_after_a_stop_and_stays_so(box: Box) -> None:
    relays = (relay("heater", on_stop="safe"), relay("camera", 20))
    box.start(*relays)
    box.set("heater", True)
    box.set("camera", True)
    box.news()
    box.desk.stop(box.now_s)
    box.desk.close()
    assert (box.level(LOW), box.level(20)) == (False, True)
    box.start(*relays, idle=False)
    assert (box.level(LOW), box.level(20)) == (False, True)
    # The stop was an act as well, and nobody was there to hear of it.
    assert box.switchings() == [("heater", False, "stop"), ("camera", True, "restore")]


def test_of_a_group_one_comes_up_though_two_were_saved(box: Box) -> None:
    up, down = relay("up", group="blind"), relay("down", 20, group="blind")
    box.start(relay("up"), relay("down", 20))
    box.set("up", True)
    box.set("down", True)
    box.start(up, down)
    assert [box.level(LOW), box.level(20)].count(True) == 1


# -- boards ----------------------------------------------------------------------------------------


def test_a_board_is_asked_before_it_is_told(box: Box) -> None:
    box.board.on[1] = True
    box.start(on_board("lamp", power_on="on"))
    assert box.board.sent == []
    assert box.news() == [], "nothing has moved"
    box.start(on_board("lamp"), idle=False)
    assert box.board.sent == []


def test_a_board_that_was_moved_meanwhile_stays_as_it_is_found(box: Box) -> None:
    box.start(on_board("lamp"))
    box.set("lamp", True)
    box.news()
    box.board.on[1] = False
    sent = list(box.board.sent)
    box.start(on_board("lamp"), idle=False)
    assert box.board.sent == sent, "in the midst of a hearing it would be a power cycle"
    assert box.read("lamp").values["on"] is False
    assert box.switchings() == [("lamp", False, "found")]


def test_of_a_group_on_a_board_that_kept_its_power_the_others_go_off_first(box: Box) -> None:
    relays = (on_board("up", 1, group="g", power_on="on"), on_board("down", 2, group="g"))
    box.reboot()
    box.board.on[2] = True
    box.start(*relays, idle=False)
    assert box.board.sent == [(2, False), (1, True)]
    assert box.switchings() == [("down", False, "power_on"), ("up", True, "power_on")]


def test_a_board_that_comes_up_late_gets_its_first_state_and_both_are_told(box: Box) -> None:
    box.board.unplug()
    box.reboot()
    box.start(on_board("lamp", power_on="on"), idle=False)
    assert box.read("lamp").fault is Fault.ABSENT
    (failed,) = box.news()
    assert (failed["event"], failed["on"], failed["errno"]) == ("failed", True, errno.ENODEV)
    box.wait(45)
    assert box.news() == [], "once, not with every try"
    box.board.plugged = True
    box.wait(10)
    assert box.board.on == {1: True}
    assert box.switchings() == [("lamp", True, "power_on")]
    assert box.read("lamp").fault is None


def test_a_board_that_comes_in_mid_session_does_not_get_its_first_state_any_more(box: Box) -> None:
    box.board.unplug()
    box.reboot()
    box.start(on_board("lamp", power_on="on"), idle=False)
    box.say("in_session")
    box.wait(200)
    box.news()
    box.board.plugged = True
    box.wait(30)
    box.read("lamp")
    assert box.board.sent == []
    box.say("idle")
    box.wait(30)
    assert box.board.sent == [], "what was not done then is not done by surprise"


def test_a_board_that_cannot_be_reached_at_the_start_is_not_said_to_be_switched(box: Box) -> None:
    box.start(on_board("lamp"), relay("fan"))
    box.set("lamp", True)
    box.news()
    box.board.plugged = False
    box.start(on_board("lamp"), relay("fan"), idle=False)
    assert box.news() == []
    assert box.read("lamp").fault is Fault.ABSENT
    assert box.read("fan").fault is None, "the rest goes on"
    box.board.plugged = True
    assert box.read("lamp").values["readback_on"] is True


# -- pins that cannot be had -----------------------------------------------------------------------


def test_a_pin_that_another_program_holds_is_told_and_had_when_it_is_free(box: Box) -> None:
    box.start(relay("lamp", power_on="on"), relay("fan", 20), busy={LOW})
    reading = box.read("lamp")
    assert (reading.fault, reading.values["errno"]) == (Fault.ERROR, errno.EBUSY)
    assert box.read("fan").fault is None
    box.pins.busy.clear()
    box.wait(11)
    assert box.level(LOW) is True
    assert box.read("lamp").fault is None
    assert [e["event"] for e in box.news()] == ["failed", "switched"]


def test_a_box_without_pins_says_so_of_each_and_serves_its_board(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hands_stage.Pins", _Bare)
    box.start(relay("lamp"), on_board("fan"), light())
    assert box.read("lamp").fault is Fault.ABSENT
    assert box.set("lamp", True).fault is Fault.ABSENT
    assert box.set("fan", True).fault is None
    assert box.ask("indicator", "read", light="status").fault is Fault.ABSENT  # type: ignore[union-attr]
    about = box.ask("hands", "about")
    assert about is not None
    assert about.identity["pins"] == "none"


def _Bare(root: Path) -> Any:
    from agent.hands.hardware import Hardware

    hardware: Any = Hardware(watch=lambda fd, callback: None, root=root, environ={})
    hardware.busy = set()
    return hardware


# -- the file --------------------------------------------------------------------------------------


GOOD = {"on": True, "changed_s": 10.0, "switched": [10.0], "back": None}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"5",
        b"\xff\xfe",
        b'{"version":1}',
        b"[" * 100_000,
        b'{"version":9,"boot":"5f0c12ab","relays":{},"mode":"","layout":""}',
    ],
)
def test_a_file_that_is_none_means_a_start_as_after_a_power_cut(box: Box, text: bytes) -> None:
    (box.folder / NAME).write_bytes(text)
    box.start(relay("lamp", power_on="on"), relay("fan", 20, power_on="last"))
    assert (box.level(LOW), box.level(20)) == (True, False)
    assert document(box)["relays"]["lamp"]["on"] is True, "and a good one is written"


@pytest.mark.parametrize(
    "changes",
    [
        {"relays": []},
        {"relays": {"lamp": 5}},
        {"relays": {"lamp": {**GOOD, "on": "yes"}}},
        {"relays": {"lamp": {**GOOD, "on": 1}}},
        {"relays": {"lamp": {**GOOD, "changed_s": "x"}}},
        {"relays": {"lamp": {**GOOD, "changed_s": [1]}}},
        {"relays": {"lamp": {**GOOD, "switched": 5}}},
        {"relays": {"lamp": {**GOOD, "switched": ["x"]}}},
        {"relays": {"lamp": {**GOOD, "switched": [None]}}},
        {"relays": {"lamp": {**GOOD, "switched": [1e300]}}},
        {"relays": {"lamp": {**GOOD, "back": True}}},
        {"relays": {"lamp": {**GOOD, "back": {"on": 1, "at_s": 2, "by": ""}}}},
        {"relays": {"lamp": {**GOOD, "back": {"on": True}}}},
        {"mode": ["in_session"]},
        {"layout": 5},
        {"boot": None},
        {"number": "7"},
        {"number": True},
        {"lost": None},
        {"events": 5},
        {"usb": 5},
        {"usb": ["x"]},
        {"usb": [True]},
        {"usb": [1e300]},
        {"events": [{}]},
        {"events": [{"number": 1, "at_s": 1.0, "values": {"a": [1]}, "names": {}}]},
        {"events": [{"number": 1, "at_s": "x", "values": {}, "names": {}}]},
        {"events": [{"number": 1, "at_s": 1.0, "values": {}, "names": {}, "more": 1}]},
        {"events": [{"number": 1, "at_s": 1.0, "values": {"a": "x" * 5000}, "names": {}}]},
    ],
    ids=str,
)
def test_wrong_types_inside_are_no_file_either(box: Box, changes: dict[str, Any]) -> None:
    box.start(relay("lamp"))
    box.set("lamp", True)
    good = document(box)
    (box.folder / NAME).write_text(json.dumps({**good, **changes}))
    box.start(relay("lamp"), idle=False)
    assert box.level(LOW) is False
    (box.folder / NAME).write_text(json.dumps(good))
    box.start(relay("lamp"), idle=False)
    assert box.level(LOW) is True, "the same file without the change is taken"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "-Infinity"])
@pytest.mark.parametrize("key", ["changed_s", "switched", "at_s"])
def test_a_time_without_end_is_no_time(box: Box, key: str, number: str) -> None:
    box.start(relay("lamp", pulse_s=5))
    box.ask("relay", "pulse", relay="lamp")
    saved = document(box)["relays"]["lamp"]
    fresh = {
        "changed_s": {**saved, "changed_s": "?"},
        "switched": {**saved, "switched": ["?"]},
        "at_s": {**saved, "back": {**saved["back"], "at_s": "?"}},
    }[key]
    text = json.dumps({**document(box), "relays": {"lamp": fresh}}).replace('"?"', number)
    (box.folder / NAME).write_text(text)
    box.start(relay("lamp", pulse_s=5))
    box.wait(20)
    assert box.level(LOW) is False
    assert box.set("lamp", True).fault is None, "and nothing is held back for ever"


def test_times_beyond_now_do_not_hold_a_relay_for_ever(box: Box) -> None:
    lamp = relay("lamp", pulse_s=5, min_off_s=2, max_on_s=30)
    box.start(lamp)
    box.ask("relay", "pulse", relay="lamp")
    raw = document(box)
    raw["relays"]["lamp"] |= {"changed_s": 9e9, "switched": [9e9] * 60}
    raw["relays"]["lamp"]["back"]["at_s"] = 9e9
    (box.folder / NAME).write_text(json.dumps(raw))
    box.start(lamp)
    box.wait(6)
    assert box.level(LOW) is False
    box.wait(3_600)
    assert box.set("lamp", True).fault is None


def test_what_a_newer_hands_kept_beyond_it_is_passed_over(box: Box) -> None:
    box.start(relay("lamp"))
    box.set("lamp", True)
    (box.folder / NAME).write_text(json.dumps({**document(box), "surplus": [1]}))
    box.start(relay("lamp"), idle=False)
    assert box.level(LOW) is True


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_disk_that_takes_nothing_costs_the_memory_and_nothing_else(
    box: Box, monkeypatch: pytest.MonkeyPatch, number: int, caplog: pytest.LogCaptureFixture
) -> None:
    tries: list[float] = []

    def refuse(fd: int) -> None:
        tries.append(box.now_s)
        raise OSError(number, os.strerror(number))

    box.start(relay("lamp"), light())
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        assert box.set("lamp", True).fault is None
        about = box.ask("hands", "about")
        assert about is not None
        assert about.values["state_errno"] == number
        box.say(state="unknown")  # a light that blinks
        box.wait(100)
        assert document(box)["relays"]["lamp"]["on"] is False, "the old file is whole"
        assert len(tries) <= 6, "a card that is ill is not asked at every blink"
        assert caplog.text.count("cannot be written") == 1
    box.wait(31)
    about = box.ask("hands", "about")
    assert about is not None
    assert "state_errno" not in about.values, "tried again by itself"
    assert document(box)["relays"]["lamp"]["on"] is True


def test_a_folder_that_is_gone_costs_the_memory_and_nothing_else(box: Box) -> None:
    box.start(relay("lamp"))
    (box.folder / NAME).unlink()
    box.folder.rename(box.folder.with_name("away"))
    assert box.set("lamp", True).fault is None
    about = box.ask("hands", "about")
    assert about is not None
    assert about.values["state_errno"] == errno.ENOENT
    box.folder.with_name("away").rename(box.folder)
    box.wait(31)
    assert document(box)["relays"]["lamp"]["on"] is True


def test_a_disk_that_hangs_freezes_no_light_and_no_relay(box: Box) -> None:
    fresh = box.folder / f".{NAME}.new"
    box.wait_s = 0.05
    box.start(relay("lamp", max_on_s=5), light())
    os.mkfifo(fresh)  # an open that does not return
    assert box.set("lamp", True).fault is None
    about = box.ask("hands", "about")
    assert about is not None
    assert about.values["state_errno"] == errno.ETIMEDOUT
    box.wait(11)
    assert box.level(LOW) is False, "max_on_s"
    assert box.pattern() == "monitor_lost"
    # The disk is back: the newest state is what is written.
    with fresh.open("rb") as reader:
        reader.read()
    fresh.unlink(missing_ok=True)
    box.wait(31)
    _until(lambda: document(box)["relays"]["lamp"]["on"] is False)


def _until(holds: Any) -> None:
    import time

    for _ in range(500):
        try:
            if holds():
                return
        except (OSError, ValueError):
            pass
        time.sleep(0.01)
    raise AssertionError("not within 5 s")


def test_the_same_state_is_not_written_twice(box: Box) -> None:
    box.start(relay("lamp"))
    before = (box.folder / NAME).stat().st_ino
    for _ in range(5):
        box.set("lamp", False)
        box.say("idle")
        box.wait(1)
    assert (box.folder / NAME).stat().st_ino == before
    box.set("lamp", True)
    assert (box.folder / NAME).stat().st_ino != before


def test_boot_state_comes_from_the_file_and_from_nobody_else(box: Box) -> None:
    """Whatever is said before the agent speaks for the first time, relays stay."""
    box.start(relay("lamp"), idle=False)
    assert box.set("lamp", True).why == "session_lock"
    box.say("preparing", lock_in_s=600)
    assert box.set("lamp", True).fault is None
