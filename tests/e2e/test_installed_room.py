"""`hearing-room run --services`: as on an installed box, but without systemd: no file yet, a file
that is wrong, and a worker that is reached through a socket."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e_stage import Agent, wait_for

from agent import settings
from agent.cli import run
from agent.kinds import load
from agent.lanes.watch import service_lane
from agent.model import Device

ROOM = '[room]\nsite = "test"\nid = "room-01"\nlanguage = "en"\n'


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Agent]:
    """A box that nobody has described yet."""
    agent = Agent(tmp_path, "", None)
    agent.config.unlink()
    yield agent
    if agent.process is not None and agent.process.poll() is None:
        agent.kill()


def start(box: Agent) -> None:
    with (box.folder / "agent.log").open("ab") as log:
        words = [sys.executable, "-m", "agent", "run", "--services", f"--config={box.config}"]
        box.process = subprocess.Popen(words, env=box.env, stderr=log)


def status(box: Agent) -> dict[str, Any]:
    try:
        return dict(json.loads((box.folder / "run/status.json").read_text()))
    except (OSError, ValueError):
        return {}


def codes(box: Agent) -> set[str]:
    return {r["code"] for r in (status(box).get("readiness") or {}).get("reasons", [])}


def test_a_box_without_a_room_says_so_and_begins_when_it_gets_one(box: Agent) -> None:
    start(box)
    wait_for(lambda: "agent.nothing_configured" in codes(box), 30)
    told = status(box)
    assert told["readiness"]["state"] == "unknown"
    assert told["room"]["commissioned"] is False
    assert told["room"]["trouble"] is None
    assert told["broker"] is None
    shown = box.command("status")
    assert shown.returncode == 3
    assert "hearing-room adopt" in shown.stdout

    # A wrong file: the agent ends, and whoever starts it again gets one that says what is wrong.
    box.config.write_text(ROOM + "[camera.front]\nsource = 1\n")
    assert box.process is not None
    assert box.process.wait(30) == 0
    start(box)
    wait_for(lambda: "agent.config_wrong" in codes(box), 30)
    assert "camera.front.source" in status(box)["room"]["trouble"]
    shown = box.command("status")
    assert shown.returncode == 3
    assert "camera.front.source" in shown.stdout
    assert "config check" in " ".join(shown.stdout.split())
    assert "camera.front.source" in box.log

    # Mended: the room is what the file says.
    box.config.write_text(ROOM)
    assert box.process.wait(30) == 0
    start(box)
    wait_for(lambda: (status(box).get("room") or {}).get("commissioned") is True, 30)
    assert status(box)["room"]["id"] == "room-01"
    assert "agent.config_wrong" not in codes(box)
    assert box.stop() == 0


def test_the_wish_to_restart_the_box_lies_where_systemd_waits_for_it(box: Agent) -> None:
    box.config.write_text(ROOM)
    wish = box.folder / "run/reboot-requested"
    wish.parent.mkdir(exist_ok=True)
    wish.touch()  # nobody took it before
    start(box)
    wait_for(lambda: status(box).get("room"), 30)
    assert not wish.exists()
    asked = box.command("command", "box.reboot", "--reason", "stuck")
    assert asked.returncode == 0, asked.stderr
    assert "reboots_in_s" in asked.stdout
    wait_for(wish.exists, 10)
    assert box.stop() == 0
    # By hand nobody waits for it.
    box.start()
    wait_for(lambda: status(box).get("room"), 30)
    refused = box.command("command", "box.reboot")
    assert refused.returncode != 0
    assert "install.sh" in refused.stderr + refused.stdout
    assert box.stop() == 0


def test_by_hand_a_missing_room_is_a_wrong_configuration(box: Agent) -> None:
    box.start()
    assert box.process is not None
    assert box.process.wait(30) == run.CONFIG


def test_pins_that_cannot_be_are_a_wrong_configuration_too(tmp_path: Path) -> None:
    file = tmp_path / "room.toml"
    file.write_text(ROOM + "[relay.a]\npin = 4\nfeedback_pin = 5\n[button.b]\npin = 5\n")
    room = run.installed_room(file)
    assert not room.commissioned
    assert "GPIO 5" in room.trouble


def test_a_box_without_a_room_lights_its_own_led(tmp_path: Path) -> None:
    led = tmp_path / "sys/class/leds/ACT"
    led.mkdir(parents=True)
    (led / "brightness").touch()
    room = settings.uncommissioned(tmp_path / "room.toml", root=tmp_path)
    (light,) = [d for d in room.devices if d.kind == "indicator"]
    assert light.settings.led == "ACT"
    assert not any(d.required for d in room.devices)
    without = settings.uncommissioned(tmp_path / "room.toml", root=tmp_path / "sys")
    assert {d.kind for d in without.devices} == {"host", "network"}


def device(kind: str, name: str, **table: Any) -> Device:
    made = load(kind).Settings(**table)
    return Device(id=name, kind=kind, settings=made)


def test_a_worker_is_reached_through_the_socket_of_its_kind(tmp_path: Path) -> None:
    """The very worker that systemd starts, by a stand-in for `Accept=yes`: its standard input and
    output are the connection."""
    answered = asyncio.run(_ask(tmp_path, "senses.sock", device("microphone", "m", source="hw:7")))
    assert answered == "senses"
    camera = device("camera", "cam-far", source="rtsp://192.0.2.1/stream")
    assert asyncio.run(_ask(tmp_path, "netcam-cam-far.sock", camera)) == "netcam"


async def _ask(folder: Path, name: str, asked: Device) -> str:
    variant = name.removesuffix(".sock").partition("-")[0]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / name))
        listener.listen()
        children: list[subprocess.Popen[bytes]] = []

        def accept() -> None:
            connection, _ = listener.accept()
            with connection:
                code = "import sys; from agent.lanes.worker import main; sys.exit(main())"
                command = [sys.executable, "-P", "-s", "-c", code, "--variant", variant]
                fd = connection.fileno()
                environ = {**os.environ, "PYTHONPATH": str(Path(run.__file__).parents[2])}
                child = subprocess.Popen(command, stdin=fd, stdout=fd, env=environ)
                children.append(child)

        thread = threading.Thread(target=accept)
        thread.start()
        lane = service_lane(asked, folder)
        reading = await lane.ask(
            device=asked.id,
            kind="microphone",
            settings={"source": "file:/nonexistent.wav"},
            ask="look",
            deadline_s=5.0,
            words=(),
        )
        assert reading.why not in ("no_worker", "broke_rules"), reading
        assert lane.hello is not None
        assert lane.hello.pid == children[0].pid
        await lane.close()
        thread.join(5)
        assert children[0].wait(10) == 0, "the end of the connection ends the worker"
    return variant
