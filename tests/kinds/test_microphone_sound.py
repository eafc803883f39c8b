"""What is heard in sounds made here: every fault in several strengths beside its healthy twin."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from microphone_stage import Array, noise, pcm, voice, write_wav

from agent.kinds import microphone
from agent.kinds.microphone.sound import Ear, to_sound
from agent.kinds.microphone.wav import BadFileError, Wav, read_layout
from agent.lanes import wire
from agent.model import Reading, Scalar

RATES = (16_000, 44_100, 48_000)
LIMITS = microphone.Settings(source="hw:0")


def heard(sound: Array, rate: int = 16_000) -> dict[str, Scalar]:
    columns = 1 if sound.ndim == 1 else sound.shape[1]
    ear = Ear(rate, columns, 16)
    ear.hear(to_sound(pcm(sound), 16, columns))
    return ear.values()


def codes(sound: Array, rate: int = 16_000) -> list[str]:
    reading = Reading(heard(sound, rate))
    return [f.code.removeprefix("microphone.") for f in microphone.judge(reading, LIMITS)]


def speech(rate: int = 16_000, plain_db: float = -24, seed: int = 1) -> Array:
    return voice(6, plain_db, rate, seed) + noise(6, -62, rate, seed)


def hum(parts: dict[int, float], plain_db: float, rate: int = 16_000, seconds: float = 6) -> Array:
    time = np.arange(round(rate * seconds)) / rate
    wave = np.asarray(sum(a * np.sin(2 * np.pi * 50.04 * k * time + k) for k, a in parts.items()))
    return wave * (10 ** (plain_db / 20) / np.sqrt((wave**2).mean()))


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_speech_is_well_near_and_far(rate: int, seed: int) -> None:
    assert codes(speech(rate, -24, seed), rate) == []
    assert codes(speech(rate, -38, seed), rate) == []
    loud = speech(rate, -20, seed)
    assert codes(loud * (0.93 / np.abs(loud).max()), rate) == []


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("level", [-72, -62, -50])
def test_a_room_in_which_nobody_speaks_is_well(rate: int, level: float) -> None:
    assert codes(noise(6, level, rate), rate) == []
    rumble = np.cumsum(noise(6, level, rate) - 0)  # brown: fans and traffic
    rumble -= np.convolve(rumble, np.ones(rate // 20) / (rate // 20), "same")
    assert codes(rumble * (10 ** (level / 20) / rumble.std()), rate) == []


def test_someone_at_the_door_in_a_quiet_room_is_well() -> None:
    sound = noise(6, -65)
    for at in (20_000, 24_000, 61_000):
        sound[at : at + 4_000] += noise(0.25, -25, seed=at) * np.exp(-np.arange(4_000) / 300)
    assert codes(sound) == []


@pytest.mark.parametrize(
    "sound",
    [
        np.zeros(96_000),
        np.full(96_000, 0.02),
        np.random.default_rng(1).integers(-1, 2, 96_000) / 32_768,
        np.random.default_rng(2).integers(-1, 2, 96_000) / 32_768 - 0.01,
    ],
    ids=["zero", "constant", "dither", "dither with an offset"],
)
def test_no_input_is_silent(sound: Array) -> None:
    assert codes(sound) == ["silent"]
    assert codes(sound + noise(6, -65)) == []


@pytest.mark.parametrize("fill", [0.0, 0.004])
def test_sound_that_stops_for_good_is_silent(fill: float) -> None:
    sound = speech()
    sound[40_000:] = fill
    assert codes(sound) == ["silent"]


def test_an_analog_floor_is_muted_and_not_silent() -> None:
    assert codes(noise(6, -84)) == ["muted"]
    assert codes(noise(6, -75)) == []


@pytest.mark.parametrize("fade_ms", [10, 30, 60])
def test_a_noise_suppressor_that_fades_to_zero_is_well(fade_ms: int) -> None:
    gate, words = np.ones(96_000), np.ones(96_000)
    for start, end in ((20_000, 32_000), (50_000, 58_000), (84_000, 96_000)):
        gate[start:end] = 0
        words[max(0, start - 3_000) : end + 1_000] = 0
    words = np.convolve(words, np.hanning(1_500) / np.hanning(1_500).sum(), "same")
    size = 16 * fade_ms
    gate = np.convolve(gate, np.hanning(size) / np.hanning(size).sum(), "same")
    assert codes((voice(6, -24) * words + noise(6, -60)) * np.where(gate < 1e-3, 0, gate)) == []


@pytest.mark.parametrize(
    ("rate", "length_ms"), [(16_000, 6), (48_000, 6), (44_100, 40), (16_000, 200)]
)
def test_holes_in_sound_are_dropouts(rate: int, length_ms: int) -> None:
    sound = speech(rate)
    random = np.random.default_rng(5)
    for at in random.integers(0, len(sound) - rate, 12):
        sound[at : at + rate * length_ms // 1000] = 0
    assert codes(sound, rate) == ["dropouts"]


def test_a_loose_contact_is_dropouts() -> None:
    sound, random = speech(), np.random.default_rng(4)
    for at in range(8_000, 90_000, 9_000):
        sound[at : at + 1_600] *= 0.003
        sound[at - 20 : at + 20] += random.normal(0, 0.25, 40)
    assert codes(sound) == ["dropouts"]


@pytest.mark.parametrize("percent", [0.5, 2, 8])
@pytest.mark.parametrize("gain", [1.0, 0.3])
def test_flat_tops_are_clipping_at_full_scale_and_below(percent: float, gain: float) -> None:
    sound = speech()
    top = np.quantile(np.abs(sound), 1 - percent / 100)
    assert codes(np.clip(sound / top, -1, 1) * gain) == ["clipping"]
    assert "clipping" not in codes(sound / np.abs(sound).max() * 0.99)


def test_a_steady_tone_is_no_clipping_and_no_hiss() -> None:
    time = np.arange(96_000) / 16_000
    for pitch in (440, 997, 2_500):
        assert codes(0.2 * np.sin(2 * np.pi * pitch * time) + noise(6, -70)) == []


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize(
    "parts",
    [
        {1: 1},
        {2: 1},
        {1: 1, 2: 0.5, 3: 0.4, 5: 0.2},
        {2: 1, 4: 0.6, 6: 0.4},
        {3: 1, 5: 0.7, 1: 0.3},
    ],
)
def test_mains_hum_is_found_alone_and_under_speech(rate: int, parts: dict[int, float]) -> None:
    assert codes(hum(parts, -38, rate) + noise(6, -62, rate), rate) == ["hum"]
    assert codes(hum(parts, -34, rate) + speech(rate), rate) == ["hum"]
    assert codes(hum(parts, -64, rate) + speech(rate), rate) == []


@pytest.mark.parametrize("level", [-33, -24, -18])
def test_hiss_is_noisy(level: float) -> None:
    assert codes(noise(6, level)) == ["noisy"]
    assert codes(noise(6, level, 48_000), 48_000) == ["noisy"]


@pytest.mark.parametrize("below_db", [2, 4, 7])
def test_hiss_close_below_the_speech_is_noisy(below_db: float) -> None:
    assert codes(voice(6, -28) + noise(6, -28 - below_db)) == ["noisy"]


@pytest.mark.parametrize("level", [-52, -57, -62])
def test_speech_that_hardly_arrives_is_too_quiet(level: float) -> None:
    assert codes(voice(6, level) + noise(6, -82)) == ["too_quiet"]


def test_squeezed_speech_is_too_loud() -> None:
    sound = np.tanh(voice(6, 0) * 2)
    assert codes(sound / np.abs(sound).max() * 0.9 + noise(6, -60)) == ["too_loud"]


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("kind", ["zero", "dither", "open input"])
def test_a_channel_that_carries_nothing_is_dead(side: int, kind: str) -> None:
    random = np.random.default_rng(1)
    dead = {
        "zero": np.zeros(96_000),
        "dither": random.integers(-1, 2, 96_000) / 32_768,
        "open input": noise(6, -83),
    }[kind]
    pair = [speech(), dead] if side else [dead, speech()]
    assert codes(np.stack(pair, axis=1)) == ["dead_channel"]


def test_two_channels_of_different_level_are_well() -> None:
    both = np.stack([speech(), speech() * 0.35], axis=1)
    assert codes(both) == []


def test_levels_are_those_of_aes17() -> None:
    time = np.arange(48_000 * 3) / 48_000
    values = heard(0.5 * np.sin(2 * np.pi * 997 * time), 48_000)
    assert values["level_dbfs"] == -6.0
    assert values["peak_dbfs"] == -6.0


@settings(max_examples=40, deadline=None)
@given(
    raw=st.binary(max_size=30_000),
    rate=st.sampled_from([4_000, 8_000, 11_025, 16_000, 22_050, 96_000]),
    bits=st.sampled_from([8, 16, 24, 32]),
    channels=st.integers(1, 3),
)
def test_whatever_is_heard_becomes_few_numbers_that_may_travel(
    raw: bytes, rate: int, bits: int, channels: int
) -> None:
    ear = Ear(rate, channels, bits)
    ear.hear(to_sound(raw, bits, channels))
    values = ear.values()
    line = wire.encode(1, Reading(values))
    back = wire.decode(line, microphone.WORDS, number=1, ask="look")
    assert dict(back.values) == values
    assert len(line) < 600
    assert len(microphone.judge(Reading(values), LIMITS)) <= 1


def test_numbers_are_too_coarse_to_carry_a_voice() -> None:
    values = heard(speech())
    assert len(values) <= 14
    for key, value in values.items():
        if key.endswith(("_dbfs", "_db")):
            assert float(value) * 2 == round(float(value) * 2)
    assert json.loads(json.dumps(values)) == values


def wav(bits: int, sound: Array, *, extensible: bool = False, length: int | None = None) -> bytes:
    scaled = np.clip(np.round(sound * 2 ** (bits - 1)), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    whole = scaled.astype("<i4")
    if bits == 8:
        data = (whole + 128).astype("u1").tobytes()
    else:
        data = whole.astype("<i4").view("u1").reshape(-1, 4)[:, : bits // 8].tobytes()
    align = bits // 8
    form = struct.pack("<HHIIHH", 1, 1, 16_000, 16_000 * align, align, bits)
    if extensible:
        form = struct.pack("<H", 0xFFFE) + form[2:] + struct.pack("<HHI", 22, bits, 4)
        form += bytes.fromhex("0100000000001000800000aa00389b71")
    size = len(data) if length is None else length
    chunks = b"fmt " + struct.pack("<I", len(form)) + form
    chunks += b"LIST" + struct.pack("<I", 3) + b"abc\0" + b"data" + struct.pack("<I", size)
    return b"RIFF" + struct.pack("<I", 0xFFFFFFFF) + b"WAVE" + chunks + data


@pytest.mark.parametrize("bits", [8, 16, 24, 32])
@pytest.mark.parametrize("extensible", [False, True])
@pytest.mark.parametrize("length", [None, 0xFFFFFFFF, 0])
def test_every_depth_of_a_wav_file_is_read(
    tmp_path: Path, bits: int, extensible: bool, length: int | None
) -> None:
    path = tmp_path / "x.wav"
    sound = np.sin(np.arange(16_000) / 7) * 0.5
    path.write_bytes(wav(bits, sound, extensible=extensible, length=length))
    with Wav(path) as file:
        assert (file.layout.rate, file.layout.bits, file.layout.frames) == (16_000, bits, 16_000)
        back = file.read(100, 1_000)
        assert back.shape == (1_000, 1)
        assert np.abs(back[:, 0] - sound[100:1_100]).max() < 2.0 ** (2 - bits) + 1e-6
        assert len(file.read(15_900, 1_000)) == 100


def test_a_file_cut_short_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    path.write_bytes(wav(16, noise(1, -30))[:20_001])
    with Wav(path) as file:
        assert file.layout.frames == len(file.read(0, 99_999)) > 9_000


@pytest.mark.parametrize("code", [3, 6, 0x55])
def test_other_codings_are_a_bad_file(tmp_path: Path, code: int) -> None:
    raw = bytearray(wav(16, noise(1, -30)))
    raw[20:22] = struct.pack("<H", code)
    with pytest.raises(BadFileError, match="not PCM"):
        read_layout(io.BytesIO(raw), len(raw))


@given(st.binary(max_size=200), st.integers(0, 60))
def test_no_bytes_break_the_reader_of_wav_files(junk: bytes, at: int) -> None:
    raw = wav(16, np.zeros(4))
    for data in (junk, raw[:at] + junk + raw[at:], raw[:at] + junk):
        try:
            layout = read_layout(io.BytesIO(data), len(data))
        except BadFileError:
            continue
        assert layout.frames * layout.frame_size <= len(data)


def test_a_file_plays_round_and_round_and_a_swapped_one_is_noticed(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "x.wav", noise(1.3, -50))
    settings = microphone.Settings(source=f"file:{path}")
    driver = microphone.Driver(settings)
    first = driver.read("look")
    assert first.values["heard_s"] == 3.0
    assert not first.active
    assert microphone.judge(first, settings) == []
    write_wav(path, np.zeros(20_000))
    (found,) = microphone.judge(driver.read("look"), settings)
    assert found.code == "microphone.silent"
    write_wav(path, noise(1.3, -50))
    assert microphone.judge(driver.read("look"), settings) == []
