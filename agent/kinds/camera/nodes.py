"""What the kernel says about a camera without opening it: /sys, /dev and the udev database.

Every function takes the file-system root, so that a recorded tree is a camera.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from agent.kinds.camera.source import Scheme, Source

_VIDEO = re.compile(r"video[0-9]+")
_VIDEO_CLASS, _STREAMING = "0e", "02"  # USB interface class and subclass of video streaming
_METADATA_INDEX = 1
"""uvcvideo gives one camera a capture node (index 0) and a metadata node (index 1)."""


@dataclass(frozen=True, slots=True)
class Node:
    """One /dev/videoN as /sys shows it."""

    name: str
    """`video0`."""
    card: str
    index: int
    """Place among the nodes of one device; 0 is where a webcam's picture is. -1 = not said."""
    usb: Path | None
    """Folder of the USB device it belongs to, None for other buses."""


def read(path: Path) -> str:
    """A sysfs attribute without its newline, empty where it cannot be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def usb_id(device: Path) -> str:
    """`vid:pid` of a USB device folder, empty where it has none."""
    vid, pid = read(device / "idVendor"), read(device / "idProduct")
    return f"{vid}:{pid}".lower() if vid and pid else ""


def usb_devices(source: Source, root: Path) -> list[Path]:
    """Folders of the USB devices with the ids of `source`, and at its port if it names one."""
    folder = root / "sys/bus/usb/devices"
    if source.port:
        places = [folder / source.port]
    else:
        places = sorted(p for p in _entries(folder) if ":" not in p.name)
    return [p for p in places if usb_id(p) == source.usb_id]


def video_nodes(root: Path) -> list[Node]:
    """Every video node, by name."""
    folder = root / "sys/class/video4linux"
    return [_node(p) for p in sorted(_entries(folder), key=_number) if _VIDEO.fullmatch(p.name)]


def nodes_of(device: Path, root: Path) -> list[Node]:
    """The video nodes of a USB device, the likely capture nodes first."""
    own = device.resolve()
    found = [n for n in video_nodes(root) if n.usb == own]
    return sorted(found, key=lambda n: (n.index == _METADATA_INDEX, n.index, n.name))


def node_at(path: str, root: Path) -> Node | None:
    """The node behind a path such as /dev/video0 or /dev/v4l/by-id/..., None if there is none.

    The agent of an installed box has no /dev: then a link is looked up in the udev database.
    """
    inside = root / path.lstrip("/")
    name = inside.resolve().name if inside.exists() else Path(path).name
    entry = root / "sys/class/video4linux" / name
    if _VIDEO.fullmatch(name) and entry.exists():
        return _node(entry)
    link = path.removeprefix("/dev/")
    for entry in _entries(root / "sys/class/video4linux"):
        record = read(root / "run/udev/data" / f"c{read(entry / 'dev')}")
        if f"S:{link}" in record.splitlines():
            return _node(entry)
    return None


def streaming(device: Path) -> bool | None:
    """Whether somebody streams from a USB camera now; None where the kernel does not show it.

    An isochronous camera sends in an alternate setting other than 0. One that sends in bulk has
    its endpoint in setting 0 already, and then nothing can be said.
    """
    known = False
    for interface in _entries(device):
        if read(interface / "bInterfaceClass") != _VIDEO_CLASS:
            continue
        if read(interface / "bInterfaceSubClass") != _STREAMING:
            continue
        setting, endpoints = (
            read(interface / "bAlternateSetting"),
            read(interface / "bNumEndpoints"),
        )
        if setting.isdigit() and int(setting) > 0:
            return True
        known = known or (setting == "0" and endpoints in ("00", "0"))
    return False if known else None


def dev_path(node: Node, root: Path) -> Path:
    """Where the node is opened."""
    return root / "dev" / node.name


def candidates(source: Source, root: Path) -> list[Path]:
    """The device nodes that may give the picture of a local source, the likeliest first."""
    if source.scheme is Scheme.V4L2:
        path = root / source.target.lstrip("/")
        return [path] if path.exists() else []
    return [dev_path(n, root) for d in usb_devices(source, root) for n in nodes_of(d, root)]


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _number(path: Path) -> int:
    digits = path.name.removeprefix("video")
    return int(digits) if digits.isdigit() else -1


def _node(entry: Path) -> Node:
    index = read(entry / "index")
    return Node(
        name=entry.name,
        card=read(entry / "name"),
        index=int(index) if index.isdigit() else -1,
        usb=_usb_parent(entry / "device"),
    )


def _usb_parent(device: Path) -> Path | None:
    """The USB device above a node: the first folder upwards that has vendor and product ids."""
    if not device.exists():
        return None
    at = device.resolve()
    for folder in (at, *at.parents):
        if (folder / "idVendor").exists():
            return folder
    return None
