"""How long a command takes from the broker to the pin, with the real agent in between.

    python tests/benchmarks/command_to_pin.py [--times 300] [--pause-ms 20]

A publisher here, mosquitto, the agent in a process of its own, hands in a thread of this one so
that the moment at which its simulated pin changes is known. Also told: until the result is back,
which includes that the act is on disk, and the bare broker and back for comparison.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))
from e2e_stage import ROOT, Agent, Broker, Listener, wait_for

from agent import clock, settings
from agent.hands import main as hands
from agent.hands import plan
from agent.hands.desk import Desk
from agent.hands.hardware import Hardware
from agent.hands.keeper import Keeper
from agent.lanes import wire

CONFIG = "\n[relay.lamp]\npin = 26\nmax_per_h = 3600\n"


class Here:
    """hands, in a thread; `changed_s` is when its pin changed last."""

    def __init__(self, agent: Agent) -> None:
        self.changed_s = 0.0
        self.changed = threading.Event()
        path = agent.folder / "run/hands.sock"
        listener = hands._listen(path, [])
        self._loop = hands.Loop(
            listener, frozenset({os.geteuid()}), wire.Hello(1, "bench", os.getpid(), ())
        )
        hardware = Hardware(watch=self._loop.watch, environ={"GPIOZERO_PIN_FACTORY": "mock"})
        self._watch(hardware.factory.pin(26))
        keeper = Keeper(agent.folder / "state")
        layout = plan.of(settings.load(agent.config))
        self._desk = Desk(layout, hardware, keeper, boot=clock.boot_id(), clock=clock.up_s)
        self._thread = threading.Thread(target=self._loop.run, args=(self._desk, path))
        self._thread.start()

    def _watch(self, pin: Any) -> None:
        usual = pin._change_state

        def change(value: bool) -> Any:
            changed = usual(value)
            self.changed_s = time.perf_counter()
            self.changed.set()
            return changed

        pin._change_state = change

    def close(self) -> None:
        self._desk.stopping = True
        self._thread.join(15)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=300)
    parser.add_argument("--pause-ms", type=float, default=20.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        broker = Broker(Path(name))
        listener = Listener(broker.port)
        agent = Agent(Path(name), CONFIG, broker.port)
        here = Here(agent)
        agent.start()
        try:
            wait_for(lambda: listener.last("device/lamp").get("level") == "ok", 30)
            report(measure(here, listener, options.times, options.pause_ms / 1000))
        finally:
            if agent.process is not None:
                agent.process.send_signal(signal.SIGTERM)
                try:
                    agent.process.wait(15)
                except subprocess.TimeoutExpired:
                    agent.kill()
            here.close()
            listener.close()
            broker.stop()


def measure(here: Here, listener: Listener, times: int, pause_s: float) -> dict[str, list[float]]:
    pin: list[float] = []
    back: list[float] = []
    bare: list[float] = []
    answered: dict[str, float] = {}
    echoed: dict[bytes, float] = {}
    usual = listener.client.on_message
    sock: Any = listener.client.socket()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as the agent does

    def heard(client: Any, data: Any, message: Any) -> None:
        now = time.perf_counter()
        if message.topic.endswith("/result"):
            answered.setdefault(json.loads(message.payload)["id"], now)
        elif message.topic.endswith("/echo"):
            echoed[bytes(message.payload)] = now
            return
        usual(client, data, message)

    listener.client.on_message = heard
    for number in range(times + 20):
        id_ = uuid.uuid4().hex
        args = {"relay": "lamp", "on": number % 2 == 0}
        wish = json.dumps({"v": 1, "id": id_, "command": "relay.set", "args": args})
        here.changed.clear()
        began_s = time.perf_counter()
        listener.client.publish(ROOT + "command", wish, qos=1)
        assert here.changed.wait(10), "the pin did not move"
        wait_for(lambda id_=id_: id_ in answered, 10)
        if number >= 20:  # the first ones warm everything up
            pin.append(1000 * (here.changed_s - began_s))
            back.append(1000 * (answered[id_] - began_s))
        word = id_.encode()
        began_s = time.perf_counter()
        listener.client.publish(ROOT + "echo", word, qos=1)
        wait_for(lambda word=word: word in echoed, 10)
        bare.append(1000 * (echoed[word] - began_s))
        time.sleep(pause_s)
    return {"broker and back": bare, "command to pin": pin, "command to result": back}


def report(found: dict[str, list[float]]) -> None:
    for name, values in found.items():
        cuts = statistics.quantiles(values, n=100)
        print(
            f"{name:<18} p50 {cuts[49]:6.2f} ms  p90 {cuts[89]:6.2f}  p99 {cuts[98]:6.2f}"
            f"  max {max(values):6.2f}  ({len(values)} times)"
        )


if __name__ == "__main__":
    main()
