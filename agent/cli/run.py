"""`hearing-room run`: the daemon, in this very process. Imports nothing that only draws."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from agent import control, settings
from agent.clock import SystemClock
from agent.model import AgentError, ConfigError
from agent.room import RoomAgent

USAGE, CONFIG, FAILED = 64, 78, 3
LEVELS = ("debug", "info", "warning", "error")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        """Wrong usage ends with 64, as everywhere in this program."""
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"{self.prog}: {message}\n")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of `run`."""
    parser = _Parser(prog="hearing-room run", description="Watch the room until told to stop.")
    parser.add_argument("--config", type=Path, default=settings.DEFAULT_PATH, metavar="FILE")
    parser.add_argument("--log-level", choices=LEVELS, default="info")
    return parser.parse_args(arguments)


def log_to_stderr(level: str) -> None:
    """Messages go to standard error: the journal adds time and unit."""
    logging.basicConfig(
        level=getattr(logging, level.upper()),
        format="%(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )


def main(arguments: Sequence[str]) -> int:
    """Run the daemon; 0 after a clean stop, 78 for a wrong configuration, 3 for a failed start."""
    options = parse(arguments)
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
    await agent.run()
    return FAILED if agent.why == "failed" else 0
