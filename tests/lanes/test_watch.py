"""A watched device from question to verdict; the lane's answers are a list, time is handed in."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.judge import findings as judging
from agent.kinds import camera
from agent.lanes.lane import Lane
from agent.lanes.watch import Look, Watched
from agent.model import Device, Fault, Moment, Reading

BLACK = Reading({"luma_mean": 1.0, "luma_spread": 0.5, "edge_contrast": 0.1}, active=True)
WELL = Reading({"luma_mean": 100.0, "luma_spread": 90.0, "edge_contrast": 20.0}, active=True)
HELD = Reading(fault=Fault.BUSY, why="held", active=True)
STUCK = Reading(fault=Fault.QUARANTINED, why="deadline", active=True)


class Answers(Lane):
    """A lane that gives these readings, one a question. Its worker clings to the device from the
    first failure on."""

    def __init__(self, readings: Sequence[Reading]) -> None:
        self._readings = list(readings)
        self._clings = False

    @property
    def clings(self) -> bool:
        return self._clings

    async def ask(self, **question: Any) -> Reading:
        del question
        reading = self._readings.pop(0)
        self._clings = reading.fault in (Fault.NO_ANSWER, Fault.QUARANTINED)
        return reading


class InUse:
    """The kernel says from some moment on that somebody streams."""

    def __init__(self, lane: Answers) -> None:
        self._lane = lane

    async def read(self) -> Reading:
        return Reading({"in_use": self._lane.clings})


class Room:
    """A room in which everything may be looked at."""

    def may_look(self, device: Device) -> str:
        del device
        return ""

    def looking(self, device: Device, look: Look, reading: Reading | None) -> None:
        del device, look, reading

    def taken(self, watched: Watched) -> None:
        del watched


def standing(tmp_path: Path, readings: Sequence[Reading]) -> list[list[str]]:
    """The codes that stand after each of some readings, which come ten seconds apart."""
    return [codes for codes, _ in watched_through(tmp_path, readings)]


def watched_through(
    tmp_path: Path, readings: Sequence[Reading], *, held_by_worker: bool = False
) -> list[tuple[list[str], bool]]:
    """The codes that stand after each reading, and whether it says anything of use by others."""
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/video9").touch()
    settings = camera.Settings(source="v4l2:/dev/video9")
    now = [Moment(1_000.0, 1_800_000_000.0)]
    lane = Answers(readings)
    watched = Watched(
        Device("cam", "camera", settings),
        Room(),
        lane=lane,
        passive=InUse(lane) if held_by_worker else None,
        root=tmp_path,
        clock=lambda: now[0],
        max_age_s=3_600,
        state=judging.DeviceState(),
    )

    async def follow() -> list[tuple[list[str], bool]]:
        told = []
        # The first question is asked unbidden; each further one as soon as it is wanted.
        waits = [asyncio.ensure_future(watched.ask_now("test"))]
        task = asyncio.ensure_future(watched.run())
        async with asyncio.timeout(10):
            for _ in readings:
                await waits.pop()
                assert watched.state.reading is not None
                in_use = "in_use" in watched.state.reading.values
                told.append((sorted(f.code for f in watched.findings), in_use))
                now[0] = now[0].after(10.0)
                waits.append(asyncio.ensure_future(watched.ask_now("test")))
                await asyncio.sleep(0)
        for left in (task, *waits):
            left.cancel()
        await asyncio.gather(task, *waits, return_exceptions=True)
        return told

    return asyncio.run(follow())


def test_a_fault_of_the_picture_stands_while_somebody_else_holds_the_camera(tmp_path: Path) -> None:
    told = standing(tmp_path, [BLACK, BLACK, HELD, HELD, HELD, WELL, WELL])
    assert told[1] == ["camera.black"]
    assert told[2:5] == [["camera.black", "camera.busy"]] * 3
    assert told[5] == ["camera.black"]  # good was seen once
    assert told[6] == []


def test_a_camera_that_was_well_is_merely_busy_and_then_well(tmp_path: Path) -> None:
    told = standing(tmp_path, [WELL, HELD, HELD, WELL])
    assert told == [[], ["camera.busy"], ["camera.busy"], []]


def test_a_camera_that_only_our_own_stuck_worker_holds_is_not_in_use(tmp_path: Path) -> None:
    late = Reading(fault=Fault.NO_ANSWER, why="deadline", active=True)
    readings = [WELL, late, STUCK, STUCK, STUCK, WELL, WELL]
    told = watched_through(tmp_path, readings, held_by_worker=True)
    codes = [found for found, _ in told]
    assert all("camera.busy" not in found for found in codes)
    assert codes[3:5] == [["camera.no_answer"]] * 2
    assert codes[6] == []
    # Else two such devices would look like a call, which is a session.
    assert [in_use for _, in_use in told[2:5]] == [False] * 3
