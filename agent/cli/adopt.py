"""`hearing-room adopt`: a room.toml from what is plugged in. Nothing is opened or switched."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from agent import kinds
from agent.model import ConfigError
from agent.settings import parse

Tables = dict[str, dict[str, dict[str, Any]]]
"""kind -> id -> settings table."""

SHORT = {"camera": "cam", "microphone": "mic", "display": "screen", "speaker": "speaker"}


def discover(root: Path = Path("/")) -> Tables:
    """What is plugged in, by kind and id. Opens nothing."""
    found: Tables = {}
    for kind in kinds.names():
        for number, table in enumerate(kinds.discover(kind, root), 1):
            found.setdefault(kind, {})[f"{SHORT.get(kind, kind)}-{number}"] = table
    return found


def text(site: str, room: str, tables: Tables, extra: Iterable[str] = ()) -> str:
    """A room.toml with these devices."""
    lines = ["[room]", f"site = {_value(site)}", f"id = {_value(room)}", *extra]
    for kind, devices in tables.items():
        for name, table in devices.items():
            lines += ["", f"[{kind}.{name}]"]
            lines += [f"{key} = {_value(value)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    """A TOML value: basic strings, numbers, booleans and arrays are written as in JSON."""
    if isinstance(value, Mapping):
        raise TypeError("a settings table is flat")
    return json.dumps(value, ensure_ascii=False)


def run(target: Path | None, *, site: str, room: str, as_json: bool) -> int:
    """Write the file; an existing one is never touched. 1 when nothing was found."""
    tables = discover()
    count = sum(len(devices) for devices in tables.values())
    written = text(site, room, tables)
    parse(written)  # what is written can be read: raises ConfigError for a bad --site or --room
    if as_json:
        shown = {"room": {"site": site, "id": room}, **tables}
        print(json.dumps(shown, ensure_ascii=False))
    elif target is None:
        print(written, end="")
    else:
        _write_new(target, written)
        print(
            f"{target}: {count} devices; edit the names, then: hearing-room config check {target}"
        )
    if count == 0:
        print(
            "hearing-room adopt: no camera, microphone, display or relay was found on this machine",
            file=sys.stderr,
        )
    return 0 if count else 1


def _write_new(target: Path, written: str) -> None:
    try:
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
    except FileExistsError:
        raise ConfigError(f"{target} exists and is kept as it is; name another file") from None
    except OSError as error:
        raise ConfigError(f"{target}: cannot be written: {error.strerror}") from None
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(written)
