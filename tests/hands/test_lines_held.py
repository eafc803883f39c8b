"""Lines that a service manager held while hands was away: files stand for the wires, real
descriptors and locks for the kernel's requests."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hands_stage import Box, layout, relay

from agent import notify
from agent.hands.desk import Desk
from agent.hands.hardware import Hardware
from agent.hands.keeper import NAME, Keeper
from agent.hands.layout import Relay
from agent.hands.lines import Chip, Line
from agent.hands.main import _sort

PIN, OTHER = 26, 20


class Wires:
    """The wires of a chip, and the manager that keeps descriptors of them."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.store: dict[str, int] = {}
        self.written: list[tuple[int, bool]] = []
        self.broken: dict[int, int] = {}
        self.monkeypatch = monkeypatch
        monkeypatch.setattr(Line, "request", classmethod(lambda cls, *args: self._request(*args)))
        monkeypatch.setattr(Line, "read", lambda line: self._read(line.fd))
        monkeypatch.setattr(Line, "write", lambda line, level: self._write(line.fd, level))
        monkeypatch.setattr(notify, "keep", self._keep)
        monkeypatch.setattr(notify, "forget", self._forget)

    def hardware(self) -> Hardware:
        """As a start by the manager finds it."""
        found = [(name, os.dup(fd)) for name, fd in self.store.items()]
        lines, _ = _sort(found)
        hardware = Hardware(watch=lambda fd, callback: None, handed=lines, environ={})
        hardware.chip = Chip(Path("/dev/null"), "pinctrl-rp1", {pin: pin for pin in range(28)})
        self.written.clear()
        return hardware

    def level(self, pin: int) -> bool:
        return (self.folder / f"wire-{pin}").read_bytes() == b"1"

    def is_held(self, pin: int) -> bool:
        fd = os.open(self.folder / f"wire-{pin}", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def _request(self, chip: Chip, pin: int, level: bool) -> Line:
        fd = os.open(self.folder / f"wire-{pin}", os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise OSError(errno.EBUSY, "held by another program") from None
        try:
            self._write(fd, level)
        except OSError:
            os.close(fd)
            raise
        return Line(fd)

    def _pin(self, fd: int) -> int:
        name = Path(f"/proc/self/fd/{fd}").readlink().name
        if not name.startswith("wire-"):
            raise OSError(errno.ENOTTY, "no line")
        return int(name.removeprefix("wire-"))

    def _read(self, fd: int) -> bool:
        self._pin(fd)
        return os.pread(fd, 1, 0) == b"1"

    def _write(self, fd: int, level: bool) -> None:
        pin = self._pin(fd)
        if pin in self.broken:
            raise OSError(self.broken[pin], "broken")
        self.written.append((pin, level))
        os.pwrite(fd, b"1" if level else b"0", 0)

    def _keep(self, name: str, fd: int) -> bool:
        self.store[name] = os.dup(fd)
        return True

    def _forget(self, name: str) -> bool:
        if name in self.store:
            os.close(self.store.pop(name))
        return True

    def close(self) -> None:
        for fd in self.store.values():
            os.close(fd)
        self.store.clear()


class Held(Box):
    """A box whose pins are held by the manager."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(folder, monkeypatch)
        self.wires = Wires(folder, monkeypatch)
        self.running: Desk | None = None

    def begin(self, *relays: Relay, idle: bool = True) -> None:
        self.end()
        self.desk = self.running = Desk(
            layout(*relays),
            self.wires.hardware(),
            Keeper(self.folder, wait_s=10),
            boot=self.boot,
            clock=lambda: self.now_s,
            reload=lambda adopt: adopt(self.file),
        )
        if idle:
            self.say()

    def end(self) -> None:
        """It is killed: the kernel closes what it had open."""
        if self.running is not None:
            for contact in self.running._relays._contacts.values():
                os.close(contact._line.fd)  # type: ignore[attr-defined]
            self.running = None


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    before = len(list(Path("/proc/self/fd").iterdir()))
    made = Held(tmp_path, monkeypatch)
    yield made
    made.end()
    made.wires.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("low", [False, True])
def test_the_first_level_is_in_the_request_and_the_line_is_kept(held: Held, low: bool) -> None:
    held.begin(relay("lamp", low=low))
    assert held.wires.written == [(PIN, low)]
    assert list(held.wires.store) == ["relay.26"]


@pytest.mark.parametrize("low", [False, True])
def test_a_kill_moves_nothing_and_neither_does_the_next_start(held: Held, low: bool) -> None:
    relays = (relay("lamp", low=low), relay("fan", OTHER, low=low))
    held.begin(*relays)
    held.set("lamp", True)
    held.news()
    for _ in range(3):
        held.end()
        assert held.wires.is_held(PIN), "by the manager"
        assert held.wires.level(PIN) is not low
        held.begin(*relays, idle=False)
        assert {level for pin, level in held.wires.written if pin == PIN} <= {not low}
        assert held.read("lamp").values["readback_on"] is True
        assert held.read("fan").values["readback_on"] is False
        assert held.news() == [], "no act"
    held.say()
    assert held.set("lamp", False).fault is None
    assert held.wires.level(PIN) is low


def test_what_a_line_is_counts_more_than_what_was_kept(held: Held) -> None:
    held.begin(relay("lamp"), relay("fan", OTHER))
    held.set("fan", True)
    held.news()
    held.end()
    (held.folder / f"wire-{PIN}").write_bytes(b"1")
    (held.folder / f"wire-{OTHER}").write_bytes(b"0")
    held.begin(relay("lamp"), relay("fan", OTHER), idle=False)
    assert (held.wires.level(PIN), held.wires.level(OTHER)) == (True, False)
    assert held.switchings() == [("lamp", True, "found"), ("fan", False, "found")]


def test_a_lost_file_drops_no_line_that_was_held(held: Held) -> None:
    held.begin(relay("lamp"), relay("fan", OTHER, power_on="on"))
    held.set("lamp", True)
    held.set("fan", False)
    held.end()
    (held.folder / NAME).write_bytes(b"damaged")
    held.begin(relay("lamp"), relay("fan", OTHER, power_on="on"), idle=False)
    assert (held.wires.level(PIN), held.wires.level(OTHER)) == (True, False)


def test_two_of_a_group_that_are_found_on_become_one(held: Held) -> None:
    held.begin(relay("up"), relay("down", OTHER))
    held.set("up", True)
    held.set("down", True)
    held.news()
    held.begin(relay("up", group="g"), relay("down", OTHER, group="g"), idle=False)
    assert [held.wires.level(PIN), held.wires.level(OTHER)].count(True) == 1
    ((_, on, cause),) = held.switchings()
    assert (on, cause) == (False, "restore")


def test_a_descriptor_that_is_no_line_is_forgotten_for_good(held: Held) -> None:
    held.wires.store["relay.26"] = os.open("/dev/null", os.O_RDONLY)
    held.begin(relay("lamp", power_on="on"))
    assert held.wires.level(PIN) is True
    kept = Path(f"/proc/self/fd/{held.wires.store['relay.26']}")
    assert kept.readlink().name == "wire-26"


def test_the_line_of_a_relay_that_is_gone_is_let_go(held: Held) -> None:
    held.begin(relay("lamp"), relay("fan", OTHER))
    held.begin(relay("lamp"))
    assert list(held.wires.store) == ["relay.26"]
    assert (held.wires.is_held(PIN), held.wires.is_held(OTHER)) == (True, False)


def test_a_layout_that_is_read_again_lets_go_of_what_it_does_not_name(held: Held) -> None:
    held.begin(relay("lamp"), relay("fan", OTHER))
    held.set("lamp", True)
    written = list(held.wires.written)
    held.file = layout(relay("bench-lamp"), relay("heater", 21))
    held.ask("hands", "reload")
    assert sorted(held.wires.store) == ["relay.21", "relay.26"]
    assert held.wires.is_held(OTHER) is False
    assert held.wires.written == [*written, (21, False)]
    assert held.wires.level(PIN) is True


def test_two_under_one_name_are_one_line(held: Held) -> None:
    held.begin(relay("lamp"))
    fd = held.wires.store["relay.26"]
    lines, sockets = _sort([("relay.26", os.dup(fd)), ("relay.26", os.dup(fd)), ("x", os.dup(fd))])
    assert (list(lines), sockets) == ([PIN], [])
    os.close(lines[PIN])


@pytest.mark.parametrize(
    ("number", "kept"), [(errno.EIO, True), (errno.EINVAL, True), (errno.ENODEV, False)]
)
def test_a_line_is_let_go_only_where_its_chip_is_gone(held: Held, number: int, kept: bool) -> None:
    held.begin(relay("lamp"))
    held.wires.broken[PIN] = number
    reading = held.set("lamp", True)
    assert reading.fault is not None
    assert reading.values["errno"] == number
    assert held.wires.is_held(PIN) is kept
    assert held.read("lamp").values["on"] is False
    held.wires.broken.clear()
    assert held.set("lamp", True).fault is None
    assert held.wires.level(PIN) is True
    assert list(held.wires.store) == ["relay.26"]


def test_a_line_that_another_program_holds_is_told(held: Held) -> None:
    fd = os.open(held.folder / f"wire-{PIN}", os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    held.begin(relay("lamp"))
    assert held.read("lamp").values["errno"] == errno.EBUSY
    os.close(fd)
    assert held.read("lamp").fault is None
