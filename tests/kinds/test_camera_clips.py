"""Each fault in clips that the test draws, beside the healthy clip that looks most like it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import camera_stage as stage
import cv2
import numpy as np
import pytest
from camera_stage import Picture

from agent.kinds import camera
from agent.lanes import wire
from agent.model import Reading


def read(path: Path, question: str = "whole", **settings: Any) -> Reading:
    reading = camera.Driver(camera.Settings(source=f"file:{path}", **settings)).read(question)
    assert reading.fault is None, reading
    return reading


def codes(path: Path, **settings: Any) -> list[str]:
    found = camera.judge(read(path, **settings), camera.Settings(source=f"file:{path}", **settings))
    return [f.code.removeprefix("camera.") for f in found]


def defocused(view: Picture) -> Picture:
    return cv2.GaussianBlur(view, (0, 0), 4.5)


def smeared(view: Picture) -> Picture:
    return cv2.blur(view, (25, 1))


def cut(view: Picture) -> Picture:
    view = view.copy()
    view[208:] = 128
    return view


def torn(view: Picture) -> Picture:
    view = view.copy()
    view[176:] = np.roll(view[176:], 110, axis=1)
    return view


def without_colour_planes(view: Picture) -> Picture:
    planes = cv2.cvtColor(view, cv2.COLOR_BGR2YUV)
    planes[..., 1:] = 0
    return cv2.cvtColor(planes, cv2.COLOR_YUV2BGR)


def colour_displaced(view: Picture) -> Picture:
    planes = cv2.cvtColor(view, cv2.COLOR_BGR2YUV)
    planes[..., 1:] = np.roll(planes[..., 1:], (60, 130), axis=(0, 1))
    return cv2.cvtColor(planes, cv2.COLOR_YUV2BGR)


def blocks_lost(view: Picture) -> Picture:
    view, dice = view.copy(), np.random.default_rng(int(view.sum()) % 1_000)
    for _ in range(60):
        y, x = 16 * dice.integers(0, 21), 16 * dice.integers(0, 38)
        view[y : y + 16, x : x + 32] = dice.integers(0, 255, 3)
    return view


def hand_over_lens(share: float) -> Callable[[Picture], Picture]:
    ramp = np.clip((share - np.linspace(0, 1, stage.WIDTH)) * 14 + 0.5, 0, 1)[None, :, None]
    skin = np.array([62, 74, 128]) * np.linspace(0.85, 1.15, stage.HEIGHT)[:, None, None]

    def over(view: Picture) -> Picture:
        covered = np.clip(view * (1 - ramp) + skin * ramp, 0, 255).astype(np.uint8)
        return stage.grain(covered, 1.5, int(view[0, 0, 0]))

    return over


def exposed(factor: float) -> Callable[[Picture], Picture]:
    return lambda view: np.clip(view * factor, 0, 255).astype(np.uint8)


def speckled(view: Picture) -> Picture:
    view, dice = view.copy(), np.random.default_rng(int(view.sum()) % 1_000)
    wrong = dice.random(view.shape[:2]) < 0.03
    view[wrong] = 255 * dice.integers(0, 2, (int(wrong.sum()), 1))
    return view


def plain(*bgr: int, text: str = "") -> Picture:
    card = np.full((stage.HEIGHT, stage.WIDTH, 3), bgr, np.uint8)
    if text:
        cv2.putText(card, text, (200, 190), 0, 1.2, (255, 255, 255), 2)
    return card


def bars() -> Picture:
    colours = [
        (191, 191, 191),
        (0, 191, 191),
        (191, 191, 0),
        (0, 191, 0),
        (191, 0, 191),
        (0, 0, 191),
    ]
    return np.repeat(np.array([colours], np.uint8), 107, axis=1).repeat(360, axis=0)[:, :640].copy()


LIVE = stage.healthy(3.4)
STILL = stage.empty(3.4)


@pytest.mark.parametrize(
    ("code", "views"),
    [
        ("black", [plain(0, 0, 0)] * 50),
        ("black", [stage.grain(plain(12, 12, 12), 2, at) for at in range(50)]),
        ("covered", stage.each(LIVE, hand_over_lens(1.2))),
        ("covered", stage.each(LIVE, hand_over_lens(0.68))),
        ("frozen", [LIVE[7]] * 51),
        ("blurred", stage.each(LIVE, lambda v: stage.grain(defocused(v)))),
        ("blurred", stage.each(LIVE, lambda v: stage.grain(smeared(v)))),
        ("overexposed", stage.each(LIVE, exposed(2.6))),
        ("underexposed", stage.each(LIVE, exposed(0.09))),
        ("noisy", [stage.grain(v, 18, at) for at, v in enumerate(LIVE)]),
        ("noisy", stage.each(LIVE, speckled)),
        ("no_signal", [plain(190, 20, 10)] * 50),
        ("no_signal", [plain(0, 0, 0, text="NO SIGNAL")] * 50),
        ("no_signal", [bars()] * 50),
        ("corrupted", stage.each(LIVE, cut)),
        ("corrupted", stage.each(LIVE, torn)),
        ("corrupted", stage.each(LIVE, without_colour_planes)),
        ("corrupted", stage.each(LIVE, colour_displaced)),
        ("corrupted", stage.each(LIVE, blocks_lost)),
        ("low_fps", [LIVE[at // 3 * 3] for at in range(51)]),
        ("low_fps", [STILL[at // 3 * 3] for at in range(51)]),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_a_fault_from_the_start_is_named(code: str, views: list[Picture], tmp_path: Path) -> None:
    assert codes(stage.write(tmp_path / "clip.avi", views), fps=15) == [code]


@pytest.mark.parametrize(
    "views",
    [
        pytest.param(LIVE, id="a live room"),
        pytest.param(STILL, id="an empty room in which nothing moves"),
        pytest.param(stage.healthy(3.4, seed=5), id="another room"),
        pytest.param(stage.healthy(3.4, seed=8), id="a third room"),
        pytest.param(
            [stage.grain(exposed(0.3)(v), 3, at) for at, v in enumerate(LIVE)], id="a dim room"
        ),
        pytest.param([stage.grain(v, 5, at) for at, v in enumerate(LIVE)], id="visible noise"),
        pytest.param(
            stage.each(LIVE, lambda v: stage.grain(cv2.GaussianBlur(v, (0, 0), 0.8))),
            id="a slightly soft lens",
        ),
    ],
)
def test_a_healthy_room_has_no_finding(views: list[Picture], tmp_path: Path) -> None:
    assert codes(stage.write(tmp_path / "clip.avi", views), fps=15) == []


def test_each_picture_sent_twice_is_healthy(tmp_path: Path) -> None:
    views = [LIVE[at // 2] for at in range(100)]
    clip = stage.write(tmp_path / "clip.avi", views, fps=30)
    assert codes(clip, fps=30) == []
    assert read(clip).values["fps_different"] == pytest.approx(15, abs=1)


@pytest.mark.parametrize(
    ("code", "then"),
    [
        ("black", [plain(0, 0, 0)] * 45),
        ("frozen", [LIVE[30]] * 45),
        ("no_signal", [plain(190, 20, 10)] * 45),
        ("covered", stage.each(LIVE[:45], hand_over_lens(1.2))),
        ("corrupted", stage.each(LIVE[:45], cut)),
    ],
)
def test_a_fault_that_begins_in_mid_clip_is_found_and_gone_when_it_ends(
    code: str, then: list[Picture], tmp_path: Path
) -> None:
    assert codes(stage.write(tmp_path / "faulty.avi", [*LIVE[:30], *then])) == [code]
    assert codes(stage.write(tmp_path / "mended.avi", [*then[:8], *LIVE])) == []


def test_a_clock_in_a_stopped_picture_does_not_hide_the_stop(tmp_path: Path) -> None:
    views = []
    for at in range(60):
        view = LIVE[3].copy()
        cv2.putText(view, f"09:14:{at // 15:02d}", (8, 24), 0, 0.6, (255, 255, 255), 1)
        views.append(view)
    assert codes(stage.write(tmp_path / "clip.avi", views)) == ["frozen"]


def test_a_stop_is_found_behind_a_codec_that_sends_changes(tmp_path: Path) -> None:
    stopped = stage.write(tmp_path / "stopped.mp4", [STILL[3]] * 75, fourcc="mp4v")
    live = stage.write(tmp_path / "live.mp4", STILL, fourcc="mp4v")
    assert codes(stopped) == ["frozen"]
    assert codes(live) == []


def test_lamps_that_beat_with_the_camera_flicker(tmp_path: Path) -> None:
    rows = np.arange(stage.HEIGHT)[:, None, None] / stage.HEIGHT

    def lit(at: int, swing: float) -> Picture:
        wave = 1 + swing * np.sin(2 * np.pi * (at * 10 / 30 + 2 * rows))
        return stage.grain(np.clip(stage.room() * 0.7 * wave, 0, 255).astype(np.uint8), 2, at)

    flickering = [lit(at, 0.12) for at in range(100)]
    calm = [lit(at, 0.005) for at in range(100)]
    assert codes(stage.write(tmp_path / "flicker.avi", flickering, fps=30)) == ["flicker"]
    assert codes(stage.write(tmp_path / "calm.avi", calm, fps=30)) == []


def test_a_smaller_picture_than_ordered_is_named(tmp_path: Path) -> None:
    clip = stage.write(tmp_path / "clip.avi", LIVE)
    assert codes(clip, width=1280, height=720) == ["low_resolution"]
    assert codes(clip, width=640, height=360) == []


def test_a_slow_stream_is_named_only_where_more_is_expected(tmp_path: Path) -> None:
    clip = stage.write(tmp_path / "clip.avi", LIVE[:20], fps=5)
    assert codes(clip, fps=30) == ["low_fps"]
    assert codes(clip) == []


def test_a_camera_that_was_turned_is_told_from_one_that_was_not(tmp_path: Path) -> None:
    clip = stage.write(tmp_path / "then.avi", LIVE)
    usual = read(clip, "baseline", look_s=0.4).fingerprint
    assert len(usual) == 64
    darker = stage.each(stage.healthy(3.4), exposed(0.7))
    same = stage.write(tmp_path / "same.avi", darker)
    turned = stage.write(tmp_path / "turned.avi", stage.each(LIVE, lambda v: np.roll(v, 60, 0)))
    assert codes(same, baseline_fingerprint=usual) == []
    assert codes(turned, baseline_fingerprint=usual) == ["moved"]


def test_a_fingerprint_is_given_only_when_asked_for_and_is_no_picture(tmp_path: Path) -> None:
    clip = stage.write(tmp_path / "clip.avi", LIVE)
    assert read(clip).fingerprint == ()
    fingerprint = read(clip, "baseline", look_s=0.4).fingerprint
    assert set(fingerprint) <= set(range(16))
    brighter = stage.write(tmp_path / "bright.avi", stage.each(LIVE, exposed(1.3)))
    other = read(brighter, "baseline", look_s=0.4).fingerprint
    # Light does not show in it, outlines do.
    assert sum(abs(a - b) for a, b in zip(fingerprint, other, strict=True)) < 64


def test_an_answer_fits_the_lane_and_holds_only_declared_words(tmp_path: Path) -> None:
    clip = stage.write(tmp_path / "clip.avi", LIVE)
    for question in ("whole", "baseline"):
        reading = read(clip, question, look_s=0.4)
        line = wire.encode(1, reading)
        assert len(line) <= wire.MAX_LINE
        back = wire.decode(line, camera.WORDS, number=1, ask=question)
        assert back.values == reading.values
