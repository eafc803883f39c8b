"""Link and address changes as the kernel announces them: nothing is polled."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncGenerator
from pathlib import Path

from agent.kinds.network import netlink
from agent.kinds.network.settings import AUTO, Settings

_GROUPS = 0x1 | 0x10 | 0x100  # RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
_QUIET_S = 0.2
"""A cable that is pulled is some ten messages within milliseconds: one reading answers them all."""
_IFF = 0x1 | 0x40 | 0x10000 | 0x20000  # UP, RUNNING, LOWER_UP, DORMANT
_RECEIVE = 65_536


class News:
    """Tells a change from a repetition: access points and routers announce the same all day."""

    def __init__(self, interface: str | None = None) -> None:
        self._interface = interface
        self._links: dict[int, tuple[str, int, bytes]] = {}
        self._addresses: dict[tuple[int, str], bool] = {}

    def of(self, data: bytes) -> bool:
        """Whether a datagram says something new about the interface that is watched."""
        # All of them are looked at: each updates what is known.
        told = [self._one(kind, body) for kind, body in netlink.messages(data)]
        return any(told)

    def forget(self) -> None:
        """Everything is news again: messages were lost."""
        self._links.clear()
        self._addresses.clear()

    def _one(self, kind: int, body: bytes) -> bool:
        if kind in (netlink.NEWLINK, netlink.DELLINK):
            return self._link(body, gone=kind == netlink.DELLINK)
        if kind in (netlink.NEWADDR, netlink.DELADDR):
            return self._address(body, gone=kind == netlink.DELADDR)
        return False

    def _link(self, body: bytes, *, gone: bool) -> bool:
        if len(body) < netlink.IFINFO.size:
            return False
        family, _, index, flags, _ = netlink.IFINFO.unpack_from(body)
        if family != socket.AF_UNSPEC:  # a bridge speaking of its port
            return False
        parts = netlink.attributes(body, netlink.IFINFO.size)
        name = parts.get(netlink.IFLA_IFNAME, b"").rstrip(b"\0").decode("ascii", "replace")
        before = self._links.pop(index, None)
        now = (name, flags & _IFF, parts.get(netlink.IFLA_OPERSTATE, b""))
        if not gone:
            self._links[index] = now
        return (gone or before != now) and self._is_watched(name)

    def _address(self, body: bytes, *, gone: bool) -> bool:
        one = netlink.address(body)
        if one is None:
            return False
        key = (one.index, str(one.address))
        before = self._addresses.pop(key, None)
        if not gone:
            self._addresses[key] = one.usable
        return (gone or before != one.usable) and self._is_watched(self._name(one.index))

    def _is_watched(self, name: str) -> bool:
        return self._interface is None or name == self._interface

    def _name(self, index: int) -> str:
        if index in self._links:
            return self._links[index][0]
        try:
            return socket.if_indextoname(index)
        except OSError:
            return ""


async def changes(settings: Settings, root: Path = Path("/")) -> AsyncGenerator[None]:
    """Yields when a link or an address changed, at most once in 0.2 s.

    A recorded tree does not change: with another `root` than the machine's own it ends at once,
    as it does where the kernel refuses the socket.
    """
    if root != Path("/"):
        return
    try:
        sock = netlink.open_socket(_GROUPS)
    except OSError:
        return
    news = News(None if settings.interface in (None, AUTO) else settings.interface)
    loop = asyncio.get_running_loop()
    with sock:
        while True:
            try:
                is_new = news.of(await loop.sock_recv(sock, _RECEIVE))
                if is_new:
                    await asyncio.sleep(_QUIET_S)
                    _drain(sock, news)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    return
                news.forget()
                is_new = True
            if is_new:
                yield


def _drain(sock: socket.socket, news: News) -> None:
    """Takes in what came meanwhile: it is part of the change that is about to be told."""
    while True:
        try:
            news.of(sock.recv(_RECEIVE))
        except BlockingIOError:
            return
