"""The payloads of design section 5, to the letter, and what may not get in or out."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from agent.link import contract
from agent.link.contract import Broker, Topics, encode, parse_schedule
from agent.model import Clock, Hearing, Moment, iso

NOW = Moment(up_s=4_000.5, utc_s=1_795_394_407.1239, clock=Clock.HOLDOVER, boot="5f0c12ab")
AT = "2026-11-23T00:29:40.000Z"

EXAMPLES: dict[str, str] = {
    "status": '{"state":"online","session":"5f0c","next_s":60}',
    "about": '{"name":"Phòng trợ giúp","version":"0.1.0","box":"Raspberry Pi 4 Model B",'
    '"python":"3.13.5","schema":1,"capabilities":["check","locate","report"],'
    '"requirements":"generic@1","inventory":[{"id":"cam-front","kind":"camera",'
    '"name":"Camera chính","required":true,"found":true,"identity":"HD Pro Webcam C920"}]}',
    "readiness": '{"state":"not_ready","mode":"preparing","hearing":{"id":"HS-2026-118",'
    '"starts":"2026-11-23T01:00:00Z","ends":"2026-11-23T04:00:00Z"},'
    '"reasons":[{"code":"camera.frozen","device":"cam-front","level":"fail",'
    '"since":"2026-11-23T00:29:40Z","title":"Camera chính bị đứng hình","fix":"technician",'
    '"numbers":{"unchanged_s":87}}],"devices":{"ok":6,"info":0,"warn":0,"fail":1,"unknown":0},'
    '"virtual":0,"requirements":"generic@1","valid_until":"2026-11-23T00:51:07Z"}',
    "device": '{"id":"cam-front","kind":"camera","name":"Camera chính","level":"fail",'
    '"findings":[{"code":"camera.frozen","level":"fail","since":"2026-11-23T00:29:40Z",'
    '"numbers":{"unchanged_s":87}}],"readings":{"fps":15.0,"luma_mean":96},'
    '"asked":"2026-11-23T00:29:40Z","valid_until":"2026-11-23T00:29:40Z"}',
    "event": '{"n":1041,"prev":"b1946ac9","type":"incident.opened","device":"cam-front",'
    '"code":"camera.frozen","level":"fail","since":"2026-11-23T00:29:40Z",'
    '"numbers":{"unchanged_s":87}}',
    "telemetry": '{"cam-front":{"fps":15.0},"network":{"rtt_ms":4.1,"loss_pct":0},'
    '"host":{"temp_c":51}}',
    "result": '{"id":"7d1e","state":"done","code":"ok",'
    '"effect":{"relay":"cam-power","on":false},"took_ms":41}',
}
SCHEDULE = (
    b'{"v":1,"hearings":[{"id":"HS-2026-118","starts":"2026-11-23T01:00:00Z",'
    b'"ends":"2026-11-23T04:00:00Z"}]}'
)
COMMAND = (
    b'{"v":1,"id":"7d1e","command":"relay.set","args":{"relay":"cam-power","on":false},'
    b'"ttl_s":30,"by":"operator@central","reason":"camera hung"}'
)


def parsed(topic: str, fields: dict[str, Any]) -> BaseModel:
    model: BaseModel = TypeAdapter(contract.PAYLOADS[topic]).validate_python(fields)
    return model


@pytest.mark.parametrize("topic", EXAMPLES)
def test_the_examples_of_the_design_are_valid_and_come_back_unchanged(topic: str) -> None:
    fields = {**contract.common(NOW), **json.loads(EXAMPLES[topic])}
    assert json.loads(encode(parsed(topic, fields))) == fields
    assert json.loads(encode(fields)) == fields


@pytest.mark.parametrize("topic", EXAMPLES)
def test_an_unknown_field_is_refused_where_the_document_is_closed(topic: str) -> None:
    fields = {**contract.common(NOW), **json.loads(EXAMPLES[topic])}
    extra = {"picture": ["nested"]}
    with pytest.raises(ValidationError):
        parsed(topic, {**fields, **extra})
    parsed(topic, fields)


def test_a_room_without_a_schedule_says_null_and_not_nothing() -> None:
    fields = {**contract.common(NOW), **json.loads(EXAMPLES["readiness"]), "hearing": None}
    assert json.loads(encode(parsed("readiness", fields)))["hearing"] is None


def test_the_common_fields_name_one_instant_on_both_clocks() -> None:
    assert contract.common(NOW) == {
        "v": 1,
        "at": "2026-11-23T00:40:07.123Z",
        "ts": 1_795_394_407.123,
        "clock": "holdover",
        "boot": "5f0c12ab",
        "up_ms": 4_000_500,
    }


def test_a_box_that_boots_in_1970_can_still_say_online() -> None:
    asleep = Moment(1.0, 3.0, Clock.UNSYNCED, "5f0c12ab")
    encode(contract.Status(**contract.common(asleep), state="online", session="s", next_s=60))


def test_the_will_carries_only_what_was_known_beforehand() -> None:
    assert encode(contract.Will(session="5f0c")) == b'{"v":1,"state":"lost","session":"5f0c"}'


def test_a_payload_is_one_compact_line_of_utf8() -> None:
    data = encode({"name": "Phòng trợ giúp pháp lý", "a": 1})
    assert data == '{"name":"Phòng trợ giúp pháp lý","a":1}'.encode()
    assert b"\n" not in encode({"text": "two\nlines"})


@pytest.mark.parametrize(
    "bad",
    [
        {"frame": b"\xff\xd8"},
        {"frame": bytearray(b"x")},
        {"samples": [1, 2, 3]},
        {"samples": [0.1, 0.2]},
        {"a": {"b": [[1]]}},
        {"a": float("nan")},
        {"a": float("inf")},
        {"a": "word " * 52},
        {"a": "iVBORw0KGgoAAAANSUhEUgAAAAUA" * 3},
        {"a": 1j},
        {1: "a"},
        {"": "a"},
        {"k" * 65: "a"},
        {str(n): "x" * 64 for n in range(300)},
    ],
    ids=lambda bad: str(bad)[:30],
)
def test_what_could_carry_a_picture_or_a_sound_does_not_go_out(bad: dict[Any, Any]) -> None:
    with pytest.raises(ValueError, match=r"payload|allowed"):
        encode(bad)
    encode({"hash": "a" * 64, "on": True, "none": None, "words": ["check", "report"]})


def test_documents_that_grow_with_the_room_may_be_longer() -> None:
    entries = [{"id": f"d{n}", "name": "x" * 60} for n in range(250)]
    assert 16_384 < len(encode({"inventory": entries})) < 65_536
    assert encode({"reasons": entries})
    with pytest.raises(ValueError, match="allowed is 16384"):
        encode({"other": entries})


def test_there_is_a_schema_for_every_topic() -> None:
    schemas = contract.json_schemas()
    assert set(schemas) == {
        *("status", "about", "readiness", "device", "event"),
        *("telemetry", "schedule", "command", "result"),
    }
    assert "schema" in schemas["about"]["properties"]
    assert "hearing" in schemas["readiness"]["required"]
    json.dumps(schemas)


# -- topics ---------------------------------------------------------------------------------------


def test_topics_are_made_and_recognised() -> None:
    topics = Topics("hcm", "hcm-tgpl-01")
    assert topics.of("status") == "hearing/v1/hcm/hcm-tgpl-01/status"
    assert topics.device("cam") == "hearing/v1/hcm/hcm-tgpl-01/device/cam"
    assert topics.of("_all/command") == "hearing/v1/hcm/_all/command"
    for suffix in ("status", "device/cam", "_all/command"):
        assert topics.suffix(topics.of(suffix)) == suffix
    for foreign in ("hearing/v1/hcm/other/command", "hearing/v1/hcm/", "x", ""):
        assert topics.suffix(foreign) is None


@pytest.mark.parametrize("segment", ["", "Hcm", "a/b", "+", "#", "a b", "x" * 65, "é", "a\n"])
def test_a_segment_that_is_no_topic_level_is_refused(segment: str) -> None:
    with pytest.raises(ValueError, match="segment"):
        Topics("hcm", segment)
    with pytest.raises(ValueError, match="segment"):
        Topics(segment, "room")


# -- the schedule ---------------------------------------------------------------------------------


def test_a_schedule_is_read_with_offsets_and_put_in_order() -> None:
    payload = {
        "v": 1,
        "issued_by": "a newer central",
        "hearings": [
            {"id": "b", "starts": "2026-11-24T08:00:00+07:00", "ends": "2026-11-24T11:00:00+07:00"},
            {
                "id": "a",
                "starts": "2026-11-23T01:00:00Z",
                "ends": "2026-11-23T04:00:00.5Z",
                "x": [1],
            },
        ],
    }
    first, second = parse_schedule(json.dumps(payload).encode())
    assert first == Hearing("a", 1_795_395_600.0, 1_795_406_400.5)
    assert iso(second.starts_s) == "2026-11-24T01:00:00.000Z"


def hearing(**changed: Any) -> dict[str, Any]:
    return {
        "id": "a",
        "starts": "2026-11-23T01:00:00Z",
        "ends": "2026-11-23T04:00:00Z",
        **changed,
    }


@pytest.mark.parametrize(
    ("changed", "place"),
    [
        ({"starts": 1_795_395_600}, "hearings.0.starts"),
        ({"starts": "2026-11-23T01:00:00"}, "hearings.0.starts"),
        ({"starts": "2026-13-23T01:00:00Z"}, "hearings.0.starts"),
        ({"starts": "tomorrow"}, "hearings.0.starts"),
        ({"starts": "２026-11-23T01:00:00Z"}, "hearings.0.starts"),
        ({"ends": "2026-11-23T01:00:00Z"}, "hearings.0: ends must be after starts"),
        ({"ends": "2126-11-23T01:00:00Z"}, "by at most 7 days"),
        ({"starts": "0001-01-01T00:00:00+14:00", "ends": "0001-01-01T01:00:00+14:00"}, "2000"),
        ({"id": ""}, "hearings.0.id"),
        ({"id": "x" * 65}, "hearings.0.id"),
        ({"id": "a\u0000b"}, "hearings.0.id"),
        ({"id": 7}, "hearings.0.id"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_wrong_hearing_is_refused_with_its_place(changed: dict[str, Any], place: str) -> None:
    payload = {"v": 1, "hearings": [hearing(**changed)]}
    with pytest.raises(ValueError, match=r".") as caught:
        parse_schedule(json.dumps(payload).encode())
    assert place in str(caught.value)
    assert "\n" not in str(caught.value)
    assert parse_schedule(json.dumps({"v": 1, "hearings": [hearing()]}).encode())


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff\xfe",
        b'{"hearings":[]}',
        b'{"v":2,"hearings":[]}',
        b'{"v":true,"hearings":[]}',
        b'{"v":1.0,"hearings":[]}',
        b'{"v":"1","hearings":[]}',
        b'{"v":1,"hearings":{}}',
        b'{"v":1}',
        b'{"v":1,"hearings":[' + b"[" * 50_000,
        b'{"v":1,"hearings":[],"x":"' + b"y" * 70_000 + b'"}',
    ],
    ids=lambda payload: payload[:24].decode(errors="replace"),
)
def test_what_is_no_schedule_is_refused(payload: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_schedule(payload)
    assert len(parse_schedule(SCHEDULE)) == 1


def test_a_schedule_has_at_most_200_hearings() -> None:
    assert len(parse_schedule(json.dumps({"v": 1, "hearings": [hearing()] * 200}).encode())) == 200
    with pytest.raises(ValueError, match="hearings"):
        parse_schedule(json.dumps({"v": 1, "hearings": [hearing()] * 201}).encode())


@given(st.binary(max_size=400))
@example(SCHEDULE[:-1])
@example(b'{"v":1,"hearings":[{"id":"\\ud800","starts":"","ends":""}]}')
def test_any_bytes_are_a_schedule_or_a_value_error(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(parse_schedule(data), tuple)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(
    st.lists(
        st.fixed_dictionaries(
            {}, optional={"id": JSON, "starts": JSON | st.just("2026-01-01T00:00Z"), "ends": JSON}
        )
        | JSON,
        max_size=3,
    )
)
def test_any_json_is_a_schedule_or_a_value_error(hearings: list[Any]) -> None:
    try:
        found = parse_schedule(json.dumps({"v": 1, "hearings": hearings}).encode())
    except ValueError:
        return
    assert all(h.ends_s > h.starts_s for h in found)


INSTANTS = st.datetimes(datetime(2000, 1, 2), datetime(2099, 12, 20), timezones=st.just(UTC))


@given(st.lists(st.tuples(INSTANTS, st.integers(1, 7 * 86_400)), max_size=20))
def test_a_good_schedule_keeps_its_times_to_the_millisecond(
    hearings: list[tuple[datetime, int]],
) -> None:
    spans = sorted((h.timestamp(), h.timestamp() + length) for h, length in hearings)
    entries = [{"id": "x", "starts": iso(a), "ends": iso(b)} for a, b in spans]
    found = parse_schedule(json.dumps({"v": 1, "hearings": entries}).encode())
    assert [h.starts_s for h in found] == pytest.approx([a for a, _ in spans], abs=0.0011)
    assert [h.ends_s for h in found] == pytest.approx([b for _, b in spans], abs=0.0011)


# -- commands -------------------------------------------------------------------------------------


def test_a_command_is_read_and_what_it_says_too_much_is_dropped() -> None:
    command = contract.CommandDoc.model_validate_json(COMMAND, strict=True)
    assert (command.command, command.args["on"], command.ttl_s) == ("relay.set", False, 30)
    more = {**json.loads(COMMAND), "future": 1}
    assert contract.CommandDoc.model_validate(more) == command


@pytest.mark.parametrize(
    "changed",
    [
        {"v": 2},
        {"id": ""},
        {"command": "rm -rf /"},
        {"ttl_s": 0},
        {"ttl_s": 1e9},
        {"ttl_s": "30"},
        {"args": {"a": [1]}},
        {"args": {"a": None}},
        {"args": {str(n): 1 for n in range(17)}},
        {"reason": "x" * 257},
    ],
    ids=str,
)
def test_a_command_of_wrong_shape_is_refused(changed: dict[str, Any]) -> None:
    bad = json.dumps({**json.loads(COMMAND), **changed})
    with pytest.raises(ValidationError):
        contract.CommandDoc.model_validate_json(bad, strict=True)


# -- the [broker] table ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "addresses"),
    [
        ({"host": "mqtt.example.vn"}, [("mqtt.example.vn", 8883)]),
        ({"host": "mqtt.example.vn", "tls": True}, [("mqtt.example.vn", 8883)]),
        ({"host": "mqtt.example.vn", "tls": False}, [("mqtt.example.vn", 1883)]),
        ({"host": "a", "port": 9}, [("a", 9)]),
        ({"host": ["a", "b:1884"], "tls": False}, [("a", 1883), ("b", 1884)]),
        ({"host": "[fd00::1]:8884"}, [("fd00::1", 8884)]),
        ({"host": ["[fd00::1]", "fd00::2"]}, [("fd00::1", 8883), ("fd00::2", 8883)]),
    ],
    ids=str,
)
def test_a_broker_has_addresses(table: dict[str, Any], addresses: list[tuple[str, int]]) -> None:
    assert list(Broker.model_validate(table).addresses) == addresses


@pytest.mark.parametrize(
    "table",
    [
        {},
        {"host": ""},
        {"host": []},
        {"host": ["a", ""]},
        {"host": "mqtt://a"},
        {"host": "a b"},
        {"host": "a:"},
        {"host": "a:0"},
        {"host": "a:65536"},
        {"host": "a:١"},
        {"host": "[::1"},
        {"host": "[::1]x"},
        {"host": "[::1]:"},
        {"host": "a", "tls": "false"},
        {"host": "a", "tls": 0},
        {"host": "a", "port": 0},
        {"host": "a", "keepalive_s": 4},
        {"host": "a", "keepalive_s": 301},
        {"host": "a", "client_id": "x"},
        {"host": "a", "certificate_file": "x"},
        {"host": "a", "key_file": "x"},
        {"host": "a", "tls": False, "ca_file": "x"},
        {"host": "a", "tls": False, "certificate_file": "x", "key_file": "y"},
    ],
    ids=str,
)
def test_a_broker_table_that_cannot_be_meant_is_refused(table: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Broker.model_validate(table)
