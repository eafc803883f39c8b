"""What the room tells its lights: never more than it knows."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent import patterns, settings
from agent.control import Folders
from agent.hands import lights
from agent.model import Clock, Finding, Hearing, Level, Mode, Moment, Readiness, Reading, State
from agent.room import RoomAgent

HEAD = '[room]\nsite = "test"\nid = "room-01"\n'
CAMERA = '[camera.cam]\nsource = "v4l2:/dev/video0"\n'
MICROPHONE = '[microphone.mic]\nsource = "usb:0b0e:0422"\n'


def at(up_s: float) -> Moment:
    return Moment(up_s, 1.8e9 + up_s, Clock.SYNCED, "5f0c12ab")


class Stage:
    """An agent that does not run: its parts are set by hand."""

    def __init__(self, folder: Path, text: str = CAMERA) -> None:
        self.now_s = 1_000.0
        room = settings.parse(HEAD + text)
        self.agent = RoomAgent(room, Folders(folder, folder), lambda: at(self.now_s))

    def answers(self, state: State, *codes: str) -> None:
        reasons = tuple(Finding(code, Level.FAIL) for code in codes)
        self.agent.answer = Readiness(
            state, self.agent.mode, None, reasons, {}, 0, "generic@1", self.now_s + 60
        )

    def seen(self, **readings: Reading | None) -> None:
        """Device kind -> its last reading."""
        self.agent.watched = {
            kind: SimpleNamespace(
                device=SimpleNamespace(kind=kind), state=SimpleNamespace(reading=reading)
            )
            for kind, reading in readings.items()
        }  # type: ignore[assignment]

    @property
    def word(self) -> dict[str, Any]:
        return self.agent.word(at(self.now_s))

    def shown(self, age_s: float = 0.0) -> str:
        word = lights.heard(self.word)
        return lights.status(word, age_s, quiet_in_session=False).name


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_every_word_of_the_room_is_understood_by_hands(stage: Stage) -> None:
    fields = set(lights.Word.__dataclass_fields__) - {"updating"}
    assert set(stage.word) == fields
    for state, mode in itertools.product(State, Mode):
        stage.agent.mode = mode
        stage.answers(state, "camera.black")
        word = lights.heard(stage.word)
        assert (word.state, word.mode, word.locks) == (state, mode, mode is Mode.IN_SESSION)
    assert {str(state) for state in State} == lights.STATES
    assert {str(mode) for mode in Mode} == lights.MODES


def test_before_anything_is_known_nothing_is_shown_as_known(stage: Stage) -> None:
    assert stage.shown() == "unknown"
    assert stage.word["mic_live"] is None


@pytest.mark.parametrize(
    ("state", "mode", "codes", "pattern"),
    [
        (State.READY, Mode.IDLE, [], "ready"),
        (State.READY, Mode.PREPARING, [], "preparing"),
        (State.READY, Mode.RECESS, [], "ready"),
        (State.READY, Mode.IN_SESSION, [], "in_session"),
        (State.NOT_READY, Mode.IN_SESSION, ["camera.black"], "in_session"),
        (State.NOT_READY, Mode.IDLE, ["camera.black", "host.hot"], "not_ready_1"),
        (State.NOT_READY, Mode.IDLE, ["microphone.muted"], "not_ready_2"),
        (State.NOT_READY, Mode.IDLE, ["speaker.echo"], "not_ready_2"),
        (State.NOT_READY, Mode.IDLE, ["display.off"], "not_ready_3"),
        (State.NOT_READY, Mode.IDLE, ["network.no_link"], "not_ready_4"),
        (State.NOT_READY, Mode.IDLE, ["relay.absent"], "not_ready_5"),
        (State.NOT_READY, Mode.IDLE, ["agent.broker_unreachable"], "not_ready_6"),
        (State.NOT_READY, Mode.PREPARING, ["host.clock_unsynced"], "not_ready_6"),
        (State.AT_RISK, Mode.IDLE, ["host.hot"], "at_risk"),
        (State.UNKNOWN, Mode.PREPARING, ["agent.no_evidence"], "unknown"),
        (State.READY, Mode.MAINTENANCE, [], "maintenance"),
    ],
)
def test_the_room_is_shown_as_it_is(
    stage: Stage, state: State, mode: Mode, codes: list[str], pattern: str
) -> None:
    stage.agent.mode = mode
    stage.answers(state, *codes)
    assert stage.shown() == pattern
    assert stage.shown(age_s=patterns.LOST_S) == "monitor_lost"


def test_a_look_and_a_search_are_shown_above_all_else(stage: Stage) -> None:
    stage.answers(State.NOT_READY, "camera.black")
    stage.agent.measuring.add("cam")
    assert stage.shown() == "measuring"
    stage.agent.locate_until_s = stage.now_s + 30
    assert stage.shown() == "locate"
    stage.now_s += 30
    assert stage.shown() == "measuring", "it ends by itself"
    stage.agent.measuring.clear()
    assert stage.shown() == "not_ready_1"


def test_a_room_in_which_nothing_is_required_is_not_commissioned(tmp_path: Path) -> None:
    stage = Stage(tmp_path, CAMERA + "required = false\n")
    stage.answers(State.UNKNOWN)
    assert stage.shown() == "not_commissioned"


@pytest.mark.parametrize(
    ("readings", "live"),
    [
        ([], None),
        ([None], None),
        ([Reading({"in_use": True})], True),
        ([Reading({"in_use": False})], False),
        ([Reading({})], None),
        ([Reading({"in_use": False}), Reading({})], None),
        ([Reading({"in_use": False}), None], None),
        ([Reading({"in_use": True}), Reading({})], True),
        ([Reading({"in_use": False}), Reading({"in_use": False})], False),
    ],
)
def test_whether_a_microphone_is_open_is_said_only_where_it_is_known_of_all(
    stage: Stage, readings: list[Reading | None], live: bool | None
) -> None:
    stage.agent.watched = {
        str(n): SimpleNamespace(
            device=SimpleNamespace(kind="microphone"), state=SimpleNamespace(reading=reading)
        )
        for n, reading in enumerate(readings)
    }  # type: ignore[assignment]
    assert stage.word["mic_live"] is live


@pytest.mark.parametrize(
    ("camera", "microphone", "held"),
    [
        (Reading({"in_use": True}), Reading({"in_use": True}), True),
        (Reading({"in_use": True}), Reading({"in_use": False}), False),
        (Reading({"in_use": False}), Reading({"in_use": True}), False),
        (Reading({"in_use": True}), Reading({}), False),
        (Reading({"in_use": 1}), Reading({"in_use": "yes"}), False),
        (None, Reading({"in_use": True}), False),
    ],
)
def test_a_call_takes_a_camera_and_a_microphone(
    stage: Stage, camera: Reading | None, microphone: Reading | None, held: bool
) -> None:
    stage.seen(camera=camera, microphone=microphone)
    assert stage.agent._held() is held


def test_the_time_to_the_next_session_is_told(stage: Stage) -> None:
    assert stage.word["lock_in_s"] is None
    starts_s = 1.8e9 + stage.now_s + 90
    stage.agent.modes.hearings = (Hearing("HS-1", starts_s, starts_s + 3_600),)
    assert stage.word["lock_in_s"] == pytest.approx(90)
    stage.now_s += 100
    assert stage.word["lock_in_s"] == 0
