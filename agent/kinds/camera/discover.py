"""Which cameras are plugged in, for `adopt`: read from the kernel, nothing is opened."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from agent.kinds.camera import nodes

_VIRTUAL_DRIVERS = ("vivid",)
"""Cards without a USB device behind them that give a plain picture. A Raspberry Pi shows codec and
image processor nodes as well, which are no cameras; whoever wants another node names it by hand."""


def discover(root: Path = Path("/")) -> list[dict[str, Any]]:
    """A settings table for every camera with a capture node, USB cameras by their id.

    Two cameras alike are told apart by their port.
    """
    tables: list[dict[str, Any]] = []
    devices: dict[Path, nodes.Node] = {}
    for node in nodes.video_nodes(root):
        if node.usb is not None:
            devices.setdefault(node.usb, node)
        elif node.card.startswith(_VIRTUAL_DRIVERS):
            tables.append({"name": node.card, "source": f"v4l2:/dev/{node.name}"})
    alike = Counter(nodes.usb_id(device) for device in devices)
    for device, node in devices.items():
        usb_id = nodes.usb_id(device)
        port = f"@{device.name}" if alike[usb_id] > 1 else ""
        name = nodes.read(device / "product") or node.card
        tables.append({"name": name, "source": f"usb:{usb_id}{port}"})
    return tables
