"""A room in which something is taken away and given back, watched from inside the box.

The broker cannot tell what a room says that does not reach it. So a small program in the box keeps
every status file that the agent writes, and another one looks at the lamps' lines.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bench_box.box import Box
from room_stage import RAISED_S, SLOW, Hearsay, Measured, Room, running

from agent.hands import lights
from agent.patterns import PATTERNS

RED, GREEN = 17, 27
LAMPS = ("red", "green")
STATUS = "/run/hearing-room/status.json"
DIARY = "/run/outage-diary"
SYNC_FILE = "/tmp/sync-clock.py"
_KEEP = f"""
import json, os, time
seen, out = 0, open("{DIARY}", "a")
while True:
    time.sleep(0.05)
    try:
        if (now := os.stat("{STATUS}").st_mtime_ns) == seen:
            continue
        with open("{STATUS}") as file:
            told = json.load(file)
    except FileNotFoundError:
        continue
    seen = now
    told["at_s"] = time.clock_gettime(time.CLOCK_BOOTTIME)
    out.write(json.dumps(told) + chr(10))
    out.flush()
"""
_WATCH = """
import glob, json, sys, time
def line(n):
    return open(glob.glob(f"/sys/devices/platform/gpio-sim.*/gpiochip*/sim_gpio{n}/value")[0])
files = [line(n) for n in sys.argv[2:]]
ends, runs = time.monotonic() + float(sys.argv[1]), []
while (now := time.monotonic()) < ends:
    lit = []
    for file in files:
        file.seek(0)
        lit.append(file.read().strip() == "1")
    if not runs or runs[-1][0] != lit:
        runs.append([lit, now])
    time.sleep(0.01)
runs.append([[], ends])
print(json.dumps([[lit, after[1] - at] for (lit, at), after in zip(runs, runs[1:])]))
"""
_SYNC = """
import ctypes, struct
timex = ctypes.create_string_buffer(512)
struct.pack_into("<I", timex, 0, 0x10 | 0x04 | 0x08)
assert ctypes.CDLL(None).adjtimex(timex) == 0
"""
"""What an NTP client says to the kernel: the clock is right (no error, not STA_UNSYNC)."""


@dataclass(frozen=True, slots=True)
class Said:
    """One status file: when it was written (boot time of the box) and what it says."""

    at_s: float
    state: str
    levels: dict[tuple[str, str], str]
    """(device, code) -> level; the agent's own have no device."""
    pattern: str
    document: dict[str, Any]

    @classmethod
    def of(cls, told: dict[str, Any]) -> Said:
        readiness = told["readiness"]
        reasons = {(r.get("device", ""), r["code"]): r["level"] for r in readiness["reasons"]}
        lamps = [d for d in told["devices"] if d["kind"] == "indicator"]
        pattern = lamps[0]["readings"].get("pattern", "") if lamps else ""
        return cls(told["at_s"], readiness["state"], reasons, str(pattern), told)

    @property
    def brief(self) -> str:
        """For a message of what went wrong."""
        return f"{self.state}, {self.pattern}, {self.levels}"


@dataclass(frozen=True, slots=True)
class Outage:
    """What is taken away, what the room has to say of it and how soon, and how it comes back."""

    what: str
    device: str
    code: str
    light: str
    begin: Callable[[Box], object]
    end: Callable[[Box], object]
    state: str = "not_ready"
    level: str = "fail"
    raised_s: float = RAISED_S
    cleared_s: float = RAISED_S
    ready_s: float = RAISED_S
    """How soon after that nothing else stands against the room."""
    reaches: bool = True
    """Whether the broker hears of it while it lasts."""


class WatchedRoom(Room):
    """A room with a diary and lamps that can be looked at."""

    def __init__(self, box: Box, hearsay: Hearsay, devices: str) -> None:
        super().__init__(box, hearsay, devices)
        self._read: list[Said] = []
        self._bytes = 0

    def start(self) -> None:
        """Starts the diary and then the agent."""
        self._read, self._bytes = [], 0
        self.box.write("/tmp/keep-diary.py", _KEEP)
        self.box.write("/tmp/watch-lamps.py", _WATCH)
        self.box.write(SYNC_FILE, _SYNC)
        self.box.run("rm -f " + DIARY)
        self.box.start("outage-diary", "exec python3 -I /tmp/keep-diary.py")
        super().start()

    def stop(self) -> None:
        """Ends both."""
        super().stop()
        self.box.run("systemctl stop outage-diary", check=False)

    def up_s(self) -> float:
        """The boot time of the box."""
        return float(self.box.read("/proc/uptime").split()[0])

    def said(self, since_s: float = 0.0) -> list[Said]:
        """What the room has said since a moment, and what stood at that moment."""
        news = self.box.run(f"tail -c +{self._bytes + 1} {DIARY}").out
        whole = news[: news.rfind("\n") + 1]  # the last line may be half written
        self._bytes += len(whole.encode())
        self._read += [Said.of(json.loads(line)) for line in whole.splitlines()]
        before = [said for said in self._read if said.at_s < since_s][-1:]
        return before + [said for said in self._read if said.at_s >= since_s]

    def latest(self) -> Said:
        """What it says now."""
        return self.said()[-1]

    def until(self, holds: Callable[[Said], bool], within_s: float, why: str) -> Said:
        """The first thing said from now on for which something holds, and what stands counts."""
        since_s, ends = self.up_s(), time.monotonic() + SLOW * within_s
        while True:
            told = next(filter(holds, self.said(since_s)), None)
            if told is not None:
                return told
            if time.monotonic() > ends:
                raise AssertionError(
                    f"{why}: not within {SLOW * within_s:.0f} s; last said: "
                    f"{self.latest().brief}\n{self.log()[-3000:]}"
                )
            time.sleep(0.3)

    def until_ready(self, within_s: float = RAISED_S) -> Said:
        """Until it is ready, and its light says so."""
        return self.until(
            lambda s: s.state == "ready" and s.pattern == "ready", within_s, "not ready"
        )

    def until_code(
        self, device: str, code: str, *, stands: bool = True, within_s: float = RAISED_S
    ) -> Said:
        """Until a code stands about a device, or does no more."""
        return self.until(
            lambda s: ((device, code) in s.levels) is stands, within_s, f"{code} is not {stands}"
        )

    def lamps_show(self, name: str) -> None:
        """The kernel's lines do what the pattern says: these lamps, this often in a row."""
        pattern = PATTERNS[name]
        watch_s = max(8.0, 3 * sum(pattern.times))
        out = self.box.run(f"python3 -I /tmp/watch-lamps.py {watch_s} {RED} {GREEN}").out
        runs = [(frozenset(itertools.compress(LAMPS, lit)), s) for lit, s in json.loads(out)]
        wanted = lights.lamps(pattern.colour, LAMPS)
        # Two lamps are two writes: for a moment one burns alone.
        seen = {burning for burning, lasts_s in runs if burning and lasts_s > 0.04}
        assert seen == {wanted}, f"{name}: {runs}"
        longest_dark_s = max(pattern.times[1::2], default=0.0)
        blinks = len(pattern.times) // 2
        groups, count = [], 0
        for burning, lasts_s in runs[1:]:  # the first one was cut
            count += burning == wanted
            if not burning and lasts_s > 0.75 * longest_dark_s:
                groups.append(count)
                count = 0
        if blinks:
            assert set(groups[1:]) == {blinks}, f"{name}: {runs}"


def suffer(
    room: WatchedRoom,
    measured: Measured,
    outage: Outage,
    meanwhile: Callable[[Said], object] = lambda raised: None,
) -> None:
    """Plays an outage and its recovery, and holds what is promised of every one: the right words
    in the right places in time, never `ready` between them, and everything well again."""
    key = (outage.device, outage.code)
    room.until_ready()
    count = len(distinct(room.hearsay))
    began_s = room.up_s()
    outage.begin(room.box)
    try:
        raised = room.until(
            lambda s: s.levels.get(key) == outage.level and s.state == outage.state,
            outage.raised_s,
            f"{outage.what} is no {outage.code}",
        )
        shown = room.until(lambda s: s.pattern == outage.light, RAISED_S, "the light says else")
        room.lamps_show(outage.light)
        if outage.device:
            assert outage.code in codes_of(shown, outage.device)
        if outage.reaches:
            until(lambda: outage.code in room.hearsay.codes(), "readiness does not tell")
            if outage.device:
                until(lambda: outage.code in room.hearsay.codes_of(outage.device), "nor device")
        meanwhile(raised)
        assert room.latest().levels.get(key), "it went away by itself"
    finally:
        ended_s = room.up_s()
        outage.end(room.box)
    cleared = room.until(lambda s: key not in s.levels, outage.cleared_s, "it does not clear")
    room.until_ready(outage.ready_s)
    room.lamps_show("ready")
    first = next(s for s in room.said(began_s)[1:] if key in s.levels)
    between = [s for s in room.said(first.at_s) if first.at_s <= s.at_s < cleared.at_s]
    assert between
    assert "ready" not in {s.state for s in between}
    until(lambda: edges(room.hearsay, count, key) == ["opened", "closed"], "events are missing")
    no_hole(room.hearsay)
    until(lambda: room.hearsay.last("readiness")["state"] == "ready", "the broker knows better")
    measured.add(
        "outages",
        f"{outage.what} -> {outage.code} ({outage.level}, light {outage.light})",
        raised.at_s - began_s,
        cleared.at_s - ended_s,
    )


def codes_of(said: Said, device: str) -> set[str]:
    """The codes in the document of a device."""
    (document,) = (d for d in said.document["devices"] if d["id"] == device)
    return {finding["code"] for finding in document["findings"]}


def edges(hearsay: Hearsay, after: int, key: tuple[str, str]) -> list[str]:
    """What the broker has heard of an incident, after so many events: `opened`, `closed`."""
    return [
        e["type"].partition(".")[2]
        for e in distinct(hearsay)[after:]
        if e["type"].startswith("incident.") and (e.get("device") or "", e["code"]) == key
    ]


def distinct(hearsay: Hearsay) -> list[dict[str, Any]]:
    """The events that the broker has heard, in the order of their numbers; what came twice is
    there once."""
    return [e for _, e in sorted({e["n"]: e for e in hearsay.events()}.items())]


def no_hole(hearsay: Hearsay) -> None:
    """Every event since the first one has arrived."""
    numbers = [e["n"] for e in distinct(hearsay)]
    assert numbers == list(range(numbers[0], numbers[-1] + 1)), numbers


def until(what: Callable[[], bool], why: str, within_s: float = RAISED_S) -> None:
    """Waits for something at the broker."""
    ends = time.monotonic() + SLOW * within_s
    while not what():
        assert time.monotonic() < ends, why
        time.sleep(0.05)


@contextmanager
def room_in(box: Box, hearsay: Hearsay, devices: str) -> Iterator[WatchedRoom]:
    """A room that is ready."""
    with running(WatchedRoom(box, hearsay, devices)) as room:
        assert isinstance(room, WatchedRoom)
        box.run(f"python3 -I {SYNC_FILE}")
        room.until_ready(60)
        yield room
