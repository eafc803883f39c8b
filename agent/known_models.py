"""What a running room needs of firmware_profiles/: the one model that a table is about.

Read straight from the TOML, without the schema of `agent.profiles`: 70 models as values would cost
the daemon 2 MiB for good. What is shipped has been validated (`hearing-room profiles check`).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import firmware_profiles

FOLDER = Path(firmware_profiles.__path__[0]) / "devices"


@dataclass(frozen=True, slots=True)
class Known:
    """A model of device: the id of its profile, the kinds it serves as, and its tables of facts."""

    id: str
    kinds: tuple[str, ...]
    facts: Mapping[str, Any]


def ids() -> list[str]:
    """The ids of all models."""
    return sorted(file.stem for file in FOLDER.glob("*.toml"))


def by_id(id: str) -> Known | None:
    """The model with this id, None where there is none."""
    return _read(FOLDER / f"{id}.toml") if id in ids() else None


def by_usb(usb_id: str) -> Known | None:
    """The model that has this `vid:pid` alone; None where nobody is sure of it: an id that many
    makes share, or one that only the product string makes certain."""
    for file in sorted(FOLDER.glob("*.toml")):
        if usb_id not in file.read_text(encoding="utf-8"):  # a tenth of the cost of parsing
            continue
        known = _read(file)
        match = known.facts["match"]
        if usb_id in match["usb"] and not match.get("ambiguous") and "product" not in match:
            return known
    return None


def _read(file: Path) -> Known:
    facts = tomllib.loads(file.read_text(encoding="utf-8"))
    return Known(file.stem, tuple(facts["kinds"]), facts)
