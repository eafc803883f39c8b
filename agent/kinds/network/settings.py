"""What may stand in a `[network.NAME]` table, and what an endpoint is."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import Field, field_validator, model_validator

from agent.kinds import DeviceSettings

AUTO = "auto"
MARGIN_S = 0.5
"""A reading is ready this long before its deadline, whatever hangs."""
REPLY_S = 1.0
"""How long an echo is waited for. ITU-T G.114 gives up on a call at 400 ms one way: what comes
later than a second is lost to a conversation."""
_ENDPOINT = re.compile(
    r"(?P<scheme>tcp|tls)://(?:\[(?P<six>[^\[\]]*)\]|(?P<host>[^\[\]:/@\s]*)):(?P<port>\d{1,5})"
)
_LABEL = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")
_INTERFACE = re.compile(r"[A-Za-z0-9_.:@-]{1,15}")  # the kernel's IFNAMSIZ is 16 with the NUL


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One service that must answer: `tcp://host:port`, or `tls://` with a good certificate."""

    host: str
    port: int
    tls: bool

    @property
    def name(self) -> str | None:
        """The name to look up, None where `host` is an address."""
        return None if is_address(self.host) else self.host


def is_address(host: str) -> bool:
    """Whether a host is an IPv4 or IPv6 address and needs no look-up."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def endpoint(text: str) -> Endpoint:
    """The endpoint of `tcp://host:port` or `tls://host:port`. Raises `ValueError`."""
    match = _ENDPOINT.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{text!r} is no endpoint; write tcp://host:port or tls://host:port, "
            "an IPv6 address in brackets"
        )
    if match["six"] is not None:
        host = match["six"]
        if not (is_address(host) and ":" in host):
            raise ValueError(f"{text!r}: {host!r} is no IPv6 address")
    else:
        host = host_name(match["host"])
    port = int(match["port"])
    if not 1 <= port <= 65_535:
        raise ValueError(f"{text!r}: port {port} is out of range; allowed is 1 to 65535")
    return Endpoint(host, port, match["scheme"] == "tls")


def host_name(text: str) -> str:
    """A name as RFC 1123 has it, or an IPv4 address; lower case. Raises `ValueError`."""
    labels = text.removesuffix(".").split(".")
    if len(text) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(
            f"{text!r} is no host name; letters, digits, - and dots, other scripts as xn--..."
        )
    if labels[-1].isdigit() and not is_address(text):
        raise ValueError(f"{text!r} is no IPv4 address")
    return text.lower()


class Settings(DeviceSettings):
    """One line, or one group of endpoints. Limits are for the worst target, source beside each."""

    required: bool = Field(default=False, description="the room is not ready without it")
    period_s: float = Field(default=60.0, ge=1, le=86_400, description="time between readings")

    interface: str | None = Field(
        default=None,
        description='"auto" (that of the default route) or a name; without it no link is judged',
    )
    gateway: bool = Field(default=True, description="whether the interface's gateway must answer")
    endpoints: tuple[str, ...] = Field(
        default=(), max_length=8, description="tcp://host:port or tls://host:port, each must answer"
    )
    ca_file: Path | None = Field(
        default=None, description="PEM of the authorities for tls://; without it the system's"
    )
    dns_name: str | None = Field(
        default=None, description="a name that must resolve, besides those of the endpoints"
    )

    echoes: int = Field(default=5, ge=1, le=20, description="per reading; 3 while all is well")
    # One packet per second and target is what a running hearing may be burdened with.
    echo_spacing_s: float = Field(default=1.0, ge=0.2, le=5, description="pause between them")
    loss_window_s: float = Field(
        default=600.0, ge=10, le=3_600, description="how far back loss is counted"
    )
    endpoint_period_s: float = Field(
        default=60.0,
        ge=0,
        le=3_600,
        description="an endpoint that is well is asked no oftener than this",
    )

    speed_min_mbps: int = Field(default=100, ge=1, le=400_000, description="slower: slow_link")
    # 150 ms: above it conference bridges call a line poor; 300 ms: twice the 150 ms one way of
    # ITU-T G.114, beyond which people talk into each other.
    rtt_warn_ms: float = Field(default=150.0, gt=0, le=10_000, description="high_rtt from here")
    rtt_fail_ms: float = Field(default=300.0, gt=0, le=10_000, description="high_rtt fails here")
    # 30 ms: Microsoft Teams' network target; 50 ms: Cisco TelePresence's frame jitter.
    jitter_warn_ms: float = Field(default=30.0, gt=0, le=1_000, description="high_jitter from here")
    jitter_fail_ms: float = Field(
        default=50.0, gt=0, le=1_000, description="high_jitter fails here"
    )
    # 1 %: Teams' target and the MCU's "major"; 5 %: the MCU's "critical" (Polycom RMX).
    loss_warn_pct: float = Field(default=1.0, gt=0, le=100, description="loss from here")
    loss_fail_pct: float = Field(default=5.0, gt=0, le=100, description="loss fails here")
    # 30 days: a court needs a purchase order to renew; 7 days: the last working week (ours).
    tls_warn_days: float = Field(default=30.0, ge=0, le=3_650, description="tls_expiring from here")
    tls_fail_days: float = Field(default=7.0, ge=0, le=3_650, description="tls_expiring fails here")
    # Voice over Wi-Fi is planned for -67 dBm and better; 3 dB less is a warning (ours).
    wifi_min_dbm: float = Field(default=-70.0, ge=-100, le=0, description="weaker: wifi_weak")

    @field_validator("interface")
    @classmethod
    def _interface(cls, name: str | None) -> str | None:
        if name is not None and (name in (".", "..") or not _INTERFACE.fullmatch(name)):
            raise ValueError(f'{name!r} is no interface; "auto", or a name as `ip link` shows it')
        return name

    @field_validator("endpoints")
    @classmethod
    def _endpoints(cls, endpoints: tuple[str, ...]) -> tuple[str, ...]:
        parsed: list[Endpoint] = []
        mistakes: list[str] = []
        for text in endpoints:
            try:
                one = endpoint(text)
            except ValueError as error:
                mistakes.append(str(error))
                continue
            if one in parsed:
                mistakes.append(f"{text!r} stands there twice")
            parsed.append(one)
        if mistakes:
            raise ValueError("; ".join(mistakes))
        return endpoints

    @field_validator("dns_name")
    @classmethod
    def _dns_name(cls, name: str | None) -> str | None:
        if name is None:
            return None
        if is_address(name):
            raise ValueError(f"{name!r} is an address; DNS is asked for names")
        return host_name(name)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.interface is None and not self.endpoints:
            raise ValueError('watches nothing: give endpoints or interface (a name or "auto")')
        if self.ca_file is not None and not any(e.tls for e in self.targets()):
            raise ValueError("ca_file is for tls:// endpoints, and there is none")
        for what, warn, fail in (
            ("rtt", self.rtt_warn_ms, self.rtt_fail_ms),
            ("jitter", self.jitter_warn_ms, self.jitter_fail_ms),
            ("loss", self.loss_warn_pct, self.loss_fail_pct),
            ("tls", -self.tls_warn_days, -self.tls_fail_days),
        ):
            if warn > fail:
                raise ValueError(f"{what}: the limit for warn must come before the one for fail")
        # The echoes, then one poke at a silent gateway's TCP.
        needed = (self.echoes - 1) * self.echo_spacing_s + 2 * REPLY_S + MARGIN_S
        if self.interface is not None and self.gateway and needed > self.deadline_s:
            raise ValueError(
                f"{self.echoes} echoes, one each {self.echo_spacing_s:g} s, need a deadline_s "
                f"of {needed:g}; it is {self.deadline_s:g}"
            )
        return self

    def targets(self) -> tuple[Endpoint, ...]:
        """The endpoints, parsed."""
        return tuple(endpoint(text) for text in self.endpoints)
