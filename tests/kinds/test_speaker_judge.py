"""The loudspeaker: what is read without a sound, and what its numbers mean."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from microphone_stage import RUNNING, card, unplug
from pydantic import ValidationError

from agent import kinds
from agent.kinds import speaker
from agent.model import Fault, Level, Reading, Scalar

GOOD: dict[str, Scalar] = {
    "microphones": 2,
    "microphones_heard": 2,
    "gain_db": -22,
    "delay_ms": 140,
}


def judged(reading: Reading, **limits: object) -> list[tuple[str, Level]]:
    settings = speaker.Settings.model_validate(limits)
    return [(f.code, f.level) for f in speaker.judge(reading, settings)]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"microphones_heard": 0}, [("speaker.loop_failed", Level.FAIL)]),
        ({"gain_db": -70}, [("speaker.loop_failed", Level.FAIL)]),
        ({"gain_db": 3}, [("speaker.echo", Level.WARN)]),
        ({"echo_db": -6, "echo_ms": 240}, [("speaker.echo", Level.WARN)]),
        ({"echo_db": -20, "echo_ms": 70}, []),
        ({"microphones_heard": 1}, []),
    ],
)
def test_a_loop_test_is_judged(
    change: dict[str, Scalar], expected: list[tuple[str, Level]]
) -> None:
    assert judged(Reading(GOOD | change)) == expected


@pytest.mark.parametrize(
    ("fault", "code", "level"),
    [
        (Fault.ABSENT, "speaker.absent", Level.FAIL),
        (Fault.NO_ANSWER, "speaker.no_answer", Level.FAIL),
        (Fault.QUARANTINED, "speaker.no_answer", Level.FAIL),
        (Fault.BUSY, "speaker.busy", Level.INFO),
        (Fault.ERROR, "speaker.no_answer", Level.UNKNOWN),
    ],
)
def test_what_could_not_be_read_is_never_well(fault: Fault, code: str, level: Level) -> None:
    assert judged(Reading(fault=fault)) == [(code, level)]
    assert judged(Reading(fault=Fault.SKIPPED, why="in_session")) == []


def test_a_loudspeaker_is_seen_in_use_and_at_rest_and_gone_and_back(tmp_path: Path) -> None:
    card(tmp_path)
    part = speaker.Passive(speaker.Settings(source="usb:0b0e:0422"), tmp_path)
    status = tmp_path / "proc/asound/card1/pcm0p/sub0/status"
    assert asyncio.run(part.read()).values["in_use"] is False
    for pointer, expected in ((10, []), (20, []), (20, [("speaker.no_answer", Level.FAIL)])):
        status.write_text(RUNNING.format(pointer=pointer))
        assert judged(asyncio.run(part.read())) == expected
    unplug(tmp_path)
    assert judged(asyncio.run(part.read())) == [("speaker.absent", Level.FAIL)]
    card(tmp_path, 2, port="1-1.4")
    assert judged(asyncio.run(part.read())) == []


def test_a_microphone_is_no_loudspeaker(tmp_path: Path) -> None:
    card(tmp_path, streams="c")
    part = speaker.Passive(speaker.Settings(), tmp_path)
    assert asyncio.run(part.read()).fault is Fault.ABSENT
    assert speaker.discover(tmp_path) == []


def test_what_is_plugged_in_becomes_a_table(tmp_path: Path) -> None:
    card(tmp_path)
    assert speaker.discover(tmp_path) == [{"name": "USB", "source": "usb:0b0e:0422"}]


@pytest.mark.parametrize("source", ["file:x.wav", "x.wav", "loud", "usb:1"])
def test_a_source_that_is_none_is_refused(source: str) -> None:
    with pytest.raises(ValidationError):
        speaker.Settings(source=source)
    with pytest.raises(ValidationError):
        speaker.Settings(microphones=(source,))


def test_a_worker_is_only_kept_for_a_loudspeaker_that_may_be_tested() -> None:
    assert not kinds.has_driver("speaker", speaker.Settings())
    assert kinds.has_driver("speaker", speaker.Settings(loop_test=True))
    assert kinds.has_driver("speaker")
    assert "loop" in kinds.QUESTIONS
