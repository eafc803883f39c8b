"""What a reading of a camera means: pure, memoryless, from numbers alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from agent.kinds._usb import MODE_WORDS
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
RECOVERABLE = frozenset({"camera.absent", "camera.no_answer", "camera.frozen", "camera.corrupted"})
"""A driver, a cable contact or a firmware may be stuck. What a lens, a lamp or the source behind a
dongle does is not cured by switching the camera off and on."""
WORDS: frozenset[str] = POWER_WORDS | MODE_WORDS

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
    measured = _Measured(values)
    for code, holds, shown in _TESTS:
        if holds(measured, limits):
            level = CODES[code]
            if code == "camera.low_fps" and _halved_in_the_dark(measured, limits):
                level = Level.INFO
            if code == "camera.frozen" and not _surely_frozen(measured, limits):
                level = Level.WARN
            return [Finding(code, level, {k: values[k] for k in shown if k in values})]
    return []


class _Measured:
    """The numbers of a reading; one that was not measured makes every comparison false."""

    def __init__(self, values: Mapping[str, Scalar]) -> None:
        self._values = values

    def __getitem__(self, key: str) -> float:
        value = self._values.get(key)
        return float("nan") if value is None or isinstance(value, str) else float(value)


def _no_signal(m: _Measured, limits: Settings) -> bool:
    """A card: drawn surfaces without noise, in several colours or in one, with text or lit."""
    bars = m["flat_share"] >= limits.no_signal_bars and m["flat_colours"] >= _BAR_COLOURS
    card = (
        m["flat_share"] >= limits.no_signal_flat
        and m["one_level_share"] >= limits.no_signal_one_level
    )
    text = m["edge_contrast"] >= _TEXT_CONTRAST
    return bars or (card and (text or m["luma_mean"] >= limits.black_below))


_BAR_COLOURS = 4
_SOME_CONTRAST = 2.0  # grey levels a point: without it there are no outlines to judge
_TEXT_CONTRAST = 5.0


def _black(m: _Measured, limits: Settings) -> bool:
    return (
        m["luma_mean"] < limits.black_below
        and m["luma_spread"] < limits.black_spread
        and m["edge_contrast"] < _SOME_CONTRAST
    )


def _corrupted(m: _Measured, limits: Settings) -> bool:
    """Anything that a lens and a sensor cannot make."""
    return (
        (m["stuck_share"] >= limits.stuck_share and m["edge_contrast"] >= _SOME_CONTRAST)
        or m["lost_channel_share"] >= limits.lost_channel
        or (m["tint"] >= limits.tint_above and m["edge_contrast"] >= _SOME_CONTRAST)
        or m["colour_shift"] >= limits.colour_shift
        or m["block_steps"] >= limits.block_steps
        or m["tear"] >= limits.tear
        or m["damaged_share"] >= limits.damaged_share
    )


def _covered(m: _Measured, limits: Settings) -> bool:
    """A plain surface over most of the picture that no scene ends so softly."""
    if m["bright_share"] >= limits.overexposed_share:
        return False
    share, faint = m["plain_share"], m["edge_contrast"] < _FAINT
    if m["luma_mean"] < limits.underexposed_below:  # in the dark every surface looks plain
        return share >= limits.covered_whole and faint
    sharp = m["edge_contrast"] >= _SOME_CONTRAST and m["edge_width"] < limits.blurred_above
    return (
        share >= limits.covered_whole
        or (share >= limits.covered_mostly and not sharp)
        or (share >= limits.covered_share and m["plain_softness"] <= limits.covered_softness)
    )


_FAINT = 0.6  # grey levels a point; a scene at a hundredth of its light keeps more


def _frozen(m: _Measured, limits: Settings) -> bool:
    """Whole pictures, or a stop in mid-look, need no more time; other coded ones do to be told
    from a still room of which the codec sends nothing."""
    needed = limits.frozen_s
    if m["stopped_s"] >= needed or (m["intra_only"] == 1 and m["unchanged_s"] >= needed):
        return True
    coded = min(_CODED_FACTOR * needed, _CODED_SHARE * m["span_s"])
    return m["unchanged_s"] >= max(coded, needed)


_CODED_FACTOR, _CODED_SHARE = 1.5, 0.95


def _surely_frozen(m: _Measured, limits: Settings) -> bool:
    """Whether no still room behind a thrifty codec can look like this."""
    return (
        m["intra_only"] == 1
        or m["stopped_s"] >= limits.frozen_s
        or m["unchanged_s"] >= _SURE_FACTOR * limits.frozen_s
    )


_SURE_FACTOR = 2.5


def _overexposed(m: _Measured, limits: Settings) -> bool:
    return m["bright_share"] >= limits.overexposed_share


def _underexposed(m: _Measured, limits: Settings) -> bool:
    return m["luma_mean"] < limits.underexposed_below and m["luma_high"] < limits.underexposed_high


def _blurred(m: _Measured, limits: Settings) -> bool:
    return m["edge_contrast"] >= _SOME_CONTRAST and (
        m["edge_width"] >= limits.blurred_above or m["edge_axis_width"] >= limits.smeared_above
    )


def _noisy(m: _Measured, limits: Settings) -> bool:
    return m["noise"] >= limits.noisy_above or m["speckle_share"] >= limits.speckle_above


def _expected_fps(m: _Measured, limits: Settings) -> float:
    return limits.fps if limits.fps is not None else m["fps_declared"]


def _low_fps(m: _Measured, limits: Settings) -> bool:
    expected = _expected_fps(m, limits)
    lowest = min(limits.low_fps_below, expected * 2 / 3) if expected == expected else expected
    return (
        m["fps"] < lowest
        or m["fps_different"] < lowest
        or (m["fps"] < 0.7 * expected and _halved_in_the_dark(m, limits))
    )


def _halved_in_the_dark(m: _Measured, limits: Settings) -> bool:
    """A webcam that exposes longer in a dim room sends fewer pictures: worth knowing, no fault."""
    return m["luma_mean"] < limits.dark_below and m["fps"] >= limits.low_fps_below


def _low_resolution(m: _Measured, limits: Settings) -> bool:
    return m["width"] < (limits.width or 0) or m["height"] < (limits.height or 0)


def _moved(m: _Measured, limits: Settings) -> bool:
    return m["view_distance"] >= limits.moved_above


def _flicker(m: _Measured, limits: Settings) -> bool:
    return m["flicker_pct"] >= limits.flicker_above_pct


_Test = Callable[[_Measured, Settings], bool]
_TESTS: tuple[tuple[str, _Test, tuple[str, ...]], ...] = (
    ("camera.no_signal", _no_signal, ("flat_share", "flat_colours", "one_level_share")),
    ("camera.black", _black, ("luma_mean", "luma_spread")),
    # Before covered and frozen: the grey half of a cut picture is plain, a torn one may stand.
    (
        "camera.corrupted",
        _corrupted,
        (
            "stuck_share",
            "lost_channel_share",
            "tint",
            "colour_shift",
            "block_steps",
            "tear",
            "damaged_share",
        ),
    ),
    ("camera.covered", _covered, ("plain_share", "plain_softness")),
    # Before frozen: what is clipped or near black hides the noise that shows a live picture.
    ("camera.overexposed", _overexposed, ("bright_share",)),
    ("camera.underexposed", _underexposed, ("luma_mean", "luma_high")),
    ("camera.frozen", _frozen, ("unchanged_s", "stopped_s", "intra_only")),
    ("camera.blurred", _blurred, ("edge_width", "edge_axis_width")),
    ("camera.noisy", _noisy, ("noise", "speckle_share")),
    ("camera.low_fps", _low_fps, ("fps", "fps_different", "fps_declared", "luma_mean")),
    ("camera.low_resolution", _low_resolution, ("width", "height")),
    ("camera.moved", _moved, ("view_distance",)),
    ("camera.flicker", _flicker, ("flicker_pct",)),
)
"""One look names one content fault, the first that holds; with it go the numbers it rests on."""
