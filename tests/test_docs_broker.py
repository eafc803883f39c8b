"""The broker of the documents: the certificates made as docs/operations.md says, mosquitto with
docs/broker's files, the real agent as a room, and everything that a room must not do."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from agent.link.contract import Topics

pytestmark = pytest.mark.broker

DOCS = Path(__file__).parents[1] / "docs"
MOSQUITTO = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin")
ROOM, OTHER = "hcm-tgpl-01", "hcm-tgpl-02"
NOT_AUTHORISED = 0x87


def until(true: Callable[[], Any], timeout_s: float = 30.0) -> Any:
    ends = time.monotonic() + timeout_s
    while time.monotonic() < ends:
        if answer := true():
            return answer
        time.sleep(0.02)
    raise AssertionError(f"not within {timeout_s} s")


def blocks() -> dict[str, str]:
    """The shell blocks below `## Certificates`, by the heading above each."""
    page = (DOCS / "operations.md").read_text(encoding="utf-8")
    found: dict[str, str] = {}
    heading = ""
    for part in re.split(r"^### ", page, flags=re.MULTILINE)[1:]:
        heading = part.partition("\n")[0]
        found[heading] = "\n".join(re.findall(r"^```sh\n(.*?)^```$", part, re.M | re.S))
    return found


class Authority:
    """A folder in which the commands of the page were typed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        names = (DOCS / "broker" / "ca.cnf").read_text(encoding="utf-8")
        (folder / "ca.cnf").write_text(names.replace("mqtt.example.vn", "localhost"))
        self.type(blocks()["The authority and the broker"])
        for name in (ROOM, OTHER, "central", "dashboard"):
            self.type(blocks()["A room"].replace(ROOM, name))
            for end in ("pem", "key"):
                (folder / f"room.{end}").rename(folder / f"{name}.{end}")

    def type(self, commands: str) -> None:
        done = subprocess.run(
            ["bash", "-euc", commands],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def revoke(self, name: str) -> None:
        shutil.copy(self.folder / f"{name}.pem", self.folder / "room.pem")
        self.type(blocks()["Revoke"])


class Broker:
    """mosquitto with the files of the documents; only paths and port are others."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        shutil.copy(DOCS / "broker" / "hearing.acl", folder)
        conf = (DOCS / "broker" / "hearing.conf").read_text(encoding="utf-8")
        assert "/etc/mosquitto/hearing/" in conf
        assert "listener 8883" in conf
        conf = conf.replace("/etc/mosquitto/hearing/", f"{folder}/")
        conf = conf.replace("/var/lib/mosquitto/", f"{folder}/")
        conf = conf.replace("listener 8883", f"listener {self.port} 127.0.0.1")
        self._conf = folder / "mosquitto.conf"
        self._conf.write_text(f"user {getpass.getuser()}\n{conf}")
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            [str(MOSQUITTO), "-c", str(self._conf)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

        def answers() -> bool:
            assert self._process.poll() is None, "mosquitto ended: a mistake in its files"
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return True
            return False

        until(answers, 10)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)


class Client:
    """Somebody with a certificate."""

    def __init__(
        self, authority: Authority, broker: Broker, name: str, client_id: str = ""
    ) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self.answers: dict[int, int] = {}
        self.up = threading.Event()
        self.down = threading.Event()
        self._subscribed = threading.Event()
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=client_id or f"test-{name}",
            protocol=mqtt.MQTTv5,
            reconnect_on_failure=False,
        )
        folder = authority.folder
        self.client.tls_set(
            str(folder / "ca.pem"), str(folder / f"{name}.pem"), str(folder / f"{name}.key")
        )
        self.client.on_connect = lambda *_: self.up.set()
        self.client.on_disconnect = lambda *_: self.down.set()
        self.client.on_subscribe = lambda *_: self._subscribed.set()
        self.client.on_message = lambda _, __, m: self.heard.append((m.topic, m.payload))
        self.client.on_publish = lambda _, __, mid, code, *___: self.answers.update(
            {mid: code.value}
        )
        self.client.connect("localhost", broker.port)
        self.client.loop_start()

    def hear(self, *topics: str) -> None:
        for topic in topics:
            self._subscribed.clear()
            self.client.subscribe(topic, qos=1)
            assert self._subscribed.wait(10)

    def say(self, topic: str, payload: str = "x", properties: Properties | None = None) -> int:
        """Publish; the broker's reason, 0x87 for what it forbids."""
        mid = self.client.publish(topic, payload, qos=1, properties=properties).mid
        until(lambda: mid in self.answers, 10)
        return self.answers[mid]

    def topics(self) -> list[str]:
        return [topic for topic, _ in list(self.heard)]

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    if MOSQUITTO is None or shutil.which("openssl") is None:
        pytest.skip("needs mosquitto and openssl")
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def broker(authority: Authority) -> Iterator[Broker]:
    broker = Broker(authority.folder)
    yield broker
    broker.stop()


Join = Callable[..., Client]


@pytest.fixture
def join(authority: Authority, broker: Broker) -> Iterator[Join]:
    clients: list[Client] = []

    def start(name: str, client_id: str = "") -> Client:
        clients.append(Client(authority, broker, name, client_id))
        assert clients[-1].up.wait(10)
        return clients[-1]

    yield start
    for client in clients:
        client.close()


def own(suffix: str, room: str = ROOM) -> str:
    return Topics("hcm", room).of(suffix)


def test_a_room_says_what_is_its_own_and_nothing_else(join: Join) -> None:
    room, central = join(ROOM), join("central")
    central.hear("hearing/v1/#")
    mine = ["status", "about", "readiness", "device/cam-front", "event", "telemetry", "result"]
    for suffix in mine:
        assert room.say(own(suffix)) != NOT_AUTHORISED, suffix
    forbidden = [
        *(own(suffix, OTHER) for suffix in (*mine, "command", "schedule")),
        own("command"),
        own("schedule"),
        "hearing/v1/hcm/_all/command",
        f"hearing/v1/hcm/_central/result/{OTHER}/1",
        "hearing/v1/hcm/central/status",
        "elsewhere",
    ]
    for topic in forbidden:
        assert room.say(topic) == NOT_AUTHORISED, topic
    until(lambda: len(central.heard) >= len(mine))
    assert central.topics() == [own(suffix) for suffix in mine]


def test_a_room_hears_what_is_for_it_and_nothing_else(join: Join) -> None:
    room, other, central = join(ROOM), join(OTHER), join("central")
    room.hear("hearing/v1/#", "hearing/v1/+/+/command", own("readiness", OTHER), "$SYS/#", "#")
    other.say(own("readiness", OTHER))
    for topic in (own("command", OTHER), own("schedule", OTHER)):
        assert central.say(topic) != NOT_AUTHORISED
    for topic in (own("schedule"), "hearing/v1/hcm/_all/command", own("command")):
        assert central.say(topic) != NOT_AUTHORISED
    until(lambda: own("command") in room.topics())
    assert set(room.topics()) == {own("schedule"), own("command"), "hearing/v1/hcm/_all/command"}


def test_a_dashboard_reads_and_says_nothing(join: Join) -> None:
    dashboard, room = join("dashboard"), join(ROOM)
    dashboard.hear("hearing/v1/#")
    for topic in (own("command"), own("schedule"), own("status"), "hearing/v1/hcm/_all/command"):
        assert dashboard.say(topic) == NOT_AUTHORISED
    room.say(own("status"))
    until(lambda: dashboard.topics() == [own("status")])


def test_nobody_takes_the_place_of_another_or_comes_without_a_certificate(
    join: Join, authority: Authority, broker: Broker
) -> None:
    other = join(OTHER)
    join(ROOM, client_id=OTHER)  # the broker calls it by its certificate
    assert not other.down.wait(0.3)
    bare = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    bare.tls_set(str(authority.folder / "ca.pem"))
    up, gone = threading.Event(), threading.Event()
    bare.on_connect = lambda *_: up.set()
    bare.on_disconnect = lambda *_: gone.set()
    with contextlib.suppress(OSError):
        bare.connect("localhost", broker.port)
        bare.loop_start()
        assert gone.wait(10)
        bare.loop_stop()
    assert not up.is_set()


def test_the_agent_lives_with_these_rules_and_a_revoked_room_stays_out(
    join: Join, authority: Authority, broker: Broker, tmp_path: Path
) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    for name, kept in (
        ("ca.pem", "ca.pem"),
        (f"{ROOM}.pem", "room.pem"),
        (f"{ROOM}.key", "room.key"),
    ):
        shutil.copy(authority.folder / name, secrets / kept)
    (tmp_path / "room.toml").write_text(
        f'[room]\nsite = "hcm"\nid = "{ROOM}"\n[host]\nrequired = true\n'
        "[network.network]\ngateway = false\nperiod_s = 3600\n"
        f'[broker]\nhost = "localhost"\nport = {broker.port}\nca_file = "secrets/ca.pem"\n'
        'certificate_file = "secrets/room.pem"\nkey_file = "secrets/room.key"\n'
    )
    central = join("central")
    central.hear("hearing/v1/#")
    environment = {
        **os.environ,
        "STATE_DIRECTORY": str(tmp_path / "state"),
        "RUNTIME_DIRECTORY": str(tmp_path / "run"),
    }
    with (tmp_path / "log").open("w") as log:
        agent = subprocess.Popen(
            [sys.executable, "-m", "agent", "run", "--config", str(tmp_path / "room.toml")],
            stderr=log,
            env=environment,
            cwd=Path(__file__).parents[1],
        )
    try:
        until(lambda: {own("readiness"), own("device/host"), own("event")} <= set(central.topics()))
        answer_to = f"hearing/v1/hcm/_central/result/{ROOM}/1"
        wish = Properties(PacketTypes.PUBLISH)
        wish.ResponseTopic = answer_to
        central.say(own("command"), json.dumps({"v": 1, "id": "1", "command": "report"}), wish)
        until(lambda: {answer_to, own("result")} <= set(central.topics()))
        # A new list counts for new connections: the broker has to be started again.
        authority.revoke(ROOM)
        broker.stop()
        broker.start()

        until(lambda: ": tls (" in (tmp_path / "log").read_text())
        assert join("dashboard").up.is_set()
    finally:
        agent.terminate()
        agent.wait(20)
    assert "refused by the broker" not in (tmp_path / "log").read_text()
