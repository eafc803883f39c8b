"""What the commands share: exit codes, signs, language, progress."""

from __future__ import annotations

import locale
import os
import sys
from dataclasses import dataclass
from typing import Any

from agent.clock import boot_id, process_start, up_s
from agent.model import Level, State

USAGE, CONFIG, UNKNOWN = 64, 78, 3
_LEVELS = {Level.OK: 0, Level.INFO: 0, Level.WARN: 1, Level.FAIL: 2, Level.UNKNOWN: 3}
_STATES = {State.READY: 0, State.AT_RISK: 1, State.NOT_READY: 2, State.UNKNOWN: 3}
SIGNS = {Level.OK: "+", Level.INFO: "i", Level.WARN: "!", Level.FAIL: "X", Level.UNKNOWN: "?"}
STYLES = {
    Level.OK: "green",
    Level.INFO: "cyan",
    Level.WARN: "yellow",
    Level.FAIL: "bold red",
    Level.UNKNOWN: "magenta",
}


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that `doctor` looked at: what was found, and what to do about it."""

    what: str
    level: Level
    found: str
    fix: str = ""


def exit_code(level: Level | State) -> int:
    """As monitoring plugins: 0 ok, 1 warn, 2 fail, 3 unknown."""
    return _STATES[level] if isinstance(level, State) else _LEVELS[level]


def language(asked: str | None, room: str | None = None) -> str:
    """The language of the output: asked for, else the room's, else the locale's."""
    if asked in ("vi", "en"):
        return asked
    if room in ("vi", "en"):
        return room
    name = os.environ.get("LC_ALL") or os.environ.get("LC_MESSAGES") or os.environ.get("LANG")
    return "vi" if (name or locale.getlocale()[0] or "").startswith("vi") else "en"


def agent_alive(status: dict[str, Any]) -> bool:
    """Whether the process that wrote a status file still runs, in this boot, and spoke in time."""
    agent = status.get("agent") or {}
    if agent.get("boot") != boot_id() or up_s() > status.get("valid_until_up_s", 0):
        return False
    pid = agent.get("pid")
    if not isinstance(pid, int):
        return False
    return process_start(pid) == agent.get("start")


def progress(number: int, total: int, what: str) -> None:
    """A line for a person who waits; nothing for a pipe."""
    if total > 1 and sys.stderr.isatty():
        print(f"\r\x1b[K{number}/{total} {what}", end="", file=sys.stderr, flush=True)


def waiting(what: str) -> None:
    """What a person waits for; nothing for a pipe."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{what}", end="", file=sys.stderr, flush=True)


def progress_done() -> None:
    """Take the progress line away."""
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
