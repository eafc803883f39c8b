"""The agent's line to hands: whatever the other side does, a question ends, and never with the
answer to another one. Nothing is killed, nothing is left open."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import pytest
from lane_stage import is_running, run, until

from agent.lanes import hands as lanes
from agent.lanes import wire
from agent.lanes.hands import LOST, RETRY_S, START_AGAIN_S, ByHand, HandsLane, by_socket
from agent.model import Fault, Reading

pytestmark = pytest.mark.usefixtures("no_descriptor_is_left_open")
HELLO = wire.encode_hello(wire.Hello(wire.PROTO, "0.1.0", 7, ("seccomp",)))
Play = Callable[["Other", asyncio.StreamWriter, dict[str, Any]], Awaitable[None]]


def answer(question: dict[str, Any], **values: Any) -> bytes:
    return wire.encode(question["id"], Reading(values))


class Other:
    """The other side, which answers as told: one play a question, the last one for ever."""

    def __init__(self, path: Path, *plays: Play, hello: bytes = HELLO) -> None:
        self.path = path
        self.plays = list(plays)
        self.hello = hello
        self.heard: list[dict[str, Any]] = []
        self.calls = 0
        self._open: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._talk, str(self.path))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.vanish()

    async def vanish(self) -> None:
        self._server.close()
        for writer in set(self._open):
            writer.close()
        await asyncio.sleep(0.01)
        self.path.unlink(missing_ok=True)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.calls += 1
        self._open.add(writer)
        try:
            writer.write(self.hello)
            while line := await reader.readline():
                self.heard.append(json.loads(line))
                play = self.plays.pop(0) if len(self.plays) > 1 else self.plays[0]
                await play(self, writer, self.heard[-1])
        except (ConnectionError, asyncio.CancelledError):  # the scene is over
            pass
        finally:
            self._open.discard(writer)
            writer.close()


async def right(other: Other, writer: asyncio.StreamWriter, question: dict[str, Any]) -> None:
    writer.write(answer(question, number=question["id"]))


async def silent(other: Other, writer: asyncio.StreamWriter, question: dict[str, Any]) -> None:
    pass


async def late(other: Other, writer: asyncio.StreamWriter, question: dict[str, Any]) -> None:
    await asyncio.sleep(0.2)
    writer.write(answer(question, number=-1))


async def another(other: Other, writer: asyncio.StreamWriter, question: dict[str, Any]) -> None:
    writer.write(wire.encode(question["id"] - 1, Reading()))


async def twice(other: Other, writer: asyncio.StreamWriter, question: dict[str, Any]) -> None:
    writer.write(answer(question, number=question["id"]) * 2)


async def half(other: Other, writer: asyncio.StreamWriter, question: dict[str, Any]) -> None:
    writer.write(answer(question)[:10])


async def flood(other: Other, writer: asyncio.StreamWriter, question: dict[str, Any]) -> None:
    writer.write(b"x" * 100_000)


async def garbage(other: Other, writer: asyncio.StreamWriter, question: dict[str, Any]) -> None:
    writer.write(b"\xff\xfe\n")


async def stranger(other: Other, writer: asyncio.StreamWriter, question: dict[str, Any]) -> None:
    writer.write(answer(question, event="exploded"))


async def hang_up(other: Other, writer: asyncio.StreamWriter, question: dict[str, Any]) -> None:
    writer.close()


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@asynccontextmanager
async def line(path: Path, clock: Callable[[], float] | None = None) -> Any:
    lane = HandsLane(by_socket(path), clock or Clock())
    try:
        yield lane
    finally:
        await lane.close()


async def ask(lane: HandsLane, deadline_s: float = 5.0) -> Reading:
    return await lane.ask("hands", "about", words={"known"}, deadline_s=deadline_s)


def test_questions_are_answered_over_one_connection(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Other(tmp_path / "s", right) as other, line(tmp_path / "s") as lane:
            assert lane.lost_s == 100.0
            assert [(await ask(lane)).values["number"] for _ in range(3)] == [1, 2, 3]
            assert (other.calls, lane.lost_s) == (1, None)
            assert lane.hello is not None
            assert lane.hello.version == "0.1.0"

    run(scene)


@pytest.mark.parametrize(
    "play",
    [late, silent, another, half, flood, garbage, stranger, hang_up],
    ids=lambda p: p.__name__,
)
def test_an_answer_that_is_none_ends_the_connection_and_the_next_question_makes_a_new_one(
    tmp_path: Path, play: Play, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "agent.hands")

    async def scene() -> None:
        clock = Clock()
        async with Other(tmp_path / "s", play, right) as other, line(tmp_path / "s", clock) as lane:
            reading = await ask(lane, deadline_s=0.05)
            assert (reading.fault, reading.why) == (Fault.NO_ANSWER, LOST)
            assert lane.lost_s == 100.0
            clock.now_s += RETRY_S
            reading = await ask(lane)
            assert reading.values["number"] == 2
            assert (other.calls, lane.lost_s) == (2, None)

    run(scene)
    words = [record.getMessage() for record in caplog.records]
    assert len(words) == 2, "once when it breaks, once when it heals"
    assert words[1] == "hands answers again"


def test_an_answer_too_many_does_not_pass_for_the_next_one(tmp_path: Path) -> None:
    async def scene() -> None:
        clock = Clock()
        async with Other(tmp_path / "s", twice, right), line(tmp_path / "s", clock) as lane:
            assert (await ask(lane)).values["number"] == 1
            await asyncio.sleep(0.02)
            assert (await ask(lane)).why == LOST
            clock.now_s += RETRY_S
            assert (await ask(lane)).values["number"] == 3

    run(scene)


@pytest.mark.parametrize(
    "hello",
    [
        b"",
        b"\n",
        b"hello\n",
        HELLO.replace(b'"proto":1', b'"proto":2'),
        b"x" * 5000,
        HELLO.replace(b"7", b'"7"'),
    ],
    ids=lambda hello: repr(hello[:20]),
)
def test_who_introduces_himself_badly_is_not_asked(
    tmp_path: Path, hello: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "START_S", 0.2)

    async def scene() -> None:
        clock = Clock()
        other = Other(tmp_path / "s", right, hello=hello)
        async with other, line(tmp_path / "s", clock) as lane:
            assert (await ask(lane)).why == LOST
            assert other.heard == []
            other.hello = HELLO
            monkeypatch.undo()
            clock.now_s += RETRY_S
            assert (await ask(lane)).fault is None

    run(scene)


def test_nobody_there_is_tried_again_after_a_pause_and_not_before(tmp_path: Path) -> None:
    async def scene() -> None:
        clock, path = Clock(), tmp_path / "s"
        async with line(path, clock) as lane:
            assert (await ask(lane)).why == LOST
            async with Other(path, right) as other:
                clock.now_s += RETRY_S - 0.01
                assert (await ask(lane)).why == LOST
                assert other.calls == 0
                clock.now_s += 0.02
                assert (await ask(lane)).fault is None
                await other.vanish()
                assert (await ask(lane)).why == LOST
                assert lane.lost_s == clock.now_s
                since_s = clock.now_s
                for _ in range(3):
                    clock.now_s += 5
                    assert (await ask(lane)).why == LOST
                assert lane.lost_s == since_s, "since the first silence"
            async with Other(path, right):
                clock.now_s += 5
                assert (await ask(lane)).fault is None
                assert lane.lost_s is None

    run(scene)


def test_a_question_that_is_given_up_leaves_no_answer_for_the_next(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Other(tmp_path / "s", late, right) as other, line(tmp_path / "s") as lane:
            task = asyncio.create_task(ask(lane))
            await until(lambda: other.heard)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            reading = await ask(lane)
            assert reading.values["number"] == 2, "and there is no pause: nobody was at fault"
            assert other.calls == 2

    run(scene)


def test_who_gives_up_waiting_for_his_turn_disturbs_nobody(tmp_path: Path) -> None:
    async def scene() -> None:
        async def slow(other: Other, writer: asyncio.StreamWriter, q: dict[str, Any]) -> None:
            await asyncio.sleep(0.1)
            writer.write(answer(q, number=q["id"]))

        async with Other(tmp_path / "s", slow) as other, line(tmp_path / "s") as lane:
            first = asyncio.create_task(ask(lane))
            await until(lambda: other.heard)
            second = asyncio.create_task(ask(lane))
            await asyncio.sleep(0)
            second.cancel()
            assert (await first).values["number"] == 1
            assert (await ask(lane)).values["number"] == 2
            assert other.calls == 1
            await asyncio.gather(second, return_exceptions=True)

    run(scene)


def test_many_questions_at_once_are_asked_one_after_the_other(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Other(tmp_path / "s", right) as other, line(tmp_path / "s") as lane:
            answers = await asyncio.gather(*(ask(lane) for _ in range(50)))
            assert [a.values["number"] for a in answers] == list(range(1, 51))
            assert other.calls == 1

    run(scene)


# -- started by hand ------------------------------------------------------------------------------

STAND_IN = """
import json, os, socket, sys, threading, time
path = sys.argv[sys.argv.index("--socket") + 1]
with open(path + ".starts", "a") as log:
    log.write(f"{os.getpid()}\\n")
script = open(path + ".script").read()
exec(script)
sock = socket.socket(socket.AF_UNIX)
if os.path.exists(path):
    os.unlink(path)
sock.bind(path)
sock.listen()

def serve(client):
    say = lambda line: client.sendall(json.dumps(line).encode() + b"\\n")
    say({"proto": 1, "version": "0.1.0", "pid": os.getpid(), "confined": []})
    for line in client.makefile("rb"):
        question = json.loads(line)
        say({"id": question["id"], "values": {"pid": os.getpid()}})
        if question["ask"] == "stop":
            os._exit(0)

while True:
    threading.Thread(target=serve, args=sock.accept()[:1], daemon=True).start()
"""


class Nursery:
    """Where stand-ins for hands are started by hand, each as its script says."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.clock = Clock()
        (folder / "agent/hands").mkdir(parents=True)
        (folder / "agent/__init__.py").touch()
        (folder / "agent/hands/__init__.py").touch()
        (folder / "agent/hands/main.py").write_text(STAND_IN)
        self.play("")
        # The child is started as a module of the installation that the lane belongs to.
        monkeypatch.setattr(lanes, "__file__", str(folder / "agent/lanes/hands.py"))
        self.made: list[ByHand] = []

    def play(self, script: str) -> None:
        (self.folder / "hands.sock.script").write_text(script)

    def by_hand(self) -> ByHand:
        config = self.folder / "room.toml"
        made = ByHand(config, self.folder, self.folder, clock=self.clock)
        self.made.append(made)
        return made

    @property
    def starts(self) -> list[int]:
        log = self.folder / "hands.sock.starts"
        return [int(line) for line in log.read_text().splitlines()] if log.exists() else []

    def close(self) -> None:
        for pid in self.starts:
            if is_running(pid):
                os.kill(pid, signal.SIGKILL)
        for made in self.made:
            if made._child is not None:
                made._child.wait(10)


@pytest.fixture
def nursery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nursery]:
    made = Nursery(tmp_path, monkeypatch)
    yield made
    made.close()
    gc.collect()


def lane_of(nursery: Nursery, child: ByHand) -> HandsLane:
    return HandsLane(child.connect, nursery.clock)


def test_the_first_question_starts_it_and_a_later_agent_finds_it(nursery: Nursery) -> None:
    async def scene() -> None:
        lane = lane_of(nursery, nursery.by_hand())
        pid = (await ask(lane)).values["pid"]
        await lane.close()
        again = lane_of(nursery, nursery.by_hand())
        assert (await ask(again)).values["pid"] == pid
        await again.close()
        assert nursery.starts == [pid]

    run(scene)


def test_two_lines_that_begin_at_once_start_one(nursery: Nursery) -> None:
    async def scene() -> None:
        child = nursery.by_hand()
        first, second = lane_of(nursery, child), lane_of(nursery, child)
        answers = await asyncio.gather(ask(first), ask(second))
        assert {a.values["pid"] for a in answers} == set(nursery.starts)
        assert len(nursery.starts) == 1
        await first.close()
        await second.close()

    run(scene)


def test_one_that_is_slow_to_start_is_waited_for(nursery: Nursery) -> None:
    async def scene() -> None:
        nursery.play("time.sleep(0.5)")
        lane = lane_of(nursery, nursery.by_hand())
        assert (await ask(lane, deadline_s=0.3)).fault is None, "its start is not the answer's time"
        await lane.close()

    run(scene)


def test_one_that_does_not_come_up_is_not_waited_for_for_ever(
    nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "START_S", 0.3)

    async def scene() -> None:
        nursery.play("while not os.path.exists(path + '.go'): time.sleep(0.01)")
        lane = lane_of(nursery, nursery.by_hand())
        assert (await ask(lane)).why == LOST
        assert len(nursery.starts) <= 1
        (nursery.folder / "hands.sock.go").touch()
        await until(lambda: (nursery.folder / "hands.sock").exists())
        nursery.clock.now_s += RETRY_S
        assert (await ask(lane)).fault is None
        assert len(nursery.starts) == 1, "it was there all the time"
        await lane.close()

    run(scene)


def test_one_that_ends_at_once_is_not_started_over_and_over(
    nursery: Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        nursery.play("sys.exit(78)")
        lane = lane_of(nursery, nursery.by_hand())
        for _ in range(9):
            assert (await ask(lane)).why == LOST
            nursery.clock.now_s += RETRY_S
        assert len(nursery.starts) == 1
        assert "hands ended with 78" in caplog.text
        nursery.clock.now_s += START_AGAIN_S
        nursery.play("")
        assert (await ask(lane)).fault is None
        assert len(nursery.starts) == 2
        await lane.close()

    run(scene)


def test_one_that_died_is_reaped_and_another_one_started(nursery: Nursery) -> None:
    async def scene() -> None:
        lane = lane_of(nursery, nursery.by_hand())
        pid = int((await ask(lane)).values["pid"])
        os.kill(pid, signal.SIGKILL)
        threads = Path(f"/proc/{pid}/task")
        await until(lambda: not is_running(pid) and len(list(threads.iterdir())) == 1)
        assert (await ask(lane)).why == LOST
        nursery.clock.now_s += START_AGAIN_S
        assert (await ask(lane)).values["pid"] != pid
        assert not Path(f"/proc/{pid}").exists(), "no zombie"
        await lane.close()

    run(scene)


def test_one_that_was_told_to_stop_is_waited_for_and_reaped(nursery: Nursery) -> None:
    async def scene() -> None:
        child = nursery.by_hand()
        lane = lane_of(nursery, child)
        pid = int((await ask(lane)).values["pid"])
        assert await child.ended(0.04) is False
        await lane.ask("hands", "stop", words=())
        assert await child.ended(5.0) is True
        assert not Path(f"/proc/{pid}").exists()
        await lane.close()

    run(scene)


def test_who_is_about_to_end_starts_none(nursery: Nursery) -> None:
    async def scene() -> None:
        child = nursery.by_hand()
        lane = lane_of(nursery, child)
        child.start_no_more()
        assert (await ask(lane)).why == LOST
        assert await child.ended(1.0) is True
        assert nursery.starts == []
        await lane.close()

    run(scene)


def test_it_outlives_who_started_it_and_hears_none_of_his_signals(nursery: Nursery) -> None:
    async def scene() -> None:
        lane = lane_of(nursery, nursery.by_hand())
        pid = int((await ask(lane)).values["pid"])
        assert os.getsid(pid) == pid
        assert os.getsid(pid) != os.getsid(0)
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        names = {entry.partition(b"=")[0].decode() for entry in environment if entry}
        assert names <= {
            *lanes.KEPT_ENVIRONMENT,
            "PYTHONPATH",
            "PYTHONDONTWRITEBYTECODE",
            "LC_CTYPE",
        }
        await lane.close()

    run(scene)


def test_a_full_backlog_is_no_answer_and_no_hang(tmp_path: Path) -> None:
    async def scene() -> None:
        path = tmp_path / "s"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen(0)
            callers = []
            for _ in range(4):
                caller = socket.socket(socket.AF_UNIX)
                caller.setblocking(False)
                callers.append(caller)
                try:
                    caller.connect(str(path))
                except BlockingIOError:
                    break
            async with line(path) as lane:
                assert (await ask(lane)).why == LOST
            for caller in callers:
                caller.close()

    run(scene)
