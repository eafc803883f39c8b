"""A camera: watched by its picture in a worker, by the kernel's word in the agent.

source.py     `source` taken apart          settings.py   what is expected, every limit
nodes.py      /sys, without opening         passive.py    the agent's part
v4l2.py       ioctls and streaming          watch.py      sees another opener
controls.py   picture controls to set       capture.py    files, nodes, network -> frames
frames.py     one shape for every picture   analysis.py   frames -> numbers
judge.py      numbers -> findings           driver.py     the worker's part
tells.py      every number, its rounding and range

Nothing that is imported here loads OpenCV or NumPy; `Driver` does, when it is made.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from agent.kinds._usb import modes_of
from agent.kinds.camera.discover import discover
from agent.kinds.camera.driver import Driver, prepare
from agent.kinds.camera.judge import CODES, RECOVERABLE, WORDS, judge
from agent.kinds.camera.passive import Passive, changes, usb_port
from agent.kinds.camera.settings import Settings
from agent.kinds.camera.source import port_of
from agent.kinds.camera.tells import TELLS
from agent.model import Reading

__all__ = [
    "CODES",
    "RECOVERABLE",
    "TELLS",
    "WORDS",
    "Driver",
    "Passive",
    "Settings",
    "baseline",
    "changes",
    "discover",
    "from_profile",
    "judge",
    "ports",
    "prepare",
    "usb_port",
    "variant",
]


def variant(settings: Settings) -> str:
    """A camera on the network needs a worker that may reach it; the others get none."""
    return "netcam" if settings.where().on_network else "senses"


def ports(settings: Settings) -> tuple[int, ...]:
    """The TCP port of a camera on the network."""
    port = port_of(settings.where())
    return () if port is None else (port,)


def from_profile(facts: Mapping[str, Any], told: Collection[str]) -> dict[str, Any]:
    """Settings out of a profile: the mode to order, unless a part of one is told; controls to set;
    the ids of its boot loader."""
    settings = modes_of(facts)
    if (video := facts.get("video")) and not {"width", "height", "fps"} & set(told):
        settings |= {key: video[key] for key in ("width", "height", "fps")}
    if controls := facts.get("controls_on_attach"):
        settings["controls"] = controls["values"]
    return settings


def baseline(reading: Reading) -> dict[str, Any]:
    """The view, by its fingerprint. Sharpness and brightness of a healthy picture differ too much
    with hour and people to be judged against one day (docs/decisions/0004-baseline.md)."""
    return {"baseline_fingerprint": list(reading.fingerprint)} if reading.fingerprint else {}
