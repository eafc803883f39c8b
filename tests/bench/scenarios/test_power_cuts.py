"""The power is cut again and again while the room is at work: it boots, nothing is corrupt, no
event number is used twice, nothing that was acknowledged is lost, and `ready` is never said before
it is known.

A third of the cuts come the moment an answer or an event is received: what was told a millisecond
ago has to be there afterwards. Some come while the box is still booting.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import sqlite3
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from bench_box import tape
from bench_box.box import Box
from bench_box.recipe import VENV
from bench_box.sockets import ENVIRONMENT
from e2e_stage import ROOT, Broker, wait_for
from install_stage import SET_CLOCK
from room_stage import CONFIG, SLOW, UNIT, Hearsay, Measured, Room

CUTS = int(os.environ.get("HEARING_ROOM_CUTS", "20"))
SEED = int(os.environ.get("HEARING_ROOM_SEED") or time.time_ns() % 1_000_000)
BOOT_S = 120.0
"""From power to `ready`, on this emulated box."""
STATE, HANDS_STATE = "/var/lib/hearing-room", "/var/lib/hands"
RELAYS = {"lamp": (26, False), "camera": (20, True)}
"""GPIO line, and whether it is on when the line is low."""
NEEDED = (*RELAYS, "status", "mic")
DEVICES = """
[host]
period_s = 5
[network.network]
gateway = false
[relay.lamp]
pin = 26
power_on = "last"
max_per_h = 3600
period_s = 1
required = true
[relay.camera]
pin = 20
active_low = true
power_on = "last"
max_per_h = 3600
period_s = 1
required = true
[indicator.status]
red = 17
green = 27
period_s = 1
required = true
[microphone.mic]
source = "hw:Mic,1"
period_s = 5
deadline_s = 20
"""
HANDS = "hands-under-test"
PATH = ENVIRONMENT[0]
UNITS = {
    # What a room has by itself: a clock that is right, somebody who speaks.
    "surroundings.service": f"""
        [Service]
        Type=oneshot
        RemainAfterExit=yes
        Environment={PATH}
        ExecStart=/usr/bin/python3 /root/set_clock.py
        ExecStart=/usr/local/sbin/bench-hands microphone live
        [Install]
        WantedBy=multi-user.target
        """,
    f"{HANDS}.socket": """
        [Socket]
        ListenStream=/run/hearing-room/hands.sock
        SocketUser=pi
        SocketMode=0600
        [Install]
        WantedBy=sockets.target
        """,
    f"{HANDS}.service": f"""
        [Unit]
        Requires={HANDS}.socket
        StartLimitIntervalSec=0
        [Service]
        Type=notify
        User=pi
        SupplementaryGroups=gpio
        StateDirectory=hands
        ExecStart={VENV}/bin/python -m agent.hands.main --config {CONFIG} --state {HANDS_STATE}
        Restart=always
        RestartSec=100ms
        FileDescriptorStoreMax=16
        [Install]
        WantedBy=multi-user.target
        """,
    f"{UNIT}.service": f"""
        [Unit]
        Wants={HANDS}.socket surroundings.service
        After={HANDS}.socket surroundings.service
        StartLimitIntervalSec=0
        [Service]
        Type=notify
        User=pi
        SupplementaryGroups=video audio gpio
        Environment={PATH}
        StateDirectory=hearing-room
        RuntimeDirectory=hearing-room
        RuntimeDirectoryPreserve=yes
        ExecStart={VENV}/bin/hearing-room run --config {CONFIG}
        TimeoutStartSec=300
        Restart=always
        RestartSec=1
        [Install]
        WantedBy=multi-user.target
        """,
}
COPY = f"""
import json, os, sqlite3, sys
from pathlib import Path
store = sqlite3.connect("file:{STATE}/agent.db?mode=ro", uri=True, timeout=30)
copy = sqlite3.connect("/tmp/copy.db")
store.backup(copy)
copy.execute("PRAGMA journal_mode=DELETE")
copy.close()
files = [f for d in ("{STATE}", "{HANDS_STATE}") for f in Path(d).iterdir()]
sizes = {{str(f): f.stat().st_size for f in files}}
names = ["{CONFIG}", "{STATE}/agent.n", "{HANDS_STATE}/hands.json"]
texts = {{name: Path(name).read_text() for name in names}}
print(json.dumps({{"sizes": sizes, "texts": texts}}))
"""


class Ear(Hearsay):
    """All that is heard, as bytes, with the time; and something that is done at once when a
    message of one kind comes."""

    def __init__(self, port: int) -> None:
        self.tape: list[tuple[float, str, bytes]] = []
        self._snap: tuple[str, int, Callable[[], None]] | None = None
        super().__init__(port)

    def _message(self, client: Any, data: Any, message: Any) -> None:
        suffix = message.topic.removeprefix(ROOT)
        self.tape.append((time.monotonic(), suffix, message.payload))
        if self._snap and suffix == self._snap[0] and b'"accepted"' not in message.payload:
            awaited, count, act = self._snap
            self._snap = (awaited, count - 1, act) if count > 1 else None
            if count <= 1:
                act()
        super()._message(client, data, message)

    def snap(self, suffix: str, count: int, act: Callable[[], None]) -> None:
        """Do something at the n-th message from now on, in the thread that receives it."""
        self._snap = (suffix, count, act)

    def of(self, suffix: str, since: int = 0) -> list[bytes]:
        """What was said on a topic."""
        return [payload for _, s, payload in self.tape[since:] if s == suffix]

    def when(self, since: int, suffix: str, fits: Callable[[dict[str, Any]], bool]) -> float | None:
        """When something was said for the first time since a place of the tape."""
        for at_s, s, payload in self.tape[since:]:
            if s == suffix and payload and fits(json.loads(payload)):
                return at_s
        return None


@dataclass(slots=True)
class Wish:
    """A command that was sent."""

    id: str
    command: str
    args: dict[str, Any]

    @property
    def relay(self) -> str:
        return str(self.args.get("relay", ""))


@dataclass(slots=True)
class Central:
    """Who sends commands, and remembers them."""

    ear: Ear
    draw: random.Random
    wishes: dict[str, Wish] = field(default_factory=dict)
    last: dict[str, bool] = field(default_factory=lambda: dict.fromkeys(RELAYS, False))
    """What each relay was seen to be after the last boot."""
    looked: int = 0
    """How many answers there were then."""
    _going: threading.Event = field(default_factory=threading.Event)

    def answers(self) -> dict[str, list[bytes]]:
        """What was answered, by id."""
        found: dict[str, list[bytes]] = {id_: [] for id_ in self.wishes}
        for payload in self.ear.of("result"):
            found.setdefault(json.loads(payload)["id"], []).append(payload)
        return found

    def done(self) -> dict[str, bytes]:
        """The answers `done`."""
        said = [(json.loads(payload), payload) for payload in self.ear.of("result")]
        return {doc["id"]: payload for doc, payload in said if doc["state"] == "done"}

    def open(self) -> list[Wish]:
        """Wishes without a final answer, oldest first."""
        said = self.answers()
        return [w for w in self.wishes.values() if not _final(said[w.id])]

    def send(self, wish: Wish) -> None:
        self.wishes[wish.id] = wish
        document = {"v": 1, "id": wish.id, "command": wish.command, "args": wish.args}
        document |= {"ttl_s": 60, "by": "central", "reason": wish.id}
        self.ear.client.publish(ROOT + "command", json.dumps(document), qos=1)

    @contextlib.contextmanager
    def busy(self, cut: int) -> Iterator[None]:
        """Sends all the time, at most one wish for each relay and three in all at once."""
        self._going.set()
        thread = threading.Thread(target=self._keep_sending, args=(cut,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._going.clear()
            thread.join(10)

    def _keep_sending(self, cut: int) -> None:
        number = 0
        while self._going.is_set():
            time.sleep(self.draw.uniform(0.02, 0.25))
            pending = self.open()
            free = sorted(RELAYS.keys() - {w.relay for w in pending})
            if len(pending) >= 3:
                continue
            number += 1
            id_ = f"cut-{cut}-{number}"
            if free and self.draw.random() < 0.8:
                relay = self.draw.choice(free)
                on = self.draw.random() < 0.5
                self.send(Wish(id_, "relay.set", {"relay": relay, "on": on}))
            else:
                self.send(Wish(id_, "locate", {"seconds": self.draw.randrange(60)}))

    def may_be(self, relay: str) -> set[bool]:
        """What a relay can be now: as the last answer said, or as a wish without one wants."""
        known = self.last[relay]
        heard: set[str] = set()  # an answer that is given again says what was, not what is
        for nth, payload in enumerate(self.ear.of("result")):
            said = json.loads(payload)
            if said["state"] == "accepted" or said["id"] in heard:
                continue
            heard.add(said["id"])
            done = said["state"] == "done" and said["effect"].get("relay") == relay
            if done and nth >= self.looked:
                known = bool(said["effect"]["on"])
        return {known} | {bool(w.args["on"]) for w in self.open() if w.relay == relay}


def _final(said: list[bytes]) -> bool:
    return any(json.loads(a)["state"] != "accepted" for a in said)


@dataclass(slots=True)
class Tally:
    """What came of all cuts."""

    online_s: list[float] = field(default_factory=list)
    ready_s: list[float] = field(default_factory=list)
    resent: int = 0
    kinds: list[str] = field(default_factory=list)


class Stage(Room):
    """The room of this file: services that start with the box."""

    def __init__(self, box: Box, ear: Ear, folder: Path) -> None:
        super().__init__(box, ear, DEVICES)
        self.ear = ear
        self.folder = folder
        self.central = Central(ear, random.Random(SEED + 1))
        self.tally = Tally()

    def start(self) -> None:
        self.describe()
        self.box.write("/root/set_clock.py", SET_CLOCK)
        self.box.write("/root/copy.py", COPY)
        for name, text in UNITS.items():
            self.box.write(f"/etc/systemd/system/{name}", textwrap.dedent(text))
        units = " ".join(UNITS)
        self.box.run(f"systemctl daemon-reload; systemctl enable --now {units}; sync")

    def until_ready(self, since: int) -> None:
        """The agent has come up by itself: it says so, and then that the room is ready."""
        for suffix, state in (("status", "online"), ("readiness", "ready")):
            limit_s = SLOW * BOOT_S

            def fits(said: dict[str, Any], wanted: str = state) -> bool:
                return said.get("state") == wanted

            def heard(topic: str = suffix) -> bool:
                return self.ear.when(since, topic, fits) is not None

            try:
                wait_for(heard, limit_s, f"not {state} within {limit_s:.0f} s")
            except AssertionError as error:
                told = self.ear.last("readiness")
                raise AssertionError(f"{error}; {told}\n{self.log()[-4000:]}") from None

    def boot(self) -> None:
        """Power, until it is ready; how long that took is noted."""
        since, began = len(self.ear.tape), time.monotonic()
        self.box.power_on()
        self.until_ready(since)
        for times, suffix, state in (
            (self.tally.online_s, "status", "online"),
            (self.tally.ready_s, "readiness", "ready"),
        ):
            at_s = self.ear.when(since, suffix, lambda said, s=state: said.get("state") == s)
            assert at_s is not None
            times.append(at_s - began)

    # -- after a boot --------------------------------------------------------------------------

    def relays_are_as_answered(self) -> None:
        """hands had it on its disk before anybody was told."""
        for relay, (line, active_low) in RELAYS.items():
            on = self.box.gpio.read(line) is not active_low
            may_be = self.central.may_be(relay)
            assert on in may_be, f"{relay} is {on} and was last answered to be {may_be}"
            self.central.last[relay] = on
        self.central.looked = len(self.ear.of("result"))

    def answers_are_given_again(self, cut: int) -> None:
        """The same ids again: those of this cut, and some older ones."""
        done = self.central.done()
        ids = [id_ for id_ in done if id_.startswith(f"cut-{cut}-")]
        older = sorted(done.keys() - set(ids))
        ids += self.central.draw.sample(older, min(5, len(older)))
        for wish in [*self.central.open(), *(self.central.wishes[id_] for id_ in ids)]:
            before = self._finals(wish.id)
            self.central.send(wish)
            self.tally.resent += 1

            def again(id_: str = wish.id, count: int = before) -> bool:
                return self._finals(id_) > count

            wait_for(again, SLOW * 20, f"{wish.id} is not answered again")

    def _finals(self, id_: str) -> int:
        return sum(_final([a]) for a in self.central.answers()[id_])

    def disk_is_sound(self) -> None:
        """The store and the small files, as they lie on the disk; held against what was heard
        before they were copied."""
        events, answers = self.ear.of("event"), self.central.answers()
        found = json.loads(self.box.run("rm -f /tmp/copy.db; python3 /root/copy.py").out)
        self.box.pull("/tmp/copy.db", self.folder / "copy.db")
        self.files_are_whole(found["sizes"], found["texts"])
        mark = int(found["texts"][f"{STATE}/agent.n"])
        self.record_is_whole(self.folder / "copy.db", mark, events, answers)

    def files_are_whole(self, sizes: dict[str, int], texts: dict[str, str]) -> None:
        assert not [name for name in sizes if ".corrupt-" in name], sizes
        may_be_empty = ("agent.lock", "-wal", ".new")
        empty = [n for n, size in sizes.items() if not size and not n.endswith(may_be_empty)]
        assert not empty, sizes
        assert DEVICES in texts[CONFIG]
        hands = json.loads(texts[f"{HANDS_STATE}/hands.json"])
        assert set(hands["relays"]) == set(RELAYS)

    def record_is_whole(
        self, path: Path, mark: int, events: list[bytes], answers: dict[str, list[bytes]]
    ) -> None:
        store = sqlite3.connect(path)
        (said,) = store.execute("PRAGMA integrity_check").fetchall()
        assert said == ("ok",), said
        record = dict(store.execute("SELECT n, payload FROM events").fetchall())
        kept = dict(store.execute("SELECT id, result FROM commands").fetchall())
        store.close()
        assert max(record) <= mark
        assert not [e for e in record.values() if json.loads(e)["type"] == "gap"]
        wrong = tape.heard_wrong(self.ear.of("event"))
        wrong += tape.record_wrong(record, events)
        wrong += tape.answers_wrong(answers, kept, record)
        wrong += tape.ready_wrong([(s, p) for _, s, p in self.ear.tape], NEEDED)
        for relay in RELAYS:
            wrong += tape.tellings_wrong(record, relay)
        moves = [e for _, e in sorted(record.items()) if b'"relay.' in e]
        assert not wrong, "\n".join([*wrong, *(str(move) for move in moves[-20:])])


@pytest.fixture
def ear(broker: Broker) -> Iterator[Ear]:
    """All that is said about the room."""
    client = Ear(broker.port)
    yield client
    client.close()


@pytest.fixture
def stage(box: Box, ear: Ear, tmp_path: Path) -> Iterator[Stage]:
    box.install_checkout()
    made = Stage(box, ear, tmp_path)
    made.start()
    yield made
    made.stop()


def test_nothing_is_lost_however_often_the_power_is_cut(
    stage: Stage, measured: Measured, capfd: pytest.CaptureFixture[str]
) -> None:
    def tell(line: str) -> None:
        """Progress, for who waits a quarter of an hour."""
        with capfd.disabled():
            print(line, flush=True)

    tell(f"seed {SEED}: HEARING_ROOM_SEED={SEED} draws the same moments")
    draw = random.Random(SEED)
    stage.until_ready(0)
    for cut in range(1, CUTS + 1):
        cut_somewhen(stage, cut, draw)
        if cut < CUTS and draw.random() < 0.15:  # and once more before it has come up
            stage.tally.kinds.append("in boot")
            stage.box.machine.boot(keep=True)
            time.sleep(draw.uniform(0.0, 15.0))
            stage.box.cut_power()
        stage.boot()
        stage.relays_are_as_answered()
        stage.answers_are_given_again(cut)
        stage.disk_is_sound()
        tell(f"cut {cut} of {CUTS}, {stage.tally.kinds[-1]}: {summary(stage)}")
    stage.stop()
    stage.disk_is_sound()
    report(stage, measured)


def cut_somewhen(stage: Stage, cut: int, draw: random.Random) -> None:
    """Some time of work, and then no power: at some moment, or just when something was told."""
    kind = draw.choice(["some time", "result", "event"])
    stage.tally.kinds.append(kind)
    is_off = threading.Event()

    def off() -> None:
        stage.box.cut_power()
        is_off.set()

    with stage.central.busy(cut):
        if kind == "some time":
            time.sleep(draw.uniform(0.0, 12.0))
            off()
        else:
            stage.ear.snap(kind, draw.randrange(1, 30), off)
            assert is_off.wait(SLOW * 60), f"too few messages on {kind}"
    time.sleep(1.0)  # what the broker has, it hands on


def summary(stage: Stage) -> str:
    events = stage.ear.of("event")
    done = len(stage.central.done())
    again = len(events) - len({tape.numbered(e) for e in events})
    return (
        f"{len(events)} events ({again} again), {done} commands done, "
        f"{stage.tally.resent} sent again, online after {stage.tally.online_s[-1]:.0f} s, "
        f"ready after {stage.tally.ready_s[-1]:.0f} s"
    )


def report(stage: Stage, measured: Measured) -> None:
    tally, events = stage.tally, stage.ear.of("event")
    where = f"{len(tally.kinds)} power cuts"
    kinds = ", ".join(f"{tally.kinds.count(k)} {k}" for k in sorted(set(tally.kinds)))
    again = len(events) - len({tape.numbered(e) for e in events})
    measured.add(where, f"moments: {kinds} (seed {SEED})")
    measured.add(where, f"{len(events) - again} events received, {again} of them again; 0 lost")
    measured.add(where, f"{len(stage.central.done())} done, {tally.resent} sent again; 0 lost")
    for name, times in (("online", tally.online_s), ("ready", tally.ready_s)):
        measured.add(where, f"power -> {name}, mean", None, sum(times) / len(times))
        measured.add(where, f"power -> {name}, longest", None, max(times))
