"""Any sequence of lives of the database: numbers, chain, outbox and bounds hold throughout."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from test_store import NOW, broken_links, event, incident

from agent.link.contract import encode
from agent.store.database import GAP_IMPORTANCE, Database, Entry

UNSENT_MAX = 12
DEVICES = ("cam", "mic", "screen")


class Lives(RuleBasedStateMachine):
    """A model beside the database: what was given, what was delivered, what may be missing."""

    @initialize()
    def first_life(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="store-"))
        self.life = 0
        self.given: dict[int, bytes] = {}
        self.importance: dict[int, int] = {}
        self.delivered: set[int] = set()
        self.open: set[str] = set()
        self.replaced = False
        self.now = NOW
        self.start()

    @property
    def path(self) -> Path:
        return self.folder / str(self.life) / "agent.db"

    def start(self) -> None:
        self.db = Database(
            self.path, max_bytes=1 << 30, max_age_s=1e9, unsent_max=UNSENT_MAX, busy_s=0.1
        )
        self.db.open(self.now)
        self.learn()

    def learn(self) -> None:
        """Gap events are the database's own; everything else must be what was given."""
        for n, payload in self.db.events(10_000, None):
            document = json.loads(payload)
            if n not in self.given:
                assert document["type"] == "gap"
                self.given[n], self.importance[n] = payload, GAP_IMPORTANCE
            assert self.given[n] == payload

    @rule(importances=st.lists(st.integers(0, 3), min_size=1, max_size=6), fail=st.booleans())
    def write(self, importances: list[int], fail: bool) -> None:
        self.db.begin(self.now)
        wrote = {}
        for i, importance in enumerate(importances):
            body = encode(event(i, importance=importance))
            wrote[self.db.append(Entry(body, importance, NOW.utc_s))] = importance
        if fail:
            self.db.rollback()
            return
        self.db.sweep(self.now)
        self.db.commit()
        before = set(self.given)
        for n, payload in self.db.events(10_000, None):
            if n in wrote:
                assert n not in before, "a number was used twice"
                self.given[n], self.importance[n] = payload, wrote[n]
        assert set(wrote) <= set(self.given)
        self.learn()

    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        waiting = [n for n, _ in self.db.unsent(0, 10_000, ())]
        some = data.draw(st.sets(st.sampled_from(waiting)) if waiting else st.just(set()))
        self.db.begin(self.now)
        self.db.mark_sent(some)
        self.db.sweep(self.now)
        self.db.commit()
        self.delivered |= some
        self.learn()

    @rule(device=st.sampled_from(DEVICES), opens=st.booleans())
    def notice(self, device: str, opens: bool) -> None:
        self.db.begin(self.now)
        self.db.note(*((incident(device), None) if opens else (None, incident(device))))
        self.db.commit()
        (self.open.add if opens else self.open.discard)(device)

    @rule()
    def stop_and_start(self) -> None:
        self.db.close()
        self.start()

    @rule(amid=st.booleans())
    def crash_and_start(self, amid: bool) -> None:
        """What a dead process leaves: the files as they are, perhaps in mid-transaction."""
        if amid:
            self.db.begin(self.now)
            self.db.append(Entry(encode(event(0)), 1, NOW.utc_s))
        before = self.path.parent
        self.life += 1
        shutil.copytree(before, self.path.parent)
        self.db.rollback()
        self.db.close()
        shutil.rmtree(before)
        self.start()

    @precondition(lambda self: self.given)
    @rule(how=st.sampled_from(["garbage", "gone"]))
    def lose_the_file(self, how: str) -> None:
        self.db.close()
        last = max(self.given)
        if how == "gone":
            self.path.unlink()
        else:
            self.path.write_bytes(b"garbage" * 1_000)
        self.given, self.importance, self.delivered, self.open = {}, {}, set(), set()
        self.start()
        assert min(self.given) > last, "a number could be used twice"
        self.replaced = True

    @invariant()
    def the_chain_is_whole(self) -> None:
        if not self.given:
            return
        record = sorted(self.given.items())
        assert self.db.events(10_000, None)[::-1] == record
        assert broken_links(record) == []
        assert json.loads(record[0][1])["prev"] == ""
        assert self.replaced or record[0][0] == 1

    @invariant()
    def what_waits_is_the_most_important_and_gaps_account_for_the_rest(self) -> None:
        waiting = {n for n, _ in self.db.unsent(0, 10_000, ())}
        plain = {n for n in waiting if self.importance[n] != GAP_IMPORTANCE}
        assert len(plain) <= UNSENT_MAX
        assert waiting.isdisjoint(self.delivered)
        dropped = set(self.given) - waiting - self.delivered
        assert all(self.importance[n] != GAP_IMPORTANCE for n in dropped)
        told = [
            json.loads(p)["numbers"]["count"]
            for p in self.given.values()
            if json.loads(p).get("why") == "overflow"
        ]
        assert sum(told) + self.untold() == len(dropped)

    def untold(self) -> int:
        rows: list[Any] = self.db._file.db.execute("SELECT count, first, last FROM gaps").fetchall()
        return sum(count for count, _, _ in rows)

    @invariant()
    def the_register_is_right(self) -> None:
        assert {i.device for i in self.db.incidents()} == self.open

    def teardown(self) -> None:
        if hasattr(self, "db"):
            self.db.close()
            shutil.rmtree(self.folder)


def test_any_sequence_of_lives_keeps_numbers_chain_and_outbox() -> None:
    run_state_machine_as_test(
        Lives,
        settings=settings(
            max_examples=30,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_hash_is_of_the_exact_bytes(tmp_path: Path) -> None:
    db = Database(tmp_path / "a.db", max_bytes=1 << 30, max_age_s=1e9, unsent_max=9, busy_s=0.1)
    db.open(NOW)
    db.begin(NOW)
    for i in range(3):
        db.append(Entry(encode(event(i, name="Phòng")), 1, NOW.utc_s))
    db.commit()
    newest, middle, _ = db.events(3, None)
    assert json.loads(newest[1])["prev"] == hashlib.sha256(middle[1]).hexdigest()
    db.close()
