"""What an event costs on disk: bytes written and events per second, checkpoints included.

    python tests/benchmarks/store_cost.py [--folder DIR] [--events 2000]

Bytes are `write_bytes` of /proc/self/io: what this process made the kernel send to the disk. Run by
hand, on the kind of disk in question (DIR); on tmpfs there is nothing to measure. The floor is one
INSERT of the same payload into one table, with the same durability, one transaction each.
"""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from agent.clock import SystemClock
from agent.link.contract import common, encode
from agent.store import Store

CLOCK = SystemClock().now


def written() -> int:
    text = Path("/proc/self/io").read_text()
    return int(text.partition("\nwrite_bytes:")[2].split()[0])


def event(number: int) -> dict[str, Any]:
    return {
        **common(CLOCK()),
        "type": "incident.opened",
        "device": "cam-front",
        "code": "camera.frozen",
        "level": "fail",
        "since": CLOCK().iso,
        "numbers": {"unchanged_s": number, "luma_mean": 96.5},
    }


def line(name: str, events: int, began: tuple[float, int]) -> None:
    took_s, sent = time.monotonic() - began[0], written() - began[1]
    print(f"{name:46}{events / took_s:10,.0f} events/s{sent / events:10,.0f} B/event", flush=True)


def start() -> tuple[float, int]:
    return time.monotonic(), written()


def floor(folder: Path, events: int) -> None:
    db = sqlite3.connect(folder / "floor.db", isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("CREATE TABLE events(n INTEGER PRIMARY KEY, payload BLOB)")
    began = start()
    for i in range(events):
        db.execute("INSERT INTO events VALUES(?,?)", (i, encode(event(i)) + b" " * 76))
    db.close()
    line("floor: one INSERT, one table", events, began)


async def one_by_one(store: Store, events: int) -> None:
    for i in range(events):
        await store.record(event(i))


async def delivered(store: Store, events: int) -> None:
    """As with a broker: every event is marked, and a mark waits for the next transaction."""
    for i in range(events):
        await store.mark_sent([await store.record(event(i))])


async def bursts(store: Store, events: int) -> None:
    for _ in range(events // 50):
        await store.mark_sent(await asyncio.gather(*[store.post(event(i)) for i in range(50)]))


async def looks(store: Store, events: int) -> None:
    """Two details of one look at a device and the marks of the two before, in one transaction."""
    for i in range(events // 2):
        pair = [store.post(event(i), importance=0), store.post(event(i), importance=0)]
        await store.mark_sent(await asyncio.gather(*pair))


async def measure(
    folder: Path, name: str, events: int, work: Callable[[Store, int], Awaitable[None]], **kw: Any
) -> None:
    store = Store(folder / f"{work.__name__}.db", clock=CLOCK, **kw)
    await store.open()
    began = start()
    await work(store, events)
    assert await store.close(60)
    line(name, events, began)


async def full_record(folder: Path) -> None:
    """The steady state after years: 64 MiB of record, pruned as it grows; and a start on it."""
    path = folder / "full.db"
    store = Store(path, clock=CLOCK)
    await store.open()
    while path.stat().st_size < (64 << 20) - 65_536:
        await store.mark_sent(await asyncio.gather(*[store.post(event(i)) for i in range(1_000)]))
    began = start()
    await delivered(store, 1_000)
    line("one by one at the limit, pruning", 1_000, began)
    await store.close(60)
    began_s = time.monotonic()
    store = Store(path, clock=CLOCK)
    await store.open(60)
    took_s = time.monotonic() - began_s
    print(f"start on {path.stat().st_size >> 20} MiB, every page checked: {took_s:.2f} s")
    await store.close(60)


async def backlog(folder: Path) -> None:
    """20,000 events wait for the broker: how long one window takes to be had."""
    store = Store(folder / "backlog.db", clock=CLOCK)
    await store.open()
    for _ in range(20):
        await asyncio.gather(*[store.post(event(i)) for i in range(1_000)])
    began = start()
    await asyncio.gather(*[store.post(event(i)) for i in range(1_000)])
    line("overflow: bursts over a full outbox", 1_000, began)
    after, windows, began_s = 0, 0, time.monotonic()
    while rows := await store.unsent(after, 20):
        after, windows = rows[-1][0], windows + 1
        await store.mark_sent([n for n, _ in rows])
    took_ms = (time.monotonic() - began_s) * 1000
    print(f"drain of 20,000 in windows of 20: {took_ms / windows:.2f} ms a window")
    await store.close(60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--events", type=int, default=2_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder, events = Path(name), options.events
        print(f"SQLite {sqlite3.sqlite_version}, event of {len(encode(event(1))) + 76} B, {folder}")
        floor(folder, events)
        asyncio.run(measure(folder, "one by one", events, one_by_one))
        asyncio.run(measure(folder, "one by one, delivered", events, delivered))
        asyncio.run(measure(folder, "bursts of 50, delivered", events, bursts))
        asyncio.run(measure(folder, "looks: pairs of details", events, looks, linger_s=0.005))
        asyncio.run(backlog(folder))
        asyncio.run(full_record(folder))


if __name__ == "__main__":
    main()
