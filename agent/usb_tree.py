"""The USB devices behind the nodes of a class, as /sys shows them. Nothing is opened.

Standard library only: hands uses it too. `root` may be a recorded tree.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

PORT = re.compile(r"\d+-\d+(\.\d+)*")
"""A USB port as the kernel calls it: bus, port of the root hub, ports of the hubs behind."""


@dataclass(frozen=True, slots=True)
class UsbNode:
    """A node and the device that it belongs to. Strings that a device does not tell are empty."""

    name: str
    """`hidraw0`, `ttyUSB0`: changes from one plugging in to the next."""
    port: str
    """`1-1.2`: stays over replugs."""
    usb_id: str
    """`vid:pid`, lower case."""
    product: str = ""
    serial: str = ""


def nodes(subsystem: str, root: Path = Path("/")) -> list[UsbNode]:
    """Every node of a class (`hidraw`, `tty`) that belongs to a USB device, by name."""
    found = [_node(entry) for entry in sorted(_entries(root / "sys/class" / subsystem), key=_order)]
    return [node for node in found if node is not None]


def _node(entry: Path) -> UsbNode | None:
    link = entry / "device"
    if not link.exists():
        return None
    at = link.resolve()
    for folder in (at, *at.parents):
        vid, pid = read(folder / "idVendor"), read(folder / "idProduct")
        if vid and pid:
            usb_id = f"{vid}:{pid}".lower()
            product, serial = read(folder / "product"), read(folder / "serial")
            return UsbNode(entry.name, folder.name, usb_id, product, serial)
    return None


def read(path: Path) -> str:
    """An attribute without its newline, empty where it cannot be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _order(entry: Path) -> tuple[str, int]:
    """hidraw2 before hidraw10."""
    letters = entry.name.rstrip("0123456789")
    digits = entry.name[len(letters) :]
    return letters, int(digits or 0)
