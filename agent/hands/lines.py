"""Lines of the kernel's GPIO controllers: which chip has them, and holding an output.

A line is asked for in one request that carries its first level, so that it is at no moment an
output with a level that nobody chose. What counts is the request's descriptor: while somebody has
it open, the kernel keeps the line as it is. So it can go to the service manager's store and come
back to a later process, which reads and sets the line through the same two calls
(uapi/linux/gpio.h, GPIO_V2_LINE_GET_VALUES and _SET_VALUES).
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import gpiod
from gpiod.line import Direction, Value

LABELS = ("pinctrl-rp1", "pinctrl-bcm2711", "pinctrl-bcm2835")
"""Labels of the chips behind the header of a Raspberry Pi; their offsets are the BCM numbers. The
number of a chip changes with the kernel (raspberrypi/linux#6144, #7341), the label does not."""
CONSUMER = "hearing-room"
_GET_VALUES, _SET_VALUES = 0xC010B40E, 0xC010B40F
_VALUES = struct.Struct("=QQ")  # bits, mask; bit n is the n-th line of the request


@dataclass(frozen=True, slots=True)
class Chip:
    """The chip behind the header: its node, its label, and the offset of each BCM number."""

    path: Path
    label: str
    offsets: Mapping[int, int]


def find_chip(dev: Path = Path("/dev")) -> Chip | None:
    """The chip behind the 40-pin header, by label or by the names of its lines; None where there
    is none. Raises `PermissionError` where one is there that may not be opened."""
    refused: PermissionError | None = None
    named: Chip | None = None
    for path in sorted(dev.glob("gpiochip*")):
        if path.is_symlink():  # gpiochip4 -> gpiochip0 on some kernels
            continue
        try:
            with gpiod.Chip(str(path)) as chip:
                info = chip.get_info()
                if info.label in LABELS:
                    pins = range(min(28, info.num_lines))
                    return Chip(path, info.label, {pin: pin for pin in pins})
                named = named or _by_names(path, chip)
        except PermissionError as error:
            refused = error
        except OSError:  # no GPIO chip, whatever its name
            continue
    if named is None and refused is not None:
        raise refused
    return named


def _by_names(path: Path, chip: gpiod.Chip) -> Chip | None:
    """A chip of another maker counts when it has all of GPIO0 to GPIO27 by name."""
    try:
        offsets = {pin: chip.line_offset_from_id(f"GPIO{pin}") for pin in range(28)}
    except (OSError, ValueError):
        return None
    return Chip(path, chip.get_info().label, offsets)


class Line:
    """One output line that is held. Levels are those of the wire."""

    def __init__(self, fd: int) -> None:
        """Takes over the open descriptor of a request for one line."""
        self.fd = fd

    @classmethod
    def request(cls, chip: Chip, pin: int, level: bool) -> Line:
        """Make a line an output that has `level` from the first moment on. Raises `OSError`:
        EBUSY where another program holds it."""
        settings = gpiod.LineSettings(
            direction=Direction.OUTPUT, output_value=Value.ACTIVE if level else Value.INACTIVE
        )
        with (
            gpiod.Chip(str(chip.path)) as device,
            device.request_lines({chip.offsets[pin]: settings}, consumer=CONSUMER) as request,
        ):
            return cls(os.dup(request.fd))

    def read(self) -> bool:
        """The level that the line has now. Raises `OSError`."""
        answer = fcntl.ioctl(self.fd, _GET_VALUES, _VALUES.pack(0, 1))
        return bool(_VALUES.unpack(answer)[0] & 1)

    def write(self, level: bool) -> None:
        """Set the line. Raises `OSError`."""
        fcntl.ioctl(self.fd, _SET_VALUES, _VALUES.pack(int(level), 1))

    def close(self) -> None:
        """Let go of the line; what it does then is the controller's affair."""
        os.close(self.fd)
