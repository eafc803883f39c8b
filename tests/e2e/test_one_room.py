"""One room, end to end: real processes, a real broker, real clips."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from e2e_stage import Agent, Broker, Listener, running, wait_for

from agent.link import contract

pytestmark = pytest.mark.broker
FAST = "period_s = 1\nraise_s = 1\nclear_s = 1\n"


def camera(source: Path, more: str = "") -> str:
    return f'\n[camera.cam]\nsource = "file:{source}"\n{FAST}{more}'


def without_clock(listener: Listener) -> set[str]:
    """The reasons, less what is true of the machine that runs the test."""
    return {c for c in listener.codes() if not c.startswith(("host.", "network."))}


def test_a_frozen_clip_makes_the_room_not_ready_and_a_healthy_one_heals_it(
    tmp_path: Path, clips: Path, broker: Broker, listener: Listener
) -> None:
    clip = tmp_path / "live.avi"
    shutil.copy(clips / "frozen/camera.avi", clip)
    with running(Agent(tmp_path, camera(clip), broker.port)):
        wait_for(lambda: "camera.frozen" in listener.codes(), 60, "frozen is not noticed")
        assert listener.last("readiness")["state"] == "not_ready"
        (reason,) = [
            r for r in listener.last("readiness")["reasons"] if r["code"] == "camera.frozen"
        ]
        assert reason["device"] == "cam"
        assert listener.last("device/cam")["level"] == "fail"
        late = Listener(broker.port)
        kept = {s for s, _, retained in late.messages if retained}
        wait_for(
            lambda: (
                {s for s, _, r in late.messages if r}
                >= {"about", "status", "readiness", "device/cam", "device/host", "device/network"}
            ),
            10,
            f"retained are only {kept}",
        )
        late.close()
        fresh = tmp_path / "fresh.avi"
        shutil.copy(clips / "none/camera.avi", fresh)
        fresh.replace(clip)
        wait_for(lambda: listener.last("device/cam")["level"] == "ok", 60, "not healed")
        wait_for(lambda: not without_clock(listener), 10, "a reason is left")
        assert listener.last("readiness")["state"] in ("ready", "at_risk")
    opened = [e for e in listener.events("incident.opened") if e["code"] == "camera.frozen"]
    closed = [e for e in listener.events("incident.closed") if e["code"] == "camera.frozen"]
    assert len(opened) == len(closed) == 1
    for suffix, document, _ in listener.messages:
        if document is not None and suffix != "status":
            shape = contract.PAYLOADS[suffix.partition("/")[0]]
            shape.model_validate_json(json.dumps(document))


def test_a_killed_agent_leaves_its_will_and_goes_on_where_it_was(
    tmp_path: Path, clips: Path, broker: Broker, listener: Listener
) -> None:
    agent = Agent(tmp_path, camera(clips / "frozen/camera.avi"), broker.port)
    with running(agent):
        wait_for(lambda: "camera.frozen" in listener.codes(), 60)
        wait_for(lambda: listener.events("incident.opened"), 10)
        birth = listener.last("status")
        agent.kill()
        lost = wait_for(lambda: listener.last("status").get("state") == "lost", 60)
        assert lost
        assert listener.last("status")["session"] == birth["session"]
        assert agent.command("status", "--json").returncode == 3
        before = len(listener.messages)
        agent.start()
        wait_for(lambda: listener.last("status").get("state") == "online", 30)
        assert listener.last("status")["session"] != birth["session"]
        wait_for(lambda: "readiness" in {s for s, *_ in listener.messages[before:]}, 20)
        first = next(d for s, d, _ in listener.messages[before:] if s == "readiness")
        assert first is not None
        assert first["state"] == "not_ready", "what was open is open from the start"
        wait_for(lambda: any(s == "event" for s, *_ in listener.messages[before:]), 20)
    opened = [e for e in listener.events("incident.opened") if e["code"] == "camera.frozen"]
    assert len({e["n"] for e in opened}) == 1
    numbers = sorted({e["n"] for e in listener.events()})
    assert numbers == list(range(1, len(numbers) + 1))


def test_no_event_is_lost_while_the_broker_is_away_and_the_agent_is_killed(
    tmp_path: Path, clips: Path, broker: Broker, listener: Listener
) -> None:
    agent = Agent(
        tmp_path,
        camera(clips / "none/camera.avi", "period_s = 3600\n").replace("period_s = 1\n", "", 1),
        broker.port,
    )
    with running(agent):
        wait_for(lambda: listener.last("device/cam").get("level") == "ok", 60)
        broker.stop()
        for number in range(200):
            _report(agent)
            if number == 100:
                agent.kill()
                agent.start()
                wait_for(lambda: (tmp_path / "run/control.sock").exists(), 20)
                wait_for(lambda: _answers(agent), 20)
        broker.start()
        wait_for(lambda: listener.last("status").get("state") == "online", 60)
        wait_for(lambda: len(listener.events("command.done")) >= 200, 90)
        numbers = sorted({e["n"] for e in listener.events()})
        assert numbers == list(range(1, numbers[-1] + 1))


def _report(agent: Agent) -> None:
    from agent import control

    socket = agent.folder / "run/control.sock"
    answers = list(control.request(socket, {"command": "report", "args": {}}, timeout_s=10))
    assert answers[-1]["state"] == "done"


def _answers(agent: Agent) -> bool:
    try:
        _report(agent)
    except (OSError, RuntimeError):
        return False
    return True


def test_a_camera_that_hangs_in_open_costs_nothing_else(
    tmp_path: Path, broker: Broker, listener: Listener
) -> None:
    os.mkfifo(tmp_path / "hang.avi")
    config = camera(tmp_path / "hang.avi", "deadline_s = 2\n") + "[host]\nperiod_s = 1\n"
    with running(Agent(tmp_path, config, broker.port)) as agent:
        wait_for(lambda: "camera.no_answer" in listener.codes(), 60, agent.log)
        assert listener.last("readiness")["state"] == "not_ready"
        asked = listener.last("device/host")["asked"]
        wait_for(lambda: listener.last("device/host")["asked"] != asked or _telemetry(listener), 70)
        began = time.monotonic()
        answer = agent.command("check", "--json", "host")
        assert answer.returncode in (0, 1), answer.stderr
        assert time.monotonic() - began < 5


def _telemetry(listener: Listener) -> bool:
    return "host" in listener.last("telemetry")


def test_in_session_nothing_is_opened(
    tmp_path: Path, clips: Path, broker: Broker, listener: Listener
) -> None:
    agent = Agent(tmp_path, camera(clips / "none/camera.avi"), broker.port)
    with running(agent):
        wait_for(lambda: listener.last("device/cam").get("level") == "ok", 60)
        now = datetime.now(UTC)
        listener.publish(
            "schedule",
            {
                "v": 1,
                "hearings": [
                    {
                        "id": "HS-1",
                        "starts": (now - timedelta(minutes=1)).isoformat(),
                        "ends": (now + timedelta(hours=1)).isoformat(),
                    }
                ],
            },
            retain=True,
        )
        wait_for(lambda: listener.last("readiness").get("mode") == "in_session", 10)
        wait_for(lambda: listener.last("device/cam").get("fault") == "skipped: in_session", 10)
        since_s = listener.last("readiness")["ts"]

        def looks() -> int:  # those of before are told late, in company
            return sum(e["ts"] > since_s for e in listener.events("look.started"))

        answer = agent.command("check", "--json", "cam")
        assert answer.returncode == 3
        refused = agent.command("check", "--json", "camera:/dev/video0")
        assert refused.returncode == 3
        time.sleep(2)  # two periods
        assert looks() == 0
        # A restart in mid-session knows the schedule from its own disk, and opens nothing.
        agent.kill()
        agent.start()
        wait_for(lambda: listener.last("readiness").get("mode") == "in_session", 30)
        wait_for(lambda: "agent.no_evidence" in listener.codes(), 20)
        assert looks() == 0
        assert agent.workers() == []
        listener.publish("schedule", {"v": 1, "hearings": []}, retain=True)
        wait_for(lambda: listener.last("readiness").get("mode") == "idle", 10)
        wait_for(lambda: looks() > 0, 20)
        wait_for(lambda: listener.last("device/cam").get("level") == "ok", 30)


def test_a_clean_stop_says_so_and_leaves_nothing_behind(
    tmp_path: Path, clips: Path, broker: Broker, listener: Listener
) -> None:
    agent = Agent(tmp_path, camera(clips / "none/camera.avi"), broker.port)
    with running(agent):
        wait_for(lambda: listener.last("device/cam").get("level") == "ok", 60)
        assert agent.command("status").returncode in (0, 1)
        workers = agent.workers()
        assert agent.stop() == 0
        wait_for(lambda: listener.last("status").get("state") == "stopped", 5)
        assert {p.name for p in (tmp_path / "run").iterdir()} <= {"control.lock"}
        assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
        assert agent.command("status").returncode == 3


def test_nothing_is_published_twice_unchanged(
    tmp_path: Path, clips: Path, broker: Broker, listener: Listener
) -> None:
    agent = Agent(tmp_path, camera(clips / "none/camera.avi"), broker.port)
    with running(agent):
        wait_for(lambda: listener.last("device/cam").get("level") == "ok", 60)
        time.sleep(12)
        by_topic: dict[str, list[str]] = {}
        for suffix, document, _ in list(listener.messages):
            if suffix in ("event", "telemetry") or document is None:
                continue
            labels = {"at", "ts", "up_ms", "asked", "valid_until"}
            said = json.dumps({k: v for k, v in document.items() if k not in labels})
            by_topic.setdefault(suffix, []).append(said)
        for suffix, said in by_topic.items():
            pairs = itertools.pairwise(said)
            assert not any(a == b for a, b in pairs), f"{suffix} was said twice"


def test_a_device_that_left_the_room_is_taken_back_from_the_broker(
    tmp_path: Path, clips: Path, broker: Broker, listener: Listener
) -> None:
    with running(Agent(tmp_path, camera(clips / "none/camera.avi"), broker.port)):
        wait_for(lambda: listener.last("device/cam").get("level") == "ok", 60)
    with running(Agent(tmp_path, "", broker.port)):
        wait_for(lambda: ("device/cam", None, False) in listener.messages, 30)
        late = Listener(broker.port)
        wait_for(lambda: any(s == "device/host" for s, *_ in late.messages), 10)
        assert "device/cam" not in {s for s, *_ in late.messages}
        late.close()


def test_a_room_runs_without_a_broker(tmp_path: Path, clips: Path) -> None:
    with running(Agent(tmp_path, camera(clips / "none/camera.avi"), None)) as agent:

        def cam() -> str:
            status = json.loads(agent.command("status", "--json").stdout or "{}")
            return next((d["level"] for d in status.get("devices", []) if d["id"] == "cam"), "")

        wait_for(lambda: cam() == "ok", 60, agent.log)


def test_a_second_agent_on_the_same_store_is_refused(tmp_path: Path) -> None:
    first = Agent(tmp_path, "", None)
    with running(first):
        wait_for(lambda: (tmp_path / "run/control.sock").exists(), 20)
        second = Agent(tmp_path, "", None)
        second.env["RUNTIME_DIRECTORY"] = str(tmp_path / "elsewhere")
        second.start()
        assert second.process is not None
        assert second.process.wait(20) == 78
        assert "another agent works in" in second.log
    with running(second):  # it may, once the first is gone
        wait_for(lambda: (tmp_path / "elsewhere/control.sock").exists(), 20)


def test_a_wrong_configuration_ends_with_78_and_names_every_mistake(tmp_path: Path) -> None:
    agent = Agent(tmp_path, "\n[camera.cam]\nsource = 3\nperiod = 1\n", None)
    agent.start()
    assert agent.process is not None
    assert agent.process.wait(20) == 78
    assert "camera.cam.source" in agent.log
    assert "camera.cam.period: unknown key; did you mean period_s?" in agent.log
