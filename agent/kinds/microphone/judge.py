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
    def number(key: str) -> float | None:
        value = values.get(key)
        return float(value) if isinstance(value, int | float) else None

    level, speech = number("level_dbfs"), number("speech_dbfs")
    if level is None or speech is None:
        return None
    if level < limits.silent_below_dbfs:
        return "microphone.silent"
    if level < limits.muted_below_dbfs or values.get("switch") == "off":
        return "microphone.muted"
    if level > limits.too_loud_above_dbfs:
        return "microphone.too_loud"
    return None
