"""Steps that bring a USB device back, as hands allows them: which device, how often, one at a time.

The step itself is a short-lived child (`usb_step`): a write to a broken device can hang in the
kernel for as long as the kernel likes, and hands may not. The child is never killed, and what ends
hands does not end it: a device is not left half way.

Only cameras and sound are touched, never a hub, a disk, an adapter, or a device whose firmware is
being replaced. One that somebody else has switched off (`authorized` is 0: a policy) stays so.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import os
import re
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from agent import usb_tree
from agent.hands import usb_step
from agent.model import Fault, Reading, Scalar
from agent.usb_tree import UsbDevice

log = logging.getLogger("hands")

REBIND, REAUTHORIZE, RESET, POWER_CYCLE = "rebind", "reauthorize", "reset", "power_cycle"
STEPS = frozenset({REBIND, REAUTHORIZE, RESET, POWER_CYCLE})
LONGEST_S = 30.0
"""A child that takes longer hangs: a camera answers its driver within 5 s a request or never."""
LOOK_S = 0.1
"""How often a child is looked after where the kernel gives no pidfd."""
MAX_PER_H = 12
"""The last resort: whoever asks for more than this is broken."""
HOUR_S = 3_600.0
_HUB = re.compile(r"\d{1,3}(?:-\d{1,3}(?:\.\d{1,3}){0,5})?(?::\d{1,2})?")
"""`1-1`, or `1-1:2` for one port of it."""
_ID = re.compile(r"[0-9a-f]{4}:[0-9a-f]{4}")
_SAFE = frozenset({usb_tree.AUDIO, usb_tree.VIDEO})
_NEVER = frozenset(
    {
        usb_tree.HUB,
        usb_tree.STORAGE,
        usb_tree.COMMUNICATION,
        usb_tree.DATA,
        usb_tree.WIRELESS,
    }
)

NO_DEVICE, OTHER_DEVICE, PROTECTED = "no_device", "other_device", "protected"
UPDATING, SWITCHED_OFF = "updating", "switched_off"
STEP_BUDGET, STEP_RUNNING, STEP_STUCK = "step_budget", "step_running", "step_stuck"
NO_UHUBCTL, NEEDED = "no_uhubctl", "needed_by_box"
REFUSALS = frozenset(
    {
        NO_DEVICE,
        OTHER_DEVICE,
        PROTECTED,
        UPDATING,
        SWITCHED_OFF,
        STEP_BUDGET,
        STEP_RUNNING,
        STEP_STUCK,
        NO_UHUBCTL,
        NEEDED,
    }
)


class UsbSteps:
    """The steps of a box. Times are boot-time seconds."""

    def __init__(
        self,
        root: Path = Path("/"),
        watch: Callable[[int, Callable[[], None] | None], None] = lambda fd, callback: None,
        kept: Iterable[float] = (),
    ) -> None:
        """`watch` calls back when a descriptor is readable; `kept` is what `save` gave."""
        self._root = root
        self._watch = watch
        self._begun: deque[float] = deque(sorted(kept)[-MAX_PER_H:])
        self._number = 0
        self._step = ""
        self._child: subprocess.Popen[bytes] | None = None
        self._fd: int | None = None
        self._until_s = math.inf
        self._errno: int | None = None
        self._stuck = False

    def take(self, step: str, args: Mapping[str, Any], now_s: float) -> Reading:
        """Begin a step. The reading says `number` (to ask with) or, skipped, which rule forbids
        it. Raises `ValueError` for arguments that cannot be."""
        command = self._command(step, args)
        if isinstance(command, str):
            return Reading(fault=Fault.SKIPPED, why=command)
        if self._child is not None:
            return Reading(fault=Fault.SKIPPED, why=STEP_STUCK if self._stuck else STEP_RUNNING)
        while self._begun and self._begun[0] <= now_s - HOUR_S:
            self._begun.popleft()
        if len(self._begun) >= MAX_PER_H:
            return Reading(fault=Fault.SKIPPED, why=STEP_BUDGET)
        self._begun.append(now_s)
        self._number += 1
        self._step, self._errno = step, None
        log.info("usb %s: %s for %s", step, " ".join(command), str(args.get("by", ""))[:64])
        try:
            self._start(step, command, now_s)
        except OSError as error:
            self._errno = error.errno or errno.EIO
        return self.read(now_s)

    def read(self, now_s: float) -> Reading:
        """What became of the last step: `running`, then `errno` (0: it was done)."""
        self.tick(now_s)
        values: dict[str, Scalar] = {"number": self._number, "running": self._child is not None}
        if self._step:
            values["step"] = self._step
        if self._errno is not None:
            values["errno"] = self._errno
        if self._stuck:
            values["stuck"] = True
        return Reading(values)

    def tick(self, now_s: float) -> float:
        """See whether the child has ended; when to look again."""
        if self._child is None:
            return math.inf
        code = self._child.poll()
        if code is not None:
            self._errno = code if code >= 0 else errno.EINTR
            log.info("usb %s: %s", self._step, os.strerror(code) if code > 0 else "done")
            self._let_go()
            return math.inf
        if now_s >= self._until_s and not self._stuck:
            log.error("usb %s hangs in the kernel: no further step until it is gone", self._step)
            self._stuck = True
        if self._fd is None:
            return now_s + LOOK_S
        return math.inf if self._stuck else self._until_s

    def save(self) -> list[float]:
        """When steps were begun in the last hour."""
        return list(self._begun)

    # -- what may be touched -------------------------------------------------------------------

    def _command(self, step: str, args: Mapping[str, Any]) -> list[str] | str:
        """The words for the child, or the rule that forbids the step."""
        if step == POWER_CYCLE:
            return self._power(args["hubs"])
        port, usb_id = str(args["port"]), str(args["usb"])
        if _ID.fullmatch(usb_id) is None:
            raise ValueError(f"{usb_id!r} is no USB id")
        driver = args.get("driver")
        if driver is not None and driver not in usb_step.DRIVERS:
            raise ValueError(f"{driver!r} is no driver that may be taken away")
        device = usb_tree.at(port, self._root)
        if device is None:
            return NO_DEVICE
        if device.usb_id != usb_id:
            return OTHER_DEVICE
        if not device.authorized:
            return SWITCHED_OFF
        if device.updating:
            return UPDATING
        if not _is_harmless(device):
            return PROTECTED
        return [step, port] + ([driver] if driver and step == REBIND else [])

    def _power(self, hubs: Any) -> list[str] | str:
        """All ports at once: not where the box itself hangs on one of them."""
        if not isinstance(hubs, list) or not 1 <= len(hubs) <= 4:
            raise ValueError("hubs is a list of one to four hubs")
        for hub in hubs:
            if not isinstance(hub, str) or _HUB.fullmatch(hub) is None:
                raise ValueError(f"{hub!r} is no hub; one is written 1-1 or 1-1:2")
        devices = usb_tree.every(self._root)
        if any(d.updating for d in devices):
            return UPDATING
        if any(d.carries or _classes(d) & (_NEVER - {usb_tree.HUB}) for d in devices):
            return NEEDED
        program = shutil.which("uhubctl", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        return [POWER_CYCLE, program, *hubs] if program else NO_UHUBCTL

    # -- the child -----------------------------------------------------------------------------

    def _start(self, step: str, words: list[str], now_s: float) -> None:
        command = [sys.executable, "-P", "-s", "-m", "agent.hands.usb_step", str(self._root)]
        env = {"PATH": os.environ.get("PATH", ""), "PYTHONDONTWRITEBYTECODE": "1"}
        self._child = subprocess.Popen(
            [*command, *words],
            env={**env, "PYTHONPATH": str(Path(__file__).parents[2])},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        self._until_s = now_s + LONGEST_S
        with contextlib.suppress(OSError):
            self._fd = os.pidfd_open(self._child.pid)
            self._watch(self._fd, lambda: None)  # wakes the loop, whose tick looks

    def _let_go(self) -> None:
        self._child, self._until_s, self._stuck = None, math.inf, False
        if self._fd is not None:
            self._watch(self._fd, None)
            os.close(self._fd)
            self._fd = None


def _classes(device: UsbDevice) -> frozenset[str]:
    return frozenset({device.usb_class, *(i.usb_class for i in device.interfaces)})


def _is_harmless(device: UsbDevice) -> bool:
    """A camera or a sound device, and nothing on it that the box could need."""
    classes = _classes(device)
    return bool(classes & _SAFE) and not classes & _NEVER and not device.carries
