"""No frame and no sample is ever written, logged or sent: a picture and a sound that carry a secret
go through a whole agent, which logs all it can and crashes in the middle of a look."""

from __future__ import annotations

import base64
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from e2e_stage import MOSQUITTO, ROOT, Agent, Broker, Listener, running, wait_for
from privacy_stage import (
    Births,
    Search,
    Tap,
    cells,
    forms,
    hidden_in,
    in_memory,
    long_runs,
    marked_clip,
    marked_sound,
    open_for_writing,
    written,
)

from agent.lanes.wire import MAX_LINE

pytestmark = pytest.mark.broker
DEVICES = """
[camera.cam]
source = "file:{sources}/marked.avi"
period_s = 1
raise_s = 1
[microphone.mic]
source = "file:{sources}/marked.wav"
period_s = 1
raise_s = 1
"""
DUMPS = not Path("/proc/sys/kernel/core_pattern").read_text().startswith(("|", "/"))
"""Whether a core falls where the process works: only then can the test find it."""


class Watched(Agent):
    """The real program, with debug logging, cores without limit, and every folder our own."""

    def __init__(self, folder: Path, config: str, port: int) -> None:
        super().__init__(folder, config, port)
        for name in ("tmp", "home", "cwd"):
            (folder / name).mkdir()
        self.env |= {
            "TMPDIR": str(folder / "tmp"),
            "HOME": str(folder / "home"),
            "PYTHONASYNCIODEBUG": "1",
        }

    def start(self) -> None:
        words = ["run", "--config", str(self.config), "--log-level", "debug"]
        with (self.folder / "agent.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "agent", *words],
                env=self.env,
                stdout=log,
                stderr=log,
                cwd=self.folder / "cwd",
            )
        dump_without_limit(self.process.pid)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid


def dump_without_limit(pid: int) -> None:
    """What it starts inherits it; a worker takes it back by itself."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_CORE)
    resource.prlimit(pid, resource.RLIMIT_CORE, (hard, hard))


@dataclass
class Scene:
    """What the agent of the scene left behind, and what was seen while it looked."""

    agent: Watched
    search: Search
    tap: Tap
    births: Births
    found: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    worker: dict[str, Any] = field(default_factory=dict)
    in_agent: set[str] | None = None
    core_bytes: int = 0
    answers: list[str] = field(default_factory=list)

    def sweep(self, when: str) -> None:
        self.found[when] = self.search.in_files()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    if MOSQUITTO is None:
        pytest.skip("mosquitto is not installed")
    folder = tmp_path_factory.mktemp("privacy")
    sources = folder / "sources"
    sources.mkdir()
    needles = forms(marked_clip(sources / "marked.avi") | marked_sound(sources / "marked.wav"))
    search = Search(needles, folder, sources)
    broker = Broker(folder)
    agent = Watched(folder, DEVICES.format(sources=sources), broker.port)
    births = Births(*(folder / name for name in ("tmp", "home", "cwd")))
    played = Scene(agent, search, Tap(broker.port), births)
    listener = Listener(broker.port)
    try:
        with running(agent):
            play(played, listener, sources, broker)
        yield played
    finally:
        listener.close()
        played.tap.close()
        births.close()
        broker.stop()


def in_a_look(listener: Listener, after: int) -> None:
    """Wait until the camera is being looked at."""

    def looking() -> bool:
        looks = [e["type"] for e in listener.events("look.")[after:] if e["device"] == "cam"]
        return bool(looks) and looks[-1] == "look.started"

    wait_for(looking, 60, "no look begins")


def faults(listener: Listener, after: int) -> set[str]:
    """The faults of the camera's looks."""
    ended = [e for e in listener.events("look.ended")[after:] if e["device"] == "cam"]
    return {e["fault"] for e in ended if "fault" in e}


def a_look_ended(listener: Listener, after: int) -> None:
    """Wait for a look that gave numbers."""

    def ended() -> bool:
        looks = [e for e in listener.events("look.ended")[after:] if e["device"] == "cam"]
        return any("fault" not in e for e in looks)

    wait_for(ended, 60, "no look ends well")


def play(scene: Scene, listener: Listener, sources: Path, broker: Broker) -> None:
    agent = scene.agent
    a_look_ended(listener, 0)
    examine(scene, listener)
    # A worker dies in the middle of a look, as by an assertion in a library.
    for _ in range(5):
        ends = len(listener.events("look.ended"))
        in_a_look(listener, 0)
        time.sleep(0.5)
        for pid in agent.workers():
            os.kill(pid, signal.SIGABRT)
        a_look_ended(listener, ends)
        if faults(listener, ends):
            break
    assert faults(listener, 0) == {"no_answer"}
    scene.sweep("after a worker was aborted")
    # The agent dies in the middle of a look: once without a word, once with a core.
    for number in (signal.SIGKILL, signal.SIGABRT):
        begun = len(listener.events("look."))
        in_a_look(listener, begun)
        os.kill(agent.pid, number)
        assert agent.process is not None
        agent.process.wait(20)
        scene.sweep(f"after {number.name}")
        for core in (agent.folder / "cwd").glob("core*"):
            scene.core_bytes = core.stat().st_size
            core.unlink()
        agent.start()
        a_look_ended(listener, len(listener.events("look.ended")))
    # A clip that breaks off in the middle of a picture, and a recording that is none.
    ends = len(listener.events("look.ended"))
    clip, sound = sources / "marked.avi", sources / "marked.wav"
    clip.write_bytes(clip.read_bytes()[20_000:90_000])
    sound.write_bytes(sound.read_bytes()[40:])
    wait_for(lambda: "error" in faults(listener, ends), 60, "a broken clip is not noticed")
    # Whoever asks is answered, and reads the status. The broker writes down what it keeps.
    for words in (["check", "--json"], ["check"], ["status", "--json"], ["status"]):
        told = agent.command(*words)
        scene.answers += [told.stdout, told.stderr]
    broker.stop()
    broker.start()
    wait_for(lambda: listener.last("status").get("state") == "online", 30)
    assert agent.stop() == 0
    scene.sweep("after the end")


def examine(scene: Scene, listener: Listener) -> None:
    """The worker in mid-look, and what of it is in the agent."""
    raw = {name: n for name, n in scene.search.needles.items() if name.endswith("raw")}
    for _ in range(8):
        in_a_look(listener, 0)
        time.sleep(0.7)  # some pictures
        for pid in scene.agent.workers():
            try:
                seen: dict[str, Any] = {
                    "written": written(pid),
                    "open": open_for_writing(pid),
                    "limits": Path(f"/proc/{pid}/limits").read_text(),
                    "looks": len(listener.events("look.")),
                    "sees": in_memory(pid, raw),
                }
            except (PermissionError, FileNotFoundError, ProcessLookupError):
                continue  # not dumpable: only root may look into it
            if any(name.startswith(("points", "blocks")) for name in seen["sees"]):
                scene.worker = seen
                scene.in_agent = in_memory(scene.agent.pid, scene.search.needles)
                return
    scene.in_agent = in_memory(scene.agent.pid, scene.search.needles)


# -- nothing is there -----------------------------------------------------------------------------


def test_nothing_that_was_written_holds_the_picture_or_the_sound(scene: Scene) -> None:
    assert set(scene.found) == {
        "after a worker was aborted",
        "after SIGKILL",
        "after SIGABRT",
        "after the end",
    }
    assert not any(scene.found.values()), scene.found
    names = {p.name for p in scene.search.files()}
    assert {"agent.db", "agent.log", "mosquitto.db"} <= names, names


def test_nothing_that_was_said_holds_them(scene: Scene) -> None:
    topics = {topic.removeprefix(ROOT) for topic, _ in scene.tap.said}
    assert topics >= {"about", "status", "readiness", "event", "device/cam", "device/mic"}
    assert scene.search.in_messages(scene.tap) == {}
    for text in scene.answers:
        assert hidden_in(text.encode(), scene.search.needles) == []
    assert any('"cam"' in text for text in scene.answers)


def test_the_agent_dumped_its_core_and_there_is_no_picture_in_it(scene: Scene) -> None:
    assert scene.in_agent == set(), "the agent's memory holds what only a worker may see"
    if not DUMPS:
        pytest.skip("this machine hands its cores to a program or to another folder")
    cores = [p for p in scene.births.seen if p.name.startswith("core")]
    assert [p.parent.name for p in cores] == ["cwd"], "the agent alone may dump its core"
    assert scene.core_bytes > 1 << 20


def test_no_file_was_born_where_programs_leave_things(scene: Scene) -> None:
    assert {p for p in scene.births.seen if not p.name.startswith("core")} == set()
    root = [p for p in scene.search.files() if p.parent == Path("/")]
    assert [p for p in root if p.name.startswith("core")] == []


def test_the_worker_that_saw_wrote_nothing_but_its_answers(scene: Scene) -> None:
    if not scene.worker and os.geteuid():
        pytest.skip("only root may look into a worker")
    # The secret is one that the worker truly sees, in the very form that is searched for.
    assert scene.worker["sees"], "no worker was seen to see it"
    assert scene.worker["written"]["write_bytes"] == 0
    assert scene.worker["written"]["wchar"] <= MAX_LINE * (2 + scene.worker["looks"])
    for name in scene.worker["open"]:
        assert name.startswith(("socket:", "pipe:", "anon_inode:", "/dev/")), name
    (core,) = [x for x in scene.worker["limits"].splitlines() if x.startswith("Max core file")]
    assert core.split()[4:6] == ["0", "0"]


def test_every_look_is_told_with_purpose_and_who_asked(scene: Scene) -> None:
    events = [json.loads(body) for topic, body in scene.tap.said if topic == ROOT + "event"]
    looks = [e for e in events if e["type"].startswith("look.")]
    assert {e["device"] for e in looks} == {"cam", "mic"}
    assert all(e["by"] and e["purpose"] for e in looks)
    assert {e["by"] for e in looks} == {"agent", f"uid:{os.getuid()}"}


# -- nor anything that could hold it --------------------------------------------------------------


def test_no_long_word_and_no_row_of_numbers_is_said_logged_or_kept(scene: Scene) -> None:
    folder = scene.agent.folder
    known = sorted({str(folder), str(Path(sys.executable).parent), str(Path.cwd())}, reverse=True)
    for topic, payload in scene.tap.said:
        assert long_runs(payload) == [], topic
        assert len(payload) <= 16_384
    assert long_runs((folder / "agent.log").read_bytes(), known) == []
    for text in scene.answers:
        assert long_runs(text.encode(), known) == []
    for table, content in cells(folder / "state/agent.db"):
        assert long_runs(content) == [], table


# -- in session no level at all -------------------------------------------------------------------


def levels(document: Any, place: str = "") -> set[str]:
    """The keys of a document that hold a level, wherever they stand."""
    if isinstance(document, dict):
        here = {
            f"{place}.{k}" for k in document if k.endswith(("_dbfs", "_db")) or k == "luma_mean"
        }
        return here.union(*(levels(v, f"{place}.{k}") for k, v in document.items()))
    if isinstance(document, list):
        return set().union(*(levels(item, place) for item in document))
    return set()


def test_in_session_no_level_is_published(tmp_path: Path, broker: Broker) -> None:
    sources = tmp_path / "sources"
    sources.mkdir()
    marked_clip(sources / "marked.avi")
    marked_sound(sources / "marked.wav")
    listener = Listener(broker.port)
    now = datetime.now(UTC)
    hearing = {"id": "HS-1", "starts": (now - timedelta(minutes=1)).isoformat()}
    hearing["ends"] = (now + timedelta(hours=1)).isoformat()
    with running(Agent(tmp_path, DEVICES.format(sources=sources), broker.port)) as agent:
        wait_for(lambda: levels(listener.last("device/mic")), 60, "nothing is heard")
        wait_for(lambda: levels(listener.last("device/cam")), 60, "nothing is seen")
        wait_for(lambda: levels(listener.last("readiness")), 30, "no verdict rests on a level")
        assert levels(json.loads((tmp_path / "run/status.json").read_text()))
        listener.publish("schedule", {"v": 1, "hearings": [hearing]}, retain=True)
        wait_for(lambda: listener.last("readiness").get("mode") == "in_session", 10)
        begun = next(
            i
            for i, (suffix, document, _) in enumerate(listener.messages)
            if suffix == "mode" or (document or {}).get("mode") == "in_session"
        )
        wait_for(lambda: listener.last("device/mic").get("fault") == "skipped: in_session", 10)
        wait_for(lambda: listener.last("device/cam").get("fault") == "skipped: in_session", 10)
        assert agent.command("command", "report").returncode == 0
        time.sleep(3)  # some periods
        for suffix, document, _ in listener.messages[begun:]:
            assert levels(document) == set(), suffix
        assert levels(json.loads((tmp_path / "run/status.json").read_text())) == set()
        # What a broker has kept from before says nothing either.
        late = Listener(broker.port)
        wait_for(lambda: {"device/mic", "readiness"} <= {s for s, *_ in late.messages}, 10)
        assert not any(levels(document) for _, document, kept in late.messages if kept)
        late.close()
        listener.publish("schedule", {"v": 1, "hearings": []}, retain=True)
        wait_for(lambda: levels(listener.last("device/mic")), 60, "afterwards they are back")
    listener.close()


# -- the search works: what is planted is found ---------------------------------------------------


def planted(scene: Scene) -> bytes:
    return next(n for name, n in scene.search.needles.items() if name == "points 0: raw")


def test_a_secret_in_a_temporary_file_is_found(scene: Scene) -> None:
    ways = ("raw", "base64+0", "base64url+2", "base32+4", "hex", "commas and spaces", "JSON")
    names = [
        f"{secret}: {way}"
        for secret in ("file", "blocks 0", "points 1, small", "samples")
        for way in ways
    ]
    files = {name: scene.agent.folder / "tmp" / f"left-{i}" for i, name in enumerate(names)}
    for name, file in files.items():
        file.write_bytes(os.urandom(4_999) + scene.search.needles[name] + os.urandom(77))
    try:
        found = scene.search.in_files()
        for name, file in files.items():
            assert name in found[str(file)]
    finally:
        for file in files.values():
            file.unlink()
    assert set(files.values()) <= scene.births.seen, "what is gone again was seen all the same"


def test_a_secret_as_base64_is_found_wherever_it_begins(scene: Scene) -> None:
    for before in range(3):
        text = base64.b64encode(b"x" * before + planted(scene) + b"y")
        assert any("base64" in n for n in hidden_in(text, scene.search.needles)), before


def test_a_secret_in_the_log_the_store_and_shared_memory_is_found(scene: Scene) -> None:
    folder, needles = scene.agent.folder, scene.search.needles
    log, shared = folder / "agent.log", Path("/dev/shm") / f"privacy-{os.getpid()}"
    said = log.read_bytes()
    db = sqlite3.connect(folder / "state" / "plant.db", isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE events(payload BLOB)")
        db.execute("INSERT INTO events VALUES(?)", (needles["samples: base64+0"],))
        log.write_bytes(said + b"DEBUG worker: " + planted(scene).hex().encode() * 2)
        shared.write_bytes(planted(scene))
        found = scene.search.in_files()
        assert set(found) >= {str(log), str(shared), str(folder / "state/plant.db-wal")}
        assert any(hidden_in(content, needles) for _, content in cells(folder / "state/plant.db"))
        assert long_runs(log.read_bytes(), [str(folder)])
    finally:
        db.close()
        log.write_bytes(said)
        shared.unlink()
        for path in (folder / "state").glob("plant.db*"):
            path.unlink()
    assert scene.search.in_files() == {}


def test_a_secret_in_a_message_is_found(scene: Scene) -> None:
    payload = json.dumps({"luma": list(planted(scene))}).encode()
    before = len(scene.tap.said)
    for said in (payload, b"{}"):  # what comes after it hides nothing
        scene.tap.publish(ROOT + "device/cam", said)
    wait_for(lambda: len(scene.tap.said) == before + 2, 10)
    try:
        assert set(scene.search.in_messages(scene.tap)) == {ROOT + "device/cam"}
        assert long_runs(payload)
    finally:
        del scene.tap.said[before:]


@pytest.mark.skipif(not DUMPS, reason="cores do not fall where the process works")
def test_a_secret_in_a_core_is_found(scene: Scene) -> None:
    """What the worker would leave, were it not confined."""
    secret = planted(scene)
    folder = scene.agent.folder / "cwd" / "unconfined"
    folder.mkdir()
    code = f"import sys; held = bytes.fromhex({secret.hex()!r}) * 9; print(1, flush=True); input()"
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder
    )
    with child:
        dump_without_limit(child.pid)
        assert child.stdout is not None
        child.stdout.readline()
        child.send_signal(signal.SIGABRT)
    try:
        (core,) = folder.glob("core*")
        assert "points 0: raw" in scene.search.in_files()[str(core)]
    finally:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
