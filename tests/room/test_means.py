"""What there is to bring a device back with, as the room finds it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest
from usb_stage import CAMERA, SOUND, UsbTree

from agent import settings
from agent.hands.layout import Layout, Light, Place, Relay
from agent.judge.recipe import Cure, Facts, Step, Switch
from agent.known_models import Known
from agent.lanes.watch import Watched
from agent.room.means import WINDOW_S, Means

HEAD = '[room]\nsite = "t"\nid = "r"\n'
BRIO = '[camera.cam]\nsource = "usb:046d:085e"\n[microphone.mic]\nsource = "usb:046d:085e"\n'


@pytest.fixture
def tree(tmp_path: Path) -> UsbTree:
    return UsbTree(tmp_path)


class Lane:
    clings = False


class Looked:
    """A watched device, as far as this needs one."""

    def __init__(self) -> None:
        self.lane = Lane()


def means(tree: UsbTree, text: str) -> tuple[Means, settings.Room]:
    room = settings.parse(HEAD + text)
    return Means(room, tree.root), room


def facts(
    tree: UsbTree,
    text: str,
    measuring: Any = (),
    layout: Any = Layout(),  # noqa: B008
    *,
    stuck: str = "",
) -> Facts:
    made, room = means(tree, text)
    looked = {d.id: Looked() for d in room.devices}
    if stuck:
        looked[stuck].lane.clings = True
    watched = cast("dict[str, Watched]", looked)
    return asyncio.run(made.facts(watched, layout, measuring))


def test_the_devices_of_the_room_and_where_they_sit(tree: UsbTree) -> None:
    tree.plug("1-1.2", "046d:085e", *CAMERA, *SOUND)
    tree.video_node("1-1.2")
    more = (
        '[camera.net]\nsource = "rtsp://192.0.2.1/x"\n[display.screen]\nconnector = "HDMI-A-1"\n'
        '[camera.toy]\nsource = "usb:046d:085e@1-1.2"\nvirtual = true\nrequired = false\n'
    )
    found = facts(tree, BRIO + more)
    assert {t.id: t.port for t in found.things.values()} == {
        "cam": "1-1.2",
        "mic": "1-1.2",
        "net": "",
        "toy": "",
    }
    assert found.hands
    assert found.hubs == ()
    assert not facts(tree, BRIO, layout=None).hands


def test_relays_that_power_something_and_boards_that_hang_on_the_usb(tree: UsbTree) -> None:
    text = BRIO + '[relay.a]\npin = 5\npowers = "cam"\npulse_s = 3\n[relay.b]\npin = 6\n'
    hid, pin = Place(board="dcttech-usbrelay", spec={"bus": "hid"}, channel=1), Place(pin=5)
    lights = (Light("lamp", lamps={"red": hid}), Light("other", lamps={"red": pin}))
    found = facts(tree, text, layout=Layout((Relay("a", pin), Relay("b", hid)), lights))
    assert found.switches == (Switch("a", ("cam",), 3.0),)
    assert found.on_usb == ("b", "lamp")


def test_a_box_whose_ports_share_one_switch(tree: UsbTree) -> None:
    place = tree.root / "proc/device-tree/compatible"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"raspberrypi,4-model-b\0brcm,bcm2711\0")
    assert facts(tree, BRIO).hubs == ("1-1", "2")


def test_a_program_that_streams_is_seen_and_our_own_look_is_none(tree: UsbTree) -> None:
    tree.plug("1-1.2", "046d:085e", *CAMERA)
    tree.video_node("1-1.2")
    streaming = tree.devices / "1-1.2/1-1.2:1.1"
    (streaming / "bAlternateSetting").write_text("3")
    (streaming / "bNumEndpoints").write_text("01")
    assert facts(tree, BRIO).things["cam"].in_use
    assert not facts(tree, BRIO, measuring={"cam"}).things["cam"].in_use
    # What a stuck worker of our own streams is to be brought back, not spared.
    assert not facts(tree, BRIO, stuck="cam").things["cam"].in_use
    assert facts(tree, BRIO, stuck="mic").things["cam"].in_use


def test_what_is_known_of_a_model(tree: UsbTree, monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = means(
        tree,
        BRIO
        + '[camera.dongle]\nsource = "usb:534d:2109"\nprofile = "macrosilicon-ms2109"\n'
        + '[camera.plain]\nsource = "usb:534d:2110"\n',
    )
    silent = Cure(Step.REAUTHORIZE, frozenset({"microphone.silent"}))
    assert made.cures("cam") == made.cures("mic") == (silent,)
    (replug,) = made.cures("dongle")
    assert replug.step is Step.REPLUG_SOURCE
    assert "camera.no_signal" in replug.codes
    assert made.cures("plain") == ()
    assert made.window_s("plain") == WINDOW_S
    slow = Known("slow", ("camera",), {"reenumeration_s": {"value": 60.0}})
    monkeypatch.setattr("agent.known_models.by_id", lambda id: slow)
    made, _ = means(tree, BRIO)
    assert made.window_s("cam") == 60.0


@pytest.mark.parametrize("port", ["", "@1-1.2"])
def test_a_device_in_its_boot_loader_is_known_by_its_other_id(tree: UsbTree, port: str) -> None:
    text = f'[microphone.mic]\nsource = "usb:0b0e:0422{port}"\nprofile = "jabra-speak-510"\n'
    assert not facts(tree, text).things["mic"].updating
    tree.plug("1-1.2", "0b0e:0421", ("fe", "01", "02", ""))
    assert facts(tree, text).things["mic"].updating
    (tree.devices / "1-1.2").rename(tree.root / "unplugged")
    tree.plug("1-1.2", "0b0e:0422", *SOUND)
    tree.plug("1-1.3", "0b0e:0421", ("fe", "01", "02", ""))  # another one, at another port
    assert not facts(tree, text).things["mic"].updating


def test_the_port_of_a_device_that_went_into_its_boot_loader_is_remembered(tree: UsbTree) -> None:
    made, room = means(tree, '[camera.cam]\nsource = "usb:1234:0001"\n')
    tree.plug("1-1.2", "1234:0001", *CAMERA)
    watched = cast("dict[str, Watched]", {d.id: Looked() for d in room.devices})
    assert made.port("cam") == "1-1.2"
    (tree.devices / "1-1.2").rename(tree.root / "unplugged")
    tree.plug("1-1.2", "1234:0002", ("fe", "01", "02", ""))
    found = asyncio.run(made.facts(watched, Layout(), ()))
    assert found.things["cam"].updating, "by its interface, whatever its profile knows"
