"""systemd's notify protocol (sd_notify(3)) by hand: one datagram per message, no library.

Without $NOTIFY_SOCKET every call does nothing: the program is the same by hand and as a service.
"""

from __future__ import annotations

import array
import logging
import os
import socket
from collections.abc import MutableMapping, Sequence

log = logging.getLogger("agent.notify")

MAX_STATUS = 200
FIRST_FD = 3  # SD_LISTEN_FDS_START


def ready(text: str = "") -> bool:
    """The service is up; `text` is shown by `systemctl status`."""
    return send("READY=1", *_status(text), wait_s=1.0)


def status(text: str) -> bool:
    """What `systemctl status` shows, one short line."""
    return send(*_status(text))


def stopping() -> bool:
    """The service is on its way down."""
    return send("STOPPING=1", wait_s=1.0)


def watchdog() -> bool:
    """The service is alive: resets systemd's watchdog."""
    return send("WATCHDOG=1")


def keep(name: str, fd: int) -> bool:
    """Have a descriptor kept for the next process of this service, under a name (fd store)."""
    return send("FDSTORE=1", f"FDNAME={name}", wait_s=1.0, fds=(fd,))


def forget(name: str) -> bool:
    """The descriptors kept under a name are no longer needed."""
    return send("FDSTOREREMOVE=1", f"FDNAME={name}", wait_s=1.0)


def handed(environ: MutableMapping[str, str] = os.environ) -> list[tuple[str, int]]:
    """The descriptors that were handed over at the start, sockets and kept ones: name and number
    (sd_listen_fds_with_names(3)). Takes the variables away: they are not for children."""
    pid, count, names = (
        environ.pop(key, "") for key in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
    )
    if pid != str(os.getpid()) or not count.isdecimal():
        return []
    given = names.split(":") if names else []
    found: list[tuple[str, int]] = []
    for number in range(int(count)):
        fd = FIRST_FD + number
        try:
            os.set_inheritable(fd, False)
        except OSError as error:
            log.warning("descriptor %d was announced and is not there: %s", fd, error.strerror)
            continue
        found.append((given[number] if number < len(given) else "unknown", fd))
    return found


def send(*assignments: str, wait_s: float = 0.0, fds: Sequence[int] = ()) -> bool:
    """Send assignments in one message, and descriptors with it; False where nobody took them. A
    socket that is full for longer than `wait_s`, or gone, is no error: a missed message is what
    the watchdog is for."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return False
    address = "\0" + path[1:] if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.settimeout(wait_s)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            out.sendmsg(["\n".join(assignments).encode()], rights, 0, address)
    except (OSError, ValueError) as error:
        log.warning("systemd could not be told: %s", error)
        return False
    return True


def _status(text: str) -> list[str]:
    """One assignment at most: a line break in it would begin another."""
    line = " ".join(text.split())[:MAX_STATUS]
    return [f"STATUS={line}"] if line else []


def watchdog_period_s() -> float | None:
    """How often systemd wants to hear of this process, None where it does not watch."""
    pid, period = os.environ.get("WATCHDOG_PID", ""), os.environ.get("WATCHDOG_USEC", "")
    if not period.isdecimal() or int(period) == 0 or pid not in ("", str(os.getpid())):
        return None
    return int(period) / 1e6
