"""Relays, lights and button on real lines of the kernel, watched from the kernel's side: the trace
of its GPIO subsystem tells every change of direction and level, whoever made it."""

from __future__ import annotations

import os
import textwrap
import time
from collections.abc import Iterator

import pytest
from bench_box.box import Box
from bench_box.recipe import PROJECT, VENV
from e2e_stage import wait_for
from room_stage import CONFIG, SLOW, UNIT, Hearsay, Measured, Room, running

HANDS = "hands-under-test"
RELAY, LOW, RED, GREEN, BUTTON = 26, 20, 17, 27, 4
DEVICES = f"""
[host]
period_s = 3600
[relay.lamp]
pin = {RELAY}
period_s = 1
[relay.camera]
pin = {LOW}
active_low = true
power_on = "on"
period_s = 1
[indicator.status]
red = {RED}
green = {GREEN}
[button.button]
pin = {BUTTON}
"""
TRACE = "/sys/kernel/tracing"
KILLS = int(os.environ.get("HEARING_ROOM_KILLS", "5"))
"""How often the agent is killed; 50 takes a quarter of an hour."""
LOST_S = 10.0


UNITS = {
    "socket": """
        [Socket]
        ListenStream=/run/hearing-room/hands.sock
        SocketUser=pi
        SocketMode=0600
        """,
    "service": f"""
        [Unit]
        StartLimitIntervalSec=0
        [Service]
        Type=notify
        User=pi
        SupplementaryGroups=gpio
        ExecStart={VENV}/bin/python -m agent.hands.main --config {CONFIG} --state /var/lib/hands
        Restart=always
        RestartSec=100ms
        FileDescriptorStoreMax=16
        FileDescriptorStorePreserve=yes
        """,
}


class Hands:
    """hands as a service of its own, with a socket and a store of descriptors, as installed."""

    def __init__(self, box: Box) -> None:
        self.box = box

    def start(self) -> None:
        self.box.run("install -d -o pi -g gpio /run/hearing-room /var/lib/hands")
        for kind, text in UNITS.items():
            self.box.write(f"/run/systemd/system/{HANDS}.{kind}", textwrap.dedent(text))
        self.box.run(f"systemctl daemon-reload; systemctl start {HANDS}.socket {HANDS}.service")

    def pid(self) -> int:
        return int(self.box.run(f"systemctl show -P MainPID {HANDS}.service").out)

    def another(self, than: int) -> int:
        def found() -> int:
            pid = self.pid()
            return 0 if pid == than else pid

        return int(wait_for(found, 60, "hands did not come back"))


class Trace:
    """What the kernel's GPIO subsystem did since `clear`."""

    def __init__(self, box: Box) -> None:
        self.box = box
        box.run(f"mountpoint -q {TRACE} || mount -t tracefs none {TRACE}")
        base = box.run("cat /sys/class/gpio/gpiochip*/base 2>/dev/null | sort -n | tail -1").out
        self._base = int(base or 0)
        self.clear()

    def clear(self) -> None:
        self.box.run(f"echo 1 > {TRACE}/events/gpio/enable; echo > {TRACE}/trace")

    def of(self, line: int) -> list[str]:
        """What was done to it, oldest first: `out`, `in`, `0`, `1`. Readings are left out."""
        number = self._base + line
        events = rf"gpio_(direction|value): +{number} +(in|out|set)"
        out = self.box.run(f"grep -E '{events}' {TRACE}/trace || true").out
        said = [text.rpartition("gpio_")[2].split() for text in out.splitlines()]
        return [word[3] if word[2] == "set" else word[2] for word in said]


@pytest.fixture
def hands(box: Box) -> Iterator[Hands]:
    box.install_checkout()
    made = Hands(box)
    yield made
    box.run(f"systemctl stop {HANDS}.socket {HANDS}.service", check=False)


@pytest.fixture
def room(box: Box, hearsay: Hearsay, hands: Hands) -> Iterator[Room]:
    made = Room(box, hearsay, DEVICES)
    made.describe()
    hands.start()
    with running(made):
        ready(made)
        yield made


def ready(room: Room) -> None:
    """The agent knows its relays."""
    wait_for(lambda: room.hearsay.level_of("lamp") == "ok", SLOW * 30, "no reading of a relay")


def switch(room: Room, relay: str, wanted: bool) -> None:
    word = "true" if wanted else "false"
    said = room.command("command", "relay.set", f"relay={relay}", f"on={word}", "--json")
    assert '"state":"done"' in said, said + room.log()


def test_the_kernels_pins_keep_the_contract(box: Box, measured: Measured) -> None:
    box.install_checkout()
    began = time.monotonic()
    out = box.run(f"cd {PROJECT} && python tests/hands/pins_contract.py").out
    assert out.count(": kept") == 9, out
    measured.add("gpio-sim", "pin contract", time.monotonic() - began)


def test_no_line_is_for_a_moment_what_nobody_chose(
    box: Box, hearsay: Hearsay, hands: Hands
) -> None:
    """The active-low relay is on after power comes back: its line goes out as 0 and nothing else,
    the other one goes out as 0 (off), in the same request as its level."""
    trace = Trace(box)
    Room(box, hearsay, DEVICES).describe()
    hands.start()
    assert not box.gpio.read(LOW), "active low and on"
    assert not box.gpio.read(RELAY)
    for line in (LOW, RELAY):
        assert set(trace.of(line)) <= {"out", "0"}, trace.of(line)
        assert "out" in trace.of(line)


def test_a_line_is_driven_read_back_and_watched(room: Room, measured: Measured) -> None:
    trace = Trace(room.box)
    began = time.monotonic()
    switch(room, "lamp", True)
    measured.add("relay", "command to read-back, by hand", time.monotonic() - began)
    assert room.box.gpio.read(RELAY)
    switch(room, "lamp", False)
    assert not room.box.gpio.read(RELAY)
    switch(room, "camera", False)
    assert room.box.gpio.read(LOW)
    assert [w for w in trace.of(RELAY) if w in "01"] == ["1", "0"]
    assert [w for w in trace.of(LOW) if w in "01"] == ["1"]
    switched = room.hearsay.events("relay.switched")
    assert [(e["device"], e["after"]) for e in switched][-3:] == [
        ("lamp", True),
        ("lamp", False),
        ("camera", False),
    ]


def test_a_real_edge_is_a_press(room: Room) -> None:
    room.box.gpio.release(BUTTON)
    room.box.gpio.pulse(BUTTON, 0.3)
    wait_for(lambda: room.hearsay.events("button.pressed"), SLOW * 5, "no press was told")
    room.box.gpio.pulse(BUTTON, 4.0)
    wait_for(lambda: len(room.hearsay.events("button.pressed")) == 2, SLOW * 10)
    assert [e["meaning"] for e in room.hearsay.events("button.pressed")] == ["short", "check"]


def test_the_glass_is_broken_by_a_held_button_and_a_reason(room: Room) -> None:
    room.box.gpio.release(BUTTON)
    hold_session(room)
    said = room.command("command", "relay.set", "relay=lamp", "on=true", "--json")
    assert "session_lock" in said
    broken = (
        "relay.set",
        "relay=lamp",
        "on=true",
        "break_glass=true",
        "--reason",
        "fire",
        "--json",
    )
    assert "not_held" in room.command("command", *broken)
    room.box.gpio.press(BUTTON)
    time.sleep(1.0)
    said = room.command("command", *broken)
    room.box.gpio.release(BUTTON)
    assert '"state":"done"' in said, said + room.log()
    assert room.box.gpio.read(RELAY)


def hold_session(room: Room) -> None:
    """A hearing that runs now."""
    now = float(room.box.run("date +%s").out)
    times = [time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now + s)) for s in (-60, 3600)]
    entry = {"id": "HS-1", "starts": times[0], "ends": times[1]}
    room.hearsay.publish("schedule", {"v": 1, "hearings": [entry]}, retain=True)
    wait_for(lambda: room.hearsay.last("readiness").get("mode") == "in_session", SLOW * 10)


def test_no_line_moves_when_the_agent_is_killed_and_the_lights_say_so(
    room: Room, measured: Measured
) -> None:
    switch(room, "lamp", True)
    slowest = 0.0
    for _ in range(KILLS):
        trace = Trace(room.box)
        room.box.run(f"systemctl kill -s KILL {UNIT}")
        began = time.monotonic()
        wait_for(lambda: lost(room), SLOW * LOST_S, "the lights do not say that it is lost")
        slowest = max(slowest, time.monotonic() - began)
        assert not room.box.gpio.read(GREEN), "a green light is left over"
        assert moved(trace) == []
        room.start()
        wait_for(lambda: not lost(room), SLOW * 30, "the lights do not come back")
        ready(room)
        on = room.hearsay.device("lamp")["readings"]["on"]
        assert on is True
        assert moved(trace) == []
    measured.add(f"agent killed {KILLS} times", "monitor lost, at most", slowest)
    assert slowest < LOST_S + 2, "promised are 10 s"


def lost(room: Room) -> bool:
    line = "python3 -I /tmp/ask.py"
    if room.box.run("test -e /tmp/ask.py", check=False).code:
        room.box.write("/tmp/ask.py", ASK)
    return "monitor_lost" in room.box.run(line).out


ASK = r"""
import json, socket
with socket.socket(socket.AF_UNIX) as sock:
    sock.connect("/run/hearing-room/hands.sock")
    lines = sock.makefile("rb")
    lines.readline()
    question = {"id": 1, "kind": "indicator", "ask": "read", "deadline_s": 5,
                "settings": {"light": "status"}}
    sock.sendall(json.dumps(question).encode() + b"\n")
    print(lines.readline().decode())
"""


def moved(trace: Trace) -> list[str]:
    """Every change of a relay's line since the trace began."""
    return trace.of(RELAY) + trace.of(LOW)


def test_a_crash_and_a_restart_of_hands_hold_every_line(
    room: Room, hands: Hands, measured: Measured
) -> None:
    switch(room, "lamp", True)
    trace = Trace(room.box)
    for how in ("kill -s KILL", "kill -s USR2"):
        before = hands.pid()
        began = time.monotonic()
        room.box.run(f"systemctl {how} {HANDS}.service")
        hands.another(before)
        ready(room)
        measured.add("hands", how, time.monotonic() - began)
        assert room.box.gpio.read(RELAY)
        assert moved(trace) == [], "a line moved"
    # And the one that came back can still switch it.
    wait_for(lambda: "done" in room.command("command", "relay.set", "relay=lamp", "on=false"), 60)
    assert not room.box.gpio.read(RELAY)
    # A restart by systemd is a stop and a start: on_stop = "hold" holds.
    switch(room, "lamp", True)
    trace.clear()
    before = hands.pid()
    room.box.run(f"systemctl restart {HANDS}.service")
    hands.another(before)
    assert room.box.gpio.read(RELAY)
    assert moved(trace) == []


def test_an_agent_that_is_restarted_finds_its_relays(room: Room) -> None:
    switch(room, "lamp", True)
    trace = Trace(room.box)
    room.stop()
    room.start()
    ready(room)
    assert room.box.gpio.read(RELAY)
    assert moved(trace) == []
