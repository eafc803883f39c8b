"""A USB webcam (real uvcvideo, emulated hardware) in each of its failure modes."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from bench_box.box import Box
from room_stage import Hearsay, Measured, Room, running

CAM = "cam-front"
SOURCE = "usb:046d:082d"
FORMATS = {"yuyv-480p": "", "mjpg-720p": "width = 1280\nheight = 720\n"}
MODES = {
    "black": "camera.black",
    "dark": "camera.underexposed",
    "white": "camera.overexposed",
    "covered": "camera.covered",
    "freeze": "camera.frozen",
    "blur": "camera.blurred",
    "moved": "camera.moved",
    "noise": "camera.noisy",
    "torn": "camera.corrupted",
    "stall": "camera.no_answer",
    "error": "camera.no_answer",
}


@pytest.fixture(scope="module", params=FORMATS)
def room(
    request: pytest.FixtureRequest, shared_box: Box, shared_hearsay: Hearsay
) -> Iterator[Room]:
    """A room with the one camera, commissioned while it was well."""
    shared_box.install_checkout()
    shared_box.usb_plug("webcam", CAM)
    table = f'[camera.{CAM}]\nsource = "{SOURCE}"\nperiod_s = 5\n' + FORMATS[request.param]
    with running(Room(shared_box, shared_hearsay, table)) as room:
        room.wait_for(CAM)
        room.commission(CAM)
        yield room
    shared_box.usb_unplug(CAM)


@pytest.mark.parametrize("mode", MODES)
def test_a_fault_of_the_webcam_is_named_and_forgotten(
    room: Room, mode: str, measured: Measured, request: pytest.FixtureRequest
) -> None:
    began = time.monotonic()
    room.box.camera(mode, CAM)
    room.wait_for(CAM, MODES[mode])
    raised_s = time.monotonic() - began
    began = time.monotonic()
    room.box.camera("live", CAM)
    room.wait_for(CAM)
    where = f"USB webcam {request.node.callspec.params['room']}"
    measured.add(where, f"{mode} -> {MODES[mode]}", raised_s, time.monotonic() - began)


def test_a_webcam_that_is_pulled_while_it_streams_is_absent_and_comes_back(
    room: Room, measured: Measured, request: pytest.FixtureRequest
) -> None:
    room.wait_until_open("/dev/v4l/by-id/*-video-index0")
    began = time.monotonic()
    room.box.usb_unplug(CAM)
    room.wait_for(CAM, "camera.absent")
    raised_s = time.monotonic() - began
    began = time.monotonic()
    room.box.usb_plug("webcam", CAM)
    room.wait_for(CAM)
    where = f"USB webcam {request.node.callspec.params['room']}"
    measured.add(where, "pulled -> camera.absent", raised_s, time.monotonic() - began)


def test_a_webcam_that_another_program_streams_from_is_busy(
    room: Room, measured: Measured, request: pytest.FixtureRequest
) -> None:
    node = room.box.run("readlink -f /dev/v4l/by-id/*-video-index0").out.strip()
    began = time.monotonic()
    room.box.start("holder", f"v4l2-ctl -d {node} --stream-mmap --stream-count=0 >/dev/null 2>&1")
    room.wait_for(CAM, "camera.busy")
    raised_s = time.monotonic() - began
    assert room.hearsay.level_of(CAM) == "info"
    began = time.monotonic()
    room.box.run("systemctl stop holder")
    room.wait_for(CAM)
    where = f"USB webcam {request.node.callspec.params['room']}"
    measured.add(where, "held -> camera.busy (info)", raised_s, time.monotonic() - began)
