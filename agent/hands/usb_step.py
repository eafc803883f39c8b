"""One step with one USB device, as a short-lived process.

    python -m agent.hands.usb_step ROOT rebind PORT [DRIVER]
    python -m agent.hands.usb_step ROOT reauthorize PORT
    python -m agent.hands.usb_step ROOT reset PORT
    python -m agent.hands.usb_step ROOT power_cycle UHUBCTL HUB ...

Ends with the errno of what went wrong, 0 when the kernel took it all. hands has checked what may be
touched. Once begun it is finished: a device is not left switched off.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from agent import usb_tree
from agent.usb_tree import AUDIO, VIDEO, Interface

log = logging.getLogger("hands.usb")

DRIVERS = ("uvcvideo", "snd-usb-audio")
"""Drivers of cameras and of sound; of another one nothing is taken away."""
UNBOUND_S = 0.5
OFF_BUS_S = 1.0
"""So long a device is off the bus: programs that held it see that it is gone."""
OFF_POWER_S = 3.0
"""So long the ports have no power: uhubctl takes 2 s, and a self-powered hub holds on longer."""
UHUBCTL_S = 6.0
_RESET = 0x5514  # USBDEVFS_RESET, _IO('U', 20) of linux/usbdevice_fs.h
_BUS = Path("sys/bus/usb")


def main(arguments: Sequence[str] | None = None) -> int:
    """Do it. Returns an errno."""
    root, step, *words = sys.argv[1:] if arguments is None else arguments
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    try:
        if step == "rebind":
            rebind(Path(root), words[0], words[1:] or DRIVERS)
        elif step == "reauthorize":
            reauthorize(Path(root), words[0])
        elif step == "reset":
            reset(Path(root), words[0])
        elif step == "power_cycle":
            power_cycle(words[0], words[1:])
        else:
            return errno.EINVAL
    except OSError as error:
        log.error("%s %s: %s", step, " ".join(words), error)
        return error.errno or errno.EIO
    return 0


def rebind(root: Path, port: str, drivers: Sequence[str] = DRIVERS) -> None:
    """The drivers let go of the device's interfaces and take them again. An interface that no
    driver has is offered to all of them. Raises `OSError`."""
    device = usb_tree.at(port, root)
    if device is None:
        raise OSError(errno.ENODEV, "nothing at", port)
    bound = [i for i in device.interfaces if i.driver in drivers]
    if not bound:
        _offer(root, [i for i in device.interfaces if not i.driver])
        return
    for interface in bound:
        if _driver(root, port, interface) == interface.driver:  # it may have gone with another
            _write(_at_driver(root, interface) / "unbind", interface.name)
    time.sleep(UNBOUND_S)
    first: OSError | None = None
    for interface in bound:
        if _driver(root, port, interface):
            continue  # taken with another: a camera's control interface takes its streams
        try:
            _write(_at_driver(root, interface) / "bind", interface.name)
        except OSError as error:
            first = first or error
    if first is not None and not _driver(root, port, bound[0]):
        raise first


def reauthorize(root: Path, port: str) -> None:
    """Off the bus, and on again: the kernel enumerates it anew. Raises `OSError`."""
    place = root / usb_tree.FOLDER / port / "authorized"
    _write(place, "0")
    time.sleep(OFF_BUS_S)
    _write(place, "1")


def reset(root: Path, port: str) -> None:
    """Reset the port; the device keeps its place. Raises `OSError`."""
    device = usb_tree.at(port, root)
    if device is None:
        raise OSError(errno.ENODEV, "nothing at", port)
    node = os.open(
        root / f"dev/bus/usb/{device.bus:03d}/{device.number:03d}", os.O_WRONLY | os.O_CLOEXEC
    )
    try:
        fcntl.ioctl(node, _RESET, 0)
    finally:
        os.close(node)


def power_cycle(uhubctl: str, hubs: Sequence[str]) -> None:
    """All hubs off, then all on: their ports share one switch. Raises `OSError`."""
    failed = False
    try:
        for hub in hubs:
            failed = _switch(uhubctl, hub, "off") or failed
        time.sleep(OFF_POWER_S)
    finally:
        for hub in hubs:
            failed = _switch(uhubctl, hub, "on") or failed
    if failed:
        raise OSError(errno.EIO, "uhubctl did not switch", " ".join(hubs))


def _switch(uhubctl: str, hub: str, action: str) -> bool:
    """Whether it failed."""
    location, _, port = hub.partition(":")
    words = [uhubctl, "-N", "-l", location, "-a", action, *(["-p", port] if port else [])]
    try:
        done = subprocess.run(words, capture_output=True, timeout=UHUBCTL_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        log.error("%s: %s", " ".join(words), error)
        return True
    if done.returncode:
        log.error("%s: %s", " ".join(words), done.stderr.decode(errors="replace").strip()[-500:])
    return done.returncode != 0


def _offer(root: Path, interfaces: Sequence[Interface]) -> None:
    """Have the kernel look for a driver of each."""
    fitting = [i for i in interfaces if i.usb_class in (VIDEO, AUDIO)]
    if not fitting:
        raise OSError(errno.ENODEV, "no interface of camera or sound without a driver")
    for interface in fitting:
        _write(root / _BUS / "drivers_probe", interface.name)


def _driver(root: Path, port: str, interface: Interface) -> str:
    link = root / usb_tree.FOLDER / port / interface.name / "driver"
    return link.resolve().name if link.exists() else ""


def _at_driver(root: Path, interface: Interface) -> Path:
    return root / _BUS / "drivers" / interface.driver


def _write(path: Path, text: str) -> None:
    """Write to an attribute: one write, and never a new file."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


if __name__ == "__main__":
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        with contextlib.suppress(OSError):
            signal.signal(number, signal.SIG_IGN)
    sys.exit(main())
