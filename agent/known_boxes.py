"""What a running room needs of the box profiles: how the power of the USB ports can be switched.

Read straight from the TOML, as `agent.known_models` does.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import firmware_profiles

FOLDER = Path(firmware_profiles.__path__[0]) / "boxes"


def usb_hubs(root: Path = Path("/")) -> tuple[str, ...]:
    """The hubs whose power has to go off together so that the outside ports have none; empty
    where the box has no such switch, or is not known."""
    try:
        tree = (root / "proc/device-tree/compatible").read_bytes()
    except OSError:
        return ()
    strings = {part.decode(errors="replace") for part in tree.split(b"\0")}
    for file in sorted(FOLDER.glob("*.toml")):
        facts = tomllib.loads(file.read_text(encoding="utf-8"))
        if facts["compatible"]["value"] in strings:
            power = facts.get("usb_power", {})
            return tuple(power.get("hubs", ())) if power.get("switchable") else ()
    return ()
