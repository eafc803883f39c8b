"""The microphone as the kernel sees it, in trees recorded by the test."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from microphone_stage import RUNNING, card, unplug
from pydantic import ValidationError

from agent.kinds import _alsa, _pcm, microphone
from agent.model import Fault, Reading

STATUS = "proc/asound/card1/pcm0c/sub0/status"


def passive(root: Path, source: str = "usb:0b0e:0422") -> microphone.Passive:
    return microphone.Passive(microphone.Settings(source=source), root)


def read(part: microphone.Passive) -> Reading:
    return asyncio.run(part.read())


def codes(reading: Reading) -> list[str]:
    settings = microphone.Settings(source="hw:0")
    return [f.code for f in microphone.judge(reading, settings)]


def test_a_microphone_at_rest_is_present_and_says_who_it_is(tmp_path: Path) -> None:
    card(tmp_path)
    reading = read(passive(tmp_path))
    assert reading.values == {"present": True, "in_use": False, "state": "closed"}
    assert reading.identity == {
        "usb": "0b0e:0422",
        "port": "1-1.2",
        "product": "Room Speakerphone",
        "revision": "0225",
    }
    assert not reading.active
    assert codes(reading) == []


def test_unplugged_is_absent_and_plugged_in_again_is_not(tmp_path: Path) -> None:
    card(tmp_path)
    part = passive(tmp_path)
    unplug(tmp_path)
    reading = read(part)
    assert reading.fault is Fault.ABSENT
    assert codes(reading) == ["microphone.absent"]
    card(tmp_path, 4, port="1-1.4")
    assert read(part).fault is None


def test_samples_that_come_are_seen_without_hearing_them(tmp_path: Path) -> None:
    card(tmp_path)
    part = passive(tmp_path)
    for pointer, advancing in ((1000, None), (2000, True), (2000, False), (3000, True)):
        (tmp_path / STATUS).write_text(RUNNING.format(pointer=pointer))
        reading = read(part)
        assert reading.values.get("advancing") is advancing
        assert reading.values["in_use"] is True
        assert codes(reading) == (["microphone.no_answer"] if advancing is False else [])
        assert not any(key.endswith("dbfs") for key in reading.values)


def test_a_stream_that_was_started_anew_is_not_taken_for_a_stalled_one(tmp_path: Path) -> None:
    card(tmp_path)
    part = passive(tmp_path)
    (tmp_path / STATUS).write_text(RUNNING.format(pointer=500))
    read(part)
    (tmp_path / STATUS).write_text("closed\n")
    assert read(part).values["in_use"] is False
    (tmp_path / STATUS).write_text(RUNNING.format(pointer=500))
    assert "advancing" not in read(part).values


@pytest.mark.parametrize(
    ("source", "present"),
    [
        ("usb:0b0e:0422", True),
        ("usb:0B0E:0422@1-1.2", True),
        ("usb:0b0e:0422@1-1.3", False),
        ("usb:0b0e:0420", False),
        ("hw:1", True),
        ("hw:USB", True),
        ("hw:CARD=USB,DEV=0", True),
        ("plughw:1,0", True),
        ("hw:1,1", False),
        ("hw:0", False),
        ("hw:Other", False),
        ("hw:", True),
    ],
)
def test_a_source_finds_its_card(tmp_path: Path, source: str, present: bool) -> None:
    card(tmp_path)
    assert (read(passive(tmp_path, source)).fault is None) is present


def test_two_alike_are_told_apart_by_their_port(tmp_path: Path) -> None:
    card(tmp_path, 1, port="1-1.4")
    card(tmp_path, 2, port="1-1.2")
    found = _alsa.find(tmp_path, _alsa.parse_source("usb:0b0e:0422"), _alsa.CAPTURE)
    assert [stream.port for stream in found] == ["1-1.2", "1-1.4"]
    assert read(passive(tmp_path)).values["alike"] == 2
    reading = read(passive(tmp_path, "usb:0b0e:0422@1-1.4"))
    assert reading.identity["port"] == "1-1.4"
    assert [table["source"] for table in microphone.discover(tmp_path)] == [
        "usb:0b0e:0422@1-1.4",
        "usb:0b0e:0422@1-1.2",
    ]


def test_a_loudspeaker_is_no_microphone(tmp_path: Path) -> None:
    card(tmp_path, streams="p")
    assert read(passive(tmp_path)).fault is Fault.ABSENT
    assert microphone.discover(tmp_path) == []


def test_a_worker_without_proc_asound_still_finds_the_card(tmp_path: Path) -> None:
    card(tmp_path)
    (tmp_path / "proc").rename(tmp_path / "hidden")
    reading = read(passive(tmp_path))
    assert reading.values == {"present": True}
    assert reading.identity["usb"] == "0b0e:0422"


def test_a_file_is_there_or_not(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    part = passive(tmp_path, f"file:{path}")
    assert read(part).fault is Fault.ABSENT
    path.touch()
    assert read(part).values == {"present": True}


@pytest.mark.parametrize(
    "source", ["usb:0b0e", "usb:0b0e:04222", "usb:0b0e:0422@", "hw:1,2,3,4", "default", "", "file:"]
)
def test_a_source_that_is_none_is_refused_with_what_may_stand_there(source: str) -> None:
    with pytest.raises(ValidationError) as caught:
        microphone.Settings(source=source)
    assert not source or "usb:VID:PID" in str(caught.value)


@given(st.text(max_size=40))
def test_no_text_breaks_the_parser_of_sources(text: str) -> None:
    try:
        source = _alsa.parse_source(text)
    except ValueError:
        return
    assert source.usb or source.path or text.startswith(("hw:", "plughw:"))


def test_native_formats_are_read_in_both_directions(tmp_path: Path) -> None:
    card(tmp_path)
    (stream,) = _alsa.streams(tmp_path, _alsa.CAPTURE)
    assert _alsa.native(tmp_path, stream) == [_alsa.Native((16_000,), 1, 16)]
    (stream,) = _alsa.streams(tmp_path, _alsa.PLAYBACK)
    assert _alsa.native(tmp_path, stream) == [_alsa.Native((8_000, 16_000, 48_000), 2, 16)]


def test_two_settings_of_one_interface_are_two_formats() -> None:
    text = """Interface at usb-1, high speed : USB Audio

Capture:
  Status: Running
    Interface = 2
    Altset = 2
    Momentary freq = 48000 Hz (0x6.0000)
  Interface 2
    Altset 1
    Format: S16_LE
    Channels: 2
    Rates: 44100, 48000, 96000
  Interface 2
    Altset 2
    Format: S24_3LE
    Channels: 2
    Rates: 48000 - 48000 (continuous)
"""
    assert _alsa.parse_stream(text, _alsa.CAPTURE) == [
        _alsa.Native((44_100, 48_000, 96_000), 2, 16),
        _alsa.Native((48_000,), 2, 24),
    ]
    assert _alsa.parse_stream(text, _alsa.PLAYBACK) == []


@given(st.text(alphabet="CapturePlybkFormatRtes: S16_LE,0123456789\n", max_size=300))
def test_no_text_breaks_the_parser_of_streams(text: str) -> None:
    for found in _alsa.parse_stream("Capture:\n" + text, _alsa.CAPTURE):
        assert found.rates
        assert found.channels >= 1


@given(st.text(max_size=200))
def test_no_text_breaks_the_parsers_of_states(text: str) -> None:
    assert _alsa.parse_status(text).state in _alsa.STATES
    assert _pcm.parse_switch(text) in (None, "on", "off")


def test_the_switch_called_capture_counts_before_others() -> None:
    text = """Simple mixer control 'Line',0
  Front Left: Capture 3 [10%] [0.00dB] [off]
Simple mixer control 'Capture',0
  Front Left: Capture 40 [63%] [0.00dB] [off]
  Front Right: Capture 40 [63%] [0.00dB] [on]
"""
    assert _pcm.parse_switch(text) == "on"
    assert _pcm.parse_switch(text.replace("[on]", "[off]")) == "off"
    assert _pcm.parse_switch("Simple mixer control 'PCM',0\n  Mono: Playback 1 [1%] [on]") is None


def test_changes_end_at_once_in_a_recorded_tree(tmp_path: Path) -> None:
    async def count() -> int:
        settings = microphone.Settings(source="hw:0")
        return sum([1 async for _ in microphone.changes(settings, tmp_path)])

    assert asyncio.run(count()) == 0


def test_a_boot_loader_in_its_place_is_absent_and_says_so(tmp_path: Path) -> None:
    device = tmp_path / "sys/bus/usb/devices/1-1.2"
    device.mkdir(parents=True)
    (device / "idVendor").write_text("0b0e\n")
    (device / "idProduct").write_text("0421\n")
    settings = microphone.Settings(source="usb:0b0e:0422", modes={"0b0e:0421": "dfu"})
    part = microphone.Passive(settings, tmp_path)
    reading = read(part)
    assert (reading.fault, reading.values["mode"]) == (Fault.ABSENT, "dfu")
    (finding,) = microphone.judge(reading, settings)
    assert (finding.code, finding.numbers["mode"]) == ("microphone.absent", "dfu")
    assert "dfu" in microphone.WORDS
    card(tmp_path)
    assert read(part).fault is None
