"""One device under watch: looks that are let go, ended, waited for. The lane is a stand-in that
answers when it is told to."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

from lane_stage import run, until

from agent import kinds
from agent.judge.findings import DeviceState
from agent.lanes.air import Air
from agent.lanes.lane import Lane
from agent.lanes.watch import AIR_S, GRACE_S, LANE_GRACE_S, Look, Watched
from agent.model import Device, Fault, Moment, Reading


class Worker:
    """Answers `answer` as soon as `ready`."""

    clings = False

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.asked: list[str] = []
        self.answer = Reading({"level_dbfs": -40.0})

    async def ask(self, **question: Any) -> Reading:
        self.asked.append(question["ask"])
        await self.ready.wait()
        return self.answer


class Room:
    """What a watched device needs of a room, with one microphone in it."""

    def __init__(self) -> None:
        self.forbidden = ""
        self.looks: list[tuple[str, Look, Reading | None]] = []
        self.worker, self.air = Worker(), Air()
        self.now = Moment(100.0, 1_800_000_000.0)
        settings = kinds.load("microphone").Settings(source="file:none.wav", period_s=3_600)
        self.mic = Watched(
            Device("mic", "microphone", settings),
            self,
            lane=cast(Lane, self.worker),
            root=Path("/nonexistent"),
            clock=lambda: self.now,
            max_age_s=600,
            state=DeviceState(),
            passive=self,
            air=self.air,
        )

    async def read(self) -> Reading:
        return Reading({"present": True})

    def may_look(self, device: Device) -> str:
        return self.forbidden

    def looking(self, device: Device, look: Look, reading: Reading | None) -> None:
        self.looks.append(("ended" if reading else "started", look, reading))

    def taken(self, watched: Watched) -> None:
        pass


def test_a_look_that_is_let_go_ends_and_the_device_is_watched_on() -> None:
    async def scene() -> None:
        room = Room()
        watching = asyncio.create_task(room.mic.run())
        await until(lambda: room.worker.asked)
        room.forbidden = "in_session"
        room.mic.let_go()
        await until(lambda: len(room.looks) == 2)
        (_, _, reading) = room.looks[-1]
        assert reading is not None
        assert (reading.fault, reading.why) == (Fault.SKIPPED, "in_session")
        room.forbidden = ""
        room.worker.ready.set()
        assert (await room.mic.ask_now("somebody")).values["level_dbfs"] == -40.0
        assert [e for e, _, _ in room.looks] == ["started", "ended"] * 2
        watching.cancel()
        await asyncio.wait({watching})

    run(scene)


def test_an_end_that_comes_together_with_a_hearing_is_still_an_end() -> None:
    async def scene() -> None:
        room = Room()
        watching = asyncio.create_task(room.mic.run())
        await until(lambda: room.worker.asked)
        room.mic.let_go()
        watching.cancel()
        done, _ = await asyncio.wait({watching}, timeout=2)
        assert done, "the device is watched on after the end"
        assert watching.cancelled()
        assert [e for e, _, _ in room.looks] == ["started", "ended"]

    run(scene)


def test_a_look_says_what_for_and_who_asked() -> None:
    async def scene() -> None:
        room = Room()
        room.worker.ready.set()
        watching = asyncio.create_task(room.mic.run())
        await until(lambda: len(room.looks) == 2)
        await asyncio.gather(
            room.mic.ask_now("uid:7"),
            room.mic.ask_now("central"),
            room.mic.ask_now("installer", "baseline"),
        )
        room.mic.hurry("button")
        await until(lambda: len(room.looks) == 8)
        told = [(o.question, o.purpose, o.by) for e, o, _ in room.looks if e == "started"]
        assert told == [
            ("look", "watch", "agent"),
            ("look", "check", "central, uid:7"),
            ("baseline", "baseline", "installer"),
            ("look", "check", "button"),
        ]
        assert room.worker.asked == ["look", "look", "baseline", "look"]
        watching.cancel()
        await asyncio.wait({watching})

    run(scene)


def test_who_waits_for_a_loop_test_is_not_late_but_not_for_ever() -> None:
    async def scene() -> None:
        room = Room()
        async with room.air.sounding():
            watching = asyncio.create_task(room.mic.run())
            await asyncio.sleep(0.01)
            assert not room.worker.asked
            owed_s = 2 * room.mic.device.settings.deadline_s + GRACE_S + LANE_GRACE_S
            assert not room.mic.late(room.now.after(owed_s + 1))
            assert not room.mic.late(room.now.after(owed_s + AIR_S - 1))
            assert room.mic.late(room.now.after(owed_s + AIR_S + 1))
        await until(lambda: room.worker.asked)
        assert room.mic.late(room.now.after(owed_s + 1))
        watching.cancel()
        await asyncio.wait({watching})

    run(scene)


def test_in_session_no_number_of_a_look_is_told() -> None:
    async def scene() -> None:
        room = Room()
        room.worker.ready.set()
        watching = asyncio.create_task(room.mic.run())
        await until(lambda: room.mic.reading)
        assert room.mic.reading is not None
        assert "level_dbfs" in room.mic.reading.values
        room.forbidden = "in_session"  # at this very moment, before anything is read again
        assert room.mic.reading.values == {}
        assert room.mic.reading.fault is Fault.SKIPPED
        room.forbidden = ""
        assert "level_dbfs" in room.mic.reading.values
        watching.cancel()
        await asyncio.wait({watching})

    run(scene)
