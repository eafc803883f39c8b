"""Talking to QEMU (QMP) and to the agent inside the box, over their sockets."""

from __future__ import annotations

import base64
import json
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from bench_box.host import BenchError

ENVIRONMENT = (
    "PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME=/root",
    "LC_ALL=C.UTF-8",
)
_POLL_S = (0.02, 0.3)


class NoAnswer(BenchError):
    """Nobody answers on the socket (yet)."""


class _Lines:
    """JSON lines over a Unix socket."""

    def __init__(self, path: Path, timeout_s: float = 30.0) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout_s)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise NoAnswer(f"{path.name}: {error}") from None
        self._file = self._socket.makefile("rb")
        try:
            self._greet()
        except BaseException:
            self.__exit__()
            raise

    def _greet(self) -> None:
        """What is said before the first command."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise NoAnswer(str(error)) from None

    def line(self) -> bytes:
        try:
            line = self._file.readline()
        except OSError as error:
            raise NoAnswer(str(error)) from None
        if not line:
            raise NoAnswer("the other end is gone")
        return line

    def call(self, command: str, **arguments: Any) -> Any:
        """The answer to a command; events that come between are left out."""
        self.send(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        while True:
            reply = json.loads(self.line())
            if "error" in reply:
                raise BenchError(f"{command}: {reply['error']['desc']}")
            if "return" in reply:
                return reply["return"]


class Monitor(_Lines):
    """QEMU's own socket (QMP)."""

    def _greet(self) -> None:
        self.line()
        self.call("qmp_capabilities")


class _Inside(_Lines):
    """qemu-guest-agent on its virtio-serial port. It serves one client at a time."""

    def _greet(self) -> None:
        token = time.monotonic_ns() & 0x7FFF_FFFF
        ask = {"execute": "guest-sync-delimited", "arguments": {"id": token}}
        self.send(b"\xff" + json.dumps(ask).encode() + b"\n")
        while True:
            try:
                if json.loads(self.line().split(b"\xff")[-1]).get("return") == token:
                    return
            except ValueError:
                continue


@dataclass(frozen=True, slots=True)
class Done:
    """How a command in the box ended. `code` is 128 + n after signal n."""

    code: int
    out: str
    err: str


class Inside:
    """Commands inside the box. They need no network there."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def answers(self, timeout_s: float = 2.0) -> bool:
        """Whether the agent in the box is there."""
        try:
            with _Inside(self._path, timeout_s):
                return True
        except NoAnswer:
            return False

    def ask(self, command: str, **arguments: Any) -> Any:
        """One question. The line is not held: others may ask meanwhile."""
        with _Inside(self._path, 60.0) as agent:
            return agent.call(command, **arguments)

    def power_down(self) -> None:
        """Asks for an orderly end; there is no answer."""
        with _Inside(self._path, 10.0) as agent:
            agent.send(b'{"execute":"guest-shutdown","arguments":{"mode":"powerdown"}}\n')

    def run(self, command: str, timeout_s: float, given: bytes = b"") -> Done:
        """Runs a line of shell as root. Raises `BenchError` when it takes longer."""
        started: dict[str, Any] = {
            "path": "/bin/bash",
            "arg": ["-c", command],
            "env": list(ENVIRONMENT),
            "capture-output": True,
        }
        if given:
            started["input-data"] = base64.b64encode(given).decode()
        pid = self.ask("guest-exec", **started)["pid"]
        ends, (pause, longest) = time.monotonic() + timeout_s, _POLL_S
        while time.monotonic() < ends:
            state = self.ask("guest-exec-status", pid=pid)
            if state["exited"]:
                code = state.get("exitcode", 128 + state.get("signal", 0))
                out, err = (base64.b64decode(state.get(k, "")) for k in ("out-data", "err-data"))
                return Done(code, out.decode(errors="replace"), err.decode(errors="replace"))
            time.sleep(pause)
            pause = min(1.5 * pause, longest)
        raise BenchError(f"still running in the box after {timeout_s:.0f} s: {command}")
