"""USB devices behind nodes, out of trees as /sys has them."""

from __future__ import annotations

from pathlib import Path

import relay_boards

from agent import usb_tree
from agent.usb_tree import UsbNode


def test_a_node_leads_to_its_device(tmp_path: Path) -> None:
    relay_boards.plug(tmp_path, "1-1.2", "16C0:05DF", "USBRelay4", "A1")
    assert usb_tree.nodes("hidraw", tmp_path) == [
        UsbNode("hidraw0", "1-1.2", "16c0:05df", "USBRelay4", "A1")
    ]


def test_nodes_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 2, 0):
        relay_boards.plug(tmp_path, f"1-{number}", "16c0:05df", node=f"hidraw{number}")
    assert [n.name for n in usb_tree.nodes("hidraw", tmp_path)] == [
        "hidraw0",
        "hidraw2",
        "hidraw10",
    ]


def test_a_terminal_that_is_not_usb_is_none_of_them(tmp_path: Path) -> None:
    relay_boards.plug(tmp_path, "1-1", "1a86:7523", node="ttyUSB0")
    classes = tmp_path / "sys/class/tty"
    (classes / "tty0").mkdir()
    (classes / "ttyS0").mkdir()
    (classes / "ttyS0/device").symlink_to(tmp_path / "sys/devices")
    assert [n.name for n in usb_tree.nodes("tty", tmp_path)] == ["ttyUSB0"]


def test_without_the_class_there_is_nothing(tmp_path: Path) -> None:
    assert usb_tree.nodes("hidraw", tmp_path) == []


def test_a_device_that_goes_is_gone_and_comes_back(tmp_path: Path) -> None:
    device = relay_boards.plug(tmp_path, "1-1", "16c0:05df", "HIDRelay")
    relay_boards.pull(tmp_path, device)
    assert usb_tree.nodes("hidraw", tmp_path) == []
    relay_boards.plug(tmp_path, "1-1", "16c0:05df", "HIDRelay", node="hidraw3")
    assert [n.name for n in usb_tree.nodes("hidraw", tmp_path)] == ["hidraw3"]
