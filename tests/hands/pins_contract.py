"""What hands relies on of a pin factory: one set of assertions, held to the simulated pins in every
run of the tests, and to the kernel's GPIO interface wherever there is one (the virtual box).

    python tests/hands/pins_contract.py     # against the real chip of this machine, as root

A world says what the other end of a line is: `seen` reads what is driven, `drive` pulls an input.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from gpiozero.exc import PinPWMUnsupported, PinSetInput
from gpiozero.input_devices import DigitalInputDevice
from gpiozero.output_devices import LED

PIN, OTHER = 5, 6


class World(Protocol):
    """A pin factory and the other end of its lines."""

    factory: Any

    def seen(self, pin: int) -> bool:
        """The level on the wire."""
        ...

    def drive(self, pin: int, level: bool) -> None:
        """Pull an input, and let the edge be noticed."""
        ...


def _raises(kind: type[Exception], act: Callable[[], None]) -> bool:
    """As pytest.raises; the virtual box has no pytest."""
    try:
        act()
    except kind:
        return True
    return False


def a_light_goes_on_and_off(world: World) -> None:
    with LED(PIN, initial_value=False, pin_factory=world.factory) as light:
        assert not world.seen(PIN)
        light.value = True
        assert world.seen(PIN)
        light.value = False
        assert not world.seen(PIN)


def an_active_low_output_begins_dark(world: World) -> None:
    with LED(PIN, active_high=False, initial_value=False, pin_factory=world.factory) as light:
        assert world.seen(PIN)
        light.value = True
        assert not world.seen(PIN)


def an_output_has_its_level_from_the_first_moment(world: World) -> None:
    pin = world.factory.pin(PIN)
    pin.output_with_state(True)
    assert pin.function == "output"
    assert world.seen(PIN)
    pin.close()


def an_input_follows_its_wire(world: World) -> None:
    with DigitalInputDevice(PIN, pull_up=True, pin_factory=world.factory) as device:
        world.drive(PIN, False)
        assert device.is_active
        world.drive(PIN, True)
        assert not device.is_active


def edges_are_told_in_order(world: World) -> None:
    told: list[str] = []
    with DigitalInputDevice(PIN, pull_up=True, pin_factory=world.factory) as device:
        world.drive(PIN, True)
        device.when_activated = lambda: told.append("down")
        device.when_deactivated = lambda: told.append("up")
        for level in (False, True, False, True):
            world.drive(PIN, level)
        assert told == ["down", "up", "down", "up"]


def no_edge_is_told_after_the_end(world: World) -> None:
    told: list[str] = []
    device = DigitalInputDevice(PIN, pull_up=True, pin_factory=world.factory)
    device.when_activated = lambda: told.append("down")
    device.close()
    world.drive(PIN, False)
    world.drive(PIN, True)
    assert told == []


def an_input_cannot_be_set(world: World) -> None:
    pin = world.factory.pin(OTHER)
    pin.input_with_pull("up")
    assert _raises(PinSetInput, lambda: setattr(pin, "state", True))
    pin.close()


def there_is_no_pwm(world: World) -> None:
    pin = world.factory.pin(OTHER)
    pin.output_with_state(False)
    assert _raises(PinPWMUnsupported, lambda: setattr(pin, "frequency", 100))
    pin.close()


def pins_do_not_know_each_other(world: World) -> None:
    with (
        LED(PIN, pin_factory=world.factory) as one,
        LED(OTHER, pin_factory=world.factory) as other,
    ):
        one.value = True
        assert (world.seen(PIN), world.seen(OTHER)) == (True, False)
        one.value, other.value = False, True
        assert (world.seen(PIN), world.seen(OTHER)) == (False, True)


CONTRACT: tuple[Callable[[World], None], ...] = (
    a_light_goes_on_and_off,
    an_active_low_output_begins_dark,
    an_output_has_its_level_from_the_first_moment,
    an_input_follows_its_wire,
    edges_are_told_in_order,
    no_edge_is_told_after_the_end,
    an_input_cannot_be_set,
    there_is_no_pwm,
    pins_do_not_know_each_other,
)


class Simulated:
    """gpiozero's own simulated pins."""

    def __init__(self) -> None:
        from gpiozero.pins.mock import MockFactory

        self.factory = MockFactory()

    def seen(self, pin: int) -> bool:
        return bool(self.factory.pin(pin).state)

    def drive(self, pin: int, level: bool) -> None:
        wire = self.factory.pin(pin)
        (wire.drive_high if level else wire.drive_low)()


class Kernel:
    """The kernel's own simulator, gpio-sim: the other end of each line is a file."""

    def __init__(self) -> None:
        from agent.hands.factory import GpiodFactory
        from agent.hands.lines import find_chip

        chip = find_chip()
        assert chip is not None, "no GPIO chip here"
        self._callbacks: dict[int, Callable[[], None]] = {}
        self.factory = GpiodFactory(chip, self._watch)
        found = Path("/sys/devices/platform").glob("gpio-sim.*/gpiochip*/sim_gpio*")
        self._lines = {int(p.name.removeprefix("sim_gpio")): p for p in found}

    def _watch(self, fd: int, callback: Callable[[], None] | None) -> None:
        self._callbacks.pop(fd, None)
        if callback is not None:
            self._callbacks[fd] = callback

    def seen(self, pin: int) -> bool:
        return (self._lines[pin] / "value").read_text().strip() == "1"

    def drive(self, pin: int, level: bool) -> None:
        import select

        (self._lines[pin] / "pull").write_text("pull-up" if level else "pull-down")
        ends = time.monotonic() + 0.5
        while self._callbacks and time.monotonic() < ends:
            ready, _, _ = select.select(list(self._callbacks), [], [], 0.1)
            for fd in ready:
                self._callbacks[fd]()
            if not ready:
                return


def main() -> int:
    for promise in CONTRACT:
        promise(Kernel())
        print(f"{promise.__name__}: kept")
    return 0


if __name__ == "__main__":
    sys.exit(main())
