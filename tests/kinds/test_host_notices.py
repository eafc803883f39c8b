"""The supply alarm is announced by the kernel: EPOLLPRI on a real attribute."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.kinds import host
from agent.kinds.host.passive import notices

CGROUPS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))


@pytest.fixture
def attribute() -> Iterator[Path]:
    """A /sys attribute that notifies its pollers as the alarm does: `cgroup.events` of a group
    that a process enters or leaves. Gone with its group when the test has removed that."""
    for parent in CGROUPS:
        group = parent / f"hearing-room-test-{os.getpid()}"
        if not (parent / "cgroup.controllers").exists():
            continue
        try:
            group.mkdir()
        except OSError:
            continue
        yield group / "cgroup.events"
        with contextlib.suppress(FileNotFoundError):
            group.rmdir()
        return
    pytest.skip("no right to make a control group here")


@contextlib.contextmanager
def process_in(group: Path) -> Iterator[None]:
    child = subprocess.Popen(["sleep", "60"])
    try:
        (group / "cgroup.procs").write_text(str(child.pid))
        yield
    finally:
        child.kill()
        child.wait(10)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def alarm_tree(root: Path, alarm: Path) -> Path:
    chip = root / "sys/class/hwmon/hwmon2"
    chip.mkdir(parents=True)
    (chip / "name").write_text("rpi_volt\n")
    (chip / "in0_lcrit_alarm").symlink_to(alarm)
    return root


def test_both_edges_of_the_alarm_are_announced(tmp_path: Path, attribute: Path) -> None:
    async def follow() -> None:
        stream = host.changes(host.Settings(), alarm_tree(tmp_path, attribute))
        async with asyncio.timeout(20):
            edge = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0.02)
            assert not edge.done(), "nothing happened yet"
            with process_in(attribute.parent):
                await edge
                edge = asyncio.ensure_future(anext(stream))
                await asyncio.sleep(0.02)
                assert not edge.done(), "one edge is announced once"
            await edge
            await stream.aclose()  # type: ignore[attr-defined]

    before = open_files()
    asyncio.run(follow())
    assert open_files() == before


def test_the_stream_ends_when_a_notice_finds_the_attribute_gone(attribute: Path) -> None:
    async def follow() -> int:
        seen = 0
        async with asyncio.timeout(20):
            stream = notices(attribute)
            first = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0)
            with attribute.open("rb", 0) as file, select.epoll() as announced:
                with process_in(attribute.parent):
                    await first
                    file.read()
                    announced.register(file, select.EPOLLPRI)
                assert announced.poll(10), "the second edge, which the loop has not read yet"
            attribute.parent.rmdir()
            async for _ in stream:
                seen += 1
        return seen

    assert asyncio.run(follow()) == 1


def test_a_cancelled_follower_leaves_nothing_open(attribute: Path) -> None:
    async def follow() -> None:
        async def forever() -> None:
            async for _ in notices(attribute):
                pass

        task = asyncio.ensure_future(forever())
        await asyncio.sleep(0.02)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    before = open_files()
    asyncio.run(follow())
    assert open_files() == before


@pytest.mark.parametrize("how", ["none", "plain", "missing"])
def test_without_an_alarm_that_notifies_there_is_nothing_to_follow(
    tmp_path: Path, how: str
) -> None:
    alarm = tmp_path / "alarm"
    if how == "plain":
        alarm.write_text("0\n")
    root = tmp_path if how == "none" else alarm_tree(tmp_path, alarm)

    async def follow() -> list[None]:
        async with asyncio.timeout(5):
            return [edge async for edge in host.changes(host.Settings(), root)]

    assert asyncio.run(follow()) == []
