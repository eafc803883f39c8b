"""What the numbers of a microphone mean: pure and memoryless."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from agent.kinds.microphone.settings import Settings
from agent.model import Fault, Finding, Level, Reading

CODES: Mapping[str, Level] = {
    "microphone.absent": Level.FAIL,
    "microphone.no_answer": Level.FAIL,
    "microphone.busy": Level.INFO,
    "microphone.silent": Level.FAIL,
    "microphone.muted": Level.FAIL,
    "microphone.clipping": Level.WARN,
    "microphone.hum": Level.WARN,
    "microphone.noisy": Level.WARN,
    "microphone.too_quiet": Level.FAIL,
    "microphone.too_loud": Level.WARN,
    "microphone.dropouts": Level.FAIL,
    "microphone.dead_channel": Level.WARN,
}
"""Every code and its usual level. Mute is lawful: it is reported, never undone."""

RECOVERABLE = frozenset({"microphone.absent", "microphone.no_answer"})
"""Silence is not among them: a switch on the device may be what makes it, and coming back could
undo it. Where a model is known to fall silent by itself, its profile says so."""

_FAULTS = {
    Fault.ABSENT: "microphone.absent",
    Fault.NO_ANSWER: "microphone.no_answer",
    Fault.QUARANTINED: "microphone.no_answer",
    Fault.BUSY: "microphone.busy",
}


def judge(reading: Reading, limits: Settings) -> list[Finding]:
    """At most one content fault, the first that holds; none out of a passive reading.

    What could not be read for another reason (a file that is no WAV, a right that is missing)
    is `no_answer` of level `unknown`: nothing is known of the microphone.
    """
    values = reading.values
    if reading.fault is Fault.SKIPPED:
        return []
    if reading.fault is not None:
        code = _FAULTS.get(reading.fault)
        level = CODES[code] if code else Level.UNKNOWN
        return [Finding(code or "microphone.no_answer", level, dict(values), reading.device)]
    if values.get("in_use") is True and values.get("advancing") is False:
        return [_found("microphone.no_answer", reading)]
    if code := _content(values, limits):
        return [_found(code, reading)]
    return _drift(reading, limits)


def _found(code: str, reading: Reading) -> Finding:
    return Finding(code, CODES[code], dict(reading.values), reading.device)


def _content(values: Mapping[str, object], limits: Settings) -> str | None:
    """The first content fault that holds.

    Differs from the plain order of the codes in two places, for cause: a capture switch that is
    off explains silence, and speech that is squeezed has no pauses in which to tell noise.
    """

    number = partial(_number, values)
    nothing, level = float("-inf"), number("level_dbfs", float("nan"))
    if level != level:  # nothing was measured
        return None
    hiss, speech = number("hiss_dbfs", nothing), number("speech_dbfs", float("nan"))
    # A look is repeated before it counts, so one hole in it is enough; a file is heard once.
    breaks = limits.breaks_from if number("heard_s", 0) > limits.look_s else 1
    # Sound so loud that nothing is left to tell speech by, and that is no hiss, is too loud too.
    loud = speech if speech == speech or hiss > level - 10 else level
    tail_s = limits.stopped_s if values.get("broke_off") is True else limits.faded_s
    within = limits.hum_within_db
    faults: tuple[tuple[str, bool], ...] = (
        ("muted", values.get("switch") == "off" and level < limits.switched_off_below_dbfs),
        ("silent", number("dead_pct", 0) >= limits.silent_above_pct),
        ("silent", number("dead_tail_s", 0) >= tail_s),
        ("muted", level < limits.muted_below_dbfs),
        ("dead_channel", number("dead_channels", 0) > 0),
        ("dropouts", number("breaks", 0) >= breaks),
        ("dropouts", number("xruns", 0) >= limits.xruns_from),
        ("clipping", number("clip_pct", 0) >= limits.clipping_from_pct),
        ("hum", number("hum_dbfs", nothing) > max(limits.hum_above_dbfs, level - within)),
        ("too_loud", loud > limits.too_loud_above_dbfs),
        ("noisy", hiss > limits.noisy_above_dbfs),
        ("noisy", hiss > limits.noise_from_dbfs and number("snr_db", 99) < limits.snr_below_db),
        ("too_quiet", speech < limits.too_quiet_below_dbfs),
    )
    return next((f"microphone.{name}" for name, holds in faults if holds), None)


def _drift(reading: Reading, limits: Settings) -> list[Finding]:
    """The first thing that is far from the day of commissioning: a warning, with what it was then.

    Another day's numbers are a measure, and no proof that the hearing cannot be heard.
    """
    number = partial(_number, reading.values)
    nan = float("nan")  # what was not measured is not far from anything
    level, hiss, speech = (number(f"{k}_dbfs", nan) for k in ("level", "hiss", "speech"))
    hiss = hiss if hiss > limits.noise_from_dbfs else nan
    drift_db = limits.drift_db
    far: tuple[tuple[str, str, Callable[[float], bool]], ...] = (
        ("muted", "baseline_floor_dbfs", lambda then: level < then - drift_db),
        ("noisy", "baseline_floor_dbfs", lambda then: hiss > then + drift_db),
        ("noisy", "baseline_hiss_dbfs", lambda then: hiss > then + drift_db),
        ("too_quiet", "baseline_level_dbfs", lambda then: speech < then - drift_db),
        ("too_quiet", "baseline_speech_dbfs", lambda then: speech < then - limits.speech_drift_db),
    )
    for name, key, holds in far:
        then = getattr(limits, key)
        if then is not None and holds(then):
            numbers = {**reading.values, key: then}
            return [Finding(f"microphone.{name}", Level.WARN, numbers, reading.device)]
    return []


def _number(values: Mapping[str, object], key: str, otherwise: float) -> float:
    value = values.get(key)
    return float(value) if isinstance(value, int | float) else otherwise
