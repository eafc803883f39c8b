from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import kinds, settings
from agent.model import ConfigError

SHORT = '[room]\nsite = "hcm"\nid = "room-01"\n'


def mistakes(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        settings.parse(text)
    return str(caught.value)


def test_the_shortest_room_watches_host_and_network() -> None:
    room = settings.parse(SHORT)
    assert {d.id: d.required for d in room.devices} == {"host": False, "network": False}
    assert (room.site, room.id, room.name, room.language) == ("hcm", "room-01", "room-01", "vi")
    assert room.broker is None
    assert room.requirements.name == "generic@1"


def test_the_example_of_the_documentation_is_read() -> None:
    text = (
        SHORT
        + """
name = "Phòng trợ giúp pháp lý số 1"
[broker]
host = ["a.example.vn", "b.example.vn"]
ca_file = "/etc/hearing-room/ca.pem"
[camera.cam-front]
name = "Camera chính"
source = "usb:046d:0843"
required = true
[microphone.mic-counsel]
source = "usb:0b0e:0422"
seat = "counsel"
[display.screen-main]
connector = "HDMI-A-1"
[network.court]
endpoints = ["tls://vc.toaan.gov.vn:443", "tcp://10.9.8.7:5061"]
[relay.cam-power]
pin = 26
powers = "cam-front"
"""
    )
    room = settings.parse(text)
    assert {d.id: d.kind for d in room.devices} == {
        "cam-front": "camera",
        "mic-counsel": "microphone",
        "screen-main": "display",
        "court": "network",
        "network": "network",
        "host": "host",
        "cam-power": "relay",
    }
    by_id = {d.id: d for d in room.devices}
    assert by_id["cam-front"].name == "Camera chính"
    assert by_id["mic-counsel"].seat == "counsel"
    assert by_id["mic-counsel"].required
    assert not by_id["court"].required


def test_all_mistakes_come_in_one_message_with_place_and_fix() -> None:
    text = mistakes(
        """
[room]
site = "HCM"
id = "room-01"
langage = "vi"
[broker]
host = "mqtt.example.vn"
tls = "false"
[camera.front]
source = "file:x.avi"
period_s = 0
required = "yes"
colour = 3
[camera.Front]
source = "file:x.avi"
[relay.a]
pin = 26
powers = "frnt"
[relay.b]
pin = 26
[relay.front]
pin = 5
[lamp.x]
pin = 3
"""
    )
    lines = text.splitlines()
    assert "mistakes" in lines[0]
    expected = [
        "room.site: bad id 'HCM'; 1 to 64 of a-z, 0-9 and -",
        "room.langage: unknown key; did you mean language?",
        "broker.tls: must be true or false, without quotes, not 'false'",
        "camera.front.period_s: 0 is out of range; allowed is from 1 to 86400",
        "camera.front.required: must be true or false, without quotes, not 'yes'",
        "camera.front.colour: unknown key",
        "camera.Front: bad id 'Front'",
        "relay.b.pin: GPIO 26 is taken by relay.a",
        "relay.a.powers: no device 'frnt'; did you mean front?",
        "lamp: unknown table",
    ]
    for part in expected:
        assert any(part in line for line in lines), f"{part!r} not in\n{text}"


def test_an_id_is_unique_over_all_kinds() -> None:
    text = SHORT + '[camera.x]\nsource = "file:a.avi"\n[relay.x]\npin = 3\n'
    assert "the id is taken by camera.x" in mistakes(text)


def test_no_mistake_hides_another() -> None:
    text = mistakes(
        """
[room]
site = "HCM"
id = "room-01"
requirements = "mars"
[camera.front]
source = 3
[microphone.front]
source = "hw:1"
[network.front]
endpoints = ["udp://a:1", "tcp://b:0"]
[relay.a]
pin = 26
powers = "front"
[relay.host]
pin = 27
"""
    )
    for part in (
        "room.site: bad id 'HCM'",
        "room.requirements: ",
        "there are generic",
        "camera.front.source: must be text",
        "microphone.front: the id is taken by camera.front",
        "network.front: the id is taken by camera.front",
        "'udp://a:1' is no endpoint",
        "'tcp://b:0': port 0 is out of range",
        "relay.host: the id is taken by host; ids are unique",
    ):
        assert part in text, f"{part!r} not in\n{text}"
    assert "no device 'front'" not in text, "it is there, whatever is wrong with it"


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    text = mistakes(SHORT + '[camera.x]\nsource = "rtsp://guard:s3cret@10.0.0.5/live"\n')
    assert "camera.x.source: no user and password in the address" in text
    assert "credentials_file" in text
    assert "s3cret" not in text


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[room", "not TOML"),
        ("", "room.site: missing"),
        (SHORT + "camera = 3\n", "room.camera: unknown key"),
        ("camera = 3\n" + SHORT, "camera: must be a table"),
        (SHORT + "[camera]\nsource = 'file:x'\n", "must be a table, [camera.NAME]"),
        (SHORT + 'requirements = "mars"\n', "there are generic"),
        (SHORT + "[relay.a]\n", "give either pin (0 to 27), or board and channel"),
        (SHORT + "[relay.a]\npin = 40\n", "40 is out of range; allowed is from 0 to 27"),
        (SHORT + "[relay.a]\npin = '3'\n", "must be a whole number from 0 to 27"),
        (SHORT + "[host]\ncolour = 1\n", "host.colour: unknown key"),
        (SHORT + "[camera.x]\n", "camera.x.source: missing"),
        (SHORT + "language = 'fr'\n", "room.language: must be 'vi' or 'en', not 'fr'"),
    ],
)
def test_a_mistake_is_named(text: str, part: str) -> None:
    assert part in mistakes(text)


def test_relative_files_lie_beside_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "room.toml"
    file.write_text(SHORT + '[camera.x]\nsource = "file:clips/a.avi"\n')
    (device,) = [d for d in settings.load(file).devices if d.kind == "camera"]
    assert device.settings.source == f"file:{tmp_path}/clips/a.avi"


def test_a_file_that_cannot_be_read_is_named_with_its_fix(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="hearing-room adopt"):
        settings.load(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b'[room]\nname = "\xe9"')
    with pytest.raises(ConfigError, match="not UTF-8 at byte 15"):
        settings.load(tmp_path / "latin.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        settings.load(tmp_path)


def test_the_schema_names_every_kind_and_key() -> None:
    schema = settings.schema()
    json.dumps(schema)
    assert set(schema["properties"]) == {"room", "broker", *kinds.names()}
    camera = schema["properties"]["camera"]["additionalProperties"]
    assert camera["additionalProperties"] is False
    assert "period_s" in camera["properties"]
    assert "period_s" in schema["properties"]["host"]["properties"]


@given(st.text(max_size=80))
def test_any_text_gives_a_room_or_a_clear_error(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert settings.parse(SHORT + "\n" + text).site == "hcm"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
        ),
        max_leaves=8,
    )
)
def test_any_value_of_a_table_gives_a_room_or_a_clear_error(value: object) -> None:
    reader = settings._Reader(Path("/"))
    reader.read({"room": {"site": "a", "id": "b"}, "relay": {"x": value}, "host": value}, None)
    assert all(isinstance(m, str) and m for m in reader.mistakes)
