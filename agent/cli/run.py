"""`hearing-room run`: the daemon, in this very process. Imports nothing that only draws."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent import control, kinds, settings
from agent.clock import SystemClock
from agent.lanes.watch import service_lane
from agent.model import AgentError, ConfigError
from agent.room import RoomAgent

if TYPE_CHECKING:
    from agent.lanes.hands import Connect

log = logging.getLogger("agent")

USAGE, CONFIG, FAILED = 64, 78, 3
SETTLED_S = 20.0
CONFIG_S = 3.0
"""How often a box that waits for its room.toml looks for it."""
MAX_TROUBLE = 4_000
Stamp = tuple[int, int, int]
LEVELS = ("debug", "info", "warning", "error")


class UsageError(Exception):
    """The command line cannot be understood."""


@dataclass(frozen=True, slots=True)
class Options:
    """The options of `run`."""

    config: Path = settings.DEFAULT_PATH
    log_level: str = "info"
    services: bool = False
    """On an installed box: systemd keeps the other processes, and a room.toml may come later."""


def parse(arguments: Sequence[str]) -> Options:
    """The options of a command line, read by hand: the usual parsers weigh as much as a kind of
    device. Raises `UsageError`."""
    given: dict[str, str] = {}
    words = iter(arguments)
    services = False
    for word in words:
        name, equals, value = word.partition("=")
        name = {"-c": "--config"}.get(name, name)
        if word == "--services":
            services = True
            continue
        if name not in ("--config", "--log-level"):
            raise UsageError(
                f"unknown option {word!r}; there are --config FILE, --log-level and --services"
            )
        given[name] = value if equals else next(words, "")
        if not given[name]:
            raise UsageError(f"{name} needs a value")
    level = given.get("--log-level", "info")
    if level not in LEVELS:
        raise UsageError(f"--log-level is one of {', '.join(LEVELS)}, not {level!r}")
    return Options(Path(given.get("--config", settings.DEFAULT_PATH)), level, services)


def log_to_stderr(level: str) -> None:
    """Messages go to standard error: the journal adds time and unit."""
    logging.basicConfig(
        level=getattr(logging, level.upper()),
        format="%(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )


def main(arguments: Sequence[str]) -> int:
    """Run the daemon; 0 after a clean stop, 78 for a wrong configuration, 3 for a failed start."""
    try:
        options = parse(arguments)
    except UsageError as error:
        print(f"hearing-room run: {error}", file=sys.stderr)
        return USAGE
    log_to_stderr(options.log_level)
    try:
        seen = _stamp(options.config)
        room = installed_room(options.config) if options.services else settings.load(options.config)
        control.make(control.folders())
        return asyncio.run(serve(room, options.services, seen))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return CONFIG
    except AgentError as error:
        print(f"hearing-room: {error}", file=sys.stderr)
        return FAILED


def installed_room(path: Path) -> settings.Room:
    """The room of a box that is on its own for years: without a file, or with one that cannot be
    understood, it waits for a better one and says so, instead of ending again and again."""
    try:
        if path.exists():
            room = settings.load(path)
            _check_pins(room)
            return room
    except (ConfigError, OSError) as error:
        log.error("%s", error)
        return settings.uncommissioned(path, trouble=str(error)[:MAX_TROUBLE])
    log.warning("%s is not there yet: write one with `hearing-room adopt`", path)
    return settings.uncommissioned(path)


def _has_hands(room: settings.Room) -> bool:
    return any(kinds.in_hands(device.kind) for device in room.devices)


def _check_pins(room: settings.Room) -> None:
    """Raises `ConfigError` for relays and lights that cannot be."""
    if _has_hands(room):
        from agent.hands import plan  # what a room without relays and lights does not pay

        plan.of(room)


def _hands_of_systemd(room: settings.Room) -> Connect | None:
    if not _has_hands(room):
        return None
    from agent.lanes import hands

    return hands.by_socket(hands.SOCKET)


async def serve(room: settings.Room, services: bool = False, seen: Stamp | None = None) -> int:
    """Watch until SIGTERM or SIGINT; 3 when a part of the agent failed. A room that only stands in
    for one is given up as soon as its file is another than when it was `seen`."""
    folders, now = control.folders(), SystemClock().now
    if services:
        hands = _hands_of_systemd(room)
        agent = RoomAgent(room, folders, now, lane_for=service_lane, hands=hands, reboots=True)
    else:
        agent = RoomAgent(room, folders, now)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, agent.stop)
    loop.call_later(SETTLED_S, settle)
    waiting = None
    if not room.commissioned and room.path is not None:
        waiting = loop.create_task(_wait_for_another(room.path, seen, agent))
    await agent.run()
    if waiting is not None:
        waiting.cancel()
    return FAILED if agent.why == "failed" else 0


async def _wait_for_another(path: Path, seen: Stamp | None, agent: RoomAgent) -> None:
    """End the agent when its file has changed and has been left alone since: whoever started it
    starts it again, with the room that is now described."""
    before = seen
    while (found := _stamp(path)) == seen or found != before:
        before = found
        await asyncio.sleep(CONFIG_S)
    log.info("%s has changed: starting again with it", path)
    agent.stop("restart")


def _stamp(path: Path) -> Stamp | None:
    """What tells one state of a file from another; None where there is none."""
    try:
        info = path.stat()
    except OSError:
        return None
    return info.st_mtime_ns, info.st_size, info.st_ino


def settle() -> None:
    """Give back what only the start needed, and look no more at what will live for ever."""
    gc.collect()
    gc.freeze()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
    if trim is not None:
        trim(0)
