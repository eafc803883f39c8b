"""Where hands is tried in one process: simulated pins, a clock moved by hand, a board that can be
unplugged, a folder for the state file. Answers go over the line and back, as they would."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.hands import boards, terms
from agent.hands.desk import Desk
from agent.hands.hardware import Contact, Hardware
from agent.hands.keeper import Keeper
from agent.hands.layout import Button, Layout, Light, Place, Relay
from agent.kinds import indicator
from agent.lanes import wire
from agent.model import Reading

WORDS = terms.WORDS | indicator.WORDS


class Pins(Hardware):
    """Simulated pins, of which other programs may hold some."""

    def __init__(self, root: Path) -> None:
        super().__init__(
            watch=lambda fd, callback: None,
            root=root,
            environ={"GPIOZERO_PIN_FACTORY": "mock"},
        )
        self.busy: set[int] = set()

    def contact(self, place: Place, on: bool) -> Contact:
        self._must_be_free(place.pin)
        return super().contact(place, on)

    def lamp(self, place: Place) -> Contact:
        self._must_be_free(place.pin)
        return super().lamp(place)

    def input(self, pin: int, **options: Any) -> Any:
        self._must_be_free(pin)
        return super().input(pin, **options)

    def _must_be_free(self, pin: int | None) -> None:
        if pin in self.busy:
            raise OSError(errno.EBUSY, "held by another program")


class Board:
    """A relay board on USB: keeps its state as long as it has power."""

    def __init__(self) -> None:
        self.plugged = True
        self.stiff: set[int] = set()
        """Channels that cannot be switched."""
        self.reads_back = True
        self.on: dict[int, bool] = {}
        self.sent: list[tuple[int, bool]] = []

    def unplug(self) -> None:
        self.plugged = False
        self.on.clear()

    def set(self, channel: int, on: bool) -> None:
        self._must_be_there()
        if channel in self.stiff:
            raise OSError(errno.EIO, "no acknowledgement")
        self.sent.append((channel, on))
        self.on[channel] = on

    def get(self, channel: int) -> bool | None:
        self._must_be_there()
        return self.on.get(channel, False) if self.reads_back else None

    def close(self) -> None:
        pass

    def _must_be_there(self) -> None:
        if not self.plugged:
            raise OSError(errno.ENODEV, "not plugged in")


class Box:
    """A box: its clock, its pins, its disk, and hands on it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1_000.0
        self.boot = "5f0c12ab"
        self.folder = folder
        self.board = Board()
        self.after = 0
        self.wait_s = 10.0
        self.file: Layout | None = None
        """What room.toml says when it is read again; None: it cannot be read."""
        monkeypatch.setattr(boards, "open_board", lambda place, root: self.board)

    # -- its life ------------------------------------------------------------------------------

    def start(
        self, *nouns: Relay | Light | Button, busy: set[int] = frozenset(), idle: bool = True
    ) -> Desk:
        """Hands begins, with fresh pins. `idle`: the agent says that nothing is going on."""
        self.pins = Pins(self.folder)
        self.pins.busy |= busy
        self.desk = Desk(
            layout(*nouns),
            self.pins,
            Keeper(self.folder, wait_s=self.wait_s),
            boot=self.boot,
            clock=lambda: self.now_s,
            reload=lambda adopt: adopt(self.file),
        )
        if idle:
            self.say("idle")
        return self.desk

    def reboot(self, up_s: float = 20.0) -> None:
        """Power was cut: the clock begins anew, a board on USB has lost its states."""
        self.now_s = up_s
        self.boot = f"{int(self.boot, 16) + 1:08x}"
        self.board.on.clear()

    def wait(self, seconds: float) -> None:
        """Time passes: hands wakes when it said that it would, and moves on each time."""
        end_s = self.now_s + seconds
        for _ in range(100_000):
            due_s = self.desk.tick()
            if due_s > end_s:
                self.now_s = end_s
                self.desk.tick()
                return
            assert due_s > self.now_s, "it never sleeps"
            self.now_s = due_s
        raise AssertionError("it wakes too often")

    # -- what the agent says and hears -----------------------------------------------------------

    def ask(self, kind: str, ask: str, **args: Any) -> Reading | None:
        """A question and its answer as the agent would get it; None for a wait that goes on."""
        line = wire.encode_question(wire.Question(7, kind, ask, 5.0, args))
        reading = self.desk.answer(wire.decode_question(line))
        if reading is None:
            return None
        return wire.decode(wire.encode(7, reading), WORDS, number=7, ask=ask)

    def say(self, mode: str = "idle", state: str = "ready", **more: Any) -> Reading:
        reading = self.ask("hands", "say", mode=mode, state=state, **more)
        assert reading is not None
        assert reading.fault is None, reading
        self.desk.tick()
        return reading

    def set(self, relay: str, on: bool, **more: Any) -> Reading:
        reading = self.ask("relay", "set", relay=relay, on=on, **more)
        assert reading is not None
        return reading

    def read(self, relay: str) -> Reading:
        reading = self.ask("relay", "read", relay=relay)
        assert reading is not None
        return reading

    def pattern(self, light: str = "status") -> str:
        reading = self.ask("indicator", "read", light=light)
        assert reading is not None
        return str(reading.values.get("pattern", reading.why))

    def news(self) -> list[dict[str, Any]]:
        """All that has happened and was not heard yet."""
        return list(self._news())

    def switchings(self) -> list[tuple[str, bool, str]]:
        """The news of relays: which, on or off, why."""
        return [(e["device"], e["on"], e["cause"]) for e in self.news() if e["event"] == "switched"]

    def _news(self) -> Iterator[dict[str, Any]]:
        while reading := self.ask("hands", "wait", after=self.after, within_s=0):
            self.after = int(reading.values["number"])
            yield {**reading.values, **reading.identity}

    # -- pins ------------------------------------------------------------------------------------

    def level(self, pin: int) -> bool:
        return bool(self.pins.factory.pin(pin).state)

    def history(self, pin: int) -> list[bool]:
        """Every level that a pin has had since hands began, the first one nobody's."""
        return [bool(state.state) for state in self.pins.factory.pin(pin).states]

    def press(self, pin: int) -> None:
        self.pins.factory.pin(pin).drive_low()

    def let_go(self, pin: int) -> None:
        self.pins.factory.pin(pin).drive_high()


def layout(*nouns: Relay | Light | Button) -> Layout:
    return Layout(
        relays=tuple(n for n in nouns if isinstance(n, Relay)),
        lights=tuple(n for n in nouns if isinstance(n, Light)),
        buttons=tuple(n for n in nouns if isinstance(n, Button)),
    )


def relay(name: str, pin: int | None = 26, *, low: bool = False, **rules: Any) -> Relay:
    return Relay(name, Place(pin=pin, active_low=low), **rules)


def on_board(name: str, channel: int = 1, **rules: Any) -> Relay:
    return Relay(name, Place(board="usb", channel=channel), **rules)


def light(name: str = "status", role: str = "status", **pins: int) -> Light:
    lamps = {colour: Place(pin=pin) for colour, pin in (pins or {"red": 17, "green": 27}).items()}
    return Light(name, role, lamps)
