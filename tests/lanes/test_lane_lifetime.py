"""How long a worker lives, and what a lane does with one that should not or will not."""

from __future__ import annotations

import asyncio
import json
import os
import select
import selectors
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from lane_stage import TEST_S, Stage, is_running, look, pid_of, run, until

from agent.clock import up_s
from agent.lanes import process
from agent.lanes.lane import LIFE_S, Connection, Spawn, by_hand, by_socket
from agent.model import Fault, LaneError, WireError

pytestmark = pytest.mark.usefixtures("short_kills", "no_descriptor_is_left_open")


@pytest.mark.parametrize("moment", ["starting", "asking"])
def test_a_cancelled_ask_takes_the_worker_with_it(stage: Stage, moment: str) -> None:
    async def test() -> None:
        lane = stage.lane()
        if moment == "asking":
            stage.play("late")
            asking = asyncio.create_task(look(lane))
            await until(lambda: len(stage.log("ask")) == 2)
        else:
            stage.play("hello-none")
            asking = asyncio.create_task(look(lane))
            await until(lambda: stage.log("start"))
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        reading = await look(lane)  # at once: that was no failure
        [first], [second] = stage.log("start")
        assert pid_of(reading) == int(second)
        assert not is_running(int(first))
        await lane.close()

    run(test)


def test_an_ask_that_is_cancelled_in_the_queue_harms_nobody(stage: Stage) -> None:
    async def test() -> None:
        lane = stage.lane()
        first, second, third = (asyncio.create_task(look(lane)) for _ in range(3))
        await asyncio.sleep(0)
        second.cancel()
        assert pid_of(await first) == pid_of(await third)
        await lane.close()

    run(test)


def test_an_idle_worker_is_let_go_and_a_new_one_started_on_demand(stage: Stage) -> None:
    async def test() -> None:
        lane = stage.lane(idle_s=0.05)
        first = pid_of(await look(lane))
        await until(lambda: lane.state == "none" and not is_running(first))
        assert stage.log("eof") == [[]]
        assert pid_of(await look(lane)) != first
        await lane.close()

    run(test)


def test_a_question_puts_the_idle_timer_off(stage: Stage) -> None:
    async def test() -> None:
        lane = stage.lane(idle_s=0.5)
        began_s = up_s()
        pids = set()
        while up_s() - began_s < 0.8:
            pids.add(pid_of(await look(lane)))
            await asyncio.sleep(0.05)
        assert len(pids) == 1
        await lane.close()

    run(test)


def test_an_old_worker_is_replaced_between_two_questions(stage: Stage) -> None:
    async def test() -> None:
        lane = stage.lane()
        first = pid_of(await look(lane))
        stage.later_s += LIFE_S + 1
        assert pid_of(await look(lane)) == first
        assert pid_of(await look(lane)) != first
        await lane.close()

    run(test)


def test_nothing_wakes_the_loop_while_a_worker_waits(stage: Stage) -> None:
    class Counting(selectors.EpollSelector):
        count = 0

        def select(self, timeout: float | None = None) -> Any:
            self.count += 1
            return super().select(timeout)

    selector = Counting()

    async def test() -> None:
        lane = stage.lane()
        await look(lane)
        await asyncio.sleep(0.05)
        before = selector.count
        await asyncio.sleep(0.4)
        assert selector.count - before <= 2
        await lane.close()

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        runner.run(asyncio.wait_for(test(), TEST_S))


def test_a_closed_lane_leaves_no_process_and_answers_that_there_is_none(stage: Stage) -> None:
    async def test() -> None:
        stage.play("hang")
        lane = stage.lane()
        asking = asyncio.create_task(look(lane))
        await until(lambda: len(stage.log("ask")) == 2)
        await lane.close()
        assert (await asking).why == "died"
        assert (await look(lane)).why == "no_worker"
        await lane.close()
        [[pid]] = stage.log("start")
        assert not is_running(int(pid))

    run(test)


def test_the_last_answer_of_a_worker_that_is_already_gone_counts(stage: Stage) -> None:
    async def test() -> None:
        lane = stage.lane()
        pid = pid_of(await look(lane))
        stage.play("then-exit")
        asking = asyncio.create_task(look(lane))
        await asyncio.sleep(0)  # sent
        end = os.pidfd_open(pid)
        select.select([end], [], [], TEST_S)
        os.close(end)
        assert lane._worker is not None
        assert lane._worker.is_gone()  # the loop hears of the end before it hears the answer
        assert pid_of(await asking) == pid
        await lane.close()

    run(test)


def test_a_question_that_cannot_be_a_line_is_the_callers_error(stage: Stage) -> None:
    async def test() -> None:
        lane = stage.lane()
        with pytest.raises(WireError):
            await look(lane, settings={"a": "x" * 20_000})
        assert (await look(lane)).fault is None
        await lane.close()

    run(test)


def test_no_secret_and_no_descriptor_of_the_agent_reaches_the_worker(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MQTT_PASSWORD", "do-not-tell")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials")

    async def test() -> None:
        with (stage.folder / "agent.db").open("w") as database:
            os.set_inheritable(database.fileno(), True)
            stage.play("environ files")
            lane = stage.lane()
            pid = pid_of(await look(lane))
            assert b"do-not-tell" not in Path(f"/proc/{pid}/environ").read_bytes()
            pid_of(await look(lane))
            await lane.close()

    run(test)
    [[environment]] = [[" ".join(words)] for words in stage.log("environ")]
    assert set(json.loads(environment)) <= {
        "PATH",
        "HOME",
        "LANG",
        "LC_CTYPE",
        "PYTHONPATH",
        "PYTHONDONTWRITEBYTECODE",
        "PYDANTIC_DISABLE_PLUGINS",
    }
    [descriptors] = stage.log("files")
    assert set(descriptors) == {"0", "1", "2", "3"}  # 3: the folder it lists


class Unkillable:
    """A real process in uninterruptible sleep, as far as signals go."""

    def __init__(self, real: process.Process) -> None:
        self.real = real
        self.pid = real.pid
        self.fd = real.fd
        self.signals: list[int] = []

    def met(self, pid: int) -> None:
        self.real.met(pid)

    def send_signal(self, number: int) -> None:
        self.signals.append(number)

    def gone(self) -> bool:
        return self.real.gone()


def unkillable(stage: Stage, made: list[Unkillable], *, watched: bool = True) -> Spawn:
    """The first worker cannot be killed, the others can."""
    start = by_hand(argv=stage.argv)

    async def spawn() -> Connection:
        connection = await start()
        if made:
            return connection
        made.append(Unkillable(connection.process))
        if not watched:
            assert made[0].fd is not None
            os.close(made[0].fd)
            made[0].fd = None
        return Connection(connection.sock, made[0], connection.stderr)

    return spawn


@pytest.mark.parametrize("watched", [True, False])
def test_a_worker_that_does_not_die_is_quarantined_until_it_is_gone(
    stage: Stage, watched: bool
) -> None:
    made: list[Unkillable] = []

    async def test() -> None:
        stage.play("hang")
        lane = stage.lane(unkillable(stage, made, watched=watched))
        began_s = up_s()
        reading = await look(lane, 0.2)
        assert (reading.fault, reading.why) == (Fault.NO_ANSWER, "deadline")
        for _ in range(2):
            stage.later_s += 100
            reading = await look(lane)
            assert (reading.fault, reading.why) == (Fault.QUARANTINED, "deadline")
            assert not reading.active
            assert lane.state == "quarantined"
            assert lane.clings
        assert up_s() - began_s < 0.2 + 2 * process.KILL_S + 1
        assert made[0].signals == [signal.SIGABRT, signal.SIGKILL]
        assert len(stage.log("start")) == 1  # nobody opened the device again
        os.kill(made[0].pid, signal.SIGKILL)  # the driver lets go at last
        if watched:
            await until(lambda: lane.state != "quarantined")
        else:
            await until(lambda: not is_running(made[0].pid))
        assert pid_of(await look(lane)) != made[0].pid
        assert (lane.state, lane.clings) == ("running", False)
        await lane.close()

    run(test)


def test_closing_is_bounded_also_when_the_worker_does_not_die(stage: Stage) -> None:
    made: list[Unkillable] = []

    async def test() -> None:
        stage.play("hang")
        lane = stage.lane(unkillable(stage, made))
        await look(lane, 0.1)
        began_s = up_s()
        await lane.close()
        assert up_s() - began_s < 2 * process.KILL_S + 1
        assert is_running(made[0].pid)
        os.kill(made[0].pid, signal.SIGKILL)
        await until(made[0].gone)

    run(test)


# A service manager: a socket, and for each connection a worker of its own.


class Manager:
    """Accepts connections as a socket unit with `Accept=yes` does."""

    def __init__(self, path: Path, argv: list[str]) -> None:
        self.children: list[subprocess.Popen[bytes]] = []
        self._argv = argv
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        self._socket.setblocking(False)
        asyncio.get_running_loop().add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        connection, _ = self._socket.accept()
        with connection:
            connection.setblocking(True)
            self.children.append(subprocess.Popen(self._argv, stdin=connection, stdout=connection))

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        for child in self.children:
            child.kill()
            child.wait()


def test_a_worker_of_the_service_manager_answers_and_leaves_when_idle(stage: Stage) -> None:
    async def test() -> None:
        path = stage.folder / "socket"
        manager = Manager(path, stage.argv)
        lane = stage.lane(by_socket(path), idle_s=0.1)
        first = pid_of(await look(lane))
        assert first == manager.children[0].pid
        await until(lambda: not is_running(first))
        assert pid_of(await look(lane)) == manager.children[1].pid
        await lane.close()
        manager.close()

    run(test)
    assert len(stage.log("eof")) == 2


def test_a_worker_that_the_agent_may_not_signal_is_waited_for(stage: Stage) -> None:
    async def test() -> None:
        path = stage.folder / "socket"
        manager = Manager(path, stage.argv)
        stage.play("hang")
        lane = stage.lane(by_socket(path))
        assert (await look(lane, 0.1)).why == "deadline"
        stage.later_s += 1.0
        reading = await look(lane)
        assert (reading.fault, reading.why) == (Fault.QUARANTINED, "deadline")
        assert is_running(manager.children[0].pid)
        manager.children[0].send_signal(signal.SIGALRM)  # as its own timer does
        await until(lambda: lane.state != "quarantined")
        assert pid_of(await look(lane)) == manager.children[1].pid
        await lane.close()
        manager.close()

    run(test)


def test_a_worker_that_never_said_hello_is_gone_when_its_socket_hangs_up(stage: Stage) -> None:
    async def test() -> None:
        path = stage.folder / "socket"
        manager = Manager(path, stage.argv)
        stage.play("hello-none")
        lane = stage.lane(by_socket(path), start_s=0.3)
        assert (await look(lane)).why == "no_worker"
        stage.later_s += 1.0
        assert (await look(lane)).fault is Fault.QUARANTINED
        manager.children[0].kill()
        manager.children[0].wait()
        lane._start_s = 10.0
        assert pid_of(await look(lane)) == manager.children[1].pid
        await lane.close()
        manager.close()

    run(test)


def test_a_socket_that_is_not_there_is_an_error_until_it_is(stage: Stage) -> None:
    async def test() -> None:
        path = stage.folder / "socket"
        with pytest.raises(LaneError):
            await by_socket(path)()
        lane = stage.lane(by_socket(path))
        reading = await look(lane)
        assert (reading.fault, reading.why) == (Fault.ERROR, "no_worker")
        manager = Manager(path, stage.argv)
        stage.later_s += 1.0
        pid_of(await look(lane))
        await lane.close()
        manager.close()

    run(test)
