"""hands as a process of its own, with simulated pins, and clients of every kind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from agent.hands.keeper import NAME
from agent.lanes import wire

CONFIG = """
[room]
site = "test"
id = "room-01"
[relay.lamp]
pin = 26
pulse_s = 0.3
[relay.heater]
pin = 20
on_stop = "safe"
[indicator.status]
red = 17
green = 27
[button.button]
pin = 4
"""
ROOT = Path(__file__).parents[2]
ANSWER_S = 10.0


def until(holds: Callable[[], Any], within_s: float = 10.0, why: str = "") -> Any:
    """The first true answer; another process has no event to wait for."""
    ends_s = time.monotonic() + within_s
    while time.monotonic() < ends_s:
        with contextlib.suppress(OSError, ValueError):
            if answer := holds():
                return answer
        time.sleep(0.01)
    raise AssertionError(f"not within {within_s} s: {why or holds}")


class Client:
    """Somebody who asks, line by line or as badly as he likes."""

    def __init__(self, path: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(ANSWER_S)
        try:
            self.sock.connect(path)
        except OSError:
            self.sock.close()
            raise
        self._lines = self.sock.makefile("rb")
        self._number = 0
        self.hello = json.loads(self._lines.readline() or b"{}")

    def send(self, kind: str, ask: str, **args: Any) -> int:
        self._number += 1
        question = wire.Question(self._number, kind, ask, 5.0, args)
        self.sock.sendall(wire.encode_question(question))
        return self._number

    def hear(self) -> dict[str, Any]:
        """The next answer, {} where the other side has hung up."""
        try:
            return dict(json.loads(self._lines.readline() or b"{}"))
        except ConnectionResetError:
            return {}

    def ask(self, kind: str, ask: str, **args: Any) -> dict[str, Any]:
        number = self.send(kind, ask, **args)
        answer = self.hear()
        assert answer["id"] == number
        return answer

    def close(self) -> None:
        self._lines.close()
        self.sock.close()


class Hands:
    """The process; its files are in one folder."""

    def __init__(self, folder: Path, config: str = CONFIG) -> None:
        self.folder = folder
        self.config = folder / "room.toml"
        self.config.write_text(config)
        self.socket = folder / "hands.sock"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def argv(self) -> list[str]:
        return [sys.executable, "-P", "-m", "agent.hands.main", *self.options]

    @property
    def options(self) -> list[str]:
        return ["--config", str(self.config), "--state", str(self.folder), *self.own_socket]

    @property
    def own_socket(self) -> list[str]:
        return ["--socket", str(self.socket)]

    def env(self, more: Mapping[str, str]) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "GPIOZERO_PIN_FACTORY": "mock",
            **more,
        }

    def start(self, **env: str) -> Hands:
        with (self.folder / "hands.log").open("ab") as log:
            self.process = subprocess.Popen(self.argv, env=self.env(env), stderr=log, cwd="/")
        until(self.answers, 30, "hands does not answer")
        return self

    def answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log
        with contextlib.closing(Client(str(self.socket))) as client:
            return bool(client.hello)

    def run(self) -> int:
        """Start another one that is expected to end by itself."""
        with (self.folder / "other.log").open("ab") as log:
            return subprocess.run(
                self.argv, env=self.env({}), stderr=log, cwd="/", timeout=60, check=False
            ).returncode

    def signal(self, number: int) -> int:
        """Send a signal and wait for the end; the exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(10)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def log(self) -> str:
        return (self.folder / "hands.log").read_text()

    @property
    def kept(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / NAME).read_text()))

    @property
    def descriptors(self) -> list[str]:
        folder = Path(f"/proc/{self.pid}/fd")
        return sorted(str(entry.readlink()) for entry in folder.iterdir())

    def status(self, key: str) -> int:
        text = Path(f"/proc/{self.pid}/status").read_text()
        return int(next(line for line in text.splitlines() if line.startswith(key)).split()[1])

    def client(self) -> Client:
        return Client(str(self.socket))

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait(10)


@contextlib.contextmanager
def asking(hands: Hands) -> Iterator[Client]:
    client = hands.client()
    try:
        yield client
    finally:
        client.close()
