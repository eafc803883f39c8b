"""`hearing-room doctor`: the box itself; each line with its fix."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from agent import __version__, control, settings
from agent.cli import installed, output
from agent.cli.output import Line
from agent.clock import kernel_synchronised
from agent.hands import plan
from agent.judge.own import CERTIFICATE_DAYS, REQUIRED_LAYERS
from agent.kinds import host
from agent.kinds.network import certificate
from agent.lanes.lane import Lane, by_hand
from agent.link.contract import Broker
from agent.model import ConfigError, Level, worst

ALL_LAYERS = REQUIRED_LAYERS | {"landlock"}
PI_WATCHDOG_S = 15
"""The most that a Raspberry Pi's watchdog can count; a larger setting leaves it off."""


def run(config: Path, *, as_json: bool, language: str | None, program: bool = False) -> int:
    """Examine the box; the exit code is that of the worst line. `program`: only this version
    itself, as an installation does before it lets it take over; then a warning is no failure."""
    vietnamese = output.language(language) == "vi"
    lines = list(examine_program(config) if program else examine(config))
    for line in lines:
        if as_json:
            entry = {"what": line.what, "level": line.level, "found": line.found, "fix": line.fix}
            print(json.dumps(entry, ensure_ascii=False))
            continue
        print(f"[{output.SIGNS[line.level]}] {line.what}: {line.found}")
        if line.fix:
            print(f"      {'Cách xử lý' if vietnamese else 'Fix'}: {line.fix}")
    level = worst(line.level for line in lines)
    return 0 if program and level is Level.WARN else output.exit_code(level)


Check = Callable[[], Iterator[Line]]


def examine(config: Path) -> Iterator[Line]:
    """Every line of the examination; one that goes wrong is a line that says so."""
    here = installed.is_installed()
    return _each(
        _box,
        *([lambda: installed.examine(config)] if here else []),
        _confinement,
        _clock,
        _ping,
        _programs,
        _watchdog,
        _gpio,
        _folders,
        lambda: _config(config),
    )


def examine_program(config: Path) -> Iterator[Line]:
    """What a version needs to work at all on this box, with this room.toml (or none yet)."""
    return _each(_version, _confinement, _hands_program, lambda: _usable(config))


def _each(*checks: Check) -> Iterator[Line]:
    for check in checks:
        try:
            yield from check()
        except OSError as error:
            yield Line(check.__name__.strip("_"), Level.UNKNOWN, f"cannot be read: {error}")


def _box() -> Iterator[Line]:
    model = host.box_model(Path("/")) or "no model is told"
    python = ".".join(str(n) for n in sys.version_info[:3])
    yield Line("box", Level.OK, f"{model}, Python {python}")


def _version() -> Iterator[Line]:
    yield Line("version", Level.OK, __version__)


def _hands_program() -> Iterator[Line]:
    """Whether the process that holds relays and lights can be started: its libraries are there."""
    command = [sys.executable, "-P", "-s", "-m", "agent.hands.main", "--help"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode == 0:
        yield Line("hands", Level.OK, "starts")
    else:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        fix = f"run {' '.join(command)} by hand and read what it prints"
        yield Line("hands", Level.FAIL, f"does not start: {said}", fix)


def _usable(config: Path) -> Iterator[Line]:
    """Whether this version understands the file that is there; none yet is in order."""
    if not config.exists():
        yield Line("configuration", Level.OK, f"{config} is not there yet")
        return
    try:
        plan.of(settings.load(config))
    except ConfigError as error:
        yield Line("configuration", Level.FAIL, str(error), f"mend {config}")
    else:
        yield Line("configuration", Level.OK, str(config))


def _confinement() -> Iterator[Line]:
    """Start a real worker and read which layers it says are in force."""
    layers = asyncio.run(_worker_layers())
    if layers is None:
        yield Line(
            "worker",
            Level.FAIL,
            "the process that looks at cameras and microphones does not start",
            "run `python -m agent.lanes.worker` by hand and read what it prints",
        )
        return
    missing = sorted(ALL_LAYERS - layers)
    if not missing:
        yield Line("confinement", Level.OK, ", ".join(sorted(layers)))
        return
    level = Level.FAIL if REQUIRED_LAYERS & set(missing) else Level.INFO
    fix = "use a kernel with seccomp and Landlock (Raspberry Pi OS bookworm or later has both)"
    yield Line("confinement", level, f"missing: {', '.join(missing)}", fix)


async def _worker_layers() -> set[str] | None:
    lane = Lane(by_hand("senses"), name="doctor", idle_s=5.0)
    try:
        await lane.ask(
            device="doctor",
            kind="camera",  # the one with the heavy libraries
            settings={"source": "file:/nonexistent.mp4"},
            ask="look",
            deadline_s=5.0,
            words=(),
        )
        return set(lane.hello.confined) if lane.hello else None
    finally:
        await lane.close()


def _clock() -> Iterator[Line]:
    if kernel_synchronised():
        yield Line("clock", Level.OK, "synchronised")
    else:
        fix = "connect the network, or set an NTP server: timedatectl timesync-status"
        yield Line("clock", Level.WARN, "not synchronised", fix)


def _ping() -> Iterator[Line]:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP).close()
    except PermissionError:
        fix = "sysctl net.ipv4.ping_group_range='0 2147483647' (install.sh sets it)"
        yield Line("ping", Level.INFO, "not permitted; round trips are measured by TCP", fix)
    else:
        yield Line("ping", Level.OK, "permitted")


def _programs() -> Iterator[Line]:
    if shutil.which("arecord"):
        yield Line("arecord", Level.OK, "found")
    else:
        yield Line("arecord", Level.WARN, "not found", "apt install alsa-utils")


def _watchdog() -> Iterator[Line]:
    if not Path("/dev/watchdog0").exists():
        fix = "a Raspberry Pi has one; elsewhere a hung kernel stays hung until somebody comes"
        yield Line("hardware watchdog", Level.INFO, "none", fix)
        return
    timeout = Path("/sys/class/watchdog/watchdog0/timeout")
    state = Path("/sys/class/watchdog/watchdog0/state")
    active = state.is_file() and state.read_text().strip() == "active"
    if active:
        yield Line("hardware watchdog", Level.OK, f"active, {timeout.read_text().strip()} s")
    else:
        fix = f"sudo hearing-room-install, or RuntimeWatchdogSec={PI_WATCHDOG_S} in system.conf"
        yield Line("hardware watchdog", Level.WARN, "not in use", fix)


def _gpio() -> Iterator[Line]:
    """Whether relays, lights and a button on pins are within reach."""
    from agent.hands import lines  # the library for pins is not for every command

    if os.environ.get("GPIOZERO_PIN_FACTORY") == "mock":
        yield Line("gpio", Level.INFO, "simulated pins (GPIOZERO_PIN_FACTORY=mock)")
        return
    try:
        chip = lines.find_chip()
    except PermissionError:
        fix = "be in group gpio: adduser YOU gpio, and log in again"
        yield Line("gpio", Level.WARN, "/dev/gpiochip* may not be opened", fix)
        return
    if chip is not None:
        yield Line("gpio", Level.OK, f"{chip.path}, {chip.label}")
        return
    fix = (
        "a Raspberry Pi has it, to user root or group gpio; to try relays and lights without, set"
        " GPIOZERO_PIN_FACTORY=mock"
    )
    yield Line("gpio", Level.INFO, "none on this machine", fix)


def _folders() -> Iterator[Line]:
    folders = control.folders()
    for name, folder in (("state", folders.state), ("runtime", folders.runtime)):
        nearest = next(p for p in (folder, *folder.parents) if p.exists())
        if os.access(nearest, os.W_OK):
            yield Line(f"{name} folder", Level.OK, str(folder))
        else:
            fix = "run as the user of the service, or set $STATE_DIRECTORY and $RUNTIME_DIRECTORY"
            yield Line(f"{name} folder", Level.WARN, f"{folder} cannot be written", fix)


def _config(path: Path) -> Iterator[Line]:
    try:
        room = settings.load(path)
        plan.of(room)
    except ConfigError as error:
        yield Line("configuration", Level.FAIL, str(error), f"mend {path}, or hearing-room adopt")
        return
    yield Line("configuration", Level.OK, f"{path}, room {room.id}, {len(room.devices)} devices")
    if room.broker is not None:
        yield from _certificate(room.broker)


def _certificate(broker: Broker) -> Iterator[Line]:
    if broker.certificate_file is None:
        return
    days = certificate.days_left(broker.certificate_file, time.time())
    if days is None:
        fix = "put a PEM certificate there that this user can read"
        yield Line("certificate", Level.FAIL, f"{broker.certificate_file}: not readable", fix)
    elif days < CERTIFICATE_DAYS:
        fix = "ask the centre for a new certificate"
        yield Line("certificate", Level.WARN, f"{days:.0f} days left", fix)
    else:
        yield Line("certificate", Level.OK, f"{days:.0f} days left")
