"""The loop test: the sweep found in arrays, and through real programs in place of alsa-utils."""

from __future__ import annotations

import errno
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from microphone_stage import Array, card, noise, on_path, program, voice

from agent.kinds import speaker
from agent.kinds._loop import chirp, find
from agent.lanes import wire
from agent.model import Fault, Reading

LEVEL = -30.0


def room(
    delay_ms: float, gain_db: float, noise_db: float, rate: int = 16_000, seconds: float = 1.7
) -> Array:
    """What a microphone records of the sweep."""
    sound = noise(seconds, noise_db, rate)
    swept = chirp(rate, LEVEL) * 10 ** (gain_db / 20)
    at = round(rate * delay_ms / 1000)
    sound[at : at + len(swept)] += swept[: len(sound) - at]
    return sound


def test_the_sweep_is_quiet_and_has_the_level_that_was_asked_for() -> None:
    for rate in (8_000, 16_000, 48_000):
        wave = chirp(rate, LEVEL)
        assert len(wave) == rate // 2
        assert np.abs(wave).max() == pytest.approx(10 ** (LEVEL / 20), rel=0.01)
        assert abs(float(wave[0])) < 1e-6
        assert abs(float(wave[-1])) < 1e-6


@settings(max_examples=60, deadline=None)
@given(
    delay_ms=st.floats(0, 1000),
    gain_db=st.floats(-30, 6),
    rate=st.sampled_from([8_000, 16_000, 44_100, 48_000]),
)
def test_gain_and_delay_are_found(delay_ms: float, gain_db: float, rate: int) -> None:
    found = find(room(delay_ms, gain_db, -75, rate), rate, LEVEL)
    assert found.found
    assert found.delay_ms == pytest.approx(delay_ms, abs=0.5)
    assert found.gain_db == pytest.approx(gain_db, abs=1)
    assert found.echo_db is None or found.echo_db < -25


def test_a_sweep_below_the_noise_of_the_room_is_found() -> None:
    found = find(room(200, -25, -58), 16_000, LEVEL)  # -58 dB at the microphone, as the noise
    assert found.found
    assert found.delay_ms == pytest.approx(200, abs=1)


@pytest.mark.parametrize("seed", range(8))
def test_what_is_not_there_is_not_found(seed: int) -> None:
    assert not find(noise(1.7, -50, seed=seed), 16_000, LEVEL).found
    assert not find(voice(1.7, -24, seed=seed), 16_000, LEVEL).found


def test_silence_and_short_sounds_are_not_found() -> None:
    assert not find(np.zeros(27_000), 16_000, LEVEL).found
    assert not find(np.zeros(10), 16_000, LEVEL).found
    assert not find(np.sin(np.arange(27_000) * 0.3), 16_000, LEVEL).found


def test_reverberation_is_no_echo_and_a_second_device_is() -> None:
    random = np.random.default_rng(3)
    tail = random.normal(0, 1, 8_000) * np.exp(-6.9 * np.arange(8_000) / 8_000)
    tail *= 0.5 / np.sqrt((tail**2).sum())
    tail[0] = 1
    heard = np.convolve(room(150, -20, -90), tail)[:27_200] + noise(1.7, -70)
    found = find(heard, 16_000, LEVEL)
    assert found.found
    assert found.echo_db is None or found.echo_db < -15
    late = np.concatenate((np.zeros(4_000), heard))[:27_200] * 0.7
    again = find(heard + late, 16_000, LEVEL)
    assert again.echo_db == pytest.approx(-3, abs=1)
    assert again.echo_ms == pytest.approx(250, abs=2)


# What the loudspeaker is given reaches the microphone through a file: a room of two programs.
PLAYER = """
sound = sys.stdin.buffer.read()
open(here + '/air.part', 'wb').write(sound)
os.rename(here + '/air.part', here + '/air')
"""
LISTENER = """
import array, random
channels = int(arguments['-c'])
random.seed(1)
def give(samples):
    out.write(samples.tobytes())
    out.flush()
def quiet(count):
    return array.array('h', [random.randint(-20, 20) for _ in range(count)])
give(quiet(1600))
until = time.monotonic() + 3
while not os.path.exists(here + '/air') and time.monotonic() < until:
    time.sleep(0.01)
air = array.array('h', open(here + '/air', 'rb').read())[::RATIO]
heard = array.array('h', [int(s * GAIN) + random.randint(-20, 20) for s in air])
give(quiet(1600))
give(heard)
while True:
    give(quiet(16000))
"""


@pytest.fixture
def bin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    on_path(monkeypatch, tmp_path / "bin")
    return tmp_path / "bin"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    card(tmp_path / "root")
    return tmp_path / "root"


def loop(root: Path, question: str = "loop", **more: object) -> Reading:
    table = {"source": "usb:0b0e:0422", "loop_test": True, "deadline_s": 6, **more}
    return speaker.Driver(speaker.Settings.model_validate(table), root).read(question)


def codes(reading: Reading) -> list[str]:
    return [f.code for f in speaker.judge(reading, speaker.Settings())]


def listener(gain: float) -> str:
    # Played at 48 kHz with two channels, heard at 16 kHz with one.
    return LISTENER.replace("RATIO", "6").replace("GAIN", str(gain))


def test_a_loudspeaker_that_the_microphone_hears_is_well(bin: Path, root: Path) -> None:
    program(bin, "aplay", PLAYER)
    program(bin, "arecord", listener(0.1))
    reading = loop(root)
    assert reading.fault is None
    assert reading.active
    assert reading.values["microphones_heard"] == 1
    assert reading.values["gain_db"] == pytest.approx(-20, abs=1)
    assert codes(reading) == []
    line = wire.encode(1, reading)
    assert wire.decode(line, speaker.WORDS, number=1, ask="loop").values == reading.values


def test_a_loudspeaker_that_is_switched_off_fails_until_it_is_on(bin: Path, root: Path) -> None:
    program(bin, "aplay", PLAYER)
    program(bin, "arecord", listener(0))
    assert codes(loop(root)) == ["speaker.loop_failed"]
    (bin / "air").unlink()
    program(bin, "arecord", listener(0.1))
    assert codes(loop(root)) == []


def test_no_sound_is_made_unless_it_was_asked_for_and_allowed(bin: Path, root: Path) -> None:
    program(bin, "aplay", "open(here + '/played', 'w')\n" + PLAYER)
    program(bin, "arecord", listener(0.1))
    for question in ("look", "whole", "baseline"):
        assert loop(root, question) == Reading()
    refused = loop(root, loop_test=False)
    assert (refused.fault, refused.why) == (Fault.SKIPPED, "refused")
    assert not (bin / "played").exists()


def test_a_loudspeaker_that_plays_for_somebody_is_left_alone(bin: Path, root: Path) -> None:
    program(bin, "aplay", "open(here + '/played', 'w')\n" + PLAYER)
    program(bin, "arecord", listener(0.1))
    status = root / "proc/asound/card1/pcm0p/sub0/status"
    status.write_text("state: RUNNING\nhw_ptr : 1\n")
    assert loop(root).fault is Fault.BUSY
    assert not (bin / "played").exists()
    status.write_text("closed\n")
    assert loop(root).fault is None


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ("aplay: main:831: audio open error: Device or resource busy", Fault.BUSY),
        ("aplay: pcm_write:2127: write error: Input/output error", Fault.NO_ANSWER),
    ],
)
def test_a_player_that_fails_says_why(bin: Path, root: Path, said: str, fault: Fault) -> None:
    said_and_gone = f"say({said!r})\nopen(here + '/air', 'w')\nsys.exit(1)\n"
    program(bin, "aplay", said_and_gone)
    program(bin, "arecord", listener(0.1))
    reading = loop(root)
    assert reading.fault is fault
    assert fault is Fault.BUSY or reading.values == {"errno": errno.EIO}


def test_a_test_that_nobody_can_hear_says_nothing_of_the_loudspeaker(bin: Path, root: Path) -> None:
    program(bin, "aplay", PLAYER)
    program(bin, "arecord", "time.sleep(60)\n")
    begun = time.monotonic()
    reading = loop(root, deadline_s=2)
    assert time.monotonic() - begun < 2
    assert reading.fault is Fault.ERROR
    assert loop(root, microphones=["usb:1234:5678"]).fault is Fault.ERROR


def test_a_loudspeaker_that_is_gone_is_absent(bin: Path, root: Path) -> None:
    assert loop(root, source="usb:1234:5678").fault is Fault.ABSENT
