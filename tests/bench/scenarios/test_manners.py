"""Whoever needs a camera or a microphone comes before the agent, and a hearing before everybody."""

from __future__ import annotations

import json
import time

import pytest
from bench_box.box import Box
from e2e_stage import wait_for
from room_stage import OFTEN, SLOW, Hearsay, Measured, Room, running

CAM, TEST, MIC = "cam-front", "cam-test", "mic-counsel"
WEBCAM = f'[camera.{CAM}]\nsource = "usb:046d:082d"\n'
TEST_CAMERA = f'[camera.{TEST}]\nsource = "v4l2:/dev/video0"\n'
MICROPHONE = f'[microphone.{MIC}]\nsource = "usb:0d8c:0014"\n'
LETS_GO_S = 1.0
"""The promise of a look that is in the way of another program."""
IDLE_S = 10.0
"""After which a worker goes, where looks are more than two minutes apart (`lanes/watch.py`)."""

TAKER = """
import ctypes, fcntl, os, sys, time
node, stage = sys.argv[1:]
REQBUFS = 3 << 30 | 20 << 16 | ord("V") << 8 | 8
fd = os.open(node, os.O_RDWR)
began = time.monotonic()
request = bytearray(20)
while True:
    request[0:12] = (4).to_bytes(4, "little") + (1).to_bytes(4, "little") * 2
    try:
        fcntl.ioctl(fd, REQBUFS, request)
        break
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno != 16:
            raise
        time.sleep(0.01)
print(time.monotonic() - began, flush=True)
if stage == "hold":
    time.sleep(600)
"""
"""Opens a camera, as a program for conferences does, and asks for buffers until it gets them."""

LISTENER = """
import errno, os, sys, time
control, pcm = sys.argv[1:]
began = time.monotonic()
os.open(control, os.O_RDWR)
while True:
    try:
        os.open(pcm, os.O_RDONLY | os.O_NONBLOCK)
        break
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.EAGAIN):
            raise
        time.sleep(0.01)
print(time.monotonic() - began)
"""
"""Opens a sound card as ALSA does, control node first, and tries until it gets the stream."""

OPENED = """
import ctypes, os, struct, sys, time
libc = ctypes.CDLL(None)
fd = libc.inotify_init1(0)
folders = {libc.inotify_add_watch(fd, f.encode(), 0x20): f for f in ("/dev", "/dev/snd")}
while True:
    data, at = os.read(fd, 65536), time.time()
    while data:
        watch, _, _, size = struct.unpack_from("iIII", data)
        name = data[16 : 16 + size].rstrip(b"\\0").decode()
        if name.startswith(("video", "pcm", "control", "media")):
            print(f"{at:.3f} {folders[watch]}/{name}", flush=True)
        data = data[16 + size :]
"""
"""Tells every opening of a device node, by whomever."""


@pytest.fixture
def ready(box: Box) -> Box:
    """A box with the checkout, a webcam and a microphone."""
    box.install_checkout()
    box.usb_plug("webcam", CAM)
    box.usb_plug("microphone", MIC)
    box.write("/tmp/taker.py", TAKER)
    box.write("/tmp/listener.py", LISTENER)
    box.write("/tmp/opened.py", OPENED)
    return box


def _node(box: Box) -> str:
    return box.run("readlink -f /dev/v4l/by-id/*-video-index0").out.strip()


def test_a_worker_is_gone_when_nothing_is_asked(
    ready: Box, hearsay: Hearsay, measured: Measured
) -> None:
    rare = "period_s = 3600\ndeadline_s = 20\n"
    with running(Room(ready, hearsay, WEBCAM + rare + MICROPHONE + rare)) as room:
        for device in (CAM, MIC):  # two looks settle a device, then it rests
            room.wait_for(device)
        assert room.workers()
        began = time.monotonic()
        wait_for(lambda: not room.workers(), SLOW * IDLE_S, "the workers go")
        measured.add("manners", "last look -> no worker", None, time.monotonic() - began)


def test_a_camera_is_let_go_at_once_when_another_program_opens_it(
    ready: Box, hearsay: Hearsay, measured: Measured
) -> None:
    with running(Room(ready, hearsay, WEBCAM + OFTEN)) as room:
        room.wait_for(CAM)
        node, took = _node(ready), []
        for _ in range(5):
            room.wait_until_open(node)
            took.append(float(ready.run(f"python3 /tmp/taker.py {node} ask").out))
        measured.add("manners", "webcam opened in mid-look -> free (worst of 5)", None, max(took))
        assert max(took) < LETS_GO_S
        room.wait_for(CAM)  # and it is looked at again


def test_a_microphone_is_let_go_at_once_when_another_program_opens_it(
    ready: Box, hearsay: Hearsay, measured: Measured
) -> None:
    with running(Room(ready, hearsay, MICROPHONE + OFTEN)) as room:
        room.wait_for(MIC)
        took = []
        for _ in range(5):
            room.wait_until_open("/dev/snd/pcmC1D0c")
            ready.run("sleep 0.5")  # from the first samples on it watches for others
            nodes = "/dev/snd/controlC1 /dev/snd/pcmC1D0c"
            took.append(float(ready.run(f"python3 /tmp/listener.py {nodes}").out))
        measured.add(
            "manners", "microphone opened in mid-look -> free (worst of 5)", None, max(took)
        )
        assert max(took) < LETS_GO_S
        room.wait_for(MIC)


@pytest.mark.parametrize("transfer", ["isochronous", "bulk"])
def test_a_webcam_whose_buffers_somebody_has_is_busy(
    box: Box, hearsay: Hearsay, transfer: str
) -> None:
    """EBUSY comes at S_FMT then; nothing streams, so the kernel shows nothing beforehand."""
    box.install_checkout()
    box.write("/tmp/taker.py", TAKER)
    box.usb_plug("webcam", CAM, transfer=transfer)
    node = _node(box)
    with running(Room(box, hearsay, WEBCAM + OFTEN)) as room:
        room.wait_for(CAM)
        box.start("holder", f"exec python3 /tmp/taker.py {node} hold")
        room.wait_for(CAM, "camera.busy")
        assert hearsay.level_of(CAM) == "info"
        box.run("systemctl stop holder")
        room.wait_for(CAM)


def test_a_test_camera_that_streams_to_somebody_is_busy(box: Box, hearsay: Hearsay) -> None:
    box.install_checkout()
    box.camera("live")
    with running(Room(box, hearsay, TEST_CAMERA + OFTEN)) as room:
        room.wait_for(TEST, "camera.no_signal")
        box.start(
            "holder", "v4l2-ctl -d /dev/video0 --stream-mmap --stream-count=0 >/dev/null 2>&1"
        )
        # A camera that cannot be looked at has not got better.
        room.wait_for(TEST, "camera.busy", "camera.no_signal")
        box.run("systemctl stop holder")
        room.wait_for(TEST, "camera.no_signal")


def test_in_session_nothing_is_opened(ready: Box, hearsay: Hearsay, measured: Measured) -> None:
    with running(Room(ready, hearsay, WEBCAM + OFTEN + MICROPHONE + OFTEN)) as room:
        room.wait_for(CAM)
        room.wait_for(MIC)
        ready.start("opened", "exec python3 -u /tmp/opened.py > /tmp/opened")
        room.wait_for_look(CAM)
        room.wait_for_look(MIC)
        room.wait_until_open(_node(ready))  # the hearing begins in mid-look
        begins = float(ready.run("date +%s.%N").out)
        hearing = {"id": "H-1", "starts": _iso(begins - 60), "ends": _iso(begins + 70)}
        hearsay.publish("schedule", {"v": 1, "hearings": [hearing]}, retain=True)
        wait_for(lambda: hearsay.last("readiness").get("mode") == "in_session", 30)
        in_session = float(ready.run("date +%s.%N").out)
        ready.wait_for("! fuser -s /dev/video* /dev/snd/pcm*", 10)
        measured.add(
            "manners", "hearing begins in mid-look -> free", None, _now(ready) - in_session
        )
        checked = ready.run(
            "RUNTIME_DIRECTORY=/run/hearing-room hearing-room check --json camera:usb:046d:082d",
            check=False,
        )
        assert checked.code == 3
        assert json.loads(checked.out)["fault"] == "skipped: in_session"
        wait_for(lambda: hearsay.last("readiness").get("mode") == "idle", 120)
        ends = begins + 70
        room.wait_for_look(CAM)
        room.wait_for_look(MIC)
        lines = ready.read("/tmp/opened").splitlines()
        opened = [(float(at), node) for at, node in map(str.split, lines)]
        before = [node for at, node in opened if at < begins]
        during = [(at - in_session, node) for at, node in opened if in_session + 0.5 < at < ends]
        after = [node for at, node in opened if at > ends]
        assert any("video" in node for node in before), opened
        assert any("pcm" in node for node in before), opened
        assert during == []
        assert any("video" in node for node in after), opened
        assert any("pcm" in node for node in after), opened


def _iso(utc_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(utc_s))


def _now(box: Box) -> float:
    return float(box.run("date +%s.%N").out)
