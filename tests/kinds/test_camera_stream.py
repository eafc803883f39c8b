"""Buffers of a device node -> what a look says, without a device: the driver's side is a list."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import camera_stage as stage
import cv2
import pytest

from agent.kinds import camera
from agent.kinds.camera import capture, v4l2
from agent.kinds.camera.analysis import Look
from agent.kinds.camera.frames import from_picture
from agent.model import Reading

FPS = 15.0
JPEG = v4l2.PixelFormat("MJPG", 640, 360, 0, 640 * 360 * 2)
SETTINGS = camera.Settings(source="v4l2:/dev/video9")


class Reel:
    """A camera that gives these buffers at 15 a second and then ends."""

    def __init__(self, buffers: Sequence[bytes]) -> None:
        self._buffers = buffers

    def rate(self) -> float:
        return FPS

    def start(self) -> None:
        return

    def pictures(self, also: int | None) -> Iterator[v4l2.Picture]:
        del also
        for number, data in enumerate(self._buffers):
            yield v4l2.Picture(data, number / FPS, number, damaged=False)


def jpegs(seconds: float = 3.0) -> list[bytes]:
    """A live room."""
    options = [cv2.IMWRITE_JPEG_QUALITY, 90]
    return [bytes(cv2.imencode(".jpg", p, options)[1]) for p in stage.healthy(seconds)]


def codes(buffers: Sequence[bytes]) -> list[str]:
    about, look = capture.About(), Look(live=True)
    until_s = time.monotonic() + 60
    reel: v4l2.Camera = Reel(buffers)  # type: ignore[assignment]
    frames = capture.node(reel, Path("/nonexistent"), JPEG, about, until_s, 30)
    for frame in capture.settled(frames, 3.0):
        look.add(frame)
    reading = Reading(look.values(about), active=True)
    return [f.code for f in camera.judge(reading, SETTINGS)]


def cut_short(data: bytes) -> bytes:
    return data[: len(data) // 3]


def of_nothing(data: bytes) -> bytes:
    del data
    return b"no picture at all"


@pytest.mark.parametrize("spoil", [cut_short, of_nothing])
def test_pictures_that_cannot_be_decoded_are_corrupted_and_not_black(
    spoil: Callable[[bytes], bytes],
) -> None:
    live = jpegs()
    assert codes([spoil(data) for data in live]) == ["camera.corrupted"]
    assert codes(live) == []


def test_the_same_spoilt_picture_again_and_again_is_corrupted_and_not_frozen() -> None:
    spoilt = cut_short(jpegs(0.1)[0])
    assert codes([spoilt] * 45) == ["camera.corrupted"]
    assert codes(jpegs(0.1)[:1] * 45) == ["camera.frozen"]


def test_every_second_picture_spoilt_is_corrupted_and_one_in_thirty_is_not() -> None:
    live = jpegs()
    half = [cut_short(data) if n % 2 else data for n, data in enumerate(live)]
    assert codes(half) == ["camera.corrupted"]
    assert codes([cut_short(d) if n == 20 else d for n, d in enumerate(live)]) == []


def test_noise_is_measured_on_a_box_so_slow_that_it_looks_closely_only_twice() -> None:
    look = Look(live=True)
    for seed, at_s in enumerate((0.0, 0.1, 0.6)):
        look.add(from_picture(stage.grain(stage.room(), 25, seed), at_s))
    values = look.values(capture.About(width=640, height=360))
    assert float(values["noise"]) > 15
    assert "tear" in values
