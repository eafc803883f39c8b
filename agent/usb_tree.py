"""The USB as /sys shows it: the devices behind the nodes of a class, and every device with its
interfaces and drivers. Nothing is opened.

Standard library only: hands uses it too. `root` may be a recorded tree.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

PORT = re.compile(r"\d{1,3}-\d{1,3}(?:\.\d{1,3}){0,5}")
"""A place on the USB as the kernel calls it: bus, port of the root hub, ports of up to five hubs
behind it (USB 2.0, 4.1.1). A root hub (`usb1`) and an interface (`1-1:1.0`) are none."""
FOLDER = Path("sys/bus/usb/devices")
AUDIO, VIDEO = "01", "0e"
STORAGE, HUB, COMMUNICATION, DATA, WIRELESS = "08", "09", "02", "0a", "e0"
SPECIFIC = "fe"
"""Class codes (usb.org, defined class codes); `fe` is application specific, DFU among it."""


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


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface of a device. `driver` is empty while nobody drives it; `carries` names what
    hangs on it that is no camera and no sound: `net`, `block`, `tty`."""

    name: str
    usb_class: str = ""
    subclass: str = ""
    protocol: str = ""
    driver: str = ""
    carries: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class UsbDevice:
    """One device. `usb_id` is `vid:pid` in lower case; one that is not authorized shows no
    interfaces."""

    port: str
    usb_id: str
    product: str = ""
    usb_class: str = ""
    authorized: bool = True
    bus: int = 0
    number: int = 0
    interfaces: tuple[Interface, ...] = ()

    @property
    def updating(self) -> bool:
        """Whether it is in DFU mode: its firmware is being replaced (USB DFU 1.1, 4.2.3)."""
        return any(
            (i.usb_class, i.subclass, i.protocol) == (SPECIFIC, "01", "02") for i in self.interfaces
        )

    @property
    def carries(self) -> frozenset[str]:
        """What hangs on its interfaces."""
        return frozenset().union(*(i.carries for i in self.interfaces))


def nodes(subsystem: str, root: Path = Path("/")) -> list[UsbNode]:
    """Every node of a class (`hidraw`, `tty`) that belongs to a USB device, by name."""
    found = [_node(entry) for entry in sorted(_entries(root / "sys/class" / subsystem), key=_order)]
    return [node for node in found if node is not None]


def at(port: str, root: Path = Path("/")) -> UsbDevice | None:
    """The device at a port, None where nothing sits there. Raises `ValueError` for what is no
    port."""
    if PORT.fullmatch(port) is None:
        raise ValueError(f"{port!r} is no USB port; one is written 1-1.2")
    folder = root / FOLDER / port
    vid, pid = read(folder / "idVendor"), read(folder / "idProduct")
    if not vid or not pid:
        return None
    return UsbDevice(
        port=port,
        usb_id=f"{vid}:{pid}".lower(),
        product=read(folder / "product"),
        usb_class=read(folder / "bDeviceClass"),
        authorized=read(folder / "authorized") != "0",
        bus=_number(folder / "busnum"),
        number=_number(folder / "devnum"),
        interfaces=tuple(
            _interface(p) for p in sorted(_entries(folder)) if p.name.startswith(f"{port}:")
        ),
    )


def every(root: Path = Path("/")) -> list[UsbDevice]:
    """Every device but the root hubs, by port."""
    ports = sorted(p.name for p in _entries(root / FOLDER) if PORT.fullmatch(p.name))
    return [device for port in ports if (device := at(port, root)) is not None]


def find(usb_id: str, root: Path = Path("/"), port: str = "") -> UsbDevice | None:
    """The first device with an id, and at a port where one is named."""
    if port:
        device = at(port, root)
        return device if device is not None and device.usb_id == usb_id else None
    return next((device for device in every(root) if device.usb_id == usb_id), None)


def read(path: Path) -> str:
    """An attribute without its newline, empty where it cannot be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


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


def _interface(folder: Path) -> Interface:
    driver = folder / "driver"
    carried = {"net": "net", "tty": "tty"}
    found = {word for name, word in carried.items() if (folder / name).is_dir()}
    # A disk hangs below a SCSI host; a serial adapter has its ttyUSB as a folder of its own.
    found |= {"block" for p in _entries(folder) if re.fullmatch(r"host\d+", p.name)}
    found |= {"tty" for p in _entries(folder) if re.fullmatch(r"tty[A-Z]+\d+", p.name)}
    return Interface(
        name=folder.name,
        usb_class=read(folder / "bInterfaceClass"),
        subclass=read(folder / "bInterfaceSubClass"),
        protocol=read(folder / "bInterfaceProtocol"),
        driver=driver.resolve().name if driver.exists() else "",
        carries=frozenset(found),
    )


def _number(path: Path) -> int:
    text = read(path)
    return int(text) if text.isdecimal() else 0


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
