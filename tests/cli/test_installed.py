"""`hearing-room doctor` on an installed box, and whether a box may be worked on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from agent import clock, control
from agent.cli import installed, may_upgrade
from agent.cli.output import Line
from agent.model import Level

ROOM = '[room]\nsite = "test"\nid = "room-01"\n'
NETCAM = '[camera.far]\nsource = "rtsp://192.0.2.7:8554/stream"\n'


@pytest.fixture
def box(tmp_path: Path) -> Path:
    """The files of an installed box, as far as doctor looks."""
    for folder in ("opt/hearing-room/1.0", "run/hearing-room", "etc/hearing-room/secrets"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "opt/hearing-room/current").symlink_to("1.0")
    (tmp_path / installed.UNITS).mkdir(parents=True)
    (tmp_path / "etc/hearing-room").chmod(0o750)
    (tmp_path / "etc/hearing-room/secrets").chmod(0o700)
    return tmp_path


def one(lines: Sequence[Line], level: Level) -> Line:
    (found,) = [line for line in lines if line.level is level]
    return found


def running(box: Path, version: str) -> None:
    """A status file of a process that lives: this one."""
    pid = os.getpid()
    document = {
        "agent": {
            "pid": pid,
            "start": clock.process_start(pid),
            "version": version,
            "boot": clock.boot_id(),
        },
        "valid_until_up_s": clock.up_s() + 100,
    }
    control.write_status(box / "run/hearing-room/status.json", document)


def test_a_box_is_installed_when_it_has_a_current_version(box: Path, tmp_path: Path) -> None:
    assert installed.is_installed(box)
    assert not installed.is_installed(tmp_path / "opt")


def test_the_version_that_runs_is_compared_with_the_one_installed(box: Path) -> None:
    (line,) = installed.versions(box)
    assert (line.level, "journalctl" in line.fix) == (Level.FAIL, True)
    running(box, "0.0.1")
    (line,) = installed.versions(box)
    assert (line.level, "restart hearing-room-agent" in line.fix) == (Level.WARN, True)
    running(box, installed.__version__)
    (line,) = installed.versions(box)
    assert (line.level, line.found) == (Level.OK, "1.0, and it runs")


def test_units_of_another_version_are_seen(box: Path, tmp_path: Path) -> None:
    version = tmp_path / "version"
    (version / "system").mkdir(parents=True)
    (version / "system/a.service").write_text("[Unit]\n")
    (line,) = installed.files(box, version)
    assert line.level is Level.WARN
    assert "a.service" in line.found
    (box / installed.UNITS / "a.service").write_text("[Unit]\n")
    (line,) = installed.files(box, version)
    assert line.level is Level.OK


def told(**changes: str) -> str:
    """What systemd says of the units, all well but for the agent's changes."""
    blocks = []
    for name in installed.WANTED:
        state = {"LoadState": "loaded", "ActiveState": "active", "UnitFileState": "enabled"}
        state["NeedDaemonReload"] = "no"
        if name == "hearing-room-hands.service":
            state["ActiveState"] = "inactive"  # a room with nothing for it
        if name == "hearing-room-agent.service":
            state |= changes
        blocks.append("\n".join(f"{k}={v}" for k, v in {"Id": name, **state}.items()))
    return "\n\n".join(blocks)


@pytest.mark.parametrize(
    ("changes", "level", "word"),
    [
        ({}, Level.OK, "enabled and in order"),
        ({"LoadState": "not-found", "UnitFileState": ""}, Level.FAIL, "not-found"),
        ({"UnitFileState": "disabled"}, Level.FAIL, "disabled"),
        ({"ActiveState": "failed"}, Level.FAIL, "failed"),
        ({"ActiveState": "inactive"}, Level.FAIL, "inactive"),
        ({"NeedDaemonReload": "yes"}, Level.WARN, "newer"),
    ],
)
def test_every_unit_has_to_be_there_enabled_and_active(
    tmp_path: Path, changes: dict[str, str], level: Level, word: str
) -> None:
    (line,) = installed.units(tmp_path / "none.toml", lambda _: told(**changes))
    assert line.level is level
    assert word in line.found
    assert bool(line.fix) is (level is not Level.OK)


def test_a_systemd_that_does_not_answer_is_unknown(tmp_path: Path) -> None:
    def silent(names: Sequence[str]) -> str:
        raise OSError("no bus")

    (line,) = installed.units(tmp_path / "none.toml", silent)
    assert line.level is Level.UNKNOWN


def test_units_of_network_cameras_are_asked_for_and_compared(box: Path) -> None:
    config = box / "etc/hearing-room/room.toml"
    config.write_text(ROOM + NETCAM)
    asked: list[str] = []
    list(installed.units(config, lambda names: asked.extend(names) or told()))
    assert "hearing-room-netcam-far.socket" in asked
    assert one(list(installed.cameras(config, box)), Level.FAIL).fix == installed.AGAIN
    folder = box / installed.UNITS
    (folder / "hearing-room-netcam-far.socket").touch()
    service = folder / "hearing-room-netcam-far@.service"
    service.write_text("ExecStart=x --port 8554\n")
    assert list(installed.cameras(config, box)) == []
    service.write_text("ExecStart=x --port 554\n")
    assert "port" in one(list(installed.cameras(config, box)), Level.FAIL).found
    config.write_text(ROOM + NETCAM.replace("far", "other"))
    found = list(installed.cameras(config, box))
    assert "hearing-room-netcam-far.socket" in one(found, Level.INFO).what


def test_a_room_that_others_can_read_is_a_fault_with_its_fix(box: Path) -> None:
    (line,) = installed.rights(box)
    assert line.level is Level.OK
    config = box / "etc/hearing-room/room.toml"
    config.touch(0o600)
    config.chmod(0o644)
    (line,) = installed.rights(box)
    assert line.level is Level.FAIL
    assert f"sudo chmod 640 {config}" in line.fix
    config.chmod(0o600)
    (box / "etc/hearing-room/secrets").chmod(0o755)
    (line,) = installed.rights(box)
    assert "chmod 700" in line.fix


def test_what_an_installation_asks_of_a_version(tmp_path: Path) -> None:
    def doctor(config: Path) -> tuple[int, dict[str, str]]:
        command = [sys.executable, "-m", "agent", "doctor", "--program", "--json"]
        done = subprocess.run(
            [*command, "--config", config], capture_output=True, text=True, timeout=120
        )
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        return done.returncode, {line["what"]: line["level"] for line in lines}

    code, lines = doctor(tmp_path / "room.toml")
    assert set(lines) == {"version", "confinement", "hands", "configuration"}
    assert (code, lines["configuration"], lines["hands"]) == (0, "ok", "ok"), "none is needed yet"
    (tmp_path / "room.toml").write_text(ROOM + "[camera.x]\nsource = 1\n")
    code, lines = doctor(tmp_path / "room.toml")
    assert (code, lines["configuration"]) == (2, "fail")


# -- may-upgrade ---------------------------------------------------------------------------------

NOW = time.time()
BOOT = "0badcafe"


def at(offset_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(NOW + offset_s))


def status(mode: str, ends_s: float | None = None, boot: str = BOOT) -> dict[str, Any]:
    hearing = None
    if ends_s is not None:
        hearing = {"id": "HS-1", "starts": at(-3600), "ends": at(ends_s)}
    return {"agent": {"boot": boot}, "readiness": {"mode": mode, "hearing": hearing}}


@pytest.mark.parametrize(
    ("document", "alive", "busy"),
    [
        (None, False, False),
        (status("idle"), True, False),
        (status("maintenance", 600), True, False),
        (status("preparing", 600), True, True),
        (status("in_session", 600), True, True),
        (status("recess", 600), True, True),
        (status("in_session"), True, True),  # a call that nobody announced
        # A dead agent may be mended, but not in the middle of the hearing that it knew of.
        (status("in_session", 600), False, True),
        (status("in_session", -600), False, False),
        (status("in_session"), False, False),
        (status("in_session", 600, "another0"), False, False),  # of another boot
    ],
)
def test_nothing_is_upgraded_while_a_hearing_runs_or_is_near(
    document: dict[str, Any] | None, alive: bool, busy: bool
) -> None:
    why = may_upgrade.busy(document, alive=alive, boot=BOOT, utc_s=NOW)
    assert bool(why) is busy


def test_scripts_are_told_by_the_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask() -> tuple[int, dict[str, Any]]:
        command = [sys.executable, "-m", "agent", "may-upgrade", "--json"]
        env = {**os.environ, "RUNTIME_DIRECTORY": str(tmp_path)}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
        return done.returncode, json.loads(done.stdout)

    assert ask() == (0, {"may": True, "why": None})
    document = status("in_session", 600, clock.boot_id())
    control.write_status(tmp_path / "status.json", document)
    code, answer = ask()
    assert (code, answer["may"]) == (75, False)
    assert "in_session" in answer["why"]
    assert "HS-1" in answer["why"]
