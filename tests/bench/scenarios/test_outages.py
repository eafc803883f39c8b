"""What a room needs goes away and comes back: display, cable, a good line, the broker, room on the
disk, the time. Each is named, shown and told within its time, and over when it is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from bench_box.box import Box
from e2e_stage import Broker
from outage_stage import (
    GREEN,
    RED,
    SYNC_FILE,
    Outage,
    Said,
    WatchedRoom,
    distinct,
    edges,
    no_hole,
    room_in,
    suffer,
    until,
)
from room_stage import RAISED_S, Hearsay, Measured

from agent.model import iso

LINE, SCREEN, HOST = "network", "screen", "host"
NETWORKD = "/run/systemd/network/eth0.network.d"
LOSS_WINDOW_S = 30.0
HOLD_S = 20.0
BROKER_GRACE_S, BACK_OFF_S = 60.0, 60.0
"""A broker may be away so long before it is said, and at most so long is waited for another try."""
KEEP_ALIVE_S = 1.5 * 30.0
"""A broker gives up a client that says nothing for so long (MQTT 3.1.2.10)."""
TWO_YEARS_S = 2 * 365 * 86_400.0
DEVICES = f"""
[display.{SCREEN}]
connector = "Virtual-1"
period_s = 5

# Everything passes eth0: echoes to its gateway, a connection to the broker's port, the broker.
[network.{LINE}]
required = true
interface = "eth0"
endpoints = ["tcp://10.0.2.100:1883"]
endpoint_period_s = 0
period_s = 5
deadline_s = 20
echo_spacing_s = 0.2
loss_window_s = {LOSS_WINDOW_S}

[host]
period_s = 5
hold_s = {HOLD_S}

[indicator.status]
red = {RED}
green = {GREEN}
period_s = 1
"""


@pytest.fixture(scope="module")
def room(shared_box: Box, shared_hearsay: Hearsay) -> Iterator[WatchedRoom]:
    shared_box.install_checkout()
    # As a room is installed: systemd/sysctl.d/60-hearing-room.conf.
    shared_box.run("sysctl -q net.ipv4.ping_group_range='0 2147483647'")
    # QEMU's DHCP names no router where nothing leaves the box; it answers echoes all the same.
    shared_box.write(f"{NETWORKD}/gateway.conf", "[Route]\nGateway=10.0.2.2\n")
    shared_box.run("networkctl reload")
    shared_box.wait_for("ip route | grep -q default")
    with room_in(shared_box, shared_hearsay, DEVICES) as made:
        yield made


OUTAGES = (
    Outage(
        "display unplugged",
        SCREEN,
        "display.absent",
        "not_ready_3",
        lambda box: box.display.unplug(1),
        lambda box: box.display.plug(1),
    ),
    Outage(
        "20 % loss",
        LINE,
        "network.loss",
        "not_ready_4",
        lambda box: box.network.shape("loss", "20%"),
        lambda box: box.network.clear(),
        raised_s=2 * RAISED_S,  # three echoes have to be lost
        cleared_s=LOSS_WINDOW_S + RAISED_S,
    ),
    Outage(
        "400 ms delay",
        LINE,
        "network.high_rtt",
        "not_ready_4",
        lambda box: box.network.shape("delay", "400ms"),
        lambda box: box.network.clear(),
    ),
)


@pytest.mark.parametrize("outage", OUTAGES, ids=lambda o: o.code)
def test_what_goes_away_is_named_and_over_when_it_is_back(
    room: WatchedRoom, measured: Measured, outage: Outage
) -> None:
    suffer(room, measured, outage)


@pytest.fixture
def display_comes_and_goes(room: WatchedRoom) -> Iterator[Callable[[Said], None]]:
    """Something happens while something else is wrong; the broker has to hear of it in the end."""
    key = (SCREEN, "display.absent")
    heard = len(distinct(room.hearsay))

    def play(_: Said) -> None:
        room.box.display.unplug(1)
        room.until_code(*key)
        room.box.display.plug(1)
        room.until_code(*key, stands=False)

    yield play
    until(lambda: edges(room.hearsay, heard, key) == ["opened", "closed"], "not told later")
    no_hole(room.hearsay)


def test_a_pulled_cable_is_named_and_central_hears_everything_later(
    room: WatchedRoom, measured: Measured, display_comes_and_goes: Callable[[Said], None]
) -> None:
    pulled = Outage(
        "cable pulled",
        LINE,
        "network.no_link",
        "not_ready_4",
        lambda box: box.network.cable(False),
        lambda box: box.network.cable(True),
        ready_s=BACK_OFF_S + RAISED_S,
        reaches=False,
    )

    def is_lost(raised: Said) -> None:
        display_comes_and_goes(raised)
        until(lambda: room.hearsay.last("status")["state"] == "lost", "no will", KEEP_ALIVE_S)
        measured.add("outages", "cable pulled -> status lost at central", room.up_s() - began_s)

    began_s = room.up_s()
    suffer(room, measured, pulled, is_lost)
    assert room.hearsay.last("status")["state"] == "online"


def test_a_full_disk_is_named_and_loses_no_event(
    room: WatchedRoom, measured: Measured, display_comes_and_goes: Callable[[Said], None]
) -> None:
    full = Outage(
        "disk full",
        HOST,
        "host.disk_full",
        "at_risk",
        lambda box: box.disk.fill(),
        lambda box: box.disk.free(),
        state="at_risk",  # the box itself is not required
    )
    suffer(room, measured, full, display_comes_and_goes)


def test_a_broker_that_is_away_is_named_and_hears_everything_later(
    room: WatchedRoom,
    measured: Measured,
    shared_broker: Broker,
    display_comes_and_goes: Callable[[Said], None],
) -> None:
    gone = Outage(
        "broker gone",
        "",
        "agent.broker_unreachable",
        "at_risk",
        lambda box: shared_broker.stop(),
        lambda box: shared_broker.start(),
        state="at_risk",
        level="warn",
        raised_s=BROKER_GRACE_S + RAISED_S,
        cleared_s=BACK_OFF_S,
        reaches=False,
    )
    suffer(room, measured, gone, display_comes_and_goes)


# -- the time -----------------------------------------------------------------------------------


@pytest.fixture
def hearing(room: WatchedRoom) -> Iterator[Callable[[float], None]]:
    """Says that a hearing begins in so many seconds; it lasts two hours."""

    def say(in_s: float) -> None:
        starts_s = time.time() + in_s
        told = {"id": "HS-1", "starts": iso(starts_s), "ends": iso(starts_s + 7200)}
        room.hearsay.publish("schedule", {"v": 1, "hearings": [told]}, retain=True)
        room.until(lambda s: named(s) == "HS-1", RAISED_S, "the schedule is not heard")

    yield say
    room.hearsay.publish("schedule", None, retain=True)


def named(said: Said) -> str:
    """The hearing that the room speaks of."""
    return str((said.document["readiness"]["hearing"] or {}).get("id", ""))


def two_years_back(box: Box) -> None:
    box.set_clock(time.time() - TWO_YEARS_S)


def right_again(box: Box) -> None:
    box.set_clock(time.time())
    box.run(f"python3 -I {SYNC_FILE}")


def test_a_clock_that_jumps_two_years_back_moves_no_hearing(
    room: WatchedRoom, measured: Measured, hearing: Callable[[float], None]
) -> None:
    def is_placed_right(raised: Said) -> None:
        for said in (s for s in room.said(raised.at_s) if s.at_s >= raised.at_s):
            document = said.document["readiness"]
            assert named(said) == "HS-1"
            assert document["clock"] == "holdover"
            assert abs(document["ts"] - time.time()) < 600
            assert said.levels[HOST, "host.clock_unsynced"] == "warn"

    back = Outage(
        "clock two years back",
        HOST,
        "host.clock_stepped",
        "at_risk",
        two_years_back,
        right_again,
        state="at_risk",
        level="warn",
    )
    hearing(6 * 3600)
    suffer(room, measured, back, is_placed_right)


def test_a_clock_that_jumps_two_years_back_ends_no_session(
    room: WatchedRoom, hearing: Callable[[float], None]
) -> None:
    hearing(-60)
    room.until(lambda s: s.document["readiness"]["mode"] == "in_session", RAISED_S, "no session")
    since_s = room.up_s()
    two_years_back(room.box)
    try:
        room.until_code(HOST, "host.clock_stepped")
        assert {s.document["readiness"]["mode"] for s in room.said(since_s)} == {"in_session"}
    finally:
        right_again(room.box)
    room.until_code(HOST, "host.clock_stepped", stands=False)
    assert {s.document["readiness"]["mode"] for s in room.said(since_s)} == {"in_session"}


def test_an_agent_that_starts_in_the_past_does_not_know(
    room: WatchedRoom, measured: Measured, hearing: Callable[[float], None]
) -> None:
    """Nobody tells it that its clock is wrong, only that nobody has set it: a named hearing cannot
    be placed."""
    room.until_ready()
    hearing(6 * 3600)
    two_years_back(room.box)
    try:
        room.stop()
        began_s = room.up_s()
        room.start()
        told = room.until(
            lambda s: (
                s.state == "unknown"
                and s.pattern == "unknown"
                and not s.levels.keys()
                - {(HOST, "host.clock_unsynced"), ("", "host.clock_unsynced")}
            ),
            2 * RAISED_S,
            "it knows",
        )
        assert told.document["readiness"]["clock"] == "unsynced"
        assert named(told) == "HS-1"
        room.lamps_show("unknown")
        raised_s = told.at_s - began_s
    finally:
        ended_s = room.up_s()
        right_again(room.box)
    ready = room.until_ready()
    assert "ready" not in {s.state for s in room.said() if s.at_s < ended_s}
    measured.add(
        "outages",
        "start two years back -> host.clock_unsynced (unknown, light unknown)",
        raised_s,
        ready.at_s - ended_s,
    )
    no_hole(room.hearsay)
