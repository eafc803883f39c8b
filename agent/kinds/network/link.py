"""The interface as the kernel describes it: /sys/class/net, /proc/net/route, /proc/net/wireless."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.kinds.network.aside import Aside
from agent.kinds.network.settings import AUTO
from agent.model import Scalar

COUNTERS = ("rx_errors", "tx_errors", "rx_dropped", "tx_dropped", "rx_crc_errors")
OPERSTATES = frozenset(  # RFC 2863, as the kernel spells it
    {"unknown", "notpresent", "down", "lowerlayerdown", "testing", "dormant", "up"}
)
DUPLEX = frozenset({"full", "half"})
_CARRIES = ("up", "unknown")  # `unknown`: drivers that do not tell, their carrier decides
_SPEED_S = 1.0
_PAGE = 65_536

_IFF_UP = 0x1
_ARPHRD_ETHER = 1
_RTF_UP, _RTF_GATEWAY, _RTF_REJECT = 0x1, 0x2, 0x200  # linux/route.h


@dataclass(frozen=True, slots=True)
class Route:
    """A default route. `gateway` is None where the far end needs no address (a modem)."""

    interface: str
    family: socket.AddressFamily
    gateway: str | None
    metric: int


@dataclass(frozen=True, slots=True)
class Link:
    """The interface that is judged: None where there is none to judge."""

    name: str | None = None
    index: int | None = None
    up: bool = False


def default_routes(root: Path) -> list[Route]:
    """The default routes of the main table, the one that is used first."""
    routes = _routes4(_text(f"{root}/proc/net/route"))
    routes += _routes6(_text(f"{root}/proc/net/ipv6_route"))
    return sorted(routes, key=lambda r: (r.metric, r.family is not socket.AF_INET))


def _routes4(text: str) -> list[Route]:
    """Iface Destination Gateway Flags RefCnt Use Metric Mask ..., numbers as the CPU holds them."""
    found = []
    for line in text.splitlines()[1:]:
        try:
            name, target, gateway, flags, _, _, metric, mask = line.split()[:8]
            bits = int(flags, 16)
            if int(target, 16) or int(mask, 16) or not _is_used(bits):
                continue
            address = socket.inet_ntoa(struct.pack("=I", int(gateway, 16)))
            found.append(
                Route(
                    name,
                    socket.AF_INET,
                    address if bits & _RTF_GATEWAY else None,
                    int(metric),
                )
            )
        except (ValueError, struct.error):
            continue
    return found


def _routes6(text: str) -> list[Route]:
    """Target plen source plen next-hop metric refcount use flags name, all in hexadecimal."""
    found = []
    for line in text.splitlines():
        try:
            target, length, _, _, hop, metric, _, _, flags, name = line.split()
            bits = int(flags, 16)
            if int(target, 16) or int(length, 16) or not _is_used(bits):
                continue
            address = socket.inet_ntop(socket.AF_INET6, bytes.fromhex(hop))
            found.append(
                Route(
                    name,
                    socket.AF_INET6,
                    address if bits & _RTF_GATEWAY else None,
                    int(metric, 16),
                )
            )
        except ValueError:
            continue
    return found


def _is_used(flags: int) -> bool:
    return bool(flags & _RTF_UP) and not flags & _RTF_REJECT


def wireless_dbm(text: str, name: str) -> float | None:
    """The signal level of /proc/net/wireless in dBm; None where the driver has its own scale."""
    for line in text.splitlines():
        head, _, rest = line.partition(":")
        fields = rest.split()
        if head.strip() == name and len(fields) >= 3:
            try:
                level = float(fields[2].rstrip("."))
            except ValueError:
                return None
            return level if -120 <= level < 0 else None
    return None


class Watcher:
    """Reads one interface again and again; remembers the counters and what cannot change."""

    def __init__(self, root: Path, wanted: str, aside: Aside) -> None:
        self._net = f"{root}/sys/class/net"
        self._wireless = f"{root}/proc/net/wireless"
        self._wanted = wanted
        self._aside = aside
        self._last: str | None = None
        self._counted: tuple[Link, Mapping[str, int]] | None = None
        self._negotiated: tuple[tuple[object, ...], dict[str, Scalar]] | None = None

    async def read(self, routes: Sequence[Route]) -> tuple[Link, dict[str, Scalar]]:
        """The interface and its values. No values at all where the kernel does not show any."""
        try:
            names = sorted(path.name for path in Path(self._net).iterdir())
        except OSError:
            return Link(), {}
        name = self._pick(names, routes) if self._wanted == AUTO else self._wanted
        if name not in names:
            return Link(name), {"interface_present": False, "link_up": False}
        self._last = name
        return await self._describe(name)

    def _pick(self, names: Sequence[str], routes: Sequence[Route]) -> str | None:
        """The interface of the default route, else the last one, else the likeliest."""
        for name in (*(route.interface for route in routes), self._last):
            if name in names:
                return name
        return min(filter(self._could_be, names), key=self._unlikely, default=None)

    def _could_be(self, name: str) -> bool:
        folder = f"{self._net}/{name}"
        return _int(f"{folder}/type") == _ARPHRD_ETHER and not Path(folder, "bridge").exists()

    def _unlikely(self, name: str) -> tuple[bool, bool, bool, str]:
        folder = f"{self._net}/{name}"
        virtual = not Path(folder, "device").exists()
        return virtual, _int(f"{folder}/carrier") != 1, _is_wifi(folder), name

    async def _describe(self, name: str) -> tuple[Link, dict[str, Scalar]]:
        folder = f"{self._net}/{name}"
        values: dict[str, Scalar] = {"interface_present": True}
        enabled = bool((_int(f"{folder}/flags", 16) or 0) & _IFF_UP)
        carrier = _int(f"{folder}/carrier")  # EINVAL while the interface is switched off
        state = _text(f"{folder}/operstate").strip()
        up = enabled and carrier == 1 and state in _CARRIES
        link = Link(name, _int(f"{folder}/ifindex"), up)
        values |= {"link_up": up, "carrier": carrier == 1, "wifi": _is_wifi(folder)}
        if state in OPERSTATES:
            values["operstate"] = state
        if up:
            changes = _int(f"{folder}/carrier_changes")
            values |= await self._negotiation(folder, (link.name, link.index, changes))
        if values["wifi"]:
            dbm = wireless_dbm(_text(self._wireless), name)
            values |= {} if dbm is None else {"wifi_dbm": dbm}
        return link, values | self._counters(folder, link)

    async def _negotiation(self, folder: str, of: tuple[object, ...]) -> dict[str, Scalar]:
        """Speed and duplex, asked once per carrier: they cannot change while it stands.

        The question goes to the driver, a USB adapter's may hang in it; hence aside.
        """
        if self._negotiated is None or self._negotiated[0] != of:
            try:
                found = await self._aside.run("speed", lambda: _speed(folder), _SPEED_S)
            except TimeoutError:
                return {}
            self._negotiated = (of, found)
        return self._negotiated[1]

    def _counters(self, folder: str, link: Link) -> dict[str, Scalar]:
        """What was added to the error counters since the reading before."""
        paths = {key: f"{folder}/statistics/{key}" for key in COUNTERS}
        paths["carrier_changes"] = f"{folder}/carrier_changes"
        now = {key: n for key, path in paths.items() if (n := _int(path)) is not None}
        before, self._counted = self._counted, (link, now)
        if before is None or (before[0].name, before[0].index) != (link.name, link.index):
            return {}
        # A counter that fell was started anew by its driver: how much it missed is not known.
        return {key: n - before[1][key] for key, n in now.items() if n >= before[1].get(key, n + 1)}


def _speed(folder: str) -> dict[str, Scalar]:
    values: dict[str, Scalar] = {}
    if (speed := _int(f"{folder}/speed")) is not None and speed > 0:
        values["speed_mbps"] = speed
    if (duplex := _text(f"{folder}/duplex").strip()) in DUPLEX:
        values["duplex"] = duplex
    return values


def _is_wifi(folder: str) -> bool:
    return Path(folder, "phy80211").exists() or Path(folder, "wireless").exists()


def _text(path: str) -> str:
    """A file of the kernel, empty where it cannot be read.

    By bare system calls: through pathlib and a text stream a reading costs three times as much.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return b"".join(iter(lambda: os.read(fd, _PAGE), b"")).decode("ascii", "replace")
    except OSError:
        return ""
    finally:
        os.close(fd)


def _int(path: str, base: int = 10) -> int | None:
    try:
        return int(_text(path), base)
    except ValueError:
        return None
