"""What was published last, so that nothing is said twice unless it must be repeated."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from agent.link import documents
from agent.model import Moment

REPEAT_S = 60.0
"""`status` and `readiness` are repeated this often: a broker's node can die without sending wills,
and exporters forget."""
PUBLISHED_FOR_S = 2.5 * REPEAT_S
"""How long a document stands when nothing more is heard: two repetitions may be lost."""

Put = Callable[[str, dict[str, Any]], None]


class Publisher:
    """Decides which documents are news. Time is handed in."""

    def __init__(self, put: Put) -> None:
        self._put = put
        self._last: dict[str, dict[str, Any]] = {}
        self._until_s: dict[str, float] = {}

    @property
    def standing(self) -> dict[str, dict[str, Any]]:
        """What stands on the broker, by topic suffix."""
        return dict(self._last)

    def forget(self) -> None:
        """Take everything for unsaid: the next documents are published whatever they say."""
        self._last.clear()
        self._until_s.clear()

    def about(self, doc: dict[str, Any]) -> bool:
        """Publish `about` where it says something new; True when it was published."""
        return self._offer("about", doc, must=False)

    def readiness(self, doc: dict[str, Any], now: Moment) -> bool:
        """Publish `readiness` where it says something new, and at least every `REPEAT_S`."""
        due = now.up_s >= self._until_s.get("readiness", float("-inf"))
        if not self._offer("readiness", doc, must=due):
            return False
        self._until_s["readiness"] = now.up_s + REPEAT_S
        return True

    def devices(self, seen: Iterable[documents.Seen], now: Moment) -> bool:
        """Publish the devices that have news, and those whose document is about to lapse while
        there is fresher evidence; True when any was published."""
        published = [self._device(one, now) for one in seen]
        return any(published)

    def _device(self, seen: documents.Seen, now: Moment) -> bool:
        suffix = f"device/{seen.device.id}"
        doc = documents.device(seen, now, published_for_s=PUBLISHED_FOR_S)
        left_s = self._until_s.get(suffix, float("-inf")) - now.up_s
        fresh = seen.valid_until_s is not None and seen.valid_until_s > now.up_s
        if not self._offer(suffix, doc, must=fresh and left_s < REPEAT_S):
            return False
        self._until_s[suffix] = max(seen.valid_until_s or 0.0, now.up_s + PUBLISHED_FOR_S)
        return True

    def _offer(self, suffix: str, doc: dict[str, Any], *, must: bool) -> bool:
        before = self._last.get(suffix)
        if before is not None and not must and not documents.differs(before, doc):
            return False
        self._last[suffix] = doc
        self._put(suffix, doc)
        return True
