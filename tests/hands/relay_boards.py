"""Relay boards that are not there: what their firmware does, and how /sys shows them.

The firmware answers every byte as the board's own does, and switches nothing on a frame that is not
whole. A serial board sits at the far end of a real pseudo-terminal.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pty
import select
import shutil
import tempfile
import threading
import time
import tty
from collections.abc import Iterator
from pathlib import Path


def plug(
    root: Path,
    port: str,
    usb_id: str,
    product: str = "",
    serial: str = "",
    *,
    node: str = "hidraw0",
    behind: str = "",
) -> Path:
    """A USB device with one node, as /sys shows it; returns its folder. `behind` is what the node
    is in /dev: a link to it is made there."""
    device = root / "sys/devices/pci0000:00/usb1" / port
    vid, _, pid = usb_id.partition(":")
    interface = device / f"{port}:1.0"
    interface.mkdir(parents=True)
    strings = {"idVendor": vid, "idProduct": pid, "product": product, "serial": serial}
    for name, text in strings.items():
        if text:
            (device / name).write_text(f"{text}\n")
    kind = "hidraw" if node.startswith("hidraw") else "tty"
    below = interface / ("0003:16C0:05DF.0001" if kind == "hidraw" else node)
    entry = below / kind / node
    entry.mkdir(parents=True)
    (entry / "device").symlink_to(below)
    classes = root / "sys/class" / kind
    classes.mkdir(parents=True, exist_ok=True)
    (classes / node).symlink_to(entry)
    (root / "dev").mkdir(exist_ok=True)
    if behind:
        (root / "dev" / node).symlink_to(behind)
    else:
        (root / "dev" / node).touch()
    return device


def pull(root: Path, device: Path, node: str = "hidraw0") -> None:
    """The device is unplugged."""
    kind = "hidraw" if node.startswith("hidraw") else "tty"
    (root / "sys/class" / kind / node).unlink()
    (root / "dev" / node).unlink()
    shutil.rmtree(device)


class UsbRelay:
    """The firmware of `USBRelayN`, at the other end of the two HID requests."""

    def __init__(self, relays: int = 4, serial: bytes = b"PSUIS") -> None:
        self.name = f"USBRelay{relays}"
        self.relays = relays
        self.serial = serial
        self.state = [False] * relays
        self.frames: list[bytes] = []
        self.gone = False
        self.trouble = 0
        """The errno that every transfer ends with."""
        self.answer: bytes | None = None
        """Given out in place of the true answer."""

    def product(self) -> str:
        self._is_there()
        return self.name

    def send(self, data: bytes, *, feature: bool) -> None:
        self._transfers()
        if not feature:
            raise OSError(errno.EPIPE, "it has no output reports")
        self.frames.append(data)
        command, number = data.ljust(8, b"\0")[:2]
        if command in (0xFF, 0xFD) and 1 <= number <= self.relays:
            self.state[number - 1] = command == 0xFF
        elif command in (0xFE, 0xFC):
            self.state = [command == 0xFE] * self.relays

    def feature(self) -> bytes:
        self._transfers()
        if self.answer is not None:
            return self.answer
        bits = sum(1 << n for n, on in enumerate(self.state) if on)
        return self.serial.ljust(7, b"\0") + bytes([bits])

    def _transfers(self) -> None:
        self._is_there()
        if self.trouble:
            raise OSError(self.trouble, os.strerror(self.trouble))

    def _is_there(self) -> None:
        if self.gone:
            raise OSError(errno.ENODEV, "unplugged")


class HidRelay(UsbRelay):
    """The firmware of `HIDRelay`: output reports, nothing back; 9 is all of them."""

    def __init__(self, relays: int = 2) -> None:
        super().__init__(relays)
        self.name = "HIDRelay"

    def send(self, data: bytes, *, feature: bool) -> None:
        self._transfers()
        if feature:
            raise OSError(errno.EPIPE, "it has no feature reports")
        self.frames.append(data)
        number, on = data[0] & 0x0F, data[0] >= 0xF0
        if number == 9:
            self.state = [on] * self.relays
        elif 1 <= number <= self.relays:
            self.state[number - 1] = on

    def feature(self) -> bytes:
        raise OSError(errno.EPIPE, "it has no feature reports")


class Chip:
    """A port expander: registers behind one address, and which relays pull."""

    def __init__(self, **registers: int) -> None:
        self.registers = {int(name[1:], 16): value for name, value in registers.items()}
        self.writes: list[tuple[int, int]] = []
        self.gone = False

    def read(self, register: int) -> int:
        if self.gone:
            raise OSError(errno.EREMOTEIO, "nobody answers")
        return self.registers[register]

    def write(self, register: int, value: int) -> None:
        if self.gone:
            raise OSError(errno.EREMOTEIO, "nobody answers")
        assert register in self.registers
        assert 0 <= value <= 0xFF
        self.writes.append((register, value))
        self.registers[register] = value


class SerialRelay:
    """An LCUS board at the far end of a pseudo-terminal, in a thread of its own.

    `answers` is how it answers FF: `lines`, not at all (an older one), or in another way that a
    line may bring it to.
    """

    def __init__(self, relays: int = 4, answers: str = "lines") -> None:
        self.relays = relays
        self.answers = answers
        self.state = [False] * relays
        self.bad: list[bytes] = []
        """What came and was no whole frame with a right sum."""
        self.queries = self.switched = 0
        self._pending = b""
        self._lock = threading.Lock()
        self._board, line = pty.openpty()
        tty.setraw(line)
        self.path = os.ttyname(line)
        self._line = line
        self._stop, self._told = os.pipe()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def pull(self) -> None:
        """Unplugged: the line is hung up."""
        if self._board < 0:
            return
        os.close(self._line)
        os.write(self._told, b"x")
        self._thread.join(5)
        for fd in (self._board, self._stop, self._told):
            os.close(fd)
        self._board = -1

    def __enter__(self) -> SerialRelay:
        return self

    def __exit__(self, *_: object) -> None:
        self.pull()

    def becomes(self, state: list[bool]) -> bool:
        """Whether the relays are so, when all that was sent has arrived."""
        for _ in range(1000):
            with self._lock:
                if self.state == state and not self._pending:
                    return True
            time.sleep(0.002)
        return False

    def _run(self) -> None:
        while True:
            ready = select.select([self._board, self._stop], [], [])[0]
            if self._stop in ready:
                return
            with self._lock, contextlib.suppress(OSError):
                self._take(os.read(self._board, 64))

    def _take(self, came: bytes) -> None:
        self._pending += came
        while self._pending:
            first = self._pending[0]
            if first == 0xFF:
                self._pending = self._pending[1:]
                self.queries += 1
                self._answer()
            elif first != 0xA0:
                self.bad.append(self._pending[:1])
                self._pending = self._pending[1:]
            elif len(self._pending) < 4:
                return
            else:
                self._switch(self._pending[:4])
                self._pending = self._pending[4:]

    def _switch(self, frame: bytes) -> None:
        channel, wanted, check = frame[1:]
        if sum(frame[:3]) & 0xFF != check or wanted > 1 or not 1 <= channel <= self.relays:
            self.bad.append(frame)
            return
        self.state[channel - 1] = wanted == 1
        self.switched += 1

    def _answer(self) -> None:
        lines = [f"CH{n}: {'ON' if on else 'OFF'}\r\n" for n, on in enumerate(self.state, 1)]
        if self.answers == "lines":
            for line in lines:
                os.write(self._board, line.encode())
        elif self.answers == "spaced":  # as some print it
            os.write(self._board, "".join(lines).replace(": ", ":").replace("\r", " \r").encode())
        elif self.answers == "noise":
            os.write(self._board, bytes(range(256)))
        elif self.answers == "flood":
            os.write(self._board, b"CH1: ON\r\n" * 200)


@contextlib.contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that everybody may enter, unlike `tmp_path`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """The block runs without root's rights."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
