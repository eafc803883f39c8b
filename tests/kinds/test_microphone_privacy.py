"""From what a microphone tells, no speech can be rebuilt and no speakers be counted.

Its numbers span a whole look, and nothing in them is in the order of time: what is said backwards,
or with its words in another order, reads the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from microphone_stage import Array, noise, voice, write_wav

from agent.kinds import microphone
from agent.kinds._tells import coarse
from agent.kinds.microphone.sound import Ear
from agent.kinds.microphone.tells import TELLS
from agent.kinds.microphone.wav import Wav
from agent.lanes import wire
from agent.model import Reading, Scalar

RATE = 16_000
GOLDEN = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "golden" / "microphone"
SPEECH = ("level_dbfs", "peak_dbfs", "floor_dbfs", "speech_dbfs")


def heard(sound: Array, rate: int = RATE) -> dict[str, Scalar]:
    """What a look tells that hears this."""
    ear = Ear(rate, 1 if sound.ndim == 1 else sound.shape[1], 16)
    ear.hear(np.asarray(sound.reshape(len(sound), -1), np.float32))
    return ear.values()


def sentence(seed: int, seconds: float = 3.0, level: float = -30.0) -> Array:
    """Somebody speaks in a quiet room."""
    return voice(seconds, level, seed=seed) + noise(seconds, -60, seed=1_000 + seed)


def other_order(sound: Array, seed: int = 0) -> Array:
    """The same words in another order: cut where it is quiet."""
    blocks = sound[: len(sound) // 320 * 320].reshape(-1, 320)
    power = (blocks**2).mean(axis=1)
    quiet = {0, len(blocks), *np.flatnonzero(power < np.quantile(power, 0.2)).tolist()}
    words = [blocks[a:b] for a, b in itertools.pairwise(sorted(quiet))]
    order = np.random.default_rng(seed).permutation(len(words))
    return np.concatenate([words[i] for i in order]).ravel()


def steps_apart(one: Mapping[str, Scalar], other: Mapping[str, Scalar]) -> dict[str, int]:
    """By how many steps of its rounding each key differs that both have."""
    apart = {}
    for key in one.keys() & other.keys():
        a, b = one[key], other[key]
        if isinstance(a, int | float) and isinstance(b, int | float):
            apart[key] = round(abs(a - b) / TELLS[key].step)
    return apart


def as_declared(values: Mapping[str, Scalar]) -> None:
    assert coarse(values, TELLS) == (values, [])


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    level=st.floats(-60, 0),
    rate=st.sampled_from([8_000, 16_000, 44_100, 48_000]),
    channels=st.integers(1, 2),
    seconds=st.floats(1, 3),
)
def test_every_value_is_rounded_as_declared(
    seed: int, level: float, rate: int, channels: int, seconds: float
) -> None:
    sound = voice(seconds, level, rate, seed=seed)
    if channels > 1:
        sound = np.stack([sound, noise(seconds, -60, rate, seed=seed)[: len(sound)]], axis=1)
    values = heard(np.clip(sound, -1, 1), rate)
    as_declared(values)
    assert all(isinstance(value, bool | int | float) for value in values.values())


@pytest.mark.golden
@pytest.mark.skipif(not GOLDEN.exists(), reason="the labelled clips are not beside the checkout")
def test_real_recordings_are_rounded_as_declared_and_read_the_same_backwards() -> None:
    clips = sorted(GOLDEN.glob("*.wav"))
    assert len(clips) > 20
    for path in clips:
        with Wav(path) as wav:
            sound = np.asarray(wav.read(0, 3 * wav.layout.rate), np.float64)
            rate = wav.layout.rate
        forward = heard(sound, rate)
        as_declared(forward)
        if path.name.startswith(("healthy", "hn_")):
            apart = steps_apart(forward, heard(sound[::-1], rate))
            assert max(apart[key] for key in SPEECH if key in apart) <= 1, path.name
            assert max(apart.values()) <= 3, (path.name, apart)


@pytest.mark.parametrize("seed", range(12))
def test_what_is_said_backwards_or_in_another_order_reads_the_same(seed: int) -> None:
    said = sentence(seed)
    reading = heard(said)
    later = np.concatenate([said[2 * RATE :], said[: 2 * RATE]])
    for again in (said[::-1], later, other_order(said, seed)):
        apart = steps_apart(reading, heard(again))
        assert max(apart[key] for key in SPEECH) == 0, apart
        assert max(apart.values()) <= 3, apart


def test_two_sentences_of_the_same_level_read_alike() -> None:
    readings = [heard(sentence(seed)) for seed in range(24)]
    for one, other in itertools.combinations(readings, 2):
        apart = steps_apart(one, other)
        assert apart["speech_dbfs"] <= 1
        # How much of the look is pauses, and how high one syllable goes: not which.
        assert apart["level_dbfs"] <= 6
        assert apart["peak_dbfs"] <= 6
        assert apart["clip_pct"] == apart["dead_pct"] == apart["breaks"] == 0


def test_how_many_speak_cannot_be_told() -> None:
    """One talker or two of other pitch who take turns: no number parts them."""
    one, two = [], []
    for seed in range(40):
        air = noise(3, -60, seed=900 + seed)
        one.append(heard(_talker(3, seed, 1.0 if seed % 2 else 1.6) + air))
        turns = [_talker(1.5, seed + 200, 1.0), _talker(1.5, seed + 300, 1.6)]
        two.append(heard(np.concatenate(turns) + air))
    for key in SPEECH:
        assert _best_guess([r[key] for r in one], [r[key] for r in two]) <= 0.7, key


def _talker(seconds: float, seed: int, pitch: float) -> Array:
    said = voice(seconds * pitch, -30, seed=seed)
    at = np.arange(round(RATE * seconds)) * pitch
    return np.interp(at, np.arange(len(said)), said)


def _best_guess(one: list[Scalar], two: list[Scalar]) -> float:
    """Share of right answers of the best threshold there is, chosen when all is known."""
    a, b = np.array(one, float), np.array(two, float)
    right = [((a <= t).mean() + (b > t).mean()) / 2 for t in np.union1d(a, b)]
    return max(max(r, 1 - r) for r in right)


def test_a_guess_that_can_be_made_would_be_seen() -> None:
    """The measure of the test above, where there is something to tell: near or far."""
    near = [heard(sentence(seed, level=-24))["level_dbfs"] for seed in range(12)]
    far = [heard(sentence(seed, level=-40))["level_dbfs"] for seed in range(12)]
    assert _best_guess(near, far) > 0.95


def test_an_answer_is_one_short_line_without_any_list(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "said.wav", sentence(1, 6.0))
    driver = microphone.Driver(microphone.Settings(source=f"file:{path}"))
    for question in ("look", "whole", "baseline"):
        reading: Reading = driver.read(question)
        line = wire.encode(1, reading)
        assert len(line) < 1_024
        assert b"[" not in line
        assert reading.identity == {}
        assert reading.fingerprint == ()
