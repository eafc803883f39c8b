"""Where an answer goes: to `result`, and to where the request asked for it, if nobody is harmed."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable, Iterator
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from link_stage import BRISK, ROOM, SITE, TOPIC, Mosquitto, Room, Scripted, running, until
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from agent.link.client.link import ANSWERS_MAX
from agent.link.contract import PAYLOADS, ReplyTo, Topics

RESULT = TOPIC + "result"
CENTRAL = f"hearing/v1/{SITE}/_central/results/7"


@pytest.mark.parametrize(
    "topic",
    [
        RESULT,
        CENTRAL,
        f"hearing/v1/{SITE}/_central/result/{ROOM}/7",
        f"hearing/v1/{SITE}/central",
        f"hearing/v1/{SITE}/{ROOM}/answers",
        f"hearing/v1/{SITE}/{ROOM}/answers/command",
        f"hearing/v1/{SITE}/_central/kết-quả",
    ],
)
def test_places_for_answers(topic: str) -> None:
    assert Topics(SITE, ROOM).takes_answers(topic)


@pytest.mark.parametrize(
    "topic",
    [
        *(f"hearing/v1/{SITE}/{ROOM}/{name}" for name in PAYLOADS if name != "result"),
        *(f"hearing/v1/{SITE}/other-room/{name}" for name in PAYLOADS),
        f"hearing/v1/{SITE}/other-room/command/x",
        f"hearing/v1/{SITE}/{ROOM}/config/desired",
        f"hearing/v1/{SITE}/other-room/config/reported",
        f"hearing/v1/{SITE}/_all/command",
        f"hearing/v1/{SITE}/_all/x",
        "hearing/v1/other-site/_central/results",
        f"hearing/v1/{SITE}",
        f"hearing/v1/{SITE}/",
        f"hearing/v1/{SITE}//command",
        f"hearing/v1/{SITE}/x/",
        f"hearing/v1/{SITE}/+/x",
        f"hearing/v1/{SITE}/x/#",
        f"hearing/v1/{SITE}/x\x00y",
        f"hearing/v1/{SITE}/x\ny",
        f"hearing/v1/{SITE}/" + "x" * 300,
        "hearing/v2/hcm/_central/results",
        "homeassistant/status",
        "$SYS/broker",
        "$share/g/hearing/v1/hcm/x",
        "",
        "/",
    ],
)
def test_topics_that_take_no_answers(topic: str) -> None:
    assert not Topics(SITE, ROOM).takes_answers(topic)


class Central:
    """Who asks: a client of the broker in a thread."""

    def __init__(self, port: int, version: mqtt.MQTTProtocolVersion = mqtt.MQTTv5) -> None:
        self.heard: list[tuple[str, bytes, bytes | None]] = []
        ready: queue.Queue[int] = queue.Queue()
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=version)
        self.client.on_connect = lambda client, *_: client.subscribe("hearing/v1/#", qos=1)
        self.client.on_subscribe = lambda *_: ready.put(1)
        self.client.on_message = self._message
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        ready.get(timeout=10)

    def _message(self, client: mqtt.Client, data: object, message: mqtt.MQTTMessage) -> None:
        correlation = getattr(message.properties, "CorrelationData", None)
        self.heard.append((message.topic, bytes(message.payload), correlation))

    def ask(self, topic: str | None = None, correlation: bytes | None = None) -> None:
        properties: Any = None
        if topic is not None:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.ResponseTopic = topic
            if correlation is not None:
                properties.CorrelationData = correlation
        self.client.publish(TOPIC + "command", b"{}", qos=1, properties=properties)

    def answers(self) -> list[tuple[str, bytes | None]]:
        return [(topic, data) for topic, payload, data in self.heard if payload == b'{"a":1}']

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def central() -> Iterator[Callable[..., Central]]:
    made: list[Central] = []

    def start(*args: Any) -> Central:
        made.append(Central(*args))
        return made[-1]

    yield start
    for one in made:
        one.close()


def room_at(port: int) -> Room:
    room = Room({"host": "127.0.0.1", "port": port}, subscriptions=("command",))
    inner = room.link._listener

    def answer(suffix: str, payload: bytes, retained: bool, reply_to: ReplyTo | None) -> None:
        inner(suffix, payload, retained, reply_to)
        room.link.answer(b'{"a":1}', reply_to)

    room.link._listener = answer
    return room


@pytest.mark.parametrize(
    ("topic", "correlation", "expected"),
    [
        (None, None, [(RESULT, None)]),
        (CENTRAL, b"\x00\x01\xff", [(RESULT, None), (CENTRAL, b"\x00\x01\xff")]),
        (CENTRAL, b"", [(RESULT, None), (CENTRAL, b"")]),
        (CENTRAL, None, [(RESULT, None), (CENTRAL, None)]),
        (RESULT, b"mine", [(RESULT, b"mine")]),
        (f"hearing/v1/{SITE}/other-room/command", b"x", [(RESULT, None)]),
        (f"hearing/v1/{SITE}/other-room/result", b"x", [(RESULT, None)]),
        (TOPIC + "status", b"x", [(RESULT, None)]),
    ],
)
def test_an_answer_comes_back_with_what_it_was_asked_with(
    mosquitto: Callable[..., Mosquitto],
    central: Callable[..., Central],
    topic: str | None,
    correlation: bytes | None,
    expected: list[tuple[str, bytes | None]],
) -> None:
    async def scene() -> None:
        port = mosquitto().port
        asker = central(port)
        async with running(room_at(port)) as link:
            await until(lambda: link.connected and link._feed and link._feed.born)
            asker.ask(topic, correlation)
            await until(lambda: len(asker.answers()) == len(expected))
            await asyncio.sleep(0.05)
            assert sorted(asker.answers(), key=repr) == sorted(expected, key=repr)

    asyncio.run(scene())


@pytest.mark.parametrize("who", ["the asker", "the room"])
def test_in_version_3_the_answer_is_on_result(
    mosquitto: Callable[..., Mosquitto], central: Callable[..., Central], who: str
) -> None:
    async def scene() -> None:
        port = mosquitto().port
        asker = central(port, mqtt.MQTTv311 if who == "the asker" else mqtt.MQTTv5)
        room = room_at(port)
        if who == "the room":
            room.link._speaks_4.add(("127.0.0.1", port))
        async with running(room) as link:
            await until(lambda: link.connected and link._feed and link._feed.born)
            assert link.protocol == (4 if who == "the room" else 5)
            asker.ask(*(() if who == "the asker" else (CENTRAL, b"x")))
            await until(asker.answers)
            await asyncio.sleep(0.05)
            assert asker.answers() == [(RESULT, None)]
            assert room.reply_to is None

    asyncio.run(scene())


def test_correlation_data_that_the_broker_would_not_take_back_costs_one_answer(
    mosquitto: Callable[..., Mosquitto], central: Callable[..., Central]
) -> None:
    async def scene() -> None:
        port = mosquitto("allow_anonymous true\nmax_packet_size 2000").port
        asker = central(port)
        room = room_at(port)
        async with running(room) as link:
            await until(lambda: link.connected and link._feed and link._feed.born)
            session = link.session
            asker.ask(CENTRAL, b"x" * 1_900)
            await until(lambda: room.came)
            asker.ask(CENTRAL, b"y")
            await until(lambda: (CENTRAL, b"y") in asker.answers())
            assert link.session == session, "thrown out for it"
            assert asker.answers().count((RESULT, None)) == 2

    asyncio.run(scene())


def test_answers_wait_for_a_place_and_the_oldest_go_when_there_are_too_many() -> None:
    async def scene() -> None:
        async with Scripted() as broker:
            room = Room({"host": "127.0.0.1", "port": broker.port}, pace=BRISK)
            async with running(room) as link:
                await until(lambda: "status" in broker.topics)
                broker.puback = lambda topic, nth: None
                total = 20 + ANSWERS_MAX + 5
                for number in range(total):
                    link.answer(b'{"n":%d}' % number)
                    await asyncio.sleep(0)
                await until(lambda: broker.held == 20)
                broker.puback = lambda topic, nth: 0
                broker.let_go()
                await until(lambda: len(broker.of("result")) == 20 + ANSWERS_MAX)
                numbers = [answer["n"] for answer in broker.of("result")]
                assert numbers == [*range(20), *range(25, total)], "in order, the oldest missing"

    asyncio.run(scene())


def test_without_a_broker_an_answer_is_lost_and_the_next_connection_has_none_of_it() -> None:
    async def scene() -> None:
        async with Scripted() as broker:
            room = Room({"host": "127.0.0.1", "port": broker.port})
            room.link.answer(b'{"n":0}', ReplyTo(CENTRAL, b"x"))
            async with running(room) as link:
                await until(lambda: "status" in broker.topics)
                broker.puback = lambda topic, nth: None
                for number in range(30):
                    link.answer(b'{"n":%d}' % number)
                await until(lambda: broker.held == 20)
                broker.puback = lambda topic, nth: 0
                first = link.session
                broker.hang_up()
                await until(lambda: link.connected and link.session != first)
                link.answer(b'{"n":99}')
                await until(lambda: {"n": 99} in broker.of("result"))
                assert all(answer["n"] not in range(20, 30) for answer in broker.of("result"))

    asyncio.run(scene())
