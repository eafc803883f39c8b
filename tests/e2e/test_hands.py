"""Relays, lights and button with the real agent, the real hands and a real broker; the pins are
gpiozero's simulated ones, in the process of hands."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from e2e_stage import Agent, Broker, Listener, running, wait_for

from agent import control
from agent.lanes import wire
from agent.link import contract

CONFIG = """
[host]
period_s = 3600
[network.network]
period_s = 3600
gateway = false
[relay.lamp]
pin = 26
period_s = 1
pulse_s = 0.3
[relay.left]
pin = 20
group = "blind"
wait_ms = 200
[relay.right]
pin = 21
group = "blind"
wait_ms = 200
min_on_s = 600
[indicator.status]
red = 17
green = 27
period_s = 1
[indicator.door]
role = "door"
pin = 22
period_s = 1
[button.button]
pin = 4
period_s = 1
"""


@pytest.fixture
def room(tmp_path: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agent]:
    monkeypatch.setenv("GPIOZERO_PIN_FACTORY", "mock")
    agent = Agent(tmp_path, CONFIG, broker.port)
    yield agent
    for pid in hands_of(agent):
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda pid=pid: not alive(pid), 10)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def hands_of(agent: Agent) -> list[int]:
    """Processes of hands that belong to an agent's folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"agent.hands.main" in words and str(agent.config).encode() in words:
                found.append(int(entry.name))
    return found


def command(agent: Agent, name: str, **args: Any) -> dict[str, Any]:
    socket = agent.folder / "run/control.sock"
    reason = args.pop("reason", "")
    request = {"command": name, "args": args, "by": "tester", "reason": reason}
    return list(control.request(socket, request, timeout_s=10))[-1]


def ask_hands(agent: Agent, kind: str, ask: str, **args: Any) -> dict[str, Any]:
    """One question from outside, as somebody who looks over hands' shoulder."""
    import socket

    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(str(agent.folder / "run/hands.sock"))
        lines = sock.makefile("rb")
        lines.readline()
        sock.sendall(wire.encode_question(wire.Question(1, kind, ask, 5.0, args)))
        return dict(json.loads(lines.readline()))


def pattern(agent: Agent, light: str = "status") -> str:
    return str(ask_hands(agent, "indicator", "read", light=light)["values"].get("pattern"))


def ready(listener: Listener) -> None:
    wait_for(lambda: listener.last("device/lamp").get("level") == "ok", 30, "no relay reading")


def test_a_command_over_the_broker_switches_reads_back_and_is_answered(
    room: Agent, listener: Listener
) -> None:
    with running(room):
        ready(listener)
        assert {"relay.set", "relay.pulse", "locate"} <= set(listener.last("about")["capabilities"])
        id_ = uuid.uuid4().hex
        args = {"relay": "lamp", "on": True}
        wish = {"v": 1, "id": id_, "command": "relay.set", "args": args, "by": "op@central"}
        listener.publish("command", {**wish, "reason": "test"}, retain=False)
        result = wait_for(lambda: listener.last("result"), 10)
        assert (result["id"], result["state"], result["code"]) == (id_, "done", "ok")
        assert result["effect"] == {"relay": "lamp", "on": True}
        wait_for(lambda: listener.events("relay.switched"), 10)
        (event,) = listener.events("relay.switched")
        facts = {k: event[k] for k in ("device", "before", "after", "cause", "by", "reason")}
        assert facts == {
            "device": "lamp",
            "before": False,
            "after": True,
            "cause": "command",
            "by": "op@central",
            "reason": "test",
        }
        wait_for(lambda: listener.last("device/lamp")["readings"]["on"] is True, 10)
        # The same id again, off this time: the stored result, and nothing moves.
        count = len(listener.messages)
        wish["args"] = {"relay": "lamp", "on": False}
        listener.publish("command", wish, retain=False)
        wait_for(lambda: any(s == "result" for s, *_ in listener.messages[count:]), 10)
        again = next(d for s, d, _ in listener.messages[count:] if s == "result")
        assert again == result
        assert ask_hands(room, "relay", "read", relay="lamp")["values"]["on"] is True
    for suffix, document, _ in listener.messages:
        if document is not None and suffix.partition("/")[0] in contract.PAYLOADS:
            shape = contract.PAYLOADS[suffix.partition("/")[0]]
            if suffix != "status":
                shape.model_validate_json(json.dumps(document))


@pytest.mark.parametrize(
    ("wish", "state", "code"),
    [
        ({"command": "relay.set", "args": {"relay": "lamp", "on": "true"}}, "refused", "bad_arg"),
        ({"command": "relay.set", "args": {"relay": "x", "on": True}}, "refused", "unknown_relay"),
        ({"command": "relay.set", "args": {"relay": "lamp"}}, "refused", "bad_argument"),
        ({"command": "check", "args": {"devise": "lamp"}}, "refused", "unknown_argument"),
        ({"command": "shell", "args": {}}, "refused", "unknown_command"),
        ({"command": "mode.set", "args": {"mode": "recess"}}, "refused", "not_allowed"),
        ({"command": "incident.ack", "args": {"code": "camera.black"}}, "refused", "no_incident"),
        ({"command": "locate", "args": {"seconds": 5}}, "done", "ok"),
        ({"command": "report"}, "done", "ok"),
        ({"command": "check", "args": {"device": "lamp"}}, "done", "ok"),
        ({"args": {}}, "refused", "bad_request"),
        ({"command": "report", "ttl_s": -1}, "refused", "bad_request"),
    ],
)
def test_every_wish_gets_one_answer(
    room: Agent, listener: Listener, wish: dict[str, Any], state: str, code: str
) -> None:
    with running(room):
        ready(listener)
        listener.publish("command", {"v": 1, "id": "one", **wish}, retain=False)
        result = wait_for(lambda: listener.last("result"), 10)
        assert (result["id"], result["state"]) == ("one", state)
        assert result["code"].startswith(code)
        kind = f"command.{state}"
        wait_for(lambda: listener.events(kind), 10, "no record of it")


def test_a_retained_command_is_never_carried_out(room: Agent, listener: Listener) -> None:
    args = {"relay": "lamp", "on": True}
    wish = {"v": 1, "id": "old", "command": "relay.set", "args": args}
    listener.publish("command", wish, retain=True)
    with running(room):
        ready(listener)
        listener.publish("command", {**wish, "id": "new"}, retain=True)
        result = wait_for(lambda: listener.last("result"), 10)
        assert (result["id"], result["state"], result["code"]) == ("new", "refused", "retained")
        assert ask_hands(room, "relay", "read", relay="lamp")["values"]["on"] is False
        listener.publish("command", {**wish, "id": "live"}, retain=False)
        wait_for(lambda: listener.last("result").get("id") == "live", 10)
        assert listener.last("result")["state"] == "done"
    listener.publish("command", None, retain=True)


def test_what_is_dangerous_is_not_for_all_rooms_at_once(room: Agent, listener: Listener) -> None:
    def broadcast(document: dict[str, Any]) -> None:
        topic = "hearing/v1/test/_all/command"
        listener.client.publish(topic, json.dumps(document), qos=1).wait_for_publish(10)

    with running(room):
        ready(listener)
        args = {"relay": "lamp", "on": True}
        broadcast({"v": 1, "id": "a", "command": "relay.set", "args": args})
        wait_for(lambda: listener.last("result").get("code") == "not_broadcast", 10)
        broadcast({"v": 1, "id": "b", "command": "locate", "args": {"seconds": 5}})
        wait_for(lambda: listener.last("result").get("state") == "done", 10)
        wait_for(lambda: pattern(room) == "locate", 5)


def test_of_a_group_one_goes_on_after_the_other_went_off(room: Agent, listener: Listener) -> None:
    with running(room):
        ready(listener)
        assert command(room, "relay.set", relay="left", on=True)["state"] == "done"
        answer = command(room, "relay.set", relay="right", on=True)
        assert answer["effect"] == {"relay": "right", "on": True}
        assert ask_hands(room, "relay", "read", relay="left")["values"]["on"] is False
        refused = command(room, "relay.set", relay="left", on=True)
        assert (refused["state"], refused["code"]) == ("refused", "interlocked")
        assert "may not go off yet" in refused["message"]
        wait_for(lambda: len(listener.events("relay.switched")) == 3, 10)
        causes = [(e["device"], e["cause"]) for e in listener.events("relay.switched")]
        assert causes == [("left", "command"), ("left", "interlock"), ("right", "command")]


def test_a_pulse_comes_back_and_both_ways_are_recorded(room: Agent, listener: Listener) -> None:
    with running(room):
        ready(listener)
        answer = command(room, "relay.pulse", relay="lamp", reason="router hung")
        assert answer["effect"]["on"] is True
        wait_for(lambda: len(listener.events("relay.switched")) == 2, 10)
        assert [(e["after"], e["cause"]) for e in listener.events("relay.switched")] == [
            (True, "pulse"),
            (False, "pulse_end"),
        ]
        assert {e["reason"] for e in listener.events("relay.switched")} == {"router hung"}


def hearing(listener: Listener, *, running: bool) -> None:
    now = datetime.now(UTC)
    times = (now - timedelta(minutes=1), now + timedelta(hours=1))
    entry = {"id": "HS-1", "starts": times[0].isoformat(), "ends": times[1].isoformat()}
    listener.publish("schedule", {"v": 1, "hearings": [entry] if running else []}, retain=True)
    mode = "in_session" if running else "idle"
    wait_for(lambda: listener.last("readiness").get("mode") == mode, 10)


def test_in_session_nothing_moves_and_the_door_lamp_burns(room: Agent, listener: Listener) -> None:
    with running(room):
        ready(listener)
        wait_for(lambda: pattern(room, "door") == "dark", 10)
        hearing(listener, running=True)
        wait_for(lambda: pattern(room, "door") == "door", 10)
        wait_for(lambda: pattern(room) == "dark", 10, "quiet in session")
        for name, args in (
            ("relay.set", {"relay": "lamp", "on": True}),
            ("relay.pulse", {"relay": "lamp"}),
        ):
            answer = command(room, name, **args)
            assert (answer["state"], answer["code"]) == ("refused", "session_lock")
        broken = command(room, "relay.set", relay="lamp", on=True, break_glass=True, reason="fire")
        assert broken["code"] == "not_held", "nobody holds the button"
        silent = command(room, "relay.set", relay="lamp", on=True, break_glass=True)
        assert silent["code"] == "no_reason"
        assert command(room, "mode.set", mode="maintenance")["code"] == "in_session"
        assert command(room, "agent.restart")["code"] == "in_session"
        wait_for(lambda: len(listener.events("command.refused")) == 6, 10)
        assert not listener.events("relay.switched")
        # The agent dies in mid-hearing: the door lamp holds, nothing is said of the room.
        room.kill()
        wait_for(lambda: pattern(room) == "monitor_lost", 15)
        assert pattern(room, "door") == "door"
        room.start()
        wait_for(lambda: pattern(room) == "dark", 30)
        hearing(listener, running=False)
        wait_for(lambda: pattern(room, "door") == "dark", 10)
        assert command(room, "relay.set", relay="lamp", on=True)["state"] == "done"


def test_relays_outlive_a_crash_and_a_new_agent_finds_them(room: Agent, listener: Listener) -> None:
    with running(room):
        ready(listener)
        command(room, "relay.set", relay="lamp", on=True)
        (hands,) = hands_of(room)
        room.kill()
        assert ask_hands(room, "relay", "read", relay="lamp")["values"]["readback_on"] is True
        room.start()
        count = len(listener.messages)
        wait_for(lambda: any(s == "device/lamp" for s, *_ in listener.messages[count:]), 30)
        wait_for(lambda: listener.last("device/lamp")["readings"].get("on") is True, 10)
        assert hands_of(room) == [hands], "the same one"
        assert len({e["n"] for e in listener.events("relay.switched")}) == 1, "told twice"
        assert room.stop() == 0
        wait_for(lambda: not alive(hands), 10, "a clean stop ends it")


def test_lost_hands_are_told_started_again_and_know_their_relays(
    room: Agent, listener: Listener
) -> None:
    with running(room):
        ready(listener)
        command(room, "relay.set", relay="lamp", on=True)
        (hands,) = hands_of(room)
        os.kill(hands, signal.SIGSTOP)
        try:
            wait_for(lambda: "agent.hands_lost" in listener.codes(), 40)
            wait_for(lambda: "relay.no_answer" in listener.codes(), 30)
        finally:
            os.kill(hands, signal.SIGCONT)
        wait_for(lambda: "agent.hands_lost" not in listener.codes(), 40)
        os.kill(hands, signal.SIGKILL)
        wait_for(lambda: hands_of(room) not in ([], [hands]), 20, "not started again")
        wait_for(lambda: listener.last("device/lamp").get("level") == "ok", 20)
        read = wait_for(lambda: ask_hands(room, "relay", "read", relay="lamp"), 10)
        assert read["values"]["on"] is True, "the same boot: it is as it was"


def test_a_changed_room_is_read_again_without_touching_what_stays(
    room: Agent, listener: Listener
) -> None:
    with running(room):
        ready(listener)
        command(room, "relay.set", relay="lamp", on=True)
        (hands,) = hands_of(room)
        room.kill()
        text = room.config.read_text()
        room.config.write_text(text.replace("[relay.left]\npin = 20", "[relay.left]\npin = 19"))
        room.start()
        wait_for(lambda: (room.folder / "run/control.sock").exists(), 20)
        wait_for(lambda: "layout" in room.log and "read again" in room.log, 30)
        assert hands_of(room) == [hands]
        assert ask_hands(room, "relay", "read", relay="lamp")["values"]["on"] is True
        answer = wait_for(lambda: command(room, "relay.set", relay="left", on=True), 10)
        assert answer["state"] == "done"


def test_the_lights_follow_the_room_and_locate(room: Agent, listener: Listener) -> None:
    with running(room):
        ready(listener)
        wait_for(lambda: pattern(room) not in ("None", "monitor_lost"), 10)
        assert command(room, "locate", seconds=30)["state"] == "done"
        wait_for(lambda: pattern(room) == "locate", 5)
        assert command(room, "locate", seconds=0)["state"] == "done"
        wait_for(lambda: pattern(room) != "locate", 5)
        assert command(room, "mode.set", mode="maintenance", minutes=5)["state"] == "done"
        wait_for(lambda: pattern(room) == "maintenance", 5)
        assert listener.last("readiness")["mode"] == "maintenance"
        room.kill()
        wait_for(lambda: pattern(room) == "monitor_lost", 15)
        room.start()
        wait_for(lambda: pattern(room) == "maintenance", 30, "a restart forgets it not")
        assert command(room, "mode.set", mode="auto")["state"] == "done"
        wait_for(lambda: listener.last("readiness")["mode"] == "idle", 10)


def test_hands_goes_when_its_folder_is_gone(room: Agent, listener: Listener) -> None:
    with running(room):
        ready(listener)
        (hands,) = hands_of(room)
        room.kill()
        time.sleep(0.05)
        assert alive(hands)
        subprocess.run(["rm", "-r", str(room.folder / "run")], check=True)
        wait_for(lambda: not alive(hands), 20)


def test_without_gpio_everything_else_runs_and_the_missing_piece_is_named(
    tmp_path: Path, broker: Broker, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    if list(Path("/dev").glob("gpiochip*")):
        pytest.skip("there is GPIO here")
    monkeypatch.delenv("GPIOZERO_PIN_FACTORY", raising=False)
    agent = Agent(tmp_path, CONFIG, broker.port)
    with running(agent):
        wait_for(lambda: "relay.absent" in listener.codes(), 30)
        wait_for(lambda: {"indicator.absent", "button.absent"} <= listener.codes(), 20)
        assert listener.last("device/host").get("level"), "the rest goes on"
        answer = command(agent, "relay.set", relay="lamp", on=True)
        assert (answer["state"], answer["code"]) == ("failed", "absent")
        assert agent.log.count("no GPIO here") == 1
        assert "GPIOZERO_PIN_FACTORY=mock" in agent.log
        doctor = agent.command("doctor", "--config", str(agent.config), "--json").stdout
        lines = [json.loads(line) for line in doctor.splitlines()]
        assert any(line["what"] == "gpio" and "group gpio" in line["fix"] for line in lines)
