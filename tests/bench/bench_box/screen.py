"""A monitor that is plugged or unplugged: QEMU's display head over its VNC socket."""

from __future__ import annotations

import socket
import struct
import time
from pathlib import Path

from bench_box.host import BenchError

_RAW, _DESKTOP_SIZE = 0, -308
_SET_ENCODINGS, _SET_DESKTOP_SIZE = 2, 251


def resize(path: Path, width: int, height: int) -> None:
    """Gives a head another size (RFC 6143 and its ExtendedDesktopSize); without width there is no
    monitor."""
    with socket.socket(socket.AF_UNIX) as vnc:
        vnc.settimeout(10)
        vnc.connect(str(path))

        def take(size: int) -> bytes:
            data = b""
            while len(data) < size:
                piece = vnc.recv(size - len(data))
                if not piece:
                    raise BenchError(f"{path.name}: VNC closed")
                data += piece
            return data

        take(12)
        vnc.sendall(b"RFB 003.008\n")
        take(take(1)[0])  # kinds of security
        vnc.sendall(b"\1")  # none
        take(4)
        vnc.sendall(b"\1")  # shared
        take(20)
        take(struct.unpack(">I", take(4))[0])  # the name of the desktop
        vnc.sendall(struct.pack(">BxHii", _SET_ENCODINGS, 2, _RAW, _DESKTOP_SIZE))
        vnc.sendall(
            struct.pack(
                ">BxHHBxIHHHHI", _SET_DESKTOP_SIZE, width, height, 1, 0, 0, 0, width, height, 0
            )
        )
        time.sleep(0.3)  # QEMU acts on it after its own fashion
