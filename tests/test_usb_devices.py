"""USB devices as /sys shows them."""

from __future__ import annotations

from pathlib import Path

import pytest
from usb_stage import CAMERA, KEYS, SOUND, UsbTree

from agent import usb_tree


@pytest.fixture
def tree(tmp_path: Path) -> UsbTree:
    return UsbTree(tmp_path)


def test_a_device_with_its_interfaces_and_their_drivers(tree: UsbTree) -> None:
    tree.plug("1-1.2", "046D:085e", *CAMERA, *SOUND, product="Logitech BRIO", number=7)
    found = usb_tree.at("1-1.2", tree.root)
    assert found is not None
    assert (found.usb_id, found.product, found.authorized) == ("046d:085e", "Logitech BRIO", True)
    assert (found.bus, found.number) == (1, 7)
    assert [i.name for i in found.interfaces] == [f"1-1.2:1.{n}" for n in range(4)]
    assert [i.driver for i in found.interfaces] == ["uvcvideo"] * 2 + ["snd-usb-audio"] * 2
    assert not found.updating
    assert found.carries == frozenset()


def test_a_device_is_found_by_id_and_at_the_port_where_one_is_named(tree: UsbTree) -> None:
    for port in ("1-1.3", "1-1.2"):
        tree.plug(port, "046d:085e", *CAMERA)
    (tree.devices / "usb1").mkdir()
    (tree.devices / "1-0:1.0").mkdir()

    def port(usb_id: str, at: str = "") -> str:
        found = usb_tree.find(usb_id, tree.root, at)
        return found.port if found else ""

    assert [d.port for d in usb_tree.every(tree.root)] == ["1-1.2", "1-1.3"]
    assert port("046d:085e") == "1-1.2"
    assert port("046d:085e", "1-1.3") == "1-1.3"
    assert port("046d:085e", "1-1.4") == ""
    assert port("046d:0825") == port("046d:0825", "1-1.2") == ""


@pytest.mark.parametrize(
    "name",
    ["", "usb1", "1-0:1.0", "../1-1", "1-1/..", "1-1.2.", "1-", "-1", "1-1.2.3.4.5.6.7", "1-1\n"],
)
def test_what_is_no_port_is_refused(tree: UsbTree, name: str) -> None:
    with pytest.raises(ValueError, match="no USB port"):
        usb_tree.at(name, tree.root)


def test_what_hangs_on_a_device_is_seen(tree: UsbTree) -> None:
    disk = tree.plug("1-2", "0781:5581", ("08", "06", "50", "usb-storage"))
    (disk / "1-2:1.0/host6").mkdir()
    adapter = tree.plug("1-3", "0b95:1790", ("ff", "ff", "00", ""))
    (adapter / "1-3:1.0/net/eth0").mkdir(parents=True)
    serial = tree.plug("1-4", "1a86:7523", ("ff", "01", "02", ""))
    (serial / "1-4:1.0/ttyUSB0").mkdir()
    tree.plug("1-5", "046d:c31c", *KEYS)
    carries = {d.port: set(d.carries) for d in usb_tree.every(tree.root)}
    assert carries == {"1-2": {"block"}, "1-3": {"net"}, "1-4": {"tty"}, "1-5": set()}


def test_a_device_whose_firmware_is_being_replaced_is_known_by_its_interface(tree: UsbTree) -> None:
    tree.plug("1-1", "0b0e:0421", ("fe", "01", "02", ""))
    tree.plug("1-2", "0b0e:0422", *SOUND, ("fe", "01", "01", ""))
    assert [d.updating for d in usb_tree.every(tree.root)] == [True, False]


def test_without_usb_there_is_nothing(tmp_path: Path) -> None:
    assert usb_tree.every(tmp_path) == []
    assert usb_tree.at("1-1", tmp_path) is None
    assert usb_tree.find("046d:085e", tmp_path) is None
