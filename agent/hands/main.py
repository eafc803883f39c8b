"""The process that holds relays, lights and the button.

    python -m agent.hands.main --config room.toml --state FOLDER [--socket PATH] [--user NAME]

Under systemd the socket and the lines of an earlier process come with the start; by hand it makes
its socket itself and goes when that is gone. It has no network. SIGTERM makes safe what has to be
and ends it; SIGUSR2 ends it with everything held as it is, for whoever starts it again at once.
"""

from __future__ import annotations

import argparse
import fcntl
import logging
import os
import pwd
import select
import socket
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

from agent import __version__, clock, notify
from agent.hands import layout as layouts
from agent.hands.desk import Desk
from agent.hands.hardware import KEPT, Hardware
from agent.hands.keeper import Keeper
from agent.hands.layout import Layout
from agent.hands.loop import MAX_CLIENTS, Loop
from agent.hands.planning import Planner
from agent.hands.usb import UsbSteps
from agent.lanes import wire
from agent.lanes.confine import confine_hands

log = logging.getLogger("hands")

_CONFIG, _BUSY = 78, 75


def main(arguments: Sequence[str] | None = None) -> int:
    """Hold what the room has, until told to stop. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="agent.hands.main", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the room's file")
    parser.add_argument("--state", type=Path, help="folder of the state file")
    parser.add_argument("--socket", type=Path, help="make this socket (by hand)")
    parser.add_argument("--user", help="the agent's user, who may ask as well")
    parser.add_argument("--root", type=Path, default=Path("/"), help="where /sys and /dev are")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    handed = notify.handed()
    state = options.state or Path(os.environ.get("STATE_DIRECTORY", "").partition(":")[0] or ".")
    lines, sockets = _sort(handed)
    try:
        listener = _listen(options.socket, sockets)
        users = _users(options.user)
    except OSError as error:
        log.error("%s", error)
        return _BUSY
    layers = confine_hands()
    keeper = Keeper(state)
    loop = Loop(listener, users, wire.Hello(wire.PROTO, __version__, os.getpid(), layers))
    planner = Planner(options.config, loop.watch)
    layout = planner.wait() or _kept_layout(keeper)
    if options.socket is None:  # a service
        layout = layout or Layout()
        if layout == Layout() and not lines and not _somebody_waits(listener):
            notify.ready("this room has no relay, light or button")  # or it would count as failed
            return 0
    if layout is None:
        return _CONFIG
    hardware = Hardware(watch=loop.watch, handed=lines)
    _advise(hardware, layout)
    desk = Desk(
        layout,
        hardware,
        keeper,
        boot=clock.boot_id(),
        clock=clock.up_s,
        reload=planner.begin,
        usb=lambda kept: UsbSteps(options.root, loop.watch, kept),
    )
    try:
        loop.run(desk, options.socket)
    finally:
        desk.close()  # whatever happened: no light is left over
        planner.close()
    return 0


def _kept_layout(keeper: Keeper) -> Layout | None:
    """What was held before: a mistake in room.toml must not drop a relay."""
    kept = keeper.read()
    try:
        layout = layouts.parse(kept.layout)
    except ValueError:
        return None
    log.warning("going on with the relays and lights as they were before")
    return layout


def _advise(hardware: Hardware, layout: Layout) -> None:
    """Says once what is missing, and what would mend it."""
    if hardware.kind == "none" and layout.pins:
        log.warning(
            "no GPIO here (%s): relays, lights and buttons on pins are out of reach; on a Raspberry"
            " Pi be in group gpio, on a laptop simulate them: GPIOZERO_PIN_FACTORY=mock",
            hardware.label,
        )
    elif hardware.kind == "mock":
        log.warning("simulated pins (GPIOZERO_PIN_FACTORY=mock): nothing real is switched")


def _sort(handed: Sequence[tuple[str, int]]) -> tuple[dict[int, int], list[int]]:
    """What was handed over: kept lines by pin, and sockets. Anything else is closed."""
    lines: dict[int, int] = {}
    sockets: list[int] = []
    for name, fd in handed:
        pin = name.removeprefix(KEPT)
        if name.startswith(KEPT) and pin.isdecimal() and int(pin) not in lines:
            lines[int(pin)] = fd
        elif stat.S_ISSOCK(os.fstat(fd).st_mode):
            sockets.append(fd)
        else:
            os.close(fd)
    return lines, sockets


def _listen(path: Path | None, sockets: Sequence[int]) -> socket.socket:
    if sockets:
        listener = socket.socket(fileno=sockets[0])
    elif path is None:
        raise OSError("no socket: start it by its systemd unit, or name one with --socket")
    else:
        lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held till the end of the process
        except BlockingIOError:
            raise OSError(f"another hands is there already: {path}") from None
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(MAX_CLIENTS)
    listener.setblocking(False)
    return listener


def _somebody_waits(listener: socket.socket) -> bool:
    """Whether a connection is what started this process."""
    ear = select.poll()
    ear.register(listener, select.POLLIN)
    return bool(ear.poll(0))


def _users(name: str | None) -> frozenset[int]:
    """Who may ask: root, this user, and the agent's."""
    try:
        agent = {pwd.getpwnam(name).pw_uid} if name else set()
    except KeyError:
        raise OSError(f"--user {name}: no such user") from None
    return frozenset({0, os.geteuid()} | agent)


if __name__ == "__main__":
    sys.exit(main())
