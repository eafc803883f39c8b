"""Commissioning: what is asked, what is recorded, who may see it, and what it changes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from agent import kinds, settings
from agent.clock import SystemClock
from agent.control import Folders, Peer
from agent.kinds import camera, display, microphone
from agent.lanes.lane import Lane
from agent.model import Command, Device, Fault, Level, Mode, Reading
from agent.room import RoomAgent

VIEW = tuple(n % 16 for n in range(64))
GOOD: Mapping[str, Any] = {"luma_mean": 96.0, "edge_width": 0.8, "fps": 25.0}
BLACK: Mapping[str, Any] = {"luma_mean": 2.0, "luma_spread": 0.1, "edge_contrast": 0.0}
HEARD: Mapping[str, Any] = {"level_dbfs": -40.0, "hiss_dbfs": -66.0, "speech_dbfs": -22.0}
PEER = Peer(1, 0, 0)
ROOM = """
[room]
site = "test"
id = "room-01"
[camera.cam]
source = "v4l2:/dev/video250"
[microphone.mic]
source = "hw:9"
raise_s = 0
clear_s = 0
"""


class Answers:
    """In place of the lanes: what each device says when it is asked, and what it was asked."""

    hello = None
    state = "none"
    clings = False

    def __init__(self) -> None:
        self.says: dict[str, Reading] = {
            "cam": Reading(GOOD, active=True),
            "mic": Reading(HEARD, active=True),
            "other": Reading(GOOD, active=True),
        }
        self.asked: list[tuple[str, str, Mapping[str, Any]]] = []

    async def ask(self, *, device: str, ask: str, settings: Mapping[str, Any], **_: Any) -> Reading:
        self.asked.append((device, ask, settings))
        reading = self.says[device]
        if device == "cam" and ask == "baseline" and reading.fault is None:
            reading = Reading(reading.values, active=True, fingerprint=VIEW)
        return reading

    async def close(self) -> None:
        return


class Room:
    """A running agent with devices that answer as they are told."""

    def __init__(self, agent: RoomAgent, answers: Answers, folder: Path) -> None:
        self.agent = agent
        self.answers = answers
        self.folder = folder

    async def command(self, name: str = "baseline", **args: Any) -> dict[str, Any]:
        return await self.agent.dispatch(Command("1", name, args, by="lan"), PEER)

    async def asked(self, device: str) -> Mapping[str, Any]:
        """The settings of the next look at a device."""
        before = len(self.answers.asked)
        await self.agent.watched[device].ask_now("test")
        found = [s for d, ask, s in self.answers.asked[before:] if (d, ask) == (device, "look")]
        return found[-1]


@pytest.fixture
def in_a_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[Room], Awaitable[None]]], None]:
    # The kernel of this machine has no such devices: what it says is left out.
    for kind in (camera, microphone):
        monkeypatch.setattr(kind, "Passive", None)

    def play(scene: Callable[[Room], Awaitable[None]], text: str = ROOM) -> None:
        async def run() -> None:
            answers = Answers()

            def lane(device: Device) -> Lane:
                return answers  # type: ignore[return-value]

            folder = tmp_path / "state"
            folder.mkdir(exist_ok=True)
            agent = RoomAgent(
                settings.parse(text),
                Folders(folder, folder),
                SystemClock().now,
                root=tmp_path / "no-machine",
                lane_for=lane,
            )
            running = asyncio.create_task(agent.run())
            async with asyncio.timeout(30):
                while not (folder / "control.sock").exists():
                    assert not running.done()
                    await asyncio.sleep(0.01)
                try:
                    await scene(Room(agent, answers, folder))
                finally:
                    agent.stop()
                    await running

        asyncio.run(run())

    return play


def test_a_good_room_is_recorded_and_judged_by_from_then_on(in_a_room: Any) -> None:
    async def scene(room: Room) -> None:
        assert "baseline_fingerprint" not in {k for k, v in (await room.asked("cam")).items() if v}
        answer = await room.command(device="cam")
        assert (answer["state"], answer["effect"]["cam"]) == ("done", True)
        kept = json.loads(await room.agent._store.document("baseline") or b"")
        assert kept["cam"]["settings"]["baseline_fingerprint"] == list(VIEW)
        assert (kept["cam"]["by"], kept["cam"]["readings"]) == ("lan", GOOD)
        assert (await room.asked("cam"))["baseline_fingerprint"] == list(VIEW)
        room.answers.says["cam"] = Reading({**GOOD, "view_distance": 0.9}, active=True)
        checked = await room.command("check", device="cam")
        assert [f["code"] for f in checked["detail"]["cam"]["findings"]] == ["camera.moved"]

    in_a_room(scene)


def test_a_fingerprint_stays_in_the_store(in_a_room: Any) -> None:
    async def scene(room: Room) -> None:
        answer = await room.command(anyway=True)  # this machine's network may not be in order
        status = (room.folder / "status.json").read_text()
        shown = json.loads(status)["baseline"]
        assert set(shown) >= {"cam", "mic"}
        assert shown["cam"]["readings"] == GOOD
        assert shown["cam"]["by"] == "lan"
        reading = room.agent.watched["cam"].state.reading
        assert reading is not None
        assert reading.fingerprint == ()
        for text in (status, json.dumps(answer), json.dumps(room.agent.status())):
            assert "fingerprint" not in text
            assert json.dumps(list(VIEW[:16]))[1:-1] not in text
            assert ",".join(map(str, VIEW[:16])) not in text

    in_a_room(scene)


def test_only_who_asked_for_a_fingerprint_gets_it(in_a_room: Any) -> None:
    async def scene(room: Room) -> None:
        watched = room.agent.watched["cam"]
        reading = await watched.ask_now("test", "baseline")
        assert reading.fingerprint == VIEW
        assert watched.state.reading is not None
        assert watched.state.reading.fingerprint == ()
        assert (await watched.ask_now("test")).fingerprint == ()

    in_a_room(scene)


def test_what_stands_about_a_device_is_judged_by_its_baseline(in_a_room: Any) -> None:
    async def scene(room: Room) -> None:
        mic = room.agent.watched["mic"]
        assert (await room.command(device="mic"))["state"] == "done"
        room.answers.says["mic"] = Reading({**HEARD, "hiss_dbfs": -45.0}, active=True)
        await mic.ask_now("test")
        assert [(f.code, f.level) for f in mic.findings] == [("microphone.noisy", Level.WARN)]
        # A person says that it is good as it is now: room.toml alone can say no.
        assert (await room.command(device="mic"))["state"] == "done"
        await mic.ask_now("test")
        assert mic.findings == []

    in_a_room(scene)


@pytest.mark.parametrize(
    ("reading", "code"),
    [
        (Reading(BLACK, active=True), "camera.black"),
        (Reading(fault=Fault.BUSY, why="held"), "camera.busy"),
        (Reading(fault=Fault.NO_ANSWER, why="no_frame", active=True), "camera.no_answer"),
    ],
)
def test_a_room_that_is_not_in_order_is_not_recorded(
    in_a_room: Any, reading: Reading, code: str
) -> None:
    async def scene(room: Room) -> None:
        room.answers.says["cam"] = reading
        refused = await room.command()
        assert (refused["state"], refused["code"]) == ("refused", "not_in_order")
        assert f"cam: {code}" in refused["message"]
        assert "mic:" not in refused["message"]
        assert await room.agent._store.document("baseline") is None
        anyway = await room.command(device="cam", anyway=True)
        if reading.fault is None:
            assert anyway["effect"]["cam"] is True
        else:
            assert anyway["code"] == "not_in_order", "there is nothing to record"
        room.answers.says["cam"] = Reading(GOOD, active=True)
        assert (await room.command(device="cam"))["state"] == "done"

    in_a_room(scene)


def test_what_gave_nothing_is_left_out_of_a_record_made_anyway(in_a_room: Any) -> None:
    async def scene(room: Room) -> None:
        room.answers.says["mic"] = Reading(fault=Fault.BUSY, why="held")
        effect = (await room.command(anyway=True))["effect"]
        assert (effect["cam"], effect["mic"]) == (True, False)
        shown = room.agent.baseline.shown()
        assert "mic" not in shown
        assert shown["cam"]["anyway"] is True

    in_a_room(scene)


@pytest.mark.parametrize("mode", [Mode.IN_SESSION, Mode.RECESS, Mode.MAINTENANCE])
def test_only_an_idle_room_is_commissioned(in_a_room: Any, mode: Mode) -> None:
    async def scene(room: Room) -> None:
        room.agent.set_mode(mode, 60, "test")
        answer = await room.command()
        assert (answer["state"], answer["code"]) == ("refused", mode.value)
        assert "baseline" not in {ask for _, ask, _ in room.answers.asked}
        room.agent.set_mode(None, 60, "test")
        assert (await room.command(device="cam"))["state"] == "done"

    in_a_room(scene)


def test_a_baseline_outlives_the_agent_and_is_not_measured_by_itself(in_a_room: Any) -> None:
    async def first(room: Room) -> None:
        await room.command(device="cam")

    async def second(room: Room) -> None:
        assert (await room.asked("cam"))["baseline_fingerprint"] == list(VIEW)
        # Turned on purpose, and recorded again: the old view does not stand in the way.
        room.answers.says["cam"] = Reading(GOOD, active=True)
        await room.command(device="cam")
        (asked,) = [s for _, ask, s in room.answers.asked if ask == "baseline"]
        assert asked["baseline_fingerprint"] is None

    in_a_room(first)
    in_a_room(second)


def test_another_device_under_the_same_id_has_no_baseline(in_a_room: Any) -> None:
    async def first(room: Room) -> None:
        assert (await room.command(device="cam"))["state"] == "done"

    async def second(room: Room) -> None:
        assert room.agent.watched["cam"].settings is room.agent.watched["cam"].device.settings

    in_a_room(first)
    swapped = ROOM.replace("camera.cam", "camera.other").replace("microphone.mic", "microphone.cam")
    in_a_room(second, swapped)


def test_a_baseline_of_another_version_is_left_alone(in_a_room: Any) -> None:
    async def first(room: Room) -> None:
        entry = {"kind": "camera", "settings": {"no_such_setting": 3}, "by": "x", "at": "y"}
        await room.agent._store.put_document("baseline", json.dumps({"cam": entry}).encode())

    async def second(room: Room) -> None:
        watched = room.agent.watched["cam"]
        assert watched.settings is watched.device.settings
        assert (await room.command(device="cam"))["state"] == "done"

    in_a_room(first)
    in_a_room(second)


def test_the_word_of_room_toml_counts_above_the_baseline(in_a_room: Any) -> None:
    own = [3] * 64
    text = ROOM.replace("[microphone", f"baseline_fingerprint = {own}\n[microphone")

    async def scene(room: Room) -> None:
        await room.command(device="cam")
        assert (await room.asked("cam"))["baseline_fingerprint"] == own

    in_a_room(scene, text)


def test_a_record_that_the_disk_does_not_take_is_none(in_a_room: Any) -> None:
    async def scene(room: Room) -> None:
        await room.agent._store.close(timeout_s=3.0)
        answer = await room.command(device="cam")
        assert (answer["state"], answer["code"]) == ("refused", "store_failing")
        assert room.agent.baseline.shown() == {}
        assert (await room.asked("cam"))["baseline_fingerprint"] is None

    in_a_room(scene)


@pytest.mark.parametrize(
    ("args", "code"),
    [
        ({"device": "zzz"}, "unknown_device"),
        ({"device": "host"}, "unknown_device"),
        ({"anyway": 1}, "bad_argument"),
        ({"devise": "cam"}, "unknown_argument"),
    ],
)
def test_a_wrong_wish_is_refused(in_a_room: Any, args: dict[str, Any], code: str) -> None:
    async def scene(room: Room) -> None:
        answer = await room.command(**args)
        assert (answer["state"], answer["code"]) == ("refused", code)

    in_a_room(scene)


# -- what each kind learns ------------------------------------------------------------------------


def test_a_display_of_that_day_is_expected_from_then_on() -> None:
    who = {"manufacturer": "DEL", "product": "0xd0d8", "name": "DELL P2419H", "serial": "77"}
    reading = Reading({"connected": True, "edid_bytes": 256}, identity=who)
    learnt = kinds.baseline_of("display", reading)
    assert learnt is not None
    plain = display.Settings(connector="HDMI-A-1")
    taught = kinds.with_baseline(plain, learnt)
    assert display.judge(reading, taught) == []
    other = Reading({"connected": True, "edid_bytes": 256}, identity={**who, "serial": "78"})
    assert [f.code for f in display.judge(other, taught)] == ["display.changed"]
    assert display.judge(other, plain) == []
    told = display.Settings(connector="HDMI-A-1", expect_serial="78")
    assert kinds.with_baseline(told, learnt).expect_serial == "78"


def test_a_microphone_is_compared_with_like_and_only_warned_of() -> None:
    learnt = kinds.baseline_of("microphone", Reading(HEARD))
    assert learnt is not None
    taught = kinds.with_baseline(microphone.Settings(source="hw:1"), learnt)

    def found(**values: float) -> list[tuple[str, Level]]:
        return [(f.code, f.level) for f in microphone.judge(Reading({**HEARD, **values}), taught)]

    assert found() == []
    assert found(hiss_dbfs=-50.0) == [], "louder, and below what disturbs"
    assert found(hiss_dbfs=-48.0) == [("microphone.noisy", Level.WARN)]
    assert found(speech_dbfs=-42.0) == [], "a soft voice from the other end of the room"
    loud = kinds.with_baseline(
        microphone.Settings(source="hw:1"), {**learnt, "baseline_speech_dbfs": -15.0}
    )
    (soft,) = microphone.judge(Reading({**HEARD, "speech_dbfs": -42.0}), loud)
    assert (soft.code, soft.level) == ("microphone.too_quiet", Level.WARN)
    assert soft.numbers["baseline_speech_dbfs"] == -15.0
    (fault,) = microphone.judge(Reading({**HEARD, "speech_dbfs": -47.0}), loud)
    assert (fault.code, fault.level) == ("microphone.too_quiet", Level.FAIL), "whatever it was then"
    assert kinds.baseline_of("microphone", Reading({"level_dbfs": -60.0})) == {}


def test_kinds_without_a_baseline_take_no_part() -> None:
    assert kinds.baseline_of("host", Reading({"temp_c": 50})) is None
    assert kinds.baseline_of("network", Reading({"rtt_ms": 4.0})) == {}
    assert not kinds.takes_baseline("relay")
    with pytest.raises(ValueError, match="no_such_setting"):
        kinds.with_baseline(camera.Settings(source="file:x"), {"no_such_setting": 1})
