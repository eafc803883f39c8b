"""What a room needs goes away and comes back: display, cable, a good line, the broker, room on the
disk, the time. Each is named, shown and told within its time, and over when it is over."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from bench_box.box import Box
from outage_stage import (
    GREEN,
    RED,
    Outage,
    WatchedRoom,
    distinct,
    edges,
    no_hole,
    room_in,
    suffer,
    until,
)
from room_stage import RAISED_S, SLOW, Hearsay, Measured

LINE, SCREEN, HOST = "network", "screen", "host"
NETWORKD = "/run/systemd/network/eth0.network.d"
LOSS_WINDOW_S = 30.0
HOLD_S = 20.0
BROKER_GRACE_S, BACK_OFF_S = 60.0, 60.0
"""A broker may be away so long before it is said, and at most so long is waited for another try."""
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
        "cable pulled",
        LINE,
        "network.no_link",
        "not_ready_4",
        lambda box: box.network.cable(False),
        lambda box: box.network.cable(True),
        reaches=False,
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
    Outage(
        "disk full",
        HOST,
        "host.disk_full",
        "at_risk",
        lambda box: box.disk.fill(),
        lambda box: box.disk.free(),
        state="at_risk",  # the box itself is not required
    ),
)


@pytest.mark.parametrize("outage", OUTAGES, ids=lambda o: o.code)
def test_what_goes_away_is_named_and_over_when_it_is_back(
    room: WatchedRoom, measured: Measured, outage: Outage
) -> None:
    suffer(room, measured, outage)
