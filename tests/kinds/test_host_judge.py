"""What the values of the box mean, as a table."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from agent.kinds import host
from agent.model import Fault, Level, Reading, Scalar

WELL: dict[str, Scalar] = {
    "memory_available_pct": 60.0,
    "memory_available_mib": 2400,
    "disk_free_pct": 50.0,
    "disk_free_mib": 15_000,
    "inodes_free_pct": 90.0,
    "disk_readonly": False,
    "root_readonly": False,
    "clock_synced": True,
    "clock_steps": 0,
    "stuck_processes": 0,
}

OK, INFO, WARN, FAIL, UNKNOWN = Level.OK, Level.INFO, Level.WARN, Level.FAIL, Level.UNKNOWN

ROWS: list[tuple[str, dict[str, Scalar], dict[str, object], Level]] = [
    ("undervoltage", {"undervoltage": False, "undervoltage_count": 0}, {}, OK),
    ("undervoltage", {"undervoltage": True, "undervoltage_age_s": 0}, {}, FAIL),
    ("undervoltage", {"undervoltage": False, "undervoltage_age_s": 900}, {}, WARN),
    ("undervoltage", {"undervoltage": False, "undervoltage_age_s": 901}, {}, OK),
    ("undervoltage", {"undervoltage": False, "undervoltage_age_s": 60}, {"hold_s": 30}, OK),
    ("throttled", {"throttled": False, "freq_capped": False}, {}, OK),
    ("throttled", {"throttled": True}, {}, WARN),
    ("throttled", {"freq_capped": True}, {}, WARN),
    ("throttled", {"soft_temp_limit": True, "throttled": False}, {}, INFO),
    ("throttled", {"freq_cap_pct": 66.7}, {}, OK),
    ("throttled", {"freq_cap_pct": 40.0}, {}, WARN),
    ("throttled", {"freq_cap_pct": 40.0}, {"freq_cap_pct": 30}, OK),
    ("hot", {"temp_c": 74.9}, {}, OK),
    ("hot", {"temp_c": 75.0}, {}, WARN),
    ("hot", {"temp_c": 80.0}, {}, FAIL),
    ("hot", {"temp_c": 84.0, "temp_limit_c": 100.0}, {}, OK),
    ("hot", {"temp_c": 90.0, "temp_limit_c": 100.0}, {}, WARN),
    ("hot", {"temp_c": 100.0, "temp_limit_c": 100.0}, {}, FAIL),
    ("hot", {"temp_c": 61.0, "temp_limit_c": 100.0}, {"temp_warn_c": 60}, WARN),
    ("hot", {"temp_c": 71.0}, {"temp_warn_c": 60, "temp_fail_c": 70}, FAIL),
    ("hot", {"temp_c": 10.0}, {"temp_warn_c": 0}, WARN),
    ("disk_full", {"disk_free_pct": 9.0, "disk_free_mib": 900}, {}, WARN),
    ("disk_full", {"disk_free_pct": 2.9, "disk_free_mib": 900}, {}, FAIL),
    ("disk_full", {"disk_free_pct": 2.0, "disk_free_mib": 20_000}, {}, OK),
    ("disk_full", {"disk_free_pct": 40.0, "disk_free_mib": 200}, {}, OK),
    ("disk_full", {"inodes_free_pct": 9.0}, {}, WARN),
    ("disk_full", {"inodes_free_pct": 1.0}, {}, FAIL),
    ("disk_readonly", {"disk_readonly": True}, {}, FAIL),
    ("disk_readonly", {"root_readonly": True}, {}, FAIL),
    ("disk_readonly", {"root_readonly": True}, {"readonly_root": True}, OK),
    ("disk_readonly", {"disk_readonly": True}, {"readonly_root": True}, FAIL),
    ("storage_errors", {"storage_errors": 0, "storage_errors_new": 0}, {}, OK),
    ("storage_errors", {"storage_errors": 2, "storage_errors_new": 0}, {}, WARN),
    ("storage_errors", {"storage_errors": 2, "storage_errors_new": 1}, {}, FAIL),
    ("memory_low", {"memory_available_pct": 9.9, "memory_available_mib": 90}, {}, WARN),
    ("memory_low", {"memory_available_pct": 3.9, "memory_available_mib": 39}, {}, FAIL),
    ("memory_low", {"memory_available_pct": 3.9, "memory_available_mib": 600}, {}, OK),
    ("clock_unsynced", {"clock_synced": False}, {}, WARN),
    ("clock_stepped", {"clock_step_s": 3.0, "clock_step_age_s": 0}, {}, INFO),
    (
        "clock_stepped",
        {"clock_step_s": 3.0, "clock_step_age_s": 0, "clock_step_synced": True},
        {},
        WARN,
    ),
    ("clock_stepped", {"clock_step_s": 3.0, "clock_step_age_s": 901}, {}, OK),
    ("stuck_process", {"stuck_processes": 1, "stuck_s": 29}, {}, OK),
    ("stuck_process", {"stuck_processes": 1, "stuck_s": 30}, {}, WARN),
    ("stuck_process", {"stuck_processes": 1, "stuck_s": 30}, {"stuck_after_s": 60}, OK),
]


@pytest.mark.parametrize(("problem", "values", "settings", "level"), ROWS)
def test_one_fact_gives_one_code(
    problem: str, values: dict[str, Scalar], settings: dict[str, object], level: Level
) -> None:
    limits = host.Settings.model_validate(settings)
    found = host.judge(Reading({**WELL, **values}, device="host"), limits)
    assert [(f.code, f.level) for f in found] == (
        [] if level is OK else [(f"host.{problem}", level)]
    )
    for finding in found:
        assert finding.device == "host"
        assert finding.code in host.CODES
        assert set(finding.numbers) <= {*values, *WELL}


@pytest.mark.parametrize(
    ("missing", "problem"),
    [
        ("memory_available_pct", "memory_low"),
        ("disk_free_pct", "disk_full"),
        ("clock_synced", "clock_unsynced"),
    ],
)
def test_what_every_box_has_is_unknown_when_it_was_not_measured(missing: str, problem: str) -> None:
    values = {k: v for k, v in WELL.items() if k != missing}
    found = host.judge(Reading(values), host.Settings())
    assert [(f.code, f.level) for f in found] == [(f"host.{problem}", UNKNOWN)]


@pytest.mark.parametrize("fault", [Fault.ERROR, Fault.NO_ANSWER])
def test_a_fault_is_never_ok(fault: Fault) -> None:
    found = host.judge(Reading(fault=fault, why="exception"), host.Settings())
    assert {f.level for f in found} == {UNKNOWN}


def test_every_code_can_be_given() -> None:
    assert {f"host.{problem}" for problem, *_ in ROWS} == set(host.CODES)


@pytest.mark.parametrize(
    "wrong", [{"path": "relative"}, {"disk_warn_pct": 101}, {"temp": 80}, {"stuck_after_s": 0}]
)
def test_a_limit_out_of_its_bounds_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        host.Settings.model_validate(wrong)
