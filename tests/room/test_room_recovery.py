"""Devices are brought back: by the agent itself, on command, and never where it must not be."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from recovery_stage import EYE, Stage

from agent.judge.recipe import LADDER, Planned, Step
from agent.model import Refused
from agent.room.recovery import _chosen
from agent.room.remedy import Ask, Seen

SIBLING = EYE.format(id="wide", source="v4l2:/dev/video0", more="")


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_what_has_stood_long_enough_is_cured_step_by_step_and_recorded(stage: Stage) -> None:
    stage.cures = {"on 1-1.2"}

    async def scene() -> None:
        stage.looks("no_answer")
        await stage.until(lambda: "camera.no_answer" in stage.codes())
        assert not stage.told("recovery"), "not at once"
        stage.later_s += 11
        await stage.until(lambda: stage.told("recovery.ended"), "no recovery")
        await stage.until(lambda: not stage.codes(), "the incident stays open")

    stage.play(scene)
    (started,) = stage.told("recovery.started")
    steps = stage.told("recovery.step")
    (ended,) = stage.told("recovery.ended")
    (opened,) = [e for e in stage.told("incident.opened") if e["code"].startswith("camera.")]
    assert started["before"] == "camera.no_answer"
    assert started["steps"] == "reopen,rebind,reauthorize,usb_reset"
    assert [(s["step"], s["before"], s["after"], s["result"]) for s in steps] == [
        ("reopen", "camera.no_answer", "camera.no_answer", "done"),
        ("rebind", "camera.no_answer", "camera.no_answer", "done"),
        ("reauthorize", "camera.no_answer", "ok", "done"),
    ]
    assert (ended["result"], ended["step"]) == ("healed", "reauthorize")
    assert (ended["before"], ended["after"]) == ("camera.no_answer", "ok")
    for event in (started, *steps, ended):
        assert (event["device"], event["by"]) == ("cam", "agent")
        assert event["code"] == opened["code"] == "camera.no_answer"
        assert event["since"] == opened["since"], "the incident's own story"
        assert event["reason"] == "camera.no_answer"
    assert stage.kernel.log[-2:] == ["off 1-1.2", "on 1-1.2"]


def test_a_device_that_is_away_for_a_step_opens_no_incident(stage: Stage) -> None:
    stage.cures = {"on 1-1.2"}
    stage.kernel.slow_s = 2.0
    stage.pace = replace(stage.pace, window_s=5.0)

    async def scene() -> None:
        stage.looks("no_answer")
        await stage.until(lambda: "camera.no_answer" in stage.codes())
        answer = await stage.command("device.recover", device="cam", step="reauthorize")
        assert (answer["state"], answer["code"]) == ("done", "ok"), answer
        assert answer["effect"] == {
            "device": "cam",
            "step": "reauthorize",
            "before": "camera.no_answer",
            "after": "ok",
            "healed": True,
        }
        await stage.until(lambda: not stage.codes())

    stage.play(scene)
    assert {e["code"] for e in stage.told("incident.opened") if e.get("device") == "cam"} == {
        "camera.no_answer"
    }


def test_the_dry_run_shows_the_plan_and_touches_nothing(tmp_path: Path) -> None:
    stage = Stage(tmp_path, more=SIBLING, powers='powers = ["cam", "wide"]')

    async def scene() -> None:
        answer = await stage.command("device.recover", device="cam", dry_run=True)
        assert answer["state"] == "done"
        effect = answer["effect"]
        assert (effect["device"], effect["now"]) == ("cam", "allowed")
        assert [effect[f"step_{n}"] for n in range(1, 6)] == [
            "reopen",
            "rebind",
            "reauthorize",
            "usb_reset",
            "power_cycle",
        ]
        assert effect["step_1_touches"] == "cam"
        assert effect["step_3_touches"] == "cam,wide", "one device with two names"
        assert effect["step_5_touches"] == "cam,wide"
        assert effect["step_5_why_not"] == "shared_power"
        assert (effect["step_5_relay"], effect["step_5_note"]) == ("power", "short_pulse")
        assert answer["detail"]["plan"][4]["touches"] == ["cam", "wide"]
        accepted = await stage.command(
            "device.recover", device="cam", dry_run=True, shared_power=True
        )
        assert "step_5_why_not" not in accepted["effect"]
        await stage.command("mode.set", mode="in_session")
        answer = await stage.command("device.recover", device="cam", dry_run=True)
        assert answer["effect"]["now"] == "in_session"

    stage.play(scene)
    assert stage.kernel.log == []
    assert not stage.told("recovery")


@pytest.mark.parametrize(
    ("mode", "args", "code"),
    [
        ("idle", {"device": "cam"}, "not_needed"),
        ("idle", {"device": "nobody"}, "unknown_device"),
        ("idle", {"device": "host"}, "not_recoverable"),
        ("idle", {"device": "cam", "step": "dance"}, "bad_argument"),
        ("idle", {"device": "cam", "break_glass": True}, "no_reason"),
        ("in_session", {"device": "cam"}, "in_session"),
        ("recess", {"device": "cam"}, "recess"),
        ("maintenance", {"device": "cam"}, "maintenance"),
    ],
)
def test_what_is_refused(tmp_path: Path, mode: str, args: dict[str, object], code: str) -> None:
    stage = Stage(tmp_path, hands=False)

    async def scene() -> None:
        await stage.command("mode.set", mode=mode)
        answer = await stage.command("device.recover", **args)
        assert (answer["state"], answer["code"]) == ("refused", code)
        assert stage.told("command.refused")[0]["code"] == code

    stage.play(scene, hands="")
    assert stage.kernel.log == []
    assert not stage.told("recovery")


def test_in_session_only_held_button_and_broken_glass_and_then_one_step(stage: Stage) -> None:
    async def scene() -> None:
        stage.looks("no_answer")
        await stage.until(lambda: "camera.no_answer" in stage.codes())
        await stage.command("mode.set", mode="in_session")
        stage.later_s += 1_000
        answer = await stage.command(
            "device.recover", "the judge asks", device="cam", break_glass=True
        )
        assert (answer["state"], answer["code"]) == ("refused", "not_held")
        looks = len(stage.told("look.started"))
        await stage.looked()
        assert len(stage.told("look.started")) == looks, "opened in session"
        assert not stage.told("recovery.started")[1:], "the agent began by itself"
        await stage.command("mode.set", mode="idle")
        stage.cures = {"on 1-1.2"}
        answer = await stage.command("device.recover", device="cam")
        assert answer["effect"]["healed"] is True

    stage.play(scene)


def test_the_held_button_and_broken_glass_let_one_step_pass_in_a_hearing(stage: Stage) -> None:
    async def scene() -> None:
        stage.looks("no_answer")
        await stage.until(lambda: "camera.no_answer" in stage.codes())
        await stage.command("mode.set", mode="in_session")
        assert stage.thread is not None
        stage.thread.desk._inputs["button"].pin.drive_low()
        button = stage.agent.watched["button"]
        await stage.until(lambda: button.hurry() or pressed(stage), "not pressed")
        looks = len(stage.told("look.started"))
        answer = await stage.command(
            "device.recover", "the judge asks", device="cam", step="reauthorize", break_glass=True
        )
        assert (answer["state"], answer["code"]) == ("done", "ok"), answer
        assert answer["effect"] == {
            "device": "cam",
            "step": "reauthorize",
            "before": "camera.no_answer",
            "after": "camera.no_answer",
        }, "whether it helped is for people to see"
        assert len(stage.told("look.started")) == looks, "opened in session"
        again = await stage.command(
            "device.recover", "once more", device="cam", step="reauthorize", break_glass=True
        )
        assert again["code"] == "not_held", "one press, one step"
        stage.thread.desk._inputs["button"].pin.drive_high()

    stage.play(scene)
    assert stage.kernel.log == ["off 1-1.2", "on 1-1.2"]
    started, refused = stage.told("recovery.started")
    assert (started["by"], started["reason"]) == ("tester", "the judge asks")
    assert refused["reason"] == "once more"
    assert [e["result"] for e in stage.told("recovery.ended")] == ["done", "not_held"]


def pressed(stage: Stage) -> bool:
    reading = stage.agent.watched["button"].state.reading
    return reading is not None and reading.values.get("pressed") is True


def test_after_two_failures_a_person_is_called_and_the_agent_lets_it_be(stage: Stage) -> None:
    async def scene() -> None:
        stage.looks("no_answer")
        await stage.until(lambda: "camera.no_answer" in stage.codes())
        stage.later_s += 11
        await stage.until(lambda: len(stage.told("recovery.ended")) == 1, within_s=60)
        stage.later_s += 61  # the first pause
        await stage.until(lambda: len(stage.told("recovery.ended")) == 2, within_s=60)
        await stage.until(lambda: "agent.recovery_failed" in stage.codes())
        stage.later_s += 10_000
        await stage.looked()
        assert len(stage.told("recovery.started")) == 2
        # A person acts; it fails again, and the agent has a try left.
        answer = await stage.command("device.recover", device="cam", step="reauthorize")
        assert (answer["state"], answer["code"]) == ("failed", "not_healed")
        assert answer["effect"]["after"] == "camera.no_answer"
        assert answer["effect"]["healed"] is False
        await stage.until(lambda: "agent.recovery_failed" not in stage.codes())
        # It heals by itself: nothing is held against it any more.
        stage.looks("good")
        await stage.until(lambda: not stage.codes())
        assert stage.agent.recovery._history.of("cam").failures == 0

    stage.play(scene)
    assert [e["result"] for e in stage.told("recovery.ended")] == ["not_healed"] * 3
    (incident,) = [e for e in stage.told("incident.opened") if e["code"] == "agent.recovery_failed"]
    assert (incident["device"], incident["numbers"]) == ("cam", {"failures": 2})


def test_a_stop_in_the_midst_is_a_failure_that_is_remembered(stage: Stage) -> None:
    async def first() -> None:
        stage.looks("no_answer")
        await stage.until(lambda: "camera.no_answer" in stage.codes())
        stage.later_s += 11
        await stage.until(lambda: stage.told("recovery.step"))

    async def second() -> None:
        (ended,) = stage.told("recovery.ended")
        assert (ended["device"], ended["result"]) == ("cam", "interrupted")
        assert stage.agent.recovery._history.of("cam").failures == 1
        stage.later_s += 61
        await stage.until(lambda: len(stage.told("recovery.ended")) == 2, within_s=60)
        await stage.until(lambda: "agent.recovery_failed" in stage.codes())

    async def third() -> None:
        await stage.until(lambda: "agent.recovery_failed" in stage.codes())
        assert not [e for e in stage.told("incident.opened") if e["code"].startswith("agent.rec")][
            1:
        ], "it was open already"

    stage.play(first)
    stage.kernel = stage.new_kernel()
    stage.play(second)
    stage.kernel = stage.new_kernel()
    stage.play(third)


def test_a_relay_cuts_the_power_of_its_device(tmp_path: Path) -> None:
    stage = Stage(tmp_path, powers='powers = "cam"')
    stage.cures = {"relay.switched power False"}

    async def scene() -> None:
        stage.looks("no_answer")
        await stage.until(lambda: "camera.no_answer" in stage.codes())
        stage.later_s += 11
        await stage.until(lambda: stage.told("recovery.ended"), within_s=60)
        await stage.until(lambda: not stage.codes())

    stage.play(scene)
    last = stage.told("recovery.step")[-1]
    assert (last["step"], last["relay"], last["touches"], last["after"]) == (
        "power_cycle",
        "power",
        "cam",
        "ok",
    )
    moves = stage.told("relay.switched")
    assert [(m["after"], m["by"], m["reason"]) for m in moves] == [
        (True, "agent", "camera.no_answer"),
        (False, "agent", "camera.no_answer"),
    ]


def test_a_device_that_is_gone_is_switched_off_and_on_where_a_relay_can(tmp_path: Path) -> None:
    stage = Stage(tmp_path, powers='powers = "cam"')
    stage.cures = {"relay.switched power False"}

    async def scene() -> None:
        stage.plugged(False)
        await stage.until(lambda: "camera.absent" in stage.codes())
        stage.later_s += 11
        await stage.until(lambda: stage.told("recovery.ended"), within_s=60)
        await stage.until(lambda: not stage.codes())

    stage.play(scene)
    (ended,) = stage.told("recovery.ended")
    assert (ended["before"], ended["after"], ended["step"]) == (
        "camera.absent",
        "ok",
        "power_cycle",
    )
    assert stage.told("recovery.started")[0]["steps"] == "reopen,power_cycle"


def test_a_device_that_is_gone_and_out_of_reach_is_left_to_people(stage: Stage) -> None:
    async def scene() -> None:
        stage.plugged(False)
        await stage.until(lambda: "camera.absent" in stage.codes())
        stage.later_s += 10_000
        await stage.looked()
        assert stage.agent.recovery._not_before_s == {}, "it was not even tried"
        answer = await stage.command("device.recover", device="cam", step="reauthorize")
        assert (answer["state"], answer["code"]) == ("refused", "no_step")
        assert "reauthorize: not_on_usb" in answer["message"]

    stage.play(scene)
    assert not stage.told("recovery")


def test_a_session_that_begins_ends_the_recipe_before_its_next_step(stage: Stage) -> None:
    async def scene() -> None:
        stage.looks("no_answer")
        await stage.until(lambda: "camera.no_answer" in stage.codes())
        recovering = asyncio.create_task(stage.command("device.recover", device="cam"))
        await stage.until(lambda: stage.kernel.log)  # rebind is at work
        await stage.command("mode.set", mode="in_session")
        answer = await recovering
        assert (answer["state"], answer["code"]) == ("failed", "in_session"), answer
        await stage.looked()
        assert not any(line.startswith("off") for line in stage.kernel.log)
        assert stage.agent.recovery._history.of("cam").failures == 0

    stage.play(scene)


def test_without_hands_only_reopen_is_left_and_the_agent_begins_nothing(tmp_path: Path) -> None:
    stage = Stage(tmp_path, hands=False)

    async def scene() -> None:
        stage.looks("no_answer")
        await stage.until(lambda: "camera.no_answer" in stage.codes())
        stage.later_s += 1_000
        answer = await stage.command("device.recover", device="cam", dry_run=True)
        assert answer["effect"]["step_2_why_not"] == "no_hands"
        answer = await stage.command("device.recover", device="cam")
        assert (answer["code"], answer["effect"]["step"]) == ("not_healed", "reopen")
        assert [e["by"] for e in stage.told("recovery.started")] == ["tester"]

    stage.play(scene, hands="")


@pytest.mark.parametrize("recover", ["ask", "off"])
def test_a_device_may_be_left_to_people_or_left_alone(tmp_path: Path, recover: str) -> None:
    stage = Stage(tmp_path)
    text = stage.config.read_text()
    stage.config.write_text(text.replace("recover_after_s = 10", f'recover = "{recover}"'))

    async def scene() -> None:
        stage.looks("no_answer")
        await stage.until(lambda: "camera.no_answer" in stage.codes())
        stage.later_s += 10_000
        await stage.looked()
        assert not stage.told("recovery")
        answer = await stage.command("device.recover", device="cam", step="reopen")
        expected = ("failed", "not_healed") if recover == "ask" else ("refused", "recover_off")
        assert (answer["state"], answer["code"]) == expected

    stage.play(scene)


def test_what_no_recovery_can_cure_is_left_to_people(stage: Stage) -> None:
    async def scene() -> None:
        stage.looks("black")
        await stage.until(lambda: "camera.black" in stage.codes())
        stage.later_s += 10_000
        await stage.looked()
        assert not stage.told("recovery")

    stage.play(scene)


def test_a_look_that_fails_by_itself_is_no_reason(stage: Stage) -> None:
    """No worker, no right: nothing is known of the device, and nothing is done to it."""

    async def scene() -> None:
        stage.looks("error")
        await stage.until(lambda: "camera.no_answer" in stage.codes())
        stage.later_s += 10_000
        await stage.looked()
        assert not stage.told("recovery")
        stage.looks("no_answer")
        await stage.until(lambda: stage.told("recovery.started"))

    stage.play(scene)


def test_one_at_a_time(stage: Stage) -> None:
    async def scene() -> None:
        stage.looks("no_answer")
        await stage.until(lambda: "camera.no_answer" in stage.codes())
        first = asyncio.create_task(stage.command("device.recover", device="cam"))
        await stage.until(lambda: stage.told("recovery.started"))
        second = await stage.command("device.recover", device="cam")
        assert (second["state"], second["code"]) == ("refused", "running")
        assert (await first)["code"] == "not_healed"

    stage.play(scene)


def test_hands_that_dies_in_a_step_is_no_cure_and_no_end(stage: Stage) -> None:
    async def scene() -> None:
        stage.looks("no_answer")
        await stage.until(lambda: "camera.no_answer" in stage.codes())
        wish = stage.command("device.recover", device="cam", step="reauthorize")
        recovering = asyncio.create_task(wish)
        await stage.until(lambda: "off 1-1.2" in stage.kernel.log)
        assert stage.hands is not None
        stage.hands.kill()
        stage.hands.wait()
        answer = await recovering
        assert answer["state"] in ("failed", "refused")
        assert answer["code"] == "hands_lost"
        await stage.until(lambda: "on 1-1.2" in stage.kernel.log, "left off the bus")
        stage.start_hands()
        await stage.until(lambda: stage.agent.hands and stage.agent.hands.lost_s is None)
        await stage.until(lambda: not stage.held_back())
        stage.cures = {"on 1-1.2"}
        answer = await stage.command("device.recover", device="cam", step="reauthorize")
        assert answer["effect"]["healed"] is True

    stage.play(scene, hands="process")


def test_a_try_that_the_disk_does_not_record_is_not_made_by_the_agent(stage: Stage) -> None:
    async def scene() -> None:
        async def full(name: str, body: bytes) -> bool:
            return False

        stage.agent.recovery._keep = full
        stage.looks("no_answer")
        await stage.until(lambda: "camera.no_answer" in stage.codes())
        stage.later_s += 11
        await stage.looked()
        await stage.until(lambda: not stage.agent.recovery._history.running)
        assert not stage.told("recovery")
        answer = await stage.command("device.recover", device="cam", step="reopen")
        assert answer["code"] == "not_healed", "a person sees what happens"

    stage.play(scene)


def test_a_silent_microphone_of_a_model_that_is_known_for_it_is_cured(tmp_path: Path) -> None:
    """Silence alone is none of the agent's business: it may be meant."""
    more = """
[microphone.mic]
source = "hw:7"
period_s = 1
raise_s = 0
clear_s = 0
recover_after_s = 10
profile = "{profile}"
"""
    stage = Stage(tmp_path, more=more.format(profile="logitech-brio"))
    remedy_codes = {}
    for profile in ("logitech-brio", "logitech-c920"):
        text = stage.config.read_text().replace("logitech-brio", profile)
        stage.config.write_text(text)
        agent = stage.new_agent()
        device = next(d for d in agent.room.devices if d.id == "mic")
        remedy_codes[profile] = agent.recovery._remedy.curable(device)
        asyncio.run(agent._store.close(timeout_s=1))
    assert "microphone.silent" in remedy_codes["logitech-brio"]
    assert "microphone.silent" not in remedy_codes["logitech-c920"]


PLAN = tuple(Planned(s, ("cam",)) for s in LADDER)
FAULTY, FINE = Seen(frozenset({"camera.no_answer"})), Seen()


@pytest.mark.parametrize(
    ("ask", "before", "plan", "expected"),
    [
        ({}, FAULTY, PLAN, "reopen rebind reauthorize usb_reset power_cycle"),
        ({"by": "agent"}, FAULTY, PLAN, "reopen rebind reauthorize usb_reset power_cycle"),
        # A press of the button is worth one step, and nothing is opened.
        ({"glass": True}, FAULTY, PLAN, "rebind"),
        ({"glass": True, "only": Step.USB_RESET}, FAULTY, PLAN[3:4], "usb_reset"),
        ({"glass": True}, Seen(known=False, held=True), PLAN, "rebind"),
        ({}, Seen(known=False, held=True), PLAN, "in_use"),
        ({}, FINE, PLAN, "not_needed"),
        ({"only": Step.REBIND}, FINE, PLAN[1:2], "rebind"),
        ({"by": "agent"}, Seen(known=False), PLAN, "not_checked"),
        ({"by": "agent"}, FAULTY, PLAN[:1], "no_step"),
        ({}, FAULTY, PLAN[:1], "reopen"),
        ({}, FAULTY, (replace(PLAN[4], why_not="no_switch"),), "no_step"),
    ],
)
def test_which_steps_are_taken(
    ask: dict[str, Any], before: Seen, plan: tuple[Planned, ...], expected: str
) -> None:
    try:
        steps = _chosen(Ask("cam", **{"by": "tester", **ask}), before, plan)
        found = " ".join(str(p.step) for p in steps)
    except Refused as refusal:
        found = refusal.code
    assert found == expected
