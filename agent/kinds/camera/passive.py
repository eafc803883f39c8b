"""A camera as the kernel sees it, for the agent's own process: opens no device node."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from pathlib import Path

from agent import clock
from agent.kinds._usb import mode_of
from agent.kinds.camera import nodes
from agent.kinds.camera.settings import Settings
from agent.kinds.camera.source import Scheme, Source
from agent.model import Fault, Reading, Scalar

POWER_WORDS = frozenset({"active", "suspended", "suspending", "resuming", "error", "unsupported"})
"""What /sys/…/power/runtime_status may say."""


class Passive:
    """Kernel facts about one camera; a camera on the network has none."""

    def __init__(self, settings: Settings, root: Path = Path("/")) -> None:
        self._settings = settings
        self._root = root

    async def read(self) -> Reading:
        """Whether it is there, whether it is the right one, whether somebody streams from it.

        Values: `present`; for a USB camera `in_use` (left out where the kernel does not show it),
        `power` and `nodes`; `right_device` where an id is expected; `mode` of one that is there
        and not in service.
        """
        asked, started = clock.up_s(), time.monotonic()
        source = self._settings.where()
        values: dict[str, Scalar] = {}
        fault: Fault | None = None
        if source.scheme is Scheme.USB:
            values = _usb(source, self._settings, self._root)
        elif source.scheme is Scheme.V4L2:
            values = _node(source, self._settings.usb_id, self._root)
        elif source.scheme is Scheme.FILE:
            values = {"present": Path(source.target).exists()}
        # A camera without a video node (no driver, boot loader) can give no picture either.
        if values.get("present") is False or values.get("nodes") == 0:
            fault = Fault.ABSENT
        return Reading(
            values=values,
            fault=fault,
            why="no_node" if fault else "",
            asked_s=asked,
            took_s=time.monotonic() - started,
        )


def _usb(source: Source, settings: Settings, root: Path) -> dict[str, Scalar]:
    found = nodes.usb_devices(source, root)
    if not found:
        values: dict[str, Scalar] = {"present": False}
        if mode := mode_of(root, settings.modes, source.port):
            return {**values, "mode": mode}
        if source.port:
            other = nodes.usb_id(root / "sys/bus/usb/devices" / source.port)
            if other:  # something else sits at the place of the camera
                return {"present": True, "right_device": False}
        return values
    device = found[0]
    values = {"present": True, "nodes": len(nodes.nodes_of(device, root))}
    return {**values, **_usb_facts(device)}


def _usb_facts(device: Path) -> dict[str, Scalar]:
    values: dict[str, Scalar] = {}
    streaming = nodes.streaming(device)
    if streaming is not None:
        values["in_use"] = streaming
    power = nodes.read(device / "power/runtime_status")
    if power in POWER_WORDS:
        values["power"] = power
    return values


def _node(source: Source, expected: str | None, root: Path) -> dict[str, Scalar]:
    node = nodes.node_at(source.target, root)
    if node is None:
        # Something else than a video node may still stand there (a test's FIFO, a loopback).
        return {"present": (root / source.target.lstrip("/")).exists()}
    values: dict[str, Scalar] = {"present": True}
    if node.usb is not None:
        values.update(_usb_facts(node.usb))
    if expected is not None:
        values["right_device"] = node.usb is not None and nodes.usb_id(node.usb) == expected
    return values


SETTLING_S = (5.0, 10.0, 20.0, 30.0)
"""When a camera whose controls are to be set is asked again after it was plugged in: some answer
no control for 20 s."""


def usb_port(settings: Settings, root: Path = Path("/")) -> str:
    """Where on the USB the camera sits now, empty for one that is not there or not on USB."""
    source = settings.where()
    device: Path | None = None
    if source.scheme is Scheme.USB:
        device = next(iter(nodes.usb_devices(source, root)), None)
    elif source.scheme is Scheme.V4L2:
        node = nodes.node_at(source.target, root)
        device = node.usb if node is not None else None
    return device.name if device is not None else ""


async def changes(settings: Settings, root: Path = Path("/")) -> AsyncGenerator[None, None]:
    """Yields when the kernel says that a video node came or went; ends at once where none can."""
    if not settings.where().local or root != Path("/"):
        return
    # Here and not above: asyncio is 5 MB, and a worker has no use for it.
    from agent.kinds._uevents import repeated, uevents

    async for _ in repeated(uevents("video4linux"), SETTLING_S if settings.controls else ()):
        yield None
