"""The agent's side of hands against the real desk and loop, in a thread, on simulated pins."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from agent import clock
from agent.hands.desk import Adopt, Desk
from agent.hands.hardware import Hardware
from agent.hands.keeper import Keeper
from agent.hands.layout import Button, Layout, Light, Place, Relay
from agent.hands.loop import Loop
from agent.lanes import wire
from agent.lanes.hands import ByHand, by_socket
from agent.model import Device, Moment
from agent.room import hands as rooms
from agent.room.hands import Hands

LAMP = Relay("lamp", Place(pin=26))
LAYOUT = Layout((LAMP,), (Light("status", lamps={"red": Place(pin=17)}),), (Button("button", 4),))


class Room:
    """What hands asks of a room."""

    def __init__(self) -> None:
        self.lively = True
        self.says: dict[str, Any] = {"state": "ready", "mode": "idle", "lock_in_s": None}
        self.heard: list[Mapping[str, Any]] = []
        self.clumsy = False
        self.slow_disk: asyncio.Future[int] | None = None

    def now(self) -> Moment:
        return Moment(clock.up_s(), 1.8e9)

    def alive(self, now: Moment) -> bool:
        return self.lively

    def word(self, now: Moment) -> dict[str, Any]:
        return dict(self.says)

    def happened(self, event: Mapping[str, Any]) -> asyncio.Future[int]:
        self.heard.append(event)
        if self.clumsy:
            raise KeyError("meaning")
        kept: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        kept.set_result(1)
        return self.slow_disk or kept


class Other:
    """Hands in a thread of this process."""

    def __init__(self, folder: Path, layout: Layout = LAYOUT, file: Layout | None = None) -> None:
        self.path = folder / "hands.sock"
        self.path.unlink(missing_ok=True)
        self.reads = 0
        self.file = file
        self.words: list[Mapping[str, Any]] = []
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.path))
        listener.listen(8)
        listener.setblocking(False)
        hello = wire.Hello(wire.PROTO, "0.1.0", os.getpid(), ())
        loop = Loop(listener, frozenset({os.geteuid()}), hello)
        hardware = Hardware(watch=loop.watch, environ={"GPIOZERO_PIN_FACTORY": "mock"})
        self.desk = Desk(
            layout,
            hardware,
            Keeper(folder),
            boot="5f0c12ab",
            clock=clock.up_s,
            reload=self._reload,
        )
        answer = self.desk.answer

        def heard(question: wire.Question) -> Any:
            if question.ask == "say":
                self.words.append(question.settings)
            return answer(question)

        self.desk.answer = heard  # type: ignore[method-assign]
        self._thread = threading.Thread(target=loop.run, args=(self.desk, None))
        self._thread.start()

    def _reload(self, adopt: Adopt) -> None:
        self.reads += 1
        adopt(self.file)

    def end(self) -> None:
        """It is told to stop, by whoever."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(5)
            sock.connect(str(self.path))
            sock.recv(500)
            sock.sendall(wire.encode_question(wire.Question(1, "hands", "stop", 5.0, {})))
            sock.recv(500)
        self._thread.join(10)
        assert not self._thread.is_alive()
        self.desk.close()


@pytest.fixture
def room() -> Room:
    return Room()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Other]]:
    made: list[Other] = []

    def begin(*args: Any, **options: Any) -> Other:
        made.append(Other(tmp_path, *args, **options))
        return made[-1]

    yield begin
    for other in made:
        if other._thread.is_alive():
            other.end()


@pytest.fixture(autouse=True)
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "WORD_S", 0.05)


def scene(room: Room, folder: Path, play: Callable[[Hands], Awaitable[None]], **more: Any) -> None:
    async def bounded() -> None:
        layout = more.get("layout", LAYOUT)
        hands = Hands(room, layout, by_socket(folder / "hands.sock"), None)
        task = asyncio.create_task(hands.run())
        try:
            async with asyncio.timeout(20):
                await play(hands)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await hands.close()

    asyncio.run(bounded())


async def until(holds: Callable[[], object]) -> None:
    while not holds():
        await asyncio.sleep(0.005)


async def switch(hands: Hands, on: bool) -> None:
    reading = await hands.ask("relay", "set", relay="lamp", on=on, by="op #1")
    assert reading.fault is None, reading


def told(room: Room) -> list[tuple[Any, ...]]:
    return [(e["device"], e.get("on"), e.get("by")) for e in room.heard]


def test_every_event_is_heard_once_and_in_its_order(
    room: Room, start: Callable[..., Other], tmp_path: Path
) -> None:
    start()

    async def play(hands: Hands) -> None:
        await until(lambda: hands.lost_s is None)
        for on in (True, False, True):
            await switch(hands, on)
        await until(lambda: len(room.heard) == 3)
        await asyncio.sleep(0.1)

    scene(room, tmp_path, play)
    assert told(room) == [("lamp", on, "op #1") for on in (True, False, True)]


def test_hands_forgets_an_event_only_when_the_record_has_it(
    room: Room, start: Callable[..., Other], tmp_path: Path
) -> None:
    """A cut of the power between the two would lose it in both."""
    other = start()

    async def play(hands: Hands) -> None:
        await until(lambda: hands.lost_s is None)
        room.slow_disk = asyncio.get_running_loop().create_future()
        await switch(hands, True)
        await until(lambda: room.heard)
        await asyncio.sleep(0.05)
        assert len(other.desk._news.events) == 1
        room.slow_disk.set_result(1)
        await until(lambda: not other.desk._news.events)
        assert len(room.heard) == 1

    scene(room, tmp_path, play)


def test_what_an_agent_before_has_recorded_is_not_heard_again(
    room: Room, start: Callable[..., Other], tmp_path: Path
) -> None:
    """It died before hands had heard that."""
    other = start()
    other.desk.answer(wire.Question(1, "hands", "say", 5.0, room.says))
    for number, on in enumerate((True, False)):
        other.desk.answer(wire.Question(number, "relay", "set", 5.0, {"relay": "lamp", "on": on}))
    first, second = other.desk._news.events

    async def play(hands: Hands) -> None:
        hands.resume(first.number)
        await until(lambda: not other.desk._news.events)

    scene(room, tmp_path, play)
    assert [e["number"] for e in room.heard] == [second.number]


def test_another_hands_in_its_place_loses_and_repeats_nothing(
    room: Room, start: Callable[..., Other], tmp_path: Path
) -> None:
    first = start()

    async def play(hands: Hands) -> None:
        await until(lambda: hands.lost_s is None)
        for on in (True, False, True):
            await switch(hands, on)
        await until(lambda: len(room.heard) == 3)
        await until(lambda: not first.desk._news.events)  # acknowledged by the next question
        await asyncio.to_thread(first.end)
        await until(lambda: hands.lost_s is not None)
        start()
        await until(lambda: hands.lost_s is None)
        await switch(hands, False)
        await until(lambda: len(room.heard) == 5)
        await asyncio.sleep(0.1)

    scene(room, tmp_path, play)
    assert [(e["on"], e["cause"]) for e in room.heard[3:]] == [
        (True, "restore"),
        (False, "command"),
    ]


def test_an_event_about_a_device_of_another_layout_stops_nothing(
    room: Room, start: Callable[..., Other], tmp_path: Path
) -> None:
    """The room was changed while the agent was away, and hands still tells of what was before."""
    renamed = Layout((Relay("bench-lamp", Place(pin=26)),), LAYOUT.lights, LAYOUT.buttons)
    other = start(file=renamed)
    other.desk.answer(wire.Question(1, "hands", "say", 5.0, room.says))
    other.desk.answer(wire.Question(2, "relay", "set", 5.0, {"relay": "lamp", "on": True}))

    async def play(hands: Hands) -> None:
        await until(lambda: room.heard)
        await until(lambda: other.desk.layout == renamed)
        reading = await hands.ask("relay", "read", relay="bench-lamp")
        assert reading.values["on"] is True

    scene(room, tmp_path, play, layout=renamed)
    assert room.heard[0]["device"] == "lamp"


def test_an_event_that_the_room_cannot_take_does_not_come_for_ever(
    room: Room, start: Callable[..., Other], tmp_path: Path
) -> None:
    start()
    room.clumsy = True

    async def play(hands: Hands) -> None:
        await until(lambda: hands.lost_s is None)
        await switch(hands, True)
        await until(lambda: room.heard)
        room.clumsy = False
        await switch(hands, False)
        await until(lambda: len(room.heard) == 2)

    scene(room, tmp_path, play)
    assert [e["on"] for e in room.heard] == [True, False]


def test_the_word_is_said_again_and_again_and_news_at_once(
    room: Room, start: Callable[..., Other], tmp_path: Path
) -> None:
    other = start()

    async def play(hands: Hands) -> None:
        await until(lambda: len(other.words) >= 3)
        assert not hands.changed()
        room.says["lock_in_s"] = 5
        assert not hands.changed(), "the time runs by itself"
        room.says["mode"] = "in_session"
        assert hands.changed()
        await hands.say()
        assert not hands.changed()
        assert other.words[-1]["mode"] == "in_session"

    scene(room, tmp_path, play)


def test_an_agent_that_is_not_alive_on_evidence_says_nothing(
    room: Room, start: Callable[..., Other], tmp_path: Path
) -> None:
    other = start()

    async def play(hands: Hands) -> None:
        await until(lambda: other.words)
        room.lively = False
        await asyncio.sleep(0.1)
        count = len(other.words)
        room.says["state"] = "not_ready"
        assert not hands.changed()
        await asyncio.sleep(0.2)
        assert len(other.words) == count, "the lights will tell"
        room.lively = True
        await until(lambda: other.words[-1]["state"] == "not_ready")

    scene(room, tmp_path, play)


def test_many_changes_at_once_are_one_word_or_two(
    room: Room, start: Callable[..., Other], tmp_path: Path
) -> None:
    other = start()

    async def play(hands: Hands) -> None:
        await until(lambda: other.words)
        before = len(other.words)
        tasks = []
        for number in range(100):
            room.says["family"] = number
            if hands.changed():
                tasks.append(asyncio.create_task(hands.say()))
                await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        assert other.words[-1]["family"] == 99, "the last one counts"
        assert len(other.words) - before < 20

    scene(room, tmp_path, play)


def test_another_layout_is_asked_for_until_hands_has_it_and_not_in_session(
    room: Room, start: Callable[..., Other], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rooms, "RELOAD_S", 0.2)
    wanted = Layout((LAMP, Relay("fan", Place(pin=20))), LAYOUT.lights, LAYOUT.buttons)
    other = start(file=None)
    room.says["mode"] = "in_session"

    async def play(hands: Hands) -> None:
        await until(lambda: len(other.words) > 4)
        assert other.reads == 0, "in session"
        room.says["mode"] = "idle"
        await until(lambda: other.reads == 1)
        assert other.desk.layout == LAYOUT, "the file could not be read"
        await until(lambda: other.reads == 2)
        other.file = wanted
        await until(lambda: other.desk.layout == wanted)
        reads = other.reads
        await asyncio.sleep(0.5)
        assert other.reads == reads, "and then no more"

    scene(room, tmp_path, play, layout=wanted)


def test_hands_that_is_lost_is_known_and_found_again(
    room: Room, start: Callable[..., Other], tmp_path: Path
) -> None:
    async def play(hands: Hands) -> None:
        began_s = clock.up_s()
        assert hands.lost_s is not None
        assert hands.lost_s <= began_s
        other = start()
        await until(lambda: hands.lost_s is None)
        await asyncio.to_thread(other.end)
        await until(lambda: hands.lost_s is not None)
        start()
        await until(lambda: hands.lost_s is None)

    scene(room, tmp_path, play)


def test_a_state_file_that_cannot_be_written_is_known(
    room: Room, start: Callable[..., Other], tmp_path: Path
) -> None:
    other = start()

    async def play(hands: Hands) -> None:
        await until(lambda: hands.lost_s is None)
        assert hands.state_errno == 0
        other.desk._keeper._path = tmp_path / "gone" / "hands.json"
        await switch(hands, True)
        await until(lambda: hands.state_errno == errno.ENOENT)
        (tmp_path / "gone").mkdir()
        await switch(hands, False)
        await until(lambda: hands.state_errno == 0)

    scene(room, tmp_path, play)


def test_a_clean_end_starts_no_hands_to_stop_it(room: Room, tmp_path: Path) -> None:
    child = ByHand(tmp_path / "room.toml", tmp_path, tmp_path)
    started: list[int] = []
    child._start = lambda: started.append(1)  # type: ignore[method-assign, assignment, return-value, func-returns-value]
    hands = Hands(room, LAYOUT, child.connect, child)

    async def close() -> None:
        async with asyncio.timeout(5):
            await hands.close()

    asyncio.run(close())
    assert started == []


@pytest.mark.parametrize(
    ("kind", "name"), [("relay", "lamp"), ("indicator", "status"), ("button", "button")]
)
def test_each_kind_is_read_through_hands(
    room: Room, start: Callable[..., Other], tmp_path: Path, kind: str, name: str
) -> None:
    from agent.kinds import indicator

    start()

    async def play(hands: Hands) -> None:
        part = hands.part(Device(name, kind, None), indicator.WORDS)
        await until(lambda: hands.lost_s is None)
        reading = await part.read()
        assert reading.fault is None
        assert {"on", "pattern", "stuck"} & reading.values.keys()

    scene(room, tmp_path, play)
