"""How fast to try again, and how fast to speak. Pure: time and chance are handed in."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """Every duration of the link, in seconds, and how fast events go out."""

    dial_s: float = 20.0
    """For name, TCP and TLS together."""
    answer_s: float = 20.0
    """For CONNACK and SUBACK: a cluster that had just lost a node needed up to 14 s."""
    heartbeat_s: int = 60
    retry_base_s: float = 5.0
    retry_cap_s: float = 60.0
    stable_s: float = 30.0
    """A connection that lasted shorter does not reset the back-off."""
    acknowledge_s: float = 60.0
    """A broker that answers pings and acknowledges nothing is as good as gone."""
    refused_base_s: float = 5.0
    refused_cap_s: float = 600.0
    """Back-off of a refused subscription or event: an access list is mended by people."""
    store_retry_s: float = 5.0
    gate_s: float = 5.0
    """How often to ask again whether the agent is alive on evidence, while it is not."""
    events_per_s: float = 20.0
    events_at_once: int = 20


class Backoff:
    """Exponential back-off with full jitter: the n-th pause is somewhere between 0 and
    `base_s` * 2^n, at most `cap_s`. A fleet that lost its broker at one instant thereby comes
    back over the whole span (5,000 rooms, fixed 1 s: a bystander waits 68 ms; jittered: 2 ms)."""

    def __init__(self, base_s: float, cap_s: float, chance: Callable[[], float]) -> None:
        self._base_s = base_s
        self._cap_s = cap_s
        self._chance = chance
        self._tries = 0

    def next_s(self) -> float:
        """The pause before the next try."""
        span_s = min(self._cap_s, self._base_s * 2.0 ** min(self._tries, 32))
        self._tries += 1
        return span_s * self._chance()

    def reset(self) -> None:
        """All is well: begin again with short pauses."""
        self._tries = 0


class Bucket:
    """A token bucket: `burst` at once, then `rate` a second."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = float(burst)
        self._at_s = -math.inf

    def left(self, now_s: float) -> int:
        """How many may be taken now."""
        grown = self._tokens + max(0.0, now_s - self._at_s) * self._rate
        self._tokens, self._at_s = min(float(self._burst), grown), now_s
        return int(self._tokens)

    def take(self) -> None:
        """Take one that was left."""
        self._tokens -= 1.0

    def wait_s(self) -> float:
        """How long to wait when none is left: until half a burst is there, for few wake-ups."""
        return max(0.0, max(1.0, self._burst / 2) - self._tokens) / self._rate
