"""The bench's own pure parts; the box itself is tried by its scenarios (`tests/bench/run`)."""

from __future__ import annotations

import ast
import json
import os
import struct
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench_box import places, recipe, stamp
from bench_box.box import Box
from bench_box.kernel import module_closure
from bench_box.machine import EmulatorError, Machine
from bench_box.qemu import Shape
from bench_hands import usb_microphone, webcam
from bench_hands.usb_device import ECONNRESET, EPIPE, UsbDevice

SETUP_CONFIGURATION = b"\x80\x06\x00\x02\x00\x00\xff\xff"


def submit(device: UsbDevice, setup: bytes, *, length: int = 0xFFFF, data: bytes = b"") -> None:
    """A control transfer as the kernel sends it."""
    inward = setup[0] & 0x80
    size = length if inward else len(data)
    head = struct.pack(">5I", 1, 7, 1, 1 if inward else 0, 0)
    device._packet(bytearray(head + struct.pack(">5i", 0, size, 0, -1, 0) + setup + data))


def answer(device: UsbDevice) -> tuple[int, bytes]:
    """Status and data of what the device has answered."""
    out = bytes(device._out)
    device._out.clear()
    return struct.unpack_from(">i", out, 20)[0], out[48:]


@pytest.fixture
def media(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two pictures and a sound, in place of those of the image."""
    pictures = [bytes([n]) * 10_000 for n in (1, 2)]
    (tmp_path / "live-MJPG-1280x720.bin").write_bytes(b"".join(pictures))
    (tmp_path / "pictures.json").write_text(json.dumps({"live-MJPG-1280x720": [10_000, 10_000]}))
    for mode in usb_microphone.MODES:
        (tmp_path / f"{mode}.pcm").write_bytes(struct.pack("<h", 1_000) * 480)
    for module in (webcam, usb_microphone):
        monkeypatch.setattr(module, "MEDIA", tmp_path)
    return tmp_path


@pytest.fixture(params=["isochronous", "bulk", "microphone"])
def device(request: pytest.FixtureRequest, media: Path) -> UsbDevice:
    del media
    if request.param == "microphone":
        return usb_microphone.UsbMicrophone("mic", usb_microphone.ids())
    ids = webcam.ids()
    ids.take([f"transfer={request.param}"])
    return webcam.Webcam("cam", ids)


def descriptors(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        yield data[1], data[: data[0]]
        data = data[data[0] :]


def test_the_descriptors_of_a_device_fit_into_one_another(device: UsbDevice) -> None:
    submit(device, SETUP_CONFIGURATION)
    status, data = answer(device)
    assert status == 0
    assert struct.unpack_from("<H", data, 2)[0] == len(data)
    kinds = [kind for kind, _ in descriptors(data)]
    interfaces = {body[2] for kind, body in descriptors(data) if kind == 4}
    assert interfaces == set(range(data[4]))
    assert kinds.count(5) == 1  # the one endpoint


def test_a_request_that_a_device_does_not_know_stalls_and_the_next_is_answered(
    device: UsbDevice,
) -> None:
    submit(device, b"\x80\x06\x00\x0f\x00\x00\x05\x00", length=5)  # BOS
    assert answer(device)[0] == EPIPE
    submit(device, b"\x80\x06\x00\x01\x00\x00\x12\x00", length=18)
    assert answer(device)[1][:2] == b"\x12\x01"


def test_a_picture_arrives_whole_in_packets_with_one_end(media: Path) -> None:
    del media
    camera = webcam.Webcam("cam", webcam.ids())
    probe = bytearray(26)
    probe[2:4] = 2, 1  # MJPEG 1280x720
    submit(camera, b"\x21\x01\x00\x02\x01\x00\x1a\x00", data=bytes(probe))
    answer(camera)
    rooms = [3072] * 32
    head = struct.pack(">5I5i8x", 1, 9, 1, 1, 1, 0, sum(rooms), 0, len(rooms), 0)
    packets = b"".join(struct.pack(">4I", 3072 * n, room, 0, 0) for n, room in enumerate(rooms))
    camera._packet(bytearray(head + packets))
    camera.tick()
    _, data = answer(camera)
    used = [struct.unpack_from(">I", data, len(data) - 16 * 32 + 16 * n + 8)[0] for n in range(32)]
    payloads, at = [], 0
    for size in filter(None, used):
        payloads.append(data[at : at + size])
        at += size
    assert b"".join(p[2:] for p in payloads) in (bytes([1]) * 10_000, bytes([2]) * 10_000)
    assert [bool(p[1] & 2) for p in payloads] == [False] * (len(payloads) - 1) + [True]
    assert len({p[1] & 1 for p in payloads}) == 1


def test_a_transfer_that_is_taken_back_is_not_answered(media: Path) -> None:
    del media
    camera = webcam.Webcam("cam", webcam.ids())
    camera._packet(bytearray(struct.pack(">5I5i8x", 1, 9, 1, 1, 1, 0, 512, 0, 0, 0)))
    assert len(camera.pending) == 1
    camera._packet(bytearray(struct.pack(">6I24x", 2, 10, 1, 0, 0, 9)))
    assert camera.pending == []
    assert answer(camera)[0] == ECONNRESET


def test_modules_come_after_what_they_need() -> None:
    depend = "a/uvcvideo.ko.xz: b/videobuf2.ko.xz b/media.ko.xz\nb/videobuf2.ko.xz: b/media.ko.xz\n"
    depend += "b/media.ko.xz:\nc/odd-name.ko.xz:\n"
    order = module_closure(depend, ["uvcvideo", "odd_name", "built_in"])
    assert order == ["b/media.ko.xz", "b/videobuf2.ko.xz", "a/uvcvideo.ko.xz", "c/odd-name.ko.xz"]


def test_the_wheelhouse_has_all_that_the_project_needs() -> None:
    project = tomllib.loads((places.CHECKOUT / "pyproject.toml").read_text())["project"]
    assert set(project["dependencies"]) <= set(recipe.requirements())


def test_the_hands_need_nothing_but_the_standard_library() -> None:
    for file in places.HANDS.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            roots = {name.partition(".")[0] for name in names}
            assert roots <= sys.stdlib_module_names | {"bench_hands"}, file.name


def test_a_box_that_is_off_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEARING_ROOM_BENCH_DIR", str(tmp_path))
    machine = Machine("nobody")
    assert machine.pid is None
    machine.cut_power()
    machine.folder.mkdir(parents=True)
    (machine.folder / "pid").write_text(str(os.getpid()))  # a number that now is somebody else's
    assert machine.pid is None
    assert "serial console" in Box(machine).last_words()


def test_what_only_an_emulator_does_is_known_at_once_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEARING_ROOM_BENCH_DIR", str(tmp_path))
    (stamp.image_folder() / "image.json").parent.mkdir(parents=True)
    (stamp.image_folder() / "image.json").touch()
    serial = ["[0.96] Oops: int3: 0000 [#1] SMP", "[0.96] Oops: int3: 0000", "well"]

    class Fake(Machine):
        """Boots without QEMU; the kernel says each time what is next in the list."""

        pid = None

        def launch(self, disk: Path, shape: Shape, incoming: list[str]) -> None:
            del disk, shape, incoming
            (self.folder / "serial.log").write_text(serial.pop(0))
            self.pid = 1

        def cut_power(self) -> None:
            self.pid = None

    machine = Fake("hand")
    monkeypatch.setattr(machine.inside, "answers", lambda: machine.serial_log == "well")
    monkeypatch.setattr("bench_box.machine.need", lambda tools: None)
    monkeypatch.setattr("bench_box.machine.overlay", lambda *paths: None)
    machine.boot(cold=True)
    assert serial == []

    serial.extend(["Oops: int3: 0000"] * 5)
    machine.cut_power()
    with pytest.raises(EmulatorError, match="int3"):
        machine.boot(cold=True)
    assert len(serial) == 2, "three tries"


def test_the_scenarios_are_listed_and_wrong_words_are_not_taken_for_one() -> None:
    run = places.BENCH / "run"
    listed = subprocess.run([run, "--list"], capture_output=True, text=True, check=True)
    files = {f.stem.removeprefix("test_") for f in (places.BENCH / "scenarios").glob("test_*.py")}
    assert set(listed.stdout.split()) == files
    assert "SCENARIO" in subprocess.run([run, "--help"], capture_output=True, text=True).stdout
