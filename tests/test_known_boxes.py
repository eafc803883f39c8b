"""The box profiles, as a running room reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent import known_boxes


@pytest.mark.parametrize(
    ("compatible", "hubs"),
    [
        (b"raspberrypi,4-model-b\0brcm,bcm2711\0", ("1-1", "2")),
        (b"raspberrypi,5-model-b\0brcm,bcm2712\0", ("2", "4")),
        (b"raspberrypi,model-zero-2-w\0", ()),
        (b"raspberrypi,4-compute-module\0", ()),
        (b"acme,box\0", ()),
        (b"", ()),
    ],
)
def test_the_hubs_that_switch_all_ports(
    tmp_path: Path, compatible: bytes, hubs: tuple[str, ...]
) -> None:
    place = tmp_path / "proc/device-tree/compatible"
    place.parent.mkdir(parents=True)
    place.write_bytes(compatible)
    assert known_boxes.usb_hubs(tmp_path) == hubs


def test_a_box_without_a_device_tree_is_not_known(tmp_path: Path) -> None:
    assert known_boxes.usb_hubs(tmp_path) == ()
