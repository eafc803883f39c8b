"""LEDs that the kernel drives, under /sys/class/leds: the box's own, and USB lights of its hid-led
driver (blink(1), Luxafor, Delcom, Riso Kagaku, Dream Cheeky), which are one LED for each colour.

A name may hold `*`, which stands for anything: hid-led puts the number of the HID node into its
names (`luxafor0:red:led3`, drivers/hid/hid-led.c), and that changes with what is plugged in. All
LEDs that match burn as one lamp.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import os
from collections.abc import Iterator
from pathlib import Path

CLASS = "sys/class/leds"
NONE = "none"


def find(name: str, root: Path) -> list[Path]:
    """The folders of the LEDs with a name. Raises `OSError`: ENODEV where there is none."""
    folder = root / CLASS
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError:
        names = []
    found = [folder / one for one in names if fnmatch.fnmatchcase(one, name)]
    if not found:
        raise OSError(errno.ENODEV, f"no LED {name}; there are {', '.join(names) or 'none'}")
    return found


class SystemLed:
    """One LED. What made it burn before comes back at the end."""

    def __init__(self, folder: Path) -> None:
        """Takes it over, dark. Raises `OSError`: EACCES where that is not allowed."""
        self._brightness = folder / "brightness"
        self._trigger = folder / "trigger"
        self._full = (folder / "max_brightness").read_text().strip()
        self._before = self._chosen()
        if self._before != NONE:
            _write(self._trigger, NONE)
        self.set(False)

    def set(self, on: bool) -> None:
        """Full brightness, or dark. Raises `OSError`: ENODEV where it was unplugged."""
        with _gone_is_enodev():
            _write(self._brightness, self._full if on else "0")

    def get(self) -> bool | None:
        """Whether it burns, as the kernel has it."""
        with _gone_is_enodev():
            return self._brightness.read_text().strip() != "0"

    def close(self) -> None:
        """Dark, and back to what it was for."""
        with contextlib.suppress(OSError):
            self.set(False)
            if self._before != NONE:
                _write(self._trigger, self._before)

    def _chosen(self) -> str:
        """The trigger in brackets; a kernel without triggers has no such file."""
        try:
            text = self._trigger.read_text()
        except FileNotFoundError:
            return NONE
        return text.partition("[")[2].partition("]")[0] or NONE


def _write(path: Path, text: str) -> None:
    """Into a file that is there: none is ever made."""
    fd = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


@contextlib.contextmanager
def _gone_is_enodev() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise OSError(errno.ENODEV, "the LED is gone", error.filename) from None


class SystemLeds:
    """All LEDs with a name, as one lamp."""

    def __init__(self, name: str, root: Path = Path("/")) -> None:
        """Takes them over, dark: all or none. Raises `OSError`."""
        self._leds: list[SystemLed] = []
        try:
            for folder in find(name, root):
                self._leds.append(SystemLed(folder))
        except OSError:
            self.close()
            raise

    def set(self, on: bool) -> None:
        """All of them."""
        for led in self._leds:
            led.set(on)

    def get(self) -> bool | None:
        """Whether any of them burns."""
        return any(led.get() for led in self._leds)

    def close(self) -> None:
        """All of them back to what they were for."""
        for led in self._leds:
            led.close()
