"""What a reading of a camera means: pure, memoryless, from numbers alone."""

from __future__ import annotations

from collections.abc import Mapping

from agent.kinds.camera.passive import POWER_WORDS
from agent.kinds.camera.settings import Settings
from agent.model import Fault, Finding, Level, Reading, Scalar

CODES: Mapping[str, Level] = {
    "camera.absent": Level.FAIL,
    "camera.wrong_device": Level.FAIL,
    "camera.no_answer": Level.FAIL,
    "camera.busy": Level.INFO,
    "camera.no_signal": Level.FAIL,
    "camera.black": Level.FAIL,
    "camera.covered": Level.FAIL,
    "camera.frozen": Level.FAIL,
    "camera.corrupted": Level.FAIL,
    "camera.overexposed": Level.WARN,
    "camera.underexposed": Level.WARN,
    "camera.blurred": Level.WARN,
    "camera.noisy": Level.WARN,
    "camera.low_fps": Level.WARN,
    "camera.low_resolution": Level.WARN,
    "camera.moved": Level.WARN,
    "camera.flicker": Level.WARN,
}
WORDS: frozenset[str] = POWER_WORDS

_FAULTS: Mapping[Fault, tuple[str, Level]] = {
    Fault.ABSENT: ("camera.absent", Level.FAIL),
    Fault.NO_ANSWER: ("camera.no_answer", Level.FAIL),
    Fault.BUSY: ("camera.busy", Level.INFO),
    # Not readable at all, or left alone: nothing is known of the picture.
    Fault.ERROR: ("camera.no_answer", Level.UNKNOWN),
    Fault.QUARANTINED: ("camera.no_answer", Level.UNKNOWN),
}


def judge(reading: Reading, limits: Settings) -> list[Finding]:
    """The findings of one reading: at most one about the content, none where all is well.

    A passive reading (`active` False) only says whether the right device is there.
    """
    values = reading.values
    if reading.fault is Fault.SKIPPED:
        return []
    if reading.fault is not None:
        code, level = _FAULTS[reading.fault]
        return [Finding(code, level, dict(values))]
    if values.get("right_device") is False:
        return [Finding("camera.wrong_device", CODES["camera.wrong_device"])]
    if not reading.active:
        return []
    return _content(values, limits)


def _content(values: Mapping[str, Scalar], limits: Settings) -> list[Finding]:
    for code, found in (
        ("camera.black", _black),
        ("camera.frozen", _frozen),
        ("camera.low_fps", _low_fps),
        ("camera.low_resolution", _low_resolution),
    ):
        if numbers := found(values, limits):
            return [Finding(code, CODES[code], numbers)]
    return []


def _number(values: Mapping[str, Scalar], key: str) -> float | None:
    value = values.get(key)
    return None if value is None or isinstance(value, str) else float(value)


def _black(values: Mapping[str, Scalar], limits: Settings) -> dict[str, Scalar] | None:
    mean, spread = _number(values, "luma_mean"), _number(values, "luma_spread")
    if mean is None or spread is None or mean >= limits.black_below or spread >= 2:
        return None
    return {"luma_mean": mean, "luma_spread": spread}


def _frozen(values: Mapping[str, Scalar], limits: Settings) -> dict[str, Scalar] | None:
    unchanged = _number(values, "unchanged_s")
    if unchanged is None or unchanged < limits.frozen_s:
        return None
    return {"unchanged_s": unchanged}


def _low_fps(values: Mapping[str, Scalar], limits: Settings) -> dict[str, Scalar] | None:
    expected = limits.fps or _number(values, "fps_declared")
    measured = _number(values, "fps")
    if expected is None or measured is None:
        return None
    if measured >= min(limits.low_fps_below, expected * 2 / 3):
        return None
    return {"fps": measured, "expected_fps": round(expected, 1)}


def _low_resolution(values: Mapping[str, Scalar], limits: Settings) -> dict[str, Scalar] | None:
    width, height = _number(values, "width"), _number(values, "height")
    if width is None or height is None:
        return None
    if (limits.width or 0) <= width and (limits.height or 0) <= height:
        return None
    return {"width": int(width), "height": int(height)}
