"""The few questions of rtnetlink(7) that are needed, on a bare socket.

The libraries for it cost 14 MiB and a quarter of a second of import; this is a page of struct.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

NEWLINK, DELLINK = 16, 17
NEWADDR, DELADDR, GETADDR = 20, 21, 22
NEWNEIGH, GETNEIGH = 28, 30
IFINFO, IFADDR, NEIGH = (
    struct.Struct("=BxHiII"),
    struct.Struct("=BBBBI"),
    struct.Struct("=BxxxiHBB"),
)
IFLA_IFNAME, IFLA_OPERSTATE = 3, 16
IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS = 1, 2, 8
IFA_F_DADFAILED, IFA_F_TENTATIVE = 0x08, 0x40

ADDRESSES = frozenset({"none", "link_local", "present"})
"""`link_local` alone means that nobody gave the interface an address."""

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_ERROR, _DONE = 2, 3
_REQUEST_DUMP = 0x001 | 0x300
_NDA_DST, _NDA_CACHEINFO = 1, 3
_NUD_INCOMPLETE, _NUD_REACHABLE, _NUD_STALE = 0x01, 0x02, 0x04
_NUD_DELAY, _NUD_PROBE, _NUD_FAILED = 0x08, 0x10, 0x20
_TICKS = 100  # USER_HZ, in which the kernel tells the age of a neighbour
_RECEIVE = 65_536
_MAX_RECEIVES = 1_000


def open_socket(groups: int = 0) -> socket.socket:
    """A non-blocking rtnetlink socket, member of multicast `groups`. Raises `OSError`."""
    kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    sock = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
    try:
        sock.bind((0, groups))
    except OSError:
        sock.close()
        raise
    return sock


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, body) of the messages in a datagram; ends at one that is cut short."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size or at + length > len(data):
            return
        yield kind, data[at + _HEADER.size : at + length]
        at += _aligned(length)


def attributes(body: bytes, start: int) -> dict[int, bytes]:
    """type -> value of the attributes that follow a body's fixed part of `start` bytes."""
    found: dict[int, bytes] = {}
    at = _aligned(start)
    while at + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, at)
        if length < _ATTRIBUTE.size or at + length > len(body):
            break
        found[kind & 0x3FFF] = body[at + _ATTRIBUTE.size : at + length]  # less the two flag bits
        at += _aligned(length)
    return found


def dump(request: int, body: bytes) -> list[tuple[int, bytes]]:
    """All answers to a dump request. Raises `OSError`.

    Does not wait: the kernel makes the answers while they are received.
    """
    header = _HEADER.pack(_HEADER.size + len(body), request, _REQUEST_DUMP, 1, 0)
    found: list[tuple[int, bytes]] = []
    with open_socket() as sock:
        sock.send(header + body)
        for _ in range(_MAX_RECEIVES):
            for kind, answer in messages(sock.recv(_RECEIVE)):
                if kind == _DONE:
                    return found
                if kind == _ERROR:
                    code = struct.unpack_from("=i", answer)[0] if len(answer) >= 4 else 0
                    raise OSError(-code, "rtnetlink refused the dump")
                found.append((kind, answer))
    raise OSError("an rtnetlink dump without end")


@dataclass(frozen=True, slots=True)
class Address:
    """One address of an interface; `usable` once duplicate detection has let it pass."""

    index: int
    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    usable: bool


def address(body: bytes) -> Address | None:
    """The address in an RTM_NEWADDR or RTM_DELADDR, None where there is none to be read."""
    if len(body) < IFADDR.size:
        return None
    _, _, flags, _, index = IFADDR.unpack_from(body)
    parts = attributes(body, IFADDR.size)
    raw = parts.get(IFA_LOCAL, parts.get(IFA_ADDRESS, b""))
    if len(parts.get(IFA_FLAGS, b"")) == 4:
        flags = struct.unpack("=I", parts[IFA_FLAGS])[0]
    try:
        which = ipaddress.ip_address(raw)
    except ValueError:
        return None
    return Address(index, which, not flags & (IFA_F_DADFAILED | IFA_F_TENTATIVE))


def addresses(index: int) -> dict[int, str]:
    """IP version (4, 6) -> one of `ADDRESSES`, for the interface `index`. Raises `OSError`."""
    found = {4: "none", 6: "none"}
    for kind, body in dump(GETADDR, IFADDR.pack(socket.AF_UNSPEC, 0, 0, 0, 0)):
        one = address(body) if kind == NEWADDR else None
        if one is None or one.index != index or not one.usable:
            continue
        version = one.address.version
        if not one.address.is_link_local:
            found[version] = "present"
        elif found[version] == "none":
            found[version] = "link_local"
    return found


@dataclass(frozen=True, slots=True)
class Neighbour:
    """What the kernel knows of a station on the link, and how old its last word is."""

    state: int
    confirmed_s: float | None = None

    def alive(self, within_s: float) -> bool | None:
        """Whether it answers ARP or neighbour discovery; None where that is not known."""
        if self.state & (_NUD_FAILED | _NUD_INCOMPLETE):
            return False
        if self.state & _NUD_REACHABLE:
            return True
        if self.state & (_NUD_STALE | _NUD_DELAY | _NUD_PROBE) and self.confirmed_s is not None:
            return True if self.confirmed_s <= within_s else None
        return None


def neighbour(body: bytes) -> tuple[int, bytes, Neighbour] | None:
    """(interface, address, what is known) of an RTM_NEWNEIGH, None where it cannot be read."""
    if len(body) < NEIGH.size:
        return None
    _, index, state, _, _ = NEIGH.unpack_from(body)
    parts = attributes(body, NEIGH.size)
    cache = parts.get(_NDA_CACHEINFO, b"")
    confirmed = struct.unpack_from("=I", cache)[0] / _TICKS if len(cache) >= 4 else None
    return index, parts.get(_NDA_DST, b""), Neighbour(state, confirmed)


def find_neighbour(family: socket.AddressFamily, index: int, which: str) -> Neighbour | None:
    """What the kernel knows of an address on an interface. Raises `OSError`."""
    wanted = socket.inet_pton(family, which)
    for kind, body in dump(GETNEIGH, NEIGH.pack(family, 0, 0, 0, 0)):
        if kind == NEWNEIGH and (one := neighbour(body)) and one[:2] == (index, wanted):
            return one[2]
    return None


def _aligned(length: int) -> int:
    return (length + 3) & ~3
