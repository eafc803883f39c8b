"""The judge of a camera as a table: numbers in, at most one finding about the picture out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kinds import camera
from agent.kinds.camera.judge import CODES
from agent.model import Fault, Level, Reading, Scalar

GOOD: dict[str, Scalar] = {
    "width": 1280,
    "height": 720,
    "frames": 90,
    "span_s": 3.0,
    "fps": 30.0,
    "fps_declared": 30.0,
    "intra_only": False,
    "unchanged_s": 0.1,
    "stopped_s": 0.0,
    "flicker_pct": 0.1,
    "luma_mean": 120,
    "luma_high": 220,
    "luma_spread": 150.0,
    "bright_share": 0.1,
    "edge_contrast": 20.0,
    "edge_width": 0.85,
    "edge_axis_width": 0.95,
    "plain_share": 0.3,
    "plain_softness": 2.0,
    "flat_share": 0.0,
    "flat_colours": 0,
    "one_level_share": 0.05,
    "lost_channel_share": 0.0,
    "tint": 3,
    "colour_shift": -0.3,
    "noise": 2.0,
    "speckle_share": 0.0,
    "tear": 0.3,
    "stuck_share": 0.02,
    "block_steps": 0.0,
}


def found(values: dict[str, Any], **limits: Any) -> list[tuple[str, Level]]:
    settings = camera.Settings(source="v4l2:/dev/video0", **limits)
    reading = Reading(values={**GOOD, **values}, active=True)
    return [(f.code.removeprefix("camera."), f.level) for f in camera.judge(reading, settings)]


def test_a_healthy_picture_has_no_finding() -> None:
    assert found({}) == []
    assert found({}, width=1280, height=720, fps=30) == []


@pytest.mark.parametrize(
    ("values", "code", "level"),
    [
        ({"flat_share": 1.0, "one_level_share": 1.0, "luma_mean": 30}, "no_signal", Level.FAIL),
        ({"flat_share": 0.5, "flat_colours": 7}, "no_signal", Level.FAIL),
        (
            # a black card with a line of text
            {"flat_share": 0.9, "one_level_share": 0.97, "luma_mean": 3, "luma_spread": 2.0},
            "no_signal",
            Level.FAIL,
        ),
        (
            {"luma_mean": 2, "luma_high": 3, "luma_spread": 1.0, "edge_contrast": 0.2},
            "black",
            Level.FAIL,
        ),
        (
            # exact black is as flat as a card
            {
                "luma_mean": 0,
                "luma_high": 0,
                "luma_spread": 0.0,
                "edge_contrast": 0.0,
                "flat_share": 1.0,
                "one_level_share": 1.0,
            },
            "black",
            Level.FAIL,
        ),
        ({"stuck_share": 0.5}, "corrupted", Level.FAIL),
        ({"lost_channel_share": 0.99}, "corrupted", Level.FAIL),
        ({"tint": 60}, "corrupted", Level.FAIL),
        ({"colour_shift": 0.4}, "corrupted", Level.FAIL),
        ({"block_steps": 3.0}, "corrupted", Level.FAIL),
        ({"tear": 0.9}, "corrupted", Level.FAIL),
        ({"damaged_share": 0.5}, "corrupted", Level.FAIL),
        ({"plain_share": 1.0, "edge_contrast": 0.4}, "covered", Level.FAIL),
        ({"plain_share": 0.6, "plain_softness": 0.3}, "covered", Level.FAIL),
        ({"plain_share": 0.8, "edge_width": 3.0}, "covered", Level.FAIL),
        ({"bright_share": 0.6}, "overexposed", Level.WARN),
        ({"luma_mean": 14, "luma_high": 26, "luma_spread": 20.0}, "underexposed", Level.WARN),
        ({"intra_only": True, "unchanged_s": 2.4}, "frozen", Level.FAIL),
        ({"unchanged_s": 2.9}, "frozen", Level.WARN),
        ({"unchanged_s": 5.5, "span_s": 6.0}, "frozen", Level.FAIL),
        ({"unchanged_s": 2.1, "stopped_s": 2.1}, "frozen", Level.FAIL),
        ({"edge_width": 1.6}, "blurred", Level.WARN),
        ({"edge_axis_width": 2.4}, "blurred", Level.WARN),
        ({"noise": 14.0}, "noisy", Level.WARN),
        ({"speckle_share": 0.02}, "noisy", Level.WARN),
        ({"fps": 5.0}, "low_fps", Level.WARN),
        ({"fps_different": 5.0}, "low_fps", Level.WARN),
        ({"flicker_pct": 9.0}, "flicker", Level.WARN),
        ({"view_distance": 0.9}, "moved", Level.WARN),
    ],
)
def test_each_fault_has_its_code(values: dict[str, Any], code: str, level: Level) -> None:
    assert found(values) == [(code, level)]


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"luma_mean": 39, "luma_high": 60, "noise": 4.0}, id="a dim room"),
        pytest.param({"bright_share": 0.28}, id="a bright window"),
        pytest.param({"bright_share": 0.1, "luma_mean": 210}, id="white paper"),
        pytest.param({"luma_mean": 15, "luma_high": 180}, id="a screen in a dark room"),
        pytest.param({"plain_share": 0.7, "plain_softness": 4.0}, id="a bare wall"),
        pytest.param({"plain_share": 0.6, "edge_width": 0.9}, id="a sharp face before a soft wall"),
        pytest.param({"unchanged_s": 2.2}, id="a still room behind a thrifty codec"),
        pytest.param({"fps_different": 15.0}, id="each picture sent twice"),
        pytest.param({"fps": 15.0}, id="half the rate in good light"),
        pytest.param({"noise": 6.0}, id="visible noise"),
        pytest.param({"tint": 40, "edge_contrast": 0.5}, id="a coloured surface"),
    ],
)
def test_what_only_looks_suspicious_is_healthy(values: dict[str, Any]) -> None:
    assert found(values) == []


def test_a_red_finger_on_the_lens_is_covered_and_not_corrupted() -> None:
    values = {"tint": 38, "edge_contrast": 0.3, "plain_share": 1.0}
    assert found(values) == [("covered", Level.FAIL)]


def test_the_first_that_holds_is_the_one_that_is_named() -> None:
    everything = {
        "stuck_share": 0.5,
        "plain_share": 0.6,
        "plain_softness": 0.2,
        "unchanged_s": 9.0,
        "edge_width": 3.0,
        "noise": 20.0,
        "fps": 3.0,
    }
    order = []
    while codes := found(everything):
        order.append(codes[0][0])
        key = {
            "corrupted": "stuck_share",
            "covered": "plain_share",
            "frozen": "unchanged_s",
            "blurred": "edge_width",
            "noisy": "noise",
            "low_fps": "fps",
        }[codes[0][0]]
        del everything[key]
    assert order == ["corrupted", "covered", "frozen", "blurred", "noisy", "low_fps"]


def test_a_rate_is_low_against_what_was_ordered_or_else_declared() -> None:
    assert found({"fps": 7.5, "fps_declared": 7.5}) == []
    assert found({"fps": 7.5, "fps_declared": 7.5}, fps=30) == [("low_fps", Level.WARN)]
    assert found({"fps": 9.0, "fps_declared": 12.0}) == []


def test_a_webcam_that_halves_its_rate_in_the_dark_is_worth_knowing_only() -> None:
    assert found({"fps": 15.0, "luma_mean": 45}, fps=30) == [("low_fps", Level.INFO)]
    assert found({"fps": 6.0, "luma_mean": 45}, fps=30) == [("low_fps", Level.WARN)]
    assert found({"fps": 29.0, "luma_mean": 45}, fps=30) == []


def test_a_picture_is_small_only_against_what_was_ordered() -> None:
    small = {"width": 320, "height": 180}
    assert found(small) == []
    assert found(small, width=1280, height=720) == [("low_resolution", Level.WARN)]


def test_a_finding_carries_the_numbers_it_rests_on() -> None:
    reading = Reading(values={**GOOD, "noise": 14.0}, active=True)
    (finding,) = camera.judge(reading, camera.Settings(source="file:x"))
    assert finding.numbers == {"noise": 14.0, "speckle_share": 0.0}


def test_a_limit_that_a_person_sets_is_the_one_that_counts() -> None:
    assert found({"noise": 6.0}, noisy_above=5) == [("noisy", Level.WARN)]
    assert found({"unchanged_s": 3.0, "intra_only": True}, frozen_s=4) == []


@given(st.sets(st.sampled_from(sorted(GOOD))))
def test_what_was_not_measured_is_never_a_fault(missing: set[str]) -> None:
    values = {k: v for k, v in GOOD.items() if k not in missing}
    reading = Reading(values=values, active=True)
    assert camera.judge(reading, camera.Settings(source="file:x", width=640, height=360)) == []


@given(
    st.dictionaries(
        st.sampled_from([*sorted(GOOD), "view_distance", "damaged_share", "fps_different"]),
        st.one_of(st.booleans(), st.integers(-10, 300), st.floats(-10, 300), st.just("active")),
    )
)
def test_any_numbers_give_at_most_one_declared_finding(values: dict[str, Scalar]) -> None:
    findings = camera.judge(Reading(values=values, active=True), camera.Settings(source="file:x"))
    assert len(findings) <= 1
    assert all(f.code in CODES for f in findings)


@pytest.mark.parametrize(
    ("fault", "code", "level"),
    [
        (Fault.ABSENT, "camera.absent", Level.FAIL),
        (Fault.NO_ANSWER, "camera.no_answer", Level.FAIL),
        (Fault.BUSY, "camera.busy", Level.INFO),
        (Fault.ERROR, "camera.no_answer", Level.UNKNOWN),
        (Fault.QUARANTINED, "camera.no_answer", Level.UNKNOWN),
    ],
)
def test_every_fault_has_its_finding(fault: Fault, code: str, level: Level) -> None:
    settings = camera.Settings(source="file:x")
    found = camera.judge(Reading(values={"errno": 5}, fault=fault), settings)
    assert [(f.code, f.level, f.numbers) for f in found] == [(code, level, {"errno": 5})]
    assert camera.judge(Reading(fault=Fault.SKIPPED), settings) == []


def test_a_passive_reading_says_nothing_about_the_picture() -> None:
    black = Reading(values={**GOOD, "luma_mean": 0, "luma_spread": 0.0, "edge_contrast": 0.0})
    assert camera.judge(black, camera.Settings(source="file:x")) == []
