"""What happened is told in its order, once, also when nobody was there and hands itself was not."""

from __future__ import annotations

import json

import pytest
from hands_stage import Box, relay

from agent.hands.keeper import NAME
from agent.hands.news import MAX_EVENTS, News


def heard(box: Box, after: int) -> tuple[int, bool] | None:
    """The oldest event after a number: its own number, and whether it switched on."""
    reading = box.ask("hands", "wait", after=after, within_s=1)
    return reading and (int(reading.values["number"]), bool(reading.values["on"]))


def test_events_come_in_their_order_and_stay_until_they_are_taken(box: Box) -> None:
    box.start(relay("lamp"))
    for on in (True, False, True):
        box.set("lamp", on)
    first = heard(box, 0)
    assert first is not None
    assert heard(box, 0) == first, "who lost the answer asks again"
    second = heard(box, first[0])
    assert second == (first[0] + 1, False)
    assert heard(box, second[0]) == (first[0] + 2, True)
    assert heard(box, first[0] + 2) is None
    assert heard(box, 0) is None, "taken is taken"


def test_a_number_that_was_never_given_takes_nothing(box: Box) -> None:
    box.start(relay("lamp"))
    box.set("lamp", True)
    assert heard(box, 10**14) is not None
    assert heard(box, -5) is not None


def test_what_is_too_much_is_counted() -> None:
    news = News(1_000.0)
    for number in range(MAX_EVENTS + 44):
        news.tell("switched", "lamp", {"on": True}, "", 1_000.0 + number)
    oldest = news.oldest()
    assert oldest is not None
    assert oldest.values["lost"] == 44
    assert oldest.values["number"] == 1_000_000 + 1 + 44
    assert len(news.events) == MAX_EVENTS
    news.taken(1_000_000 + 1 + 44)
    oldest = news.oldest()
    assert oldest is not None
    assert (oldest.values["number"], "lost" in oldest.values) == (1_000_000 + 2 + 44, False)


def test_what_nobody_heard_outlives_a_crash_and_what_was_heard_is_not_told_again(box: Box) -> None:
    box.start(relay("lamp", pulse_s=5))
    box.set("lamp", True, by="lan")
    first = heard(box, 0)
    assert first is not None
    box.set("lamp", False, by="hoa")
    assert heard(box, first[0]) is not None
    box.after = 0  # the agent was restarted as well, and remembers nothing
    box.start(relay("lamp", pulse_s=5), idle=False)
    assert [(e["on"], e["by"]) for e in box.news()] == [(False, "hoa")]


def test_an_agent_that_outlives_hands_misses_none_of_the_new_events(box: Box) -> None:
    """Numbers that begin anew would be taken for heard."""
    box.start(relay("lamp"))
    for _ in range(3):
        box.set("lamp", True)
        box.set("lamp", False)
    assert len(box.news()) == 6
    (box.folder / NAME).unlink()
    box.now_s += 1
    box.start(relay("lamp"))
    box.set("lamp", True)
    box.set("lamp", False)
    assert [e["on"] for e in box.news()] == [True, False]


@pytest.mark.parametrize("file_lost", [False, True])
def test_after_a_power_cut_old_events_have_no_time_and_new_ones_a_number(
    box: Box, file_lost: bool
) -> None:
    box.start(relay("lamp", power_on="on"))
    box.set("lamp", False)
    box.reboot()
    if file_lost:
        (box.folder / NAME).unlink()
    box.after = 0
    box.start(relay("lamp", power_on="on"))
    events = box.news()
    shown = [(e["cause"], e.get("at_s")) for e in events]
    before = [] if file_lost else [("power_on", None), ("command", None)]
    assert shown == [*before, ("power_on", 20.0)]
    assert [e["number"] for e in events] == sorted(e["number"] for e in events)


def test_the_file_stays_small(box: Box) -> None:
    box.start(relay("lamp", max_per_h=3_600))
    for _ in range(MAX_EVENTS):
        box.desk._tell("switched", "lamp", {"on": True, "cause": "command"}, "x" * 64)
    for number in range(20):
        box.set("lamp", number % 2 == 0, by="x" * 64)
        box.now_s += 1_000
    assert (box.folder / NAME).stat().st_size < 100_000
    kept = json.loads((box.folder / NAME).read_text())
    assert len(kept["events"]) == MAX_EVENTS
    assert kept["lost"] >= 20
    assert len(kept["relays"]["lamp"]["switched"]) <= 5, "an hour of them"
