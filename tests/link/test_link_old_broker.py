"""The link against the broker of `try`, a real one that speaks MQTT 3.1.1 only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from link_stage import Room, Spy, running, until

from agent.link import embedded

NAME = "nats-server"


def test_everything_works_on_version_3(tmp_path: Path, spy: Callable[..., Spy]) -> None:
    if embedded.find([NAME]) is None:
        pytest.skip(f"{NAME} is not installed")

    async def scene() -> None:
        broker = await embedded.start(tmp_path / "broker", [NAME])
        try:
            room = Room({"host": broker.host, "port": broker.port})
            room.link.put("about", b'{"name":"a"}')
            room.outbox.add(100)
            async with running(room) as link:
                await until(lambda: len(room.outbox.sent) == 100, 30)
                assert (link.protocol, link.last_error) == (4, "")
                eyes = await asyncio.to_thread(spy, broker.port, protocol=mqtt.MQTTv311)
                await until(lambda: eyes.of("about") and eyes.states == ["online"], 20)
                await asyncio.to_thread(eyes.publish, "schedule", b"1", retain=True)
                await until(lambda: room.came == [("schedule", b"1", False)])
                link.put("about", None)
                await until(lambda: eyes.of("about")[-1] is None)
            await until(lambda: eyes.states == ["online", "lost"])
            again = Room({"host": broker.host, "port": broker.port})
            task = asyncio.create_task(again.link.run())
            await until(lambda: again.came == [("schedule", b"1", True)])
            await until(lambda: eyes.states == ["online", "lost", "online"])
            await again.link.stop("test")
            await task
            await until(lambda: eyes.states == ["online", "lost", "online", "stopped"])
            await asyncio.to_thread(eyes.close)
        finally:
            await broker.stop()
        assert room.outbox.sent == list(range(1, 101))

    asyncio.run(scene())
