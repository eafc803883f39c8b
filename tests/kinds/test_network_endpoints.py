"""Endpoints against real servers: ports, certificates, names, and the ways they fail."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agent.kinds import network
from agent.model import Level, Reading, Scalar

T = TypeVar("T")
NOW = dt.datetime.now(dt.UTC)
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def run(work: Coroutine[Any, Any, T]) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(20):
            return await work

    return asyncio.run(bounded())


def build(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    *,
    starts: float,
    ends: float,
) -> x509.CertificateBuilder:
    """A certificate to be signed, valid between two numbers of days from now."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + dt.timedelta(days=starts))
        .not_valid_after(NOW + dt.timedelta(days=ends))
    )


class Authority:
    """A certificate authority of the test's own, and what it signs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.served = folder  # the certificate last made for a server
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"CA {id(self)}")])
        own = build(self._name, self._name, self._key, starts=-60, ends=3650)
        ca = x509.BasicConstraints(ca=True, path_length=None)
        signed = own.add_extension(ca, critical=True).sign(self._key, hashes.SHA256())
        self.file = folder / f"ca-{id(self)}.pem"
        self.file.write_bytes(signed.public_bytes(serialization.Encoding.PEM))

    def server(
        self, days: float = 90, host: str = "localhost", starts: float = -60, own: bool = False
    ) -> ssl.SSLContext:
        """The context of a server whose certificate ends in `days`; `own`: signed by itself."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        names = [x509.DNSName(host), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        issuer = subject if own else self._name
        builder = build(subject, issuer, key, starts=starts, ends=days)
        san = x509.SubjectAlternativeName(names if host == "localhost" else names[:1])
        signed = builder.add_extension(san, critical=False).sign(
            key if own else self._key, hashes.SHA256()
        )
        file = self._folder / f"server-{signed.serial_number}.pem"
        file.write_bytes(
            signed.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        self.served = file
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes what comes and says nothing, until the other end goes."""
    with contextlib.suppress(OSError):
        while await reader.read(1024):
            pass
    await gone(reader, writer)


async def gone(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 mail.example ESMTP ready\r\n" * 3)
    await silent(reader, writer)


@contextlib.asynccontextmanager
async def serving(
    context: ssl.SSLContext | None = None, serve: Serve = silent, port: int = 0
) -> AsyncIterator[int]:
    """A server on loopback; yields its port."""
    server = await asyncio.start_server(serve, "127.0.0.1", port, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.sleep(0)


def court(*endpoints: str, **table: Any) -> network.Passive:
    return network.Passive(network.Settings(endpoints=endpoints, **table))


async def ask(passive: network.Passive) -> dict[str, Scalar]:
    reading = await passive.read()
    assert reading.fault is None
    assert all(v in network.WORDS for v in reading.values.values() if isinstance(v, str))
    return dict(reading.values)


def codes(values: dict[str, Scalar]) -> dict[str, Level]:
    limits = network.Settings(endpoints=("tcp://192.0.2.1:1",))
    found = network.judge(Reading(values), limits)
    return {f.code.removeprefix("network."): f.level for f in found}


# --- ports ---


def test_a_port_that_answers_has_a_round_trip() -> None:
    async def story() -> None:
        async with serving() as port:
            values = await ask(court(f"tcp://127.0.0.1:{port}"))
        assert values.pop("endpoint_1_rtt_ms") == values.pop("rtt_ms")
        assert values == {
            "endpoints": 1,
            "endpoints_ok": 1,
            "endpoint_1_ok": True,
            "rtt_to": "endpoint",
            "rtt_by": "tcp",
        }
        assert codes(values) == {}

    run(story())


def test_a_refused_port_is_unreachable_until_it_is_served_again() -> None:
    async def story() -> None:
        async with serving() as port:
            passive = court(f"tcp://127.0.0.1:{port}")
            assert (await ask(passive))["endpoints_ok"] == 1
        values = await ask(passive)
        assert values["endpoint_1_why"] == "refused"
        assert "rtt_ms" not in values
        assert codes(values) == {"endpoint_unreachable": Level.FAIL}
        async with serving(port=port):
            assert codes(await ask(passive)) == {}

    run(story())


def test_one_dead_endpoint_does_not_hide_the_others() -> None:
    async def story() -> None:
        async with serving() as port:
            values = await ask(court("tcp://127.0.0.1:1", f"tcp://127.0.0.1:{port}"))
        assert (values["endpoints"], values["endpoints_ok"]) == (2, 1)
        assert values["endpoint_1_why"] == "refused"
        assert values["endpoint_2_ok"] is True
        assert "endpoint_2_rtt_ms" in values

    run(story())


def test_a_black_hole_costs_no_more_than_the_deadline() -> None:
    """A server too busy to accept: the kernel drops what its backlog cannot hold."""

    async def story() -> None:
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as open_ones:
            full = open_ones.enter_context(socket.socket())
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            port = full.getsockname()[1]
            for _ in range(4):
                client = open_ones.enter_context(socket.socket())
                client.setblocking(False)
                client.connect_ex(("127.0.0.1", port))
            passive = court(f"tcp://127.0.0.1:{port}", deadline_s=1.5)
            start = loop.time()
            values = await ask(passive)
            assert loop.time() - start < 1.5
            assert values["endpoint_1_why"] == "timeout"
            assert codes(values) == {"endpoint_unreachable": Level.FAIL}
        async with serving(port=port):
            assert codes(await ask(passive)) == {}

    run(story())


def test_a_well_endpoint_is_not_bothered_before_its_time() -> None:
    async def story() -> None:
        asked = 0

        async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal asked
            asked += 1
            await gone(reader, writer)

        async with serving(serve=count) as port:
            passive = court(f"tcp://127.0.0.1:{port}")
            for _ in range(5):
                values = await ask(passive)
            assert asked == 2
            assert "endpoints_age_s" in values
            eager = court(f"tcp://127.0.0.1:{port}", endpoint_period_s=0)
            for _ in range(3):
                values = await ask(eager)
            assert asked == 5
            assert "endpoints_age_s" not in values

    run(story())


def test_after_a_failure_an_endpoint_is_asked_every_time_until_it_is_well_twice() -> None:
    async def story() -> None:
        async with serving() as port:
            pass
        passive = court(f"tcp://127.0.0.1:{port}")
        assert "endpoints_age_s" not in await ask(passive)
        assert "endpoints_age_s" not in await ask(passive)
        async with serving(port=port):
            assert "endpoints_age_s" not in await ask(passive)
            assert "endpoints_age_s" not in await ask(passive)
            assert "endpoints_age_s" in await ask(passive)

    run(story())


# --- certificates ---


@pytest.mark.parametrize(
    ("made", "word", "days", "expected"),
    [
        ({}, "valid", 90, {}),
        ({"days": 20}, "valid", 20, {"tls_expiring": Level.WARN}),
        ({"days": 5}, "valid", 5, {"tls_expiring": Level.FAIL}),
        ({"days": -2}, "expired", -2, {"tls_invalid": Level.FAIL}),
        ({"starts": 2}, "not_yet_valid", 90, {"tls_invalid": Level.FAIL}),
        ({"own": True}, "self_signed", 90, {"tls_invalid": Level.FAIL}),
        ({"host": "other.example"}, "hostname", 90, {"tls_invalid": Level.FAIL}),
    ],
)
def test_certificates_and_what_they_are_worth(
    authority: Authority, made: dict[str, Any], word: str, days: float, expected: dict[str, Level]
) -> None:
    async def story() -> None:
        async with serving(authority.server(**made)) as port:
            passive = court(f"tls://localhost:{port}", ca_file=authority.file)
            values = await ask(passive)
        assert values["endpoint_1_tls"] == word
        assert values["endpoint_1_tls_days"] == pytest.approx(days, abs=0.1)
        assert values["endpoint_1_ok"] is (word == "valid")
        assert codes(values) == expected
        async with serving(authority.server(), port=port):  # renewed
            values = await ask(passive)
        assert values["endpoint_1_tls"] == "valid"
        assert codes(values) == {}

    run(story())


def test_an_address_is_checked_against_the_certificates_addresses(authority: Authority) -> None:
    async def story() -> None:
        async with serving(authority.server()) as port:
            values = await ask(court(f"tls://127.0.0.1:{port}", ca_file=authority.file))
        assert values["endpoint_1_tls"] == "valid"
        async with serving(authority.server(host="other.example")) as port:
            values = await ask(court(f"tls://127.0.0.1:{port}", ca_file=authority.file))
        assert values["endpoint_1_tls"] == "hostname"

    run(story())


def test_an_authority_that_is_not_trusted_still_tells_the_days_left(authority: Authority) -> None:
    stranger = Authority(authority.file.parent)

    async def story() -> None:
        async with serving(stranger.server(days=40)) as port:
            passive = court(f"tls://localhost:{port}", ca_file=authority.file)
            values = await ask(passive)
            assert values["endpoint_1_tls"] == "untrusted"
            assert values["endpoint_1_tls_days"] == pytest.approx(40, abs=0.1)
            assert codes(values) == {"tls_invalid": Level.FAIL}

    run(story())


def test_a_certificate_can_be_trusted_by_itself(authority: Authority) -> None:
    async def story() -> None:
        async with serving(authority.server()) as port:
            values = await ask(court(f"tls://localhost:{port}", ca_file=authority.served))
            assert values["endpoint_1_tls"] == "valid"
            authority.server()  # another one of the same authority is not this one
            values = await ask(court(f"tls://localhost:{port}", ca_file=authority.served))
            assert values["endpoint_1_tls"] == "untrusted"

    run(story())


def test_a_renewed_file_of_authorities_is_read_without_a_restart(
    authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path)
    file = tmp_path / "ca.pem"

    async def story() -> None:
        async with serving(stranger.server()) as port:
            passive = court(f"tls://localhost:{port}", ca_file=file)
            assert (await ask(passive))["endpoint_1_tls"] == "no_ca"
            file.write_text("no PEM\n")
            assert (await ask(passive))["endpoint_1_tls"] == "no_ca"
            file.write_bytes(authority.file.read_bytes())
            assert (await ask(passive))["endpoint_1_tls"] == "untrusted"
            file.write_bytes(stranger.file.read_bytes())
            assert (await ask(passive))["endpoint_1_tls"] == "valid"

    run(story())


def test_a_server_that_does_not_speak_tls_is_a_wrong_protocol(authority: Authority) -> None:
    async def story() -> None:
        async with serving(serve=babble) as port:
            passive = court(f"tls://localhost:{port}", ca_file=authority.file)
            values = await ask(passive)
        assert values["endpoint_1_tls"] == "protocol"
        assert "endpoint_1_tls_days" not in values
        assert codes(values) == {"tls_invalid": Level.FAIL}

    run(story())


@pytest.mark.parametrize(("serve", "why"), [(silent, "tls_timeout"), (gone, "closed")])
def test_a_server_that_accepts_but_never_shakes_hands_is_unreachable(
    authority: Authority, serve: Serve, why: str
) -> None:
    async def story() -> None:
        async with serving(serve=serve) as port:
            target = f"tls://127.0.0.1:{port}"
            passive = court(target, ca_file=authority.file, deadline_s=1.0)
            values = await ask(passive)
        assert values["endpoint_1_why"] in (why, "reset" if why == "closed" else why)
        assert "endpoint_1_tls" not in values
        assert codes(values) == {"endpoint_unreachable": Level.FAIL}
        async with serving(authority.server(), port=port):
            assert codes(await ask(passive)) == {}

    run(story())


# --- names ---


def test_a_name_is_looked_up_and_its_time_told() -> None:
    async def story() -> None:
        async with serving() as port:
            values = await ask(court(f"tcp://localhost:{port}"))
        assert (values["dns_names"], values["dns_failed"]) == (1, 0)
        assert values["dns_ms"] >= 0  # type: ignore[operator]
        assert values["endpoint_1_ok"] is True

    run(story())


def test_a_name_that_does_not_exist_is_a_fault_of_dns_not_of_the_endpoint() -> None:
    """RFC 6761: `.invalid` never resolves; with or without a network."""
    values = run(ask(court("tcp://court.invalid:443", deadline_s=4.0)))
    assert values["dns_failed"] == 1
    assert values["dns_why"] == values["endpoint_1_why"]
    assert codes(values) == {"dns_failing": Level.FAIL}


def test_a_name_beside_the_endpoints_is_looked_up_too() -> None:
    async def story() -> None:
        async with serving() as port:
            values = await ask(court(f"tcp://127.0.0.1:{port}", dns_name="localhost"))
        assert (values["dns_names"], values["dns_failed"]) == (1, 0)

    run(story())


def test_without_a_name_nothing_is_said_of_dns() -> None:
    values = run(ask(court("tcp://127.0.0.1:1")))
    assert not [key for key in values if key.startswith("dns")]
