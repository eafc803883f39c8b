"""Which devices may be brought back, for what, and where they sit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from microphone_stage import card
from usb_stage import CAMERA, SOUND, UsbTree

from agent import kinds
from agent.model import Level

RECOVERABLE = ("camera", "microphone", "speaker")


@pytest.mark.parametrize("kind", kinds.names())
def test_what_may_be_cured_is_a_fault_of_that_kind(kind: str) -> None:
    codes = kinds.recoverable(kind)
    assert bool(codes) is (kind in RECOVERABLE)
    assert all(kinds.load(kind).CODES[code] is Level.FAIL for code in codes)


def test_mute_is_lawful_and_never_undone() -> None:
    assert not {"microphone.muted", "microphone.silent"} & kinds.recoverable("microphone")


@pytest.mark.parametrize("kind", kinds.names())
def test_only_these_kinds_have_the_settings(kind: str) -> None:
    fields = kinds.load(kind).Settings.model_fields
    assert ("recover" in fields) is ("recover_after_s" in fields) is (kind in RECOVERABLE)


def port(kind: str, root: Path, **settings: Any) -> str:
    return kinds.usb_port_of(kind, kinds.load(kind).Settings(**settings), root)


def test_a_camera_is_found_by_its_ids_its_port_and_its_node(tmp_path: Path) -> None:
    tree = UsbTree(tmp_path)
    for at, node in (("1-1.3", "video2"), ("1-1.2", "video0")):
        tree.plug(at, "046d:085e", *CAMERA)
        tree.video_node(at, node)
    assert port("camera", tmp_path, source="usb:046d:085e") == "1-1.2"
    assert port("camera", tmp_path, source="usb:046d:085e@1-1.3") == "1-1.3"
    assert port("camera", tmp_path, source="usb:046d:085e@1-1.4") == ""
    assert port("camera", tmp_path, source="v4l2:/dev/video2") == "1-1.3"
    assert port("camera", tmp_path, source="v4l2:/dev/video9") == ""
    assert port("camera", tmp_path, source="rtsp://192.0.2.1/x") == ""
    assert port("camera", tmp_path, source="file:clip.mp4") == ""


@pytest.mark.parametrize("kind", ["microphone", "speaker"])
def test_a_sound_card_knows_its_port(tmp_path: Path, kind: str) -> None:
    card(tmp_path, 1, port="1-1.4")
    assert port(kind, tmp_path, source="usb:0b0e:0422") == "1-1.4"
    assert port(kind, tmp_path, source="hw:1") == "1-1.4"
    assert port(kind, tmp_path, source="hw:2") == ""


@pytest.mark.parametrize("kind", ["microphone", "speaker"])
def test_sound_is_found_also_without_its_driver(tmp_path: Path, kind: str) -> None:
    tree = UsbTree(tmp_path)
    tree.plug("1-1.2", "0b0e:0422", *SOUND)
    assert port(kind, tmp_path, source="usb:0b0e:0422") == "1-1.2"
    assert port(kind, tmp_path, source="usb:0b0e:0422@1-1.2") == "1-1.2"
    assert port(kind, tmp_path, source="usb:0b0e:0422@1-1.3") == ""
    assert port(kind, tmp_path, source="hw:0") == ""


def test_a_display_sits_nowhere(tmp_path: Path) -> None:
    assert port("display", tmp_path, connector="HDMI-A-1") == ""
