"""The link against a broker that answers as told: refusals, silence, old versions, windows."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import textwrap
import tracemalloc
from pathlib import Path

import pytest
from link_stage import BRISK, Room, Scripted, running, until

from agent.link.client import Pace

HANGS_UP = None
OLD_REFUSAL = b"\x00\x01"
REFUSAL = b"\x00\x84\x00"


def at(broker: Scripted, **options: object) -> Room:
    return Room({"host": "127.0.0.1", "port": broker.port}, **options)


def accept(version: int) -> bytes:
    return b"\x00\x00" + b"\x00" * (version == 5)


@pytest.mark.parametrize("refusal", [REFUSAL, OLD_REFUSAL], ids=["0x84", "as 3.1.1 says it"])
def test_version_5_refused_means_version_3_at_once_and_for_the_whole_run(refusal: bytes) -> None:
    async def scene() -> None:
        async with Scripted() as broker:
            broker.connack = lambda version: refusal if version == 5 else accept(version)
            room = at(broker, pace=Pace(retry_base_s=30, retry_cap_s=30))
            room.link.put("about", b"{}")
            room.outbox.add(3)
            async with running(room) as link:
                await until(lambda: room.outbox.sent == [1, 2, 3])
                assert link.protocol == 4
                assert broker.topics == ["about", "status", "event", "event", "event"]
            assert broker.connects == [5, 4]
            again = at(broker)
            async with running(again) as link:
                await until(lambda: link.connected)
                for session in range(2):
                    broker.hang_up()
                    await until(lambda: not link.connected)
                    await until(lambda: link.connected)
                    assert link.protocol == 4, session
            assert broker.connects == [5, 4, 5, 4, 4, 4]

    asyncio.run(scene())


def test_a_broker_that_hangs_up_on_version_5_is_asked_in_version_3() -> None:
    async def scene() -> None:
        async with Scripted() as broker:
            broker.connack = lambda version: HANGS_UP if version == 5 else accept(version)
            async with running(at(broker)) as link:
                await until(lambda: link.connected)
                assert link.protocol == 4
                # A guess is not for ever: it may have hung up for another reason.
                broker.connack = accept
                broker.hang_up()
                await until(lambda: not link.connected)
                await until(lambda: link.connected)
                assert link.protocol == 5

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("code", "word"),
    [(0x86, "auth"), (0x87, "auth"), (0x88, "refused"), (0x89, "refused"), (0x85, "protocol")],
)
def test_a_refused_connection_says_why_and_recovers(code: int, word: str) -> None:
    async def scene() -> None:
        async with Scripted() as broker:
            broker.connack = lambda version: bytes([0, code, 0])
            async with running(at(broker)) as link:
                await until(lambda: link.last_error)
                assert link.last_error == word
                broker.connack = accept
                await until(lambda: link.connected)
                assert link.last_error == ""

    asyncio.run(scene())


def test_one_who_is_thrown_out_by_another_of_his_name_says_so() -> None:
    async def scene() -> None:
        slow = Pace(retry_base_s=0.3)
        async with Scripted() as broker, running(at(broker, pace=slow)) as link:
            await until(lambda: link.connected)
            broker.hang_up(b"\xe0\x02\x8e\x00")
            await until(lambda: not link.connected)
            assert link.last_error == "taken_over"
            await until(lambda: link.connected)

    asyncio.run(scene())


def test_a_broker_that_never_answers_connect_is_given_up() -> None:
    async def scene() -> None:
        async with Scripted() as broker:
            broker.connack = lambda version: b""
            quick = Pace(answer_s=0.05, retry_base_s=0.02, retry_cap_s=0.02)
            async with running(at(broker, pace=quick)) as link:
                await until(lambda: len(broker.connects) > 1)
                assert link.last_error == "timeout"
                broker.connack = accept
                await until(lambda: link.connected)

    asyncio.run(scene())


@pytest.mark.parametrize(
    "bytes_", [b"\x00\x00", b"\xf0\x00", b"\x20\x01\x00", b"\x30\xff\xff\xff\xff\xff"], ids=repr
)
def test_nonsense_from_the_broker_ends_the_connection_and_nothing_else(bytes_: bytes) -> None:
    async def scene() -> None:
        async with Scripted() as broker, running(at(broker)) as link:
            await until(lambda: "status" in broker.topics)
            first = link.session
            broker.hang_up(bytes_, close=False)
            await until(lambda: link.session != first and link.connected)

    asyncio.run(scene())


def test_a_refused_subscription_is_asked_for_again_while_the_room_reports() -> None:
    async def scene() -> None:
        async with Scripted() as broker:
            broker.suback = lambda nth: 0x87 if nth < 4 else 1
            async with running(at(broker)) as link:
                await until(lambda: "status" in broker.topics)
                await until(lambda: link.last_error == "subscribe")
                assert link.connected
                await until(lambda: broker.subscribes == 4 and link.last_error == "")
                assert link.refusals == {"schedule": 3}
                assert broker.connects == [5]

    asyncio.run(scene())


def test_a_subscription_without_answer_holds_the_room_up_only_so_long() -> None:
    async def scene() -> None:
        async with Scripted() as broker:
            broker.suback = lambda nth: None if nth == 1 else 1
            quick = Pace(answer_s=0.1, refused_base_s=0.02)
            async with running(at(broker, pace=quick)) as link:
                await until(lambda: broker.subscribes == 1)
                assert broker.topics == []
                await until(lambda: "status" in broker.topics)
                await until(lambda: broker.subscribes == 2 and link.last_error == "")

    asyncio.run(scene())


def test_a_refused_event_is_sent_again_later_and_alone_until_it_is_taken() -> None:
    async def scene() -> None:
        async with Scripted() as broker:
            broker.puback = lambda topic, nth: 0x97 if topic == "event" and nth < 30 else 0
            room = at(broker)
            room.outbox.add(40)
            async with running(room) as link:
                await until(lambda: len(room.outbox.sent) == 40)
                assert room.outbox.sent == sorted(room.outbox.sent)
                assert link.refusals["event"] > 20
                numbers = [event["n"] for event in broker.of("event")]
                taken = numbers[link.refusals["event"] :]
                assert taken == list(range(1, 41))
                assert broker.connects == [5]

    asyncio.run(scene())


def test_nobody_listening_is_no_refusal() -> None:
    async def scene() -> None:
        async with Scripted() as broker:
            broker.puback = lambda topic, nth: 0x10
            room = at(broker)
            room.outbox.add(3)
            async with running(room) as link:
                await until(lambda: room.outbox.sent == [1, 2, 3])
                assert link.refusals == {}

    asyncio.run(scene())


def test_five_thousand_waiting_events_pass_through_a_small_window() -> None:
    async def scene() -> None:
        async with Scripted() as broker:
            room = at(broker)
            room.outbox.add(5_000)
            async with running(room) as link:
                await until(lambda: link.connected)
                gc.collect()
                tracemalloc.start()
                await until(lambda: len(room.outbox.sent) == 5_000, 60)
                _, peak = tracemalloc.get_traced_memory()
                tracemalloc.stop()
            assert [event["n"] for event in broker.of("event")] == list(range(1, 5_001))
            assert max(room.outbox.limits) <= 20
            # The broker of the test keeps every message, at some 200 bytes; the link keeps none.
            assert peak < 5_000 * 1_000

    asyncio.run(scene())


def test_no_more_than_the_window_is_on_its_way_and_documents_do_not_wait_for_events() -> None:
    async def scene() -> None:
        async with Scripted() as broker:
            broker.puback = lambda topic, nth: None if topic == "event" else 0
            room = at(broker)
            room.outbox.add(100)
            async with running(room):
                await until(lambda: broker.held == 20)
                await asyncio.sleep(0.05)
                assert broker.held == 20
                room.link.put("readiness", b'{"n":1}')
                room.link.put("readiness", b'{"n":2}')
                room.link.telemetry(b"{}")
                broker.let_go()
                await until(lambda: "readiness" in broker.topics)
                assert broker.of("readiness") == [{"n": 2}]
                assert "telemetry" not in broker.topics
                # The document was the first to get a free place.
                assert broker.topics.index("readiness") == broker.topics.index("status") + 21
                broker.puback = lambda topic, nth: 0
                broker.let_go()
                await until(lambda: len(room.outbox.sent) == 100)

    asyncio.run(scene())


def test_a_broker_with_a_smaller_window_is_respected() -> None:
    async def scene() -> None:
        async with Scripted() as broker:
            broker.connack = lambda version: b"\x00\x00\x03\x21\x00\x05"  # Receive Maximum 5
            broker.puback = lambda topic, nth: None if topic == "event" else 0
            room = at(broker)
            room.outbox.add(30)
            async with running(room):
                await until(lambda: broker.held == 5)
                await asyncio.sleep(0.05)
                assert broker.held == 5
                broker.puback = lambda topic, nth: 0
                broker.let_go()
                await until(lambda: len(room.outbox.sent) == 30)

    asyncio.run(scene())


def test_a_payload_too_large_for_the_broker_is_not_forced_on_it() -> None:
    async def scene() -> None:
        async with Scripted() as broker:
            # Maximum Packet Size 300
            broker.connack = lambda version: b"\x00\x00\x05\x27\x00\x00\x01\x2c"
            room = at(broker)
            room.link.put("about", b"x" * 400)
            room.link.put("readiness", b"{}")
            async with running(room) as link:
                await until(lambda: "status" in broker.topics)
                assert broker.topics == ["readiness", "status"]
                assert link.refusals == {"about": 1}

    asyncio.run(scene())


def test_a_broker_that_acknowledges_nothing_is_left() -> None:
    async def scene() -> None:
        async with Scripted() as broker:
            broker.puback = lambda topic, nth: None
            broker.connack = lambda version: b"\x00\x00\x03\x13\x00\x01"  # Server Keep Alive 1
            room = at(broker, pace=Pace(acknowledge_s=0.5, retry_base_s=0.02))
            async with running(room) as link:
                await until(lambda: link.last_error == "timeout")
                broker.puback = lambda topic, nth: 0
                room.outbox.add(1)
                await until(lambda: room.outbox.sent == [1])

    asyncio.run(scene())


def test_pings_without_answer_end_the_connection() -> None:
    async def scene() -> None:
        async with Scripted() as broker:
            broker.pongs = False
            broker.connack = lambda version: b"\x00\x00\x03\x13\x00\x01"  # Server Keep Alive 1
            async with running(at(broker)) as link:
                await until(lambda: link.connected)
                await until(lambda: link.last_error == "timeout")
                broker.pongs = True
                await until(lambda: link.connected)

    asyncio.run(scene())


def test_pauses_grow_while_connections_do_not_last() -> None:
    async def scene(stable_s: float) -> float:
        async with Scripted() as broker:
            pace = Pace(retry_base_s=0.01, retry_cap_s=10, stable_s=stable_s)
            async with running(at(broker, pace=pace)) as link:
                loop = asyncio.get_running_loop()
                seen = 0
                for _ in range(6):
                    await until(lambda seen=seen: link.connected and broker.subscribes > seen)
                    began_s, session, seen = loop.time(), link.session, broker.subscribes
                    broker.hang_up()
                    await until(lambda old=session: link.session != old)
                return loop.time() - began_s

    # The sixth pause is 0.01 s * 2^5 / 2, or 0.01 s / 2 where each connection was long enough.
    assert asyncio.run(scene(stable_s=60)) > 0.15
    assert asyncio.run(scene(stable_s=0)) < 0.15


def test_a_name_that_cannot_be_looked_up_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        room = Room({"host": ["no-such-host.invalid", "bad..name"]})
        async with running(room) as link:
            for host in ("no-such-host.invalid:1883", "bad..name:1883"):
                await until(lambda host=host: link.broker_host == host)
                await until(lambda: link.last_error == "dns")

    asyncio.run(scene())


HANGING_LOOK_UP = """
    import asyncio, socket, sys, threading, time
    sys.path.insert(0, {stage!r})
    from link_stage import Room
    from agent.link.client import Pace

    socket.getaddrinfo = lambda *args, **kwargs: threading.Event().wait()

    async def scene():
        room = Room({{"host": "broker.example"}}, pace=Pace(dial_s=0.1, retry_base_s=0.001,
                                                            retry_cap_s=0.001, gate_s=0.01))
        task = asyncio.create_task(room.link.run())
        worst = 0.0
        last = time.monotonic()
        while threading.active_count() < 4 or room.link.last_error != "dns":
            await asyncio.sleep(0.005)
            worst, last = max(worst, time.monotonic() - last), time.monotonic()
        await asyncio.sleep(0.3)
        assert threading.active_count() == 4, threading.enumerate()
        await room.link.stop("test")
        await task
        print("worst", worst)

    asyncio.run(scene())
    print("left", flush=True)
"""


def test_a_look_up_that_hangs_blocks_neither_the_loop_nor_the_exit() -> None:
    program = textwrap.dedent(HANGING_LOOK_UP).format(stage=str(Path(__file__).parent))
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=20
    )
    assert ended.returncode == 0, ended.stderr
    assert "left" in ended.stdout
    worst_s = float(ended.stdout.split()[1])
    assert worst_s < 0.5, ended.stdout


def test_a_connection_that_came_too_late_is_closed_again() -> None:
    async def scene() -> None:
        async with Scripted() as broker:
            room = at(broker)
            task = asyncio.create_task(room.link.run())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await room.link.stop("test")
            await task
            await asyncio.sleep(0.2)
            assert broker.topics == []
            async with running(at(broker)) as link:
                await until(lambda: link.connected)

    asyncio.run(scene())


def test_the_pace_of_the_tests_differs_only_in_speed() -> None:
    assert BRISK.heartbeat_s == Pace().heartbeat_s == 60
    assert (Pace().events_per_s, Pace().events_at_once) == (20.0, 20)
