"""The kernel's own test camera (vivid): errors of a driver, and a node that is there but dead.

What it shows at best are colour bars: no room, and the agent says so. So here "cleared" means that
the other fault is gone and `camera.no_signal` is all that is left.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from bench_box.box import Box
from room_stage import Hearsay, Measured, Room, running

CAM = "cam-test"
ROOM = f'[camera.{CAM}]\nsource = "v4l2:/dev/video0"\nperiod_s = 5\n'
BARS = "camera.no_signal"
MODES = {
    "black": "camera.black",
    "noise": "camera.noisy",
    "stall": "camera.no_answer",
    "eio": "camera.no_answer",
}


@pytest.fixture(scope="module")
def room(shared_box: Box, shared_hearsay: Hearsay) -> Iterator[Room]:
    """A room with the test camera."""
    shared_box.install_checkout()
    shared_box.camera("live")
    with running(Room(shared_box, shared_hearsay, ROOM)) as room:
        room.wait_for(CAM, BARS)
        yield room


@pytest.mark.parametrize("mode", ["black", "noise", "stall"])
def test_a_fault_of_the_test_camera_is_named_and_forgotten(
    room: Room, mode: str, measured: Measured
) -> None:
    began = time.monotonic()
    room.box.camera(mode)
    room.wait_for(CAM, MODES[mode])
    raised_s = time.monotonic() - began
    began = time.monotonic()
    room.box.camera("live")
    room.wait_for(CAM, BARS)
    measured.add("vivid", f"{mode} -> {MODES[mode]}", raised_s, time.monotonic() - began)


def test_a_camera_that_is_there_but_dead_does_not_answer(room: Room, measured: Measured) -> None:
    began = time.monotonic()
    room.box.camera("lost")
    room.wait_for(CAM, "camera.no_answer")
    raised_s = time.monotonic() - began
    room.box.camera("unplug")
    room.wait_for(CAM, "camera.absent")
    began = time.monotonic()
    room.box.camera("plug")
    room.box.camera("live")
    room.wait_for(CAM, BARS)
    measured.add("vivid", "lost -> camera.no_answer", raised_s)
    measured.add("vivid", "unplug -> camera.absent", None, time.monotonic() - began)
