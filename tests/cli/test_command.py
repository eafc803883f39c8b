"""`hearing-room command` as a person types it; against a real control socket."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.cli import command
from agent.control import ControlServer, Peer
from agent.link.commands import CATALOGUE
from agent.model import Command, Refused


@pytest.mark.parametrize(
    ("words", "args"),
    [
        (["relay=cam-power", "on=true"], {"relay": "cam-power", "on": True}),
        (["on=false"], {"on": False}),
        (["seconds=30"], {"seconds": 30}),
        (["relay=007"], {"relay": "007"}),
        (['relay="12"'], {"relay": "12"}),
        (["device=", "code=a=b"], {"device": "", "code": "a=b"}),
        (["relay=[1]"], {"relay": "[1]"}),
        ([], {}),
    ],
)
def test_arguments_are_what_they_say(words: list[str], args: dict[str, Any]) -> None:
    assert command.parse(words) == args


@pytest.mark.parametrize("words", [["on"], ["=true"], ["on=true", "on=false"]])
def test_what_is_no_argument_is_named(words: list[str]) -> None:
    with pytest.raises(ValueError, match=r"ARG=VALUE|given twice"):
        command.parse(words)


class Room:
    """The agent's end: answers as told, on a socket of its own, in a thread of its own."""

    def __init__(self, folder: Path) -> None:
        self.came: list[Command] = []
        self.answer: Mapping[str, Any] = {"state": "done", "code": "ok", "effect": {}}
        self.pause_s = 0.0
        self._loop = asyncio.new_event_loop()
        self._server = ControlServer(folder / "control.sock", self._dispatch, accept_s=0.05)
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._server.start(), self._loop).result(10)

    async def _dispatch(self, wish: Command, peer: Peer) -> Mapping[str, Any]:
        self.came.append(wish)
        await asyncio.sleep(self.pause_s)
        if "refuse" in self.answer:
            raise Refused(self.answer["refuse"], "because")
        return self.answer

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._server.stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    made = Room(tmp_path)
    yield made
    made.close()


def run(*words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "agent", "command", *words]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)


def test_a_command_is_carried_out_and_its_effect_shown(room: Room) -> None:
    room.answer = {"state": "done", "code": "ok", "effect": {"relay": "lamp", "on": True}}
    done = run("relay.set", "relay=lamp", "on=true", "--reason", "dark")
    assert (done.returncode, done.stdout) == (0, "relay.set: done: relay=lamp on=true\n")
    (wish,) = room.came
    assert (wish.name, wish.args, wish.reason) == (
        "relay.set",
        {"relay": "lamp", "on": True},
        "dark",
    )
    assert wish.by.endswith("@console")


def test_a_slow_command_is_waited_for_and_a_pipe_sees_no_progress(room: Room) -> None:
    room.pause_s = 0.3
    done = run("report", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["state"] == "done"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ({"refuse": "session_lock"}, 1),
        ({"state": "failed", "code": "absent", "message": "gone"}, 2),
        ({"state": "expired", "code": "expired"}, 2),
    ],
)
def test_what_was_not_done_says_why(room: Room, answer: dict[str, Any], code: int) -> None:
    room.answer = answer
    done = run("relay.set", "relay=lamp", "on=true")
    assert (done.returncode, done.stdout) == (code, "")
    assert (answer.get("refuse") or answer["code"]) in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nonsense"], "no command 'nonsense'; commands are check, report"),
        (["relay.set", "relay=lamp"], "on: Field required; relay.set takes relay, on"),
        (["relay.set", "relay=lamp", "on=maybe"], "on: Input should be a valid boolean"),
        (["relay.set", "relay=lamp", "on"], "is no ARG=VALUE"),
        (["report", "x=1"], "report takes no arguments"),
    ],
)
def test_what_cannot_be_is_refused_before_it_is_sent(
    room: Room, words: list[str], said: str
) -> None:
    done = run(*words)
    assert done.returncode == 64
    assert said in done.stderr
    assert room.came == []


def test_without_an_agent_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    done = run("report")
    assert done.returncode == 3
    assert "no agent runs here" in done.stderr


def test_without_a_name_the_commands_are_listed() -> None:
    listed = run()
    assert listed.returncode == 0
    assert all(name in listed.stdout for name in CATALOGUE)
    table = [json.loads(line) for line in run("--json").stdout.splitlines()]
    assert [row["command"] for row in table] == list(CATALOGUE)
    assert all(all(row["args"].values()) for row in table), "an argument without a word for people"
