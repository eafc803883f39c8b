"""Why a camera on the network was not reached: OpenCV says only that it was not."""

from __future__ import annotations

import errno
import socket

from agent.kinds.camera import source as sources

_PATIENCE_S = 2.0


def errno_of(url: str, within_s: float) -> int | None:
    """The errno of a plain connection to the camera of `url`, tried for at most `within_s`.

    None where it is let in (then the camera itself refuses: a password, a path), or where a name
    was not found, which has no errno.
    """
    where = sources.address_of(url)
    if where is None:
        return None
    try:
        socket.create_connection(where, timeout=min(within_s, _PATIENCE_S)).close()
    except TimeoutError:
        return errno.ETIMEDOUT
    except socket.gaierror:  # its numbers are others
        return None
    except OSError as error:
        return error.errno
    return None
