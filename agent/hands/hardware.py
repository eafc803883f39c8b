"""Contacts, lamps and inputs: what hands can get hold of on this box, and what is missing.

With GPIOZERO_PIN_FACTORY=mock the pins are gpiozero's simulated ones. Where there is no GPIO at all
a pin is an `OSError` when it is asked for; boards and LEDs work without.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Any, Protocol

from gpiozero.exc import GPIOZeroError
from gpiozero.input_devices import DigitalInputDevice
from gpiozero.output_devices import LED
from gpiozero.pins.mock import MockFactory

from agent import notify
from agent.hands import boards
from agent.hands.factory import GpiodFactory, Watch
from agent.hands.layout import Place
from agent.hands.leds import SystemLeds
from agent.hands.lines import Chip, Line, find_chip

MOCK = "mock"
KEPT = "relay."
"""Kept lines are called after their pins: `relay.26`."""


class Contact(Protocol):
    """One relay's end of a wire, or a lamp. `True` is on, whatever the level."""

    def set(self, on: bool) -> None:
        """Switch. Raises `OSError`."""
        ...

    def get(self) -> bool | None:
        """What it is now, None where the hardware does not tell. Raises `OSError`."""
        ...

    def close(self) -> None:
        """Let go."""
        ...


class _LineContact:
    """A line of the kernel, kept by systemd too where there is one."""

    def __init__(self, line: Line, pin: int, active_low: bool) -> None:
        self._line = line
        self._name = f"{KEPT}{pin}"
        self._low = active_low

    def set(self, on: bool) -> None:
        self._line.write(on is not self._low)

    def get(self) -> bool | None:
        return self._line.read() is not self._low

    def close(self) -> None:
        notify.forget(self._name)
        self._line.close()


class _PinContact:
    """A simulated pin."""

    def __init__(self, pin: Any, active_low: bool, on: bool) -> None:
        self._pin = pin
        self._low = active_low
        pin.output_with_state(on is not active_low)

    def set(self, on: bool) -> None:
        self._pin.state = on is not self._low

    def get(self) -> bool | None:
        return bool(self._pin.state) is not self._low

    def close(self) -> None:
        self._pin.close()


class _BoardContact:
    """A relay of a board that is not on the header."""

    def __init__(self, board: boards.Board, channel: int, active_low: bool) -> None:
        self._board = board
        self._channel = channel
        self._low = active_low

    def set(self, on: bool) -> None:
        self._board.set(self._channel, on is not self._low)

    def get(self) -> bool | None:
        state = self._board.get(self._channel)
        return None if state is None else state is not self._low

    def close(self) -> None:
        """The board stays open: other channels may be in use."""


class _Lamp:
    """A lamp on a pin."""

    def __init__(self, device: Any) -> None:
        self._device = device

    def set(self, on: bool) -> None:
        self._device.value = on

    def get(self) -> bool | None:
        return bool(self._device.value)

    def close(self) -> None:
        self._device.close()


class Hardware:
    """All that can be got hold of. Opening raises `OSError`, with the errno that says why not."""

    def __init__(
        self,
        *,
        watch: Watch,
        handed: Mapping[int, int] | None = None,
        root: Path = Path("/"),
        environ: MutableMapping[str, str] = os.environ,
    ) -> None:
        """`watch` is the loop that edges are handed to, `handed` the lines that an earlier process
        held: pin -> descriptor."""
        self._handed = dict(handed or {})
        self._root = root
        self._boards: dict[tuple[str, str], boards.Board] = {}
        self._watch = watch
        self._missing = errno.ENODEV
        self.factory: Any = None
        self.chip: Chip | None = None
        if environ.get("GPIOZERO_PIN_FACTORY") == MOCK:
            self.factory = MockFactory()
        else:
            self._find_chip()

    @property
    def kind(self) -> str:
        """`gpiod`, `mock` or `none`."""
        if self.factory is None:
            return "none"
        return "mock" if self.chip is None else "gpiod"

    @property
    def label(self) -> str:
        """Which chip it is; why there is none."""
        if self.chip is not None:
            return self.chip.label
        return "" if self.factory is not None else os.strerror(self._missing)

    def held(self, place: Place) -> bool | None:
        """Whether a contact that an earlier process left to us is on; None where none was."""
        self._find_chip()
        if place.pin not in self._handed or self.chip is None:
            return None
        try:
            return Line(self._handed[place.pin]).read() is not place.active_low
        except OSError:  # a descriptor that is no line, and would come again at every start
            notify.forget(f"{KEPT}{place.pin}")
            os.close(self._handed.pop(place.pin))
            return None

    def contact(self, place: Place, on: bool) -> Contact:
        """A relay's contact that is `on` from the first moment, or already held so."""
        if place.pin is None:
            contact = _BoardContact(self._board(place), place.channel, place.active_low)
            if contact.get() is not on:
                contact.set(on)
            return contact
        self._find_chip()
        if self.chip is not None:
            fd = self._handed.pop(place.pin, None)
            if fd is not None:
                held = _LineContact(Line(fd), place.pin, place.active_low)
                if held.get() is not on:
                    held.set(on)
                return held
            line = Line.request(self.chip, place.pin, on is not place.active_low)
            notify.keep(f"{KEPT}{place.pin}", line.fd)
            return _LineContact(line, place.pin, place.active_low)
        return _PinContact(self._simulated(place.pin), place.active_low, on)

    def peek(self, place: Place) -> bool | None:
        """What a contact that nobody holds yet is, without switching it; None where it cannot be
        read without taking it."""
        if place.pin is not None:
            return None
        try:
            return _BoardContact(self._board(place), place.channel, place.active_low).get()
        except OSError:
            self.forget_board(place)
            return None

    def lamp(self, place: Place) -> Contact:
        """A lamp, dark."""
        if place.led:
            return SystemLeds(place.led, self._root)
        if place.pin is None:
            contact = _BoardContact(self._board(place), place.channel, place.active_low)
            contact.set(False)
            return contact
        with _as_os_error():
            device = LED(
                place.pin,
                active_high=not place.active_low,
                initial_value=False,
                pin_factory=self._some_factory(),
            )
        return _Lamp(device)

    def input(self, pin: int, *, pull_up: bool, changed: Callable[[bool], None] | None) -> Any:
        """An input that is active when it is pulled to ground (`pull_up`) or to 3.3 V. `changed`
        is called with the new state at every edge. Has `is_active` and `close()`."""
        with _as_os_error():
            device = DigitalInputDevice(pin, pull_up=pull_up, pin_factory=self._some_factory())
            if changed is not None:
                device.when_activated = lambda: changed(True)
                device.when_deactivated = lambda: changed(False)
        return device

    def release_strangers(self) -> None:
        """Lines that an earlier process held and nobody wants any more."""
        for pin, fd in self._handed.items():
            notify.forget(f"{KEPT}{pin}")
            os.close(fd)
        self._handed.clear()

    def forget_board(self, place: Place) -> None:
        """A board that failed is opened again at the next try, by whichever of its contacts comes
        first: they share it."""
        board = self._boards.get((place.board, place.at))
        if board is not None:
            with contextlib.suppress(OSError):
                board.close()

    def close(self) -> None:
        """Let go of everything but the contacts, which are closed one by one or kept."""
        for board in self._boards.values():
            with contextlib.suppress(OSError):
                board.close()
        if self.factory is not None:
            self.factory.close()

    def _board(self, place: Place) -> boards.Board:
        key = (place.board, place.at)
        if key not in self._boards:
            self._boards[key] = boards.open_board(place, self._root)
        return self._boards[key]

    def _find_chip(self) -> None:
        """The chip, which may come after us: its driver can be a module, or sit behind PCIe."""
        if self.factory is not None or self.chip is not None:
            return
        try:
            chip = find_chip(self._root / "dev")
        except PermissionError:
            self._missing = errno.EACCES
            return
        self._missing = errno.ENODEV
        if chip is not None:
            self.factory = GpiodFactory(chip, self._watch)
            self.chip = chip

    def _some_factory(self) -> Any:
        self._find_chip()
        if self.factory is None:
            raise OSError(self._missing, f"no GPIO: {os.strerror(self._missing)}")
        return self.factory

    def _simulated(self, pin: int) -> Any:
        with _as_os_error():
            return self._some_factory().pin(pin)


@contextlib.contextmanager
def _as_os_error() -> Any:
    """gpiozero's own errors, as what they are for us: a pin that cannot be had."""
    try:
        yield
    except GPIOZeroError as error:
        raise OSError(errno.ENXIO, str(error)) from error
