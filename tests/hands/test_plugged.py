"""Relay boards that are found by themselves, and what `adopt` makes of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import relay_boards

from agent import profiles, settings
from agent.cli import adopt, trial
from agent.hands import plan
from agent.kinds import relay
from agent.kinds.relay import Plugged


def test_boards_are_known_by_their_product_string(tmp_path: Path) -> None:
    relay_boards.plug(tmp_path, "1-1.1", "16c0:05df", "USBRelay4", node="hidraw0")
    relay_boards.plug(tmp_path, "1-1.2", "0519:2018", "HIDRelay", "A0001", node="hidraw1")
    relay_boards.plug(tmp_path, "1-1.3", "16c0:05df", "LED strip", node="hidraw2")
    relay_boards.plug(tmp_path, "1-1.4", "16c0:05df", "", node="hidraw3")
    relay_boards.plug(tmp_path, "1-1.5", "1a86:7523", "USB2.0-Serial", node="ttyUSB0")
    assert relay.plugged(tmp_path) == [
        Plugged("dcttech-usbrelay", "USBRelay4", "1-1.1", 4),
        Plugged("hidrelay", "HIDRelay", "1-1.2", None),
    ]


def test_what_is_found_is_what_the_profiles_say() -> None:
    """The short way through the files and the long one through the schema agree."""
    for node in (
        relay.usb_tree.UsbNode("hidraw0", "1-1", usb, product)
        for usb in ("16c0:05df", "0519:2018", "1a86:7523", "1234:5678")
        for product in ("", "USBRelay1", "USBRelay8", "USBRelay9", "HIDRelay", "HIDRelay2")
    ):
        found = [
            name for name, facts in relay._profiles() if relay._is(facts.get("match", {}), node)
        ]
        sure = profiles.match_relay_board(node.usb_id, node.product)
        assert found == ([sure.id] if sure else [])


def test_a_profile_that_is_ambiguous_is_never_proposed() -> None:
    node = relay.usb_tree.UsbNode("hidraw0", "1-1", "16c0:05df", "Relay")
    facts = {"usb": ["16c0:05df"], "product": "Relay"}
    assert relay._is(facts, node)
    assert not relay._is({**facts, "ambiguous": True}, node)


def test_adopt_proposes_every_relay_and_opens_nothing(tmp_path: Path) -> None:
    relay_boards.plug(tmp_path, "1-1.1", "16c0:05df", "USBRelay2", node="hidraw0")
    (tmp_path / "dev/hidraw0").unlink()  # whoever opens it fails
    tables = adopt.discover(tmp_path)
    assert tables == {
        "relay": {
            "relay-1": {"name": "USBRelay2 #1", "board": "dcttech-usbrelay", "channel": 1},
            "relay-2": {"name": "USBRelay2 #2", "board": "dcttech-usbrelay", "channel": 2},
        }
    }
    room = settings.parse(adopt.text("hcm", "room-01", tables))
    assert [str(r.place) for r in plan.of(room).relays] == [
        "dcttech-usbrelay channel 1",
        "dcttech-usbrelay channel 2",
    ]


def test_two_boards_alike_are_told_apart_by_their_ports(tmp_path: Path) -> None:
    relay_boards.plug(tmp_path, "1-1.1", "16c0:05df", "USBRelay1", node="hidraw0")
    relay_boards.plug(tmp_path, "1-1.2", "16c0:05df", "USBRelay2", node="hidraw1")
    relay_boards.plug(tmp_path, "1-1.3", "0519:2018", "HIDRelay", node="hidraw2")
    tables = relay.discover(tmp_path)
    assert [(t["board"], t.get("at"), t["channel"]) for t in tables] == [
        ("dcttech-usbrelay", "1-1.1", 1),
        ("dcttech-usbrelay", "1-1.2", 1),
        ("dcttech-usbrelay", "1-1.2", 2),
        ("hidrelay", None, 1),
    ]
    room = settings.parse(
        adopt.text("hcm", "room-01", {"relay": dict(zip("abcd", tables, strict=True))})
    )
    assert len(plan.of(room).relays) == 4


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    assert relay.plugged(tmp_path) == relay.discover(tmp_path) == []


def test_try_never_takes_hold_of_a_relay(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would switch off what is on: a relay without a past begins as `power_on` says."""
    found = {"relay": {"relay-1": {"board": "hidrelay", "channel": 1}}, "display": {"s": {}}}
    seen: list[adopt.Tables] = []

    async def serve(folder: Path, tables: adopt.Tables, *_: object) -> int:
        seen.append(tables)
        return 0

    monkeypatch.setattr(adopt, "discover", lambda: dict(found))
    monkeypatch.setattr(trial, "_add_virtual", lambda *_: None)
    monkeypatch.setattr(trial, "_serve", serve)
    assert trial.run(seconds=0, language="en", only_virtual=False) == 0
    assert seen == [{"display": {"s": {}}}]
