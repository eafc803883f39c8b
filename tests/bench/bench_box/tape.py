"""What was heard of a room and what its record says, held against the contract (docs/contract.md).
Pure: bytes in, sentences about what cannot be out."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Record = Mapping[int, bytes]
"""Events by number, as they are published."""


def numbered(payload: bytes) -> int:
    """The number of an event."""
    return int(json.loads(payload)["n"])


def heard_wrong(payloads: Iterable[bytes]) -> list[str]:
    """What cannot be in the events of a room in the order in which they were received: two events
    of one number, a number that falls and is no repeat, a hole, a broken chain."""
    wrong: list[str] = []
    seen: dict[int, bytes] = {}
    for payload in payloads:
        n = numbered(payload)
        if n in seen:
            if seen[n] != payload:
                wrong.append(f"event {n} has two contents: {seen[n]!r} and {payload!r}")
        elif seen and n < max(seen):
            wrong.append(f"event {n} comes after event {max(seen)}")
        seen.setdefault(n, payload)
    return wrong + chain_wrong(seen)


def chain_wrong(record: Record) -> list[str]:
    """Holes that no event tells of, and links that do not fit."""
    wrong: list[str] = []
    numbers = sorted(record)
    told = [e for e in map(json.loads, record.values()) if e["type"] == "gap"]
    for before, n in itertools.pairwise(numbers):
        if n != before + 1:
            missing = f"{before + 1} to {n - 1}"
            if not any(_covers(gap, before + 1, n - 1) for gap in told):
                wrong.append(f"events {missing} are missing, and no event tells of it")
            continue
        link = hashlib.sha256(record[before]).hexdigest()
        if json.loads(record[n])["prev"] != link:
            wrong.append(f"event {n} does not follow on event {before}")
    return wrong


def _covers(gap: Mapping[str, Any], first: int, last: int) -> bool:
    numbers = gap.get("numbers", {})
    return int(numbers.get("from", first)) <= first and last <= int(numbers.get("to", -1))


def record_wrong(record: Record, heard: Iterable[bytes]) -> list[str]:
    """What the record of the room lost or altered of what was received."""
    wrong = chain_wrong(record)
    for payload in dict.fromkeys(heard):
        n = numbered(payload)
        if n not in record:
            wrong.append(f"event {n} was received, and the record does not know it: {payload!r}")
        elif record[n] != payload:
            wrong.append(f"event {n} was received as {payload!r}, and is now {record[n]!r}")
    return wrong


def answers_wrong(
    answers: Mapping[str, Sequence[bytes]], kept: Mapping[str, bytes], record: Record
) -> list[str]:
    """What cannot be in the answers to commands, by id. `kept` is what the room has of them on its
    disk, in `record` the reason of a command is its id. An id has one final answer, which is kept,
    and was done once: also when it was sent again."""
    wrong: list[str] = []
    told = [e for e in map(json.loads, record.values()) if e["type"] == "command.done"]
    times = Counter(str(e.get("reason", "")) for e in told)
    wrong += [f"{id_} was done {n} times" for id_, n in times.items() if id_ and n > 1]
    for id_, said in answers.items():
        final = list(dict.fromkeys(a for a in said if json.loads(a)["state"] != "accepted"))
        if len(final) > 1:
            wrong.append(f"{id_} has {len(final)} answers: {final}")
        if not final or json.loads(final[0])["state"] != "done":
            continue
        if id_ not in times:
            wrong.append(f"{id_} was answered `done`, and the record does not know it")
        if kept.get(id_) != final[0]:
            wrong.append(f"{id_} was answered {final[0]!r}, and {kept.get(id_)!r} is kept")
    return wrong


def ready_wrong(heard: Iterable[tuple[str, bytes]], devices: Iterable[str]) -> list[str]:
    """`ready` without evidence of the same boot. `heard` are topic suffixes and payloads in the
    order received, `devices` those that the room must have."""
    wrong: list[str] = []
    needed = set(devices)
    good: dict[str, str] = {}
    for suffix, payload in heard:
        said = json.loads(payload) if payload else {}
        if suffix.startswith("device/"):
            fine = said.get("level") in ("ok", "info") and said.get("readings")
            good[suffix.removeprefix("device/")] = said["boot"] if fine else ""
        elif suffix == "readiness" and said["state"] == "ready":
            boot = said["boot"]
            missing = sorted(d for d in needed if good.get(d) != boot)
            if missing:
                wrong.append(f"boot {boot}: ready at {said['up_ms']} ms without {missing}")
    return wrong


def tellings_wrong(record: Record, relay: str) -> list[str]:
    """Moves of a relay (`power_on = "last"`) that were told twice, or not at all: each begins where
    the one before ended. With the power it falls, which nobody is there to tell, and goes on again
    if it was on."""
    wrong: list[str] = []
    last = False
    for n in sorted(record):
        event = json.loads(record[n])
        if event["type"] != "relay.switched" or event["device"] != relay:
            continue
        began = True if event["cause"] == "power_on" else event["before"]
        if began is not last:
            words = f"{event['before']} -> {event['after']} ({event['cause']})"
            wrong.append(f"event {n}: {relay} was {last} and is told to have gone {words}")
        last = bool(event["after"])
    return wrong
