"""What the end-to-end tests stand on: a real broker, the real program, a listener."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import queue
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt

SITE, ROOM = "test", "room-01"
ROOT = f"hearing/v1/{SITE}/{ROOM}/"
MOSQUITTO = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def wait_for(what: Callable[[], Any], timeout_s: float = 30.0, why: str = "") -> Any:
    """The first true answer of `what`; fails after `timeout_s`."""
    ends = time.monotonic() + timeout_s
    while time.monotonic() < ends:
        if answer := what():
            return answer
        time.sleep(0.02)
    raise AssertionError(f"not within {timeout_s} s: {why or what}")


class Broker:
    """A mosquitto of our own on a free port of loopback."""

    def __init__(self, folder: Path) -> None:
        assert MOSQUITTO is not None
        self.port = free_port()
        self._config = folder / "mosquitto.conf"
        self._config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence true\n"
            "set_tcp_nodelay true\n"
            f"persistence_location {folder}/\nmax_queued_messages 10000\n"
            # As another user it could not write there, and would forget its sessions.
            f"user {pwd.getpwuid(os.geteuid()).pw_name}\n"
        )
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            [str(MOSQUITTO), "-c", str(self._config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(self._answers, 10, "mosquitto does not listen")

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None
            assert self._config.with_name("mosquitto.db").exists(), "sessions are not kept"


class Listener:
    """Everything that is said about the room, in the order received."""

    def __init__(self, port: int) -> None:
        self.messages: list[tuple[str, dict[str, Any] | None, bool]] = []
        self._ready: queue.Queue[int] = queue.Queue()
        # A session of its own outlives the broker: what is said meanwhile is kept for it.
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=f"listener-{uuid.uuid4().hex[:12]}",
            protocol=mqtt.MQTTv311,
            clean_session=False,
        )
        self.client.on_connect = self._connected
        self.client.on_subscribe = lambda *_: self._ready.put(1)
        self.client.on_message = self._message
        self.client.reconnect_delay_set(1, 1)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        self._ready.get(timeout=10)

    def _connected(self, client: mqtt.Client, *_: Any) -> None:
        client.subscribe(ROOT + "#", qos=1)

    def _message(self, client: mqtt.Client, data: Any, message: mqtt.MQTTMessage) -> None:
        document = json.loads(message.payload) if message.payload else None
        suffix = message.topic.removeprefix(ROOT)
        self.messages.append((suffix, document, message.retain))

    def last(self, suffix: str) -> dict[str, Any]:
        found = [d for s, d, _ in list(self.messages) if s == suffix and d is not None]
        return found[-1] if found else {}

    def events(self, type_: str = "") -> list[dict[str, Any]]:
        found = [d for s, d, _ in list(self.messages) if s == "event" and d is not None]
        return [d for d in found if d["type"].startswith(type_)]

    def codes(self) -> set[str]:
        return {r["code"] for r in self.last("readiness").get("reasons", [])}

    def publish(self, suffix: str, document: Any, *, retain: bool) -> None:
        payload = json.dumps(document) if document is not None else b""
        self.client.publish(ROOT + suffix, payload, qos=1, retain=retain).wait_for_publish(10)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


class Agent:
    """The real program with folders of its own."""

    def __init__(self, folder: Path, config: str, port: int | None) -> None:
        self.folder = folder
        self.config = folder / "room.toml"
        broker = f'\n[broker]\nhost = "127.0.0.1"\nport = {port}\ntls = false\n' if port else ""
        head = f'[room]\nsite = "{SITE}"\nid = "{ROOM}"\nlanguage = "en"\n'
        self.config.write_text(head + broker + config)
        self.env = {
            **os.environ,
            "STATE_DIRECTORY": str(folder / "state"),
            "RUNTIME_DIRECTORY": str(folder / "run"),
        }
        for name in ("state", "run"):
            (folder / name).mkdir(exist_ok=True)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.folder / "agent.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "agent", "run", "--config", str(self.config)],
                env=self.env,
                stderr=log,
            )

    @property
    def log(self) -> str:
        return (self.folder / "agent.log").read_text()

    def command(self, *words: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "agent", *words],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            cwd=self.folder,
        )

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(20)
        self.process = None
        return code

    def workers(self) -> list[int]:
        """Processes of workers that belong to this agent."""
        assert self.process is not None
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                line = (entry / "cmdline").read_bytes()
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
                if b"agent.lanes.worker" in line and int(stat[1]) == self.process.pid:
                    found.append(int(entry.name))
        return found


@contextlib.contextmanager
def running(agent: Agent) -> Iterator[Agent]:
    agent.start()
    try:
        yield agent
    finally:
        if agent.process is not None and agent.process.poll() is None:
            agent.process.send_signal(signal.SIGTERM)
            try:
                agent.process.wait(15)
            except subprocess.TimeoutExpired:
                agent.kill()
