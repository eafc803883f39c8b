"""Listening at a device: a recorded tree, and a real program in place of `arecord`."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from microphone_stage import card, noise, on_path, pcm, plays, program, unplug

from agent.kinds import microphone
from agent.model import Fault, Level, Reading

ROOM = pcm(noise(1, -60))
BUSY = "arecord: main:831: audio open error: Device or resource busy"
HARDWARE = """say('HW Params of device "hw:1,0":')
say("FORMAT:  {format}")
say("CHANNELS: {channels}")
say("RATE: {rate}")
"""


@pytest.fixture
def bin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    on_path(monkeypatch, tmp_path / "bin")
    return tmp_path / "bin"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    card(tmp_path / "root")
    return tmp_path / "root"


def look(root: Path, source: str = "usb:0b0e:0422", **more: object) -> Reading:
    table = {"look_s": 1, "warm_up_s": 0.1, "deadline_s": 4, **more}
    settings = microphone.Settings.model_validate({"source": source, **table})
    return microphone.Driver(settings, root).read("look")


def codes(reading: Reading) -> list[str]:
    settings = microphone.Settings(source="hw:0")
    return [f.code for f in microphone.judge(reading, settings)]


def test_a_room_is_heard_at_the_hardwares_own_rate_and_channels(bin: Path, root: Path) -> None:
    asked = "open(here + '/asked', 'w').write(' '.join(sys.argv[1:]))\n"
    program(bin, "arecord", asked + plays(ROOM))
    reading = look(root)
    assert reading.fault is None
    assert reading.active
    assert reading.values["rate_hz"] == 16_000
    assert reading.values["channels"] == 1
    assert reading.values["level_dbfs"] == -57.0
    assert codes(reading) == []
    words = (bin / "asked").read_text().split()
    assert words[:2] == ["-D", "hw:1,0"]
    assert "S16_LE" in words
    assert not any(word.endswith(".wav") for word in words)


def test_a_device_of_24_bits_is_heard_through_the_converters(bin: Path, tmp_path: Path) -> None:
    card(tmp_path / "wide", format="S24_3LE", bits=24, channels=2, rates="44100, 48000, 96000")
    asked = "open(here + '/asked', 'w').write(' '.join(sys.argv[1:]))\n"
    program(bin, "arecord", asked + plays(ROOM))
    reading = look(tmp_path / "wide")
    assert (reading.values["rate_hz"], reading.values["channels"]) == (48_000, 2)
    assert "-D plughw:1,0" in (bin / "asked").read_text()


def test_the_warm_up_is_not_judged(bin: Path, root: Path) -> None:
    program(bin, "arecord", f"out.write(bytes({2 * 1600}))\n" + plays(ROOM))
    reading = look(root)
    assert reading.values["dead_pct"] == 0


def test_zeros_are_silent_and_then_the_room_is_heard_again(bin: Path, root: Path) -> None:
    program(bin, "arecord", plays(bytes(32_000)))
    assert codes(look(root)) == ["microphone.silent"]
    program(bin, "arecord", plays(ROOM))
    assert codes(look(root)) == []


def test_a_device_that_is_held_is_busy_and_healthy(bin: Path, root: Path) -> None:
    program(bin, "arecord", f"say({BUSY!r})\nsys.exit(1)\n")
    reading = look(root)
    assert (reading.fault, reading.why) == (Fault.BUSY, "held")
    (found,) = microphone.judge(reading, microphone.Settings(source="hw:0"))
    assert (found.code, found.level) == ("microphone.busy", Level.INFO)
    program(bin, "arecord", plays(ROOM))
    assert look(root).fault is None


def test_a_device_that_the_kernel_shows_in_use_is_not_opened(bin: Path, root: Path) -> None:
    program(bin, "arecord", "open(here + '/opened', 'w')\n" + plays(ROOM))
    status = root / "proc/asound/card1/pcm0c/sub0/status"
    status.write_text("state: RUNNING\nhw_ptr : 5\n")
    reading = look(root)
    assert (reading.fault, reading.active) == (Fault.BUSY, False)
    assert not (bin / "opened").exists()
    status.write_text("closed\n")
    assert look(root).fault is None


def test_a_stream_without_samples_gives_no_answer_in_time(bin: Path, root: Path) -> None:
    program(bin, "arecord", "time.sleep(60)\n")
    begun = time.monotonic()
    reading = look(root, deadline_s=1.3)
    assert time.monotonic() - begun < 1.3
    assert (reading.fault, reading.why) == (Fault.NO_ANSWER, "no_samples")
    assert codes(reading) == ["microphone.no_answer"]


def test_a_stream_that_stops_half_way_gives_no_answer(bin: Path, root: Path) -> None:
    program(bin, "arecord", f"out.write({ROOM[:9000]!r})\nout.flush()\ntime.sleep(60)\n")
    assert look(root, deadline_s=1.3).fault is Fault.NO_ANSWER


@pytest.mark.parametrize(
    ("said", "number"),
    [
        ("arecord: pcm_read:2145: read error: Input/output error", errno.EIO),
        ("arecord: pcm_read:2145: read error: No such device", errno.ENODEV),
        ("arecord: main:831: audio open error: Protocol error", errno.EPROTO),
    ],
)
def test_a_read_error_is_no_answer_with_its_number(
    bin: Path, root: Path, said: str, number: int
) -> None:
    program(
        bin, "arecord", f"out.write({ROOM[:4000]!r})\nout.flush()\nsay({said!r})\nsys.exit(1)\n"
    )
    reading = look(root)
    assert (reading.fault, reading.why) == (Fault.NO_ANSWER, "errno")
    assert reading.values == {"errno": number}


def test_a_device_that_goes_while_it_is_heard_is_absent(bin: Path, root: Path) -> None:
    gone = f"os.rename({str(root / 'sys/class/sound')!r}, {str(root / 'was')!r})\n"
    gone += f"os.rename({str(root / 'proc/asound')!r}, {str(root / 'asound')!r})\n"
    program(bin, "arecord", gone + "say('read error: No such device')\nsys.exit(1)\n")
    assert look(root).fault is Fault.ABSENT


def test_a_right_that_is_missing_is_not_the_microphones_fault(bin: Path, root: Path) -> None:
    program(bin, "arecord", "say('audio open error: Permission denied')\nsys.exit(1)\n")
    reading = look(root)
    assert (reading.fault, reading.why) == (Fault.ERROR, "not_permitted")
    (found,) = microphone.judge(reading, microphone.Settings(source="hw:0"))
    assert found.level is Level.UNKNOWN


def test_without_arecord_nothing_is_known(bin: Path, root: Path) -> None:
    reading = look(root)
    assert (reading.fault, reading.why) == (Fault.ERROR, "not_supported")


def test_a_card_that_is_not_there_is_absent_until_it_is(bin: Path, root: Path) -> None:
    program(bin, "arecord", plays(ROOM))
    unplug(root)
    assert look(root).fault is Fault.ABSENT
    card(root, 3, port="1-1.3")
    assert look(root).fault is None


def test_a_rate_that_the_hardware_does_not_have_is_asked_for_again(bin: Path, root: Path) -> None:
    body = HARDWARE.format(format="S16_LE", channels=1, rate=16_000)
    body += "open(here + '/asked', 'a').write(arguments['-r'] + ' ')\n"
    body += "if arguments['-r'] != '16000':\n"
    body += "    say('Warning: rate is not accurate (requested = 48000Hz, got = 16000Hz)')\n"
    program(bin, "arecord", body + plays(ROOM))
    (root / "proc/asound/card1/stream0").unlink()
    reading = look(root)
    assert reading.values["rate_hz"] == 16_000
    assert (bin / "asked").read_text() == "48000 16000 "


def test_where_the_kernel_tells_no_format_the_models_own_is_asked_for(
    bin: Path, root: Path
) -> None:
    asked = "open(here + '/asked', 'a').write(arguments['-r'] + ' ' + arguments['-c'] + ' ')\n"
    program(bin, "arecord", asked + plays(ROOM))
    usual = {"usual_rate": 32_000, "usual_channels": 2}
    look(root, **usual)  # the kernel's own word counts
    (root / "proc/asound/card1/stream0").unlink()
    look(root, **usual)
    look(root, **usual, rate=48_000)  # and the room's word above all
    assert (bin / "asked").read_text() == "16000 1 32000 2 48000 2 "


def test_channels_that_the_hardware_does_not_have_are_asked_for_again(
    bin: Path, root: Path
) -> None:
    body = HARDWARE.format(format="S32_LE", channels=2, rate="[44100 48000]")
    body += "open(here + '/asked', 'a').write(arguments['-D'] + arguments['-c'] + ' ')\n"
    body += "if arguments['-D'][0] == 'h':\n"
    body += "    say('arecord: set_params:1349: Channels count non available')\n    sys.exit(1)\n"
    program(bin, "arecord", body + plays(ROOM))
    (root / "proc/asound/card1/stream0").unlink()
    assert look(root).values["channels"] == 2
    assert (bin / "asked").read_text() == "hw:1,01 plughw:1,02 "


def test_a_program_that_talks_nonsense_gives_no_answer(bin: Path, root: Path) -> None:
    program(bin, "arecord", "sys.stderr.buffer.write(os.urandom(100000))\nsys.exit(3)\n")
    assert look(root).fault is Fault.NO_ANSWER


def test_overruns_are_counted(bin: Path, root: Path) -> None:
    body = "for _ in range(3):\n    say('overrun!!! (at least 12.345 ms long)')\n"
    program(bin, "arecord", body + plays(ROOM))
    reading = look(root)
    assert reading.values["xruns"] == 3
    assert codes(reading) == ["microphone.dropouts"]


def test_the_device_is_let_go_within_a_second_when_somebody_comes(bin: Path, root: Path) -> None:
    slow = f"while True:\n    out.write({ROOM[:1600]!r})\n    out.flush()\n    time.sleep(0.05)\n"
    program(bin, "arecord", "open(here + '/pid', 'w').write(str(os.getpid()))\n" + slow)
    came: list[float] = []

    def conference() -> None:
        came.append(time.monotonic())
        (root / "dev/snd/controlC1").open().close()

    other = threading.Timer(0.5, conference)
    other.start()
    reading = look(root, look_s=3, deadline_s=8)
    other.join()
    assert (reading.fault, reading.why) == (Fault.BUSY, "yielded")
    assert time.monotonic() - came[0] < 1
    assert not Path(f"/proc/{(bin / 'pid').read_text()}").exists()


@pytest.mark.parametrize(("state", "expected"), [("off", ["microphone.muted"]), ("on", [])])
def test_a_capture_switch_that_is_off_is_muted(
    bin: Path, root: Path, state: str, expected: list[str]
) -> None:
    program(bin, "arecord", plays(pcm(noise(1, -68 if state == "off" else -60))))
    text = f"""Simple mixer control 'PCM',0
  Capabilities: pvolume pswitch pswitch-joined
  Front Left: Playback 20 [54%] [-17.00dB] [on]
Simple mixer control 'Mic',0
  Capabilities: cvolume cvolume-joined cswitch cswitch-joined
  Capture channels: Mono
  Limits: Capture 0 - 35
  Mono: Capture 18 [51%] [6.00dB] [{state}]
"""
    program(
        bin, "amixer", f"open(here + '/asked', 'w').write(str(sys.argv[1:]))\nprint({text!r})\n"
    )
    reading = look(root)
    assert (bin / "asked").read_text() == "['-D', 'hw:1', 'scontents']"  # and no other card
    assert reading.values["switch"] == state
    assert codes(reading) == expected


def test_a_mixer_that_hangs_costs_a_second_and_no_more(bin: Path, root: Path) -> None:
    program(bin, "arecord", plays(ROOM))
    program(bin, "amixer", "time.sleep(60)\n")
    begun = time.monotonic()
    reading = look(root)
    assert "switch" not in reading.values
    assert reading.fault is None
    assert time.monotonic() - begun < 3


def test_no_child_outlives_its_worker(bin: Path, tmp_path: Path) -> None:
    program(bin, "arecord", "open(here + '/pid', 'w').write(str(os.getpid()))\ntime.sleep(60)\n")
    code = "import time; from agent.kinds import _pcm; _pcm.spawn(['arecord']); time.sleep(60)"
    worker = subprocess.Popen([sys.executable, "-c", code])
    pid = bin / "pid"
    until = time.monotonic() + 10
    while not (pid.exists() and pid.read_text()) and time.monotonic() < until:
        time.sleep(0.02)
    worker.kill()
    worker.wait()
    child = Path(f"/proc/{pid.read_text()}/stat")
    while child.exists() and child.read_text().split()[2] != "Z" and time.monotonic() < until:
        time.sleep(0.02)
    assert not child.exists() or child.read_text().split()[2] == "Z"


def test_the_child_works_inside_the_workers_confinement_and_writes_nothing(
    bin: Path, tmp_path: Path
) -> None:
    tries = f"""
try:
    open({str(tmp_path / "taken.raw")!r}, "wb").write(b"sound")
except OSError as error:
    say(f"write refused: {{error.strerror}}")
"""
    program(bin, "arecord", tries + plays(ROOM))
    code = """
import time
from agent.lanes.confine import confine
from agent.kinds import _pcm
layers = confine()
heard = _pcm.listen(["arecord"], 32000, lambda piece: None, until_s=time.monotonic() + 5, stall_s=5)
print(heard.ended, heard.size, "write refused" in heard.text, "no_file_growth" in layers)
"""
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert run.stdout.split() == ["done", "32000", "True", "True"], run.stderr
    taken = tmp_path / "taken.raw"
    assert not taken.exists() or taken.stat().st_size == 0
