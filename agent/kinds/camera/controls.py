"""Picture controls that a camera forgets when it is plugged in again: set before a look.

They are compared first and set only where they differ, so a camera that has kept them is left as
it is. That is done at every look: programs for meetings change them as well.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Mapping
from typing import Protocol

from agent.model import Scalar

_USER, _CAMERA = 0x0098_0900, 0x009A_0900
IDS: Mapping[str, int] = {  # <linux/v4l2-controls.h>, by the names that v4l2-ctl shows
    "brightness": _USER + 0,
    "contrast": _USER + 1,
    "saturation": _USER + 2,
    "hue": _USER + 3,
    "white_balance_automatic": _USER + 12,
    "gamma": _USER + 16,
    "gain": _USER + 19,
    "horizontal_flip": _USER + 20,
    "vertical_flip": _USER + 21,
    "power_line_frequency": _USER + 24,
    "white_balance_temperature": _USER + 26,
    "sharpness": _USER + 27,
    "backlight_compensation": _USER + 28,
    "auto_exposure": _CAMERA + 1,
    "exposure_time_absolute": _CAMERA + 2,
    "exposure_dynamic_framerate": _CAMERA + 3,
    "pan_absolute": _CAMERA + 8,
    "tilt_absolute": _CAMERA + 9,
    "focus_absolute": _CAMERA + 10,
    "focus_automatic_continuous": _CAMERA + 12,
    "zoom_absolute": _CAMERA + 13,
}
"""What may be set. An automatic one stands before what it takes over from: with it on, a driver
refuses the other."""
_REFUSALS = frozenset(
    {errno.EINVAL, errno.ERANGE, errno.EACCES, errno.EPERM, errno.EBUSY, errno.EILSEQ}
)


class Controls(Protocol):
    """The part of an open camera that is needed here; errors are `OSError` as the driver says."""

    def has_control(self, number: int) -> bool:
        """Whether the camera has the control at all."""
        ...

    def control(self, number: int) -> int:
        """Its value."""
        ...

    def set_control(self, number: int, value: int) -> None:
        """Another value."""
        ...


def apply(camera: Controls, wanted: Mapping[str, int]) -> dict[str, Scalar]:
    """Sets what differs, reads it back, and counts; empty where nothing is wanted.

    `controls_set`        changed now, and read back as wanted
    `controls_missing`    the camera has no such control
    `controls_refused`    it has, and did not take the value
    `controls_unanswered` it did not answer: some need 20 s after they were plugged in
    The last three are left out where there are none.
    """
    counts = dict.fromkeys(("set", "missing", "refused", "unanswered"), 0)
    left = [name for name in IDS if name in wanted]
    while left:
        name = left.pop(0)
        try:
            how = _one(camera, name, wanted[name])
        except OSError as error:
            how = "refused" if error.errno in _REFUSALS else "unanswered"
        if how == "unanswered":  # each such answer may take 5 s: do not ask for the others
            counts[how] += len(left)
            left = []
        if how:
            counts[how] += 1
    return {f"controls_{how}": n for how, n in counts.items() if n or (how == "set" and wanted)}


def _one(camera: Controls, name: str, value: int) -> str:
    """What became of one control; empty where it was as wanted."""
    number = IDS[name]
    if not camera.has_control(number):
        return "missing"
    before = camera.control(number)
    if before == value:
        return ""
    camera.set_control(number, value)
    now = camera.control(number)
    if now != before:
        print(f"camera: {name} {before} -> {now}", file=sys.stderr, flush=True)
    return "set" if now == value else "refused"


def known(wanted: Mapping[str, int]) -> Mapping[str, int]:
    """The controls of a settings table. Raises `ValueError` for a name that is none."""
    for name in wanted:
        if name not in IDS:
            import difflib  # only for a mistake

            close = difflib.get_close_matches(name, IDS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"controls are {', '.join(IDS)}"
            raise ValueError(f"unknown control {name!r}; {hint}")
    return wanted
