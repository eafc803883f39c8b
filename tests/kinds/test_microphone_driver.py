"""The microphone's driver, with real files and a real child process in place of `arecord`."""

from __future__ import annotations

import os
import wave
from pathlib import Path

import numpy as np

from agent.kinds import microphone
from agent.model import Fault, Level, Reading

RATE = 16_000


def noise(seconds: float, plain_db: float, seed: int = 1) -> np.ndarray:
    """White noise of a level in dB below full scale, as 16-bit samples."""
    random = np.random.default_rng(seed)
    return (random.normal(0, 10 ** (plain_db / 20), round(RATE * seconds)) * 32768).astype("<i2")


def write_wav(path: Path, samples: np.ndarray, rate: int = RATE, channels: int = 1) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return path


def look(source: str, question: str = "look", **more: object) -> Reading:
    settings = microphone.Settings(source=source, **more)  # type: ignore[arg-type]
    return microphone.Driver(settings).read(question)


def codes(reading: Reading) -> list[str]:
    settings = microphone.Settings(source="hw:0")
    return [f.code for f in microphone.judge(reading, settings)]


def test_a_file_of_zeros_is_silent_and_room_tone_is_healthy(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "x.wav", np.zeros(6 * RATE))
    assert codes(look(f"file:{path}", "whole")) == ["microphone.silent"]
    write_wav(path, noise(6, -60))
    assert codes(look(f"file:{path}", "whole")) == []


def test_a_missing_file_is_absent_until_it_is_there(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    assert look(f"file:{path}").fault is Fault.ABSENT
    write_wav(path, noise(4, -50))
    assert look(f"file:{path}").fault is None


def test_a_file_that_is_no_wav_is_a_bad_file_and_unknown(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    path.write_bytes(os.urandom(5000))
    reading = look(f"file:{path}")
    assert (reading.fault, reading.why) == (Fault.ERROR, "bad_file")
    (found,) = microphone.judge(reading, microphone.Settings(source="hw:0"))
    assert found.level is Level.UNKNOWN


def test_a_wav_without_samples_gives_no_answer(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "x.wav", np.zeros(0))
    reading = look(f"file:{path}", "whole")
    assert (reading.fault, reading.why) == (Fault.NO_ANSWER, "no_samples")


def test_the_level_of_a_full_scale_sine_is_0_dbfs(tmp_path: Path) -> None:
    wave_form = np.sin(np.arange(3 * RATE) * 2 * np.pi * 997 / RATE) * 32767
    reading = look(f"file:{write_wav(tmp_path / 'x.wav', wave_form)}", "whole")
    assert reading.values["level_dbfs"] == 0.0
    assert reading.values["peak_dbfs"] == 0.0
