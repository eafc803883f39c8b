"""What the values of the box mean: codes, levels, and the numbers each rests on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from agent.kinds.host.settings import Settings
from agent.model import Finding, Level, Reading, Scalar, worst

CODES: Mapping[str, Level] = {
    "host.undervoltage": Level.FAIL,
    "host.throttled": Level.WARN,
    "host.hot": Level.WARN,
    "host.disk_full": Level.WARN,
    "host.disk_readonly": Level.FAIL,
    "host.storage_errors": Level.WARN,
    "host.memory_low": Level.WARN,
    "host.clock_unsynced": Level.WARN,
    "host.clock_stepped": Level.INFO,
    "host.stuck_process": Level.WARN,
}
WORDS: frozenset[str] = frozenset()

_PI_WARN_C, _PI_FAIL_C = 75.0, 80.0
"""A Raspberry Pi slows down from 80 Celsius on."""
_BELOW_LIMIT_C = 10.0

_Values = Mapping[str, Scalar]
_Check = Callable[[_Values, Settings], Level]


def judge(reading: Reading, limits: Settings) -> list[Finding]:
    """The findings of one reading.

    Memory, disk and clock exist on every box: what of them could not be measured is `unknown`,
    and so is all of it after a fault. What only some boxes have is judged where it is.
    """
    found = []
    for problem, (check, keys) in _CHECKS.items():
        level = check(reading.values, limits)
        if level is not Level.OK:
            numbers = {key: reading.values[key] for key in keys if key in reading.values}
            found.append(Finding(f"host.{problem}", level, numbers, reading.device))
    return found


def _number(values: _Values, key: str) -> float | None:
    value = values.get(key)
    return None if value is None or isinstance(value, str) else float(value)


def _recent(values: _Values, age: str, limits: Settings) -> bool:
    age_s = _number(values, age)
    return age_s is not None and age_s <= limits.hold_s


def _below(value: float, warn: float, fail: float) -> Level:
    if value < fail:
        return Level.FAIL
    return Level.WARN if value < warn else Level.OK


def _undervoltage(values: _Values, limits: Settings) -> Level:
    if values.get("undervoltage"):
        return Level.FAIL
    return Level.WARN if _recent(values, "undervoltage_age_s", limits) else Level.OK


def _throttled(values: _Values, limits: Settings) -> Level:
    cap = _number(values, "freq_cap_pct")
    capped = cap is not None and cap <= limits.freq_cap_pct
    if capped or values.get("throttled") or values.get("freq_capped"):
        return Level.WARN
    return Level.INFO if values.get("soft_temp_limit") else Level.OK


def _hot(values: _Values, limits: Settings) -> Level:
    temp, own = _number(values, "temp_c"), _number(values, "temp_limit_c")
    if temp is None:
        return Level.OK
    warn, fail = (_PI_WARN_C, _PI_FAIL_C) if own is None else (own - _BELOW_LIMIT_C, own)
    if temp >= (fail if limits.temp_fail_c is None else limits.temp_fail_c):
        return Level.FAIL
    if temp >= (warn if limits.temp_warn_c is None else limits.temp_warn_c):
        return Level.WARN
    return Level.OK


def _disk_full(values: _Values, limits: Settings) -> Level:
    free, free_mib = _number(values, "disk_free_pct"), _number(values, "disk_free_mib")
    if free is None:
        return Level.UNKNOWN
    level = Level.OK
    if free_mib is None or free_mib < limits.disk_spare_mib:
        level = _below(free, limits.disk_warn_pct, limits.disk_fail_pct)
    inodes = _number(values, "inodes_free_pct")
    if inodes is None:
        return level
    return worst((level, _below(inodes, limits.inodes_warn_pct, limits.inodes_fail_pct)))


def _disk_readonly(values: _Values, limits: Settings) -> Level:
    root = values.get("root_readonly") and not limits.readonly_root
    return Level.FAIL if values.get("disk_readonly") or root else Level.OK


def _storage_errors(values: _Values, limits: Settings) -> Level:
    if values.get("storage_errors_new"):
        return Level.FAIL
    return Level.WARN if values.get("storage_errors") else Level.OK


def _memory_low(values: _Values, limits: Settings) -> Level:
    free, mib = _number(values, "memory_available_pct"), _number(values, "memory_available_mib")
    if free is None:
        return Level.UNKNOWN
    if mib is not None and mib >= limits.memory_spare_mib:
        return Level.OK
    return _below(free, limits.memory_warn_pct, limits.memory_fail_pct)


def _clock_unsynced(values: _Values, limits: Settings) -> Level:
    if "clock_synced" not in values:
        return Level.UNKNOWN
    return Level.OK if values["clock_synced"] else Level.WARN


def _clock_stepped(values: _Values, limits: Settings) -> Level:
    if not _recent(values, "clock_step_age_s", limits):
        return Level.OK
    # A box without clock chip steps once, when it first hears the time. A clock that was thought
    # right and moved all the same has misdated what came before.
    return Level.WARN if values.get("clock_step_synced") else Level.INFO


def _stuck_process(values: _Values, limits: Settings) -> Level:
    stuck_s = _number(values, "stuck_s")
    return Level.WARN if stuck_s is not None and stuck_s >= limits.stuck_after_s else Level.OK


_CHECKS: Mapping[str, tuple[_Check, tuple[str, ...]]] = {
    "undervoltage": (_undervoltage, ("undervoltage_count", "undervoltage_age_s")),
    "throttled": (
        _throttled,
        ("throttled", "freq_capped", "soft_temp_limit", "freq_cap_pct", "temp_c"),
    ),
    "hot": (_hot, ("temp_c", "temp_limit_c")),
    "disk_full": (_disk_full, ("disk_free_pct", "disk_free_mib", "inodes_free_pct")),
    "disk_readonly": (_disk_readonly, ("disk_readonly", "root_readonly")),
    "storage_errors": (_storage_errors, ("storage_errors", "storage_errors_new")),
    "memory_low": (_memory_low, ("memory_available_pct", "memory_available_mib")),
    "clock_unsynced": (_clock_unsynced, ()),
    "clock_stepped": (_clock_stepped, ("clock_step_s", "clock_step_age_s")),
    "stuck_process": (_stuck_process, ("stuck_processes", "stuck_pid", "stuck_s")),
}
