"""The link against a real mosquitto: what central sees of a room."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from link_stage import ROOM, SITE, TOPIC, Mosquitto, Room, Spy, clock, running, until

from agent.link.client import Link, Pace
from agent.model import StoreError

pytestmark = pytest.mark.broker

StartBroker = Callable[..., Mosquitto]
StartSpy = Callable[..., Spy]


def doc(**fields: object) -> bytes:
    return json.dumps({"v": 1, **fields}).encode()


def at(broker: Mosquitto, **options: object) -> Room:
    return Room({"host": "127.0.0.1", "port": broker.port}, **options)


def test_a_room_subscribes_then_says_who_it_is_how_it_stands_and_only_then_that_it_is_online(
    mosquitto: StartBroker, spy: StartSpy
) -> None:
    broker = mosquitto()
    eyes = spy(broker.port)
    eyes.publish("schedule", b"kept", retain=True)

    async def scene() -> None:
        room = at(broker)
        room.link.put("readiness", doc(state="ready"))
        room.link.put("device/cam", doc(id="cam"))
        room.link.put("about", doc(name="Phòng"))
        room.outbox.add(3)
        assert not room.link.connected
        async with running(room) as link:
            await until(lambda: len(eyes.of("event")) == 3)
            assert link.connected
            assert (link.protocol, link.last_error) == (5, "")
            assert link.broker_host == f"127.0.0.1:{broker.port}"
            assert eyes.of("status")[0]["session"] == link.session
            await until(lambda: room.outbox.sent == [1, 2, 3])
            await until(lambda: room.came)
        assert room.came == [("schedule", b"kept", True)]

    asyncio.run(scene())
    ours = [topic for topic in eyes.topics if topic != "schedule"]
    assert ours[:7] == ["about", "readiness", "device/cam", "status", "event", "event", "event"]
    birth = eyes.of("status")[0]
    assert (birth["state"], birth["next_s"]) == ("online", 60)
    assert {"v", "at", "ts", "clock", "boot", "up_ms"} < birth.keys()
    log = broker.log
    assert log.index(f"Received SUBSCRIBE from {ROOM}") < log.index(f"Received PUBLISH from {ROOM}")


def test_a_lost_connection_leaves_the_will_with_the_session_of_its_birth(
    mosquitto: StartBroker, spy: StartSpy
) -> None:
    broker = mosquitto()
    eyes = spy(broker.port)

    async def scene() -> None:
        room = at(broker)
        for count in (1, 2):
            async with running(room):
                await until(lambda count=count: eyes.states.count("online") == count)
            await until(lambda count=count: eyes.states.count("lost") == count)

    asyncio.run(scene())
    assert eyes.states == ["online", "lost", "online", "lost"]
    sessions = [status["session"] for status in eyes.of("status")]
    assert sessions[0] == sessions[1] != sessions[2] == sessions[3]
    assert eyes.of("status")[1] == {"v": 1, "state": "lost", "session": sessions[0]}
    late = spy(broker.port)
    wait_for(lambda: late.heard)
    assert late.heard == [("status", eyes.of("status")[-1], True)]


def wait_for(true: Callable[[], object]) -> None:
    asyncio.run(until(true))


def test_a_late_will_of_an_old_connection_can_be_told_from_the_new_one(
    mosquitto: StartBroker, spy: StartSpy
) -> None:
    broker = mosquitto()
    eyes = spy(broker.port)

    async def scene() -> None:
        old, new = at(broker), at(broker)
        async with running(old):
            await until(lambda: eyes.states == ["online"])
            # A second client of our name: the broker throws the first out and sends its will.
            async with running(new) as link:
                await until(lambda: "lost" in eyes.states and eyes.states.count("online") > 1)
                will = next(s for s in eyes.of("status") if s["state"] == "lost")
                assert will["session"] == eyes.of("status")[0]["session"] != link.session

    asyncio.run(scene())


def test_a_broker_that_forgot_everything_is_told_again(
    mosquitto: StartBroker, spy: StartSpy
) -> None:
    broker = mosquitto()

    async def scene() -> None:
        room = at(broker)
        room.link.put("about", doc(name="a"))
        room.link.put("device/cam", doc(id="cam"))
        room.link.put("device/gone", None)
        async with running(room) as link:
            await until(lambda: link.connected)
            first = link.session
            await asyncio.to_thread(broker.kill)
            await until(lambda: not link.connected)
            assert link.last_error in ("network", "refused")
            assert clock().up_s - link.since_s < 5
            room.link.put("readiness", doc(state="not_ready"))
            room.link.put("readiness", doc(state="ready"))
            await asyncio.to_thread(broker.start)
            await until(lambda: link.connected)
            assert link.session != first
            eyes = await asyncio.to_thread(spy, broker.port)
            await until(lambda: set(eyes.topics) >= {"about", "device/cam", "status", "readiness"})
            assert eyes.of("readiness") == [{"v": 1, "state": "ready"}]
            assert not any(eyes.of("device/gone"))
            assert link.last_error == ""

    asyncio.run(scene())


def cut(link: Link) -> None:
    """The network between link and broker goes."""
    assert link._connection is not None
    sock = link._connection._client.socket()
    assert isinstance(sock, socket.socket)
    sock.shutdown(socket.SHUT_RDWR)


def test_a_document_is_removed_by_nothing(mosquitto: StartBroker, spy: StartSpy) -> None:
    broker = mosquitto()
    eyes = spy(broker.port)

    async def scene() -> None:
        room = at(broker)
        room.link.put("device/cam", doc(id="cam"))
        async with running(room):
            await until(lambda: eyes.of("device/cam"))
            room.link.put("device/cam", None)
            await until(lambda: len(eyes.of("device/cam")) == 2)

    asyncio.run(scene())
    assert eyes.of("device/cam")[1] is None
    late = spy(broker.port)
    wait_for(lambda: late.of("status"))
    assert late.of("device/cam") == []


def test_the_same_bytes_are_not_said_twice_on_one_connection(
    mosquitto: StartBroker, spy: StartSpy
) -> None:
    broker = mosquitto()
    eyes = spy(broker.port)

    async def scene() -> None:
        room = at(broker)
        async with running(room):
            await until(lambda: eyes.states)
            for state in ("ready", "ready", "not_ready", "not_ready", "ready"):
                room.link.put("readiness", doc(state=state))
                await asyncio.sleep(0.02)
            await until(lambda: len(eyes.of("readiness")) == 3)

    asyncio.run(scene())
    assert [r["state"] for r in eyes.of("readiness")] == ["ready", "not_ready", "ready"]


def test_status_belongs_to_the_link(mosquitto: StartBroker) -> None:
    room = at(mosquitto())
    with pytest.raises(ValueError, match="status"):
        room.link.put("status", b"{}")


def test_events_of_a_long_absence_arrive_all_and_in_order(
    mosquitto: StartBroker, spy: StartSpy
) -> None:
    broker = mosquitto()

    async def scene() -> None:
        room = at(broker)
        async with running(room) as link:
            await until(lambda: link.connected)
            room.outbox.add(50)
            room.link.kick()
            await until(lambda: len(room.outbox.sent) == 50)
            await asyncio.to_thread(broker.kill)
            room.outbox.add(200)
            room.link.kick()
            await until(lambda: not link.connected)
            await asyncio.to_thread(broker.start)
            eyes = await asyncio.to_thread(spy, broker.port)
            await until(lambda: len(set(room.outbox.sent)) == 250)
            await until(lambda: eyes.of("event")[-1]["n"] == 250)
            arrived = [event["n"] for event in eyes.of("event")]
            # The first ones may have passed before the spy was there.
            assert arrived == list(range(arrived[0], 251))

    asyncio.run(scene())


def test_events_go_no_faster_than_asked(mosquitto: StartBroker, spy: StartSpy) -> None:
    broker = mosquitto()
    eyes = spy(broker.port)

    async def scene() -> None:
        room = at(broker, pace=Pace(events_per_s=100, events_at_once=10))
        room.outbox.add(60)
        loop = asyncio.get_running_loop()
        async with running(room):
            await until(lambda: eyes.of("event"))
            began_s = loop.time()
            await until(lambda: len(eyes.of("event")) == 60)
            assert 0.3 < loop.time() - began_s < 5  # 50 beyond the first ten, at 100 a second

    asyncio.run(scene())


def test_a_clean_stop_says_so_and_leaves_no_will(mosquitto: StartBroker, spy: StartSpy) -> None:
    broker = mosquitto()
    eyes = spy(broker.port)

    async def scene() -> None:
        room = at(broker)
        task = asyncio.create_task(room.link.run())
        await until(lambda: eyes.states)
        await room.link.stop("update")
        await asyncio.wait_for(task, 1)
        assert not room.link.connected
        assert room.link.last_error == ""

    asyncio.run(scene())
    wait_for(lambda: len(eyes.states) == 2)
    assert eyes.states == ["online", "stopped"]
    assert eyes.of("status")[1]["why"] == "update"
    assert eyes.of("status")[1]["session"] == eyes.of("status")[0]["session"]
    wait_for(lambda: f"Received DISCONNECT from {ROOM}" in broker.log)


def test_a_stop_waits_no_longer_than_asked_for_a_broker_that_hangs(
    mosquitto: StartBroker, spy: StartSpy
) -> None:
    broker = mosquitto()
    eyes = spy(broker.port)

    async def scene() -> None:
        room = at(broker)
        task = asyncio.create_task(room.link.run())
        await until(lambda: eyes.states)
        broker.freeze()
        began_s = asyncio.get_running_loop().time()
        await room.link.stop("shutdown", timeout_s=0.2)
        assert asyncio.get_running_loop().time() - began_s < 1
        await task
        broker.thaw()
        await until(lambda: "stopped" in eyes.states or "lost" in eyes.states)

    asyncio.run(scene())


def test_telemetry_is_dropped_where_it_cannot_go(mosquitto: StartBroker, spy: StartSpy) -> None:
    broker = mosquitto()
    eyes = spy(broker.port)

    async def scene() -> None:
        room = at(broker)
        room.link.telemetry(doc(host={"temp_c": 1}))
        async with running(room):
            await until(lambda: eyes.states)
            room.link.put("readiness", doc(state="ready"))
            room.link.telemetry(doc(host={"temp_c": 2}))
            await until(lambda: eyes.of("telemetry"))

    asyncio.run(scene())
    assert [t["host"]["temp_c"] for t in eyes.of("telemetry")] == [2]
    assert not any(kept for topic, _, kept in eyes.heard if topic == "telemetry")


def test_messages_come_in_with_their_retained_flag_and_a_bad_one_ends_nothing(
    mosquitto: StartBroker, spy: StartSpy
) -> None:
    broker = mosquitto()
    eyes = spy(broker.port)

    async def scene() -> None:
        room = at(broker, subscriptions=("schedule", "command", "_all/command"))
        came: list[tuple[str, bytes, bool]] = []

        def listen(suffix: str, payload: bytes, retained: bool, reply_to: object) -> None:
            came.append((suffix, payload, retained))
            if payload == b"bad":
                raise RuntimeError("what a message")

        room.link._listener = listen
        eyes.publish("command", b"stored", retain=True)
        async with running(room):
            await until(lambda: eyes.states)
            eyes.publish("command", b"bad")
            eyes.publish("command", b"live", retain=True)
            eyes.publish("schedule", b"", retain=True)
            eyes.publish("schedule", b"x" * 70_000)
            eyes._client.publish(f"hearing/v1/{SITE}/_all/command", b"all", qos=1)
            eyes.publish("schedule", b"end")
            await until(lambda: came and came[-1][1] == b"end")
            assert came == [
                ("command", b"bad", False),
                ("command", b"live", True),
                ("schedule", b"", True),
                ("_all/command", b"all", False),
                ("schedule", b"end", False),
            ]

    asyncio.run(scene())


def test_a_quiet_line_is_kept_alive_by_pings_and_a_dead_one_is_noticed(
    mosquitto: StartBroker, spy: StartSpy
) -> None:
    broker = mosquitto()
    eyes = spy(broker.port)

    async def scene() -> None:
        loop = asyncio.get_running_loop()
        room = Room({"host": "127.0.0.1", "port": broker.port, "keepalive_s": 5})
        async with running(room) as link:
            await until(lambda: eyes.states)
            first = link.session
            await until(lambda: f"Sending PINGRESP to {ROOM}" in broker.log, 8)
            broker.freeze()
            began_s = loop.time()
            await until(lambda: not link.connected, 15)
            assert link.last_error == "timeout"
            assert loop.time() - began_s > 9  # twice the keep-alive
            assert eyes.states == ["online"]
            broker.thaw()
            await until(lambda: link.connected)
            assert link.session != first

    asyncio.run(scene())


def test_the_heartbeat_repeats_while_the_agent_is_alive_on_evidence_and_no_longer(
    mosquitto: StartBroker, spy: StartSpy
) -> None:
    broker = mosquitto()
    eyes = spy(broker.port)
    alive = True

    async def scene() -> None:
        nonlocal alive
        room = at(broker, pace=Pace(heartbeat_s=1, gate_s=0.02), heartbeat_gate=lambda: alive)
        async with running(room) as link:
            await until(lambda: len(eyes.states) == 2)
            alive = False
            heard = len(eyes.states)
            await asyncio.sleep(1.5)
            assert len(eyes.states) <= heard + 1
            assert link.connected
            heard = len(eyes.states)
            alive = True
            await until(lambda: len(eyes.states) > heard)

    asyncio.run(scene())
    assert {s["session"] for s in eyes.of("status")} == {eyes.of("status")[0]["session"]}
    assert eyes.of("status")[1]["up_ms"] > eyes.of("status")[0]["up_ms"]


def test_an_agent_that_is_not_alive_does_not_connect(mosquitto: StartBroker) -> None:
    broker = mosquitto()
    alive = False

    async def scene() -> None:
        nonlocal alive
        room = at(broker, heartbeat_gate=lambda: alive)
        async with running(room) as link:
            await asyncio.sleep(0.1)
            assert not link.connected
            assert "hcm-01" not in broker.log
            alive = True
            await until(lambda: link.connected)

    asyncio.run(scene())


def test_a_room_starts_before_its_broker(mosquitto: StartBroker) -> None:
    broker = mosquitto()
    broker.kill()

    async def scene() -> None:
        room = at(broker)
        async with running(room) as link:
            await until(lambda: link.last_error == "refused")
            since_s = link.since_s
            await asyncio.to_thread(broker.start)
            await until(lambda: link.connected)
            assert link.since_s > since_s

    asyncio.run(scene())


def test_the_list_of_brokers_is_tried_in_turn(mosquitto: StartBroker) -> None:
    first, second = mosquitto(), mosquitto()
    first.kill()

    async def scene() -> None:
        hosts = [f"127.0.0.1:{first.port}", f"127.0.0.1:{second.port}"]
        room = Room({"host": hosts})
        async with running(room) as link:
            await until(lambda: link.connected)
            assert link.broker_host == hosts[1]
            await asyncio.to_thread(second.kill)
            await asyncio.to_thread(first.start)
            await until(lambda: link.connected and link.broker_host == hosts[0])

    asyncio.run(scene())


def test_a_failing_store_delays_events_and_nothing_else(
    mosquitto: StartBroker, spy: StartSpy
) -> None:
    broker = mosquitto()
    eyes = spy(broker.port)

    async def scene() -> None:
        room = at(broker)
        room.outbox.add(30)
        room.outbox.failing = StoreError("the disk is gone")
        async with running(room):
            room.link.put("readiness", doc(state="ready"))
            await until(lambda: eyes.of("readiness") and eyes.states)
            assert not eyes.of("event")
            room.outbox.failing = None
            await until(lambda: len(room.outbox.sent) == 30)

    asyncio.run(scene())
    assert [event["n"] for event in eyes.of("event")] == list(range(1, 31))


def test_what_the_broker_has_is_not_sent_again_because_the_store_did_not_hear_of_it(
    mosquitto: StartBroker, spy: StartSpy
) -> None:
    broker = mosquitto()
    eyes = spy(broker.port)

    async def scene() -> None:
        room = at(broker)
        mark = room.outbox.mark_sent

        async def fails(numbers: object) -> None:
            raise StoreError("not now")

        room.outbox.mark_sent = fails  # type: ignore[method-assign]
        room.outbox.add(5)
        async with running(room) as link:
            await until(lambda: len(eyes.of("event")) == 5)
            await until(lambda: link._feed is not None and len(link._feed._acked) == 5)
            first = link.session
            assert link._connection is not None
            cut(link)
            await until(lambda: link.connected and link.session != first)
            room.outbox.mark_sent = mark  # type: ignore[method-assign]
            room.link.kick()
            await until(lambda: sorted(room.outbox.sent) == [1, 2, 3, 4, 5])
        assert len(eyes.of("event")) == 5

    asyncio.run(scene())


def test_a_password_is_read_anew_at_every_connect(mosquitto: StartBroker, tmp_path: Path) -> None:
    hashes = tmp_path / "passwd"
    hashes.write_text(f"{ROOM}:right\n")
    make_passwords(hashes)
    broker = mosquitto(f"allow_anonymous false\npassword_file {hashes}")
    secret = tmp_path / "secret"

    async def scene() -> None:
        room = Room({"host": "127.0.0.1", "port": broker.port, "password_file": str(secret)})
        async with running(room) as link:
            await until(lambda: link.last_error == "auth")  # there is no file
            secret.write_text("wrong\n")
            await until(lambda: "not authorised" in broker.log)
            assert link.last_error == "auth"
            secret.write_text("right\n")
            await until(lambda: link.connected)
            assert link.last_error == ""

    asyncio.run(scene())


def make_passwords(path: Path) -> None:
    tool = shutil.which("mosquitto_passwd")
    if tool is None:
        pytest.skip("mosquitto_passwd is not installed")
    subprocess.run([tool, "-U", str(path)], check=True, timeout=10)


def test_what_an_access_list_forbids_is_counted_and_events_wait_for_it(
    mosquitto: StartBroker, spy: StartSpy, tmp_path: Path
) -> None:
    rules = tmp_path / "acl"
    rules.write_text("topic read #\ntopic write hearing/v1/+/+/status\n")
    broker = mosquitto(f"allow_anonymous true\nacl_file {rules}")
    eyes = spy(broker.port)

    async def scene() -> None:
        room = at(broker)
        room.outbox.add(5)
        room.link.put("about", doc(name="a"))
        async with running(room) as link:
            await until(lambda: link.refusals.get("event", 0) > 5)
            assert link.refusals["about"] >= 1
            await until(lambda: eyes.states == ["online"])
            assert room.outbox.sent == []
            rules.write_text(f"topic read #\ntopic write {TOPIC}#\n")
            broker.reload()
            await until(lambda: len(room.outbox.sent) == 5)

    asyncio.run(scene())
    assert [event["n"] for event in eyes.of("event")] == [1, 2, 3, 4, 5]
