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

from agent import control, settings
from agent.clock import SystemClock
from agent.model import AgentError, ConfigError
from agent.room import RoomAgent

USAGE, CONFIG, FAILED = 64, 78, 3
SETTLED_S = 20.0
LEVELS = ("debug", "info", "warning", "error")


class UsageError(Exception):
    """The command line cannot be understood."""


@dataclass(frozen=True, slots=True)
class Options:
    """The options of `run`."""

    config: Path = settings.DEFAULT_PATH
    log_level: str = "info"


def parse(arguments: Sequence[str]) -> Options:
    """The options of a command line, read by hand: the usual parsers weigh as much as a kind of
    device. Raises `UsageError`."""
    given: dict[str, str] = {}
    words = iter(arguments)
    for word in words:
        name, equals, value = word.partition("=")
        name = {"-c": "--config"}.get(name, name)
        if name not in ("--config", "--log-level"):
            raise UsageError(f"unknown option {word!r}; there are --config FILE and --log-level")
        given[name] = value if equals else next(words, "")
        if not given[name]:
            raise UsageError(f"{name} needs a value")
    level = given.get("--log-level", "info")
    if level not in LEVELS:
        raise UsageError(f"--log-level is one of {', '.join(LEVELS)}, not {level!r}")
    return Options(Path(given.get("--config", settings.DEFAULT_PATH)), level)


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
        room = settings.load(options.config)
        control.make(control.folders())
        return asyncio.run(serve(room))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return CONFIG
    except AgentError as error:
        print(f"hearing-room: {error}", file=sys.stderr)
        return FAILED


async def serve(room: settings.Room) -> int:
    """Watch until SIGTERM or SIGINT; 3 when a part of the agent failed."""
    agent = RoomAgent(room, control.folders(), SystemClock().now)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, agent.stop)
    loop.call_later(SETTLED_S, settle)
    await agent.run()
    return FAILED if agent.why == "failed" else 0


def settle() -> None:
    """Give back what only the start needed, and look no more at what will live for ever."""
    gc.collect()
    gc.freeze()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
    if trim is not None:
        trim(0)
