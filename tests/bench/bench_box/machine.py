"""One QEMU process: how it is started, resumed from memory, cut off.

No hardware acceleration is needed (TCG). A plain box starts from a snapshot of the booted machine
in two to four seconds; whoever needs another kernel line, memory or clock boots the kernel.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from bench_box import places, stamp
from bench_box.host import TO_RUN, BenchError, need, sh
from bench_box.qemu import PLAIN, Shape, command
from bench_box.sockets import Inside, Monitor

COLD_S = 300.0
WARM_S = 60.0
_PR_SET_PDEATHSIG = 1
_EMULATOR_FAILED = "Oops: int3:"
"""The kernel replaces instructions of its own while it runs, by way of an int3; now and then an
emulated processor meets one of a moment ago. That happens in the first second, before any disk is
mounted, and is nothing of the box."""
_TRIES = 3
_SOCKETS = ("qmp.sock", "inside.sock", "serial.sock", "vnc0.sock", "vnc1.sock", "pid")


class EmulatorError(BenchError):
    """The emulated processor itself went wrong."""


class Machine:
    """The box of one name. `broker_port` is where `broker:1883` leads to on this host; a `tied`
    box is gone when this process is."""

    def __init__(self, name: str, broker_port: int = 1883, *, tied: bool = False) -> None:
        self.name = name
        self.broker_port = broker_port
        self._tied = tied
        self.folder = places.run_folder(name)
        self.inside = Inside(self.folder / "inside.sock")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process of this box, None when it is off."""
        if self._process is not None and self._process.poll() is not None:
            self._process = None
        try:
            pid = int((self.folder / "pid").read_text())
            line = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        return pid if self._title.encode() in line else None

    @property
    def serial_log(self) -> str:
        """All that came over the serial console."""
        try:
            return (self.folder / "serial.log").read_text(errors="replace")
        except OSError:
            return ""

    @property
    def _title(self) -> str:
        return f"hearing-room-bench-{self.name}"

    def monitor(self, timeout_s: float = 30.0) -> Monitor:
        """A fresh connection to QEMU itself."""
        return Monitor(self.folder / "qmp.sock", timeout_s)

    def boot(self, shape: Shape = PLAIN, *, cold: bool = False, keep: bool = False) -> bool:
        """Starts the box; True when it was resumed from memory. Returns when it takes commands.

        `keep` goes on with the disk as it was left, and boots cold.
        """
        need(TO_RUN)
        image = stamp.image_folder()
        if self.pid:
            raise BenchError(f"box {self.name} runs already")
        if not (image / "image.json").exists():
            raise BenchError("there is no image; `tests/bench/run --build` makes it")
        os.utime(image)  # in use: not to be tidied away
        self.folder.mkdir(parents=True, exist_ok=True)
        state, disk = image / "booted.state", self.folder / "disk.qcow2"
        warm = shape == PLAIN and not cold and not keep and state.exists()
        if not (keep and disk.exists()):
            base = (image / "booted.qcow2", "qcow2") if warm else (image / "base.raw", "raw")
            overlay(disk, *base)
        incoming = ["-incoming", f"exec:cat {state}"] if warm else []
        for left in reversed(range(_TRIES)):
            self.launch(disk, shape, incoming)
            if warm:
                self._resume()
            try:
                self.wait_until_it_answers(WARM_S if warm else COLD_S)
                break
            except EmulatorError:
                self.cut_power()
                if not left:
                    raise
        return warm

    def _resume(self) -> None:
        with self.monitor() as monitor:
            while (status := monitor.call("query-status")["status"]) == "inmigrate":
                time.sleep(0.05)
            if status != "running":
                monitor.call("cont")

    def wait_until_it_answers(self, limit_s: float) -> None:
        """Returns when the box takes commands. Raises `BenchError` after `limit_s`, and
        `EmulatorError` at once where the kernel fell over something that only an emulator does."""
        ends = time.monotonic() + limit_s
        while time.monotonic() < ends:
            if not self.pid:
                raise BenchError(f"QEMU ended: {self._last_words()}")
            if self.inside.answers():
                return
            if _EMULATOR_FAILED in (said := self.serial_log):
                raise EmulatorError(f"the emulator failed: {said[-2000:]}")
            time.sleep(0.1)
        raise BenchError(f"no answer from the box in {limit_s:.0f} s: {self.serial_log[-2000:]}")

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            return (self.folder / "qemu.log").read_text(errors="replace")[-2000:]
        return ""

    def launch(self, disk: Path, shape: Shape, incoming: list[str]) -> None:
        """Starts the process and returns when its sockets are there."""
        for name in (*_SOCKETS, "serial.log"):
            (self.folder / name).unlink(missing_ok=True)
        (self.folder / "share").mkdir(exist_ok=True)
        image = stamp.image_folder()
        words = command(shape, self._title, self.folder, image, disk, self.broker_port)
        with (self.folder / "qemu.log").open("wb") as log:
            self._process = subprocess.Popen(
                [*words, *incoming],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_us if self._tied else None,
            )
        ends = time.monotonic() + 30
        while not ((self.folder / "qmp.sock").exists() and self.pid):
            if self._process is None or self._process.poll() is not None:
                raise BenchError(f"QEMU did not start: {self._last_words()}")
            if time.monotonic() > ends:
                raise BenchError("QEMU made no socket in 30 s")
            time.sleep(0.02)

    def cut_power(self) -> None:
        """Off at once, as when the plug is pulled. What was not synced to the disk is lost."""
        pid = self.pid
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        if self._process is not None:
            self._process.wait(10)
        ends = time.monotonic() + 10
        while self.pid and time.monotonic() < ends:
            time.sleep(0.02)

    def remove(self) -> None:
        """Off for good, and its folder with it."""
        self.cut_power()
        shutil.rmtree(self.folder, ignore_errors=True)

    def stop(self, timeout_s: float = 60.0) -> None:
        """Shuts the box down; cut off when it takes longer."""
        if self.pid and self.inside.answers():
            self.inside.power_down()
            ends = time.monotonic() + timeout_s
            while self.pid and time.monotonic() < ends:
                time.sleep(0.1)
        self.cut_power()

    def reset(self) -> None:
        """As the reset button: the kernel starts anew, the disk stays."""
        with self.monitor() as monitor:
            monitor.call("system_reset")
        time.sleep(1)
        self.wait_until_it_answers(COLD_S)


def overlay(path: Path, backing: Path, form: str) -> None:
    """A disk that takes all changes and leaves the one behind it as it is."""
    path.unlink(missing_ok=True)
    sh("qemu-img", "create", "-q", "-f", "qcow2", "-b", backing, "-F", form, path)


def _die_with_us() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def take_snapshot(settle: Callable[[Machine], None]) -> None:
    """Boots once, lets `settle` finish everything, keeps memory and disk for later boots."""
    image = stamp.image_folder()
    machine = Machine(f"snapshot-{image.name}", tied=True)
    machine.folder.mkdir(parents=True, exist_ok=True)
    part = image / "booted.part"
    overlay(image / "booted.qcow2", image / "base.raw", "raw")
    machine.launch(image / "booted.qcow2", PLAIN, [])
    try:
        machine.wait_until_it_answers(COLD_S)
        settle(machine)
        with machine.monitor(120.0) as monitor:
            monitor.call("stop")
            monitor.call("migrate-set-parameters", **{"max-bandwidth": 1 << 33})
            monitor.call("migrate", uri=f"exec:cat > {part}")
            while (status := monitor.call("query-migrate").get("status")) != "completed":
                if status == "failed":
                    raise BenchError(f"no snapshot: {json.dumps(monitor.call('query-migrate'))}")
                time.sleep(0.1)
        part.rename(image / "booted.state")
    finally:
        machine.remove()
