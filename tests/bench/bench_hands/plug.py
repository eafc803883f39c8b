"""USB devices that come and go. Each is a transient service; stopping it pulls the plug."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench_hands import STATE, Wrong, run
from bench_hands.usb_device import Ids, UsbDevice

_COME_UP_S = 60.0
_RELAY_NODES = ("*/*/hidraw/hidraw*", "*/ttyUSB*")
_KINDS = ("webcam", "microphone", "usbrelay", "hidrelay", "lcus")


def usb(words: list[str]) -> None:
    """`plug`, `unplug`, `authorize`, `deauthorize`, `list`."""
    what, rest = words[0], words[1:]
    STATE.mkdir(exist_ok=True)
    if what == "list":
        _list()
    elif what == "plug":
        _plug(rest)
    elif what == "unplug":
        if run("systemctl", "stop", f"bench-usb-{rest[0]}.service"):
            raise Wrong(f"{rest[0]} is not plugged in")
    elif what in ("authorize", "deauthorize"):
        (_folder(rest[0]) / "authorized").write_text("1" if what == "authorize" else "0")
    else:
        raise Wrong("plug, unplug, authorize, deauthorize or list")


def usb_serve(words: list[str]) -> None:
    """The process that is the device. Ends when it is pulled, by either side."""
    kind, name, *settings = words
    maker, ids = _maker(kind)
    who = ids()
    who.take(settings)
    _forget(name)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        maker(name, who).serve()
    finally:
        _forget(name)


def _maker(kind: str) -> tuple[Callable[[str, Ids], UsbDevice], Callable[[], Ids]]:
    if kind == "webcam":
        from bench_hands import webcam

        return webcam.Webcam, webcam.ids
    if kind != "microphone":
        from bench_hands import usb_relay

        return usb_relay.KINDS[kind]
    from bench_hands import usb_microphone

    return usb_microphone.UsbMicrophone, usb_microphone.ids


def _forget(name: str) -> None:
    for suffix in ("path", "mode", "relays"):
        (STATE / f"{name}.{suffix}").unlink(missing_ok=True)


def _folder(name: str) -> Path:
    try:
        return Path((STATE / f"{name}.path").read_text())
    except OSError:
        raise Wrong(f"no USB device {name!r} is plugged in") from None


def _plug(words: list[str]) -> None:
    """Returns when the class driver has made its node."""
    kind, *rest = words
    if kind not in _KINDS:
        raise Wrong(f"no kind {kind!r}; there are {' '.join(_KINDS)}")
    name = rest.pop(0) if rest and "=" not in rest[0] else kind
    if (STATE / f"{name}.path").exists():
        raise Wrong(f"{name} is plugged in already")
    run("modprobe", "vhci-hcd")
    if kind == "lcus":
        run("modprobe", "ch341")
    # As quick to answer as a device is: it must not wait for the processor with everybody else.
    service = ("systemd-run", "-q", "--collect", f"--unit=bench-usb-{name}", "-p", "CPUWeight=1000")
    if run(*service, "--", "/usr/local/sbin/bench-hands", "usb-serve", kind, name, *rest):
        raise Wrong(f"{name}: its service could not be started")
    ends = time.monotonic() + _COME_UP_S
    while not _has_node(name):
        if time.monotonic() > ends:
            raise Wrong(f"{name} did not come up in {_COME_UP_S:.0f} s; see journalctl")
        time.sleep(0.05)
    run("udevadm", "settle", "-t", "20")
    _list()


def _has_node(name: str) -> bool:
    try:
        folder = _folder(name)
    except Wrong:
        return False
    patterns = ("*/video4linux/video*", "*/sound/card*/pcm*", *_RELAY_NODES)
    return any(True for pattern in patterns for _ in folder.glob(pattern))


def _list() -> None:
    for path in sorted(STATE.glob("*.path")):
        folder = Path(path.read_text())

        def said(attribute: str, folder: Path = folder) -> str:
            try:
                return (folder / attribute).read_text().strip()
            except OSError:
                return "?"

        patterns = ("*/video4linux/video*", "*/sound/card*", *_RELAY_NODES)
        nodes = sorted({node.name for p in patterns for node in folder.glob(p)})
        words = (f"{said('idVendor')}:{said('idProduct')}", f"port={folder.name}")
        print(path.stem, *words, f"authorized={said('authorized')}", *nodes)
