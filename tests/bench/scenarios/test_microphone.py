"""Microphones in each of their failure modes: on USB (real snd-usb-audio, emulated hardware) and
on the kernel's loopback sound card (snd-aloop)."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from bench_box.box import Box
from room_stage import OFTEN, Hearsay, Measured, Room, running

USB, LOOP = "mic-counsel", "mic-judge"
ROOM = f"""
[microphone.{USB}]
source = "usb:0d8c:0014"
{OFTEN}
[microphone.{LOOP}]
source = "hw:Mic,1"
{OFTEN}"""
MODES = {
    "silence": "microphone.silent",
    "tone": "",
    "clip": "microphone.clipping",
    "noise": "microphone.noisy",
    "hum": "microphone.hum",
}


@pytest.fixture(scope="module")
def room(shared_box: Box, shared_hearsay: Hearsay) -> Iterator[Room]:
    """A room with both microphones."""
    shared_box.install_checkout()
    shared_box.usb_plug("microphone", USB)
    shared_box.microphone("live")
    with running(Room(shared_box, shared_hearsay, ROOM)) as room:
        room.wait_for(USB)
        room.wait_for(LOOP)
        yield room


def _set(box: Box, device: str, mode: str) -> None:
    box.microphone(mode, USB if device == USB else "")


def _name_and_forget(room: Room, device: str, mode: str, code: str, measured: Measured) -> None:
    began = time.monotonic()
    _set(room.box, device, mode)
    room.wait_for(device, code)
    raised_s = time.monotonic() - began
    began = time.monotonic()
    _set(room.box, device, "live")
    room.wait_for(device)
    where = "USB microphone" if device == USB else "loopback"
    measured.add(where, f"{mode} -> {code}", raised_s, time.monotonic() - began)


@pytest.mark.parametrize("device", [USB, LOOP])
@pytest.mark.parametrize("mode", [mode for mode, code in MODES.items() if code])
def test_a_fault_of_a_microphone_is_named_and_forgotten(
    room: Room, device: str, mode: str, measured: Measured
) -> None:
    _name_and_forget(room, device, mode, MODES[mode], measured)


@pytest.mark.parametrize("device", [USB, LOOP])
def test_a_steady_tone_is_a_live_microphone(room: Room, device: str) -> None:
    _set(room.box, device, "tone")
    for _ in range(3):
        room.wait_for_look(device)
        assert room.hearsay.codes_of(device) == set()
    _set(room.box, device, "live")


def test_a_microphone_that_stalls_does_not_answer(room: Room, measured: Measured) -> None:
    _name_and_forget(room, USB, "stall", "microphone.no_answer", measured)


def test_a_line_that_nobody_plays_into_is_silent(room: Room, measured: Measured) -> None:
    _name_and_forget(room, LOOP, "stop", "microphone.silent", measured)


def test_a_microphone_that_is_switched_off_is_muted(room: Room, measured: Measured) -> None:
    card = room.box.run("sed -n 's/^ *\\([0-9]*\\) .*USB-Audio.*/\\1/p' /proc/asound/cards").out
    began = time.monotonic()
    room.box.run(f"amixer -q -c {card.strip()} set Mic nocap")
    room.wait_for(USB, "microphone.muted")
    raised_s = time.monotonic() - began
    began = time.monotonic()
    room.box.run(f"amixer -q -c {card.strip()} set Mic cap")
    room.wait_for(USB)
    measured.add("USB microphone", "mute -> microphone.muted", raised_s, time.monotonic() - began)


@pytest.mark.parametrize("device", [USB, LOOP])
def test_a_microphone_that_another_program_records_from_is_busy(
    room: Room, device: str, measured: Measured
) -> None:
    name = "hw:CARD=Device" if device == USB else "hw:Mic,1"
    began = time.monotonic()
    # Our own look may be in the way: then it lets go, and the second try has it.
    record = f"arecord -q -D {name} -t raw -f S16_LE -r 48000 -c 1 >/dev/null"
    room.box.start("recorder", f"until {record}; do sleep 0.2; done")
    room.wait_for(device, "microphone.busy")
    raised_s = time.monotonic() - began
    assert room.hearsay.level_of(device) == "info"
    began = time.monotonic()
    room.box.run("systemctl stop recorder")
    room.wait_for(device)
    where = "USB microphone" if device == USB else "loopback"
    measured.add(where, "held -> microphone.busy (info)", raised_s, time.monotonic() - began)


def test_a_microphone_that_is_pulled_while_it_records_is_absent_and_comes_back(
    room: Room, measured: Measured
) -> None:
    room.wait_until_open("/dev/snd/pcmC1D0c")
    began = time.monotonic()
    room.box.usb_unplug(USB)
    room.wait_for(USB, "microphone.absent")
    raised_s = time.monotonic() - began
    began = time.monotonic()
    room.box.usb_plug("microphone", USB)
    room.wait_for(USB)
    measured.add(
        "USB microphone", "pulled -> microphone.absent", raised_s, time.monotonic() - began
    )
