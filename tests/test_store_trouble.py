"""The store on disks that are busy, full, read-only, hung or gone, and its recovery from each."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from test_store import (
    NOW,
    HandClock,
    all_events,
    broken_links,
    event,
    incident,
    quick,
    until,
    with_store,
)

from agent.model import StoreError
from agent.store import Store

MS_RDONLY, MS_REMOUNT, MNT_DETACH = 1, 32, 2
FIFREEZE, FITHAW = 0xC0045877, 0xC0045878
SBIN = "/sbin:/usr/sbin:/bin:/usr/bin"
libc = ctypes.CDLL(None, use_errno=True)


def mount(kind: str, at: Path, flags: int = 0, options: str = "") -> None:
    if libc.mount(b"none", os.fsencode(at), kind.encode(), flags, options.encode()) != 0:
        pytest.skip(f"cannot mount a {kind}: {os.strerror(ctypes.get_errno())}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("tmpfs", folder, options="size=1m")
    yield folder
    libc.umount2(os.fsencode(folder), MNT_DETACH)


class Card:
    """A real ext4 on a loop device, which the kernel can stop or break as a dying SD card is."""

    def __init__(self, image: Path, folder: Path) -> None:
        self.image, self.folder = image, folder

    def guard(self) -> subprocess.Popen[bytes]:
        """Thaws the card if this process is killed while it is frozen: nobody else would."""
        code = (
            "import fcntl, os, select, sys; select.select([0], [], [], 60);"
            f"fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), {FITHAW}, 0)"
        )
        command = [sys.executable, "-S", "-E", "-c", code, self.folder]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def insert(self) -> str:
        command = ["mount", "-o", "loop", self.image, self.folder]
        return subprocess.run(command, capture_output=True, text=True).stderr.strip()

    def turn_bad(self) -> None:
        subprocess.run(["mount", "-o", "remount,abort", self.folder], capture_output=True)

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            freeze(self.folder, on=False)
        subprocess.run(["umount", "-l", self.folder], check=True)

    def repair(self) -> None:
        self.remove()
        tool = shutil.which("fsck.ext4", path=SBIN)
        assert tool is not None
        assert subprocess.run([tool, "-fy", self.image], capture_output=True).returncode <= 1
        assert self.insert() == ""


@pytest.fixture
def card(tmp_path: Path) -> Iterator[Card]:
    image, folder = tmp_path / "image", tmp_path / "disk"
    folder.mkdir()
    image.touch()
    os.truncate(image, 16 << 20)
    tool = shutil.which("mkfs.ext4", path=SBIN)
    if os.geteuid() != 0 or tool is None:
        pytest.skip("needs root and mkfs.ext4")
    subprocess.run([tool, "-q", "-F", image], check=True)
    card = Card(image, folder)
    if error := card.insert():
        pytest.skip(f"no loop device: {error}")
    yield card
    card.remove()


@pytest.fixture
def freezable(card: Card) -> Iterator[Path]:
    with card.guard() as guard:
        yield card.folder
        guard.kill()


def freeze(folder: Path, *, on: bool) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.ioctl(handle, FIFREEZE if on else FITHAW, 0)
    finally:
        os.close(handle)


async def lives_again(store: Store, pending: list[asyncio.Future[int]]) -> None:
    """Every leg of recovery ends like this: nothing lost, nothing twice, chain whole."""
    numbers = await asyncio.gather(*pending)
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert store.failing == ""
    record = await all_events(store)
    assert [n for n, _ in record][-len(numbers) :] == numbers
    assert broken_links(record) == []


def test_a_file_that_somebody_holds_is_waited_for(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        await store.record(event(0))
        with contextlib.closing(sqlite3.connect(tmp_path / "agent.db")) as other:
            other.execute("BEGIN EXCLUSIVE")
            pending = [store.post(event(i)) for i in range(5)]
            await until(lambda: store.failing == "busy")
            assert not any(p.done() for p in pending)
            assert store.pending_age_s(NOW.up_s + 30) == 30
            assert len(await store.unsent(0, 10)) == 1  # reading goes on
            other.execute("ROLLBACK")
        await lives_again(store, pending)
        assert store.pending_age_s(NOW.up_s + 30) == 0

    with_store(tmp_path, work)


def test_marks_survive_attempts_that_fail(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        await store.record(event(0))
        with contextlib.closing(sqlite3.connect(tmp_path / "agent.db")) as other:
            other.execute("BEGIN EXCLUSIVE")
            await store.mark_sent([1])
            await until(lambda: store._pause_s > 0.02)  # more than one attempt
            assert await store.unsent(0, 10) == []
            other.execute("ROLLBACK")
            await until(lambda: not store.failing)
            assert other.execute("SELECT count(*) FROM outbox").fetchone() == (0,)

    with_store(tmp_path, work, linger_s=0.001)


def test_a_full_disk_is_waited_for(small_disk: Path) -> None:
    async def work(store: Store) -> None:
        await store.record(event(0))
        ballast = small_disk / "ballast"
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        pending = [store.post(event(i)) for i in range(50)]
        await until(lambda: store.failing == "full")
        assert not pending[-1].done()
        assert [n for n, _ in await store.unsent(0, 1)] == [1]
        ballast.unlink()
        await lives_again(store, pending)

    with_store(small_disk, work)


def test_a_disk_that_is_full_from_the_start_is_waited_for(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1 << 20))

    async def life() -> None:
        async with asyncio.timeout(30):
            store = quick(small_disk / "agent.db", HandClock())
            await store.open()
            assert store.failing
            with pytest.raises(StoreError):
                await store.document("schedule")
            pending = [store.post(event(i)) for i in range(5)]
            ballast.unlink()
            await lives_again(store, pending)
            assert await store.document("schedule") is None
            assert await store.close(5)

    asyncio.run(life())


_LIMITED = """
import asyncio, resource, sys
sys.path.insert(0, sys.argv[2])
from test_store import *
from test_store_trouble import lives_again

async def work(store):
    await store.record(event(0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))
    pending = [store.post(event(i)) for i in range(400)]
    await until(lambda: store.failing != "")
    print(store.failing, flush=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await lives_again(store, pending)
    print("lives", flush=True)

with_store(Path(sys.argv[1]), work)
"""


def test_a_file_that_may_not_grow_is_waited_for(tmp_path: Path) -> None:
    here = str(Path(__file__).parent)
    run = subprocess.run(
        [sys.executable, "-c", _LIMITED, tmp_path, here], capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0, run.stderr
    failing, lives = run.stdout.split()
    assert failing in ("full", "io_error")
    assert lives == "lives"
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_a_disk_that_turns_read_only_is_still_read_and_keeps_what_it_took(card: Card) -> None:
    """What Linux does when an SD card answers a write with an error."""

    async def life() -> None:
        async with asyncio.timeout(30):
            store = quick(card.folder / "agent.db", HandClock())
            await store.open()
            await store.put_document("schedule", b"{}")
            assert await store.record(event(0)) == 1
            card.turn_bad()
            pending = [store.post(event(i)) for i in range(5)]
            await until(lambda: store.failing != "")
            assert store.failing in ("read_only", "io_error")
            assert await store.document("schedule") == b"{}"
            assert not await store.close(5)
            assert [await p for p in pending] == [0] * 5

    asyncio.run(life())
    card.repair()

    async def later(store: Store) -> None:
        assert await store.record(event(6)) == 2
        assert broken_links(await all_events(store)) == []

    with_store(card.folder, later)


@pytest.mark.parametrize("clean", [True, False], ids=["stopped", "crashed"])
def test_a_start_on_a_read_only_disk_knows_the_schedule(small_disk: Path, clean: bool) -> None:
    before = small_disk if clean else small_disk / "life"
    before.mkdir(exist_ok=True)

    async def first(store: Store) -> None:
        await store.put_document("schedule", b"{}")
        await store.record(event(0), opened=incident())
        if not clean:  # what a crash leaves: the files as they are in mid-life
            for file in before.iterdir():
                shutil.copy(file, small_disk / file.name)

    with_store(before, first)
    assert (small_disk / "agent.db-wal").exists() is not clean

    async def life() -> None:
        async with asyncio.timeout(30):
            mount("tmpfs", small_disk, MS_REMOUNT | MS_RDONLY)
            store = quick(small_disk / "agent.db", HandClock())
            await store.open()
            assert await store.document("schedule") == b"{}"
            assert await store.open_incidents() == [incident()]
            pending = [store.post(event(i)) for i in range(3)]
            await until(lambda: store.failing == "read_only")
            mount("tmpfs", small_disk, MS_REMOUNT, "size=1m")
            await lives_again(store, pending)
            assert [n for n, _ in await all_events(store)] == [1, 2, 3, 4]
            assert await store.close(5)

    asyncio.run(life())


def test_a_folder_that_cannot_be_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file stands where the folder should be")

    async def life() -> None:
        async with asyncio.timeout(30):
            store = quick(tmp_path / "state" / "agent.db", HandClock())
            await store.open()
            pending = [store.post(event(0))]
            await until(lambda: store.failing == "no_file")
            (tmp_path / "state").unlink()
            await lives_again(store, pending)
            assert await store.close(5)

    asyncio.run(life())


def test_a_database_deleted_while_in_use_goes_on_above_its_numbers(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        for i in range(5):
            await store.record(event(i))
        for file in tmp_path.glob("agent.db*"):
            file.unlink()
        number = await store.record(event(5))
        record = await all_events(store)
        assert [n for n, _ in record] == [number - 1, number]
        assert number > 1_000
        gap = json.loads(record[0][1])
        assert (gap["type"], gap["why"], gap["numbers"]) == ("gap", "missing", {"to": number - 2})
        assert broken_links(record) == []

    with_store(tmp_path, work)


# -- a disk that hangs ----------------------------------------------------------------------------


def test_a_hung_disk_costs_only_durability(freezable: Path) -> None:
    async def work(store: Store) -> None:
        await store.record(event(0))
        freeze(freezable, on=True)
        pending = [store.post(event(i)) for i in range(20)]
        with pytest.raises(StoreError):
            await store.document("schedule")  # the thread hangs, the question has a deadline
        assert not any(p.done() for p in pending)
        assert store.pending_age_s(NOW.up_s + 30) == 30
        freeze(freezable, on=False)
        await lives_again(store, pending)
        assert store.pending_age_s(NOW.up_s + 30) == 0

    with_store(freezable, work, answer_s=0.05)


def test_closing_on_a_hung_disk_is_bounded_and_its_work_ends_later(freezable: Path) -> None:
    async def life() -> None:
        store = quick(freezable / "agent.db", HandClock())
        await store.open()
        freeze(freezable, on=True)
        pending = store.post(event(0))
        began_s = time.monotonic()
        assert not await store.close(0.1)
        assert time.monotonic() - began_s < 2
        assert await pending == 0
        freeze(freezable, on=False)
        for thread in threading.enumerate():
            if thread.name == "store":
                await asyncio.to_thread(thread.join, 10)
                assert not thread.is_alive()

    asyncio.run(life())

    async def later(store: Store) -> None:
        assert [n for n, _ in await all_events(store)] == [1]  # it was written after all

    with_store(freezable, later)


_HANGS = """
import asyncio, sys
sys.path.insert(0, sys.argv[2])
from test_store import *

async def life():
    store = quick(Path(sys.argv[1]) / "agent.db", HandClock())
    await store.open(timeout_s=0.05)
    pending = store.post(event(0))
    assert not await store.close(0.05)
    assert await pending == 0

asyncio.run(life())
print("done", flush=True)
"""


def test_a_disk_that_hangs_in_open_holds_up_neither_start_nor_exit(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "agent.n")  # open(2) blocks: nobody writes
    here = str(Path(__file__).parent)
    run = subprocess.run(
        [sys.executable, "-c", _HANGS, tmp_path, here], capture_output=True, text=True, timeout=20
    )
    assert (run.returncode, run.stdout.strip()) == (0, "done"), run.stderr
    (tmp_path / "agent.n").unlink()

    async def works(store: Store) -> None:
        assert await store.record(event(0)) == 1

    with_store(tmp_path, works)


# -- memory ---------------------------------------------------------------------------------------


def test_memory_is_bounded_while_the_disk_is_away_and_a_gap_tells(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        await store.record(event(0), opened=incident("old"))
        with contextlib.closing(sqlite3.connect(tmp_path / "agent.db")) as other:
            other.execute("BEGIN EXCLUSIVE")
            first = store.post(event(1), importance=5)
            await until(lambda: store.failing == "busy")
            plain = [store.post(event(2), closed=incident("old"))]
            plain += [store.post(event(i), opened=incident(f"d{i % 3}")) for i in range(30)]
            alarms = [store.post(event(i), importance=3) for i in range(15)]
            tried_s = store._pause_s
            await until(lambda: store._pause_s > 2 * tried_s)  # more attempts that fail
            other.execute("ROLLBACK")
        assert await first
        assert all(await asyncio.gather(*alarms))
        lost = [n for n in await asyncio.gather(*plain) if n == 0]
        assert len(lost) >= 25
        record = await all_events(store)
        assert broken_links(record) == []
        gaps = [json.loads(p) for _, p in record if json.loads(p)["type"] == "gap"]
        numbers = {"count": len(lost), "importance": 1}
        assert [(g["why"], g["numbers"]) for g in gaps] == [("memory", numbers)]
        # What the lost events said about incidents is true in the register all the same.
        assert {i.device for i in await store.open_incidents()} == {"d0", "d1", "d2"}

    with_store(tmp_path, work, memory_max=20)


def test_what_stays_of_lost_events_is_bounded(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        with contextlib.closing(sqlite3.connect(tmp_path / "agent.db")) as other:
            other.execute("BEGIN EXCLUSIVE")
            for i in range(300):
                store.post(event(i), opened=incident())
                store.post(event(i), closed=replace(incident(), until=NOW))
            # 20 events, as many in the thread's hands, and one stub for the incident
            assert len(store._writes) <= 20 + 21 + 1
            other.execute("ROLLBACK")
        await store.record(event(0))
        assert await store.open_incidents() == []

    with_store(tmp_path, work, memory_max=20)
