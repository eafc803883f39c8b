"""What the agent says about itself: its codes, and the facts it draws them from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agent.model import Finding, Level, Scalar

CODES: Mapping[str, Level] = {
    "agent.no_evidence": Level.UNKNOWN,
    "agent.nothing_configured": Level.UNKNOWN,
    "agent.config_wrong": Level.UNKNOWN,
    "agent.broker_unreachable": Level.WARN,
    "agent.certificate_expiring": Level.WARN,
    "agent.store_failing": Level.WARN,
    "agent.store_gap": Level.INFO,
    "agent.clock_blocks_tls": Level.WARN,
    "agent.hands_lost": Level.WARN,
    "agent.unconfined": Level.WARN,
    "agent.recovery_failed": Level.WARN,
}
RECOVERY_FAILED = "agent.recovery_failed"
"""Two tries to bring a device back failed: a person is called, and the agent leaves it alone."""

REQUIRED_LAYERS = frozenset({"no_new_privs", "no_core", "no_file_growth", "seccomp"})
"""Without one of these a worker could keep or send what it sees. Landlock is not among them:
kernels before 5.13 have none, and RLIMIT_FSIZE 0 already refuses every write to a file."""

BROKER_GRACE_S = 60.0
STORE_GRACE_S = 10.0
HANDS_GRACE_S = 10.0
CERTIFICATE_DAYS = 30.0


@dataclass(frozen=True, slots=True)
class OwnFacts:
    """Facts about the agent itself; ages in seconds, None where they do not apply."""

    broker_lost_s: float | None = None
    broker_error: str = ""
    store_waiting_s: float = 0.0
    store_failing: bool = False
    certificate_days: float | None = None
    missing_layers: frozenset[str] = frozenset()
    hands_lost_s: float | None = None
    config_wrong: bool = False


def judge(facts: OwnFacts) -> list[Finding]:
    """Findings of the agent about itself; one cause names one code."""

    def finding(code: str, numbers: Mapping[str, Scalar]) -> Finding:
        return Finding(f"agent.{code}", CODES[f"agent.{code}"], numbers)

    found: list[Finding] = []
    if facts.config_wrong:
        found.append(finding("config_wrong", {}))
    if facts.broker_lost_s is not None and facts.broker_lost_s >= BROKER_GRACE_S:
        code = "clock_blocks_tls" if facts.broker_error == "tls_time" else "broker_unreachable"
        found.append(finding(code, {"lost_s": round(facts.broker_lost_s)}))
    if facts.store_failing or facts.store_waiting_s >= STORE_GRACE_S:
        found.append(finding("store_failing", {"waiting_s": round(facts.store_waiting_s)}))
    if facts.certificate_days is not None and facts.certificate_days < CERTIFICATE_DAYS:
        days = round(facts.certificate_days, 1)
        found.append(finding("certificate_expiring", {"days_left": days}))
    if facts.hands_lost_s is not None and facts.hands_lost_s >= HANDS_GRACE_S:
        found.append(finding("hands_lost", {"lost_s": round(facts.hands_lost_s)}))
    if facts.missing_layers:
        found.append(finding("unconfined", {"missing": len(facts.missing_layers)}))
    return found
