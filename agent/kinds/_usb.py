"""USB devices that are there but not in service: read from /sys, nothing is opened."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

Mode = Literal["dfu", "bootloader", "adapter_only"]
Modes = Annotated[
    Mapping[Annotated[str, Field(pattern=r"^[0-9a-f]{4}:[0-9a-f]{4}$")], Mode],
    Field(max_length=8, description='"vid:pid" = "dfu", "bootloader" or "adapter_only"'),
]
"""The ids under which a device shows itself while it cannot work: updating, or stuck in its boot
loader; or an adapter with no camera at the end of its cable."""
MODE_WORDS = frozenset({"dfu", "bootloader", "adapter_only"})


def modes_of(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The setting `modes` out of the facts of a profile; empty where it has none."""
    modes = {one["usb"]: one["mode"] for one in facts.get("modes", ())}
    return {"modes": modes} if modes else {}


def mode_of(root: Path, modes: Mapping[str, Mode], port: str = "") -> Mode | None:
    """The mode in which a device of these ids is plugged in now (at `port`, where one is meant),
    None where there is none."""
    folder = root / "sys/bus/usb/devices"
    try:
        places = [folder / port] if port else sorted(folder.iterdir())
    except OSError:
        return None
    for place in places if modes else ():
        try:
            vid, pid = ((place / name).read_text().strip() for name in ("idVendor", "idProduct"))
        except OSError:
            continue
        if mode := modes.get(f"{vid}:{pid}".lower()):
            return mode
    return None
