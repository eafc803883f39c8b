"""systemd's notify protocol (sd_notify(3)) by hand: one datagram per message, no library.

Without $NOTIFY_SOCKET every call does nothing: the program is the same by hand and as a service.
"""

from __future__ import annotations

import logging
import os
import socket

log = logging.getLogger("agent.notify")


def ready(status: str = "") -> None:
    """The service is up."""
    send("READY=1", f"STATUS={status}" if status else "")


def stopping() -> None:
    """The service is on its way down."""
    send("STOPPING=1")


def watchdog() -> None:
    """The service is alive: resets systemd's watchdog."""
    send("WATCHDOG=1")


def send(*assignments: str) -> bool:
    """Send assignments; False where nobody listens. A full or vanished socket is no error: a
    missed message is what the watchdog is for."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return False
    address = "\0" + path[1:] if path.startswith("@") else path
    message = "\n".join(a for a in assignments if a).encode()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as out:
            out.sendto(message, address)
    except OSError as error:
        log.warning("systemd could not be told: %s", error)
        return False
    return True


def watchdog_period_s() -> float | None:
    """How often systemd wants to hear of this process, None where it does not watch."""
    pid, period = os.environ.get("WATCHDOG_PID", ""), os.environ.get("WATCHDOG_USEC", "")
    if not period.isdecimal() or int(period) == 0 or pid not in ("", str(os.getpid())):
        return None
    return int(period) / 1e6
