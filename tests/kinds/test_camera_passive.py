"""What the kernel says of a camera: recorded trees of /sys stand for the hardware."""

from __future__ import annotations

import asyncio
import builtins
import os
from pathlib import Path
from typing import Any

import pytest

from agent.kinds import camera
from agent.kinds.camera import nodes
from agent.model import Fault, Reading


def make_webcam(
    root: Path,
    port: str = "1-1.2",
    usb_id: str = "046d:0843",
    first: int = 0,
    alternate: str = " 0",
    endpoints: str = "00",
) -> Path:
    """A USB webcam as Linux shows it: two interfaces, a capture and a metadata node."""
    device = root / "sys/devices/pci0000:00/usb1" / port
    vid, _, pid = usb_id.partition(":")
    (device / "power").mkdir(parents=True)
    (device / "idVendor").write_text(f"{vid}\n")
    (device / "idProduct").write_text(f"{pid}\n")
    (device / "power/runtime_status").write_text("suspended\n")
    control, stream = device / f"{port}:1.0", device / f"{port}:1.1"
    for folder, subclass in ((control, "01"), (stream, "02")):
        folder.mkdir()
        (folder / "bInterfaceClass").write_text("0e\n")
        (folder / "bInterfaceSubClass").write_text(f"{subclass}\n")
        (folder / "bAlternateSetting").write_text(f"{alternate if subclass == '02' else ' 0'}\n")
        (folder / "bNumEndpoints").write_text(f"{endpoints}\n")
    bus = root / "sys/bus/usb/devices"
    bus.mkdir(parents=True, exist_ok=True)
    for folder in (device, control, stream):
        (bus / folder.name).symlink_to(folder)
    add_node(root, control, first, index=0)
    add_node(root, control, first + 1, index=1)
    return device


def add_node(root: Path, parent: Path, number: int, index: int, card: str = "Webcam") -> None:
    name = f"video{number}"
    entry = parent / "video4linux" / name
    entry.mkdir(parents=True)
    (entry / "device").symlink_to(parent)
    (entry / "name").write_text(f"{card}\n")
    (entry / "index").write_text(f"{index}\n")
    (entry / "dev").write_text(f"81:{number}\n")
    classes = root / "sys/class/video4linux"
    classes.mkdir(parents=True, exist_ok=True)
    (classes / name).symlink_to(entry)
    (root / "dev").mkdir(exist_ok=True)
    (root / "dev" / name).touch()


def ask(source: str, root: Path, **more: Any) -> Reading:
    return asyncio.run(camera.Passive(camera.Settings(source=source, **more), root).read())


def codes(reading: Reading, source: str, **more: Any) -> list[str]:
    return [f.code for f in camera.judge(reading, camera.Settings(source=source, **more))]


def test_a_webcam_that_is_plugged_in_is_present_and_free(tmp_path: Path) -> None:
    make_webcam(tmp_path)
    reading = ask("usb:046d:0843", tmp_path)
    assert reading.fault is None
    assert not reading.active
    assert reading.values == {"present": True, "nodes": 2, "in_use": False, "power": "suspended"}
    assert codes(reading, "usb:046d:0843") == []


def test_a_webcam_that_is_pulled_out_is_absent_until_it_comes_back(tmp_path: Path) -> None:
    empty, full = tmp_path / "empty", tmp_path / "full"
    make_webcam(full)
    gone = ask("usb:046d:0843", empty)
    assert gone.fault is Fault.ABSENT
    assert codes(gone, "usb:046d:0843") == ["camera.absent"]
    assert codes(ask("usb:046d:0843", full), "usb:046d:0843") == []


def test_a_webcam_without_any_video_node_gives_no_picture_and_counts_as_absent(
    tmp_path: Path,
) -> None:
    make_webcam(tmp_path)
    for link in (tmp_path / "sys/class/video4linux").iterdir():
        link.unlink()
    reading = ask("usb:046d:0843", tmp_path)
    assert (reading.fault, reading.values["nodes"]) == (Fault.ABSENT, 0)


def test_an_alternate_setting_says_that_somebody_streams(tmp_path: Path) -> None:
    make_webcam(tmp_path, alternate=" 7", endpoints="01")
    reading = ask("usb:046d:0843", tmp_path)
    assert reading.values["in_use"] is True
    assert codes(reading, "usb:046d:0843") == []


def test_a_bulk_camera_does_not_show_whether_it_streams(tmp_path: Path) -> None:
    make_webcam(tmp_path, endpoints="01")
    assert "in_use" not in ask("usb:046d:0843", tmp_path).values


def test_a_port_tells_two_equal_cameras_apart(tmp_path: Path) -> None:
    make_webcam(tmp_path, port="1-1.2", first=0)
    make_webcam(tmp_path, port="1-1.3", first=2)
    source = camera.Settings(source="usb:046d:0843@1-1.3").where()
    paths = nodes.candidates(source, tmp_path)
    assert [p.name for p in paths] == ["video2", "video3"]
    assert ask("usb:046d:0843@1-1.3", tmp_path).fault is None
    assert ask("usb:046d:0843@1-1.4", tmp_path).fault is Fault.ABSENT


def test_another_device_at_the_port_of_the_camera_is_the_wrong_device(tmp_path: Path) -> None:
    make_webcam(tmp_path, usb_id="534d:2109")
    source = "usb:046d:0843@1-1.2"
    assert codes(ask(source, tmp_path), source) == ["camera.wrong_device"]


def test_a_node_is_found_by_its_name_without_dev(tmp_path: Path) -> None:
    make_webcam(tmp_path)
    (tmp_path / "dev/video0").unlink()  # an installed agent has no device nodes
    assert ask("v4l2:/dev/video0", tmp_path).values["present"] is True
    assert ask("v4l2:/dev/video7", tmp_path).fault is Fault.ABSENT


def test_a_link_by_id_is_found_in_the_udev_database(tmp_path: Path) -> None:
    make_webcam(tmp_path)
    data = tmp_path / "run/udev/data"
    data.mkdir(parents=True)
    (data / "c81:0").write_text("S:v4l/by-id/usb-Webcam-video-index0\nE:ID_MODEL=Webcam\n")
    found = nodes.node_at("/dev/v4l/by-id/usb-Webcam-video-index0", tmp_path)
    assert found is not None
    assert found.name == "video0"
    assert nodes.node_at("/dev/v4l/by-id/other", tmp_path) is None


def test_a_node_of_another_product_is_the_wrong_device(tmp_path: Path) -> None:
    make_webcam(tmp_path)
    right = {"usb_id": "046d:0843"}
    wrong = {"usb_id": "046d:082d"}
    reading = ask("v4l2:/dev/video0", tmp_path, **wrong)
    assert codes(reading, "v4l2:/dev/video0", **wrong) == ["camera.wrong_device"]
    assert codes(ask("v4l2:/dev/video0", tmp_path, **right), "v4l2:/dev/video0", **right) == []


def test_a_file_is_there_or_absent(tmp_path: Path) -> None:
    clip = tmp_path / "clip.avi"
    assert ask(f"file:{clip}", tmp_path).fault is Fault.ABSENT
    clip.touch()
    assert ask(f"file:{clip}", tmp_path).fault is None


def test_of_a_camera_on_the_network_the_kernel_knows_nothing(tmp_path: Path) -> None:
    reading = ask("rtsp://10.0.0.5/live", tmp_path)
    assert (reading.fault, reading.values) == (None, {})


def test_the_passive_part_opens_no_device_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_webcam(tmp_path)
    opened: list[str] = []
    real_open, real_os_open = builtins.open, os.open
    monkeypatch.setattr(
        builtins, "open", lambda f, *a, **k: (opened.append(str(f)), real_open(f, *a, **k))[1]
    )
    monkeypatch.setattr(
        os, "open", lambda f, *a, **k: (opened.append(str(f)), real_os_open(f, *a, **k))[1]
    )
    ask("usb:046d:0843", tmp_path)
    ask("v4l2:/dev/video0", tmp_path)
    assert [p for p in opened if "/dev/" in p] == []


MODES = {"2bd9:ba01": "adapter_only"}


def boot_loader(root: Path, port: str, usb_id: str) -> Path:
    device = root / "sys/bus/usb/devices" / port
    device.mkdir(parents=True)
    vid, _, pid = usb_id.partition(":")
    (device / "idVendor").write_text(f"{vid}\n")
    (device / "idProduct").write_text(f"{pid}\n")
    return device


@pytest.mark.parametrize("source", ["usb:2bd9:a031", "usb:2bd9:a031@1-1.2"])
def test_an_adapter_without_its_camera_is_absent_and_says_so(tmp_path: Path, source: str) -> None:
    device = boot_loader(tmp_path, "1-1.2", "2bd9:ba01")
    reading = ask(source, tmp_path, modes=MODES)
    assert reading.fault is Fault.ABSENT
    assert reading.values == {"present": False, "mode": "adapter_only"}
    assert set(reading.values.values()) - {False} <= camera.WORDS
    (finding,) = camera.judge(reading, camera.Settings(source=source))
    assert (finding.code, finding.numbers["mode"]) == ("camera.absent", "adapter_only")
    for name in ("idVendor", "idProduct"):
        (device / name).unlink()
    device.rmdir()
    assert "mode" not in ask(source, tmp_path, modes=MODES).values
    make_webcam(tmp_path, usb_id="2bd9:a031")
    assert ask(source, tmp_path, modes=MODES).fault is None


def test_a_boot_loader_at_another_port_is_another_device(tmp_path: Path) -> None:
    boot_loader(tmp_path, "1-1.3", "2bd9:ba01")
    assert "mode" not in ask("usb:2bd9:a031@1-1.2", tmp_path, modes=MODES).values
    assert ask("usb:2bd9:a031", tmp_path, modes=MODES).values["mode"] == "adapter_only"
