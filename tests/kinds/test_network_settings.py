"""What a [network.NAME] table may say, and the words of the refusals."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from agent.kinds import network
from agent.kinds.network.settings import Endpoint, endpoint, host_name


def settings(**table: Any) -> network.Settings:
    """As from room.toml: strict."""
    return network.Settings.model_validate_json(json.dumps(table), strict=True)


def refusal(**table: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        settings(**table)
    return str(caught.value)


def test_the_unnamed_network_is_that_of_the_default_route() -> None:
    line = settings(interface="auto")
    assert (line.interface, line.required, line.period_s) == ("auto", False, 60.0)
    assert line.gateway
    assert line.targets() == ()


def test_a_table_with_endpoints_watches_only_its_endpoints() -> None:
    court = settings(endpoints=["tls://vc.toaan.gov.vn:443", "tcp://10.9.8.7:5061"])
    assert court.interface is None
    assert court.targets() == (
        Endpoint("vc.toaan.gov.vn", 443, tls=True),
        Endpoint("10.9.8.7", 5061, tls=False),
    )


def test_a_table_that_watches_nothing_is_refused() -> None:
    assert "watches nothing: give endpoints or interface" in refusal()
    assert "watches nothing" in refusal(dns_name="court.example")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("https://vc.example:443", "write tcp://host:port or tls://host:port"),
        ("vc.example:443", "is no endpoint"),
        ("tcp://vc.example", "is no endpoint"),
        ("tcp://vc.example:443/path", "is no endpoint"),
        ("tcp://user@vc.example:443", "is no endpoint"),
        ("tcp://vc.example:0", "port 0 is out of range; allowed is 1 to 65535"),
        ("tcp://vc.example:70000", "port 70000 is out of range"),
        ("tcp://:443", "is no host name"),
        ("tcp://tòa-án.vn:443", "is no host name"),
        ("tcp://-a.example:443", "is no host name"),
        ("tcp://10.9.8:443", "is no IPv4 address"),
        ("tcp://10.9.8.256:443", "is no IPv4 address"),
        ("tcp://[10.9.8.7]:443", "is no IPv6 address"),
        ("tcp://[fe80::zz]:443", "is no IPv6 address"),
        ("tcp://2001:db8::1:443", "an IPv6 address in brackets"),
    ],
)
def test_a_bad_endpoint_is_refused_with_its_fix(text: str, says: str) -> None:
    assert says in refusal(endpoints=[text])


def test_an_address_needs_no_look_up() -> None:
    assert endpoint("tcp://[2001:db8::1]:443").name is None
    assert endpoint("tcp://192.0.2.1:443").name is None
    assert endpoint("tls://VC.Example:443").name == "vc.example"


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"endpoints": ["tcp://a:1", "tcp://A:1"]}, "'tcp://A:1' stands there twice"),
        (
            {"endpoints": ["udp://a:1", "tcp://b:1", "tls://c"]},
            "write tcp://host:port or tls://host:port, an IPv6 address in brackets; 'tls://c' is",
        ),
        ({"endpoints": ["tcp://a:0", "tcp://b:1", "tcp://b:1"]}, "'tcp://b:1' stands there twice"),
        ({"endpoints": ["tcp://a:0", "tcp://b:1", "tcp://b:1"]}, "port 0 is out of range"),
        ({"endpoints": ["tcp://a:1"], "ca_file": "/x.pem"}, "ca_file is for tls:// endpoints"),
        ({"endpoints": [f"tcp://a:{n}" for n in range(1, 10)]}, "at most 8"),
        ({"interface": "eth0/../x"}, "is no interface"),
        ({"interface": ".."}, "is no interface"),
        ({"interface": ""}, "is no interface"),
        ({"interface": "auto", "dns_name": "192.0.2.1"}, "DNS is asked for names"),
        ({"interface": "auto", "dns_name": "a b"}, "is no host name"),
        ({"interface": "auto", "rtt_warn_ms": 400.0}, "rtt: the limit for warn"),
        ({"interface": "auto", "jitter_warn_ms": 60.0}, "jitter: the limit for warn"),
        ({"interface": "auto", "loss_warn_pct": 9.0}, "loss: the limit for warn"),
        ({"interface": "auto", "tls_warn_days": 3.0}, "tls: the limit for warn"),
        ({"interface": "auto", "echoes": 8}, "8 echoes, one each 1 s, need a deadline_s of 9.5"),
        ({"interface": "auto", "gateway": "false"}, "valid boolean"),
        ({"interface": "auto", "gatway": True}, "Extra inputs are not permitted"),
        ({"interface": "auto", "speed_min_mbps": 0}, "greater than or equal to 1"),
    ],
)
def test_a_table_that_cannot_work_is_refused(table: dict[str, Any], says: str) -> None:
    assert says in refusal(**table)


def test_many_echoes_are_fine_with_time_for_them_or_without_a_gateway() -> None:
    assert settings(interface="auto", echoes=8, deadline_s=9.5).echoes == 8
    assert settings(interface="auto", echoes=8, echo_spacing_s=0.5).echoes == 8
    assert settings(interface="auto", echoes=8, gateway=False).echoes == 8


@given(st.text(max_size=60))
def test_any_text_is_an_endpoint_or_a_value_error(text: str) -> None:
    for given_text in (text, f"tcp://{text}:1", f"tls://{text}"):
        try:
            one = endpoint(given_text)
        except ValueError:
            continue
        assert 1 <= one.port <= 65_535
        assert one.host.isascii()
        bracketed = f"[{one.host}]" if ":" in one.host else one.host
        assert endpoint(f"{'tls' if one.tls else 'tcp'}://{bracketed}:{one.port}") == one


@given(st.from_regex(r"[a-z]([a-z0-9-]{0,20}[a-z0-9])?(\.[a-z]([a-z0-9]{0,5}))?", fullmatch=True))
def test_names_of_rfc_1123_are_taken(name: str) -> None:
    assert host_name(name.upper()) == name
