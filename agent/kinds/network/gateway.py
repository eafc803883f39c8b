"""The gateway: does it answer, how fast, how evenly, and by what means we know."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from agent.clock import up_s
from agent.kinds.network import echo, netlink
from agent.kinds.network.link import Link, Route
from agent.kinds.network.settings import Settings
from agent.model import Scalar

ICMP = frozenset({"ok", "silent", "forbidden"})
"""`forbidden`: this process may not send echoes (ping_group_range, sandbox, packet filter)."""
MEANS = frozenset({"icmp", "tcp", "neighbour"})
_GRACE_S = 10.0
_CALM = 3
"""Echoes a reading while all is well: each costs a wake-up, and doubt comes with the first loss."""


class Gateway:
    """Asks one gateway again and again; remembers how it used to answer."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._start(None)

    def _start(self, station: echo.Station | None) -> None:
        self._station = station
        self._answered = False
        self._jitter = echo.Jitter()
        self._loss = echo.Loss(self._settings.loss_window_s)

    async def read(self, routes: Sequence[Route], link: Link) -> dict[str, Scalar]:
        """Values about the gateway of `link`; `gateway_reachable` is absent if nobody can say."""
        route = _route(routes, link)
        if route is None or route.gateway is None or link.index is None:
            return {"default_route": route is not None}
        station = echo.Station(route.family, route.gateway, link.index)
        if station != self._station:
            self._start(station)
        return {"default_route": True, **await self._ask(station)}

    async def _ask(self, station: echo.Station) -> dict[str, Scalar]:
        count, spacing_s = self._count(), self._settings.echo_spacing_s
        train = await echo.icmp(station, count, spacing_s)
        if train is not None and train.answered:
            self._loss.add(up_s(), train)
            lost, sent = self._loss.lost, self._loss.sent
            loss: dict[str, Scalar] = {
                "loss_pct": round(100 * lost / sent, 1),
                "echoes": sent,
                "echoes_lost": lost,
            }
            return {"icmp": "ok", **self._alive("icmp", train), **loss}
        # Nothing came back, which is no loss: it may be a missing right, a gateway that never
        # answers echoes, or an outage, and each has another name.
        values: dict[str, Scalar] = {"icmp": "forbidden" if train is None else "silent"}
        train = await echo.tcp(station, count if train is None else 1, spacing_s)
        if train.answered:
            return values | self._alive("tcp", train)
        return values | self._silent(station)

    def _count(self) -> int:
        """All the echoes while the line is in doubt or new, a few while it is well."""
        calm = self._loss.sent and not self._loss.lost
        steady = self._jitter.ms is not None and self._jitter.ms < self._settings.jitter_warn_ms
        return min(self._settings.echoes, _CALM) if calm and steady else self._settings.echoes

    def _alive(self, means: str, train: echo.Train) -> dict[str, Scalar]:
        self._answered = True
        self._jitter.add(train.rtts_ms)
        values: dict[str, Scalar] = {"gateway_reachable": True, "gateway_by": means}
        if train.rtt_ms is not None:
            values["gateway_rtt_ms"] = round(train.rtt_ms, 2)
        if self._jitter.ms is not None:
            values["jitter_ms"] = round(self._jitter.ms, 2)
        return values

    def _silent(self, station: echo.Station) -> dict[str, Scalar]:
        """A gateway that answered neither ICMP nor TCP: the neighbour table has the last word.

        Some gateways never answer anything but ARP. One that used to answer and stopped is not
        such a one, whatever ARP says: its table may be half a minute old.
        """
        try:
            known = netlink.find_neighbour(station.family, station.index, station.address)
        except OSError:
            known = None
        alive = known.alive(self._settings.period_s + _GRACE_S) if known else None
        if alive is False or self._answered:
            return {"gateway_reachable": False}
        return {"gateway_reachable": True, "gateway_by": "neighbour"} if alive else {}


def _route(routes: Sequence[Route], link: Link) -> Route | None:
    """The default route through an interface, by IPv4 where there are both."""
    own = [route for route in routes if route.interface == link.name]
    return min(own, key=lambda r: r.family is not socket.AF_INET, default=None)
