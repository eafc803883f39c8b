"""The loop test in a whole room: real workers, programs in place of alsa-utils, a recorded tree.

Who may ask for it and when, that it is announced, that nobody listens meanwhile, and that its
verdict stands until the next one.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from microphone_stage import RUNNING, card, on_path, program

from agent import settings
from agent.clock import SystemClock
from agent.control import Folders, Peer
from agent.lanes.lane import Lane, by_hand
from agent.link import documents
from agent.model import Command, Device, Mode
from agent.room import RoomAgent

# The tree is recorded, and the programs hand the sound on through a file, which no worker may
# write: so this one is not confined. That a real one is, other tests hold.
WORKER = """
import functools, sys
from pathlib import Path
from agent.kinds import microphone, speaker
from agent.lanes import confine, worker
for kind in (microphone, speaker):
    kind.Driver = functools.partial(kind.Driver, root=Path(sys.argv[1]))
worker.confine = lambda network=None: confine.LAYERS
sys.exit(worker.main([]))
"""
PLAYER = """
sound = sys.stdin.buffer.read()
open(here + '/played', 'a').write('x')
open(here + '/air.part', 'wb').write(sound)
os.rename(here + '/air.part', here + '/air')
"""
# Runs at its own pace; what is in the air when it comes by is heard at the gain of the room.
LISTENER = """
import array, random
random.seed(1)
block = array.array('h', [random.randint(-60, 60) for _ in range(800)]).tobytes()
while True:
    if os.path.exists(here + '/air'):
        gain = float(open(here + '/gain').read())
        air = array.array('h', open(here + '/air', 'rb').read())[::6]
        os.unlink(here + '/air')
        out.write(array.array('h', [int(s * gain) + 20 for s in air]).tobytes())
    out.write(block)
    out.flush()
    time.sleep(0.04)
"""
CONFIG = """
[room]
site = "t"
id = "r"
[host]
period_s = 3600
[network.network]
period_s = 3600
gateway = false
[microphone.mic]
source = "usb:0b0e:0422"
virtual = true
period_s = 1
look_s = 1
warm_up_s = 0
[speaker.loud]
source = "usb:0b0e:0422"
virtual = true
period_s = 1
clear_s = 0
"""
LOOP = "loop_test = true\n"


class Room(RoomAgent):
    """A room that keeps its events, and what was open at each."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        self.story: list[tuple[str, str, str, str]] = []
        self.open: list[tuple[set[str], set[str]]] = []
        super().__init__(*arguments, **more)

    def event(self, type_: str, importance: int, **fields: Any) -> asyncio.Future[int]:
        if type_.startswith("look."):
            self.story.append((type_, fields["device"], fields["purpose"], fields["by"]))
            self.open.append((set(self.measuring), set(self.loud)))
        return super().event(type_, importance, **fields)

    def document(self) -> dict[str, Any]:
        return self.standing().get("device/loud", {})

    def codes(self) -> set[str]:
        return {f["code"] for f in self.document().get("findings", [])}

    async def command(self, by: str = "technician", **args: Any) -> dict[str, Any]:
        command = Command("1", "check", args, by=by)
        return await self._commands.over_socket(command, Peer(1, 0, 0))

    async def loop(self) -> dict[str, Any]:
        answer = await self.command(device="loud", loop=True)
        assert answer["state"] == "done", answer
        seen: dict[str, Any] = answer["detail"]["loud"]
        return seen

    def loops(self, type_: str = "look.started") -> int:
        return sum(t == type_ and purpose == "loop" for t, _, purpose, _ in self.story)


class Stage:
    """The folders of a room with one sound card."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.root = folder / "root"
        card(self.root)
        program(self.bin, "aplay", PLAYER)
        program(self.bin, "arecord", LISTENER)
        self.hears(0.1)
        (folder / "worker.py").write_text(WORKER)
        (folder / "state").mkdir()

    def hears(self, gain: float) -> None:
        (self.bin / "gain").write_text(str(gain))

    @property
    def played(self) -> int:
        path = self.bin / "played"
        return len(path.read_text()) if path.exists() else 0

    def hold(self, direction: str, held: bool) -> None:
        status = self.root / f"proc/asound/card1/pcm0{direction}/sub0/status"
        status.write_text(RUNNING.format(pointer=1) if held else "closed\n")

    def lane(self, device: Device) -> Lane:
        argv = [sys.executable, str(self.folder / "worker.py"), str(self.root)]
        return Lane(by_hand(argv=argv), name=device.id)

    def play(self, scene: Callable[[Room], Coroutine[Any, Any, None]], config: str = LOOP) -> None:
        async def run() -> None:
            room = Room(
                settings.parse(CONFIG + config),
                Folders(self.folder / "state", self.folder / "state"),
                SystemClock().now,
                virtual_root=self.root,
                lane_for=self.lane,
            )
            running = asyncio.create_task(room.run())
            try:
                async with asyncio.timeout(60):
                    await until(lambda: room.document().get("level") == "ok" or room.codes())
                    await scene(room)
            finally:
                room.stop()
                await running

        asyncio.run(run())


async def until(holds: Callable[[], object]) -> None:
    while not holds():
        await asyncio.sleep(0.02)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    on_path(monkeypatch, tmp_path / "bin")
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")  # the room ticks twice a second
    return Stage(tmp_path)


def schedule(minutes: float) -> bytes:
    starts = datetime.now(UTC) + timedelta(minutes=minutes)
    ends = starts + timedelta(hours=1)
    hearing = {"id": "HS-1", "starts": starts.isoformat(), "ends": ends.isoformat()}
    return json.dumps({"v": 1, "hearings": [hearing]}).encode()


def test_a_loop_test_is_announced_and_its_numbers_stand_in_the_document(stage: Stage) -> None:
    async def scene(room: Room) -> None:
        await until(lambda: ("look.ended", "mic", "watch", "agent") in room.story)
        assert stage.played == 0
        seen = await room.loop()
        assert stage.played == 1
        assert seen["level"] == "ok"
        assert seen["readings"]["gain_db"] == pytest.approx(-20, abs=1)
        (start,) = [
            i for i, e in enumerate(room.story) if e[0] == "look.started" and e[2] == "loop"
        ]
        assert room.story[start] == ("look.started", "loud", "loop", "technician")
        assert room.open[start] == ({"loud"}, {"loud"})
        assert room.story[start + 1] == ("look.ended", "loud", "loop", "technician")
        assert room.open[start + 1] == (set(), set())
        await until(
            lambda: room.document()["readings"].get("gain_db") == seen["readings"]["gain_db"]
        )
        assert "delay_ms" in room.document()["readings"]
        asked = room.document()["asked"]
        await until(
            lambda: room.watched["loud"].state.reading and room.document()["asked"] >= asked
        )
        await room.command(device="loud")  # a reading without a sound leaves them where they are
        assert "delay_ms" in room.document()["readings"]
        assert stage.played == 1

    stage.play(scene)


def test_a_person_at_the_box_asks_for_it(stage: Stage) -> None:
    async def scene(room: Room) -> None:
        words = ["-m", "agent", "check", "--json", "--loop"]
        asking = await asyncio.create_subprocess_exec(
            sys.executable,
            *words,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "RUNTIME_DIRECTORY": str(stage.folder / "state")},
            cwd=Path(__file__).parents[2],
        )
        said, _ = await asking.communicate()
        (line,) = said.splitlines()
        assert asking.returncode == 0, said
        assert json.loads(line)["source"] == "loud"
        assert json.loads(line)["readings"]["microphones_heard"] == 1
        assert stage.played == 1
        assert ("look.started", "loud", "loop", f"uid:{os.getuid()}") in room.story

    stage.play(scene)


def test_no_microphone_is_opened_while_a_loudspeaker_is_tested(stage: Stage) -> None:
    async def scene(room: Room) -> None:
        for _ in range(3):
            await room.loop()
        looks = [(type_, device) for type_, device, _, _ in room.story]
        starts = [i for i, look in enumerate(looks) if look == ("look.started", "loud")]
        assert len(starts) == 3
        for start in starts:
            assert looks[start + 1] == ("look.ended", "loud")
            before = looks[:start]
            started, ended = (before.count((t, "mic")) for t in ("look.started", "look.ended"))
            assert started == ended, "a look at the microphone was under way"
        assert "microphone.busy" not in {
            f["code"] for f in room.standing()["device/mic"]["findings"]
        }, "the room takes its own test for a program"
        mics = looks.count(("look.ended", "mic"))
        await until(lambda: sum(e[:2] == ("look.ended", "mic") for e in room.story) > mics)

    stage.play(scene)


def test_a_failed_loop_is_made_twice_and_stands_until_one_is_good(stage: Stage) -> None:
    async def fails(room: Room) -> None:
        stage.hears(0)
        seen = await room.loop()
        assert [f["code"] for f in seen["findings"]] == ["speaker.loop_failed"]
        assert stage.played == 2, "once more before it is believed"
        await until(lambda: room.codes() == {"speaker.loop_failed"})
        for _ in range(4):
            await room.command(device="loud")
        assert room.codes() == {"speaker.loop_failed"}, "silent readings do not clear it"
        assert stage.played == 2

    async def stands_after_a_restart(room: Room) -> None:
        assert room.codes() == {"speaker.loop_failed"}
        for _ in range(4):
            await room.command(device="loud")
        assert room.codes() == {"speaker.loop_failed"}
        stage.hears(0.1)
        assert (await room.loop())["level"] == "ok"
        assert stage.played == 3
        await until(lambda: not room.codes())

    stage.play(fails)
    stage.play(stands_after_a_restart)


def test_a_test_that_fails_once_by_chance_raises_nothing(stage: Stage) -> None:
    program(
        stage.bin,
        "aplay",
        "open(here + '/gain', 'w').write(str(0.1 * bool(os.path.exists(here + '/played'))))\n"
        + PLAYER,
    )

    async def scene(room: Room) -> None:
        assert (await room.loop())["level"] == "ok"
        assert stage.played == 2
        await room.command(device="loud")
        assert room.codes() == set()

    stage.play(scene)


@pytest.mark.parametrize("direction", ["c", "p"])
def test_no_sound_is_made_while_a_program_has_microphone_or_loudspeaker(
    stage: Stage, direction: str
) -> None:
    async def scene(room: Room) -> None:
        stage.hold(direction, True)
        seen = await room.loop()
        assert [f["code"] for f in seen["findings"]] == ["speaker.busy"]
        assert stage.played == 0
        assert room.loops() == 0, "what is not opened is not announced"
        stage.hold(direction, False)
        assert (await room.loop())["level"] == "ok"
        assert stage.played == 1

    stage.play(scene)


def test_a_test_that_could_not_be_made_says_nothing_of_the_loudspeaker(stage: Stage) -> None:
    async def scene(room: Room) -> None:
        (stage.bin / "arecord").unlink()
        seen = await room.loop()
        assert seen["level"] == "unknown"
        await room.command(device="loud")
        assert room.codes() == set()

    stage.play(scene)


def test_a_loudspeaker_that_takes_no_sound_stands_until_it_does(stage: Stage) -> None:
    program(stage.bin, "aplay", "say('aplay: pcm_write:2127: write error: Input/output error')\n")

    async def scene(room: Room) -> None:
        assert (await room.loop())["level"] == "fail"
        for _ in range(4):
            await room.command(device="loud")
        assert room.codes() == {"speaker.no_answer"}
        program(stage.bin, "aplay", PLAYER)
        assert (await room.loop())["level"] == "ok"
        await until(lambda: not room.codes())

    stage.play(scene)


def test_who_asked_is_not_lost_to_who_asks_at_the_same_time(stage: Stage) -> None:
    async def scene(room: Room) -> None:
        asking = [asyncio.create_task(room.command(by=by, device="mic")) for by in ("b", "a")]
        await asyncio.sleep(0)
        room.watched["mic"].hurry()
        await asyncio.gather(*asking)
        assert ("look.started", "mic", "check", "a, b") in room.story
        assert {e[3] for e in room.story if e[2] == "watch"} == {"agent"}

    stage.play(scene)


def test_it_is_refused_where_it_is_not_allowed(stage: Stage) -> None:
    async def scene(room: Room) -> None:
        for args, code in (
            ({"device": "mic", "loop": True}, "no_loop_test"),
            ({"device": "loud", "loop": "yes"}, "bad_argument"),
            ({"device": "loud", "loops": True}, "unknown_argument"),
        ):
            assert (await room.command(**args))["code"] == code
        room._on_message("schedule", schedule(-1), False, None)
        assert room.mode is Mode.IN_SESSION
        assert (await room.command(device="loud", loop=True))["code"] == "in_session"
        room._on_message("schedule", schedule(0.1), False, None)  # a test could reach into it
        assert room.mode is Mode.PREPARING
        assert (await room.loop())["level"] == "unknown"
        assert stage.played == 0

    async def not_wanted(room: Room) -> None:
        assert (await room.command(device="loud", loop=True))["code"] == "no_loop_test"
        assert (await room.command(loop=True))["code"] == "no_loop_test"
        assert stage.played == 0

    stage.play(scene)
    stage.play(not_wanted, config="")


def test_in_session_the_numbers_of_a_test_are_told_no_more(stage: Stage) -> None:
    async def scene(room: Room) -> None:
        stage.hears(0)
        await room.loop()
        stage.hears(0.1)
        await until(lambda: room.codes() == {"speaker.loop_failed"})
        room._on_message("schedule", schedule(-1), False, None)
        (finding,) = room.document()["findings"]
        assert finding["code"] == "speaker.loop_failed"
        assert "numbers" not in finding
        assert not {k for k in room.document()["readings"] if k.startswith("microphones")}
        assert not documents.telemetry(room._seen([]), room.now()).keys() & {"mic", "loud"}
        mic = room.standing()["device/mic"]
        assert not {k for k in mic["readings"] if k.endswith(("_dbfs", "_db"))}
        room._on_message("schedule", b'{"v":1,"hearings":[]}', False, None)
        await until(lambda: "microphones" in room.document()["readings"])

    stage.play(scene)


def test_it_is_made_by_itself_once_early_in_the_hour_before_a_hearing(stage: Stage) -> None:
    async def scene(room: Room) -> None:
        await asyncio.sleep(0)
        assert stage.played == 0
        room._on_message("schedule", schedule(50), False, None)
        await until(lambda: room.loops("look.ended"))
        assert ("look.started", "loud", "loop", "agent") in room.story
        ticks = room._folded_s
        await until(lambda: room._folded_s > ticks + 1.5)
        assert (room.loops(), stage.played) == (1, 1)

    stage.play(scene)


def test_a_hearing_that_begins_ends_the_test(stage: Stage) -> None:
    program(stage.bin, "aplay", "time.sleep(60)\n")

    async def scene(room: Room) -> None:
        asking = asyncio.create_task(room.loop())
        await until(lambda: room.loud == {"loud"})
        room._on_message("schedule", schedule(-1), False, None)
        assert (await asking)["level"] == "unknown"
        assert room.loops("look.ended") == 1
        assert room.measuring == set()
        assert not _programs(stage.bin)

    stage.play(scene)


def test_an_agent_that_stops_in_mid_look_records_its_end(stage: Stage) -> None:
    rooms: list[Room] = []

    async def scene(room: Room) -> None:
        rooms.append(room)
        await until(lambda: "mic" in room.measuring)

    stage.play(scene)
    started, ended = (
        [e for e in rooms[0].story if e[0] == f"look.{t}"] for t in ("started", "ended")
    )
    assert len(started) == len(ended) > 0


def _programs(folder: Path) -> list[str]:
    """Our players and recorders that still run."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
        except OSError:
            continue
        if os.fsencode(folder) in line:
            found.append(line.decode())
    return found
