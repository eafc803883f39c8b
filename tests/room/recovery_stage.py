"""A room on a /sys of files: the real agent, the real hands (in a thread, or in a process of its
own where it has to die), and a kernel that takes devices off the bus and brings them back."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from usb_stage import CAMERA, Kernel, UsbTree

from agent import clock, settings
from agent.clock import SystemClock
from agent.control import Folders, Peer
from agent.hands import plan
from agent.hands.desk import Desk
from agent.hands.hardware import Hardware
from agent.hands.keeper import Keeper
from agent.hands.loop import Loop
from agent.hands.usb import UsbSteps
from agent.lanes import wire
from agent.lanes.hands import by_socket
from agent.lanes.lane import Lane, by_hand
from agent.model import Command, Device, Moment
from agent.room import RoomAgent
from agent.room.remedy import Pace

LOOKER = Path(__file__).with_name("looker.py")
HEAD = """
[room]
site = "t"
id = "r"
language = "en"
session_by_command = true
[host]
period_s = 3600
[network.network]
period_s = 3600
gateway = false
[button.button]
pin = 4
period_s = 1
[relay.power]
pin = 26
pulse_s = 0.2
period_s = 1
{powers}
"""
EYE = """
[camera.{id}]
source = "{source}"
period_s = 1
deadline_s = 2
raise_s = 0
clear_s = 0
recover_after_s = 10
{more}
"""
FAST = Pace(poll_s=0.05, settle_s=0.05, again_s=0.1, window_s=0.4)


class Observed(RoomAgent):
    """Everything that is recorded, as it is recorded."""

    stage: Stage

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        post = self._store.post

        def seen(event: dict[str, Any], **row: Any) -> asyncio.Future[int]:
            self.stage.events.append(event)
            self.stage.saw(event)
            return post(event, **row)

        self._store.post = seen  # type: ignore[method-assign, assignment]


class Thread:
    """hands in a thread of this process."""

    def __init__(self, stage: Stage) -> None:
        path = stage.folder / "run/hands.sock"
        path.unlink(missing_ok=True)
        self._path = path
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(8)
        listener.setblocking(False)
        hello = wire.Hello(wire.PROTO, "0.1.0", os.getpid(), ())
        loop = Loop(listener, frozenset({os.geteuid()}), hello)
        self.desk = Desk(
            plan.of(settings.load(stage.config)),
            Hardware(watch=loop.watch, environ={"GPIOZERO_PIN_FACTORY": "mock"}),
            Keeper(stage.folder / "hands"),
            boot="5f0c12ab",
            clock=clock.up_s,
            usb=lambda kept: UsbSteps(stage.root, loop.watch, kept),
        )
        self._thread = threading.Thread(target=loop.run, args=(self.desk, None))
        self._thread.start()

    def end(self) -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(5)
            sock.connect(str(self._path))
            sock.recv(500)
            sock.sendall(wire.encode_question(wire.Question(1, "hands", "stop", 5.0, {})))
            sock.recv(500)
        self._thread.join(10)
        assert not self._thread.is_alive()
        self.desk.close()
        if (child := self.desk._usb._child) is not None:  # a step outlives hands
            child.wait(10)


class Stage:
    """One room. `cures` are the acts of the kernel (or events of the agent) that heal it."""

    def __init__(self, folder: Path, *, more: str = "", powers: str = "", hands: bool = True):
        self.folder = folder
        self.root = folder / "root"
        self.tree = UsbTree(self.root)
        self.tree.plug("1-1.2", "046d:0825", *CAMERA, product="Webcam C270")
        self.tree.video_node("1-1.2", "video0")
        self.kernel = Kernel(self.tree, self.happened)
        self.cures: set[str] = set()
        self.events: list[dict[str, Any]] = []
        self.later_s = 0.0
        self.pace = FAST
        for name in ("state", "run", "hands", "eyes"):
            (folder / name).mkdir()
        self.looks("good")
        self.config = folder / "room.toml"
        text = HEAD.format(powers=powers)
        if not hands:
            text = text.partition("[button.button]")[0]
        self.config.write_text(text + EYE.format(id="cam", source="usb:046d:0825", more="") + more)
        self.hands: subprocess.Popen[bytes] | None = None
        self.thread: Thread | None = None
        self._clock = SystemClock()
        self.agent: Observed

    # -- the world -----------------------------------------------------------------------------

    def looks(self, word: str) -> None:
        """What cameras give from now on."""
        place = self.folder / "eyes/camera"
        place.with_suffix(".new").write_text(word)
        place.with_suffix(".new").replace(place)

    def happened(self, what: str) -> None:
        if what in self.cures:
            self.looks("good")
            self.plugged(True)

    def plugged(self, there: bool) -> None:
        """The camera's plug."""
        here, away = self.tree.devices / "1-1.2", self.root / "unplugged"
        if there and away.exists():
            away.rename(here)
        elif not there:
            here.rename(away)

    def saw(self, event: dict[str, Any]) -> None:
        self.happened(f"{event['type']} {event.get('device')} {event.get('after')}")

    def now(self) -> Moment:
        return self._clock.now().after(self.later_s)

    def told(self, type_: str) -> list[dict[str, Any]]:
        return [e for e in self.events if e["type"].startswith(type_)]

    def new_kernel(self) -> Kernel:
        return Kernel(self.tree, self.happened)

    # -- processes -----------------------------------------------------------------------------

    def start_hands(self) -> None:
        command = [sys.executable, "-m", "agent.hands.main", "--config", str(self.config)]
        command += ["--state", str(self.folder / "hands"), "--root", str(self.root)]
        command += ["--socket", str(self.folder / "run/hands.sock")]
        env = {**os.environ, "GPIOZERO_PIN_FACTORY": "mock"}
        with (self.folder / "hands.log").open("ab") as log:
            self.hands = subprocess.Popen(command, env=env, stderr=log)

    def stop_hands(self) -> None:
        if self.thread is not None:
            self.thread.end()
            self.thread = None
        if self.hands is not None:
            self.hands.terminate()
            self.hands.wait(10)
            self.hands = None

    def new_agent(self) -> Observed:
        def lane(device: Device) -> Lane:
            argv = [sys.executable, "-S", "-E", str(LOOKER), str(self.folder / "eyes")]
            return Lane(by_hand(argv=argv), name=device.id)

        self.agent = Observed(
            settings.load(self.config),
            Folders(self.folder / "state", self.folder / "run"),
            self.now,
            root=self.root,
            lane_for=lane,
            hands=by_socket(self.folder / "run/hands.sock"),
            pace=self.pace,
        )
        self.agent.stage = self
        return self.agent

    async def command(self, name: str, reason: str = "", **args: Any) -> dict[str, Any]:
        wish = Command("1", name, args, by="tester", reason=reason)
        return await self.agent.dispatch(wish, Peer(0, 0, 0))

    async def until(self, holds: Callable[[], object], why: str = "", within_s: float = 20) -> Any:
        try:
            async with asyncio.timeout(within_s):
                while not (answer := holds()):
                    await asyncio.sleep(0.02)
                return answer
        except TimeoutError:
            log = (self.folder / "hands.log").read_text() if self.hands else ""
            told = "\n".join(str(e) for e in self.events[-12:])
            raise AssertionError(f"{why or holds}\n{told}\n{log[-2000:]}") from None

    async def looked(self) -> None:
        """Some looks later: whatever is due by now has begun."""
        for _ in range(3):
            await self.agent.watched["cam"].ask_now("tester")
            await asyncio.sleep(0.02)

    def codes(self, device: str = "cam") -> set[str]:
        answer = self.agent.answer
        return {r.code for r in answer.reasons if r.device == device} if answer else set()

    async def settled(self) -> None:
        """The room has been looked at, and hands is there (if there is any)."""
        agent = self.agent
        await self.until(lambda: "cam" in agent.watched and agent.watched["cam"].state.settled)
        if agent.hands is not None:
            await self.until(lambda: agent.hands and agent.hands.lost_s is None, "no hands")
            await self.until(lambda: agent.watched["power"].state.reading, "no relay")
            await self.until(lambda: not self.held_back(), "hands knows no mode")

    def held_back(self) -> bool:
        reading = self.agent.watched["power"].state.reading
        if reading is not None and reading.values.get("locked") is not False:
            self.agent.watched["power"].hurry()
            return True
        return False

    def play(self, scene: Callable[[], Awaitable[None]], *, hands: str = "thread") -> None:
        """Run the room until the scene is over. `hands` is `thread`, `process` or nothing."""

        async def run() -> None:
            if hands == "process":
                self.start_hands()
                await self.until((self.folder / "run/hands.sock").exists, "no hands")
            elif hands:
                self.thread = Thread(self)
            room = asyncio.create_task(self.new_agent().run())
            try:
                await self.settled()
                await scene()
            finally:
                self.agent.stop()
                await room

        with self.kernel.running():
            try:
                asyncio.run(run())
            finally:
                self.stop_hands()
