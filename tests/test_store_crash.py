"""The store after kill -9, on broken, foreign, torn and outdated files: it always goes on."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from test_store import all_events, broken_links, event, incident, with_store

from agent.model import StoreError
from agent.store import Store

_WRITER = """
import asyncio, sys
sys.path.insert(0, sys.argv[2])
from test_store import *

async def life():
    store = Store(Path(sys.argv[1]) / "agent.db", clock=HandClock(), linger_s=0.01)
    await store.open()
    print("ready", flush=True)
    async def write(start):
        i = start
        while True:
            n = await store.record(event(i), importance=i % 3, opened=incident(f"cam-{start}"))
            print(n, flush=True)
            i += 10
            if i % 7 == 0:
                await store.mark_sent([n])
    await asyncio.gather(*[write(k) for k in range(4)])

asyncio.run(life())
"""


def test_kill_9_in_the_middle_of_writes_loses_nothing_acknowledged(tmp_path: Path) -> None:
    acknowledged: list[int] = []
    draw = random.Random(1)
    for _ in range(3):
        child = subprocess.Popen(
            [sys.executable, "-c", _WRITER, tmp_path, str(Path(__file__).parent)],
            stdout=subprocess.PIPE,
        )
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        acknowledged += [int(child.stdout.readline()) for _ in range(draw.randrange(20, 200))]
        os.kill(child.pid, signal.SIGKILL)
        rest = child.stdout.read().split(b"\n")
        child.stdout.close()
        acknowledged += [int(line) for line in rest[:-1]]
        assert child.wait(10) == -signal.SIGKILL

    async def after(store: Store) -> None:
        record = await all_events(store)
        numbers = [n for n, _ in record]
        assert len(set(acknowledged)) == len(acknowledged)
        assert set(acknowledged) <= set(numbers)
        assert numbers == list(range(1, len(numbers) + 1))
        assert broken_links(record) == []
        assert {i.device for i in await store.open_incidents()} == {f"cam-{k}" for k in range(4)}
        assert await store.record(event(0)) == numbers[-1] + 1

    with_store(tmp_path, after)


# -- broken files --------------------------------------------------------------------------------


async def _history(store: Store) -> None:
    """A first life: 50 events, of which 10 are not sent, and a schedule."""
    events = [store.post(event(i, text="a word " * 30)) for i in range(50)]
    numbers = await asyncio.gather(*events)
    await store.mark_sent(numbers[:40])
    await store.put_document("schedule", b'{"hearings":[]}')
    await store.record(event(50), opened=incident())


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _torn(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _stub(path: Path) -> None:
    os.truncate(path, 100)


def _garbage(path: Path) -> None:
    path.write_bytes(random.Random(2).randbytes(50_000))


def _text(path: Path) -> None:
    path.write_text("not a database at all\n" * 100)


def _zeroed_header(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(bytes(100))


def _zeroed_page(path: Path) -> None:
    """A lost page of events; the small tables stand."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size - 4096)
        file.write(bytes(4096))


def _foreign(path: Path) -> None:
    path.unlink()
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE events(n INTEGER PRIMARY KEY, payload TEXT)")
    other.execute("INSERT INTO events VALUES(4711, 'whose is this?')")
    other.commit()
    other.close()


BREAKS = [_empty, _torn, _stub, _garbage, _text, _zeroed_header, _zeroed_page, _foreign]


@pytest.mark.parametrize("damage", BREAKS, ids=lambda f: f.__name__.strip("_"))
def test_a_broken_file_is_set_aside_and_numbers_go_on_above(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    path = tmp_path / "agent.db"
    with_store(tmp_path, _history)
    damage(path)
    wreck = path.read_bytes()

    async def next_life(store: Store) -> list[tuple[int, bytes]]:
        assert await store.record(event(0)) > 1_000
        return await all_events(store)

    record = with_store(tmp_path, next_life)
    first, gap = record[0][0], json.loads(record[0][1])
    assert first > 1_000
    assert (gap["type"], gap["code"], gap["prev"]) == ("gap", "agent.store_gap", "")
    assert gap["numbers"]["to"] == first - 1
    if damage is _empty:  # an empty file has nothing to set aside
        assert gap["why"] == "missing"
    else:
        assert gap["why"] == ("foreign" if damage is _foreign else "corrupt")
        assert (tmp_path / "agent.db.corrupt-1").read_bytes() == wreck
    assert broken_links(record) == []

    async def then(store: Store) -> None:  # and the new one is sound
        assert await store.record(event(1)) == record[-1][0] + 1
        assert await all_events(store) == record + (await store.events(1))
        if damage is _zeroed_page:
            assert gap["numbers"]["from"] == 41
            assert await store.document("schedule") == b'{"hearings":[]}'
            assert await store.open_incidents() == [incident()]

    with_store(tmp_path, then)


def test_the_wal_of_a_broken_file_is_set_aside_with_it(tmp_path: Path) -> None:
    live = tmp_path / "live"

    async def copied_alive(store: Store) -> None:
        await store.put_document("schedule", b"{}")
        for file in live.iterdir():
            shutil.copy(file, tmp_path / file.name)

    with_store(live, _history)
    with_store(live, copied_alive)
    wal = (tmp_path / "agent.db-wal").read_bytes()
    assert len(wal) > 4096
    _garbage(tmp_path / "agent.db")

    async def after(store: Store) -> None:
        assert await store.record(event(0)) > 1_000
        assert (tmp_path / "agent.db.corrupt-1-wal").read_bytes() == wal

    with_store(tmp_path, after)


def test_a_torn_wal_costs_only_its_torn_end(tmp_path: Path) -> None:
    live = tmp_path / "live"

    async def copied_alive(store: Store) -> None:
        for i in range(20):
            await store.record(event(i))
        for file in live.iterdir():
            shutil.copy(file, tmp_path / file.name)

    with_store(live, copied_alive)
    wal = tmp_path / "agent.db-wal"
    os.truncate(wal, wal.stat().st_size - 5_000)

    async def after(store: Store) -> None:
        record = await all_events(store)
        assert 15 <= len(record) < 20
        assert broken_links(record) == []
        assert await store.record(event(0)) == record[-1][0] + 1

    with_store(tmp_path, after)


def test_a_file_that_breaks_while_in_use_is_replaced_while_in_use(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"

    async def much(store: Store) -> None:
        for start in range(0, 4_000, 200):
            text = "a word " * 30
            await asyncio.gather(*[store.post(event(start + i, text=text)) for i in range(200)])
        await store.put_document("schedule", b"{}")

    with_store(tmp_path, much)

    async def life(store: Store) -> None:
        with path.open("r+b") as file:  # beyond the pages that SQLite holds in memory
            file.seek(40 * 4096)
            file.write(bytes(200 * 4096))
        with pytest.raises(StoreError):
            await all_events(store)
        pending = store.post(event(0))
        number = await pending
        record = await all_events(store)
        assert [n for n, _ in record] == [number - 1, number]
        assert number > 4_000
        assert json.loads(record[0][1])["why"] == "corrupt"
        assert await store.document("schedule") == b"{}"
        assert store.failing == ""

    with_store(tmp_path, life)
    assert (tmp_path / "agent.db.corrupt-1").exists()


def test_only_the_newest_two_broken_files_are_kept(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        await store.record(event(0))

    for _ in range(4):
        with_store(tmp_path, work)
        _garbage(tmp_path / "agent.db")
    with_store(tmp_path, work)
    kept = sorted(p.name for p in tmp_path.glob("agent.db.corrupt-*"))
    assert kept == ["agent.db.corrupt-3", "agent.db.corrupt-4"]


# -- numbers are never used twice ------------------------------------------------------------------


def test_an_older_copy_put_back_goes_on_above_the_numbers_used_since(tmp_path: Path) -> None:
    path = tmp_path / "agent.db"

    async def few(store: Store) -> None:
        for i in range(5):
            await store.record(event(i))

    with_store(tmp_path, few)
    backup = path.read_bytes()

    async def many(store: Store) -> None:
        for _ in range(3):
            await asyncio.gather(*[store.post(event(i)) for i in range(1_000)])
        assert (await store.events(1))[0][0] == 3_005

    with_store(tmp_path, many)
    path.write_bytes(backup)

    async def after(store: Store) -> None:
        number = await store.record(event(0))
        assert number > 3_005
        record = await all_events(store)
        gap = json.loads(record[5][1])
        assert (gap["why"], gap["numbers"]) == ("rolled_back", {"to": number - 2})
        # The hole in the numbers is where the gap says; the chain of hashes is whole.
        assert broken_links(record) == [number - 1]

    with_store(tmp_path, after)


@pytest.mark.parametrize("text", ["", "nonsense", "-5", "12x"])
def test_a_mark_that_cannot_be_read_is_made_anew(tmp_path: Path, text: str) -> None:
    with_store(tmp_path, _history)
    (tmp_path / "agent.n").write_text(text)

    async def work(store: Store) -> None:
        assert await store.record(event(0)) == 52

    with_store(tmp_path, work)
    assert int((tmp_path / "agent.n").read_text()) == 1_052


def test_without_a_mark_the_broken_file_itself_is_asked(tmp_path: Path) -> None:
    with_store(tmp_path, _history)
    (tmp_path / "agent.n").unlink()
    _zeroed_page(tmp_path / "agent.db")

    async def work(store: Store) -> None:
        assert await store.record(event(0)) == 53  # after the gap event

    with_store(tmp_path, work)


def test_the_mark_moves_once_in_a_thousand_events(tmp_path: Path) -> None:
    marks = set()

    async def work(store: Store) -> None:
        for _ in range(10):
            await asyncio.gather(*[store.post(event(i)) for i in range(250)])
            marks.add((tmp_path / "agent.n").read_text())

    with_store(tmp_path, work)
    assert marks == {"1001\n", "2002\n", "3003\n"}


def test_a_failure_before_the_first_event_costs_no_number(tmp_path: Path) -> None:
    """The mark is moved before the transaction that needs it; the agent dies in between."""

    async def nothing(store: Store) -> None:
        assert await store.unsent(0, 1) == []

    with_store(tmp_path, nothing)
    (tmp_path / "agent.n").write_text("1001\n")

    async def work(store: Store) -> None:
        assert await store.record(event(0)) == 1
        assert len(await all_events(store)) == 1

    with_store(tmp_path, work)
