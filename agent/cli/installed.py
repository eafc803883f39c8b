"""What `hearing-room doctor` looks at on an installed box: versions, units, users and rights."""

from __future__ import annotations

import grp
import os
import pwd
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from agent import __version__, control, settings
from agent.cli import netcams, output
from agent.cli.output import Line
from agent.control.places import SYSTEM_RUNTIME
from agent.model import ConfigError, Level

OPT = Path("opt/hearing-room")
UNITS = Path("usr/local/lib/systemd/system")
AGAIN = "run sudo hearing-room-install: it mends what differs, and restarts nothing else"
USERS: Mapping[str, Sequence[str]] = {
    "hearing-room": (),
    "hearing-room-hands": ("hearing-room", "gpio", "i2c", "dialout"),
    "hearing-room-senses": ("video", "audio", "i2c"),
}
"""Who the services run as, and the groups that their units name."""
WANTED = (
    "hearing-room-agent.service",
    "hearing-room-hands.socket",
    "hearing-room-hands.service",
    "hearing-room-senses.socket",
    "hearing-room-reboot.path",
)
_MAY_REST = ("hearing-room-hands.service",)
"""Ends by itself where the room has nothing for it."""

Show = Callable[[Sequence[str]], str]
"""Asks systemd for the properties of units; raises `OSError` where there is none to ask."""


def is_installed(root: Path = Path("/")) -> bool:
    """Whether the program is installed here as services."""
    return (root / OPT / "current").is_symlink()


def examine(config: Path, root: Path = Path("/")) -> Iterator[Line]:
    """Every line about the installation."""
    yield from versions(root)
    yield from files(root)
    yield from units(config)
    yield from cameras(config, root)
    yield from users()
    yield from rights(root)


def versions(root: Path) -> Iterator[Line]:
    """Which version is installed, and whether it is the one that runs."""
    current = (root / OPT / "current").readlink().name
    status = control.read_status(root / SYSTEM_RUNTIME.relative_to("/") / "status.json")
    if status is None or not output.agent_alive(status):
        fix = "journalctl -u hearing-room-agent -n 50 tells why"
        yield Line("installed", Level.FAIL, f"{current}; no agent runs", fix)
        return
    running = str((status.get("agent") or {}).get("version"))
    if running != __version__:
        found = f"{current} ({__version__}), but the agent that runs is {running}"
        yield Line("installed", Level.WARN, found, "sudo systemctl restart hearing-room-agent")
    else:
        yield Line("installed", Level.OK, f"{current}, and it runs")


def shipped() -> Path:
    """The units of this very version."""
    return Path(sys.prefix) / "share/hearing-room/systemd"


def files(root: Path, version: Path | None = None) -> Iterator[Line]:
    """Whether the units in force are those of this version."""
    folder = (version or shipped()) / "system"
    other = [
        file.name
        for file in sorted(folder.glob("*"))
        if _bytes(root / UNITS / file.name) != file.read_bytes()
    ]
    if other:
        yield Line(
            "unit files", Level.WARN, f"other than this version's: {', '.join(other)}", AGAIN
        )
    else:
        yield Line("unit files", Level.OK, "those of this version")


def ask_systemd(names: Sequence[str]) -> str:
    """What systemd knows of units."""
    properties = "Id,LoadState,ActiveState,UnitFileState,NeedDaemonReload"
    done = subprocess.run(
        ["systemctl", "show", f"--property={properties}", *names],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    if done.returncode != 0:
        raise OSError(done.stderr.strip().partition("\n")[0] or "systemctl failed")
    return done.stdout


def units(config: Path, show: Show = ask_systemd) -> Iterator[Line]:
    """Whether every unit is there, enabled, and active."""
    room = _room(config)
    names = list(WANTED)
    if room is not None:
        names += [f"{netcams.PREFIX}{d.id}.socket" for d in netcams.cameras(room)]
    try:
        told = [dict(_pairs(block)) for block in show(names).strip().split("\n\n")]
    except (OSError, subprocess.TimeoutExpired) as error:
        fix = "boot with systemd; in a chroot the units start at the next boot"
        yield Line("units", Level.UNKNOWN, f"systemd does not answer: {error}", fix)
        return
    wrong = False
    for unit in told:
        name = unit.get("Id", "?")
        if unit.get("LoadState") != "loaded" or unit.get("UnitFileState") != "enabled":
            state = f"{unit.get('LoadState')}, {unit.get('UnitFileState') or 'no file'}"
            yield Line(name, Level.FAIL, state, AGAIN)
        elif unit.get("ActiveState") == "failed" or (
            unit.get("ActiveState") not in ("active", "activating") and name not in _MAY_REST
        ):
            fix = f"journalctl -u {name} tells why; sudo systemctl restart {name}"
            yield Line(name, Level.FAIL, str(unit.get("ActiveState")), fix)
        elif unit.get("NeedDaemonReload") == "yes":
            fix = "sudo systemctl daemon-reload"
            yield Line(name, Level.WARN, "its file is newer than what systemd has read", fix)
        else:
            continue
        wrong = True
    if not wrong:
        yield Line("units", Level.OK, f"{len(told)} enabled and in order")


def _pairs(block: str) -> Iterator[tuple[str, str]]:
    for line in block.splitlines():
        key, _, value = line.partition("=")
        yield key, value


def cameras(config: Path, root: Path) -> Iterator[Line]:
    """Whether each network camera has its units, as room.toml says now; the names are not looked
    up again here."""
    room = _room(config)
    if room is None or not netcams.cameras(room):
        return
    folder = root / UNITS
    for camera in netcams.cameras(room):
        texts = [_bytes(folder / f"{netcams.PREFIX}{camera.id}{end}") for end in _ENDS]
        ports = netcams.port_words(camera)
        if None in texts:
            yield Line(f"camera {camera.id}", Level.FAIL, "on the network, and has no units", AGAIN)
        elif ports.encode() not in (texts[1] or b""):
            yield Line(f"camera {camera.id}", Level.FAIL, "its units are of another port", AGAIN)
    known = {f"{netcams.PREFIX}{d.id}.socket" for d in netcams.cameras(room)}
    for stale in sorted(f.name for f in folder.glob(f"{netcams.PREFIX}*.socket")):
        if stale not in known:
            yield Line(stale, Level.INFO, "of a camera that is no longer in room.toml", AGAIN)


_ENDS = (".socket", "@.service")


def users() -> Iterator[Line]:
    """Whether the users of the services exist, and are no more than they should be."""
    missing = []
    for name in USERS:
        try:
            if pwd.getpwnam(name).pw_uid == 0:
                missing.append(f"{name} is root")
        except KeyError:
            missing.append(name)
    groups = sorted({g for wanted in USERS.values() for g in wanted})
    missing += [f"group {g}" for g in groups if not _has_group(g)]
    if missing:
        yield Line("users", Level.FAIL, f"missing: {', '.join(missing)}", AGAIN)
        return
    able = sorted(grp.getgrnam("hearing-room").gr_mem)
    yield Line("users", Level.OK, f"may command: root{''.join(f', {name}' for name in able)}")


def _has_group(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def rights(root: Path) -> Iterator[Line]:
    """Whether the room's file and its secrets are readable for those who need them alone."""
    etc = root / "etc/hearing-room"
    wrong: list[str] = []
    for path, mode in ((etc, 0o750), (etc / "room.toml", 0o640), (etc / "secrets", 0o700)):
        try:
            info = path.stat()
        except FileNotFoundError:
            continue
        except PermissionError:
            yield Line("rights", Level.UNKNOWN, f"{path} may not be looked at", "ask as root")
            return
        if stat.S_IMODE(info.st_mode) & 0o777 & ~mode:
            wrong.append(f"chmod {mode:o} {path}")
        if info.st_uid != 0 and os.geteuid() == 0:
            wrong.append(f"chown root {path}")
        elif path.name == "room.toml" and _group(info.st_gid) not in ("hearing-room", None):
            wrong.append(f"chgrp hearing-room {path}")
    if wrong:
        found = "others may read or change the room's file"
        yield Line("rights", Level.FAIL, found, "; ".join(f"sudo {w}" for w in wrong))
    else:
        yield Line("rights", Level.OK, str(etc))


def _group(gid: int) -> str | None:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return None


def _room(config: Path) -> settings.Room | None:
    """The room of a file that is in order; what is wrong with one is another line."""
    try:
        return settings.load(config)
    except ConfigError:
        return None


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
