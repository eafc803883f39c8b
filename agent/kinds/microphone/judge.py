"""What the numbers of a microphone mean: pure and memoryless."""

from __future__ import annotations

from collections.abc import Mapping

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
    code = _content(values, limits)
    return [_found(code, reading)] if code else []


def _found(code: str, reading: Reading) -> Finding:
    return Finding(code, CODES[code], dict(reading.values), reading.device)


def _content(values: Mapping[str, object], limits: Settings) -> str | None:
    """The first content fault that holds.

    Differs from the plain order of the codes in two places, for cause: a capture switch that is
    off explains silence, and speech that is squeezed has no pauses in which to tell noise.
    """

    def number(key: str, otherwise: float) -> float:
        value = values.get(key)
        return float(value) if isinstance(value, int | float) else otherwise

    nothing, level = float("-inf"), number("level_dbfs", float("nan"))
    if level != level:  # nothing was measured
        return None
    hiss, speech = number("hiss_dbfs", nothing), number("speech_dbfs", float("nan"))
    # A look is repeated before it counts, so one hole in it is enough; a file is heard once.
    breaks = limits.breaks_from if number("heard_s", 0) > limits.look_s else 1
    # Sound so loud that nothing is left to tell speech by, and that is no hiss, is too loud too.
    loud = speech if speech == speech or hiss > level - 10 else level
    tail_s = limits.stopped_s if values.get("broke_off") is True else limits.faded_s
    floor, within = limits.baseline_floor_dbfs, limits.hum_within_db
    too_quiet = limits.too_quiet_below_dbfs
    if limits.baseline_level_dbfs is not None:
        too_quiet = max(too_quiet, limits.baseline_level_dbfs - limits.drift_db)
    faults: tuple[tuple[str, bool], ...] = (
        ("muted", values.get("switch") == "off" and level < limits.switched_off_below_dbfs),
        ("silent", number("dead_pct", 0) >= limits.silent_above_pct),
        ("silent", number("dead_tail_s", 0) >= tail_s),
        ("muted", level < limits.muted_below_dbfs),
        ("muted", floor is not None and level < floor - limits.drift_db),
        ("dead_channel", number("dead_channels", 0) > 0),
        ("dropouts", number("breaks", 0) >= breaks),
        ("dropouts", number("xruns", 0) >= limits.xruns_from),
        ("clipping", number("clip_pct", 0) >= limits.clipping_from_pct),
        ("hum", number("hum_dbfs", nothing) > max(limits.hum_above_dbfs, level - within)),
        ("too_loud", loud > limits.too_loud_above_dbfs),
        ("noisy", hiss > limits.noisy_above_dbfs),
        ("noisy", hiss > limits.noise_from_dbfs and number("snr_db", 99) < limits.snr_below_db),
        (
            "noisy",
            floor is not None and hiss > max(floor + limits.drift_db, limits.noise_from_dbfs),
        ),
        ("too_quiet", speech < too_quiet),
    )
    return next((f"microphone.{name}" for name, holds in faults if holds), None)
