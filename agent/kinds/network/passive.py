"""One reading of the line, put together from its parts; each part has its own end in time."""

from __future__ import annotations

import asyncio
from pathlib import Path

from agent.clock import up_s
from agent.kinds.network import netlink
from agent.kinds.network.aside import Aside
from agent.kinds.network.endpoints import Endpoints
from agent.kinds.network.gateway import Gateway
from agent.kinds.network.link import Link, Route, Watcher, default_routes
from agent.kinds.network.settings import MARGIN_S, Settings
from agent.model import Reading, Scalar


class Passive:
    """Reads link, addresses, gateway, DNS and endpoints, in the agent's loop.

    With another `root` than the machine's own, the link is that of the recorded tree; what would
    need the live kernel or a packet to a recorded address is then not measured. Endpoints are
    asked in any case.
    """

    def __init__(self, settings: Settings, root: Path = Path("/")) -> None:
        aside = Aside()
        self._settings = settings
        self._root = root
        self._live = root == Path("/")
        self._watcher = Watcher(root, settings.interface, aside) if settings.interface else None
        self._gateway = Gateway(settings)
        self._endpoints = Endpoints(settings, aside)
        self._last: Link | None = None
        self._doubt = False

    async def read(self) -> Reading:
        """A reading within the deadline; never a fault: what is broken is in the values."""
        asked_s = up_s()
        end = asyncio.get_running_loop().time() + self._settings.deadline_s - MARGIN_S
        values: dict[str, Scalar] = {}
        link, routes, moved, stranded = Link(), list[Route](), self._doubt, False
        if self._watcher is not None:
            routes = default_routes(self._root)
            link, found = await self._watcher.read(routes)
            values |= found | self._addresses(link)
            moved |= link != self._last or bool(values.get("carrier_changes"))
            self._last = link
            # With the only way out cut, every packet would wait in vain for the same reason.
            stranded = "link_up" in values and not link.up
            stranded &= all(route.interface == link.name for route in routes)
        parts = []
        if link.up and self._settings.gateway and self._live:
            parts.append(self._gateway.read(routes, link))
        if not stranded:
            parts.append(self._endpoints.read(end, fresh=moved))
        for part in await asyncio.gather(*parts):
            values |= part
        self._doubt = values.get("gateway_reachable") is False
        return Reading(values | _headline(values), asked_s=asked_s, took_s=up_s() - asked_s)

    def _addresses(self, link: Link) -> dict[str, Scalar]:
        if not (link.up and link.index is not None and self._live):
            return {}
        try:
            found = netlink.addresses(link.index)
        except OSError:
            return {}
        return {"ipv4": found[4], "ipv6": found[6]}


def _headline(values: dict[str, Scalar]) -> dict[str, Scalar]:
    """The round trip that counts: to the slowest endpoint, else to the gateway."""
    keys = (f"endpoint_{n}_rtt_ms" for n in range(1, int(values.get("endpoints", 0)) + 1))
    far = [float(values[key]) for key in keys if key in values]
    if far:
        return {"rtt_ms": max(far), "rtt_to": "endpoint", "rtt_by": "tcp"}
    if "gateway_rtt_ms" in values:
        near = values["gateway_rtt_ms"]
        return {"rtt_ms": near, "rtt_to": "gateway", "rtt_by": values["gateway_by"]}
    return {}
