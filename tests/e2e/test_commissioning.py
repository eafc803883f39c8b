"""The day of commissioning, end to end: recorded by a person, judged by, and never told."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from e2e_stage import Agent, Broker, Listener, running, wait_for

pytestmark = pytest.mark.broker
FAST = "period_s = 1\nraise_s = 1\nclear_s = 1\n"


def turned(clip: Path, target: Path) -> Path:
    """The same clip as a camera sees it that was tilted by a quarter of its view."""
    source = cv2.VideoCapture(str(clip))
    size = tuple(int(source.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    rate = source.get(cv2.CAP_PROP_FPS)
    writer = cv2.VideoWriter(str(target), cv2.VideoWriter.fourcc(*"MJPG"), rate, size)
    while True:
        good, picture = source.read()
        if not good:
            break
        writer.write(np.roll(picture, size[1] * 5 // 18, axis=0))
    writer.release()
    source.release()
    return target


def swap(clip: Path, other: Path) -> None:
    fresh = clip.with_name("fresh.avi")
    shutil.copy(other, fresh)
    fresh.replace(clip)


def fingerprint(folder: Path) -> list[int]:
    with sqlite3.connect(f"file:{folder / 'state/agent.db'}?mode=ro", uri=True) as db:
        for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'"):
            for row in db.execute(f"SELECT * FROM {table}"):
                if "baseline" in row:
                    body = next(v for v in row if isinstance(v, bytes))
                    found: list[int] = json.loads(body)["cam"]["settings"]["baseline_fingerprint"]
                    return found
    raise AssertionError("no baseline in the store")


def lists_of_numbers(value: Any) -> list[list[Any]]:
    if isinstance(value, dict):
        return [found for item in value.values() for found in lists_of_numbers(item)]
    if isinstance(value, list):
        own = [value] if any(isinstance(v, int | float) for v in value) else []
        return own + [found for item in value for found in lists_of_numbers(item)]
    return []


def test_a_camera_that_was_turned_since_commissioning_is_named_and_then_well_again(
    tmp_path: Path, clips: Path, broker: Broker, listener: Listener
) -> None:
    healthy = clips / "none/camera.avi"
    other = turned(healthy, tmp_path / "turned.avi")
    clip = tmp_path / "live.avi"
    shutil.copy(clips / "black/camera.avi", clip)
    config = f'\n[camera.cam]\nsource = "file:{clip}"\n{FAST}'
    agent = Agent(tmp_path, config, broker.port)
    said = []
    with running(agent):
        wait_for(lambda: "camera.black" in listener.codes(), 60, agent.log)
        refused = agent.command("adopt", "--baseline", "--device", "cam", "--json")
        said.append(refused)
        assert refused.returncode == 2
        assert "cam: camera.black; nothing was recorded" in refused.stderr
        swap(clip, healthy)
        wait_for(lambda: listener.last("device/cam").get("level") == "ok", 60)
        done = agent.command("adopt", "--baseline", "--device", "cam", "--json")
        said.append(done)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["effect"] == {"cam": True}
        (event,) = wait_for(lambda: listener.events("baseline.recorded"), 10)
        assert (event["device"], event["anyway"]) == ("cam", False)
        assert event["by"]
        looks = [e for e in listener.events("look.") if e["purpose"] == "baseline"]
        assert [e["type"] for e in looks] == ["look.started", "look.ended"] * 2
        # It is said by somebody who sees the room, not from afar.
        listener.publish("command", {"v": 1, "id": "a", "command": "baseline"}, retain=False)
        wait_for(lambda: listener.last("result").get("code") == "only_at_the_box", 10)
        assert len(listener.events("baseline.recorded")) == 1
        swap(clip, other)
        wait_for(lambda: "camera.moved" in listener.codes(), 60, agent.log)
        assert listener.last("device/cam")["findings"][0]["numbers"]["view_distance"] >= 0.5
        # A restart does not forget the day.
        agent.kill()
        agent.start()
        wait_for(lambda: (tmp_path / "run/control.sock").exists(), 20)
        swap(clip, healthy)
        wait_for(lambda: listener.last("device/cam").get("level") == "ok", 60, agent.log)
        swap(clip, other)
        wait_for(lambda: "camera.moved" in listener.codes(), 60)
        # Turned on purpose: recorded again, it is well.
        again = agent.command("adopt", "--baseline", "--device", "cam", "--language", "en")
        said.append(again)
        assert again.returncode == 0, again.stderr
        assert "cam (cam): recorded" in again.stdout
        wait_for(lambda: listener.last("device/cam").get("level") == "ok", 60)
        table = agent.command("status", "--language", "en").stdout
        assert "Compared with" in table
        status = json.loads((tmp_path / "run/status.json").read_text())
        assert status["baseline"]["cam"]["by"] == event["by"]
        secret = fingerprint(tmp_path)
    opened = [e for e in listener.events("incident.opened") if e["code"] == "camera.moved"]
    closed = [e for e in listener.events("incident.closed") if e["code"] == "camera.moved"]
    assert len({e["n"] for e in opened}) == len({e["n"] for e in closed}) >= 1
    # The fingerprint is in the store, and nowhere else.
    assert len(secret) == 64
    texts = [json.dumps(d) for _, d, _ in listener.messages]
    texts += [agent.log, json.dumps(status), table, agent.config.read_text()]
    texts += [text for run in said for text in (run.stdout, run.stderr)]
    digits = re.compile(r"[,\s]+".join(str(n) for n in secret[:12]))
    for text in texts:
        assert "fingerprint" not in text
        assert not digits.search(text)
    assert lists_of_numbers([d for _, d, _ in listener.messages] + [status]) == []


def test_without_an_agent_nothing_is_recorded(tmp_path: Path) -> None:
    agent = Agent(tmp_path, "", None)
    run = agent.command("adopt", "--baseline")
    assert run.returncode == 3
    assert "hearing-room run" in run.stderr
    for words in (("--device", "cam"), ("--anyway",), ("--baseline", "-o", "x.toml")):
        wrong = agent.command("adopt", *words)
        assert wrong.returncode == 64
        assert "go with --baseline" in wrong.stderr
    assert not (tmp_path / "x.toml").exists()
    assert list((tmp_path / "state").iterdir()) == []
