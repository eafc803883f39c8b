"""One question, one answer: what a lane does with real children that misbehave."""

from __future__ import annotations

import asyncio
import os
import select
import shlex

import pytest
from lane_stage import TEST_S, Stage, is_running, look, pid_of, run, until

from agent.clock import up_s
from agent.lanes import process
from agent.lanes.lane import by_hand
from agent.model import Fault

pytestmark = pytest.mark.usefixtures("short_kills", "no_descriptor_is_left_open")


def test_a_question_is_answered_and_the_reading_says_when_and_by_whom(stage: Stage) -> None:
    async def test() -> None:
        lane = stage.lane()
        assert (lane.state, lane.hello) == ("none", None)
        before_s = up_s()
        reading = await look(lane)
        assert reading.device == "cam"
        assert before_s <= reading.asked_s <= reading.asked_s + reading.took_s <= up_s()
        assert lane.state == "running"
        assert lane.hello is not None
        assert lane.hello.confined == ("nothing",)
        assert lane.hello.pid == pid_of(reading)
        await lane.close()
        assert lane.state == "none"

    run(test)


def test_one_worker_answers_many_questions_and_is_prepared_once_for_each_kind(
    stage: Stage,
) -> None:
    async def test() -> None:
        lane = stage.lane()
        for kind in ("camera", "camera", "microphone", "camera"):
            assert (await look(lane, kind=kind)).fault is None
        await lane.close()

    run(test)
    asked = [words[1:] for words in stage.log("ask")]
    assert asked == [
        ["camera", "prepare"],
        ["camera", "look"],
        ["camera", "look"],
        ["microphone", "prepare"],
        ["microphone", "look"],
        ["camera", "look"],
    ]
    assert len(stage.log("start")) == 1
    numbers = [int(words[0]) for words in stage.log("ask")]
    assert len(set(numbers)) == len(numbers)


def test_asks_at_the_same_time_wait_their_turn(stage: Stage) -> None:
    async def test() -> None:
        lane = stage.lane()
        readings = await asyncio.gather(*(look(lane, device=f"cam-{n}") for n in range(5)))
        assert [r.device for r in readings] == [f"cam-{n}" for n in range(5)]
        assert len({pid_of(r) for r in readings}) == 1
        sent = [r.asked_s for r in readings]
        assert sent == sorted(sent)
        await lane.close()

    run(test)


@pytest.mark.parametrize(
    ("script", "fault", "why"),
    [
        ("hang", Fault.NO_ANSWER, "deadline"),
        ("deaf", Fault.NO_ANSWER, "deadline"),
        ("fifo", Fault.NO_ANSWER, "deadline"),
        ("half", Fault.NO_ANSWER, "deadline"),
        ("late", Fault.NO_ANSWER, "deadline"),
        ("crash", Fault.NO_ANSWER, "died"),
        ("exit", Fault.NO_ANSWER, "died"),
        ("garbage", Fault.ERROR, "broke_rules"),
        ("flood", Fault.ERROR, "broke_rules"),
        ("wrong-id", Fault.ERROR, "broke_rules"),
        ("nan", Fault.ERROR, "broke_rules"),
        ("infinite", Fault.ERROR, "broke_rules"),
        ("oversize", Fault.ERROR, "broke_rules"),
        ("free-word", Fault.ERROR, "broke_rules"),
        ("extra", Fault.ERROR, "broke_rules"),
        ("twice", Fault.ERROR, "broke_rules"),
        ("print", Fault.ERROR, "broke_rules"),
        ("stderr-flood", Fault.ERROR, "broke_rules"),
    ],
)
def test_a_worker_that_misbehaves_dies_and_the_next_one_answers(
    stage: Stage, script: str, fault: Fault, why: str
) -> None:
    os.mkfifo(stage.folder / "fifo")

    async def test() -> None:
        lane = stage.lane()
        first = pid_of(await look(lane))
        stage.play(script)
        # Late is a verdict of the clock; everything else must not have to wait for it.
        deadline_s = 0.3 if why == "deadline" else 10.0
        began_s = up_s()
        reading = await look(lane, deadline_s)
        assert (reading.fault, reading.why, reading.values) == (fault, why, {})
        assert reading.active  # it may have opened the device
        assert up_s() - began_s < 5
        assert reading.took_s >= 0.3 or why != "deadline"
        assert lane.state == "paused"
        stage.later_s += 1.0
        second = pid_of(await look(lane))  # also: nothing late is left in the pipe
        assert second != first
        assert not is_running(first)
        assert lane.state == "running"
        await lane.close()

    run(test)


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("hello-none", "no_worker"),
        ("hello-exit", "no_worker"),
        ("hello-garbage", "broke_rules"),
        ("hello-proto", "broke_rules"),
        ("hello-flood", "broke_rules"),
        ("prepare-hang", "no_worker"),
        ("prepare-crash", "no_worker"),
        ("prepare-garbage", "broke_rules"),
    ],
)
def test_a_worker_that_cannot_start_is_an_error_and_the_next_one_answers(
    stage: Stage, script: str, why: str
) -> None:
    async def test() -> None:
        stage.play(script)
        lane = stage.lane(start_s=0.5)
        reading = await look(lane)
        assert (reading.fault, reading.why) == (Fault.ERROR, why)
        assert not reading.active  # the device was not asked
        [[first]] = stage.log("start")
        stage.later_s += 1.0
        lane._start_s = 10.0
        pid_of(await look(lane))
        assert not is_running(int(first))
        await lane.close()

    run(test)


def test_a_program_that_is_not_there_is_an_error_until_it_is(stage: Stage) -> None:
    program = stage.folder / "program"

    async def test() -> None:
        lane = stage.lane(by_hand(argv=[str(program)]))
        reading = await look(lane)
        assert (reading.fault, reading.why) == (Fault.ERROR, "no_worker")
        assert lane.state == "paused"
        program.write_text(f"#!/bin/sh\nexec {shlex.join(stage.argv)}\n")
        program.chmod(0o755)
        stage.later_s += 1.0
        pid_of(await look(lane))
        await lane.close()

    run(test)


def test_restarts_pause_longer_and_longer_and_a_good_answer_ends_that(stage: Stage) -> None:
    async def test() -> None:
        lane = stage.lane()
        pauses = [1, 2, 4, 8, 16, 32, 60, 60]
        stage.play("crash " * len(pauses))
        for pause_s in pauses:
            reading = await look(lane)
            assert reading.why == "died"
            stage.later_s += pause_s - (stage.clock() - reading.asked_s) - 0.5
            reading = await look(lane)
            assert (reading.fault, reading.why) == (Fault.NO_ANSWER, "restarting")
            assert not reading.active
            assert lane.state == "paused"
            stage.later_s += 0.5
        assert (await look(lane)).fault is None
        stage.play("crash")
        assert (await look(lane)).why == "died"
        stage.later_s += 1.0
        assert (await look(lane)).fault is None
        await lane.close()

    run(test)
    assert len(stage.log("start")) == 10


def test_after_one_late_answer_the_next_question_need_not_wait(stage: Stage) -> None:
    async def test() -> None:
        stage.play("hang")
        lane = stage.lane()
        await look(lane, 0.1)
        stage.later_s += 0.9  # the rest of a second since it was sent: any period of 5 s has more
        assert (await look(lane)).fault is None
        await lane.close()

    run(test)


def test_an_answer_with_a_fault_is_no_failure_of_the_worker(stage: Stage) -> None:
    async def test() -> None:
        stage.play("restarting restarting")
        lane = stage.lane()
        reading = await look(lane)
        assert (reading.fault, reading.why) == (Fault.NO_ANSWER, "restarting")
        assert (await look(lane)).fault is None  # no pause
        await lane.close()

    run(test)


def test_a_worker_that_asks_for_a_new_one_is_replaced_within_the_same_ask(stage: Stage) -> None:
    async def test() -> None:
        lane = stage.lane()
        first = pid_of(await look(lane))
        stage.play("restarting")
        second = pid_of(await look(lane))
        assert second != first
        assert not is_running(first)
        await lane.close()

    run(test)
    assert len(stage.log("eof")) == 2  # both ended of themselves


def test_words_after_the_answer_end_the_worker_before_the_next_question(stage: Stage) -> None:
    async def test() -> None:
        stage.play("then-more")
        lane = stage.lane()
        first = pid_of(await look(lane))
        await until(lambda: not is_running(first))
        assert pid_of(await look(lane)) != first
        await lane.close()

    run(test)


@pytest.mark.parametrize("seen", [True, False])
def test_a_worker_that_ended_between_two_questions_is_replaced_without_a_fault(
    stage: Stage, seen: bool
) -> None:
    async def test() -> None:
        stage.play("then-exit")
        lane = stage.lane()
        first = pid_of(await look(lane))
        if seen:
            await until(lambda: lane.state == "none")
        else:
            end = os.pidfd_open(first)  # waiting this way the loop has no chance to look
            select.select([end], [], [], TEST_S)
            os.close(end)
        assert pid_of(await look(lane)) != first
        await lane.close()

    run(test)


def test_standard_error_is_drained_and_only_its_end_is_kept(stage: Stage) -> None:
    async def test() -> None:
        lane = stage.lane()
        stage.play("chatter chatter chatter")
        for _ in range(3):
            assert (await look(lane)).fault is None
        assert lane._worker is not None
        await until(lambda: lane._worker.tail.endswith(b"end\n"))
        assert len(lane._worker.tail) == process.MAX_TAIL
        await lane.close()

    run(test)


def test_what_a_crashed_worker_started_goes_with_it(stage: Stage) -> None:
    async def test() -> None:
        stage.play("crash-with-child")
        lane = stage.lane()
        assert (await look(lane)).why == "died"
        [[child]] = stage.log("child")
        await until(lambda: not is_running(int(child)))
        stage.later_s += 1.0
        assert (await look(lane)).fault is None
        await lane.close()

    run(test)
