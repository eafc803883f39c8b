"""A /sys with USB devices as files, and what the kernel does when somebody writes to them."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

CAMERA = (("0e", "01", "00", "uvcvideo"), ("0e", "02", "00", "uvcvideo"))
SOUND = (("01", "01", "00", "snd-usb-audio"), ("01", "02", "00", "snd-usb-audio"))
KEYS = (("03", "01", "01", "usbhid"),)
BOOT_KEYBOARD = KEYS


class UsbTree:
    """Builds the tree. `root` stands for `/`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.devices = root / "sys/bus/usb/devices"
        self.drivers = root / "sys/bus/usb/drivers"
        self.devices.mkdir(parents=True)
        (root / "sys/bus/usb/drivers_probe").write_text("")
        for name in ("uvcvideo", "snd-usb-audio", "usbhid", "usb-storage", "hub"):
            (self.drivers / name).mkdir(parents=True)
            for attribute in ("bind", "unbind"):
                (self.drivers / name / attribute).write_text("")

    def plug(
        self,
        port: str,
        usb_id: str,
        *interfaces: tuple[str, str, str, str],
        product: str = "",
        usb_class: str = "ef",
        number: int = 4,
    ) -> Path:
        """A device; an interface is class, subclass, protocol and driver."""
        folder = self.devices / port
        folder.mkdir()
        vid, pid = usb_id.split(":")
        bus = int(port.split("-")[0])
        facts = {
            "idVendor": vid,
            "idProduct": pid,
            "product": product,
            "bDeviceClass": usb_class,
            "authorized": "1",
            "busnum": bus,
            "devnum": number,
        }
        for name, value in facts.items():
            (folder / name).write_text(f"{value}\n")
        for index, (cls, sub, protocol, driver) in enumerate(interfaces):
            interface = folder / f"{port}:1.{index}"
            interface.mkdir()
            (interface / "bInterfaceClass").write_text(cls)
            (interface / "bInterfaceSubClass").write_text(sub)
            (interface / "bInterfaceProtocol").write_text(protocol)
            if driver:
                (interface / "driver").symlink_to(self.drivers / driver)
        node = self.root / f"dev/bus/usb/{bus:03d}/{number:03d}"
        node.parent.mkdir(parents=True, exist_ok=True)
        node.write_text("")
        return folder

    def video_node(self, port: str, name: str = "video0") -> None:
        """The node that a camera's driver makes for the device at a port."""
        interface = self.devices / port / f"{port}:1.0"
        made = interface / "video4linux" / name
        made.mkdir(parents=True)
        (made / "name").write_text("camera")
        (made / "index").write_text("0")
        (made / "device").symlink_to(interface)
        listed = self.root / "sys/class/video4linux"
        listed.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            (listed / name).symlink_to(made)

    def driver_of(self, interface: str) -> str:
        link = self.devices / interface.partition(":")[0] / interface / "driver"
        return link.resolve().name if link.exists() else ""


class Kernel:
    """Does with a tree what the kernel does: it sees what is written, and interfaces and drivers
    come and go. `log` tells what it saw, in order."""

    def __init__(self, tree: UsbTree, told: Callable[[str], None] = lambda what: None) -> None:
        self.log: list[str] = []
        self.slow_s = 0.0
        """So long a device is away after it was let back."""
        self._tree = tree
        self._told = told
        self._stash = tree.root / "stash"
        self._stash.mkdir(exist_ok=True)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @contextlib.contextmanager
    def running(self) -> Iterator[Kernel]:
        self._thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            self._thread.join()

    def _run(self) -> None:
        ending = False
        while not ending:
            ending = self._ended.wait(0.005)  # and once more: what was written last
            for driver in list(self._tree.drivers.iterdir()):
                self._written(driver / "unbind", self._unbind)
                self._written(driver / "bind", self._bind)
            for folder in list(self._tree.devices.iterdir()):
                with contextlib.suppress(OSError):
                    self._authorize(folder, (folder / "authorized").read_text().strip())

    def _written(self, attribute: Path, act: Callable[[str, str], None]) -> None:
        if text := attribute.read_text().strip():
            attribute.write_text("")
            self._say(f"{attribute.name} {attribute.parent.name} {text}")
            act(attribute.parent.name, text)

    def _unbind(self, driver: str, interface: str) -> None:
        """A camera's control interface takes its streams with it."""
        for path in self._tree.devices.glob(f"*/{interface.partition(':')[0]}:*"):
            if self._tree.driver_of(path.name) == driver:
                (path / "driver").unlink()

    def _bind(self, driver: str, interface: str) -> None:
        for path in self._tree.devices.glob(f"*/{interface.partition(':')[0]}:*"):
            if not (path / "driver").exists():
                (path / "driver").symlink_to(self._tree.drivers / driver)

    def _authorize(self, folder: Path, text: str) -> None:
        stash = self._stash / folder.name
        if text == "0" and not stash.exists():
            self._say(f"off {folder.name}")
            stash.mkdir()
            for interface in folder.glob(f"{folder.name}:*"):
                interface.rename(stash / interface.name)
        elif text == "1" and stash.exists():
            time.sleep(self.slow_s)
            for interface in list(stash.iterdir()):
                interface.rename(folder / interface.name)
            shutil.rmtree(stash)
            self._say(f"on {folder.name}")

    def _say(self, what: str) -> None:
        self.log.append(what)
        self._told(what)


def uhubctl(folder: Path, log: Path, status: int = 0) -> None:
    """A program of that name which writes down what it is told; `folder` belongs into PATH."""
    folder.mkdir(exist_ok=True)
    program = folder / "uhubctl"
    program.write_text(f'#!/bin/sh\necho "$@" >> {log}\nexit {status}\n')
    os.chmod(program, 0o755)  # noqa: PTH101
