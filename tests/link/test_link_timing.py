"""Pauses and pace, with time and chance handed in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.link.client.timing import Backoff, Bucket


def test_the_span_doubles_up_to_its_cap_and_begins_again() -> None:
    backoff = Backoff(5, 60, lambda: 1.0)
    assert [backoff.next_s() for _ in range(6)] == [5, 10, 20, 40, 60, 60]
    backoff.reset()
    assert backoff.next_s() == 5


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=60))
def test_every_pause_lies_anywhere_in_the_span(chances: list[float]) -> None:
    drawn = iter(chances)
    backoff = Backoff(5, 60, lambda: next(drawn))
    for turn, chance in enumerate(chances):
        assert backoff.next_s() == min(60.0, 5.0 * 2.0 ** min(turn, 32)) * chance


def test_a_bucket_gives_a_burst_and_then_a_rate() -> None:
    bucket = Bucket(rate=20, burst=20)
    assert bucket.left(100.0) == 20
    for _ in range(20):
        bucket.take()
    assert bucket.left(100.0) == 0
    assert bucket.wait_s() == 0.5  # half a burst: two wake-ups a second, not twenty
    assert bucket.left(100.5) == 10


@given(st.floats(0.5, 100), st.integers(1, 50), st.lists(st.floats(0, 10), min_size=1, max_size=50))
def test_never_more_than_the_burst_and_the_rate(
    rate: float, burst: int, steps: list[float]
) -> None:
    bucket = Bucket(rate, burst)
    now, taken = 0.0, 0
    for step in steps:
        now += step
        while bucket.left(now):
            bucket.take()
            taken += 1
        assert taken <= burst + rate * now + 1e-6
        before_s = now
        now += bucket.wait_s()
        assert bucket.left(now + 1e-9) >= 1
        assert now - before_s <= max(1.0, burst / 2) / rate + 1e-9
