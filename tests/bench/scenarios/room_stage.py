"""The agent at work in a box, seen as central sees it: through the broker."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from bench_box.box import Box
from e2e_stage import ROOM, SITE, Listener

UNIT = "room-under-test"
CONFIG = "/etc/hearing-room/room.toml"
SLOW = 3.0
"""The box is emulated and the machine is shared: allow three times what is promised."""
OFTEN = "period_s = 5\ndeadline_s = 20\n"
"""For a device whose deadline is not what is tried: other work on this machine makes no fault."""
RAISED_S = 30.0
"""At a period of 5 s a fault that is there from the start is raised within this (the promise)."""

_HEAD = f"""[room]
site = "{SITE}"
id = "{ROOM}"
language = "en"

[broker]
host = "broker"
tls = false
"""


class Hearsay(Listener):
    """What the broker has been told about the room."""

    def device(self, name: str) -> dict[str, Any]:
        """The latest document of a device; empty before the first."""
        return self.last(f"device/{name}")

    def codes_of(self, name: str) -> set[str]:
        """The codes that stand about a device."""
        return {finding["code"] for finding in self.device(name).get("findings", [])}

    def level_of(self, name: str) -> str:
        """Its level; empty before the first document."""
        return str(self.device(name).get("level", ""))


@dataclass(slots=True)
class Measured:
    """Rows of (scenario, what, raised after, cleared after), seconds."""

    rows: list[tuple[str, str, float | None, float | None]] = field(default_factory=list)

    def add(
        self, where: str, what: str, raised_s: float | None = None, cleared_s: float | None = None
    ) -> None:
        """Notes one row."""
        self.rows.append((where, what, raised_s, cleared_s))

    def table(self) -> str:
        """The rows in Markdown; empty when there are none."""
        if not self.rows:
            return ""

        def shown(seconds: float | None) -> str:
            return "-" if seconds is None else f"{seconds:.1f}"

        lines = ["| where | what | raised after s | cleared after s |", "|---|---|---|---|"]
        lines += [f"| {w} | {what} | {shown(r)} | {shown(c)} |" for w, what, r, c in self.rows]
        return "\n".join(lines)


class Room:
    """The real agent (`hearing-room run`) in a box, as a user without privileges."""

    def __init__(self, box: Box, hearsay: Hearsay, devices: str) -> None:
        self.box = box
        self.hearsay = hearsay
        self._devices = devices

    def describe(self) -> None:
        """Writes room.toml."""
        self.box.write(CONFIG, _HEAD + self._devices)

    def start(self) -> None:
        """Writes room.toml and starts the agent; returns when it says that it is ready."""
        self.describe()
        self.box.start(
            UNIT,
            f"exec hearing-room run --config {CONFIG}",
            "Type=notify",
            "StateDirectory=hearing-room",
            "RuntimeDirectory=hearing-room",
            "RuntimeDirectoryPreserve=yes",
            "SupplementaryGroups=video audio gpio",
            user="pi",
        )

    def stop(self) -> None:
        """Ends it, cleanly."""
        self.box.run(f"systemctl stop {UNIT}", check=False)

    def log(self) -> str:
        """What it said on standard error."""
        return self.box.run(f"journalctl -b --no-pager -o cat -u {UNIT}", check=False).out

    def command(self, *words: str) -> str:
        """`hearing-room WORD ...` as root, with what it printed."""
        line = "RUNTIME_DIRECTORY=/run/hearing-room hearing-room " + " ".join(words)
        return self.box.run(line, check=False).out

    def commission(self, device: str) -> None:
        """A person says that a device is good, which is kept to compare it with."""
        told = self.command("adopt", "--baseline", "--device", device, "--json")
        assert json.loads(told)["state"] == "done", told

    def wait_for(self, device: str, *codes: str, within_s: float = RAISED_S) -> float:
        """Waits until these codes, and no others, stand about a device: seconds that it took.

        No codes: until it is good. Never longer than `SLOW` times what is promised.
        """
        wanted, began = set(codes), time.monotonic()
        while True:
            level, standing = self.hearsay.level_of(device), self.hearsay.codes_of(device)
            if level and standing == wanted:
                return time.monotonic() - began
            if time.monotonic() - began > SLOW * within_s:
                told = self.hearsay.device(device)
                raise AssertionError(
                    f"{device}: {sorted(wanted) or 'good'} not within {SLOW * within_s:.0f} s; "
                    f"last told: {told}\n{self.log()[-3000:]}"
                )
            time.sleep(0.02)

    def wait_for_look(self, device: str) -> dict[str, Any]:
        """The event of the next look at a device that ends, begun after now or not."""
        before = len(self._looks(device))
        ends = time.monotonic() + SLOW * RAISED_S
        while len(looks := self._looks(device)) == before:
            assert time.monotonic() < ends, f"{device} is not looked at"
            time.sleep(0.02)
        return looks[-1]

    def _looks(self, device: str) -> list[dict[str, Any]]:
        return [e for e in self.hearsay.events("look.ended") if e["device"] == device]

    def wait_until_open(self, node: str) -> None:
        """Returns when the agent's worker has a node open (a pattern of the shell): in mid-look."""
        self.box.run(f"for n in $(seq 400); do fuser -s {node} && exit 0; sleep 0.05; done; exit 1")

    def workers(self) -> list[int]:
        """Processes that may open a device."""
        out = self.box.run("pgrep -f '[a]gent.lanes.worker' || true").out
        return [int(word) for word in out.split()]

    def holders(self, node: str) -> list[int]:
        """Processes that have a device node open."""
        out = self.box.run(f"fuser {node} 2>/dev/null || true").out
        return [int(word) for word in out.split()]


@contextmanager
def running(room: Room) -> Iterator[Room]:
    """The room, watched for a while."""
    room.start()
    try:
        yield room
    finally:
        room.stop()
