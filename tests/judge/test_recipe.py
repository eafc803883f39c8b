"""Which steps may bring a device back, in which order, and whom each of them disturbs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.judge import recipe
from agent.judge.recipe import Cure, Facts, Planned, Step, Switch, Thing

CAM = Thing("cam", "camera", port="1-1.2", worker=True)
MIC = Thing("mic", "microphone", port="1-1.2", worker=True)  # the same webcam
SPARE = Thing("spare", "camera", required=False, port="1-1.3", worker=True)
ROOM = Facts({t.id: t for t in (CAM, MIC, SPARE)}, hands=True)
LADDER = ("reopen", "rebind", "reauthorize", "usb_reset", "power_cycle")


def facts(**changes: Any) -> Facts:
    """The room with other facts; `cam={...}` changes a thing."""
    things = {
        name: replace(thing, **changes.pop(name)) if name in changes else thing
        for name, thing in ROOM.things.items()
    }
    return replace(ROOM, things=things, **changes)


def steps(found: Facts = ROOM, device: str = "cam", **ask: Any) -> dict[str, Planned]:
    return {str(p.step): p for p in recipe.plan(device, found, **ask)}


def why_not(found: Facts = ROOM, device: str = "cam", **ask: Any) -> dict[str, str]:
    return {name: p.why_not for name, p in steps(found, device, **ask).items()}


def test_the_ladder_goes_from_mild_to_strong_and_names_whom_it_disturbs() -> None:
    plan = steps()
    assert tuple(plan) == LADDER
    assert plan["reopen"].touches == ("cam",)
    assert plan["rebind"].touches == ("cam",), "the sound of the webcam has another driver"
    assert plan["reauthorize"].touches == plan["usb_reset"].touches == ("cam", "mic")
    assert plan["power_cycle"].why_not == "no_switch"
    assert [p.step for p in recipe.taken(plan.values())] == list(LADDER[:4])


@pytest.mark.parametrize(
    ("codes", "cures", "expected"),
    [
        (["camera.frozen"], [], LADDER),
        # What is known comes first, and what is weaker than that is not tried.
        (
            ["microphone.silent"],
            [Cure(Step.REAUTHORIZE, frozenset({"microphone.silent"}))],
            ("reopen", "reauthorize", "usb_reset", "power_cycle"),
        ),
        (["camera.no_answer"], [Cure(Step.USB_RESET)], ("reopen", "usb_reset", "power_cycle")),
        (["camera.frozen"], [Cure(Step.USB_RESET, frozenset({"camera.absent"}))], LADDER),
        (["camera.frozen"], [Cure(Step.REPLUG_SOURCE)], (*LADDER, "replug_source")),
        (
            ["camera.frozen"],
            [Cure(Step.POWER_CYCLE), Cure(Step.REBIND)],
            ("reopen", "power_cycle", "rebind"),
        ),
        ([], [Cure(Step.USB_RESET)], LADDER),  # nothing is wrong: nothing is known to help
    ],
)
def test_what_is_known_of_a_model_goes_first(
    codes: list[str], cures: list[Cure], expected: tuple[str, ...]
) -> None:
    assert recipe.order(codes, cures) == expected


def test_without_hands_only_a_new_worker_is_left() -> None:
    assert why_not(facts(hands=False)) == {
        "reopen": "",
        "rebind": "no_hands",
        "reauthorize": "no_hands",
        "usb_reset": "no_hands",
        "power_cycle": "no_switch",
    }


def test_what_is_not_on_the_bus_can_only_be_switched_off_and_on() -> None:
    gone = facts(cam={"port": "", "worker": False}, switches=(Switch("relay", ("cam",)),))
    assert why_not(gone) == {
        "reopen": "no_worker",
        "rebind": "not_on_usb",
        "reauthorize": "not_on_usb",
        "usb_reset": "not_on_usb",
        "power_cycle": "",
    }
    assert why_not(facts(cam={"port": ""}, hubs=("1-1",)))["power_cycle"] == "no_switch"


@pytest.mark.parametrize("device", ["cam", "mic"])
def test_nothing_is_done_to_a_device_in_its_boot_loader(device: str) -> None:
    switches = (Switch("relay", ("cam", "mic")),)
    found = facts(**{device: {"updating": True}}, switches=switches)
    plan = why_not(found, shared_power=True, glass=True)
    assert plan["reauthorize"] == plan["usb_reset"] == plan["power_cycle"] == "updating"
    everything = facts(spare={"updating": True}, hubs=("1-1",))
    assert why_not(everything, shared_power=True, glass=True)["power_cycle"] == "updating"


def test_what_a_program_uses_is_disturbed_only_behind_broken_glass() -> None:
    found = facts(mic={"in_use": True})
    assert why_not(found)["reauthorize"] == "in_use"
    assert why_not(found)["rebind"] == "", "it leaves the microphone alone"
    assert why_not(found, glass=True)["reauthorize"] == ""
    assert why_not(found, glass=True, by_agent=True)["reauthorize"] == "in_use"


def test_a_relay_cuts_power_and_the_one_that_cuts_least_is_taken() -> None:
    switches = (
        Switch("strip", ("cam", "mic", "spare"), pulse_s=5),
        Switch("own", ("cam",), pulse_s=1),
        Switch("other", ("mic",)),
    )
    planned = steps(facts(switches=switches))["power_cycle"]
    assert planned == Planned(Step.POWER_CYCLE, ("cam",), relay="own", note="short_pulse")
    assert steps(facts(switches=switches), by_agent=True)["power_cycle"].why_not == ""
    assert steps(facts(switches=switches), "spare")["power_cycle"].note == ""


def test_what_the_room_needs_loses_power_only_where_a_person_accepts_it() -> None:
    strip = facts(switches=(Switch("strip", ("cam", "mic")),))
    assert why_not(strip)["power_cycle"] == "shared_power"
    assert why_not(strip, shared_power=True)["power_cycle"] == ""
    assert why_not(strip, shared_power=True, by_agent=True)["power_cycle"] == "shared_power"
    spare = facts(switches=(Switch("strip", ("cam", "spare")),))
    assert why_not(spare, by_agent=True)["power_cycle"] == "", "nobody needs the other one"
    assert steps(spare)["power_cycle"].touches == ("cam", "spare")


def test_ganged_ports_name_every_device_and_only_people_cut_them() -> None:
    ganged = facts(hubs=("1-1", "2"), on_usb=("relay-a",))
    planned = steps(ganged, shared_power=True)["power_cycle"]
    assert planned.touches == ("cam", "mic", "relay-a", "spare")
    assert (planned.hubs, planned.note, planned.why_not) == (("1-1", "2"), "all_usb_ports", "")
    assert why_not(ganged)["power_cycle"] == "shared_power"
    assert why_not(ganged, by_agent=True)["power_cycle"] == "by_person"
    alone = Facts({"cam": CAM}, hands=True, hubs=("1-1",))
    assert why_not(alone)["power_cycle"] == "", "nothing else hangs there"
    assert why_not(alone, by_agent=True)["power_cycle"] == "by_person"
    # A relay of its own is better than all ports.
    both = facts(hubs=("1-1",), switches=(Switch("own", ("cam",)),))
    assert steps(both)["power_cycle"].relay == "own"


def test_a_person_may_want_one_step_alone() -> None:
    assert tuple(steps(only=Step.USB_RESET)) == ("usb_reset",)
    assert why_not(facts(hands=False), only=Step.USB_RESET) == {"usb_reset": "no_hands"}


THINGS = st.lists(
    st.builds(
        Thing,
        id=st.sampled_from("abcdef"),
        kind=st.sampled_from(["camera", "microphone", "speaker"]),
        required=st.booleans(),
        port=st.sampled_from(["", "1-1.1", "1-1.2", "2-1"]),
        worker=st.booleans(),
        in_use=st.sampled_from([False, False, False, True]),
        updating=st.sampled_from([False, False, False, True]),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda t: t.id,
)
SWITCHES = st.lists(
    st.builds(
        Switch,
        id=st.sampled_from(["r1", "r2", "r3"]),
        powers=st.lists(st.sampled_from("abcdef"), unique=True).map(tuple),
        pulse_s=st.sampled_from([0.5, 2.0, 5.0]),
    ),
    max_size=3,
    unique_by=lambda s: s.id,
).map(tuple)


@settings(max_examples=400)
@given(
    THINGS,
    SWITCHES,
    st.sampled_from([True, True, False]),
    st.sampled_from([(), ("1-1",)]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_no_plan_ever_disturbs_what_it_may_not(
    things: list[Thing],
    switches: tuple[Switch, ...],
    hands: bool,
    hubs: tuple[str, ...],
    by_agent: bool,
    shared_power: bool,
    glass: bool,
) -> None:
    room = Facts({t.id: t for t in things}, hands, switches, hubs)
    ask = {"by_agent": by_agent, "shared_power": shared_power, "glass": glass}
    for planned in recipe.plan(things[0].id, room, **ask):
        assert planned.why_not in recipe.WHY_NOT | {""}
        assert planned.touches[0] == things[0].id
        assert len(set(planned.touches)) == len(planned.touches)
        if planned.why_not or planned.step is Step.REOPEN:
            continue
        touched = [room.things[t] for t in planned.touches if t in room.things]
        others = [t for t in touched if t.id != things[0].id]
        assert hands
        assert not any(t.updating for t in touched)
        assert not any(t.in_use for t in touched) or (glass and not by_agent)
        if planned.step is Step.POWER_CYCLE:
            assert bool(planned.relay) is not bool(planned.hubs)
            assert not (by_agent and planned.hubs)
            assert not any(t.required for t in others) or (shared_power and not by_agent)
            losers = {s.id: set(s.powers) for s in switches}.get(
                planned.relay, {t.id for t in things if t.port}
            )
            assert losers <= set(planned.touches), "somebody loses power unnamed"
        else:
            assert things[0].port
            shares = {t.id for t in things if t.port == things[0].port}
            if planned.step is not Step.REBIND:
                assert shares == set(planned.touches)
