"""What is left to be seen when hands has ended, however it ended: never what was true before.

    python -m agent.hands.farewell      (ExecStopPost= of the service; reads $STATE_DIRECTORY)

A LED of the kernel is set blinking, which it goes on doing by itself: nothing watches the room any
more. Lamps on pins and boards are dark. Only lights that room.toml gave to the room's state are
touched, from the list that hands kept: the door lamp holds, and of a microphone nothing is known.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from agent import patterns
from agent.hands import layout
from agent.hands.keeper import Keeper
from agent.hands.layout import Layout, Place

_TRIGGER = "timer"
"""Documentation/leds/leds-class.rst: lit and dark for `delay_on` and `delay_off` milliseconds."""


def main(root: Path = Path("/")) -> int:
    """Leave the room's lights as they have to be; 0 also where there are none."""
    folder = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    try:
        kept = layout.parse(Keeper(Path(folder or ".")).read().layout)
    except ValueError:
        return 0
    places = list(lamps(kept))
    for led in sorted({place.led for place in places if place.led}):
        for folder_of in sorted((root / "sys/class/leds").glob(led)):
            blink(folder_of)
    darken([place for place in places if not place.led], root)
    return 0


def lamps(kept: Layout) -> Iterator[Place]:
    """The lamps that show the room's state."""
    for light in kept.lights:
        if light.role == "status":
            yield from light.lamps.values()


def darken(places: list[Place], root: Path) -> None:
    """Switch lamps off and let them go. A pin that is let go keeps its level on a Raspberry Pi; one
    that does not goes to its pull. A lamp that cannot be had is said, and left."""
    if not places:
        return
    from agent.hands.hardware import Hardware  # only for who has such lamps: half a second on a Pi

    hardware = Hardware(watch=lambda fd, callback: None, root=root)
    for place in places:
        try:
            lamp = hardware.lamp(place)
        except OSError as error:
            print(f"{place} cannot be darkened: {error.strerror or error}", file=sys.stderr)
            continue
        with contextlib.suppress(OSError):
            lamp.close()
    hardware.close()


def blink(folder: Path) -> None:
    """Have the kernel show `patterns.STOPPED` on one LED; a LED that cannot is left as it is."""
    lit_s, dark_s = patterns.STOPPED.times
    try:
        (folder / "trigger").write_text(_TRIGGER)
        (folder / "delay_on").write_text(str(round(lit_s * 1000)))
        (folder / "delay_off").write_text(str(round(dark_s * 1000)))
    except OSError as error:
        print(f"{folder.name} cannot blink by itself: {error.strerror}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
