"""The link as a recorded tree tells it, through the same code that reads the live one."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kinds import network
from agent.kinds.network.link import Route, default_routes, wireless_dbm
from agent.model import Level, Reading, Scalar

ROUTE4 = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
NONE6 = "0" * 32
WIRELESS = """\
Inter-| sta-|   Quality        |   Discarded packets               | Missed | WE
 face | tus | link level noise |  nwid  crypt   frag  retry   misc | beacon | 22
 wlan0: 0000   38.  {level}  -256        0      0      0      0      0        0
"""


class Tree:
    """A /sys and a /proc as the kernel would show them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "sys/class/net").mkdir(parents=True)
        (root / "proc/net").mkdir(parents=True)

    def interface(self, name: str = "eth0", **changed: Any) -> Path:
        folder = self.root / "sys/class/net" / name
        (folder / "statistics").mkdir(parents=True, exist_ok=True)
        (folder / "device").mkdir(exist_ok=True)
        files = {
            "type": 1,
            "ifindex": 2,
            "flags": "0x1003",
            "carrier": 1,
            "operstate": "up",
            "speed": 1000,
            "duplex": "full",
            "carrier_changes": 2,
            **{f"statistics/{key}": 0 for key in ("rx_errors", "tx_errors", "rx_crc_errors")},
            **{f"statistics/{key}": 0 for key in ("rx_dropped", "tx_dropped")},
        }
        self.set(name, **files | changed)
        return folder

    def set(self, name: str, **files: Any) -> None:
        for file, value in files.items():
            (self.root / "sys/class/net" / name / file).write_text(f"{value}\n")

    def routes(self, *interfaces: str) -> None:
        gateway = f"{int.from_bytes(socket.inet_aton('192.0.2.1'), 'little'):08X}"
        lines = [
            f"{name}\t00000000\t{gateway}\t0003\t0\t0\t{100 * (n + 1)}\t00000000\t0\t0\t0\n"
            for n, name in enumerate(interfaces)
        ]
        (self.root / "proc/net/route").write_text(ROUTE4 + "".join(lines))


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def line(tree: Tree, interface: str = "auto", **table: Any) -> network.Passive:
    return network.Passive(network.Settings(interface=interface, **table), tree.root)


def read(passive: network.Passive) -> Reading:
    async def bounded() -> Reading:
        async with asyncio.timeout(10):
            return await passive.read()

    return asyncio.run(bounded())


def values(passive: network.Passive) -> dict[str, Scalar]:
    return dict(read(passive).values)


def codes(passive: network.Passive) -> dict[str, Level]:
    limits = network.Settings(interface="auto")
    found = network.judge(read(passive), limits)
    return {f.code.removeprefix("network."): f.level for f in found}


def test_a_good_link_is_read_whole(tree: Tree) -> None:
    tree.interface()
    tree.routes("eth0")
    reading = read(line(tree))
    assert reading.values == {
        "interface_present": True,
        "link_up": True,
        "carrier": True,
        "wifi": False,
        "operstate": "up",
        "speed_mbps": 1000,
        "duplex": "full",
    }
    assert reading.fault is None
    assert not reading.active
    assert reading.asked_s > 0


def test_a_pulled_cable_is_no_link_and_a_plugged_one_is_well_again(tree: Tree) -> None:
    tree.interface()
    tree.routes("eth0")
    passive = line(tree)
    assert codes(passive) == {}
    tree.set("eth0", carrier=0, operstate="down", carrier_changes=3, speed=-1, duplex="unknown")
    assert codes(passive) == {"no_link": Level.FAIL}
    tree.set("eth0", carrier=1, operstate="up", carrier_changes=4, speed=100, duplex="full")
    assert codes(passive) == {}
    assert values(passive)["speed_mbps"] == 100


def test_an_interface_that_is_switched_off_is_no_link(tree: Tree) -> None:
    folder = tree.interface(flags="0x1002", operstate="down")
    (folder / "carrier").unlink()  # the kernel answers EINVAL
    found = values(line(tree, "eth0"))
    assert found["link_up"] is False
    assert found["carrier"] is False


@pytest.mark.parametrize(
    ("state", "carrier", "up"),
    [
        ("up", 1, True),
        ("unknown", 1, True),  # a driver that does not tell
        ("unknown", 0, False),
        ("dormant", 1, False),  # associated, but not let in
        ("lowerlayerdown", 1, False),
    ],
)
def test_state_and_carrier_decide(tree: Tree, state: str, carrier: int, up: bool) -> None:
    tree.interface(operstate=state, carrier=carrier)
    assert values(line(tree, "eth0"))["link_up"] is up


def test_a_missing_adapter_is_no_link_until_it_is_plugged_in(tree: Tree) -> None:
    passive = line(tree, "eth1")
    assert values(passive) == {"interface_present": False, "link_up": False}
    assert codes(passive) == {"no_link": Level.FAIL}
    tree.interface("eth1")
    assert codes(passive) == {}


def test_a_box_that_shows_no_interfaces_is_unknown_not_ok(tmp_path: Path) -> None:
    passive = network.Passive(network.Settings(interface="auto"), tmp_path)
    assert values(passive) == {}
    assert codes(passive) == {"no_link": Level.UNKNOWN}


def test_slow_and_half_duplex_come_from_the_negotiation(tree: Tree) -> None:
    tree.interface(speed=10, duplex="half")
    passive = line(tree)
    assert codes(passive) == {"slow_link": Level.WARN, "half_duplex": Level.WARN}
    tree.set("eth0", speed=1000, duplex="full", carrier_changes=4)
    assert codes(passive) == {}


def test_speed_is_asked_once_per_carrier(tree: Tree) -> None:
    """It goes to the driver; while the carrier stands it cannot change."""
    tree.interface(speed=1000)
    passive = line(tree)
    assert values(passive)["speed_mbps"] == 1000
    tree.set("eth0", speed=10)
    assert values(passive)["speed_mbps"] == 1000
    tree.set("eth0", carrier_changes=4)
    assert values(passive)["speed_mbps"] == 10


def test_a_driver_that_hangs_on_its_speed_costs_a_second_once(tree: Tree) -> None:
    folder = tree.interface()
    (folder / "speed").unlink()
    os.mkfifo(folder / "speed")  # opening it blocks until somebody writes
    passive = line(tree)
    found = values(passive)
    assert "speed_mbps" not in found
    assert found["link_up"] is True
    again = read(passive)  # the first call is still out: no second one is begun
    assert again.took_s < 0.5
    (folder / "speed").write_text("100\n")  # lets go of it


def test_a_speed_that_the_driver_does_not_know_is_absent(tree: Tree) -> None:
    tree.interface(speed=-1, duplex="unknown")
    assert not {"speed_mbps", "duplex"} & values(line(tree)).keys()


def test_errors_are_counted_between_two_readings(tree: Tree) -> None:
    tree.interface(**{"statistics/rx_errors": 40, "statistics/rx_crc_errors": 7})
    passive = line(tree)
    assert "rx_errors" not in values(passive)
    tree.set("eth0", **{"statistics/rx_errors": 45, "statistics/rx_crc_errors": 7})
    found = values(passive)
    assert (found["rx_errors"], found["rx_crc_errors"], found["carrier_changes"]) == (5, 0, 0)


def test_counters_that_were_started_anew_are_absent_for_one_reading(tree: Tree) -> None:
    tree.interface(**{"statistics/rx_errors": 40})
    passive = line(tree)
    read(passive)
    tree.set("eth0", **{"statistics/rx_errors": 2})
    assert "rx_errors" not in values(passive)
    tree.set("eth0", **{"statistics/rx_errors": 3})
    assert values(passive)["rx_errors"] == 1
    tree.set("eth0", ifindex=9, **{"statistics/rx_errors": 50})
    assert "rx_errors" not in values(passive)


def test_auto_follows_the_default_route(tree: Tree) -> None:
    tree.interface("eth0", ifindex=2, speed=100)
    tree.interface("wwan0", ifindex=3, speed=10)
    tree.routes("wwan0", "eth0")
    passive = line(tree)
    assert values(passive)["speed_mbps"] == 10
    tree.routes("eth0", "wwan0")
    assert values(passive)["speed_mbps"] == 100


def test_auto_stays_with_the_interface_whose_route_went_with_its_cable(tree: Tree) -> None:
    tree.interface("eth0", ifindex=2)
    tree.interface("eth1", ifindex=3)
    tree.routes("eth1")
    passive = line(tree)
    read(passive)
    tree.set("eth1", carrier=0, operstate="down")
    tree.routes()
    assert codes(passive) == {"no_link": Level.FAIL}


def test_auto_without_any_route_takes_the_likeliest(tree: Tree) -> None:
    tree.interface("lo", type=772)
    (tree.interface("br0", speed=3) / "bridge").mkdir()
    (tree.interface("aveth0", speed=4) / "device").rmdir()
    (tree.interface("bwlan0", speed=5) / "phy80211").mkdir()
    tree.interface("cdown0", carrier=0)
    tree.interface("eth0", speed=6)
    assert values(line(tree))["speed_mbps"] == 6


def test_wifi_tells_its_signal(tree: Tree) -> None:
    folder = tree.interface("wlan0", speed=-1)
    (folder / "phy80211").mkdir()
    wireless = tree.root / "proc/net/wireless"
    wireless.write_text(WIRELESS.format(level="-78."))
    passive = line(tree)
    found = values(passive)
    assert found["wifi"] is True
    assert found["wifi_dbm"] == -78.0
    assert codes(passive) == {"wifi_weak": Level.WARN}
    wireless.write_text(WIRELESS.format(level="-55."))
    assert codes(passive) == {}
    wireless.unlink()  # a kernel without the old interface: not measured, not judged
    assert "wifi_dbm" not in values(passive)


@pytest.mark.parametrize(("level", "dbm"), [("-78.", -78.0), ("72.", None), ("0.", None)])
def test_a_level_on_the_drivers_own_scale_is_no_dbm(level: str, dbm: float | None) -> None:
    assert wireless_dbm(WIRELESS.format(level=level), "wlan0") == dbm
    assert wireless_dbm(WIRELESS.format(level=level), "wlan1") is None


def test_default_routes_of_both_families_in_the_order_of_use(tree: Tree) -> None:
    tree.routes("eth0", "eth1")
    six = (
        f"{NONE6} 00 {NONE6} 00 fe800000000000000000000000000001 00000032 1 0 00000003 wlan0\n"
        f"{NONE6} 00 {NONE6} 00 {NONE6} ffffffff 1 0 00200200 lo\n"
        f"20010db8{'0' * 24} 20 {NONE6} 00 {NONE6} 00000100 1 0 00000001 eth0\n"
    )
    (tree.root / "proc/net/ipv6_route").write_text(six)
    assert default_routes(tree.root) == [
        Route("wlan0", socket.AF_INET6, "fe80::1", 50),
        Route("eth0", socket.AF_INET, "192.0.2.1", 100),
        Route("eth1", socket.AF_INET, "192.0.2.1", 200),
    ]


def test_a_modem_has_a_default_route_without_a_gateway(tree: Tree) -> None:
    (tree.root / "proc/net/route").write_text(
        ROUTE4 + "ppp0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0\n"
    )
    assert default_routes(tree.root) == [Route("ppp0", socket.AF_INET, None, 0)]


@given(st.text(max_size=200), st.text(max_size=200))
def test_any_route_table_can_be_read(tmp_path_factory: Any, four: str, six: str) -> None:
    root = tmp_path_factory.getbasetemp() / "routes"
    (root / "proc/net").mkdir(parents=True, exist_ok=True)
    (root / "proc/net/route").write_text(ROUTE4 + four, encoding="utf-8", errors="replace")
    (root / "proc/net/ipv6_route").write_text(six, encoding="utf-8", errors="replace")
    assert isinstance(default_routes(root), list)


HEX = st.text("0123456789abcdefABCDEFxyz-", min_size=1, max_size=33)


@given(st.lists(HEX, min_size=8, max_size=11), st.lists(HEX, min_size=10, max_size=10))
def test_fields_of_nonsense_are_no_route(
    tmp_path_factory: Any, four: list[str], six: list[str]
) -> None:
    root = tmp_path_factory.getbasetemp() / "fields"
    (root / "proc/net").mkdir(parents=True, exist_ok=True)
    (root / "proc/net/route").write_text(ROUTE4 + "\t".join(four))
    (root / "proc/net/ipv6_route").write_text(" ".join(six))
    for route in default_routes(root):
        assert route.gateway is None or socket.inet_pton(route.family, route.gateway)


@given(st.text(max_size=300), st.text(max_size=5))
def test_any_wireless_table_can_be_read(text: str, name: str) -> None:
    level = wireless_dbm(text, name)
    assert level is None or -120 <= level < 0
