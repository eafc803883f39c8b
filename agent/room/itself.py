"""What the agent finds out about itself: broker, store, certificate, confinement of its workers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from agent.judge import own
from agent.kinds.network import certificate
from agent.lanes.lane import Lane
from agent.link.client import Link
from agent.model import Finding, Moment
from agent.settings import Room
from agent.store import Store

if TYPE_CHECKING:
    from agent.room.hands import Hands

CERTIFICATE_S = 3_600.0
"""How often the certificate's file is read: it may be replaced while we run."""


class Itself:
    """Gathers the agent's own facts; remembers since when its findings stand."""

    def __init__(self, room: Room) -> None:
        self._file = room.broker.certificate_file if room.broker else None
        self._config_wrong = bool(room.trouble)
        self._since: dict[str, Moment] = {}
        self._read_s = float("-inf")
        self._days: float | None = None

    def findings(
        self,
        now: Moment,
        link: Link | None,
        store: Store,
        lanes: Iterable[Lane],
        hands: Hands | None,
    ) -> list[Finding]:
        """The agent's own findings, dated."""
        hellos = [lane.hello for lane in lanes if lane.hello]
        missing = [own.REQUIRED_LAYERS.difference(hello.confined) for hello in hellos]
        facts = own.OwnFacts(
            broker_lost_s=now.up_s - link.since_s if link and not link.connected else None,
            broker_error=link.last_error if link else "",
            store_waiting_s=store.pending_age_s(now.up_s),
            store_failing=bool(store.failing or (hands and hands.state_errno)),
            certificate_days=self._certificate_days(now),
            missing_layers=frozenset().union(*missing),
            hands_lost_s=now.up_s - hands.lost_s if hands and hands.lost_s is not None else None,
            config_wrong=self._config_wrong,
        )
        found = own.judge(facts)
        self._since = {f.code: self._since.get(f.code, now) for f in found}
        return [replace(f, since=self._since[f.code]) for f in found]

    def _certificate_days(self, now: Moment) -> float | None:
        if self._file is not None and now.up_s >= self._read_s + CERTIFICATE_S:
            self._read_s = now.up_s
            self._days = certificate.days_left(self._file, now.utc_s)
        return self._days
