"""The judge of what was heard of a room: it must see every way in which a record can be wrong."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from bench_box import tape


def made(count: int, first: int = 1, **more: Any) -> list[bytes]:
    """A sound stretch of events."""
    events: list[bytes] = []
    for n in range(first, first + count):
        prev = hashlib.sha256(events[-1]).hexdigest() if events else ""
        events.append(json.dumps({"n": n, "prev": prev, "type": "mode", **more}).encode())
    return events


def told(n: int, prev: bytes, **fields: Any) -> bytes:
    """One more event behind another."""
    link = hashlib.sha256(prev).hexdigest()
    return json.dumps({"n": n, "prev": link, **fields}).encode()


def record(events: list[bytes]) -> dict[int, bytes]:
    return {tape.numbered(e): e for e in events}


def test_what_is_sound_and_what_is_repeated_is_heard_without_a_word() -> None:
    events = made(6)
    assert tape.heard_wrong(events) == []
    assert tape.heard_wrong([*events[:4], *events[2:]]) == [], "a repeat is no fault"
    assert tape.record_wrong(record(events), [*events, events[2]]) == []


def test_a_number_that_is_used_twice_is_seen() -> None:
    events = made(4)
    other = events[3].replace(b"mode", b"gone")
    (said,) = tape.heard_wrong([*events, other])
    assert "event 4 has two contents" in said


def test_a_number_that_falls_a_hole_and_a_broken_link_are_seen() -> None:
    events = made(5)
    (falls,) = tape.heard_wrong([events[0], events[2], events[1], *events[3:]])
    assert falls == "event 2 comes after event 3"
    (hole,) = tape.heard_wrong([*events[:2], *events[3:]])
    assert hole == "events 3 to 3 are missing, and no event tells of it"
    forged = [*events[:2], events[2].replace(b"mode", b"mood"), *events[3:]]
    assert tape.heard_wrong(forged) == ["event 4 does not follow on event 3"]


def test_a_hole_that_an_event_tells_of_is_none() -> None:
    events = made(3)
    gap = told(1004, events[-1], type="gap", numbers={"to": 1003})
    assert tape.chain_wrong(record([*events, gap])) == []
    short = told(1004, events[-1], type="gap", numbers={"to": 1002})
    assert len(tape.chain_wrong(record([*events, short]))) == 1


def test_what_the_record_lost_or_altered_is_seen() -> None:
    events = made(5)
    (lost,) = tape.record_wrong(record(events[:4]), events)
    assert "event 5 was received, and the record does not know it" in lost
    altered = record([*events[:4], events[4].replace(b"mode", b"mood")])
    (other,) = tape.record_wrong(altered, events)
    assert "is now" in other


DONE = b'{"id": "a", "state": "done"}'


def test_an_answer_that_is_kept_and_given_again_is_right() -> None:
    events = made(1)
    kept = record([*events, told(2, events[0], type="command.done", reason="a")])
    accepted = b'{"id": "a", "state": "accepted"}'
    assert tape.answers_wrong({"a": [accepted, DONE, accepted, DONE]}, {"a": DONE}, kept) == []
    assert tape.answers_wrong({"a": [accepted], "b": []}, {}, kept) == []


def test_an_answer_that_is_lost_changed_or_done_again_is_seen() -> None:
    events = made(1)
    events.append(told(2, events[0], type="command.done", reason="a"))
    interrupted = b'{"id": "a", "state": "failed"}'
    (lost,) = tape.answers_wrong({"a": [DONE]}, {"a": interrupted}, record(events))
    assert "is kept" in lost
    changed = tape.answers_wrong({"a": [DONE, interrupted]}, {"a": DONE}, record(events))
    assert "a has 2 answers" in changed[0]
    unknown = tape.answers_wrong({"a": [DONE]}, {"a": DONE}, record(events[:1]))
    assert unknown == ["a was answered `done`, and the record does not know it"]
    events.append(told(3, events[1], type="command.done", reason="a"))
    assert tape.answers_wrong({}, {}, record(events)) == ["a was done 2 times"]


def said(suffix: str, boot: str, **fields: Any) -> tuple[str, bytes]:
    return suffix, json.dumps({"boot": boot, "up_ms": 1, **fields}).encode()


def test_ready_needs_evidence_of_the_same_boot() -> None:
    good = {"level": "ok", "readings": {"on": True}}
    ready = {"state": "ready"}
    first = [said("device/lamp", "1", **good), said("readiness", "1", **ready)]
    assert tape.ready_wrong(first, ["lamp"]) == []
    stale = [*first, said("readiness", "2", **ready)]
    assert tape.ready_wrong(stale, ["lamp"]) == ["boot 2: ready at 1 ms without ['lamp']"]
    waits = [*first, said("readiness", "2", state="unknown"), said("device/lamp", "2", **good)]
    assert tape.ready_wrong([*waits, said("readiness", "2", **ready)], ["lamp"]) == []
    blind = [("device/lamp", b""), said("device/lamp", "2", level="unknown", readings={})]
    assert len(tape.ready_wrong([*blind[1:], said("readiness", "2", **ready)], ["lamp"])) == 1


@pytest.mark.parametrize(
    ("moves", "wrong"),
    [
        (["a+c", "a-c", "b+p"], 1),  # it was off, and must stay off
        (["a+c", "b+p", "b-c"], 0),
        (["a+c", "b+c", "b+p"], 1),  # told again after the cut
        (["a+c", "a+c"], 1),  # the way back was not told
        (["a+c", "a-c", "a+c"], 0),
    ],
)
def test_a_move_that_is_told_twice_or_never_is_seen(moves: list[str], wrong: int) -> None:
    events: list[bytes] = []
    for n, (boot, sign, cause) in enumerate(moves, 1):
        on = sign == "+"
        fields = {"device": "lamp", "before": not on, "after": on, "boot": boot}
        why = "power_on" if cause == "p" else "command"
        prev = events[-1] if events else b""
        events.append(told(n, prev, type="relay.switched", cause=why, **fields))
    assert len(tape.tellings_wrong(record(events), "lamp")) == wrong
