"""What an idle link costs: wake-ups and CPU of a process that does nothing else, and the memory of
a long absence made good.

    python tests/benchmarks/link_idle.py [--seconds 120] [--backlog 70000]

The link runs in this process against a mosquitto of its own, with the default keep-alive of 30 s
and heartbeat of 60 s. Wake-ups are voluntary context switches of all threads, CPU is schedstat; the
bare event loop is measured beside it. Prints one JSON object. Run by hand.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "link"))

from link_stage import Mosquitto, Room, running

from agent.link.client import Pace


def cost() -> tuple[float, int]:
    """CPU seconds and wake-ups of this process so far."""
    cpu_ns = wakes = 0
    for task in Path("/proc/self/task").iterdir():
        cpu_ns += int((task / "schedstat").read_text().split()[0])
        status = (task / "status").read_text()
        wakes += int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
    return cpu_ns / 1e9, wakes


def rss_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


async def idle(seconds: float) -> dict[str, float]:
    cpu_s, wakes = cost()
    await asyncio.sleep(seconds)
    cpu_after_s, wakes_after = cost()
    return {
        "wakeups_per_s": round((wakes_after - wakes) / seconds, 3),
        "cpu_s_per_h": round((cpu_after_s - cpu_s) / seconds * 3600, 3),
    }


async def absence(broker: Mosquitto, events: int) -> dict[str, Any]:
    """How long a backlog takes without a rate limit, and what the link holds of it."""
    room = Room(
        {"host": "127.0.0.1", "port": broker.port},
        pace=dataclasses.replace(Pace(), events_per_s=1e9, events_at_once=1_000),
    )
    room.outbox.add(events)
    left = dict(room.outbox.events)

    async def unsent(after: int, limit: int) -> list[tuple[int, bytes]]:
        return [(n, left[n]) for n in range(after + 1, min(after + limit, events) + 1)]

    async def mark_sent(numbers: Any) -> None:
        room.outbox.sent += numbers

    room.outbox.unsent = unsent  # type: ignore[method-assign]
    room.outbox.mark_sent = mark_sent  # type: ignore[method-assign]
    before_mib, began_s = rss_mib(), time.monotonic()
    peak_mib = before_mib
    async with running(room):
        while len(room.outbox.sent) < events:
            await asyncio.sleep(0.05)
            peak_mib = max(peak_mib, rss_mib())
    return {
        "events": events,
        "in_order": room.outbox.sent == list(range(1, events + 1)),
        "events_per_s": round(events / (time.monotonic() - began_s)),
        "rss_grew_mib": round(peak_mib - before_mib, 1),
    }


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        broker = Mosquitto(Path(folder))
        try:
            found: dict[str, Any] = {"loop_alone": await idle(options.seconds / 2)}
            async with running(Room({"host": "127.0.0.1", "port": broker.port}, pace=Pace())):
                await asyncio.sleep(2)
                found["link"] = await idle(options.seconds)
            found["backlog"] = await absence(broker, options.backlog)
        finally:
            broker.kill()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--backlog", type=int, default=70_000)
    print(json.dumps(asyncio.run(measure(parser.parse_args())), indent=1))


if __name__ == "__main__":
    main()
