"""The settings of a camera: which sources may stand in room.toml, and what never leaves them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agent.kinds import camera
from agent.kinds.camera import source as sources
from agent.kinds.camera.source import Scheme, Source


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("usb:046D:0843", Source(Scheme.USB, usb_id="046d:0843")),
        ("usb:046d:0843@1-1.2", Source(Scheme.USB, usb_id="046d:0843", port="1-1.2")),
        ("v4l2:/dev/video0", Source(Scheme.V4L2, "/dev/video0")),
        ("/dev/v4l/by-id/cam", Source(Scheme.V4L2, "/dev/v4l/by-id/cam")),
        ("file:clip one.mp4", Source(Scheme.FILE, "clip one.mp4")),
        ("rtsp://10.0.0.5/live", Source(Scheme.RTSP, "rtsp://10.0.0.5/live")),
        ("http://cam.lan:8080/mjpg", Source(Scheme.HTTP, "http://cam.lan:8080/mjpg")),
        ("https://cam.lan/mjpg", Source(Scheme.HTTP, "https://cam.lan/mjpg")),
    ],
)
def test_every_form_of_source_is_understood(text: str, expected: Source) -> None:
    assert sources.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "video0",
        "usb:46d:843",
        "usb:046d:0843@port",
        "v4l2:video0",
        "/dev/",
        "file:",
        "ftp://cam/clip",
        "rtsp://",
        "rtsp://host:port/x",
        "http://[::1/x",
    ],
)
def test_a_source_that_is_none_is_refused_with_the_forms_that_are(text: str) -> None:
    with pytest.raises(ValidationError):
        camera.Settings(source=text)


@given(st.text(max_size=60))
def test_any_text_is_a_source_or_a_clear_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(sources.parse(text), Source)


def test_a_password_in_an_address_stays_out_of_every_text() -> None:
    for text in (
        "rtsp://guard:s3cret@10.0.0.5/live",
        "http://s3cret@cam/",
        "rtsp://guard:s3/cret@10.0.0.5/live",
        "ftp://guard:s3cret@10.0.0.5/live",
    ):
        with pytest.raises(ValidationError) as refused:
            camera.Settings(source=text)
        assert "s3" not in str(refused.value)
    with pytest.raises(ValidationError, match="name that with credentials_file"):
        camera.Settings(source="rtsp://guard:s3cret@10.0.0.5/live")
    path = "rtsp://10.0.0.5/live?user=a@b"
    assert camera.Settings(source=path).source == path, "an @ behind the host is no password"


def test_credentials_are_set_into_the_address() -> None:
    url = sources.with_credentials("rtsp://10.0.0.5:8554/live?a=1", "guard:new")
    assert url == "rtsp://guard:new@10.0.0.5:8554/live?a=1"


@pytest.mark.parametrize(
    ("text", "variant", "ports"),
    [
        ("usb:046d:0843", "senses", ()),
        ("file:x.avi", "senses", ()),
        ("rtsp://cam/live", "netcam", (554,)),
        ("http://cam:8080/live", "netcam", (8080,)),
        ("https://cam/live", "netcam", (443,)),
    ],
)
def test_only_a_camera_on_the_network_gets_a_worker_with_a_network(
    text: str, variant: str, ports: tuple[int, ...]
) -> None:
    settings = camera.Settings(source=text)
    assert camera.variant(settings) == variant
    assert camera.ports(settings) == ports


def test_two_cameras_cannot_be_the_same_device() -> None:
    one, two = (camera.Settings(source=s) for s in ("v4l2:/dev/video0", "/dev/video0"))
    assert one.claims() == two.claims() != {}
    assert camera.Settings(source="file:demo.avi").claims() == {}


def test_nothing_is_expected_of_a_camera_unless_it_is_said() -> None:
    settings = camera.Settings(source="usb:046d:0843")
    assert (settings.width, settings.height, settings.fps) == (None, None, None)
    assert settings.deadline_s < 10  # OpenCV's own time-out
    with pytest.raises(ValidationError):
        camera.Settings(source="usb:046d:0843", widht=1280)
