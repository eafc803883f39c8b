"""What the kernel's own LEDs say when hands has ended: that nothing watches the room any more.

    python -m agent.hands.farewell      (ExecStopPost= of the service; reads $STATE_DIRECTORY)

The kernel blinks such a LED by itself, so the light goes on saying it without any program. Only
LEDs that room.toml gave to a light are touched; the list is the one that hands kept.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from agent import patterns
from agent.hands import layout
from agent.hands.keeper import Keeper
from agent.hands.layout import Layout

_TRIGGER = "timer"
"""Documentation/leds/leds-class.rst: lit and dark for `delay_on` and `delay_off` milliseconds."""


def main(root: Path = Path("/")) -> int:
    """Set the LEDs of the room's lights blinking; 0 also where there are none."""
    folder = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    try:
        kept = layout.parse(Keeper(Path(folder or ".")).read().layout)
    except ValueError:
        return 0
    for led in leds(kept):
        for folder_of in sorted((root / "sys/class/leds").glob(led)):
            blink(folder_of)
    return 0


def leds(kept: Layout) -> Iterator[str]:
    """The names of the LEDs that show the room's state."""
    for light in kept.lights:
        if light.role == "status":
            yield from sorted({place.led for place in light.lamps.values() if place.led})


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
