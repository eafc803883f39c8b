"""A restart of the box: a wish that somebody carries out, taken back when nobody does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from agent.model import Hearing, Mode, Moment, Refused
from agent.room import reboot as module
from agent.room.modes import Modes
from agent.room.reboot import WISH, Reboot


class Room:
    """What a reboot needs of a room, and a memory that outlives it."""

    def __init__(self, boot: str = "0000000a") -> None:
        self.mode = Mode.IDLE
        self.modes = Modes()
        self.why = "shutdown"
        self.boot = boot
        self.events: list[dict[str, Any]] = []
        self.kept: dict[str, bytes] = {}

    def now(self) -> Moment:
        return Moment(100.0, 1.8e9, boot=self.boot)

    def event(self, type_: str, importance: int, **fields: Any) -> asyncio.Future[int]:
        self.events.append({"type": type_, **fields})
        return asyncio.get_running_loop().create_future()

    async def keep(self, name: str, body: bytes) -> bool:
        self.kept[name] = body
        return True


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAVES_S", 0.01)
    monkeypatch.setattr(module, "TAKEN_S", 0.01)


def run(scene: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(10):
            await scene

    asyncio.run(bounded())


async def until(true: Callable[[], bool]) -> None:
    while not true():
        await asyncio.sleep(0.005)


def test_a_wish_is_left_and_the_next_boot_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TAKEN_S", 60.0)

    async def scene() -> None:
        room, wish = Room(), tmp_path / WISH
        assert await Reboot(room, tmp_path, room.keep).ask("op", "stuck") == module.LEAVES_S
        assert not wish.exists(), "the answer goes out first"
        await until(wish.exists)
        assert room.why == "reboot"
        wish.unlink()  # as the service does, before it restarts the box

        again = Room(boot="0000000b")
        await Reboot(again, tmp_path, again.keep).restore(room.kept["reboot"])
        assert again.events == [{"type": "box.rebooted", "by": "op", "reason": "stuck"}]
        third = Room(boot="0000000c")
        await Reboot(third, tmp_path, third.keep).restore(again.kept["reboot"])
        assert third.events == [], "told once"

    run(scene())


def test_a_wish_that_nobody_takes_is_taken_back(tmp_path: Path) -> None:
    async def scene() -> None:
        room, wish = Room(), tmp_path / WISH
        await Reboot(room, tmp_path, room.keep).ask("op", "")
        await until(lambda: bool(room.events))
        assert room.events == [{"type": "box.reboot_failed", "why": "not_taken"}]
        assert not wish.exists()
        assert room.why == "shutdown"

        # An agent that died in between leaves its wish to the next one.
        wish.touch()
        same = Room()
        later = Reboot(same, tmp_path, same.keep)
        later.take_back()
        await later.restore(room.kept["reboot"])
        assert not wish.exists()
        assert same.events == [], "the same boot: nothing was restarted"

    run(scene())


@pytest.mark.parametrize("mode", [Mode.IN_SESSION, Mode.RECESS])
def test_never_in_a_hearing(tmp_path: Path, mode: Mode) -> None:
    async def scene() -> None:
        room = Room()
        reboot = Reboot(room, tmp_path, room.keep)
        room.mode = mode
        with pytest.raises(Refused) as refused:
            await reboot.ask("op", "")
        assert refused.value.code == mode.value
        assert not list(tmp_path.iterdir())
        # One that begins after the answer and before the wish.
        room.mode = Mode.IDLE
        await reboot.ask("op", "")
        room.mode = mode
        await until(lambda: bool(room.events))
        assert room.events == [{"type": "box.reboot_failed", "why": "in_session"}]
        assert not list(tmp_path.iterdir())
        room.mode = Mode.IDLE
        await reboot.ask("op", "")
        await until((tmp_path / WISH).exists)

    run(scene())


def test_nor_shortly_before_one(tmp_path: Path) -> None:
    async def scene() -> None:
        room = Room()
        reboot = Reboot(room, tmp_path, room.keep)
        starts_s = room.now().utc_s + module.SOON_S - 1
        room.modes.hearings = (Hearing("1", starts_s, starts_s + 3600),)
        with pytest.raises(Refused) as refused:
            await reboot.ask("op", "")
        assert refused.value.code == "session_lock"
        room.modes.hearings = (Hearing("1", starts_s + 3600, starts_s + 7200),)
        await reboot.ask("op", "")
        await until((tmp_path / WISH).exists)

    run(scene())


def test_a_folder_that_takes_nothing_and_an_agent_by_hand(tmp_path: Path) -> None:
    async def scene() -> None:
        room = Room()
        with pytest.raises(OSError, match="No such file"):
            await Reboot(room, tmp_path / "gone", room.keep).ask("op", "")
        by_hand = Reboot(room, None, room.keep)
        await by_hand.restore(b"nonsense")
        with pytest.raises(Refused) as refused:
            await by_hand.ask("op", "")
        assert refused.value.code == "not_available"
        assert room.events == []

    run(scene())


def test_a_disk_that_hangs_keeps_nobody_from_restarting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DISK_S", 0.02)

    async def never(name: str, body: bytes) -> bool:
        await asyncio.Event().wait()
        return False

    async def scene() -> None:
        await Reboot(Room(), tmp_path, never).ask("op", "")
        await until((tmp_path / WISH).exists)

    run(scene())
