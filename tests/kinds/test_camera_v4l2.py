"""The camera's own Video4Linux calls: sizes and numbers as the kernel has them, pixel formats."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import camera_stage as stage
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kinds import camera
from agent.kinds.camera import capture, v4l2, watch
from agent.kinds.camera.frames import FORMATS, cut_short, decode
from agent.model import Fault


@pytest.mark.skipif(np.dtype("P").itemsize != 8, reason="the numbers of a 64-bit kernel")
@pytest.mark.parametrize(
    ("name", "number"),
    [  # <linux/videodev2.h> of a 64-bit kernel
        ("QUERYCAP", 0x8068_5600),
        ("ENUM_FMT", 0xC040_5602),
        ("G_FMT", 0xC0D0_5604),
        ("S_FMT", 0xC0D0_5605),
        ("REQBUFS", 0xC014_5608),
        ("QUERYBUF", 0xC058_5609),
        ("QBUF", 0xC058_560F),
        ("DQBUF", 0xC058_5611),
        ("STREAMON", 0x4004_5612),
        ("STREAMOFF", 0x4004_5613),
        ("G_PARM", 0xC0CC_5615),
        ("S_PARM", 0xC0CC_5616),
        ("G_CTRL", 0xC008_561B),
        ("S_CTRL", 0xC008_561C),
        ("QUERYCTRL", 0xC044_5624),
    ],
)
def test_the_calls_are_numbered_as_in_the_kernel(name: str, number: int) -> None:
    assert getattr(v4l2, name) == number


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=4))
def test_a_pixel_format_code_is_its_four_characters(text: str) -> None:
    assert v4l2.fourcc(v4l2.to_code(text)) == text


def packed(view: np.ndarray, fourcc: str) -> bytes:
    """A picture as a driver would hand it over."""
    if fourcc in ("MJPG", "JPEG"):
        return cv2.imencode(".jpg", view)[1].tobytes()
    to = {
        "NV12": cv2.COLOR_BGR2YUV_I420,
        "NV21": cv2.COLOR_BGR2YUV_I420,
        "YU12": cv2.COLOR_BGR2YUV_I420,
        "YV12": cv2.COLOR_BGR2YUV_YV12,
        "YUYV": cv2.COLOR_BGR2YUV_YUY2,
        "UYVY": cv2.COLOR_BGR2YUV_UYVY,
        "GREY": cv2.COLOR_BGR2GRAY,
        "RGB3": cv2.COLOR_BGR2RGB,
    }
    data = view if fourcc == "BGR3" else cv2.cvtColor(view, to[fourcc])
    if fourcc in ("NV12", "NV21"):
        height, width = view.shape[:2]
        planes = data.reshape(-1)[height * width :].reshape(2, -1)
        order = planes if fourcc == "NV12" else planes[::-1]
        chroma = np.stack(order, axis=-1).reshape(-1)
        data = np.concatenate([data.reshape(-1)[: height * width], chroma])
    return data.tobytes()


@pytest.mark.parametrize("fourcc", FORMATS)
def test_every_format_that_is_offered_is_read(fourcc: str) -> None:
    view = cv2.GaussianBlur(stage.room(), (0, 0), 2)
    picture = decode(packed(view, fourcc), fourcc, 640, 360, 0)
    assert picture is not None
    expected = cv2.cvtColor(view, cv2.COLOR_BGR2GRAY) if fourcc == "GREY" else view
    assert picture.shape == expected.shape
    assert float(cv2.absdiff(picture, expected).mean()) < 4


@pytest.mark.parametrize("fourcc", FORMATS)
@given(data=st.binary(max_size=400))
def test_a_damaged_buffer_is_no_picture_and_no_crash(fourcc: str, data: bytes) -> None:
    assert decode(data, fourcc, 640, 360, 0) is None


def test_lines_that_are_padded_are_read_without_the_padding() -> None:
    view = stage.room()
    rows = cv2.cvtColor(view, cv2.COLOR_BGR2YUV_YUY2).reshape(360, 1_280)
    padded = np.zeros((360, 1_344), np.uint8)
    padded[:, :1_280] = rows
    picture = decode(padded.tobytes(), "YUYV", 640, 360, 1_344)
    assert picture is not None
    assert float(cv2.absdiff(picture, view).mean()) < 6


def test_a_jpeg_that_is_cut_short_is_seen_and_a_padded_one_is_whole() -> None:
    jpeg = packed(stage.room(), "MJPG")
    assert not cut_short(jpeg)
    assert not cut_short(jpeg + bytes(512))
    assert cut_short(jpeg[: len(jpeg) // 2])
    assert cut_short(b"")


@pytest.mark.parametrize(
    ("number", "fault", "why"),
    [
        (errno.EBUSY, Fault.BUSY, "held"),
        (errno.ENOENT, Fault.ABSENT, "no_node"),
        (errno.EACCES, Fault.ERROR, "not_permitted"),
        (errno.ENOTTY, Fault.ERROR, "not_supported"),
        (errno.EIO, Fault.NO_ANSWER, "errno"),
        (errno.ENODEV, Fault.NO_ANSWER, "errno"),
        (errno.ETIMEDOUT, Fault.NO_ANSWER, "errno"),
    ],
)
def test_every_errno_has_its_fault(number: int, fault: Fault, why: str) -> None:
    failed = capture.from_errno(number)
    assert (failed.fault, failed.why, failed.errno) == (fault, why, number)


def test_somebody_else_who_opens_the_node_is_seen(tmp_path: Path) -> None:
    node = tmp_path / "video0"
    node.touch()
    with watch.OtherOpeners(node) as others:
        assert not others.came()
        os.close(os.open(node, os.O_RDONLY))
        assert others.came()
        assert not others.came()
    with watch.OtherOpeners(tmp_path / "gone") as none:
        assert none.fd is None
        assert not none.came()


# -- a camera of the kernel's own: `modprobe vivid n_devs=1 node_types=0x1` ----------------------


def _vivid() -> Path | None:
    for entry in sorted(Path("/sys/class/video4linux").glob("video*")):
        node = Path("/dev") / entry.name
        if (entry / "name").read_text().startswith("vivid") and node.exists():
            return node
    return None


@pytest.fixture
def vivid() -> Path:
    node = _vivid()
    if node is None:
        pytest.skip("vivid is not loaded")
    return node


def test_a_real_node_is_looked_at_and_let_go(vivid: Path) -> None:
    settings = camera.Settings(source=f"v4l2:{vivid}", width=1280, height=720, look_s=1)
    for _ in range(2):
        reading = camera.Driver(settings).read("look")
        assert reading.fault is None, reading
        assert reading.identity["driver"] == "vivid"
        assert int(reading.values["frames"]) > 5


def test_a_node_that_another_program_streams_from_is_busy_and_then_free(vivid: Path) -> None:
    settings = camera.Settings(source=f"v4l2:{vivid}", look_s=0.5)
    with v4l2.Camera(vivid) as holder:
        holder.start()
        started = time.monotonic()
        reading = camera.Driver(settings).read("look")
        assert (reading.fault, reading.why) == (Fault.BUSY, "held")
        assert time.monotonic() - started < 2
    assert camera.Driver(settings).read("look").fault is None
