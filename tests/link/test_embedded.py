from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest

from agent.link import embedded


@pytest.mark.parametrize("name", embedded.NAMES)
def test_a_broker_keeps_retained_messages_on_loopback_and_goes(tmp_path: Path, name: str) -> None:
    if embedded.find([name]) is None:
        pytest.skip(f"{name} is not installed")

    async def run() -> None:
        broker = await embedded.start(tmp_path / "broker", [name])
        try:
            assert broker.name == name
            assert await asyncio.to_thread(_retained, broker.port) == b"kept"
        finally:
            await broker.stop()
        assert broker.process.poll() is not None

    asyncio.run(run())


def _retained(port: int) -> bytes:
    """Publish retained, then ask as somebody who comes later."""
    heard: list[bytes] = []
    done = threading.Event()

    def client(name: str) -> mqtt.Client:
        made = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=name, protocol=mqtt.MQTTv311)
        made.connect("127.0.0.1", port)
        made.loop_start()
        return made

    def got(_client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        heard.append(message.payload)
        done.set()

    first = client("first")
    first.publish("hearing/v1/try/here/about", b"kept", qos=1, retain=True).wait_for_publish(10)
    second = client("second")
    second.on_message = got
    second.subscribe("hearing/#", qos=1)
    done.wait(10)
    for each in (first, second):
        each.disconnect()
        each.loop_stop()
    return heard[0] if heard else b""


def test_without_any_broker_the_message_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(embedded.NoBrokerError, match="apt install mosquitto"):
        asyncio.run(embedded.start(tmp_path, ["no-such-broker"]))


def test_a_broker_that_does_not_start_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "mosquitto"
    program.write_text("#!/bin/sh\necho 'Error: no such option'; exit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr(embedded, "find", lambda names: ("mosquitto", str(program)))
    with pytest.raises(embedded.NoBrokerError, match="no such option"):
        asyncio.run(embedded.start(tmp_path / "broker"))


def test_the_broker_dies_with_its_parent(tmp_path: Path) -> None:
    if embedded.find() is None:
        pytest.skip("no broker is installed")
    code = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom agent.link import embedded\n"
        "async def run():\n"
        f"    broker = await embedded.start(Path({str(tmp_path / 'broker')!r}))\n"
        "    print(broker.process.pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(run())\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        os.kill(parent.pid, signal.SIGKILL)
    ends = time.monotonic() + 10
    while time.monotonic() < ends and _lives(pid):
        time.sleep(0.02)
    assert not _lives(pid)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
