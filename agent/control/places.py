"""Where the agent keeps its files, and the status file that all may read."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.model import ConfigError

SYSTEM_STATE, SYSTEM_RUNTIME = Path("/var/lib/hearing-room"), Path("/run/hearing-room")
MAX_STATUS = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Folders:
    """Where the agent keeps its state, and what lives only as long as it runs."""

    state: Path
    runtime: Path


def folders(environ: Mapping[str, str] = os.environ, uid: int | None = None) -> Folders:
    """$STATE_DIRECTORY and $RUNTIME_DIRECTORY where they are set (systemd sets them), the system's
    folders for root, the XDG folders for a user. Nothing is made."""
    uid = os.geteuid() if uid is None else uid
    state, runtime = SYSTEM_STATE, SYSTEM_RUNTIME
    if uid != 0:
        home = environ.get("HOME") or pwd.getpwuid(uid).pw_dir
        state = Path(environ.get("XDG_STATE_HOME") or f"{home}/.local/state") / "hearing-room"
        own = environ.get("XDG_RUNTIME_DIR")
        shared = Path(f"/tmp/hearing-room-{uid}")  # noqa: S108 - see `_is_ours`
        runtime = Path(own) / "hearing-room" if own else shared
    return Folders(
        _named(environ, "STATE_DIRECTORY") or state, _named(environ, "RUNTIME_DIRECTORY") or runtime
    )


def _named(environ: Mapping[str, str], variable: str) -> Path | None:
    first = environ.get(variable, "").partition(":")[0]
    return Path(first) if first else None


def make(where: Folders) -> None:
    """Make the folders that are missing: private ones for a user, and for root a state that only
    the group reads and a runtime folder that all may enter (the status file is for all).

    Raises `ConfigError` for a folder that another user owns, or could have laid as a trap."""
    root = os.geteuid() == 0
    for folder, mode in ((where.state, 0o750), (where.runtime, 0o755)):
        try:
            folder.mkdir(mode=mode if root else 0o700, parents=True, exist_ok=True)
            if not root and not _is_ours(folder):
                raise ConfigError(f"{folder} is not only ours (owner, mode or a link): remove it")
        except OSError as error:
            raise ConfigError(
                f"{folder}: cannot be made: {error.strerror}; run as the service's user, or set"
                " $STATE_DIRECTORY and $RUNTIME_DIRECTORY"
            ) from None


def _is_ours(folder: Path) -> bool:
    """Whether a folder belongs to this user and nobody else may write to it; in /tmp, where others
    can lay traps, it must be no link either, and closed to the group too."""
    shared = folder.is_relative_to("/tmp")  # noqa: S108
    seen = folder.lstat() if shared else folder.stat()
    writers = 0o022 if shared else 0o002
    return stat.S_ISDIR(seen.st_mode) and seen.st_uid == os.geteuid() and not seen.st_mode & writers


def runtime_to_ask() -> Path:
    """The runtime folder in which a client finds an agent: its own where one has left its files,
    else the system's, so that a technician without rights can read the installed agent's status."""
    own = folders().runtime
    if os.geteuid() == 0 or _named(os.environ, "RUNTIME_DIRECTORY"):
        return own
    with contextlib.suppress(OSError):
        if _is_ours(own) and any(own.iterdir()):
            return own
    return SYSTEM_RUNTIME if SYSTEM_RUNTIME.is_dir() else own


def write_status(path: Path, document: Mapping[str, Any]) -> bool:
    """Replace the status file in one step, readable for all: a reader sees the old one or the new
    one. The same document again writes nothing; answers whether it was written."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    with contextlib.suppress(OSError):
        if path.read_bytes() == text:
            return False
    fresh = path.with_name(f".{path.name}.new")
    try:
        fresh.write_bytes(text)
        fresh.chmod(0o644)
        fresh.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise
    return True


def read_status(path: Path) -> dict[str, Any] | None:
    """The status file, None where there is none or it cannot be read."""
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(MAX_STATUS))
    except (OSError, ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def remove_status(path: Path) -> None:
    """Take the status file away: a stopped agent says nothing."""
    with contextlib.suppress(OSError):
        path.unlink()
