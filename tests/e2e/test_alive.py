"""systemd's watchdog is fed on evidence: a device, a broker or a disk that hangs does not stop the
feeding, for a restart would cure none of them; an agent that does not do its work is not fed."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sqlite3
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e_stage import Agent, free_port, running, wait_for

from agent import settings
from agent.clock import SystemClock
from agent.control import Folders
from agent.room import RoomAgent

HOST = "\n[host]\nperiod_s = 1\n[network.network]\nperiod_s = 3600\ngateway = false\n"


class Systemd:
    """The other end of the notify socket."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "notify"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.path))

    def hears(self, within_s: float) -> str:
        self._socket.settimeout(within_s)
        try:
            return self._socket.recv(4096).decode()
        except TimeoutError:
            return ""

    def drain(self) -> None:
        while self.hears(0.05):
            pass

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    end = Systemd(tmp_path)
    yield end
    end.close()


def watched(folder: Path, systemd: Systemd, config: str, port: int | None = None) -> Agent:
    agent = Agent(folder, config, port)
    agent.env |= {"NOTIFY_SOCKET": str(systemd.path), "WATCHDOG_USEC": "1000000"}
    return agent


def fed(systemd: Systemd, times: int = 4) -> bool:
    return all("WATCHDOG=1" in systemd.hears(5) for _ in range(times))


def test_a_hung_camera_does_not_stop_the_feeding(tmp_path: Path, systemd: Systemd) -> None:
    os.mkfifo(tmp_path / "hang.avi")
    camera = f'\n[camera.cam]\nsource = "file:{tmp_path}/hang.avi"\nperiod_s = 1\ndeadline_s = 1\n'
    with running(watched(tmp_path, systemd, camera + HOST)) as agent:
        assert "READY=1" in systemd.hears(30)
        wait_for(lambda: "camera.no_answer" in agent.log, 60, "the camera does not hang")
        systemd.drain()
        assert fed(systemd)


def test_a_broker_that_is_gone_does_not_stop_the_feeding(tmp_path: Path, systemd: Systemd) -> None:
    with running(watched(tmp_path, systemd, HOST, free_port())):
        assert "READY=1" in systemd.hears(30)
        assert fed(systemd, 6)


def test_a_disk_that_takes_nothing_does_not_stop_the_feeding(
    tmp_path: Path, systemd: Systemd
) -> None:
    with running(watched(tmp_path, systemd, HOST)):
        assert "READY=1" in systemd.hears(30)
        lock = sqlite3.connect(tmp_path / "state/agent.db", isolation_level=None)
        lock.execute("BEGIN EXCLUSIVE")
        systemd.drain()
        assert fed(systemd, 8)
        lock.execute("ROLLBACK")
        lock.close()
        assert fed(systemd)


def test_a_disk_that_is_busy_at_the_start_costs_the_memory_not_the_watch(
    tmp_path: Path, systemd: Systemd
) -> None:
    (tmp_path / "state").mkdir()
    lock = sqlite3.connect(tmp_path / "state/agent.db", isolation_level=None)
    lock.execute("CREATE TABLE something (x)")
    lock.execute("BEGIN EXCLUSIVE")
    with running(watched(tmp_path, systemd, HOST)) as agent:
        assert "READY=1" in systemd.hears(60)
        assert fed(systemd)
        assert "cannot be read" in agent.log
        lock.execute("ROLLBACK")
        lock.close()
        assert fed(systemd)


def test_a_stuck_loop_is_not_fed_and_a_freed_one_is(tmp_path: Path, systemd: Systemd) -> None:
    with running(watched(tmp_path, systemd, HOST)) as agent:
        assert "READY=1" in systemd.hears(30)
        assert fed(systemd, 2)
        assert agent.process is not None
        agent.process.send_signal(signal.SIGSTOP)
        systemd.drain()
        assert systemd.hears(2.5) == ""
        agent.process.send_signal(signal.SIGCONT)
        assert fed(systemd, 2)


def in_a_room(folder: Path, scene: Callable[[RoomAgent], Coroutine[Any, Any, None]]) -> None:
    """Run a room in this process until it is settled, then play a scene in it."""

    async def play() -> None:
        text = f'[room]\nsite = "t"\nid = "r"\n{HOST}'
        agent = RoomAgent(settings.parse(text), Folders(folder, folder), SystemClock().now)
        running_room = asyncio.create_task(agent.run())
        async with asyncio.timeout(30):
            while not agent.watched or not all(w.state.reading for w in agent.watched.values()):
                await asyncio.sleep(0.02)
        try:
            assert agent.alive(agent.now())
            await scene(agent)
        finally:
            agent.stop()
            await running_room

    asyncio.run(play())


def test_a_device_that_gives_no_reading_at_all_stops_the_feeding(tmp_path: Path) -> None:
    async def scene(agent: RoomAgent) -> None:
        host = agent.watched["host"]
        now = agent.now()
        owed_s = host.device.settings.period_s + host.device.settings.deadline_s + 10
        assert host.late(now.after(owed_s))
        assert not agent.alive(now.after(owed_s))
        async with asyncio.timeout(10):  # the next reading comes: it is alive again
            await host.ask_now("test")
        assert agent.alive(agent.now())

    in_a_room(tmp_path, scene)


def test_a_fold_that_does_not_run_stops_the_feeding(tmp_path: Path) -> None:
    async def scene(agent: RoomAgent) -> None:
        for item in agent.watched.values():
            item.late = lambda now: False  # type: ignore[method-assign]
        assert agent.alive(agent.now().after(30))
        assert not agent.alive(agent.now().after(120))

    in_a_room(tmp_path, scene)
