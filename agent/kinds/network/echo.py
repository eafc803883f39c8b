"""Echoes to a station on the link: ICMP where it is allowed, else TCP to a port that is closed."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
import struct
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from agent.clock import up_s
from agent.kinds.network.settings import REPLY_S

PORT = 9
"""`discard`, which nobody offers: a station that lives refuses it at once (RFC 9293 3.10.7.1)."""

_REQUEST = {socket.AF_INET: 8, socket.AF_INET6: 128}
_REPLY = {socket.AF_INET: 0, socket.AF_INET6: 129}
_PROTOCOL = {socket.AF_INET: socket.IPPROTO_ICMP, socket.AF_INET6: socket.IPPROTO_ICMPV6}
_ECHO = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence
_TOKEN = 16
_SOL_RAW, _ICMP_FILTER = 255, 1  # linux/icmp.h; a set bit keeps a type out
_SO_TIMESTAMPNS = 35  # asm-generic/socket.h
_TIMESPEC = struct.Struct("@ll")
_MAX_REPLY = 512  # bytes
_MAX_REPLIES = 64  # at once: a flood must not hold the loop
_STEP_S = 0.005
"""The clocks may part by this much in one train: NTP slews 0.5 ms a second, more is a step."""


@dataclass(frozen=True, slots=True)
class Station:
    """An address on the link of interface `index`."""

    family: socket.AddressFamily
    address: str
    index: int = 0

    def at(self, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
        """The socket address; only a link-local one needs to know its interface."""
        if self.family is socket.AF_INET:
            return self.address, port
        local = ipaddress.IPv6Address(self.address).is_link_local
        return self.address, port, 0, self.index if local else 0


@dataclass(frozen=True, slots=True)
class Train:
    """What came of some echoes: how many went out, how many came back, round trips in ms.

    Not every answer has a round trip: that of the first is spoilt by ARP and sleeping radios.
    """

    sent: int = 0
    answered: int = 0
    rtts_ms: tuple[float, ...] = ()

    @property
    def rtt_ms(self) -> float | None:
        """The median round trip."""
        ordered = sorted(self.rtts_ms)
        return ordered[len(ordered) // 2] if ordered else None


async def icmp(to: Station, count: int, spacing_s: float) -> Train | None:
    """`count` echo requests, one each `spacing_s`; None where this process may not send any.

    Wakes once per request and once for the last answer: the kernel stamps what arrives, so
    answers may lie until the next request goes out.
    """
    opened = _open(to)
    if opened is None:
        return None
    sock, raw = opened
    token = os.urandom(_TOKEN)
    arrived: dict[int, float] = {}
    left: list[float] = []
    apart_s = time.time() - up_s()
    with sock:
        for number in range(count):
            if number:
                await asyncio.sleep(spacing_s)
                arrived |= _collect(sock, to.family, raw, token)
            left.append(time.time())
            try:
                sock.send(request(to.family, number, token))
            except PermissionError:
                return None  # a packet filter of our own box
            except OSError:
                continue  # no way there: as good as lost
        until = time.monotonic() + REPLY_S
        while len(arrived) < count and (rest := until - time.monotonic()) > 0:
            if not await _readable(sock, rest):
                break
            arrived |= _collect(sock, to.family, raw, token)
    stepped = abs(time.time() - up_s() - apart_s) > _STEP_S
    answered = sorted(number for number in arrived if number < count)
    timed = [] if stepped else [n for n in answered if n or count == 1]
    rtts = ((arrived[n] - left[n]) * 1000 for n in timed)
    return Train(count, len(answered), tuple(rtt for rtt in rtts if rtt >= 0))


async def tcp(to: Station, count: int, spacing_s: float) -> Train:
    """Up to `count` connections to a closed port: refused is an answer, silence ends the train."""
    rtts: list[float] = []
    start = time.monotonic()
    for number in range(count):
        await asyncio.sleep(max(0.0, start + number * spacing_s - time.monotonic()))
        rtt = await _knock(to)
        if rtt is None:
            return Train(number + 1, number, tuple(rtts))
        if number or count == 1:
            rtts.append(rtt)
    return Train(count, count, tuple(rtts))


async def _knock(to: Station) -> float | None:
    loop = asyncio.get_running_loop()
    try:
        sock = socket.socket(to.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    except OSError:
        return None
    with sock:
        start = loop.time()
        try:
            async with asyncio.timeout(REPLY_S):
                await loop.sock_connect(sock, to.at(PORT))
        except ConnectionRefusedError:
            pass  # it lives
        except OSError:  # TimeoutError is one
            return None
        return (loop.time() - start) * 1000


def _open(to: Station) -> tuple[socket.socket, bool] | None:
    """A connected ICMP socket and whether it is a raw one; None where neither is allowed."""
    flags = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):
        try:
            sock = socket.socket(to.family, kind | flags, _PROTOCOL[to.family])
        except OSError:
            continue
        raw = kind is socket.SOCK_RAW
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        if raw and to.family is socket.AF_INET:
            keep_out = struct.pack("=I", 0xFFFF_FFFF & ~(1 << _REPLY[to.family]))
            with contextlib.suppress(OSError):
                sock.setsockopt(_SOL_RAW, _ICMP_FILTER, keep_out)
        # Where there is no way, what is sent will be lost, and that is the finding.
        with contextlib.suppress(OSError):
            sock.connect(to.at(0))
        return sock, raw
    return None


async def _readable(sock: socket.socket, timeout: float) -> bool:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(sock, wake)
    try:
        async with asyncio.timeout(timeout):
            await ready
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(sock)
    return True


def _collect(
    sock: socket.socket, family: socket.AddressFamily, raw: bool, token: bytes
) -> dict[int, float]:
    """sequence number -> Unix seconds at which the kernel took the answer in."""
    found: dict[int, float] = {}
    for _ in range(_MAX_REPLIES):
        try:
            data, ancillary, _, _ = sock.recvmsg(_MAX_REPLY, socket.CMSG_SPACE(_TIMESPEC.size))
        except BlockingIOError:
            break
        except OSError:
            continue  # an ICMP error about one of ours: that one is lost
        number = reply_number(data, family, raw=raw, token=token)
        if number is not None:
            found.setdefault(number, _stamp(ancillary))
    return found


def _stamp(ancillary: Sequence[tuple[int, int, bytes]]) -> float:
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS) and len(data) == _TIMESPEC.size:
            seconds, nanoseconds = _TIMESPEC.unpack(data)
            return float(seconds) + float(nanoseconds) / 1e9
    return time.time()


def request(family: socket.AddressFamily, number: int, token: bytes) -> bytes:
    """An echo request (RFC 792, RFC 4443); a datagram socket rewrites identifier and checksum."""
    identifier = int.from_bytes(token[:2])
    head = _ECHO.pack(_REQUEST[family], 0, 0, identifier, number) + token
    if family is socket.AF_INET6:
        return head  # the kernel knows both addresses, which belong to that checksum
    return _ECHO.pack(_REQUEST[family], 0, checksum(head), identifier, number) + token


def reply_number(
    data: bytes, family: socket.AddressFamily, *, raw: bool, token: bytes
) -> int | None:
    """The sequence number of our own echo reply, None for anything else."""
    if raw and family is socket.AF_INET:  # IPv4 hands raw sockets the IP header as well
        data = data[(data[0] & 0x0F) * 4 :] if data else data
    if len(data) < _ECHO.size:
        return None
    kind, code, _, _, number = _ECHO.unpack_from(data)
    if kind != _REPLY[family] or code or data[_ECHO.size :] != token:
        return None
    return int(number)


def checksum(data: bytes) -> int:
    """The Internet checksum of RFC 1071."""
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return int(~total & 0xFFFF)


class Jitter:
    """Interarrival jitter as RFC 3550 6.4.1 estimates it, of round trips: J += (|D| - J) / 16.

    RFC 3550 starts from J = 0, which reads low for the first minutes; the share that is still
    missing, (15/16)^n, is divided out.
    """

    def __init__(self) -> None:
        self._sum = 0.0
        self._missing = 1.0

    def add(self, rtts_ms: Sequence[float]) -> None:
        """The round trips of one train. Between trains half a minute passes: no difference."""
        for before, after in pairwise(rtts_ms):
            self._sum += (abs(after - before) - self._sum) / 16
            self._missing *= 15 / 16

    @property
    def ms(self) -> float | None:
        """The estimate, None before there were two round trips."""
        return self._sum / (1 - self._missing) if self._missing < 1 else None


class Loss:
    """Loss over the last `window_s` seconds: one train is far too short to tell 1 %."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._trains: deque[tuple[float, int, int]] = deque()

    def add(self, now_s: float, train: Train) -> None:
        """A train that ended at `now_s` (boot time)."""
        self._trains.append((now_s, train.sent, train.sent - train.answered))
        while self._trains[0][0] < now_s - self._window_s:
            self._trains.popleft()

    @property
    def sent(self) -> int:
        """Echoes in the window."""
        return sum(sent for _, sent, _ in self._trains)

    @property
    def lost(self) -> int:
        """Those of them that no answer came to."""
        return sum(lost for _, _, lost in self._trains)
