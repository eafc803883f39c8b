"""Which microphones are plugged in, for `adopt`: read from the kernel, nothing is opened."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from agent.kinds import _alsa


def discover(root: Path = Path("/")) -> list[dict[str, Any]]:
    """A settings table for every card that can capture, USB devices by their id.

    Two alike are told apart by their port; a card that is not USB is named by its index.
    """
    first: dict[int, _alsa.Stream] = {}
    for stream in _alsa.streams(root, _alsa.CAPTURE):
        first.setdefault(stream.card, stream)
    alike = Counter(stream.usb for stream in first.values())
    tables: list[dict[str, Any]] = []
    for card, stream in first.items():
        source = f"hw:{card},{stream.device}"
        if stream.usb:
            source = f"usb:{stream.usb}"
            if alike[stream.usb] > 1 and stream.port:
                source += f"@{stream.port}"
        tables.append({"name": _alsa.card_id(root, card), "source": source})
    return tables
