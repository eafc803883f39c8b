"""The store on a disk that works: numbers, chain, outbox, incidents, bounds."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.link.contract import EventDoc, common
from agent.model import Clock, Incident, Level, Moment, StoreError
from agent.store import Store

NOW = Moment(1_000.0, 1_795_000_000.0, Clock.SYNCED, "0badcafe")
DAY_S = 86_400.0


class HandClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.moment = NOW

    def __call__(self) -> Moment:
        return self.moment

    def forward(self, seconds: float) -> None:
        self.moment = self.moment.after(seconds)

    def say(self, clock: Clock, utc_s: float | None = None) -> None:
        self.moment = replace(self.moment, clock=clock, utc_s=utc_s or self.moment.utc_s)


def event(number: int, **fields: Any) -> dict[str, Any]:
    return {**common(NOW), "type": "test", "i": number, **fields}


def incident(device: str = "cam-front", code: str = "camera.frozen") -> Incident:
    return Incident(device, code, Level.FAIL, NOW, {"unchanged_s": 87})


def quick(path: Path, clock: Callable[[], Moment], **settings: Any) -> Store:
    """A store with short pauses, so that failures and their ends are seen soon."""
    return Store(path, clock=clock, **{"retry_s": 0.01, "busy_s": 0.02, **settings})


def with_store(
    folder: Path,
    work: Callable[[Store], Awaitable[Any]],
    clock: HandClock | None = None,
    **settings: Any,
) -> Any:
    """Open, work, close: one life of an agent."""

    async def life() -> Any:
        async with asyncio.timeout(60):
            store = quick(folder / "agent.db", clock or HandClock(), **settings)
            await store.open()
            assert store.failing == ""
            try:
                return await work(store)
            finally:
                assert await store.close(timeout_s=10)

    return asyncio.run(life())


async def all_events(store: Store) -> list[tuple[int, bytes]]:
    """The whole record, oldest first."""
    return (await store.events(1_000_000))[::-1]


def broken_links(record: list[tuple[int, bytes]]) -> list[int]:
    """The numbers of events that do not follow from the one before; independent of the store."""
    wrong = []
    for (n, payload), (after, next_payload) in itertools.pairwise(record):
        document = json.loads(next_payload)
        if document["prev"] != hashlib.sha256(payload).hexdigest() or document["n"] != after:
            wrong.append(after)
        if after != n + 1:
            wrong.append(after)
    return wrong


async def until(met: Callable[[], bool]) -> None:
    while not met():
        await asyncio.sleep(0.005)


# -- numbers and chain ---------------------------------------------------------------------------


def test_an_event_gets_the_next_number_and_the_hash_of_the_one_before(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        assert [await store.record(event(i)) for i in range(5)] == [1, 2, 3, 4, 5]
        record = await all_events(store)
        assert json.loads(record[0][1])["prev"] == ""
        assert broken_links(record) == []

    with_store(tmp_path, work)


def test_the_verifier_of_these_tests_sees_a_changed_event(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        for i in range(5):
            await store.record(event(i))
        record = await all_events(store)
        record[2] = (3, record[2][1].replace(b'"i":2', b'"i":7'))
        assert broken_links(record) == [4]
        del record[1]
        assert 3 in broken_links(record)

    with_store(tmp_path, work)


def test_numbers_and_chain_go_on_after_a_restart(tmp_path: Path) -> None:
    for first in (0, 3, 6):

        async def work(store: Store, first: int = first) -> list[tuple[int, bytes]]:
            for i in range(first, first + 3):
                assert await store.record(event(i)) == i + 1
            return await all_events(store)

        record = with_store(tmp_path, work)
    assert [n for n, _ in record] == list(range(1, 10))
    assert broken_links(record) == []


def test_queued_events_keep_their_order_and_share_transactions(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        numbers = await asyncio.gather(*[store.post(event(i)) for i in range(700)])
        assert numbers == list(range(1, 701))
        record = await all_events(store)
        assert [json.loads(payload)["i"] for _, payload in record] == list(range(700))

    with_store(tmp_path, work)


def test_the_exact_bytes_that_are_sent_are_the_ones_kept(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        await store.record(event(0, name="Phòng trợ giúp pháp lý số 1"))
        unsent = await store.unsent(0, 10)
        assert unsent == await all_events(store)
        assert b"\n" not in unsent[0][1]
        assert "trợ giúp".encode() in unsent[0][1]

    with_store(tmp_path, work)


@pytest.mark.parametrize("wrong", [b"picture", float("nan"), object(), "x" * 300, [1, 2, 3]])
def test_what_may_not_leave_the_room_is_never_stored(tmp_path: Path, wrong: object) -> None:
    async def work(store: Store) -> None:
        with pytest.raises(ValueError, match="payload"):
            await store.record(event(0, wrong=wrong))
        assert await store.record(event(1)) == 1

    with_store(tmp_path, work)


def test_a_request_that_no_disk_would_take_does_not_hold_up_the_others(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        before = store.post(event(0))
        wrong = store.post(event(1), opened=incident("cam-\ud800"))
        after = store.post(event(2))
        with pytest.raises(StoreError):
            await wrong
        assert [await before, await after] == [1, 2]
        assert store.failing == ""

    with_store(tmp_path, work)


def test_two_agents_on_one_file_never_give_a_number_twice(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        other = quick(tmp_path / "agent.db", HandClock(), busy_s=5.0)
        await other.open()
        both = [s.post(event(i)) for i in range(100) for s in (store, other)]
        assert sorted(await asyncio.gather(*both)) == list(range(1, 201))
        assert broken_links(await all_events(store)) == []
        await other.close(5)

    with_store(tmp_path, work, busy_s=5.0)


# -- outbox --------------------------------------------------------------------------------------


def test_sent_events_are_not_given_out_again_and_stay_as_the_record(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        for i in range(6):
            await store.record(event(i))
        await store.mark_sent([1, 2, 4])
        assert [n for n, _ in await store.unsent(0, 2)] == [3, 5]
        assert [n for n, _ in await store.unsent(3, 10)] == [5, 6]
        assert len(await all_events(store)) == 6

    with_store(tmp_path, work, linger_s=60.0)

    async def later(store: Store) -> None:
        assert [n for n, _ in await store.unsent(0, 10)] == [3, 5, 6]
        assert [n for n, _ in await store.events(2, before=5)] == [4, 3]

    with_store(tmp_path, later)


def test_marks_reach_the_disk_by_themselves(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        await store.record(event(0))
        await store.mark_sent([1])
        with sqlite3.connect(tmp_path / "agent.db") as other:
            await until(lambda: other.execute("SELECT count(*) FROM outbox").fetchone() == (0,))
        other.close()

    with_store(tmp_path, work, linger_s=0.01)


def test_an_unimportant_event_waits_for_company_and_keeps_its_place(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        detail = store.post(event(0), importance=0)
        await asyncio.sleep(0.03)
        assert not detail.done()
        assert store.pending_age_s(NOW.up_s + 50) == 0
        assert await store.record(event(1)) == 2
        assert await detail == 1

    with_store(tmp_path, work, linger_s=60.0)


def test_an_unimportant_event_without_company_is_written_in_time(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        assert await store.record(event(0), importance=0) == 1

    with_store(tmp_path, work, linger_s=0.01)


def test_a_full_outbox_keeps_the_alarms_and_tells_one_gap(tmp_path: Path) -> None:
    clock = HandClock()

    async def work(store: Store) -> None:
        alarms = [await store.record(event(i), importance=3) for i in range(8)]
        plain = [await store.record(event(i)) for i in range(8, 30)]
        unsent = await store.unsent(0, 100)
        assert [n for n, _ in unsent] == alarms + plain[-12:]
        await store.mark_sent(alarms)
        rest = await store.unsent(0, 100)
        gap = json.loads(rest[-1][1])
        assert gap["type"] == "gap"
        assert gap["code"] == "agent.store_gap"
        assert gap["why"] == "overflow"
        assert gap["numbers"] == {"from": 9, "to": 18, "count": 10, "importance": 1}
        await store.mark_sent([n for n, _ in rest])
        assert await store.unsent(0, 100) == []
        for i in range(5):  # room again: nothing more to tell
            await store.record(event(i))
        record = await all_events(store)
        assert [json.loads(p)["type"] for _, p in record].count("gap") == 1
        assert len(record) == 36  # what was not sent is on the record all the same
        assert broken_links(record) == []
        doc = EventDoc.model_validate(gap)
        assert doc.code == "agent.store_gap"

    with_store(tmp_path, work, clock, unsent_max=20, linger_s=60.0)


def test_a_gap_survives_a_restart_and_grows_on(tmp_path: Path) -> None:
    async def overflow(store: Store) -> None:
        for i in range(15):
            await store.record(event(i))

    with_store(tmp_path, overflow, unsent_max=10)
    with_store(tmp_path, overflow, unsent_max=10)

    async def drain(store: Store) -> None:
        await store.mark_sent([n for n, _ in await store.unsent(0, 100)])
        (only,) = await store.unsent(0, 100)
        numbers = json.loads(only[1])["numbers"]
        assert numbers == {"from": 1, "to": 20, "count": 20, "importance": 1}

    with_store(tmp_path, drain, unsent_max=10, linger_s=60.0)


# -- bounds --------------------------------------------------------------------------------------


def used_bytes(path: Path) -> int:
    other = sqlite3.connect(path)
    pages, free = (
        other.execute(f"PRAGMA {p}").fetchone()[0] for p in ("page_count", "freelist_count")
    )
    other.close()
    return 4096 * (pages - free)


def test_the_record_is_bounded_by_bytes_and_loses_its_oldest_events(tmp_path: Path) -> None:
    limit = 256 * 1024

    async def work(store: Store) -> None:
        for start in range(0, 3_000, 100):
            batch = [store.post(event(i, text="a word " * 20)) for i in range(start, start + 100)]
            await store.mark_sent(await asyncio.gather(*batch))
        record = await all_events(store)
        assert used_bytes(tmp_path / "agent.db") <= limit
        assert record[-1][0] == 3_000
        assert record[0][0] > 1_000
        assert broken_links(record) == []

    with_store(tmp_path, work, max_bytes=limit)


def test_bytes_bound_what_is_unsent_too_and_a_gap_tells(tmp_path: Path) -> None:
    limit = 256 * 1024

    async def work(store: Store) -> None:
        first = await store.record(event(0), importance=3)
        for _ in range(30):
            text = "a word " * 20
            await asyncio.gather(*[store.post(event(i, text=text)) for i in range(100)])
        assert used_bytes(tmp_path / "agent.db") <= limit
        waiting = [n for n, _ in await store.unsent(0, 10_000)]
        assert waiting[0] == first
        assert waiting[-1] == 3_001
        await store.mark_sent(waiting)
        (gap,) = await store.unsent(0, 10)
        numbers = json.loads(gap[1])["numbers"]
        assert numbers["count"] == 3_001 - len(waiting)
        assert gap[0] == 3_002

    with_store(tmp_path, work, max_bytes=limit, linger_s=60.0)


def test_the_record_is_bounded_by_age_but_its_newest_event_stays(tmp_path: Path) -> None:
    clock = HandClock()

    async def work(store: Store) -> None:
        await store.mark_sent(await asyncio.gather(*[store.post(event(i)) for i in range(600)]))
        clock.forward(91 * DAY_S)
        for i in range(600, 604):
            await store.record(event(i))
        record = await all_events(store)
        assert [n for n, _ in record][:2] != [1, 2]
        clock.forward(91 * DAY_S)
        await store.mark_sent(range(700))
        assert await store.record(event(605)) == 605
        record = await all_events(store)
        assert [n for n, _ in record] == [605]

    with_store(tmp_path, work, clock)


def test_the_newest_event_stays_whatever_its_age_and_the_chain_goes_on(tmp_path: Path) -> None:
    clock = HandClock()

    async def work(store: Store) -> None:
        for i in range(3):
            await store.mark_sent([await store.record(event(i))])
        clock.forward(91 * DAY_S)
        await store.put_document("schedule", b"{}")  # a write, but no event
        assert [n for n, _ in await all_events(store)] == [3]
        assert await store.record(event(3)) == 4
        assert broken_links(await all_events(store)) == []

    with_store(tmp_path, work, clock)


def test_a_clock_that_is_wrong_prunes_nothing(tmp_path: Path) -> None:
    """A box without a clock chip boots in 1970; later its clock jumps by decades."""
    clock = HandClock()

    async def work(store: Store) -> None:
        clock.say(Clock.UNSYNCED, 86_400.0)
        for i in range(3):
            await store.mark_sent([await store.record(event(i))])
        clock.say(Clock.SYNCED, NOW.utc_s)
        await store.record(event(3))
        clock.say(Clock.UNSYNCED, NOW.utc_s + 10_000 * DAY_S)
        clock.forward(DAY_S)
        await store.record(event(4))
        assert len(await all_events(store)) == 5
        clock.say(Clock.SYNCED, NOW.utc_s + 91 * DAY_S)  # and with a good clock age counts again
        await store.mark_sent(range(6))
        await store.record(event(5))
        assert [n for n, _ in await all_events(store)] == [5, 6]

    with_store(tmp_path, work, clock)


# -- incidents, documents, commands ----------------------------------------------------------------


def test_an_open_incident_survives_a_restart_and_is_closed_once(tmp_path: Path) -> None:
    async def opening(store: Store) -> None:
        await store.record(event(0), opened=incident())
        await store.record(event(1), opened=incident("mic-judge", "microphone.silent"))

    with_store(tmp_path, opening)

    async def closing(store: Store) -> None:
        known = await store.open_incidents()
        assert sorted(known, key=lambda i: i.device) == [
            incident(),
            incident("mic-judge", "microphone.silent"),
        ]
        await store.record(event(2), closed=replace(incident(), until=NOW.after(5)))

    with_store(tmp_path, closing)

    async def later(store: Store) -> None:
        assert await store.open_incidents() == [incident("mic-judge", "microphone.silent")]

    with_store(tmp_path, later)


def test_an_incident_that_is_open_keeps_its_date(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        await store.record(event(0), opened=incident())
        await store.record(event(1), opened=replace(incident(), since=NOW.after(60)))
        assert await store.open_incidents() == [incident()]

    with_store(tmp_path, work)


def test_an_incident_that_makes_no_sense_is_left_out(tmp_path: Path) -> None:
    async def opening(store: Store) -> None:
        await store.record(event(0), opened=incident())

    with_store(tmp_path, opening)
    other = sqlite3.connect(tmp_path / "agent.db")
    for code, body in (("a.b", "{"), ("a.c", "[]"), ("a.d", '{"since":[1,2],"level":"fail"}')):
        other.execute("INSERT INTO incidents VALUES('x',?,?)", (code, body))
    other.commit()
    other.close()

    async def work(store: Store) -> None:
        assert await store.open_incidents() == [incident()]

    with_store(tmp_path, work)


def test_a_document_is_kept_and_the_same_one_again_costs_nothing(tmp_path: Path) -> None:
    async def work(store: Store) -> None:
        assert await store.document("schedule") is None
        await store.put_document("schedule", b'{"hearings":[]}')
        wal = tmp_path / "agent.db-wal"
        before = wal.read_bytes()
        await store.put_document("schedule", b'{"hearings":[]}')
        assert wal.read_bytes() == before
        await store.put_document("schedule", b'{"hearings":[1]}')
        assert wal.read_bytes() != before

    with_store(tmp_path, work)

    async def later(store: Store) -> None:
        assert await store.document("schedule") == b'{"hearings":[1]}'

    with_store(tmp_path, later)


def test_a_document_beside_an_event_is_kept_with_it_or_not_at_all(tmp_path: Path) -> None:
    async def first(store: Store) -> None:
        assert await store.post(event(1), beside=("hands", b"7")) == 1
        assert await store.document("hands") == b"7"

    async def second(store: Store) -> None:
        trigger = (
            "CREATE TEMP TRIGGER full BEFORE UPDATE ON documents"
            " WHEN NEW.body = x'38' BEGIN SELECT RAISE(ABORT, 'full'); END"
        )
        await store._ask(lambda db: db._file.db.execute(trigger) and None)
        with pytest.raises(StoreError, match="full"):
            await store.post(event(2), beside=("hands", b"8"))
        assert [n for n, _ in await store.events(10)] == [1]
        assert await store.document("hands") == b"7"
        assert await store.post(event(3), beside=("hands", b"9")) == 2
        assert await store.document("hands") == b"9"

    with_store(tmp_path, first)
    with_store(tmp_path, second)


def test_a_command_is_remembered_for_a_day_across_restarts(tmp_path: Path) -> None:
    clock = HandClock()

    async def first(store: Store) -> None:
        assert await store.seen_command("7d1e") is None
        await store.remember_command("7d1e", b'{"state":"accepted"}')
        await store.remember_command("7d1e", b'{"state":"done"}')

    with_store(tmp_path, first, clock)
    clock.forward(DAY_S - 60)

    async def next_day(store: Store) -> None:
        await store.remember_command("8aaa", b"{}")
        assert await store.seen_command("7d1e") == b'{"state":"done"}'
        clock.forward(120)
        await store.remember_command("8bbb", b"{}")
        assert await store.seen_command("7d1e") is None
        assert await store.seen_command("8aaa") == b"{}"

    with_store(tmp_path, next_day, clock)


def test_commands_are_bounded_also_without_a_clock(tmp_path: Path) -> None:
    clock = HandClock()
    clock.say(Clock.UNSYNCED)

    async def work(store: Store) -> None:
        await asyncio.gather(*[store.remember_command(f"c{i}", b"{}") for i in range(1_100)])
        assert await store.seen_command("c99") is None
        assert await store.seen_command("c100") == b"{}"
        assert await store.seen_command("c1099") == b"{}"

    with_store(tmp_path, work, clock)


def test_a_closed_store_gives_up_quietly(tmp_path: Path) -> None:
    async def life() -> None:
        store = quick(tmp_path / "agent.db", HandClock())
        assert await store.close(1)  # never opened
        store = quick(tmp_path / "agent.db", HandClock())
        await store.open()
        pending = store.post(event(0), importance=0)
        assert await store.close(5)
        assert await pending == 1  # lazy, not lost
        assert await store.record(event(1)) == 0
        with pytest.raises(StoreError):
            await store.put_document("schedule", b"{}")
        assert not (tmp_path / "agent.db-wal").exists()

    asyncio.run(life())
