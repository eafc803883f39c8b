"""systemd's notify protocol (sd_notify(3)) by hand: one datagram per message, no library.

Without $NOTIFY_SOCKET every call does nothing: the program is the same by hand and as a service.
"""

from __future__ import annotations

import logging
import os
import socket

log = logging.getLogger("agent.notify")

MAX_STATUS = 200


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


def send(*assignments: str, wait_s: float = 0.0) -> bool:
    """Send assignments in one message; False where nobody took them. A socket that is full for
    longer than `wait_s`, or gone, is no error: a missed message is what the watchdog is for."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return False
    address = "\0" + path[1:] if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.settimeout(wait_s)
            out.sendto("\n".join(assignments).encode(), address)
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
