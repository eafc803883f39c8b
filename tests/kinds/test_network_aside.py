"""Calls that block, beside the loop: a resolver that hangs holds nothing up."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import pytest

from agent.kinds.network.aside import Aside
from agent.kinds.network.endpoints import look_up

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(20):
            return await work

    return asyncio.run(bounded())


@pytest.fixture
def stuck() -> Iterator[threading.Event]:
    release = threading.Event()
    yield release
    release.set()


def test_a_resolver_that_hangs_is_asked_once_and_holds_nothing_up(stuck: threading.Event) -> None:
    async def story() -> None:
        aside = Aside()
        calls = 0

        def hang() -> None:
            nonlocal calls
            calls += 1
            stuck.wait()

        with pytest.raises(TimeoutError):
            await aside.run("dns-court.example", hang, 0.05)
        start = time.monotonic()
        assert (await look_up(aside, "court.example", 5.0)).why == "dns_timeout"
        assert time.monotonic() - start < 1.0  # it did not wait for the one that hangs
        assert calls == 1
        assert (await look_up(aside, "localhost", 5.0)).why == ""  # others go on
        stuck.set()
        for _ in range(100):
            if (await look_up(aside, "court.example", 5.0)).why != "dns_timeout":
                return
            await asyncio.sleep(0.01)
        raise AssertionError("the name is never asked again")

    run(story())


STOP_WHILE_STUCK = """
import asyncio, contextlib, time
from agent.kinds.network.aside import Aside

async def main():
    with contextlib.suppress(TimeoutError):
        await Aside().run("stuck", lambda: time.sleep(30), 0.01)

asyncio.run(main())
"""


def test_a_call_that_hangs_does_not_hold_up_the_end_of_the_process() -> None:
    command = [sys.executable, "-c", STOP_WHILE_STUCK]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=15)
    assert ran.returncode == 0, ran.stderr


def test_what_a_call_raises_is_raised_to_its_asker() -> None:
    def fail() -> None:
        raise ValueError("no such thing")

    with pytest.raises(ValueError, match="no such thing"):
        run(Aside().run("fails", fail, 5.0))
