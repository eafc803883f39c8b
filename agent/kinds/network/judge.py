"""What a reading of the line means: the cause is named, what follows from it is not."""

from __future__ import annotations

from collections.abc import Mapping

from agent.kinds.network.endpoints import DNS, INVALID, UNREACHABLE, VALID
from agent.kinds.network.gateway import ICMP, MEANS
from agent.kinds.network.link import DUPLEX, OPERSTATES
from agent.kinds.network.netlink import ADDRESSES
from agent.kinds.network.settings import Settings
from agent.model import Fault, Finding, Level, Reading, Scalar

CODES: Mapping[str, Level] = {
    "network.no_link": Level.FAIL,
    "network.slow_link": Level.WARN,
    "network.half_duplex": Level.WARN,
    "network.no_address": Level.FAIL,
    "network.gateway_unreachable": Level.FAIL,
    "network.dns_failing": Level.FAIL,
    "network.endpoint_unreachable": Level.FAIL,
    "network.tls_expiring": Level.WARN,
    "network.tls_invalid": Level.FAIL,
    "network.high_rtt": Level.WARN,
    "network.high_jitter": Level.WARN,
    "network.loss": Level.WARN,
    "network.low_bandwidth": Level.WARN,  # for an active test; nothing passive can measure it
    "network.wifi_weak": Level.WARN,
}
WORDS = frozenset(
    {"gateway", "endpoint", "no_route", VALID}
    | OPERSTATES
    | DUPLEX
    | ADDRESSES
    | ICMP
    | MEANS
    | DNS
    | UNREACHABLE
    | INVALID
)
_LOST_WARN, _LOST_FAIL = 2, 3
"""So many echoes must be missing before a share of them is judged: one is an accident."""


def judge(reading: Reading, limits: Settings) -> list[Finding]:
    """The findings of one reading, at most one per code, cause before symptom.

    no_link > no_address > gateway_unreachable > dns_failing > endpoint_unreachable: what a named
    cause explains is left out. A reading that says nothing of a link that should be watched
    gives `no_link` with level `unknown`.
    """
    if reading.fault is Fault.SKIPPED:
        return []
    values = reading.values
    if reading.fault is not None or (limits.interface is not None and "link_up" not in values):
        return [_finding("no_link", {}, Level.UNKNOWN)]
    if values.get("link_up") is False:
        return [_finding("no_link", _some(values, "interface_present", "carrier", "operstate"))]
    found = _link(values, limits)
    if values.get("ipv4", "present") != "present" and values.get("ipv6") != "present":
        return [*found, _finding("no_address", _some(values, "ipv4", "ipv6"))]
    gateway = _gateway(values, limits)
    if gateway is not None:
        found.append(gateway)
        if gateway.level is Level.FAIL:
            return found
    return found + _endpoints(values) + _tls(values, limits) + _quality(values, limits)


def _link(values: Mapping[str, Scalar], limits: Settings) -> list[Finding]:
    found = []
    if (speed := _number(values, "speed_mbps")) is not None and speed < limits.speed_min_mbps:
        found.append(_finding("slow_link", {"speed_mbps": speed}))
    if values.get("duplex") == "half":
        found.append(_finding("half_duplex", _some(values, "speed_mbps")))
    if (signal := _number(values, "wifi_dbm")) is not None and signal < limits.wifi_min_dbm:
        found.append(_finding("wifi_weak", {"wifi_dbm": signal}))
    return found


def _gateway(values: Mapping[str, Scalar], limits: Settings) -> Finding | None:
    """Only worth knowing while an endpoint answers: then there is a way past it."""
    if not limits.gateway:
        return None
    passed = bool(values.get("endpoints_ok")) and "endpoints_age_s" not in values
    level = Level.INFO if passed else Level.FAIL
    if values.get("default_route") is False:
        return _finding("gateway_unreachable", {"why": "no_route"}, level)
    if values.get("gateway_reachable") is False:
        return _finding("gateway_unreachable", _some(values, "icmp"), level)
    return None


def _endpoints(values: Mapping[str, Scalar]) -> list[Finding]:
    found = []
    if values.get("dns_failed"):
        numbers = _some(values, "dns_names", "dns_failed", "dns_why")
        found.append(_finding("dns_failing", numbers))
    down = [n for n in _numbers(values) if _why(values, n) and _why(values, n) not in DNS]
    if down:
        numbers = {**_some(values, "endpoints", "endpoints_ok"), "endpoint": down[0]}
        found.append(_finding("endpoint_unreachable", {**numbers, "why": _why(values, down[0])}))
    return found


def _tls(values: Mapping[str, Scalar], limits: Settings) -> list[Finding]:
    found = []
    invalid = [n for n in _numbers(values) if values.get(f"endpoint_{n}_tls", VALID) != VALID]
    if invalid:
        first = invalid[0]
        numbers = {"endpoint": first, "why": values[f"endpoint_{first}_tls"]}
        if (days := _number(values, f"endpoint_{first}_tls_days")) is not None:
            numbers["days"] = days
        found.append(_finding("tls_invalid", numbers))
    left = [
        (days, n)
        for n in _numbers(values)
        if n not in invalid and (days := _number(values, f"endpoint_{n}_tls_days")) is not None
    ]
    if left and (soonest := min(left))[0] <= limits.tls_warn_days:
        days, number = soonest
        level = Level.FAIL if days <= limits.tls_fail_days else Level.WARN
        found.append(_finding("tls_expiring", {"endpoint": number, "days": days}, level))
    return found


def _quality(values: Mapping[str, Scalar], limits: Settings) -> list[Finding]:
    found = []
    rtt, jitter = _number(values, "rtt_ms"), _number(values, "jitter_ms")
    if rtt is not None and rtt >= limits.rtt_warn_ms:
        level = Level.FAIL if rtt >= limits.rtt_fail_ms else Level.WARN
        found.append(_finding("high_rtt", _some(values, "rtt_ms", "rtt_to", "rtt_by"), level))
    if jitter is not None and jitter >= limits.jitter_warn_ms:
        level = Level.FAIL if jitter >= limits.jitter_fail_ms else Level.WARN
        found.append(_finding("high_jitter", {"jitter_ms": jitter}, level))
    loss, lost = _number(values, "loss_pct") or 0, _number(values, "echoes_lost") or 0
    if loss >= limits.loss_warn_pct and lost >= _LOST_WARN:
        bad = loss >= limits.loss_fail_pct and lost >= _LOST_FAIL
        numbers = _some(values, "loss_pct", "echoes", "echoes_lost", "rx_errors", "rx_crc_errors")
        found.append(_finding("loss", numbers, Level.FAIL if bad else Level.WARN))
    return found


def _finding(problem: str, numbers: Mapping[str, Scalar], level: Level | None = None) -> Finding:
    code = f"network.{problem}"
    return Finding(code, level or CODES[code], dict(numbers))


def _some(values: Mapping[str, Scalar], *keys: str) -> dict[str, Scalar]:
    return {key: values[key] for key in keys if key in values}


def _number(values: Mapping[str, Scalar], key: str) -> float | None:
    value = values.get(key)
    return None if value is None or isinstance(value, str) else value


def _numbers(values: Mapping[str, Scalar]) -> range:
    """The numbers of the endpoints, in the order of the settings."""
    return range(1, int(values.get("endpoints", 0)) + 1)


def _why(values: Mapping[str, Scalar], number: int) -> Scalar:
    return values.get(f"endpoint_{number}_why", "")
