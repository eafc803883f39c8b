"""gpiozero's pins over the kernel's GPIO interface: a pin factory on top of `gpiod`.

gpiozero's own factories need libraries without wheels for new Pythons, or the removed sysfs
interface (docs/decisions). This one has what lights, inputs and a button need; there is no PWM.
Edges are handed to whoever runs a loop: no thread waits for them.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from time import monotonic
from typing import Any, Protocol

import gpiod
from gpiod.line import Bias, Direction, Edge, Value
from gpiozero.exc import (
    PinEdgeDetectUnsupported,
    PinInvalidBounce,
    PinInvalidEdges,
    PinInvalidFunction,
    PinInvalidPin,
    PinInvalidPull,
    PinPWMUnsupported,
    PinSetInput,
)
from gpiozero.pins.pi import PiFactory, PiPin

from agent.hands.lines import CONSUMER, Chip

_ANY_PI = 0xA020D3
"""A 3B+: its 40-pin header has the same GPIO numbers as that of every later model, and of the
header gpiozero needs to know no more."""
_PULLS = {"up": Bias.PULL_UP, "down": Bias.PULL_DOWN, "floating": Bias.DISABLED}
_EDGES = {"both": Edge.BOTH, "rising": Edge.RISING, "falling": Edge.FALLING, "none": Edge.NONE}


class Watch(Protocol):
    """A loop that calls back when a descriptor becomes readable; None ends it."""

    def __call__(self, fd: int, callback: Callable[[], None] | None) -> None:
        """Watch a descriptor, or stop to."""
        ...


class GpiodFactory(PiFactory):  # type: ignore[misc] # gpiozero has no types
    """Pins of one chip. `watch` may be left out where nobody asks for edges."""

    def __init__(self, chip: Chip, watch: Watch | None = None) -> None:
        super().__init__()
        self.pin_class = GpiodPin
        self.chip = chip
        self.watch = watch
        self.device = gpiod.Chip(str(chip.path))

    def close(self) -> None:
        """Let go of every pin and of the chip."""
        super().close()
        self.device.close()

    def _get_revision(self) -> int:
        return _ANY_PI

    @staticmethod
    def ticks() -> float:
        """Seconds of the clock that edges are stamped with."""
        return monotonic()

    @staticmethod
    def ticks_diff(later: float, earlier: float) -> float:
        """Seconds between two `ticks`."""
        return later - earlier


class GpiodPin(PiPin):  # type: ignore[misc]
    """One line. Asked for only when it is given a function: looking at a pin changes nothing."""

    def __init__(self, factory: GpiodFactory, info: Any) -> None:
        super().__init__(factory, info)
        self._offset = factory.chip.offsets.get(self._number)
        if self._offset is None:
            raise PinInvalidPin(f"{info.name} is no line of {factory.chip.label}")
        self._request: Any = None
        self._output = False
        self._pull = "floating"
        self._bounce: float | None = None
        self._edges = "both"
        self._watching = False

    def close(self) -> None:
        """Back to nobody's line."""
        self.when_changed = None
        if self._request is not None:
            self._request.release()
            self._request = None
        self._output = False

    def output_with_state(self, state: Any) -> None:
        """An output that has its level from the first moment on."""
        self._ask(gpiod.LineSettings(direction=Direction.OUTPUT, output_value=Value(int(state))))
        self._output = True

    def input_with_pull(self, pull: str) -> None:
        """An input with its pull from the first moment on."""
        if pull not in _PULLS:
            raise PinInvalidPull(f"pull must be up, down or floating, not {pull!r}")
        self._pull = pull
        self._listen()

    def dispatch(self) -> None:
        """Take the edges that have come in and tell of each. Called by the loop."""
        try:
            events = self._request.read_edge_events()
        except OSError:  # the chip is gone; a line that says nothing more is not asked again
            self._watching = False
            self.factory.watch(self._request.fd, None)
            return
        for event in events:
            rising = event.event_type is event.Type.RISING_EDGE
            self._call_when_changed(event.timestamp_ns / 1e9, int(rising))

    def _ask(self, settings: gpiod.LineSettings) -> None:
        config: Any = {self._offset: settings}
        if self._request is None:
            self._request = self.factory.device.request_lines(config, consumer=CONSUMER)
        else:
            self._request.reconfigure_lines(config)

    def _listen(self) -> None:
        edges = _EDGES[self._edges] if self._watching else Edge.NONE
        self._ask(
            gpiod.LineSettings(
                direction=Direction.INPUT,
                bias=_PULLS[self._pull],
                edge_detection=edges,
                debounce_period=timedelta(seconds=self._bounce or 0),
            )
        )
        self._output = False

    def _get_function(self) -> str:
        return "output" if self._output else "input"

    def _set_function(self, value: str) -> None:
        if value == "output":
            self.output_with_state(0)
        elif value == "input":
            self._listen()
        else:
            raise PinInvalidFunction(f"function must be input or output, not {value!r}")

    def _get_state(self) -> int:
        if self._request is None:
            self._listen()
        return int(self._request.get_value(self._offset) is Value.ACTIVE)

    def _set_state(self, value: Any) -> None:
        if not self._output:
            raise PinSetInput(f"cannot set the state of input {self!r}")
        self._request.set_value(self._offset, Value(int(bool(value))))

    def _get_pull(self) -> str:
        return self._pull

    def _set_pull(self, value: str) -> None:
        self.input_with_pull(value)

    def _get_frequency(self) -> None:
        return None

    def _set_frequency(self, value: Any) -> None:
        if value is not None:
            raise PinPWMUnsupported(f"no PWM on {self!r}")

    def _get_bounce(self) -> float | None:
        return self._bounce

    def _set_bounce(self, value: float | None) -> None:
        if value is not None and value < 0:
            raise PinInvalidBounce("bounce must be 0 or greater")
        self._bounce = value
        if self._request is not None and not self._output:
            self._listen()

    def _get_edges(self) -> str:
        return self._edges

    def _set_edges(self, value: str) -> None:
        if value not in _EDGES:
            raise PinInvalidEdges(f"edges must be one of {', '.join(_EDGES)}, not {value!r}")
        self._edges = value
        if self._watching:
            self._listen()

    def _enable_event_detect(self) -> None:
        if self.factory.watch is None:
            raise PinEdgeDetectUnsupported(f"nobody watches the edges of {self!r}")
        self._watching = True
        self._listen()
        self.factory.watch(self._request.fd, self.dispatch)

    def _disable_event_detect(self) -> None:
        if self._watching:
            self._watching = False
            self.factory.watch(self._request.fd, None)
            self._listen()
