"""TLS as a court would run it: own authority, client certificates, clocks that are wrong."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from link_stage import ROOM, Mosquitto, Room, running, until

pytestmark = pytest.mark.broker
pytest.importorskip("cryptography")

from cryptography import x509  # noqa: E402
from cryptography.hazmat.primitives import hashes, serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec  # noqa: E402
from cryptography.x509.oid import NameOID  # noqa: E402

StartBroker = Callable[..., Mosquitto]
DAY = timedelta(days=1)


class Authority:
    """A certificate authority of the test's own."""

    def __init__(self, folder: Path, name: str = "court") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        self.file = self._write(f"{name}.ca.pem", self._certificate(self._name, self._key, ca=True))

    def issue(
        self, name: str, begins: timedelta = -DAY, ends: timedelta = DAY, host: str = "localhost"
    ) -> tuple[Path, Path]:
        """Certificate and key for a name, valid from and until so much from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._certificate(_named(name), key, begins, ends, host=host)
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        key_file = self._folder / f"{name}.key"
        key_file.write_bytes(pem)
        return self._write(f"{name}.pem", certificate), key_file

    def _certificate(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        begins: timedelta = -DAY,
        ends: timedelta = DAY,
        *,
        ca: bool = False,
        host: str = "localhost",
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begins)
            .not_valid_after(now + ends)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        )
        return builder.sign(self._key, hashes.SHA256())

    def _write(self, name: str, certificate: x509.Certificate) -> Path:
        file = self._folder / name
        file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return file


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def secure(authority: Authority, files: tuple[Path, Path], *more: str) -> str:
    lines = [
        "allow_anonymous true",
        f"cafile {authority.file}",
        f"certfile {files[0]}",
        f"keyfile {files[1]}",
        *more,
    ]
    return "\n".join(lines)


def at(broker: Mosquitto, **table: object) -> Room:
    table = {key: str(value) for key, value in table.items()}
    return Room({"host": "localhost", "port": broker.port, "tls": True, **table})


def test_a_broker_with_a_certificate_of_our_authority_is_spoken_to(
    mosquitto: StartBroker, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    broker = mosquitto(secure(authority, authority.issue("server")))

    async def scene() -> None:
        room = at(broker, ca_file=authority.file)
        room.outbox.add(300)  # more than one TLS record of answers
        async with running(room) as link:
            await until(lambda: len(room.outbox.sent) == 300)
            assert link.last_error == ""
            await link.stop("test")

    asyncio.run(scene())


def test_a_broker_of_another_authority_is_not_trusted(
    mosquitto: StartBroker, tmp_path: Path
) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "stranger")
    broker = mosquitto(secure(authority, authority.issue("server")))
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(other.file.read_bytes())

    async def scene() -> None:
        async with running(at(broker, ca_file=trusted)) as link:
            await until(lambda: link.last_error)
            assert link.last_error == "tls"
            trusted.write_bytes(authority.file.read_bytes())
            await until(lambda: link.connected)
        async with running(at(broker)) as link:  # the system's authorities do not know it either
            await until(lambda: link.last_error)
            assert link.last_error == "tls"

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("begins", "ends", "host", "word"),
    [
        (-2 * DAY, -DAY, "localhost", "tls"),
        (DAY, 2 * DAY, "localhost", "tls_time"),
        (-DAY, DAY, "other.example", "tls"),
    ],
    ids=["expired", "not yet valid", "of another host"],
)
def test_a_certificate_that_does_not_hold_is_refused(
    mosquitto: StartBroker, tmp_path: Path, begins: timedelta, ends: timedelta, host: str, word: str
) -> None:
    authority = Authority(tmp_path)
    files = authority.issue("server", begins, ends, host)
    broker = mosquitto(secure(authority, files))

    async def scene() -> None:
        async with running(at(broker, ca_file=authority.file)) as link:
            await until(lambda: link.last_error)
            assert link.last_error == word
            authority.issue("server")  # the same files, renewed
            broker.kill()
            broker.start()
            await until(lambda: link.connected)

    asyncio.run(scene())


def test_the_room_shows_its_certificate_and_that_is_its_name(
    mosquitto: StartBroker, tmp_path: Path
) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "stranger")
    broker = mosquitto(
        secure(
            authority,
            authority.issue("server"),
            "require_certificate true",
            "use_identity_as_username true",
        )
    )
    certificate, key = authority.issue(ROOM)
    forged, forged_key = other.issue("forged")

    async def scene() -> None:
        shown = {"certificate_file": certificate, "key_file": key}
        async with running(at(broker, ca_file=authority.file, **shown)) as link:
            await until(lambda: link.connected)
            assert link.protocol == 5
        assert f"as {ROOM} (p5, c1, k30, u'{ROOM}')" in broker.log
        false = {"certificate_file": forged, "key_file": forged_key}
        for shown in ({}, false):
            async with running(at(broker, ca_file=authority.file, **shown)) as link:
                await until(lambda: link.last_error)
                assert link.last_error == "tls"

    asyncio.run(scene())


def test_certificate_files_that_cannot_be_read_are_a_fault_of_tls(
    mosquitto: StartBroker, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    broker = mosquitto(secure(authority, authority.issue("server")))
    missing = tmp_path / "later.pem"

    async def scene() -> None:
        async with running(at(broker, ca_file=missing)) as link:
            await until(lambda: link.last_error)
            assert link.last_error == "tls"
            missing.write_text("no certificate")
            await asyncio.sleep(0.05)
            assert link.last_error == "tls"
            missing.write_bytes(authority.file.read_bytes())
            await until(lambda: link.connected)

    asyncio.run(scene())


def test_a_key_with_a_passphrase_is_refused_and_asks_nobody(
    mosquitto: StartBroker, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    broker = mosquitto(secure(authority, authority.issue("server")))
    certificate, key_file = authority.issue(ROOM)
    key = serialization.load_pem_private_key(key_file.read_bytes(), None)
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )

    async def scene() -> None:
        shown = {"certificate_file": certificate, "key_file": locked}
        async with running(at(broker, ca_file=authority.file, **shown)) as link:
            await until(lambda: link.last_error)
            assert link.last_error == "tls"

    asyncio.run(scene())


def test_a_port_without_tls_is_not_spoken_to_in_the_clear(mosquitto: StartBroker) -> None:
    broker = mosquitto()

    async def scene() -> None:
        async with running(at(broker)) as link:
            await until(lambda: link.last_error)
            assert link.last_error in ("tls", "network")
            assert not link.connected
        assert ROOM not in broker.log

    asyncio.run(scene())


def test_old_tls_is_not_spoken() -> None:
    from agent.link.client import dial
    from agent.link.contract import Broker

    context = dial.tls_context(Broker(host="a"))
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
