"""Who listens and who sounds: never at the same time, and everybody gets his turn."""

from __future__ import annotations

import asyncio

import pytest
from lane_stage import run

from agent.lanes.air import Air


class Room:
    """Devices that note when they begin and end."""

    def __init__(self) -> None:
        self.air = Air()
        self.story: list[str] = []
        self.go = asyncio.Event()

    async def listen(self, name: str) -> None:
        async with self.air.listening():
            self.story.append(f"{name} hears")
            await self.go.wait()
            self.story.append(f"{name} ends")

    async def sound(self, name: str = "speaker") -> None:
        async with self.air.sounding():
            self.story.append(f"{name} sounds")
            await asyncio.sleep(0)
            self.story.append(f"{name} ends")


def test_many_listen_at_once_and_a_sound_waits_for_all_of_them() -> None:
    async def scene() -> None:
        room = Room()
        async with asyncio.TaskGroup() as group:
            for name in ("a", "b"):
                group.create_task(room.listen(name))
            group.create_task(room.sound())
            await asyncio.sleep(0.01)
            assert room.story == ["a hears", "b hears"]
            room.go.set()
        assert room.story[-2:] == ["speaker sounds", "speaker ends"]

    run(scene)


def test_who_comes_after_a_sound_waits_for_it_and_then_listens() -> None:
    async def scene() -> None:
        room = Room()
        async with asyncio.TaskGroup() as group:
            group.create_task(room.listen("a"))
            await asyncio.sleep(0)
            group.create_task(room.sound())
            await asyncio.sleep(0)
            group.create_task(room.listen("late"))
            await asyncio.sleep(0.01)
            assert room.story == ["a hears"], "a sound that waits is not overtaken for ever"
            room.go.set()
        assert room.story.index("late hears") > room.story.index("speaker ends")

    run(scene)


def test_two_loudspeakers_sound_one_after_the_other() -> None:
    async def scene() -> None:
        room = Room()
        await asyncio.gather(room.sound("one"), room.sound("two"))
        assert room.story == ["one sounds", "one ends", "two sounds", "two ends"]

    run(scene)


def test_who_gives_up_waiting_or_fails_leaves_the_air_free() -> None:
    async def scene() -> None:
        room = Room()
        first = asyncio.create_task(room.listen("a"))
        await asyncio.sleep(0)
        sound = asyncio.create_task(room.sound())
        await asyncio.sleep(0)
        sound.cancel()
        first.cancel()
        await asyncio.gather(first, sound, return_exceptions=True)
        with pytest.raises(ZeroDivisionError):
            async with room.air.sounding():
                raise ZeroDivisionError
        async with asyncio.timeout(1):
            await room.sound()

    run(scene)


def test_a_device_that_a_program_has_is_named() -> None:
    async def scene() -> None:
        air, held = Air(), {"mic-2": True}
        for name in ("mic-1", "mic-2"):

            async def ask(name: str = name) -> bool:
                return held.get(name, False)

            air.join(name, ask)
        assert await air.held_by_others() == "mic-2"
        held.clear()
        assert await air.held_by_others() == ""

    run(scene)
