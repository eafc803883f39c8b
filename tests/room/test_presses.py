"""What hands tells becomes an event of the room: whose it was, why, and when it happened."""

from __future__ import annotations

from typing import Any

import pytest

from agent.model import Clock, Mode, Moment
from agent.room.presses import ASKED_MAX, BY_BUTTON, Presses


class Watched:
    def __init__(self) -> None:
        self.hurried: list[str] = []

    def hurry(self, by: str = "agent") -> None:
        self.hurried.append(by)


class Room:
    """What presses need of a room, and what they did to it."""

    def __init__(self) -> None:
        self.mode = Mode.IDLE
        self.watched: Any = {"lamp": Watched(), "cam": Watched(), "button": Watched()}
        self.events: list[dict[str, Any]] = []
        self.modes: list[tuple[Mode | None, str]] = []
        self.reports = 0
        self.acts: list[int] = []

    def now(self) -> Moment:
        return Moment(1_000.0, 1.8e9, Clock.SYNCED, "5f0c12ab")

    def event(self, type_: str, importance: int, **fields: Any) -> Any:
        self.events.append({"type": type_, **fields})

    def act(self, type_: str, number: int, **fields: Any) -> Any:
        self.acts.append(number)
        return self.event(type_, 1, **fields)

    def set_mode(self, mode: Mode | None, minutes: float, by: str) -> None:
        self.modes.append((mode, by))

    def report(self) -> None:
        self.reports += 1


@pytest.fixture
def room() -> Room:
    return Room()


@pytest.fixture
def presses(room: Room) -> Presses:
    return Presses(room)


def switched(by: str = "", **more: Any) -> dict[str, Any]:
    event = {"number": 1, "event": "switched", "device": "lamp", "on": True, "cause": "command"}
    return {**event, "at_s": 1_000.0, **({"by": by} if by else {}), **more}


def test_an_act_is_its_askers_though_others_asked_meanwhile(room: Room, presses: Presses) -> None:
    first = presses.asked("op@central", "router hung")
    second = presses.asked("hoa", "a try")
    presses.happened(switched(first, cause="pulse"))
    presses.happened({**switched(second, number=2), "event": "dropped", "code": "session_lock"})
    presses.happened(switched(first, cause="pulse_end", on=False))
    presses.happened(switched("", cause="max_on", on=False))
    assert room.acts[:2] == [1, 2], "what was heard is recorded with it"
    said = [(e["type"], e["by"], e["reason"]) for e in room.events]
    assert said == [
        ("relay.switched", "op@central", "router hung"),
        ("relay.dropped", "hoa", "a try"),
        ("relay.switched", "op@central", "router hung"),
        ("relay.switched", None, None),
    ]


def test_the_other_relay_of_a_group_goes_off_for_who_asked(room: Room, presses: Presses) -> None:
    name = presses.asked("op", "")
    presses.happened(switched(name, device="other", cause="interlock", on=False))
    assert (room.events[0]["device"], room.events[0]["by"]) == ("other", "op")


@pytest.mark.parametrize("by", ["op@central", "Nguyễn Văn A", "x" * 300, "", "a #1", "\n\x00"])
def test_a_name_goes_through_hands_and_comes_back(room: Room, presses: Presses, by: str) -> None:
    name = presses.asked(by, "why")
    assert name.isascii()
    assert name.isprintable()
    assert 0 < len(name) <= 64
    presses.happened(switched(name))
    assert (room.events[0]["by"], room.events[0]["reason"]) == (by or None, "why")


def test_after_a_restart_of_the_agent_the_name_alone_is_known(room: Room) -> None:
    name = Presses(room).asked("op@central", "router hung")
    later = Presses(room)
    later.asked("hoa", "another thing")
    later.happened(switched(name, cause="pulse_end"))
    assert (room.events[0]["by"], room.events[0]["reason"]) == ("op@central", None)


def test_what_was_asked_is_forgotten_in_time(room: Room, presses: Presses) -> None:
    names = [presses.asked(f"op-{n}", "why") for n in range(ASKED_MAX + 1)]
    for name in (names[0], names[-1]):
        presses.happened(switched(name))
    assert [(e["by"], e["reason"]) for e in room.events] == [
        ("op-0", None),
        (f"op-{ASKED_MAX}", "why"),
    ]


@pytest.mark.parametrize(
    ("at_s", "since"),
    [
        (1_000.0, "2027-01-15T08:00:00.000Z"),
        (400.0, "2027-01-15T07:50:00.000Z"),
        (1_000.5, "2027-01-15T08:00:00.000Z"),  # never later than it is told
        (None, None),
    ],
)
def test_an_event_is_dated_when_it_happened(
    room: Room, presses: Presses, at_s: float | None, since: str | None
) -> None:
    event = switched()
    if at_s is None:
        del event["at_s"]
    else:
        event["at_s"] = at_s
    presses.happened(event)
    presses.happened({**event, "event": "pressed", "device": "button", "meaning": "short"})
    assert [e["since"] for e in room.events] == [since, since]


def test_before_and_after_causes_failures_and_refusals_are_all_told(
    room: Room, presses: Presses
) -> None:
    presses.happened(switched(on=False, cause="max_on"))
    presses.happened({**switched(), "event": "failed", "errno": 5})
    presses.happened({**switched(), "event": "dropped", "code": "interlocked"})
    first, second, third = room.events
    assert (first["before"], first["after"], first["cause"]) == (True, False, "max_on")
    assert (second["type"], second["wanted"], second["errno"]) == ("relay.failed", True, 5)
    assert (third["type"], third["code"]) == ("relay.dropped", "interlocked")
    assert room.watched["lamp"].hurried == ["agent"] * 3, "and its document follows at once"


def test_what_was_lost_is_told_first(room: Room, presses: Presses) -> None:
    presses.happened(switched(lost=44))
    assert [e["type"] for e in room.events] == ["relay.untold", "relay.switched"]
    assert room.events[0]["count"] == 44


def press(presses: Presses, meaning: str) -> None:
    presses.happened({"number": 2, "event": "pressed", "device": "button", "meaning": meaning})


def test_a_short_press_reports_and_a_longer_one_looks(room: Room, presses: Presses) -> None:
    press(presses, "short")
    assert (room.reports, room.watched["cam"].hurried) == (1, [])
    press(presses, "check")
    assert room.watched["cam"].hurried == [BY_BUTTON]
    for meaning in ("stuck", "freed"):
        press(presses, meaning)
    assert [e["meaning"] for e in room.events] == ["short", "check", "stuck", "freed"]
    assert room.modes == []


@pytest.mark.parametrize(
    ("mode", "set_to"),
    [
        (Mode.IDLE, [Mode.MAINTENANCE]),
        (Mode.PREPARING, [Mode.MAINTENANCE]),
        (Mode.RECESS, [Mode.MAINTENANCE]),
        (Mode.MAINTENANCE, [None]),
        (Mode.IN_SESSION, []),
    ],
)
def test_the_longest_press_begins_and_ends_maintenance_but_not_in_session(
    room: Room, presses: Presses, mode: Mode, set_to: list[Mode | None]
) -> None:
    room.mode = mode
    press(presses, "maintenance")
    assert [m for m, _ in room.modes] == set_to
    assert all(by == BY_BUTTON for _, by in room.modes)
    assert room.events[0]["meaning"] == "maintenance", "it is told in any case"


def test_an_event_about_a_device_that_is_not_in_the_room_any_more(
    room: Room, presses: Presses
) -> None:
    presses.happened(switched(device="gone"))
    assert room.events[0]["device"] == "gone"
