"""LCUS relay boards: a CH340 serial adapter, 9600 8N1, four bytes to switch, one to ask.

    A0 channel 01 sum    on            FF    which are on? newer boards answer
    A0 channel 00 sum    off                 `CH1: ON`, `CH2: OFF`, ... a line each

(jarwyg/USB_RELAY, Brasme/usb_ch340_4x_relay_control, Pebble94464/lcus-usb-relay-module-controller.)
Other operations than 00 and 01 mean different things to different clones and are never sent. The id
of the adapter is that of every CH340: the board is bound by the port it is plugged into.

Nothing that the board does or does not do takes longer than half a second. Only opening a port
whose adapter hangs does: the kernel's ch341 driver gives each of its control transfers a second.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import select
import struct
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from agent import usb_tree
from agent.hands.boards.node import Node
from agent.hands.layout import Place

T = TypeVar("T")

GAP_S = 0.1
"""The board's processor handles one command at a time and misses what comes meanwhile; its users
leave 0.1 s (Brasme, Pebble94464)."""
ANSWER_S = 0.2
"""An answer that has not begun by then does not come: users wait 0.1 to 0.2 s for the whole."""
QUIET_S = 0.04
"""An answer has ended after so long a silence: 40 characters at 9600 baud."""
LISTEN_S = 0.35
SENT_S = 0.1
"""Four bytes take 4 ms; what has not gone by then does not go."""
FRESH_S = 0.5
"""One answer tells of all relays: it serves for the questions that follow at once."""
_QUERY = b"\xff"
_LINE = re.compile(rb"CH(\d{1,2}): *(ON|OFF)")
_MAX_BYTES = 1024


def frame(channel: int, on: bool) -> bytes:
    """The command that switches a relay."""
    body = (0xA0, channel, int(on))
    return bytes([*body, sum(body) & 0xFF])


def parse(answer: bytes) -> dict[int, bool]:
    """Channel -> state, out of an answer; lines that are none are passed over."""
    return {int(number): state == b"ON" for number, state in _LINE.findall(answer)}


def find(place: Place, root: Path) -> Path:
    """The node of the adapter at a USB port, or at a path. Raises `OSError`: ENODEV."""
    if place.at.startswith("/"):
        return root / place.at.lstrip("/")
    there = [n for n in usb_tree.nodes("tty", root) if n.port == place.at]
    if not there:
        raise OSError(errno.ENODEV, f"no serial adapter is plugged in at {place.at}")
    ids = place.spec.get("usb") or [there[0].usb_id]
    if there[0].usb_id not in ids:
        other, expected = there[0].usb_id, " or ".join(ids)
        raise OSError(
            errno.ENODEV, f"at {place.at} there is {other}, no {place.board} ({expected})"
        )
    return root / "dev" / there[0].name


class Port:
    """A serial line, raw, ours alone, with a limit to every wait."""

    def __init__(self, place: Place, root: Path) -> None:
        self._baud = getattr(termios, f"B{place.spec.get('baud', 9600)}")
        flags = os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK
        self._node = Node(lambda: find(place, root), flags, self._prepare, _release)

    def check(self) -> None:
        """Raises `OSError` where the adapter is gone. Sends nothing."""
        self._do(lambda fd: termios.tcgetattr(fd))

    def send(self, data: bytes) -> None:
        """Send a few bytes. What cannot be sent in `SENT_S` is ETIMEDOUT, and never sent."""
        self._do(lambda fd: _send(fd, data))

    def ask(self, question: bytes) -> bytes:
        """Send, and what comes back; nothing where nothing comes."""

        def act(fd: int) -> bytes:
            termios.tcflush(fd, termios.TCIFLUSH)
            _send(fd, question)
            return _listen(fd)

        return self._do(act)

    def close(self) -> None:
        """Let go of the line."""
        self._node.close()

    def _do(self, act: Callable[[int], T]) -> T:
        def guarded(fd: int) -> T:
            with _hang_up_is_gone():
                return act(fd)

        return self._node.do(guarded)

    def _prepare(self, fd: int) -> None:
        with _hang_up_is_gone():
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise OSError(errno.EBUSY, "another program has this serial line") from None
            fcntl.ioctl(fd, termios.TIOCEXCL)  # flock is only for those who ask; this is for all
            control = termios.CS8 | termios.CREAD | termios.CLOCAL
            keys: list[bytes | int] = [b"\0"] * len(termios.tcgetattr(fd)[6])
            keys[termios.VMIN] = keys[termios.VTIME] = 0
            termios.tcsetattr(fd, termios.TCSANOW, [0, 0, control, 0, self._baud, self._baud, keys])
            termios.tcflush(fd, termios.TCIFLUSH)


def _release(fd: int) -> None:
    """Give the line back. What was not sent goes nowhere, or `close` would wait half a minute for
    it (closing_wait of tty_port); what the adapter was given and does not take makes it wait so
    long all the same, and meanwhile nobody is kept out."""
    with contextlib.suppress(OSError, termios.error):
        termios.tcflush(fd, termios.TCIOFLUSH)
        fcntl.ioctl(fd, termios.TIOCNXCL)
        fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)


@contextlib.contextmanager
def _hang_up_is_gone() -> Iterator[None]:
    """EIO of a terminal says that it was hung up, as an adapter is when it is pulled; and the
    errors of `termios` become what they are."""
    try:
        yield
    except (OSError, termios.error) as error:
        number = error.args[0]
        if number == errno.EIO:
            raise OSError(errno.ENODEV, "the serial adapter was unplugged") from None
        if isinstance(error, termios.error):
            raise OSError(number, os.strerror(number)) from None
        raise


def _send(fd: int, data: bytes) -> None:
    end_s = time.monotonic() + SENT_S
    left = data
    while True:
        with contextlib.suppress(BlockingIOError):
            left = left[os.write(fd, left) :] if left else b""
        if not left and not _unsent(fd):
            return
        if time.monotonic() > end_s:
            raise OSError(errno.ETIMEDOUT, "the line takes nothing")
        time.sleep(0.001)


def _unsent(fd: int) -> int:
    return int(struct.unpack("i", fcntl.ioctl(fd, termios.TIOCOUTQ, b"\0\0\0\0"))[0])


def _listen(fd: int) -> bytes:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    begin_s = time.monotonic()
    until_s = begin_s + ANSWER_S
    came = b""
    while len(came) < _MAX_BYTES:
        left_s = min(until_s, begin_s + LISTEN_S) - time.monotonic()
        if left_s <= 0 or not poll.poll(left_s * 1000):
            break
        piece = os.read(fd, 256)
        if not piece:
            raise OSError(errno.EIO, "hung up")
        came += piece
        until_s = time.monotonic() + QUIET_S
    return came


class Lcus:
    """The board on its line. An older one never answers: then nothing is read back. One that has
    answered before and does not any more has failed."""

    def __init__(self, port: Port, gap_s: float = GAP_S) -> None:
        self._port = port
        self._gap_s = gap_s
        self._sent_s = -gap_s
        self._answers: bool | None = None
        self._seen: Mapping[int, bool] = {}
        self._seen_s = -FRESH_S

    def set(self, channel: int, on: bool) -> None:
        """Switch. Returns when the command has left."""
        if not 1 <= channel <= 0xFF:
            raise OSError(errno.ENXIO, f"no relay {channel}")
        self._seen = {}
        self._wait_for_the_gap()
        self._port.send(frame(channel, on))
        self._sent_s = time.monotonic()

    def get(self, channel: int) -> bool | None:
        """What the board tells; None where it tells nothing."""
        stale = not self._seen or time.monotonic() - self._seen_s >= FRESH_S
        if stale and self._answers is not False:
            self._ask()
        else:
            self._still_there()
        if not self._seen:
            return None
        if channel not in self._seen:
            told = ", ".join(map(str, self._seen))
            raise OSError(errno.ENXIO, f"the board tells of relays {told}, not of {channel}")
        return self._seen[channel]

    def _ask(self) -> None:
        """Ask for all relays: `_seen`, which stays empty where the board is one of the silent."""
        self._seen = {}
        for _ in range(1 if self._answers else 2):  # the first may end up in half a command
            self._wait_for_the_gap()
            answer = self._port.ask(_QUERY)
            self._sent_s = time.monotonic()
            if states := parse(answer):
                self._seen, self._seen_s, self._answers = states, self._sent_s, True
                return
        if self._answers:
            self._port.close()
            raise OSError(errno.ETIMEDOUT, "the board does not answer any more")
        self._answers = False

    def _still_there(self) -> None:
        try:
            self._port.check()
        except OSError:
            self._seen = {}
            self._answers = self._answers or None  # what comes back may be one that answers
            raise

    def _wait_for_the_gap(self) -> None:
        left_s = self._sent_s + self._gap_s - time.monotonic()
        if left_s > 0:
            time.sleep(left_s)
