"""A lane whose device is to be opened anew: the worker goes, and its past with it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from lane_stage import Stage, is_running, look, pid_of, run, until
from test_lane_lifetime import Unkillable, unkillable

from agent.model import Fault

pytestmark = pytest.mark.usefixtures("short_kills", "no_descriptor_is_left_open")


def test_the_next_question_meets_a_new_worker(stage: Stage) -> None:
    async def test() -> None:
        lane = stage.lane()
        assert await lane.renew(), "there was none"
        first = pid_of(await look(lane))
        assert await lane.renew()
        assert not is_running(first)
        assert lane.state == "none"
        assert pid_of(await look(lane)) != first
        await lane.close()

    run(test)


def test_failures_of_the_past_cost_no_pause(stage: Stage) -> None:
    async def test() -> None:
        stage.play("hang hang")
        lane = stage.lane()
        assert (await look(lane, 0.1)).why == "deadline"
        assert (await look(lane)).why == "restarting"
        assert await lane.renew()
        assert (await look(lane, 0.1)).why == "deadline", "it was asked"
        assert await lane.renew()
        assert pid_of(await look(lane))
        await lane.close()

    run(test)


def test_a_worker_that_does_not_go_stays_in_quarantine(stage: Stage) -> None:
    made: list[Unkillable] = []

    async def test() -> None:
        stage.play("hang")
        lane = stage.lane(unkillable(stage, made))
        await look(lane, 0.1)
        assert not await lane.renew()
        assert (await look(lane)).fault is Fault.QUARANTINED
        os.kill(made[0].pid, signal.SIGKILL)  # the driver lets go at last
        await until(lambda: not is_running(made[0].pid))
        assert await lane.renew()
        assert pid_of(await look(lane)) != made[0].pid
        await lane.close()

    run(test)


def test_it_waits_for_the_answer_under_way(stage: Stage, tmp_path: Path) -> None:
    import asyncio

    async def test() -> None:
        lane = stage.lane()
        first = pid_of(await look(lane))
        asking = asyncio.create_task(look(lane))
        await asyncio.sleep(0)
        assert await lane.renew()
        assert pid_of(await asking) == first
        await lane.close()

    run(test)
