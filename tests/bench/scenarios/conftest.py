"""What a scenario is given: a broker on this host, a box, and a place for what was measured.

`box` is fresh for each test (a few seconds); `shared_box` is one for all tests of a module, for
those that leave it as they found it. Both reach the broker of the same scope as `broker:1883`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bench_box.box import Box
from bench_box.machine import Machine
from e2e_stage import Broker
from room_stage import Hearsay, Measured

_measured = pytest.StashKey[Measured]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_measured] = Measured()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """What was measured, as a table that can be pasted into a report."""
    if rows := config.stash[_measured].table():
        terminalreporter.section("measured")
        terminalreporter.write_line(rows)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Why a scenario failed is said at once: the whole run can take an hour, or be cut off."""
    if report.failed:
        print(
            f"\n{report.nodeid} ({report.when})\n{report.longreprtext}",
            file=sys.__stderr__,
            flush=True,
        )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A failed test tells what the box said."""
    report = yield
    if report.failed:
        arguments = getattr(item, "funcargs", {})
        for box in {id(b): b for b in arguments.values() if isinstance(b, Box)}.values():
            report.sections.append(("the box", box.last_words()))
    return report


@pytest.fixture
def measured(pytestconfig: pytest.Config) -> Measured:
    """Rows for the table at the end of the run."""
    return pytestconfig.stash[_measured]


def _boxed(request: pytest.FixtureRequest, broker: Broker) -> Iterator[Box]:
    name = f"{os.getpid()}-{request.node.name}".replace("[", "-").replace("]", "")
    # Unix sockets stand in the folder of that name: their paths must be short.
    machine = Machine(
        "".join(c for c in name if c.isalnum() or c == "-")[:40], broker.port, tied=True
    )
    box = Box(machine)
    try:
        box.boot()
        yield box
    finally:
        machine.remove()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """A mosquitto on a free port of this host."""
    server = Broker(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def box(request: pytest.FixtureRequest, broker: Broker) -> Iterator[Box]:
    """A box that nobody has touched."""
    yield from _boxed(request, broker)


@pytest.fixture
def hearsay(broker: Broker) -> Iterator[Hearsay]:
    """All that is said about the room on the broker."""
    client = Hearsay(broker.port)
    yield client
    client.close()


@pytest.fixture(scope="module")
def shared_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """The same for all tests of a module."""
    server = Broker(tmp_path_factory.mktemp("broker"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def shared_box(request: pytest.FixtureRequest, shared_broker: Broker) -> Iterator[Box]:
    """One box for all tests of a module."""
    yield from _boxed(request, shared_broker)


@pytest.fixture(scope="module")
def shared_hearsay(shared_broker: Broker) -> Iterator[Hearsay]:
    """All that is said about its room."""
    client = Hearsay(shared_broker.port)
    yield client
    client.close()
