"""Endpoints: look up, connect, shake hands, and say in one word what did not work."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.clock import up_s
from agent.kinds.network.aside import Aside
from agent.kinds.network.certificate import not_after
from agent.kinds.network.settings import Endpoint, Settings
from agent.model import Scalar

DNS = frozenset({"no_name", "dns_timeout", "dns_failed"})
UNREACHABLE = frozenset({"refused", "timeout", "unreachable", "reset", "closed", "tls_timeout"})
VALID = "valid"
INVALID = frozenset(
    {"expired", "not_yet_valid", "self_signed", "hostname", "untrusted", "protocol", "no_ca"}
)

_DNS_S = 3.0
_VERIFY = {  # openssl/x509_vfy.h
    9: "not_yet_valid",
    10: "expired",
    18: "self_signed",
    62: "hostname",
    64: "hostname",
}
_RECEIVE = 16_384
_WELL = 2  # good in a row before an endpoint is asked less often
_TCP_INFO = struct.Struct("=68xI")  # linux/tcp.h: tcpi_rtt, microseconds

SocketAddress = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Lookup:
    """What a name resolved to, or the word why not."""

    addresses: tuple[tuple[socket.AddressFamily, SocketAddress], ...] = ()
    why: str = ""
    took_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What an endpoint said: `why` it cannot be reached, what its certificate is worth."""

    why: str = ""
    rtt_ms: float | None = None
    tls: str = ""
    tls_days: float | None = None

    @property
    def ok(self) -> bool:
        """Reached, and with a valid certificate where one is wanted."""
        return not self.why and self.tls in ("", VALID)


class Endpoints:
    """Asks the endpoints of one device; asks well ones no oftener than they should be bothered."""

    def __init__(self, settings: Settings, aside: Aside) -> None:
        self._settings = settings
        self._aside = aside
        self._targets = settings.targets()
        wanted = [settings.dns_name, *(target.name for target in self._targets)]
        self._names = tuple(dict.fromkeys(name for name in wanted if name))
        self._trust = Trust(settings)
        self._well = 0
        self._kept: tuple[float, dict[str, Scalar]] = (0.0, {})

    async def read(self, end: float, *, fresh: bool) -> dict[str, Scalar]:
        """Values about names and endpoints, ready at `end` (time of the loop).

        Those of the reading before, with their age, while all is well and they are young; not
        where `fresh` says that something changed.
        """
        if not self._names and not self._targets:
            return {}
        asked, kept = self._kept
        age = up_s() - asked
        if not fresh and self._well >= _WELL and age < self._settings.endpoint_period_s:
            return {**kept, "endpoints_age_s": round(age, 1)}
        now = up_s()
        lookups = await self._look_up(end)
        answers = await asyncio.gather(
            *(self._ask(target, lookups, end) for target in self._targets)
        )
        bad = [lookup for lookup in lookups.values() if lookup.why]
        self._well = 0 if bad or not all(a.ok for a in answers) else self._well + 1
        self._kept = now, {**_dns_values(lookups), **_endpoint_values(answers)}
        return dict(self._kept[1])

    async def _look_up(self, end: float) -> dict[str, Lookup]:
        timeout = min(_DNS_S, (end - asyncio.get_running_loop().time()) / 2)
        found = await asyncio.gather(*(look_up(self._aside, n, timeout) for n in self._names))
        return dict(zip(self._names, found, strict=True))

    async def _ask(self, target: Endpoint, lookups: Mapping[str, Lookup], end: float) -> Answer:
        if target.name is None:
            family = socket.AF_INET6 if ":" in target.host else socket.AF_INET
            lookup = Lookup(addresses=((family, (target.host, target.port)),))
        else:
            lookup = lookups[target.name]
        if lookup.why:
            return Answer(why=lookup.why)
        return await ask(target, lookup, self._trust, end)


def _dns_values(lookups: Mapping[str, Lookup]) -> dict[str, Scalar]:
    if not lookups:
        return {}
    bad = [lookup.why for lookup in lookups.values() if lookup.why]
    values: dict[str, Scalar] = {"dns_names": len(lookups), "dns_failed": len(bad)}
    if bad:
        values["dns_why"] = bad[0]
    if good := [lookup.took_ms for lookup in lookups.values() if not lookup.why]:
        values["dns_ms"] = round(max(good), 1)
    return values


def _endpoint_values(answers: list[Answer]) -> dict[str, Scalar]:
    if not answers:
        return {}
    values: dict[str, Scalar] = {
        "endpoints": len(answers),
        "endpoints_ok": sum(answer.ok for answer in answers),
    }
    for number, answer in enumerate(answers, start=1):
        at = f"endpoint_{number}"
        values[f"{at}_ok"] = answer.ok
        if answer.why:
            values[f"{at}_why"] = answer.why
        if answer.rtt_ms is not None:
            values[f"{at}_rtt_ms"] = round(answer.rtt_ms, 2)
        if answer.tls:
            values[f"{at}_tls"] = answer.tls
        if answer.tls_days is not None:
            values[f"{at}_tls_days"] = round(answer.tls_days, 1)
    return values


async def look_up(aside: Aside, name: str, timeout: float) -> Lookup:
    """A name by way of the system's resolver, as every other program of this box sees it.

    On a thread: the resolver blocks, for up to half a minute when its servers are silent.
    """
    start = time.monotonic()
    try:
        found = await aside.run(
            f"dns-{name}",
            lambda: socket.getaddrinfo(name, None, type=socket.SOCK_STREAM),
            timeout,
        )
    except TimeoutError:
        return Lookup(why="dns_timeout")
    except socket.gaierror as error:
        unknown = error.errno in (socket.EAI_NONAME, socket.EAI_NODATA)
        return Lookup(why="no_name" if unknown else "dns_failed")
    except (OSError, UnicodeError):
        return Lookup(why="dns_failed")
    took_ms = (time.monotonic() - start) * 1000
    return Lookup(tuple((family, at) for family, *_, at in found), took_ms=took_ms)


async def ask(target: Endpoint, lookup: Lookup, trust: Trust, end: float) -> Answer:
    """The answer of an endpoint by `end` (time of the loop), from the first address that takes us.

    Each address gets its share of the time, so that one black hole does not hide the others.
    """
    loop = asyncio.get_running_loop()
    answer = Answer(why="unreachable")
    for left, (family, at) in zip(
        range(len(lookup.addresses), 0, -1), lookup.addresses, strict=True
    ):
        share = (end - loop.time()) / left
        where = (at[0], target.port, *at[2:])
        answer = await _try(target, family, where, trust, loop.time() + share)
        if not answer.why:
            break
    return answer


async def _try(
    target: Endpoint, family: socket.AddressFamily, at: SocketAddress, trust: Trust, end: float
) -> Answer:
    rtt_ms: float | None = None
    connected = False
    try:
        async with asyncio.timeout_at(end):
            with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
                await asyncio.get_running_loop().sock_connect(sock, at)
                connected = True
                rtt_ms = _rtt_ms(sock)
                if not target.tls:
                    return Answer(rtt_ms=rtt_ms)
                certificate = await handshake(sock, trust.context(), target.host)
            return Answer(rtt_ms=rtt_ms, tls=VALID, tls_days=days_left(certificate))
    except TrustError:
        return Answer(rtt_ms=rtt_ms, tls="no_ca")
    except ssl.SSLCertVerificationError as error:
        trust.forget()
        word = _VERIFY.get(error.verify_code, "untrusted")
        return Answer(rtt_ms=rtt_ms, tls=word, tls_days=await _days_anyway(target, family, at, end))
    except ssl.SSLEOFError:
        return Answer(why="closed", rtt_ms=rtt_ms)
    except ssl.SSLError:
        return Answer(rtt_ms=rtt_ms, tls="protocol")
    except TimeoutError:
        return Answer(why="tls_timeout" if connected else "timeout", rtt_ms=rtt_ms)
    except ConnectionRefusedError:
        return Answer(why="refused")
    except ConnectionError:
        return Answer(why="reset", rtt_ms=rtt_ms)
    except OSError:
        return Answer(why="unreachable")


async def _days_anyway(
    target: Endpoint, family: socket.AddressFamily, at: SocketAddress, end: float
) -> float | None:
    """The days left on a certificate that is not trusted; nothing but the handshake is sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        async with asyncio.timeout_at(end):
            with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
                await asyncio.get_running_loop().sock_connect(sock, at)
                return days_left(await handshake(sock, context, target.host))
    except OSError:  # ssl.SSLError and TimeoutError are such
        return None


def _rtt_ms(sock: socket.socket) -> float | None:
    """The kernel's own round trip of the connection: our loop's other work is not in it.

    None after a lost SYN (Karn's rule): what that took is no round trip.
    """
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        (micros,) = _TCP_INFO.unpack(info)
    except (OSError, struct.error):
        return None
    return micros / 1000 if micros else None


class TrustError(Exception):
    """The authorities cannot be loaded."""


class Trust:
    """The authorities that certificates are checked against, loaded when first needed."""

    def __init__(self, settings: Settings) -> None:
        self._file = settings.ca_file
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        """A verifying context. Raises `TrustError` for a file that is not there or no PEM."""
        if self._context is None:
            try:
                context = ssl.create_default_context(cafile=self._file)
            except OSError as error:
                raise TrustError(str(error)) from error
            # Python 3.13 began to refuse what breaks RFC 5280 in form, such as an authority
            # without key usage. What a meeting client takes is not for us to call invalid, and
            # one certificate must be worth the same on every box.
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            self._context = context
        return self._context

    def forget(self) -> None:
        """Load again next time: the file may have been renewed."""
        self._context = None


async def handshake(sock: socket.socket, context: ssl.SSLContext, host: str) -> bytes:
    """The peer's certificate (DER) after a handshake on a connected socket.

    By hand over memory, because asyncio's transport drops the certificate with the connection
    and would keep it open for its goodbyes. Raises `ssl.SSLError`, `OSError`.
    """
    loop = asyncio.get_running_loop()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=host)
    while True:
        try:
            tls.do_handshake()
            finished = True
        except ssl.SSLWantReadError:
            finished = False
        except ssl.SSLError:
            _send_last(sock, outgoing)  # the alert, so that the server's log says why
            raise
        if data := outgoing.read():
            await loop.sock_sendall(sock, data)
        if finished:
            break
        if data := await loop.sock_recv(sock, _RECEIVE):
            incoming.write(data)
        else:
            incoming.write_eof()
    certificate = tls.getpeercert(binary_form=True)
    with contextlib.suppress(ssl.SSLError):
        tls.unwrap()
    _send_last(sock, outgoing)
    return certificate or b""


def _send_last(sock: socket.socket, outgoing: ssl.MemoryBIO) -> None:
    with contextlib.suppress(OSError):
        sock.send(outgoing.read())


def days_left(certificate: bytes) -> float | None:
    """Days from now to a certificate's notAfter, negative once it is over."""
    try:
        return (not_after(certificate) - time.time()) / 86_400
    except ValueError:
        return None
