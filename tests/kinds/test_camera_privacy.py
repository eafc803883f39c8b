"""From what a camera tells, no picture can be rebuilt: its numbers are of whole pictures and say
nothing of where a thing is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import camera_stage as stage
import numpy as np
import pytest
from camera_stage import Picture

from agent.kinds import camera
from agent.kinds._tells import coarse
from agent.kinds.camera.tells import TELLS
from agent.lanes import wire
from agent.model import Reading, Scalar

GOLDEN = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "golden" / "camera"


def read(path: Path, question: str = "whole", **settings: object) -> Reading:
    table = {"source": f"file:{path}", **settings}
    reading: Reading = camera.Driver(camera.Settings.model_validate(table)).read(question)
    assert reading.fault is None
    return reading


def as_declared(values: Mapping[str, Scalar], *, whole: bool = True) -> None:
    """`whole` reads longer than any look: there the ranges of times and counts do not hold."""
    told = {k: v for k, v in values.items() if not (whole and k.endswith("_s")) and k != "frames"}
    assert coarse(told, TELLS) == (told, [])
    assert values.keys() <= TELLS.keys()


@pytest.mark.parametrize("seed", range(3))
def test_every_value_is_rounded_as_declared(tmp_path: Path, seed: int) -> None:
    path = stage.write(tmp_path / "room.avi", stage.healthy(2.0, seed))
    as_declared(read(path, "look", look_s=1).values, whole=False)
    usual = list(read(path, "baseline", look_s=1).fingerprint)
    as_declared(read(path, "look", look_s=1, baseline_fingerprint=usual).values, whole=False)


@pytest.mark.golden
@pytest.mark.skipif(not GOLDEN.exists(), reason="the labelled clips are not beside the checkout")
def test_real_clips_are_rounded_as_declared() -> None:
    clips = [p for p in sorted(GOLDEN.iterdir()) if p.suffix in (".avi", ".mkv")]
    assert len(clips) >= 5
    for path in clips:
        as_declared(read(path).values)


@pytest.mark.parametrize(
    "turned", [lambda view: view[:, ::-1], lambda view: view[::-1]], ids=["mirrored", "upside down"]
)
def test_a_room_reads_the_same_whichever_way_it_is_turned(
    tmp_path: Path, turned: Callable[[Picture], Picture]
) -> None:
    views = stage.healthy(2.0, seed=2)
    # Lossless: a codec's own mistakes are not those of the turned picture.
    one = read(stage.write(tmp_path / "one.avi", views, fourcc="FFV1")).values
    other = read(
        stage.write(tmp_path / "other.avi", stage.each(views, turned), fourcc="FFV1")
    ).values
    assert one.keys() == other.keys()
    for key, value in one.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            assert abs(float(value) - float(other[key])) <= 3 * TELLS[key].step + 1e-9, key


def test_an_answer_is_one_short_line_and_only_a_baseline_has_a_list(tmp_path: Path) -> None:
    path = stage.write(tmp_path / "room.avi", stage.healthy(2.0))
    for question in ("look", "whole"):
        reading = read(path, question, look_s=1)
        line = wire.encode(1, reading)
        assert len(line) < 1_500
        assert b"[" not in line
        assert reading.fingerprint == ()
    baseline = read(path, "baseline", look_s=1)
    assert len(baseline.fingerprint) == 64
    assert np.array(baseline.fingerprint).max() <= 15
