"""What a worker may tell is declared, rounded, bounded, and written down as it is."""

from __future__ import annotations

import math

import pytest
import tell_tables
from hypothesis import given
from hypothesis import strategies as st

from agent import kinds
from agent.kinds._tells import COMMON, Tell, bits, coarse
from agent.lanes.told import AT_ONCE_S, RENEWED_S

KINDS = [name for name in kinds.names() if kinds.tells(name) is not None]
SPOKEN_BITS_S = 39
"""Information in spoken language, whatever the language (Coupé, Oh, Dediu and Pellegrino, Science
Advances 5, 2019). The lowest rate of a speech coder in common use is 600 bit/s (STANAG 4591)."""


def test_every_kind_that_is_asked_in_a_worker_declares_what_it_may_tell() -> None:
    with_driver = [name for name in kinds.names() if hasattr(kinds.load(name), "Driver")]
    assert with_driver == KINDS
    assert {"camera", "microphone"} <= set(KINDS)


def test_the_page_for_people_says_what_the_code_says() -> None:
    page = tell_tables.PAGE.read_text()
    assert page == tell_tables.page(), "run: python tests/kinds/tell_tables.py --write"
    for seconds in (RENEWED_S, AT_ONCE_S):
        assert f"{seconds:.0f} s" in page


def test_what_is_told_of_a_microphone_is_far_less_than_what_is_said() -> None:
    tells = kinds.tells("microphone")
    assert tells is not None
    assert bits(tells) / RENEWED_S < SPOKEN_BITS_S / 10
    assert bits(tells) / AT_ONCE_S < SPOKEN_BITS_S / 2


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_has_room_for_numbers_alone(kind: str) -> None:
    tells = kinds.tells(kind)
    assert tells is not None
    assert len(tells) <= 48
    assert bits(tells) / 8 < 64, "bytes"
    assert all(tell.words <= kinds.load(kind).WORDS for tell in tells.values())


@st.composite
def declared(draw: st.DrawFn) -> tuple[str, Tell]:
    kind = draw(st.sampled_from(KINDS))
    return draw(st.sampled_from(sorted((kinds.tells(kind) or {}).items())))


@given(declared(), st.floats() | st.integers(-(10**14), 10**14) | st.booleans() | st.text())
def test_whatever_a_worker_says_comes_out_as_declared(
    one: tuple[str, Tell], said: float | bool | str
) -> None:
    key, tell = one
    kept, dropped = coarse({key: said, "a_key_of_its_own": 1}, {key: tell})
    assert "a_key_of_its_own" in dropped
    if key in dropped:
        return
    value = kept[key]
    assert coarse(kept, {key: tell}) == (kept, []), "what is rounded stays as it is"
    if isinstance(value, str):
        assert value in tell.words
    elif not isinstance(value, bool):
        assert tell.low <= value <= tell.high
        steps = value / tell.step
        assert math.isclose(steps, round(steps), abs_tol=1e-3)


def test_another_sort_of_value_is_dropped() -> None:
    tells = {"level": Tell("", "dB", -120, 0, 0.5), "on": Tell("", "flag"), "many": Tell("", "")}
    said = {"level": "quiet", "on": 0.3, "many": True}
    assert coarse(said, tells) == ({}, ["level", "on", "many"])
    assert coarse({"level": float("nan")}, tells) == ({}, ["level"])
    assert coarse({"level": -33.29, "on": True, "many": 1}, tells)[0] == {
        "level": -33.5,
        "on": True,
        "many": 1,
    }


def test_a_number_beyond_its_range_says_no_more_than_that() -> None:
    tells = {"breaks": Tell("", "", 0, 255)}
    assert coarse({"breaks": 123_456_789}, tells)[0] == {"breaks": 255}
    assert coarse({"errno": 10**9}, {})[0] == {"errno": COMMON["errno"].high}
