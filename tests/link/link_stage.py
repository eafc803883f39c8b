"""Real brokers on loopback for the tests of the link: mosquitto, and a scripted one for answers
that mosquitto never gives."""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from agent.link.client import Link, Pace
from agent.link.contract import Broker, ReplyTo
from agent.model import Moment

BINARY = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
SITE, ROOM = "hcm", "hcm-01"
TOPIC = f"hearing/v1/{SITE}/{ROOM}/"
BRISK = Pace(
    dial_s=5.0,
    answer_s=5.0,
    retry_base_s=0.02,
    retry_cap_s=0.05,
    refused_base_s=0.02,
    refused_cap_s=0.05,
    store_retry_s=0.02,
    gate_s=0.02,
    events_per_s=100_000.0,
    events_at_once=1_000,
)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def clock() -> Moment:
    return Moment(time.clock_gettime(time.CLOCK_BOOTTIME), time.time(), boot="5f0c12ab")


async def until(true: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Wait for something that another thread or process brings about."""
    async with asyncio.timeout(timeout_s):
        while not true():
            await asyncio.sleep(0.01)


class Mosquitto:
    """A mosquitto of the test's own; a restart forgets everything, as one without a disk does."""

    def __init__(self, folder: Path, lines: str = "allow_anonymous true") -> None:
        self.port = free_port()
        self._conf = folder / f"mosquitto-{self.port}.conf"
        self._conf.write_text(
            f"listener {self.port} 127.0.0.1\n{lines}\n"
            f"user {getpass.getuser()}\n"  # else root's mosquitto cannot read the test's folder
            "persistence false\nmax_queued_messages 100000\nlog_type all\n"
        )
        self._log = folder / f"mosquitto-{self.port}.log"
        self.start()

    def start(self) -> None:
        assert BINARY is not None
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [BINARY, "-c", str(self._conf)], stdout=log, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            assert self._process.poll() is None, self.log
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.01)
        raise AssertionError(self.log)

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(10)

    def reload(self) -> None:
        self._process.send_signal(signal.SIGHUP)

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Callable[..., Mosquitto]]:
    """Starts mosquittos: `mosquitto("more lines of configuration")`."""
    if BINARY is None:
        pytest.skip("mosquitto is not installed")
    brokers: list[Mosquitto] = []

    def start(lines: str = "allow_anonymous true") -> Mosquitto:
        brokers.append(Mosquitto(tmp_path, lines))
        return brokers[-1]

    yield start
    for broker in brokers:
        broker.thaw()
        broker.kill()


class Spy:
    """Another client of the broker, in a thread: what central sees."""

    def __init__(self, port: int, protocol: mqtt.MQTTProtocolVersion = mqtt.MQTTv5) -> None:
        self.heard: list[tuple[str, Any, bool]] = []
        self._subscribed = threading.Event()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=protocol)
        self._client.on_connect = lambda client, *_: client.subscribe("hearing/v1/#", qos=1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._on_message
        self._client.reconnect_delay_set(1, 1)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._subscribed.wait(10)

    def _on_message(self, client: mqtt.Client, userdata: object, message: mqtt.MQTTMessage) -> None:
        payload: Any = message.payload or None
        with suppress(ValueError):
            payload = json.loads(message.payload)
        self.heard.append((message.topic.removeprefix(TOPIC), payload, message.retain))

    def publish(self, suffix: str, payload: bytes, *, retain: bool = False, qos: int = 1) -> None:
        self._client.publish(TOPIC + suffix, payload, qos=qos, retain=retain).wait_for_publish(10)

    @property
    def topics(self) -> list[str]:
        return [topic for topic, _, _ in self.heard]

    def of(self, suffix: str) -> list[Any]:
        return [payload for topic, payload, _ in self.heard if topic == suffix]

    @property
    def states(self) -> list[str]:
        return [status["state"] for status in self.of("status")]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def spy() -> Iterator[Callable[..., Spy]]:
    spies: list[Spy] = []

    def start(port: int, **options: Any) -> Spy:
        spies.append(Spy(port, **options))
        return spies[-1]

    yield start
    for one in spies:
        one.close()


@dataclass
class Memory:
    """An outbox in memory that keeps the rules of the store, and notes what was asked of it."""

    events: dict[int, bytes] = field(default_factory=dict)
    sent: list[int] = field(default_factory=list)
    limits: list[int] = field(default_factory=list)
    failing: Exception | None = None

    def add(self, count: int) -> None:
        first = len(self.events) + 1
        for number in range(first, first + count):
            self.events[number] = json.dumps({"v": 1, "n": number}).encode()

    async def unsent(self, after: int, limit: int) -> list[tuple[int, bytes]]:
        await asyncio.sleep(0)
        if self.failing:
            raise self.failing
        self.limits.append(limit)
        done = set(self.sent)
        waiting = [n for n in self.events if n > after and n not in done]
        return [(n, self.events[n]) for n in waiting[:limit]]

    async def mark_sent(self, numbers: Any) -> None:
        await asyncio.sleep(0)
        if self.failing:
            raise self.failing
        self.sent += numbers


class Room:
    """A link with its surroundings; `came` is what it was told."""

    def __init__(self, broker: Mapping[str, Any], pace: Pace = BRISK, **options: Any) -> None:
        self.outbox = Memory()
        self.came: list[tuple[str, bytes, bool]] = []
        self.reply_to: ReplyTo | None = None
        settings = Broker.model_validate({"tls": False, **broker})
        options.setdefault("chance", lambda: 0.5)
        self.link = Link(
            settings,
            SITE,
            ROOM,
            outbox=self.outbox,
            clock=clock,
            on_message=self._came,
            pace=pace,
            **options,
        )

    def _came(self, suffix: str, payload: bytes, retained: bool, reply_to: ReplyTo | None) -> None:
        self.came.append((suffix, payload, retained))
        self.reply_to = reply_to


@asynccontextmanager
async def running(room: Room) -> AsyncIterator[Link]:
    """The link at work; at the end it is cut off as by a crash."""
    task = asyncio.create_task(room.link.run())
    try:
        yield room.link
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


class Scripted:
    """A broker that answers as told, over real sockets. Speaks as much MQTT as the link needs."""

    def __init__(self) -> None:
        self.connects: list[int] = []
        """The protocol version of every CONNECT."""
        self.published: list[tuple[str, bytes]] = []
        self.subscribes = 0
        self.connack: Callable[[int], bytes | None] = lambda version: (
            b"\x00\x00" + b"\x00" * (version == 5)
        )
        """Variable header of the CONNACK by version; None hangs up, nothing says nothing."""
        self.suback: Callable[[int], int | None] = lambda nth: 1
        """The code for the n-th SUBSCRIBE; None stays silent."""
        self.puback: Callable[[str, int], int | None] = lambda topic, nth: 0
        """The code for the n-th PUBLISH; None stays silent."""
        self.pongs = True
        self.held = 0
        """The largest number of unanswered publications."""
        self._waiting: list[tuple[asyncio.StreamWriter, bytes]] = []

    async def __aenter__(self) -> Scripted:
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self._writers: set[asyncio.StreamWriter] = set()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()
        await asyncio.sleep(0)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        version = 4
        with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                kind, body = await _packet(reader)
                if kind >> 4 == 1:
                    version = body[6]
                    self.connects.append(version)
                    answer = self.connack(version)
                    if answer is None:
                        break
                    if not answer:
                        continue
                    writer.write(bytes([0x20, len(answer)]) + answer)
                    if answer[1]:
                        break
                elif kind >> 4 == 8:
                    self.subscribes += 1
                    code = self.suback(self.subscribes)
                    if code is not None:
                        answer = body[:2] + b"\x00" * (version == 5) + bytes([code])
                        writer.write(bytes([0x90, len(answer)]) + answer)
                elif kind >> 4 == 3:
                    self._publication(kind, body, version, writer)
                elif kind >> 4 == 12 and self.pongs:
                    writer.write(b"\xd0\x00")
                elif kind >> 4 == 14:
                    break
        writer.close()

    def _publication(
        self, kind: int, body: bytes, version: int, writer: asyncio.StreamWriter
    ) -> None:
        size = int.from_bytes(body[:2], "big")
        topic, rest = body[2 : 2 + size].decode(), body[2 + size :]
        self.published.append((topic.removeprefix(TOPIC), rest[2 + (version == 5) :]))
        if not kind & 0x06:
            return
        code = self.puback(topic.removeprefix(TOPIC), len(self.published))
        answer = rest[:2] + (bytes([code]) if code else b"")
        if code is None:
            self._waiting.append((writer, answer))
            self.held = max(self.held, len(self._waiting))
        else:
            writer.write(bytes([0x40, len(answer)]) + answer)

    def hang_up(self, last_word: bytes = b"", *, close: bool = True) -> None:
        """Say something unasked to everybody, and close."""
        for writer in self._writers:
            if last_word:
                writer.write(last_word)
            if close:
                writer.close()
        if close:
            self._writers.clear()

    def let_go(self) -> None:
        """Acknowledge what was held back."""
        for writer, answer in self._waiting:
            writer.write(bytes([0x40, len(answer)]) + answer)
        self._waiting.clear()

    @property
    def topics(self) -> list[str]:
        return [topic for topic, _ in self.published]

    def of(self, suffix: str) -> list[Any]:
        return [json.loads(payload) for topic, payload in self.published if topic == suffix]


async def _packet(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    kind = (await reader.readexactly(1))[0]
    length = shift = 0
    while True:
        byte = (await reader.readexactly(1))[0]
        length |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return kind, await reader.readexactly(length)
