"""What a reading of the line means: a table, and the rule that the cause hides the symptom."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kinds import network
from agent.model import Fault, Level, Reading

LINE = network.Settings(interface="auto", endpoints=("tls://court.example:443", "tcp://10.0.0.1:1"))
WELL: dict[str, Any] = {
    "interface_present": True,
    "link_up": True,
    "carrier": True,
    "operstate": "up",
    "wifi": False,
    "speed_mbps": 1000,
    "duplex": "full",
    "ipv4": "present",
    "ipv6": "link_local",
    "default_route": True,
    "icmp": "ok",
    "gateway_reachable": True,
    "gateway_by": "icmp",
    "gateway_rtt_ms": 0.4,
    "jitter_ms": 0.1,
    "loss_pct": 0.0,
    "echoes": 50,
    "echoes_lost": 0,
    "dns_names": 1,
    "dns_failed": 0,
    "dns_ms": 4.0,
    "endpoints": 2,
    "endpoints_ok": 2,
    "endpoint_1_ok": True,
    "endpoint_1_rtt_ms": 31.0,
    "endpoint_1_tls": "valid",
    "endpoint_1_tls_days": 200.0,
    "endpoint_2_ok": True,
    "endpoint_2_rtt_ms": 30.0,
    "rtt_ms": 31.0,
    "rtt_to": "endpoint",
    "rtt_by": "tcp",
}
OK, INFO, WARN, FAIL, UNKNOWN = Level.OK, Level.INFO, Level.WARN, Level.FAIL, Level.UNKNOWN


def judged(values: dict[str, Any], limits: network.Settings = LINE) -> dict[str, Level]:
    found = network.judge(Reading(values), limits)
    assert len({f.code for f in found}) == len(found), "one finding a code"
    assert all(f.code in network.CODES for f in found)
    return {f.code.removeprefix("network."): f.level for f in found}


def with_(**changed: Any) -> dict[str, Any]:
    return {k: v for k, v in {**WELL, **changed}.items() if v is not None}


DNS_DOWN = {"dns_failed": 1, "dns_why": "dns_timeout", "endpoint_1_why": "dns_timeout"}
FIRST_DOWN = {"endpoints_ok": 1, "endpoint_1_ok": False, "endpoint_1_why": "timeout"}
ALL_DOWN = {**FIRST_DOWN, "endpoints_ok": 0, "endpoint_2_why": "unreachable"}
NO_GATEWAY = {"gateway_reachable": False, "icmp": "silent"}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, {}),
        # the link
        ({"link_up": False, "carrier": False}, {"no_link": FAIL}),
        ({"link_up": False, "interface_present": False}, {"no_link": FAIL}),
        ({"link_up": False, "ipv4": "none", **NO_GATEWAY, **ALL_DOWN}, {"no_link": FAIL}),
        ({"link_up": None}, {"no_link": UNKNOWN}),
        ({"speed_mbps": 100}, {}),
        ({"speed_mbps": 10}, {"slow_link": WARN}),
        ({"speed_mbps": None, "duplex": None}, {}),
        ({"speed_mbps": 10, "duplex": "half"}, {"slow_link": WARN, "half_duplex": WARN}),
        ({"wifi": True, "wifi_dbm": -70.0}, {}),
        ({"wifi": True, "wifi_dbm": -71.0}, {"wifi_weak": WARN}),
        ({"wifi": True}, {}),
        # addresses
        ({"ipv4": "none"}, {"no_address": FAIL}),
        ({"ipv4": "link_local"}, {"no_address": FAIL}),
        ({"ipv4": "none", "ipv6": "present"}, {}),
        ({"ipv4": None, "ipv6": None}, {}),
        ({"ipv4": "none", **NO_GATEWAY, **DNS_DOWN, **ALL_DOWN}, {"no_address": FAIL}),
        ({"ipv4": "none", "duplex": "half"}, {"no_address": FAIL, "half_duplex": WARN}),
        # the gateway
        ({**NO_GATEWAY, "endpoints_ok": 0}, {"gateway_unreachable": FAIL}),
        ({**NO_GATEWAY, **DNS_DOWN, **ALL_DOWN}, {"gateway_unreachable": FAIL}),
        (NO_GATEWAY, {"gateway_unreachable": INFO}),
        ({**NO_GATEWAY, "endpoints_age_s": 30.0}, {"gateway_unreachable": FAIL}),
        ({"default_route": False, "endpoints_ok": 0}, {"gateway_unreachable": FAIL}),
        ({"gateway_reachable": None, "icmp": "forbidden"}, {}),
        # names
        (DNS_DOWN, {"dns_failing": FAIL}),
        ({**DNS_DOWN, "endpoint_2_why": "timeout"},
         {"dns_failing": FAIL, "endpoint_unreachable": FAIL}),
        # endpoints
        (FIRST_DOWN, {"endpoint_unreachable": FAIL}),
        (ALL_DOWN, {"endpoint_unreachable": FAIL}),
        # certificates
        ({"endpoint_1_tls_days": 30.1}, {}),
        ({"endpoint_1_tls_days": 30.0}, {"tls_expiring": WARN}),
        ({"endpoint_1_tls_days": 7.1}, {"tls_expiring": WARN}),
        ({"endpoint_1_tls_days": 7.0}, {"tls_expiring": FAIL}),
        ({"endpoint_1_tls": "expired", "endpoint_1_tls_days": -2.0}, {"tls_invalid": FAIL}),
        ({"endpoint_1_tls": "untrusted", "endpoint_1_tls_days": None}, {"tls_invalid": FAIL}),
        # quality
        ({"rtt_ms": 149.9}, {}),
        ({"rtt_ms": 150.0}, {"high_rtt": WARN}),
        ({"rtt_ms": 300.0}, {"high_rtt": FAIL}),
        ({"jitter_ms": 29.9}, {}),
        ({"jitter_ms": 30.0}, {"high_jitter": WARN}),
        ({"jitter_ms": 50.0}, {"high_jitter": FAIL}),
        ({"loss_pct": 20.0, "echoes": 5, "echoes_lost": 1}, {}),
        ({"loss_pct": 40.0, "echoes": 5, "echoes_lost": 2}, {"loss": WARN}),
        ({"loss_pct": 60.0, "echoes": 5, "echoes_lost": 3}, {"loss": FAIL}),
        ({"loss_pct": 4.0, "echoes": 75, "echoes_lost": 3}, {"loss": WARN}),
        ({"loss_pct": None, "echoes": None, "echoes_lost": None, "icmp": "forbidden"}, {}),
    ],
)  # fmt: skip
def test_readings_and_their_findings(changed: dict[str, Any], expected: dict[str, Level]) -> None:
    assert judged(with_(**changed)) == expected


def test_without_an_interface_only_endpoints_are_judged() -> None:
    court = network.Settings(endpoints=("tcp://10.0.0.1:1",))
    values = {"endpoints": 1, "endpoints_ok": 1, "endpoint_1_ok": True}
    assert judged(values, court) == {}
    values |= {"endpoints_ok": 0, "endpoint_1_ok": False, "endpoint_1_why": "refused"}
    assert judged(values, court) == {"endpoint_unreachable": FAIL}


def test_a_gateway_that_nobody_asked_about_is_not_judged() -> None:
    isolated = LINE.model_copy(update={"gateway": False})
    assert judged(with_(default_route=False, endpoints_ok=0), isolated) == {}


def test_the_numbers_say_which_endpoint_and_why() -> None:
    [found] = network.judge(
        Reading(with_(endpoints_ok=1, endpoint_2_ok=False, endpoint_2_why="refused")), LINE
    )
    assert found.numbers == {"endpoints": 2, "endpoints_ok": 1, "endpoint": 2, "why": "refused"}


def test_the_certificate_that_ends_first_is_named() -> None:
    values = with_(endpoint_1_tls_days=20.0, endpoint_2_tls="valid", endpoint_2_tls_days=5.0)
    [found] = network.judge(Reading(values), LINE)
    assert found.level is FAIL
    assert found.numbers == {"endpoint": 2, "days": 5.0}


def test_an_expired_certificate_is_invalid_and_says_since_when() -> None:
    [found] = network.judge(
        Reading(with_(endpoint_1_tls="expired", endpoint_1_tls_days=-2.0)), LINE
    )
    assert found.numbers == {"endpoint": 1, "why": "expired", "days": -2.0}


@pytest.mark.parametrize("fault", [f for f in Fault if f is not Fault.SKIPPED])
def test_a_reading_that_failed_is_never_ok(fault: Fault) -> None:
    [found] = network.judge(Reading(fault=fault), LINE)
    assert found.level is UNKNOWN
    assert network.judge(Reading(WELL), LINE) == []


def test_a_skipped_reading_says_nothing() -> None:
    assert network.judge(Reading(fault=Fault.SKIPPED), LINE) == []


def _like(value: Any) -> st.SearchStrategy[Any]:
    """Any value of the same type."""
    if isinstance(value, bool):
        return st.booleans()
    if isinstance(value, str):
        return st.sampled_from(sorted(network.WORDS))
    return st.integers(0, 8) if isinstance(value, int) else st.floats(-10, 1e4)


READINGS = st.fixed_dictionaries({}, optional={key: _like(value) for key, value in WELL.items()})


@given(READINGS)
def test_every_reading_can_be_judged(values: dict[str, Any]) -> None:
    assert ("no_link" in judged(values)) == (values.get("link_up") is not True)


@given(READINGS)
def test_one_root_cause_stands_without_its_symptoms(changed: dict[str, Any]) -> None:
    symptoms = {"no_address", "gateway_unreachable", "dns_failing", "endpoint_unreachable"}
    values = {**WELL, **changed, "link_up": False}
    assert judged(values) == {"no_link": FAIL}
    values |= {"link_up": True, "ipv4": "none", "ipv6": "none"}
    assert symptoms & judged(values).keys() == {"no_address"}
    values |= {"ipv4": "present", "gateway_reachable": False, "endpoints_ok": 0}
    assert symptoms & judged(values).keys() == {"gateway_unreachable"}
