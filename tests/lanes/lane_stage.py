"""Where lanes are tried: a folder with an unruly worker in it, and a clock that can be moved."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from agent.clock import up_s
from agent.lanes.lane import Lane, Spawn, by_hand
from agent.model import Reading

UNRULY = Path(__file__).with_name("unruly.py")
TEST_S = 30


class Stage:
    """A folder in which an unruly worker finds what to do, and a clock that can be moved."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.later_s = 0.0
        self.play("")
        (folder / "log").touch()

    def play(self, script: str) -> None:
        (self.folder / "script").write_text(script)

    def log(self, first: str) -> list[list[str]]:
        lines = [line.split() for line in (self.folder / "log").read_text().splitlines()]
        return [words[1:] for words in lines if words[0] == first]

    def clock(self) -> float:
        return up_s() + self.later_s

    @property
    def argv(self) -> list[str]:
        return [sys.executable, "-S", "-E", str(UNRULY), str(self.folder)]

    def lane(self, spawn: Spawn | None = None, **settings: Any) -> Lane:
        start = spawn or by_hand(argv=self.argv)
        return Lane(start, name="cam", clock=self.clock, **{"start_s": 10.0, **settings})


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(TEST_S):
            await test()

    asyncio.run(bounded())


async def look(lane: Lane, deadline_s: float = 5.0, **changes: Any) -> Reading:
    question = {"device": "cam", "kind": "camera", "settings": {}, "ask": "look", "words": ()}
    return await lane.ask(**{**question, "deadline_s": deadline_s, **changes})


async def until(holds: Callable[[], object], within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not holds():  # another process has no event to wait for
            await asyncio.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def pid_of(reading: Reading) -> int:
    assert reading.fault is None, reading
    return int(reading.values["pid"])
