"""What is judged of relays, lights and the button, from what hands reads."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from agent.kinds import button, indicator, relay
from agent.model import Fault, Level, Reading

GOOD = {"on": True, "wanted_on": True, "budget_left": 59, "locked": False}
LOST = Reading(fault=Fault.NO_ANSWER, why="hands_lost")


@pytest.mark.parametrize(
    ("reading", "found"),
    [
        (Reading(GOOD), []),
        (Reading({**GOOD, "readback_on": True, "feedback_on": True}), []),
        (Reading({**GOOD, "on": False, "wanted_on": False, "feedback_on": False}), []),
        (Reading({**GOOD, "readback_on": False}), [("relay.readback_differs", Level.FAIL)]),
        (Reading({**GOOD, "feedback_on": False}), [("relay.readback_differs", Level.FAIL)]),
        (
            Reading({**GOOD, "on": False, "feedback_on": True}),
            [("relay.readback_differs", Level.FAIL)],
        ),
        (Reading({**GOOD, "feedback_errno": 16}), [("relay.no_answer", Level.UNKNOWN)]),
        (Reading({**GOOD, "on": False}), [("relay.interlocked", Level.INFO)]),
        (Reading({**GOOD, "budget_left": 0}), [("relay.over_budget", Level.INFO)]),
        (Reading({"errno": 19}, Fault.ABSENT, "no_node"), [("relay.absent", Level.FAIL)]),
        (Reading({"errno": 16}, Fault.ERROR, "errno"), [("relay.no_answer", Level.FAIL)]),
        (LOST, [("relay.no_answer", Level.UNKNOWN)]),
        (Reading(fault=Fault.QUARANTINED), [("relay.no_answer", Level.UNKNOWN)]),
        (Reading(fault=Fault.SKIPPED, why="unknown_relay"), []),
    ],
    ids=repr,
)
def test_relays(reading: Reading, found: list[tuple[str, Level]]) -> None:
    judged = relay.judge(reading, relay.Settings(pin=26))
    assert [(f.code, f.level) for f in judged] == found
    assert all(f.code in relay.CODES for f in judged)
    if "errno" in reading.values:
        assert judged[0].numbers["errno"] == reading.values["errno"]


@pytest.mark.parametrize(
    ("reading", "found"),
    [
        (Reading({"pressed": True, "stuck": False}), []),
        (Reading({"pressed": True, "stuck": True}), [("button.stuck", Level.WARN)]),
        (Reading({"errno": 19}, Fault.ABSENT, "no_node"), [("button.absent", Level.WARN)]),
        (LOST, [("button.absent", Level.UNKNOWN)]),
        (Reading(fault=Fault.SKIPPED), []),
    ],
    ids=repr,
)
def test_buttons(reading: Reading, found: list[tuple[str, Level]]) -> None:
    judged = button.judge(reading, button.Settings(pin=4))
    assert [(f.code, f.level) for f in judged] == found


@pytest.mark.parametrize(
    ("reading", "found"),
    [
        (Reading({"pattern": "ready", "lit": True}), []),
        (Reading({"errno": 19}, Fault.ABSENT, "no_node"), [("indicator.absent", Level.WARN)]),
        (Reading({"errno": 16}, Fault.ERROR, "errno"), [("indicator.absent", Level.UNKNOWN)]),
        (LOST, [("indicator.absent", Level.UNKNOWN)]),
        (Reading(fault=Fault.SKIPPED), []),
    ],
    ids=repr,
)
def test_lights(reading: Reading, found: list[tuple[str, Level]]) -> None:
    judged = indicator.judge(reading, indicator.Settings(pin=17))
    assert [(f.code, f.level) for f in judged] == found


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (relay, {}),
        (relay, {"pin": 28}),
        (relay, {"pin": -1}),
        (relay, {"pin": 4, "board": "x", "channel": 1}),
        (relay, {"board": "x"}),
        (relay, {"pin": 4, "channel": 1}),
        (relay, {"pin": 4, "at": "1-1"}),
        (relay, {"pin": 4, "feedback_pin": 4}),
        (relay, {"pin": 4, "max_on_s": 5, "min_on_s": 6}),
        (relay, {"pin": 4, "max_on_s": 0.5, "pulse_s": 1}),
        (relay, {"pin": 4, "max_on_s": 5, "power_on": "on"}),
        (relay, {"pin": 4, "power_on": "maybe"}),
        (relay, {"pin": 4, "on_stop": "off"}),
        (relay, {"pin": 4, "max_per_h": 1}),
        (relay, {"pin": 4, "wait_ms": -1}),
        (button, {}),
        (button, {"pin": 4, "check_s": 8}),
        (button, {"pin": 4, "stuck_s": 6}),
        (indicator, {}),
        (indicator, {"pin": 28}),
        (indicator, {"pin": 4, "red": 5}),
        (indicator, {"red": 4, "green": 4}),
        (indicator, {"red": "board"}),
    ],
    ids=str,
)
def test_what_cannot_be_is_a_mistake_of_the_file(kind: Any, settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        kind.Settings(**settings)
