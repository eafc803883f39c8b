"""The rules of relays, one by one, as a person would try them."""

from __future__ import annotations

import math

import pytest

from agent.hands.engine import Act, Answer, Dropped, Engine
from agent.hands.layout import Relay


def engine(*relays: Relay) -> Engine:
    made = Engine(relays)
    made.locked = False
    return made


def test_a_relay_goes_on_and_off_and_says_who_asked() -> None:
    relays = engine(Relay("lamp"))
    assert relays.set("lamp", True, 10, by="lan").acts == (Act("lamp", True, "command", "lan"),)
    assert relays.on("lamp")
    assert relays.set("lamp", True, 11).acts == (), "it is on already"
    assert relays.set("lamp", False, 12).acts == (Act("lamp", False, "command"),)
    assert relays.due_s() == math.inf


def test_an_unknown_relay_is_refused() -> None:
    assert engine().set("x", True, 0) == Answer("unknown_relay")
    assert engine().pulse("x", 0) == Answer("unknown_relay")


def test_of_a_group_the_others_go_off_first_and_the_wait_is_kept() -> None:
    relays = engine(Relay("a", group="g", wait_s=0.5), Relay("b", group="g", wait_s=2))
    relays.set("a", True, 10)
    answer = relays.set("b", True, 20, by="lan")
    assert answer == Answer("pending", (Act("a", False, "interlock", "lan"),), 22)
    assert relays.facts("b", 20)["wanted_on"] is True
    assert relays.tick(21.9) == []
    assert relays.tick(22) == [Act("b", True, "command", "lan")]


def test_the_wait_counts_from_when_the_other_went_off() -> None:
    relays = engine(Relay("a", group="g"), Relay("b", group="g", wait_s=2))
    relays.set("a", True, 10)
    relays.set("a", False, 20)
    assert relays.set("b", True, 21).due_s == 22
    relays.set("b", False, 21.5)
    assert relays.set("b", True, 30).code == "ok"


def test_off_cancels_an_on_that_waits() -> None:
    relays = engine(Relay("a", group="g"), Relay("b", group="g", wait_s=2))
    relays.set("a", True, 10)
    relays.set("b", True, 20)
    assert relays.set("b", False, 21) == Answer("ok")
    assert relays.tick(30) == []
    assert not relays.on("b")


def test_a_new_wish_in_the_group_takes_the_place_of_the_one_that_waits() -> None:
    relays = engine(*(Relay(n, group="g", wait_s=2) for n in "abc"))
    relays.set("a", True, 10)
    relays.set("b", True, 20)
    assert relays.set("c", True, 21).due_s == 22
    assert relays.tick(30) == [Act("c", True, "command")]


def test_a_relay_that_may_not_go_off_yet_holds_the_group() -> None:
    relays = engine(Relay("a", group="g", min_on_s=60), Relay("b", group="g"))
    relays.set("a", True, 10)
    assert relays.set("b", True, 20).code == "interlocked"
    assert relays.pulse("b", 20).code == "interlocked"
    assert relays.on("a")
    assert relays.set("b", True, 70).code == "pending"


def test_what_waits_is_judged_again_when_its_time_comes() -> None:
    relays = engine(Relay("a", group="g"), Relay("b", group="g", wait_s=5))
    relays.set("a", True, 10)
    relays.set("b", True, 20, by="lan")
    relays.locked = True
    assert relays.tick(25) == [Dropped("b", "session_lock", "lan")]
    assert not relays.on("b")


def test_shortest_times_are_kept() -> None:
    relays = engine(Relay("r", min_on_s=10, min_off_s=20))
    relays.set("r", True, 0)
    assert relays.set("r", False, 9).code == "too_soon"
    assert relays.set("r", False, 10).code == "ok"
    assert relays.set("r", True, 29).code == "too_soon"
    assert relays.set("r", True, 30).code == "ok"


def test_the_budget_holds_back_on_but_never_off() -> None:
    relays = engine(Relay("r", max_per_h=3))
    for at, on in enumerate((True, False, True)):
        assert relays.set("r", on, at).code == "ok"
    assert relays.facts("r", 3)["budget_left"] == 0
    assert relays.set("r", False, 3).code == "ok", "off is the safe way"
    assert relays.set("r", True, 4).code == "over_budget"
    assert relays.set("r", True, 3_600.5).code == "over_budget", "three of the last hour"
    assert relays.set("r", True, 3_601).code == "ok"


def test_a_pulse_comes_back_by_itself() -> None:
    relays = engine(Relay("r", pulse_s=2))
    answer = relays.pulse("r", 10, by="lan")
    assert answer == Answer("ok", (Act("r", True, "pulse", "lan"),), 12)
    assert relays.tick(12) == [Act("r", False, "pulse_end", "lan")]
    relays.set("r", True, 20)
    relays.pulse("r", 30)
    assert not relays.on("r")
    assert relays.pulse("r", 31).due_s == 33, "prolonged"
    assert relays.tick(32) == []
    assert relays.tick(33) == [Act("r", True, "pulse_end")]


def test_a_wish_ends_a_pulse() -> None:
    relays = engine(Relay("r", pulse_s=2))
    relays.pulse("r", 10)
    assert relays.set("r", True, 11) == Answer("ok")
    assert relays.tick(20) == []
    assert relays.on("r")


def test_a_pulse_that_could_not_come_back_is_not_begun() -> None:
    relays = engine(Relay("r", pulse_s=2, min_off_s=5), Relay("s", pulse_s=2, max_per_h=2))
    relays.set("r", True, 0)
    assert relays.pulse("r", 10).code == "too_soon"
    relays.set("s", True, 0)
    assert relays.pulse("s", 10).code == "over_budget"
    assert relays.on("s")


def test_nothing_stays_on_too_long_not_even_in_session() -> None:
    relays = engine(Relay("heater", max_on_s=60))
    relays.set("heater", True, 0)
    relays.locked = True
    assert relays.due_s() == 60
    assert relays.tick(61) == [Act("heater", False, "max_on")]


@pytest.mark.parametrize("glass", [False, True])
def test_in_session_nothing_moves_unless_the_glass_is_broken(glass: bool) -> None:
    relays = engine(Relay("r"), Relay("free", session_lock=False))
    relays.set("r", True, 0)
    relays.locked = True
    assert relays.facts("r", 5)["locked"] is True
    for answer in (relays.set("r", False, 5, glass=glass), relays.pulse("r", 6, glass=glass)):
        assert answer.code == ("ok" if glass else "session_lock")
    assert relays.set("free", True, 7).code == "ok"
    relays.locked = False
    relays.tick(100)
    assert relays.set("r", True, 200).code == "ok"


def test_nothing_begins_that_would_reach_into_a_session() -> None:
    relays = engine(Relay("r", pulse_s=10), Relay("a", group="g"), Relay("b", group="g", wait_s=10))
    relays.set("a", True, 0)
    relays.lock_at_s = 100
    assert relays.pulse("r", 95).code == "session_lock"
    assert relays.set("b", True, 95).code == "session_lock"
    assert relays.on("a"), "nothing was switched for it"
    assert relays.set("r", True, 99).code == "ok"
    assert relays.set("r", False, 100).code == "session_lock", "also when nobody says so any more"


def test_a_pulse_that_began_before_a_session_ends_in_it() -> None:
    relays = engine(Relay("cam", pulse_s=5))
    relays.set("cam", True, 0)
    relays.pulse("cam", 10)
    relays.locked = True
    assert relays.set("cam", False, 11).code == "session_lock", "the camera must come back"
    assert relays.tick(15) == [Act("cam", True, "pulse_end")]


def test_before_anybody_has_said_otherwise_nothing_moves() -> None:
    assert Engine([Relay("r")]).set("r", True, 0).code == "session_lock"


def test_after_a_power_cut_each_relay_is_as_its_rule_says() -> None:
    rules = [
        Relay("off"),
        Relay("on", power_on="on"),
        Relay("last", power_on="last"),
        Relay("was-off", power_on="last"),
    ]
    before = engine(*rules)
    for name in ("off", "last"):
        before.set(name, True, 100)
    after = Engine(rules)
    assert after.restore(before.save(), 7, same_boot=False) == []
    last = {name: before.on(name) for name in ("off", "on", "last", "was-off")}
    assert after.power_on(last, 7) == [Act("on", True, "power_on"), Act("last", True, "power_on")]


def test_a_power_cut_does_not_renew_the_budget() -> None:
    rules = [Relay("r", max_per_h=2)]
    before = engine(*rules)
    before.set("r", True, 100)
    before.set("r", False, 101)
    after = engine(*rules)
    after.restore(before.save(), 5, same_boot=False)
    assert after.set("r", True, 10).code == "over_budget"
    assert after.set("r", True, 3_601).code == "ok"


def test_lines_that_were_moved_by_somebody_else_count() -> None:
    rules = [Relay("r", min_on_s=10), Relay("s")]
    before = engine(*rules)
    before.set("s", True, 0)
    after = engine(*rules)
    assert after.restore(before.save(), 50, same_boot=True, seen={"r": True, "s": True}) == []
    assert after.on("r")
    assert after.set("r", False, 55).code == "too_soon"
    assert after.set("r", False, 60).code == "ok"


def test_two_of_a_group_found_on_are_mended() -> None:
    after = engine(Relay("a", group="g"), Relay("b", group="g"))
    acts = after.restore({}, 50, same_boot=True, seen={"a": True, "b": True})
    assert acts == [Act("a", False, "restore")]


def test_a_stop_makes_safe_what_has_to_be_and_leaves_the_rest() -> None:
    relays = engine(Relay("hold"), Relay("safe", on_stop="safe"))
    relays.set("hold", True, 0)
    relays.set("safe", True, 0)
    assert relays.stop(5) == [Act("safe", False, "stop")]
    assert relays.on("hold")


def test_in_session_a_relay_that_is_free_does_not_move_one_that_is_not() -> None:
    relays = engine(Relay("locked", group="g"), Relay("free", group="g", session_lock=False))
    relays.set("locked", True, 0)
    relays.locked = True
    assert relays.set("free", True, 10).code == "interlocked"
    assert relays.on("locked")
    assert relays.set("free", True, 10, glass=True).acts == (Act("locked", False, "interlock"),)


def test_what_was_promised_is_dropped_when_the_other_one_did_not_let_go() -> None:
    relays = engine(Relay("a", group="g"), Relay("b", group="g"))
    relays.set("a", True, 0)
    (off,) = relays.set("b", True, 10, by="lan").acts
    assert isinstance(off, Act)
    relays.failed(off, 10)
    assert relays.on("a")
    assert relays.tick(10.5) == [Dropped("b", "interlocked", "lan")]


def test_a_relay_that_is_already_what_its_pulse_would_make_it_is_not_switched() -> None:
    relays = engine(Relay("r", pulse_s=5))
    relays.pulse("r", 10)
    after = engine(Relay("r", pulse_s=5))
    after.restore(relays.save(), 12, same_boot=True, seen={"r": False})
    assert after.tick(20) == []
    assert after.due_s() == math.inf


def test_a_wish_that_failed_is_over_and_counts_and_a_rule_is_tried_again() -> None:
    relays = engine(Relay("r", max_per_h=2, max_on_s=60))
    (on,) = relays.set("r", True, 0).acts
    assert isinstance(on, Act)
    relays.failed(on, 0)
    assert (relays.on("r"), relays.due_s()) == (False, math.inf)
    assert relays.set("r", True, 1).code == "ok"
    for at_s in (61.0, 71.0, 81.0):
        assert relays.due_s() == at_s
        (off,) = relays.tick(at_s)
        assert off == Act("r", False, "max_on")
        relays.failed(off, at_s)
        assert relays.on("r")
    assert relays.facts("r", 82)["budget_left"] == 0
    assert relays.tick(91) == [Act("r", False, "max_on")]
    assert relays.set("r", True, 92).code == "over_budget"


def test_of_a_group_one_comes_up_whatever_was_kept() -> None:
    relays = engine(Relay("a", group="g", power_on="last"), Relay("b", group="g", power_on="last"))
    assert relays.power_on({"a": True, "b": True}, 7) == [Act("a", True, "power_on")]


def test_a_time_that_lies_ahead_counts_as_now() -> None:
    after = engine(Relay("r", min_off_s=5))
    saved = {"r": {"on": False, "changed_s": 9e9, "switched": [], "back": None}}
    after.restore(saved, 100, same_boot=True)
    assert after.set("r", True, 104).code == "too_soon"
    assert after.set("r", True, 105).code == "ok"


def test_the_first_state_is_due_whatever_was_switched_before() -> None:
    relays = engine(Relay("r", power_on="on", min_off_s=600, max_per_h=2))
    saved = {"r": {"on": True, "changed_s": 5.0, "switched": [1.0, 2.0, 3.0], "back": None}}
    relays.restore(saved, 20, same_boot=False)
    (on,) = relays.power_on({"r": True}, 20)
    relays.failed(on, 20)
    assert relays.tick(30) == [Act("r", True, "power_on")]
