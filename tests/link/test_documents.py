from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from agent.judge import readiness as judging
from agent.link import contract, documents
from agent.link.publisher import Publisher
from agent.model import Device, Fault, Finding, Hearing, Level, Mode, Moment, Reading, Seat

NOW = Moment(1_000.0, 1_800_000_000.0, boot="0123abcd")
CAM = Device("cam-front", "camera", None, name="Camera chính", seat=Seat.JUDGE)
FROZEN = Finding(
    "camera.frozen", Level.FAIL, {"unchanged_s": 87}, "cam-front", NOW.after(-87), 1_100.0
)
READING = Reading(
    {"fps": 15.0, "luma_mean": 96}, asked_s=999.0, identity={"product": "HD Pro Webcam C920"}
)


def seen(*findings: Finding, reading: Reading | None = READING) -> documents.Seen:
    return documents.Seen(CAM, findings, reading, 1_100.0)


def test_a_device_document_keeps_the_contract() -> None:
    doc = documents.device(seen(FROZEN), NOW, published_for_s=60)
    contract.DeviceDoc.model_validate_json(contract.encode(doc))
    assert doc["level"] == "fail"
    assert doc["asked"] == NOW.after(-1).iso
    assert doc["valid_until"] == NOW.after(100).iso
    assert doc["findings"][0]["numbers"] == {"unchanged_s": 87}


def test_a_device_never_read_says_so_by_what_is_absent() -> None:
    doc = documents.device(
        documents.Seen(CAM, [Finding("agent.no_evidence", Level.UNKNOWN)], None, None),
        NOW,
        published_for_s=60,
    )
    contract.DeviceDoc.model_validate_json(contract.encode(doc))
    assert doc["level"] == "unknown"
    assert "asked" not in doc
    assert doc["readings"] == {}


def test_a_fault_is_named_with_its_reason() -> None:
    reading = Reading({"present": True}, Fault.SKIPPED, "in_session", asked_s=999.0)
    doc = documents.device(seen(reading=reading), NOW, published_for_s=60)
    assert doc["fault"] == "skipped: in_session"


def test_readiness_speaks_the_language_of_the_room() -> None:
    answer = judging.fold(
        [CAM],
        [FROZEN],
        mode=Mode.PREPARING,
        hearing=Hearing("HS-1", NOW.utc_s + 60, NOW.utc_s + 90),
        requirements=judging.load("generic"),
        now=NOW,
        valid_for_s=150,
    )
    doc = documents.readiness(answer, {"cam-front": CAM}, NOW, "vi")
    contract.ReadinessDoc.model_validate_json(contract.encode(doc))
    assert doc["state"] == "not_ready"
    assert doc["reasons"][0]["title"].startswith("Camera chính")
    assert doc["reasons"][0]["fix"] in ("technician", "user")
    assert doc["devices"] == {"ok": 0, "info": 0, "warn": 0, "fail": 1, "unknown": 0}
    assert doc["hearing"]["id"] == "HS-1"
    english = documents.readiness(answer, {"cam-front": CAM}, NOW, "en")
    assert english["reasons"][0]["title"] != doc["reasons"][0]["title"]


def test_without_a_schedule_the_hearing_is_null_and_stays_in_the_payload() -> None:
    answer = judging.fold(
        [CAM],
        [],
        mode=Mode.IDLE,
        hearing=None,
        requirements=judging.load("generic"),
        now=NOW,
        valid_for_s=150,
    )
    doc = json.loads(contract.encode(documents.readiness(answer, {}, NOW, "vi")))
    assert doc["hearing"] is None
    assert doc["state"] == "ready"


def test_about_and_telemetry_keep_the_contract() -> None:
    about = documents.about(
        name="Phòng 1",
        version="0.1.0",
        box="",
        python="3.11.7",
        requirements="generic@1",
        capabilities=("report", "check"),
        seen=[seen()],
        now=NOW,
    )
    contract.About.model_validate_json(contract.encode(about))
    assert about["inventory"][0]["identity"] == "HD Pro Webcam C920"
    assert about["inventory"][0]["found"] is True
    telemetry = documents.telemetry([seen()], NOW)
    contract.Telemetry.model_validate_json(contract.encode(telemetry))
    assert telemetry["cam-front"] == {"fps": 15.0, "luma_mean": 96}


def test_an_event_leaves_out_what_is_not_there() -> None:
    event = documents.event("mode", NOW, **{"from": "idle", "to": "preparing", "device": None})
    assert "device" not in event
    contract.EventDoc.model_validate({**event, "n": 1, "prev": "0" * 64})


def test_labels_of_time_are_no_news_and_readings_have_dead_bands() -> None:
    before = documents.device(seen(FROZEN), NOW, published_for_s=60)
    later = documents.device(seen(FROZEN), NOW.after(10), published_for_s=60)
    assert not documents.differs(before, later)

    def with_readings(**values: Any) -> dict[str, Any]:
        return {**before, "readings": {**before["readings"], **values}}

    assert not documents.differs(before, with_readings(fps=15.9))
    assert documents.differs(before, with_readings(fps=17.0))
    assert not documents.differs(before, with_readings(luma_mean=104))
    assert documents.differs(before, with_readings(luma_mean=108))
    assert documents.differs(before, with_readings(held=True))
    assert documents.differs(before, {**before, "level": "ok"})
    assert documents.differs(before, {**before, "findings": []})


def test_a_count_of_devices_has_no_dead_band() -> None:
    assert documents.differs({"devices": {"ok": 6}}, {"devices": {"ok": 5}})


def published(publisher: Publisher, at_s: float, reading: Reading) -> bool:
    now = NOW.after(at_s)
    fresh = documents.Seen(CAM, [], replace(reading, asked_s=now.up_s), now.up_s + 20)
    return publisher.devices([fresh], now)


def test_a_device_is_published_again_only_for_news_or_before_its_document_lapses() -> None:
    out: list[str] = []
    publisher = Publisher(lambda suffix, doc: out.append(suffix))
    assert published(publisher, 0, READING)
    assert not published(publisher, 5, READING)
    assert published(publisher, 10, replace(READING, values={"fps": 5.0}))
    assert out[:2] == ["device/cam-front"] * 2


def test_a_document_is_renewed_while_there_is_fresh_evidence() -> None:
    out: list[str] = []
    publisher = Publisher(lambda suffix, doc: out.append(suffix))
    times = [t for t in range(0, 600, 10) if published(publisher, t, READING)]
    assert times == [0, 100, 200, 300, 400, 500]


def test_readiness_is_repeated_every_minute_and_at_every_change() -> None:
    publisher = Publisher(lambda suffix, doc: None)
    doc = {"state": "ready", "reasons": []}
    times = [t for t in range(0, 200, 10) if publisher.readiness(doc, NOW.after(t))]
    assert times == [0, 60, 120, 180]
    assert publisher.readiness({**doc, "state": "unknown"}, NOW.after(185))
