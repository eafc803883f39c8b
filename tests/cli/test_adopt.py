from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from agent import settings, simulator
from agent.cli import adopt


def usb_camera(root: Path, port: str, number: int) -> None:
    device = root / f"sys/devices/usb1/{port}"
    device.mkdir(parents=True)
    (device / "idVendor").write_text("046d\n")
    (device / "idProduct").write_text("0843\n")
    (device / "product").write_text('Logitech "C930e"\n')
    bus = root / "sys/bus/usb/devices"
    bus.mkdir(parents=True, exist_ok=True)
    (bus / port).symlink_to(device)
    for index in (0, 1):
        node = device / f"{port}:1.0/video4linux/video{number + index}"
        node.mkdir(parents=True)
        (node / "name").write_text("Logitech C930e\n")
        (node / "index").write_text(f"{index}\n")
        (node / "device").symlink_to(device / f"{port}:1.0")
        links = root / "sys/class/video4linux"
        links.mkdir(parents=True, exist_ok=True)
        (links / f"video{number + index}").symlink_to(node)


def test_what_is_plugged_in_becomes_a_room_that_is_in_order(tmp_path: Path) -> None:
    usb_camera(tmp_path, "1-1", 0)
    simulator.make_display(tmp_path)
    tables = adopt.discover(tmp_path)
    assert tables["camera"] == {"cam-1": {"name": 'Logitech "C930e"', "source": "usb:046d:0843"}}
    assert tables["display"]["screen-1"]["connector"] == "HDMI-A-1"
    assert tables["display"]["screen-1"]["expect_manufacturer"] == "VRM"
    room = settings.parse(adopt.text("hcm", "room-01", tables))
    assert {d.id for d in room.devices} == {"cam-1", "screen-1", "host", "network"}


def test_two_cameras_alike_are_told_apart_by_their_port(tmp_path: Path) -> None:
    usb_camera(tmp_path, "1-1", 0)
    usb_camera(tmp_path, "1-2", 2)
    sources = [t["source"] for t in adopt.discover(tmp_path)["camera"].values()]
    assert sources == ["usb:046d:0843@1-1", "usb:046d:0843@1-2"]


def test_an_empty_machine_has_nothing_to_adopt(tmp_path: Path) -> None:
    assert adopt.discover(tmp_path) == {}


def test_an_existing_file_is_never_touched(tmp_path: Path) -> None:
    target = tmp_path / "room.toml"
    target.write_text("mine")
    command = [sys.executable, "-m", "agent", "adopt", "-o", str(target)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert run.returncode == 78
    assert "is kept as it is" in run.stderr
    assert target.read_text() == "mine"


@pytest.mark.parametrize("connected", [True, False])
def test_only_a_display_that_is_there_is_adopted(tmp_path: Path, connected: bool) -> None:
    simulator.make_display(tmp_path, connected=connected)
    assert ("display" in adopt.discover(tmp_path)) is connected
