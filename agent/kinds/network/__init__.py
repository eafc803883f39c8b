"""The line of the room: link, addresses, gateway, DNS, and the endpoints a hearing needs.

Passive only: the kernel's facts and a few packets of our own, so that it may be asked while a
hearing runs. Three things can be watched, each only when it is asked for: an `interface`, the
gateway behind it, and `endpoints`.
"""

from __future__ import annotations

from typing import Any

from agent.kinds.network.changes import changes
from agent.kinds.network.judge import CODES, WORDS, judge
from agent.kinds.network.passive import Passive
from agent.kinds.network.settings import Settings
from agent.model import Reading

__all__ = ["CODES", "WORDS", "Passive", "Settings", "baseline", "changes", "judge"]


def baseline(reading: Reading) -> dict[str, Any]:
    """Round trips and speeds of that day are kept to be read; the limits stay what they are."""
    return {}
