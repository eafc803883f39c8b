"""Commands for relays: what hands says becomes one outcome, and every outcome an event."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from agent.kinds import relay as kind
from agent.link import documents
from agent.link.contract import EventDoc, encode
from agent.model import Command, Fault, Mode, Moment, Reading
from agent.room import commands
from agent.room.commands import Commands
from agent.room.presses import Presses

ON = {"on": True, "wanted_on": True, "budget_left": 59}
OFF = {**ON, "on": False, "wanted_on": False}


class Hands:
    """Answers in turn, the last one for ever."""

    def __init__(self, *readings: Reading) -> None:
        self.readings = list(readings)
        self.asked: list[tuple[str, str, dict[str, Any]]] = []

    async def ask(self, what: str, ask: str, **args: Any) -> Reading:
        self.asked.append((what, ask, args))
        return self.readings.pop(0) if len(self.readings) > 1 else self.readings[0]


class Room:
    """What commands for relays need of a room."""

    def __init__(self, hands: Hands | None, **settings: Any) -> None:
        self.hands = hands
        self.mode = Mode.IDLE
        device = SimpleNamespace(id="lamp", settings=kind.Settings(pin=26, **settings))
        self.watched = {"lamp": SimpleNamespace(device=device)}
        self.events: list[dict[str, Any]] = []

    def now(self) -> Moment:
        return Moment(100.0, 1.8e9)

    def event(self, type_: str, importance: int, **fields: Any) -> asyncio.Future[int]:
        document = documents.event(type_, self.now(), **fields)
        EventDoc.model_validate_json(encode({**document, "n": 1, "prev": ""}))
        self.events.append({"type": type_, **fields})
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        future.set_result(1)
        return future

    def act(self, type_: str, number: int, **fields: Any) -> asyncio.Future[int]:
        return self.event(type_, 1, **fields)


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "SETTLE_S", 0.0)


def outcome(room: Room, name: str = "relay.set", **args: Any) -> dict[str, Any]:
    reason = args.pop("reason", "")
    if name == "relay.set":
        args.setdefault("on", True)
    args.setdefault("relay", "lamp")
    command = Command("id", name, args, by="op", reason=reason)
    made = Commands(room, Presses(room))  # type: ignore[arg-type]
    return dict(asyncio.run(made.over_mqtt(command)))


@pytest.mark.parametrize(
    ("readings", "effect"),
    [
        ([Reading(ON)], {"on": True}),
        ([Reading({**ON, "readback_on": True})], {"on": True}),
        ([Reading({**ON, "readback_on": False})], {"on": False}),
        ([Reading({**ON, "feedback_on": False})], {"on": True, "feedback_on": False}),
        ([Reading({**OFF, "due_in_s": 0.01}), Reading(ON)], {"on": True}),
    ],
    ids=str,
)
def test_done_tells_what_was_read_back(readings: list[Reading], effect: dict[str, bool]) -> None:
    room = Room(Hands(*readings))
    answer = outcome(room)
    assert (answer["state"], answer["code"]) == ("done", "ok")
    assert answer["effect"] == {"relay": "lamp", **effect}
    (event,) = room.events
    assert (event["type"], event["code"], event["device"]) == ("command.done", "ok", "lamp")


def test_a_contact_that_is_wired_back_is_waited_for() -> None:
    hands = Hands(Reading(ON), Reading({**ON, "feedback_on": True}))
    assert outcome(Room(hands, feedback_pin=21))["effect"]["feedback_on"] is True
    assert [ask for _, ask, _ in hands.asked] == ["set", "read"]


@pytest.mark.parametrize(
    ("reading", "state", "code"),
    [
        (Reading(OFF, Fault.SKIPPED, "session_lock"), "refused", "session_lock"),
        (Reading(OFF, Fault.SKIPPED, "interlocked"), "refused", "interlocked"),
        (Reading(OFF, Fault.SKIPPED, "over_budget"), "refused", "over_budget"),
        (Reading(OFF, Fault.SKIPPED, "too_soon"), "refused", "too_soon"),
        (Reading(fault=Fault.SKIPPED, why="unknown_relay"), "refused", "unknown_relay"),
        (Reading(fault=Fault.SKIPPED, why="not_held"), "refused", "not_held"),
        (Reading({**OFF, "errno": 19}, Fault.ABSENT, "no_node"), "failed", "absent"),
        (Reading({**OFF, "errno": 16}, Fault.ERROR, "errno"), "failed", "error"),
        (Reading(fault=Fault.ERROR, why="not_understood"), "failed", "error"),
        (Reading(fault=Fault.NO_ANSWER, why="hands_lost"), "failed", "hands_lost"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("name", ["relay.set", "relay.pulse"])
def test_whatever_else_comes_of_it_is_told_by_its_name(
    name: str, reading: Reading, state: str, code: str
) -> None:
    room = Room(Hands(reading))
    answer = outcome(room, name)
    assert (answer["state"], answer["code"]) == (state, code)
    assert "effect" not in answer
    (event,) = room.events
    assert (event["type"], event["code"], event["by"]) == (f"command.{state}", code, "op")


def test_a_promise_that_was_not_kept_is_no_success() -> None:
    hands = Hands(Reading({**OFF, "due_in_s": 0.01}), Reading(OFF))
    assert outcome(Room(hands))["code"] == "interlocked"


def test_to_break_the_glass_takes_a_reason_and_hands_is_told() -> None:
    hands = Hands(Reading(ON))
    assert outcome(Room(hands), break_glass=True)["code"] == "no_reason"
    assert outcome(Room(hands), break_glass=True, reason="  ")["code"] == "no_reason"
    assert hands.asked == [], "before hands is asked"
    assert outcome(Room(hands), break_glass=True, reason="fire")["state"] == "done"
    ((_, _, args),) = hands.asked
    assert args["glass"] is True
    assert args["by"].startswith("op #")


@pytest.mark.parametrize("text", ["x" * 256, "https://" + "y" * 200, "\x00\x07\n", "ă" * 200, ""])
def test_whatever_others_write_costs_no_record(text: str) -> None:
    """An act without a record would be the worst of all."""
    hands = Hands(Reading(ON))
    room = Room(hands)
    made = Commands(room, presses := Presses(room))  # type: ignore[arg-type]
    command = Command("id", "relay.set", {"relay": "lamp", "on": True}, by=text, reason=text)
    assert asyncio.run(made.over_mqtt(command))["state"] == "done"
    assert [e["type"] for e in room.events] == ["command.done"]

    async def tell() -> None:
        name = hands.asked[0][2]["by"]
        event = {"number": 1, "event": "switched", "device": "lamp", "on": True, "cause": "command"}
        presses.happened({**event, "by": name, "at_s": 100.0})

    room.watched["lamp"].hurry = lambda: None
    asyncio.run(tell())
    assert [e["type"] for e in room.events] == ["command.done", "relay.switched"]
    for bad in ({"relay": text or "?", "on": True}, {"relay": 5.0}, {"device": text or "?"}):
        command = Command("id", "relay.set", bad)
        assert asyncio.run(made.over_mqtt(command))["state"] == "refused"
    command = Command("id", text or "?", {})
    assert asyncio.run(made.over_mqtt(command))["code"] == "unknown_command"
    assert len(room.events) == 6


def test_without_hands_there_are_no_relays() -> None:
    assert outcome(Room(None))["code"] == "unknown_relay"
    assert outcome(Room(Hands(Reading(ON))), relay="fan")["code"] == "unknown_relay"
