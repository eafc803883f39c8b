"""The camera's worker part: files, broken sources, cameras on the network, device nodes."""

from __future__ import annotations

import base64
import errno
import http.server
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import camera_stage as stage
import cv2
import pytest
from test_camera_passive import make_webcam

from agent import clock
from agent.kinds import camera
from agent.kinds.camera import reach
from agent.model import Fault, Reading

CHILD = """
import sys, time
from agent.kinds import camera
camera.prepare()
print("ready", flush=True)
started = time.monotonic()
secret = sys.argv[3] if len(sys.argv) > 3 else None
settings = camera.Settings(source=sys.argv[1], deadline_s=3, credentials_file=secret)
reading = camera.Driver(settings).read(sys.argv[2])
print(reading.fault, reading.why, dict(reading.values), time.monotonic() - started, flush=True)
"""


def ask(source: str, question: str = "look", **settings: object) -> Reading:
    return camera.Driver(camera.Settings(source=source, **settings)).read(question)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stage.write(tmp_path_factory.mktemp("clips") / "room.avi", stage.healthy(2))


def test_a_file_that_is_not_there_is_absent_until_it_is(tmp_path: Path, clip: Path) -> None:
    path = tmp_path / "clip.avi"
    gone = ask(f"file:{path}")
    assert (gone.fault, gone.why, gone.values["errno"]) == (Fault.ABSENT, "no_node", errno.ENOENT)
    path.write_bytes(clip.read_bytes())
    assert ask(f"file:{path}", "whole").fault is None


@pytest.mark.parametrize("before_s", [0.0, 0.0001, 0.02, 0.06, 0.07, 1.0])
def test_a_look_may_begin_at_the_very_end_of_a_file(
    before_s: float, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clip of 2 s runs round and round since boot; what follows its last picture is the first."""
    monkeypatch.setattr(clock, "up_s", lambda: 2_000.0 - before_s)
    reading = ask(f"file:{clip}", look_s=0.5)
    assert reading.fault is None
    assert reading.values["frames"] in (7, 8, 9)


@pytest.mark.parametrize("content", [b"", b"RIFF", b"not a picture" * 1_000, bytes(100_000)])
def test_a_file_that_is_no_clip_is_an_error(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    for question in ("look", "whole"):
        reading = ask(f"file:{path}", question)
        assert (reading.fault, reading.why) == (Fault.ERROR, "bad_file")


def test_a_folder_is_no_clip(tmp_path: Path) -> None:
    assert ask(f"file:{tmp_path}").why == "bad_file"


@pytest.mark.parametrize("keep", [0.3, 0.7])
def test_a_clip_that_is_cut_off_is_read_as_far_as_it_goes(
    keep: float, tmp_path: Path, clip: Path
) -> None:
    whole = clip.read_bytes()
    path = tmp_path / "cut.avi"
    path.write_bytes(whole[: int(len(whole) * keep)])
    reading = ask(f"file:{path}", "whole")
    assert reading.fault in (None, Fault.ERROR)
    if reading.fault is None:
        assert 0 < reading.values["frames"] < 30


def test_a_whole_file_is_read_faster_than_it_plays(clip: Path) -> None:
    reading = ask(f"file:{clip}", "whole")
    assert reading.values["frames"] == 30
    assert reading.values["span_s"] == pytest.approx(29 / 15, abs=0.1)
    assert reading.took_s < 1.5


def test_a_look_at_a_file_keeps_its_pace_and_goes_round(clip: Path) -> None:
    reading = ask(f"file:{clip}", look_s=1.0)
    assert 10 <= int(reading.values["frames"]) <= 16
    assert 0.8 <= reading.took_s <= 2.5
    assert reading.values["fps"] == pytest.approx(15, abs=1)


def test_a_file_is_opened_anew_at_each_look(tmp_path: Path, clip: Path) -> None:
    path = tmp_path / "clip.avi"
    settings = camera.Settings(source=f"file:{path}", look_s=0.5)
    driver = camera.Driver(settings)

    def codes() -> list[str]:
        return [f.code for f in camera.judge(driver.read("look"), settings)]

    path.write_bytes(clip.read_bytes())
    assert codes() == []
    black = [stage.room() * 0] * 30
    stage.write(path, black)
    assert codes() == ["camera.black"]
    path.write_bytes(clip.read_bytes())
    assert codes() == []


def test_a_source_that_hangs_holds_only_its_own_process(tmp_path: Path) -> None:
    fifo = tmp_path / "camera"
    os.mkfifo(fifo)
    command = [sys.executable, "-c", CHILD, f"file:{fifo}", "look"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            with pytest.raises(subprocess.TimeoutExpired):
                child.wait(1.0)
        finally:
            child.kill()


# -- cameras on the network ---------------------------------------------------------------------


GUARD = "Basic " + base64.b64encode(b"guard:s3cret-word").decode()


class Mjpeg(http.server.BaseHTTPRequestHandler):
    """An MJPEG camera. `/slow` is let in and then sends nothing, `/private` wants a password."""

    pictures: tuple[bytes, ...] = ()

    def do_GET(self) -> None:
        given = self.headers.get("Authorization", "")
        if self.path == "/private" and given != GUARD:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        try:
            if self.path == "/slow":
                self.server.closing.wait(20)  # type: ignore[attr-defined]
                return
            for at in range(1_000):
                picture = self.pictures[at % len(self.pictures)]
                head = (
                    f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
                )
                self.wfile.write(head.encode() + picture + b"\r\n")
                if self.server.closing.wait(1 / 15):  # type: ignore[attr-defined]
                    return
        except OSError:
            return

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def mjpeg() -> Iterator[http.server.ThreadingHTTPServer]:
    Mjpeg.pictures = tuple(cv2.imencode(".jpg", view)[1].tobytes() for view in stage.healthy(2))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mjpeg) as server:
        server.daemon_threads = True
        server.closing = threading.Event()  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server
        server.closing.set()  # type: ignore[attr-defined]
        server.shutdown()
        thread.join(10)


def test_a_camera_on_the_network_is_looked_at(mjpeg: http.server.ThreadingHTTPServer) -> None:
    url = f"http://127.0.0.1:{mjpeg.server_port}/live"
    settings = camera.Settings(source=url, look_s=1.0)
    reading = camera.Driver(settings).read("look")
    assert reading.fault is None
    assert reading.active
    assert (reading.values["width"], reading.values["height"]) == (640, 360)
    assert camera.judge(reading, settings) == []


def test_a_camera_on_the_network_that_does_not_answer_is_told_in_time(
    mjpeg: http.server.ThreadingHTTPServer,
) -> None:
    base = f"http://127.0.0.1:{mjpeg.server_port}"
    started = time.monotonic()
    silent = ask(f"{base}/slow", deadline_s=2.5)
    assert silent.fault is Fault.NO_ANSWER
    assert time.monotonic() - started < 4.0
    assert ask(f"{base}/live", look_s=0.3).fault is None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = free.getsockname()[1]
    for scheme in ("rtsp", "http"):
        refused = ask(f"{scheme}://127.0.0.1:{nobody}/live", deadline_s=2.5)
        assert (refused.fault, refused.why) == (Fault.NO_ANSWER, "refused")
        assert refused.values["errno"] == errno.ECONNREFUSED
    private = ask(f"{base}/private", deadline_s=2.5)
    assert (private.fault, private.values) == (Fault.NO_ANSWER, {}), "it is the camera that refuses"


def test_why_a_camera_was_not_reached_is_told_where_it_can_be_known() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert reach.errno_of(f"rtsp://guard:x@127.0.0.1:{port}/live", 1.0) is None
    assert reach.errno_of(f"rtsp://127.0.0.1:{port}/live", 1.0) == errno.ECONNREFUSED
    assert reach.errno_of("rtsp://no-such-camera.invalid/live", 1.0) is None


def test_a_password_stays_out_of_logs_and_answers(
    mjpeg: http.server.ThreadingHTTPServer, tmp_path: Path
) -> None:
    secret = tmp_path / "camera.key"
    secret.write_text("guard:s3cret-word\n")
    url = f"http://127.0.0.1:{mjpeg.server_port}/private"
    assert ask(url, look_s=0.3).fault is Fault.NO_ANSWER
    reading = ask(url, look_s=0.3, credentials_file=secret)
    assert reading.fault is None
    assert "s3cret" not in repr(reading)
    wrong = f"rtsp://127.0.0.1:{mjpeg.server_port}/live"
    run = subprocess.run(
        [sys.executable, "-c", CHILD, wrong, "look", str(secret)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "no_answer" in run.stdout
    assert "s3cret" not in run.stdout + run.stderr


def test_missing_credentials_are_an_error_and_no_exception(tmp_path: Path) -> None:
    reading = ask("rtsp://127.0.0.1/x", credentials_file=tmp_path / "gone")
    assert (reading.fault, reading.why) == (Fault.ERROR, "not_permitted")


# -- device nodes -------------------------------------------------------------------------------


def test_a_node_that_is_not_there_is_absent() -> None:
    for source in ("v4l2:/dev/video250", "usb:ffff:fffe"):
        reading = ask(source)
        assert (reading.fault, reading.why) == (Fault.ABSENT, "no_node")


def test_a_node_that_is_no_camera_is_not_supported() -> None:
    reading = ask("v4l2:/dev/null")
    assert (reading.fault, reading.why) == (Fault.ERROR, "not_supported")
    assert reading.values["errno"] == errno.ENOTTY


def test_a_camera_that_somebody_streams_from_is_not_even_opened(tmp_path: Path) -> None:
    make_webcam(tmp_path, alternate=" 3", endpoints="01")
    for node in (tmp_path / "dev").iterdir():
        node.unlink()  # an attempt to open it would say so
    settings = camera.Settings(source="usb:046d:0843")
    reading = camera.Driver(settings, tmp_path).read("look")
    assert (reading.fault, reading.why) == (Fault.BUSY, "held")
    assert [f.code for f in camera.judge(reading, settings)] == ["camera.busy"]


def test_opencv_uses_one_thread(clip: Path) -> None:
    ask(f"file:{clip}", "whole")
    assert cv2.getNumThreads() == 1
