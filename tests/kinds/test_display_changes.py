"""Kernel events: the messages as text, and the real socket with events that the test causes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kinds import display
from agent.kinds._uevents import parse, uevents

HOTPLUG = (
    b"change@/devices/platform/gpu/drm/card1\0ACTION=change\0DEVPATH=/devices/platform/gpu/drm/card1\0"
    b"SUBSYSTEM=drm\0HOTPLUG=1\0CONNECTOR=32\0DEVNAME=dri/card1\0DEVTYPE=drm_minor\0SEQNUM=2101\0"
)
TRIGGER = Path("/sys/class/mem/null/uevent")
"""Writing an action here makes the kernel send an event of the subsystem `mem`."""


def trigger(action: str) -> None:
    try:
        TRIGGER.write_text(action)
    except OSError:
        pytest.skip("no right to make the kernel send an event")


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_message_of_the_kernel_is_keys_and_values() -> None:
    event = parse(HOTPLUG)
    assert (event["ACTION"], event["SUBSYSTEM"], event["CONNECTOR"]) == ("change", "drm", "32")
    assert "change@/devices/platform/gpu/drm/card1" not in event


@pytest.mark.parametrize(
    "message", [b"", b"\0", b"libudev\0\xfe\xed\xca\xfe", b"add@/x", b"add@/x\0=1\0novalue\0"]
)
def test_what_is_no_event_has_no_keys(message: bytes) -> None:
    assert parse(message) == {}


@given(st.binary(max_size=300))
def test_any_message_is_parsed(message: bytes) -> None:
    assert all(isinstance(v, str) for v in parse(message).values())


@pytest.mark.parametrize(
    ("event", "worth_asking"),
    [
        (parse(HOTPLUG), True),
        ({"ACTION": "add", "DEVTYPE": "drm_connector"}, True),
        ({"ACTION": "remove"}, True),
        ({"ACTION": "change", "LEASE": "1"}, False),
        ({"ACTION": "change", "HOTPLUG": "0"}, False),
        ({}, False),
    ],
)
def test_only_what_may_change_a_connector_is_worth_asking(
    event: Mapping[str, str], worth_asking: bool
) -> None:
    assert display.is_hotplug(event) is worth_asking


def test_events_of_the_subsystem_come_as_they_happen_and_others_do_not() -> None:
    async def follow() -> None:
        async with asyncio.timeout(10):
            events, others = uevents("mem"), uevents("drm")
            first = asyncio.ensure_future(anext(events))
            other = asyncio.ensure_future(anext(others))
            await asyncio.sleep(0)
            trigger("change")
            event = await first
            assert event is not None
            assert (event["ACTION"], event["DEVNAME"]) == ("change", "null")
            second = asyncio.ensure_future(anext(events))
            await asyncio.sleep(0)
            trigger("add")
            event = await second
            assert event is not None
            assert event["ACTION"] == "add"
            assert not other.done()
            other.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await other
            await events.aclose()
            await others.aclose()

    before = open_files()
    asyncio.run(follow())
    assert open_files() == before


def test_an_event_that_is_not_from_the_kernel_is_not_believed() -> None:
    forged = HOTPLUG.replace(b"SUBSYSTEM=drm", b"SUBSYSTEM=mem")
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 15) as forger:
        try:
            forger.bind((0, 0))
            forger.sendto(forged, (0, 1))
        except OSError:
            pytest.skip("no right to send such messages at all")

        async def follow() -> Mapping[str, str] | None:
            async with asyncio.timeout(10):
                events = uevents("mem")
                first = asyncio.ensure_future(anext(events))
                await asyncio.sleep(0)
                forger.sendto(forged, (0, 1))
                trigger("change")
                event = await first
                await events.aclose()
                return event

        event = asyncio.run(follow())
    assert event is not None
    assert event["DEVNAME"] == "null"


def test_events_that_were_lost_are_worth_asking_too() -> None:
    async def follow() -> bool:
        async with asyncio.timeout(10):
            events = uevents("drm")
            first = asyncio.ensure_future(anext(events))
            await asyncio.sleep(0)
            for _ in range(1_000):  # more than the socket's buffer holds
                trigger("change")
            lost = await first is None
            await events.aclose()
            return lost

    assert asyncio.run(follow())


def test_a_cancelled_follower_leaves_no_socket_behind() -> None:
    async def follow() -> None:
        async def forever() -> None:
            async for _ in display.changes(display.Settings(connector="HDMI-A-1")):
                pass

        task = asyncio.ensure_future(forever())
        await asyncio.sleep(0.02)
        assert not task.done()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    before = open_files()
    asyncio.run(follow())
    assert open_files() == before


@pytest.mark.parametrize("settings", [{"connector": "HDMI-A-1"}, {"source": "file:edid.bin"}])
def test_a_recorded_tree_and_a_file_have_nothing_to_follow(
    tmp_path: Path, settings: dict[str, str]
) -> None:
    root = tmp_path if "connector" in settings else Path("/")

    async def follow() -> list[None]:
        async with asyncio.timeout(5):
            stream = display.changes(display.Settings.model_validate(settings), root)
            return [change async for change in stream]

    assert asyncio.run(follow()) == []
