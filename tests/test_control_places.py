"""Where the agent's files are, and the status file that all may read."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent import control
from agent.control import Folders, folders, make, read_status, remove_status, write_status
from agent.model import ConfigError

NOBODY = 65_534


@pytest.fixture
def somebody(tmp_path: Path) -> Iterator[Path]:
    """This process as a user without rights, and a folder of its own."""
    if os.geteuid() != 0:
        yield tmp_path
        return
    folder = Path("/tmp") / f"hearing-room-test-{os.getpid()}"
    folder.mkdir(mode=0o700)
    os.chown(folder, NOBODY, NOBODY)
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    yield folder
    os.seteuid(0)
    os.setegid(0)
    for path in sorted(folder.rglob("*"), reverse=True):
        path.unlink() if path.is_symlink() or not path.is_dir() else path.rmdir()
    folder.rmdir()


# -- folders --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "uid", "state", "runtime"),
    [
        ({}, 0, "/var/lib/hearing-room", "/run/hearing-room"),
        (
            {"XDG_RUNTIME_DIR": "/x", "HOME": "/root"},
            0,
            "/var/lib/hearing-room",
            "/run/hearing-room",
        ),
        ({"STATE_DIRECTORY": "/s", "RUNTIME_DIRECTORY": "/r"}, 0, "/s", "/r"),
        ({"STATE_DIRECTORY": "/s:/t", "RUNTIME_DIRECTORY": "/r:/q"}, 1000, "/s", "/r"),
        (
            {"HOME": "/home/lan", "XDG_RUNTIME_DIR": "/run/user/1000"},
            1000,
            "/home/lan/.local/state/hearing-room",
            "/run/user/1000/hearing-room",
        ),
        (
            {"HOME": "/home/lan", "XDG_STATE_HOME": "/st"},
            1000,
            "/st/hearing-room",
            "/tmp/hearing-room-1000",
        ),
        (
            {"HOME": "/home/lan", "RUNTIME_DIRECTORY": "/r"},
            1000,
            "/home/lan/.local/state/hearing-room",
            "/r",
        ),
        ({"STATE_DIRECTORY": "", "HOME": ""}, 0, "/var/lib/hearing-room", "/run/hearing-room"),
    ],
)
def test_the_folders_are_those_of_systemd_of_root_or_of_the_user(
    environ: dict[str, str], uid: int, state: str, runtime: str
) -> None:
    assert folders(environ, uid) == Folders(Path(state), Path(runtime))


def test_a_user_gets_private_folders(somebody: Path) -> None:
    where = Folders(somebody / "a/b/state", somebody / "run")
    make(where)
    make(where)  # again is no harm
    for folder in (where.state, where.runtime):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_root_gets_a_runtime_folder_that_all_may_enter(tmp_path: Path) -> None:
    where = Folders(tmp_path / "state", tmp_path / "run")
    make(where)
    assert stat.S_IMODE(where.state.stat().st_mode) == 0o750
    assert stat.S_IMODE(where.runtime.stat().st_mode) == 0o755


@pytest.mark.parametrize("trap", ["link", "open", "foreign", "file"])
def test_a_trap_in_a_shared_folder_is_refused(somebody: Path, trap: str) -> None:
    where = Folders(somebody / "state", somebody / "run")
    if trap == "link":
        (somebody / "elsewhere").mkdir()
        where.runtime.symlink_to(somebody / "elsewhere")
    elif trap == "open":
        where.runtime.mkdir()
        where.runtime.chmod(0o777)
    elif trap == "file":
        where.runtime.touch()
    else:
        where = Folders(somebody / "state", Path("/tmp"))
    with pytest.raises(ConfigError, match=str(where.runtime)):
        make(where)
    if trap in ("link", "file"):
        where.runtime.unlink()
    elif trap == "open":
        where.runtime.chmod(0o700)
    else:
        where = Folders(somebody / "state", somebody / "run")
    make(where)


def test_a_folder_that_cannot_be_made_says_what_to_set(somebody: Path) -> None:
    with pytest.raises(ConfigError, match="STATE_DIRECTORY"):
        make(Folders(Path("/proc/hearing-room"), somebody / "run"))
    make(Folders(somebody / "state", somebody / "run"))


def test_a_client_asks_its_own_agent_before_the_systems(
    somebody: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(somebody))
    installed = somebody / "installed"
    monkeypatch.setattr("agent.control.places.SYSTEM_RUNTIME", installed)
    own = somebody / "hearing-room"
    assert control.runtime_to_ask() == own  # nothing anywhere
    installed.mkdir()
    assert control.runtime_to_ask() == installed
    own.mkdir(mode=0o700)
    assert control.runtime_to_ask() == installed  # no agent has left anything there
    write_status(own / "status.json", {})
    assert control.runtime_to_ask() == own
    own.chmod(0o777)  # anybody could have put that file there
    assert control.runtime_to_ask() == installed
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/r")
    assert control.runtime_to_ask() == Path("/r")


# -- the status file ------------------------------------------------------------------------------


def test_the_status_file_is_for_all_and_the_same_again_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    before = os.umask(0o077)
    try:
        assert write_status(path, {"readiness": {"state": "ready"}, "name": "Phòng số 1"})
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    first = path.stat().st_ino
    assert not write_status(path, {"readiness": {"state": "ready"}, "name": "Phòng số 1"})
    assert path.stat().st_ino == first
    assert write_status(path, {"readiness": {"state": "at_risk"}})
    assert read_status(path) == {"readiness": {"state": "at_risk"}}
    assert [p.name for p in tmp_path.iterdir()] == ["status.json"]


def test_a_reader_never_sees_half_a_status(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    write_status(path, {"i": 0, "fill": ""})
    seen: list[dict[str, Any] | None] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.append(read_status(path))

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(300):
        write_status(path, {"i": i, "fill": "x" * (i * 97 % 20_000)})
    stop.set()
    reader.join()
    assert None not in seen
    assert all(s is not None and len(s["fill"]) == s["i"] * 97 % 20_000 for s in seen)


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", "\x00", "[" * 100_000, '{"a":"' + "x" * 2_000_000]
)
def test_a_status_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "status.json"
    assert read_status(path) is None
    path.write_text(text)
    assert read_status(path) is None
    assert write_status(path, {"i": 1})
    assert read_status(path) == {"i": 1}
    remove_status(path)
    remove_status(path)
    assert read_status(path) is None


def test_a_status_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    write_status(path, {"i": 1})
    blocker = tmp_path / ".status.json.new"
    blocker.mkdir()
    with pytest.raises(OSError, match=r"status\.json"):
        write_status(path, {"i": 2})
    assert read_status(path) == {"i": 1}
    blocker.rmdir()
    assert write_status(path, {"i": 2})
