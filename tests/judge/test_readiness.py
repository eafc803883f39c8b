from __future__ import annotations

from typing import Any

import pytest

from agent.judge import own, readiness
from agent.model import (
    Clock,
    ConfigError,
    Device,
    Finding,
    Hearing,
    Level,
    Mode,
    Moment,
    Readiness,
    State,
)

CAM = Device("cam", "camera", None)
SPARE = Device("spare", "camera", None, required=False)
HOST = Device("host", "host", None, required=False)
NOW = Moment(100, 1_800_000_000)
GENERIC = readiness.load("generic")


def answer(
    *findings: Finding, devices: tuple[Device, ...] = (CAM, SPARE, HOST), **changes: Any
) -> Readiness:
    facts: dict[str, Any] = {
        "mode": Mode.IDLE,
        "hearing": None,
        "requirements": GENERIC,
        "now": NOW,
        "valid_for_s": 150,
        **changes,
    }
    return readiness.fold(devices, findings, **facts)


def bad(level: Level, device: str, code: str = "camera.frozen") -> Finding:
    return Finding(code, level, device=device)


@pytest.mark.parametrize(
    ("level", "required", "optional"),
    [
        (Level.FAIL, State.NOT_READY, State.AT_RISK),
        (Level.UNKNOWN, State.UNKNOWN, State.AT_RISK),
        (Level.WARN, State.AT_RISK, State.AT_RISK),
        (Level.INFO, State.READY, State.READY),
        (Level.OK, State.READY, State.READY),
    ],
)
def test_what_a_level_does_to_the_room(level: Level, required: State, optional: State) -> None:
    assert answer(bad(level, "cam")).state is required
    assert answer(bad(level, "spare")).state is optional


def test_a_room_with_nothing_configured_is_unknown() -> None:
    nothing = answer(devices=(HOST,))
    assert nothing.state is State.UNKNOWN
    assert [r.code for r in nothing.reasons] == ["agent.nothing_configured"]


def test_a_room_in_order_is_ready() -> None:
    ready = answer()
    assert ready.state is State.READY
    assert ready.reasons == ()
    assert ready.devices == {Level.OK: 3}
    assert ready.valid_until_s == 250


def test_the_order_is_not_ready_unknown_at_risk_ready() -> None:
    fail, unknown, warn = (bad(x, "cam") for x in (Level.FAIL, Level.UNKNOWN, Level.WARN))
    assert answer(warn, unknown).state is State.UNKNOWN
    assert answer(warn, unknown, fail).state is State.NOT_READY


def test_a_clock_nobody_set_cannot_place_a_named_hearing() -> None:
    hearing = Hearing("HS-1", NOW.utc_s + 600, NOW.utc_s + 900)
    unset = Moment(100, 1_800_000_000, Clock.UNSYNCED)
    lost = answer(hearing=hearing, now=unset)
    assert lost.state is State.UNKNOWN
    assert [r.code for r in lost.reasons] == ["host.clock_unsynced"]
    assert answer(hearing=hearing).state is State.READY
    assert answer(now=unset).state is State.READY  # the host's own warning says at_risk


def test_the_agent_itself_can_only_put_the_room_at_risk() -> None:
    lost = Finding("agent.broker_unreachable", Level.WARN)
    assert answer(lost).state is State.AT_RISK


def test_the_worst_reason_of_what_is_required_comes_first() -> None:
    reasons = answer(
        bad(Level.FAIL, "spare"), bad(Level.WARN, "cam"), bad(Level.FAIL, "cam", "camera.black")
    ).reasons
    assert [(r.device, r.level) for r in reasons] == [
        ("cam", Level.FAIL),
        ("cam", Level.WARN),
        ("spare", Level.FAIL),
    ]


def test_requirements_raise_and_lower_levels() -> None:
    strict = readiness.Requirements("x", 1, levels={"camera.blurred": Level.FAIL})
    (finding,) = readiness.apply_levels([bad(Level.WARN, "cam", "camera.blurred")], strict)
    assert finding.level is Level.FAIL


def test_every_shipped_requirement_loads() -> None:
    assert "generic" in readiness.names()
    for name in readiness.names():
        assert readiness.load(name).name == f"{name}@{readiness.load(name).version}"
    with pytest.raises(ConfigError, match="there are generic"):
        readiness.load("../generic")


def test_the_agent_judges_itself_after_a_grace() -> None:
    def codes(**facts: Any) -> list[str]:
        return [f.code for f in own.judge(own.OwnFacts(**facts))]

    assert codes() == []
    assert codes(broker_lost_s=59) == []
    assert codes(broker_lost_s=60) == ["agent.broker_unreachable"]
    assert codes(broker_lost_s=60, broker_error="tls_time") == ["agent.clock_blocks_tls"]
    assert codes(store_waiting_s=10) == ["agent.store_failing"]
    assert codes(missing_layers=frozenset({"seccomp"})) == ["agent.unconfined"]
    assert codes(certificate_days=29) == ["agent.certificate_expiring"]
    assert codes(certificate_days=31) == []
