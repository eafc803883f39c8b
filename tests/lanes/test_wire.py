"""The lines of a lane: what may travel does, what may not is refused, and nothing else happens."""

from __future__ import annotations

import contextlib
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.lanes import wire
from agent.model import Fault, Reading, WireError

WORDS = frozenset({"yuyv", "mjpg", "pal"})

keys = st.from_regex(r"[a-z][a-z0-9_]{0,30}", fullmatch=True)
scalars = st.one_of(
    st.booleans(),
    st.integers(-(10**15) + 1, 10**15 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(sorted(WORDS)),
)
texts = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=64)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=12,
)
readings = st.builds(
    Reading,
    values=st.dictionaries(keys, scalars, max_size=20),
    fault=st.none() | st.sampled_from(Fault),
    why=st.sampled_from(sorted(wire.WHY_WORDS | WORDS)),
    took_s=st.floats(0, 1e6).map(lambda s: round(s, 3)),
    identity=st.dictionaries(keys, texts, max_size=8),
    fingerprint=st.lists(st.integers(0, 15), max_size=64).map(tuple),
    active=st.booleans(),
)


def answer(**fields: Any) -> bytes:
    """A good answer to question 1, with some fields changed or added."""
    good = {"id": 1, "fault": None, "why": "", "values": {}, "took_s": 0.1, "active": True}
    return json.dumps({**good, **fields}).encode() + b"\n"


def decode(line: bytes, ask: str = "look") -> Reading:
    return wire.decode(line, WORDS, number=1, ask=ask)


@given(readings, st.integers(0, 10**9))
def test_a_reading_survives_the_way_through_the_lane(reading: Reading, number: int) -> None:
    line = wire.encode(number, reading)
    assert wire.decode(line, WORDS, number=number, ask="baseline") == reading
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1


@given(st.integers(1, 4_000_000), texts, st.lists(texts, max_size=16).map(tuple))
def test_a_hello_survives(pid: int, version: str, layers: tuple[str, ...]) -> None:
    hello = wire.Hello(wire.PROTO, version, pid, layers)
    assert wire.decode_hello(wire.encode_hello(hello)) == hello


@given(
    st.integers(0, 10**9),
    texts,
    texts,
    st.floats(0.001, 1e6),
    st.dictionaries(st.text(max_size=20), scalars, max_size=10),
)
def test_a_question_survives(
    number: int, kind: str, ask: str, deadline_s: float, settings: dict[str, Any]
) -> None:
    question = wire.Question(number, kind, ask, deadline_s, settings)
    assert wire.decode_question(wire.encode_question(question)) == question


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_or_understood_and_never_crash_the_reader(line: bytes) -> None:
    for read in (decode, wire.decode_hello, wire.decode_question):
        with contextlib.suppress(WireError):
            read(line)


@given(
    st.dictionaries(
        st.sampled_from(
            ["id", "fault", "why", "values", "took_s", "active", "identity", "fingerprint"]
        ),
        json_values,
    )
)
def test_what_comes_through_is_numbers_booleans_and_listed_words(fields: dict[str, Any]) -> None:
    try:
        reading = decode(answer(**fields), ask="look")
    except WireError:
        return
    assert reading.fingerprint == ()
    assert reading.why in wire.WHY_WORDS | WORDS
    for key, value in reading.values.items():
        assert key.isascii()
        assert isinstance(value, bool | int | float) or value in WORDS
        assert not isinstance(value, float) or math.isfinite(value)
    for text in reading.identity.values():
        assert text.isascii()
        assert len(text) <= 64


@pytest.mark.parametrize(
    "line",
    [
        answer(id=2),
        answer(id=True),
        answer(picture="abc"),
        answer(values={"note": "free text"}),
        answer(values={"frames": [1, 2, 3]}),
        answer(values={"deep": {"a": 1}}),
        answer(values={"x": None}),
        answer(values={"x": 10**15}),
        answer(values={"bad key": 1}),
        answer(values={"k" * 41: 1}),
        answer(why="because"),
        answer(fault="sad"),
        answer(fault=[]),
        answer(took_s="long"),
        answer(took_s=True),
        answer(active=1),
        answer(identity={"name": "x" * 65}),
        answer(identity={"name": "Ca\u0300m"}),
        answer(identity={f"k{n}": "" for n in range(9)}),
        answer(fingerprint=[1]),
        answer(values={f"k{n}": 0.123456789 for n in range(300)}),
        answer()[:-2],
        answer().replace(b"0.1", b"NaN"),
        answer().replace(b"0.1", b"-Infinity"),
        answer().replace(b"0.1", b"1e999"),
        answer(values={"x": 1}).replace(b'"x": 1', b'"x": 1e999'),
        b"[" * 4000,
        b"\xff\xfe\n",
        b"[]\n",
        b"1" * 4095 + b"\n",
        b"\n",
    ],
)
def test_an_answer_that_breaks_a_rule_is_refused(line: bytes) -> None:
    with pytest.raises(WireError):
        decode(line)


@pytest.mark.parametrize("fingerprint", [[16], [-1], [True], [1.0], ["1"], [0] * 65, {}])
def test_a_fingerprint_is_at_most_64_small_integers(fingerprint: Any) -> None:
    assert decode(answer(fingerprint=[0, 15]), ask="baseline").fingerprint == (0, 15)
    with pytest.raises(WireError):
        decode(answer(fingerprint=fingerprint), ask="baseline")


@pytest.mark.parametrize(
    "values",
    [
        {"x": math.nan},
        {"x": math.inf},
        {"x": b"bytes"},
        {"x": object()},
        {f"k{n}": 1 for n in range(1000)},
    ],
)
def test_a_reading_that_may_not_travel_is_refused_before_it_is_sent(values: Any) -> None:
    with pytest.raises(WireError):
        wire.encode(1, Reading(values))


@pytest.mark.parametrize(
    "fields",
    [
        {"proto": 2},
        {"proto": True},
        {"pid": 0},
        {"pid": "7"},
        {"version": 1},
        {"version": "x" * 65},
        {"confined": "landlock"},
        {"confined": ["x"] * 17},
        {"confined": ["\n"]},
    ],
)
def test_a_hello_that_breaks_a_rule_is_refused(fields: dict[str, Any]) -> None:
    good = {"proto": 1, "version": "0.1.0", "pid": 7, "confined": ["landlock"]}
    assert wire.decode_hello(json.dumps(good).encode()).pid == 7
    with pytest.raises(WireError):
        wire.decode_hello(json.dumps({**good, **fields}).encode())


@pytest.mark.parametrize(
    "fields",
    [
        {"id": "1"},
        {"id": True},
        {"deadline_s": 0},
        {"deadline_s": True},
        {"settings": []},
        {"kind": "\u00e9"},
        {"ask": None},
    ],
)
def test_a_question_that_breaks_a_rule_is_refused(fields: dict[str, Any]) -> None:
    good = {"id": 1, "kind": "camera", "ask": "look", "deadline_s": 8, "settings": {}}
    assert wire.decode_question(json.dumps(good).encode()).kind == "camera"
    with pytest.raises(WireError):
        wire.decode_question(json.dumps({**good, **fields}).encode())


def test_a_question_too_large_for_the_lane_is_refused_before_it_is_sent() -> None:
    wire.encode_question(wire.Question(1, "camera", "look", 8.0, {"a": "x" * 16_000}))
    with pytest.raises(WireError):
        wire.encode_question(wire.Question(1, "camera", "look", 8.0, {"a": "x" * 17_000}))
