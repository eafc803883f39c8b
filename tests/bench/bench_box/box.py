"""What a scenario holds in its hands: a running box, and everything in it that can fail."""

from __future__ import annotations

import contextlib
import shlex
import tarfile
import time
from collections.abc import Iterable
from pathlib import Path

from bench_box import image, places, recipe, screen, stamp
from bench_box.host import BenchError, sh
from bench_box.machine import Machine
from bench_box.qemu import PLAIN, Shape
from bench_box.sockets import Done

COMMAND_S = 120.0
"""A command that takes longer in the box is stuck: most take less than a second."""
_LEFT_OUT = {".git", ".venv", "__pycache__", ".mypy_cache", ".ruff_cache", ".hypothesis", "build"}


class Box:
    """One box. Every method returns when the thing is done; what the box refuses is `BenchError`.

    `box.run("...")` runs shell as root. The rest is named after what it does to the room.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.gpio = Gpio(self)
        self.display = Display(self)
        self.network = Network(self)
        self.disk = Disk(self)

    # -- commands and files ---------------------------------------------------------------------

    def run(
        self, command: str, *, check: bool = True, timeout_s: float = COMMAND_S, user: str = ""
    ) -> Done:
        """Runs a line of shell, as root or as a user of the box (`pi`). With `check` an exit
        status other than 0 raises."""
        line = f"runuser -u {user} -- bash -c {shlex.quote(command)}" if user else command
        done = self.machine.inside.run(line, timeout_s)
        if check and done.code:
            said = (done.err or done.out).strip()[-2000:]
            raise BenchError(f"in the box: {command!r} ended with {done.code}: {said}")
        return done

    def wait_for(self, command: str, timeout_s: float = 60.0) -> Done:
        """Runs a line of shell again and again until it succeeds."""
        ends = time.monotonic() + timeout_s
        while (done := self.run(command, check=False)).code:
            if time.monotonic() > ends:
                raise BenchError(f"not within {timeout_s:.0f} s in the box: {command}: {done.err}")
            time.sleep(0.1)
        return done

    def start(self, unit: str, command: str, *properties: str, user: str = "") -> None:
        """Starts a line of shell as a transient service; returns when systemd says it runs (with
        `Type=notify` among the properties: when it says so itself)."""
        options = [f"-p {shlex.quote(p)}" for p in properties]
        if user:
            options.append(f"-p User={user}")
        run = f"systemd-run -q --collect --unit={unit} -E PATH=$PATH {' '.join(options)}"
        self.run(f"{run} -- /bin/bash -c {shlex.quote(command)}")

    def write(self, path: str, text: str, mode: str = "0644") -> None:
        """Writes a small file, whole or not at all."""
        quoted = shlex.quote(path)
        script = (
            f"mkdir -p $(dirname {quoted}); cat > {quoted}.new; chmod {mode} {quoted}.new; "
            f"mv {quoted}.new {quoted}"
        )
        done = self.machine.inside.run(script, COMMAND_S, text.encode())
        if done.code:
            raise BenchError(f"in the box: {path} could not be written: {done.err}")

    def read(self, path: str) -> str:
        """The text of a small file."""
        return self.run(f"cat {shlex.quote(path)}").out

    def push(self, source: Path, target: str) -> None:
        """Copies a file or a folder into the box, to this very path."""
        stage = self._stage("push")
        sh("cp", "-a", source, stage)
        self.run(f"cp -a --no-preserve=ownership -T /mnt/host/push {shlex.quote(target)}")

    def pull(self, source: str, target: Path) -> None:
        """Copies a file or a folder out of the box."""
        stage = self._stage("pull")
        self.run(f"cp -aT {shlex.quote(source)} /mnt/host/pull")
        sh("cp", "-aT", stage, target)

    def _stage(self, name: str) -> Path:
        stage = self.machine.folder / "share" / name
        sh("rm", "-rf", stage)
        return stage

    def push_tree(self, source: Path, target: str, left_out: Iterable[str] = ()) -> None:
        """Copies what is in a folder, without some names anywhere in it; what was there before is
        gone."""
        names = set(left_out)
        archive = self._stage("tree.tar")
        with tarfile.open(archive, "w") as tar:
            tar.add(source, ".", filter=lambda f: None if Path(f.name).name in names else f)
        where = shlex.quote(target)
        self.run(
            f"rm -rf {where}; mkdir -p {where}; "
            f"tar -xf /mnt/host/tree.tar --no-same-owner -C {where}; "
            f"sync -f {where}"  # a cut of the power leaves it
        )

    def install_checkout(self) -> None:
        """Puts the checkout under test where the box's Python finds it: `hearing-room` and
        `python -m agent` run it. Nothing is installed as a service."""
        self.push_tree(places.CHECKOUT, recipe.PROJECT, _LEFT_OUT)
        self.run(f"{recipe.VENV}/bin/python -m compileall -q {recipe.PROJECT}/agent")

    # -- power ----------------------------------------------------------------------------------

    def boot(self, shape: Shape = PLAIN, *, cold: bool = False, keep: bool = False) -> None:
        """Switches the box on. From memory where it may be (see `Machine.boot`)."""
        warm = self.machine.boot(shape, cold=cold, keep=keep)
        self._get_ready(warm=warm, set_clock=not shape.clock)

    def _get_ready(self, *, warm: bool, set_clock: bool) -> None:
        steps = ["mountpoint -q /mnt/host || mount /mnt/host"]
        if warm and set_clock:
            steps.append(f"date -us @{time.time() + 0.2:.2f} >/dev/null")
        if not warm:
            steps.append("systemctl is-system-running --wait >/dev/null || true")
        self.run("; ".join(steps), timeout_s=300)
        if image.facts().get("hands") != stamp.hands_stamp():
            self.push_tree(places.HANDS, f"{recipe.SITE}/bench_hands", {"__pycache__"})

    def cut_power(self) -> None:
        """As when the plug is pulled: what was not synced is lost."""
        self.machine.cut_power()

    def power_on(self) -> None:
        """After `cut_power` or `shut_down`: boots with the disk as it was left. What was plugged
        into USB is plugged in no more."""
        self.boot(keep=True)

    def shut_down(self) -> None:
        """An orderly end."""
        self.machine.stop()

    def reset(self) -> None:
        """The reset button."""
        self.machine.reset()
        self._get_ready(warm=False, set_clock=False)

    # -- the room -------------------------------------------------------------------------------

    def hands(self, *words: object, timeout_s: float = COMMAND_S) -> str:
        """Asks the bench's hands inside the box; see `bench_hands.__main__` for the verbs."""
        line = shlex.join(["bench-hands", *(str(word) for word in words)])
        return self.run(line, timeout_s=timeout_s).out

    def camera(self, mode: str, name: str = "") -> None:
        """vivid: live bars black white noise stall lost eio eio-start unplug plug. A USB webcam
        (by name): live black white dark blur moved covered noise freeze torn stall error."""
        self.hands("camera", *(("-d", name) if name else ()), mode)

    def microphone(self, mode: str, name: str = "") -> None:
        """Loopback: live silence tone clip noise hum stop. A USB microphone: the same, and stall
        in place of stop."""
        self.hands("microphone", *(("-d", name) if name else ()), mode)

    def usb_plug(self, kind: str, name: str = "", **ids: object) -> str:
        """Plugs in a `webcam` or a `microphone`; gives what is plugged in now, a line each.

        `ids`: vid, pid, rev (hexadecimal words), manufacturer, product, serial; of a webcam also
        fps and transfer (`isochronous` or `bulk`).
        """
        settings = [f"{key}={value}" for key, value in ids.items()]
        return self.hands("usb", "plug", kind, name or kind, *settings)

    def usb_unplug(self, name: str) -> None:
        """Pulls it."""
        self.hands("usb", "unplug", name)

    def usb_authorize(self, name: str, allowed: bool) -> None:
        """`authorized` of sysfs: the drivers let go, or bind again."""
        self.hands("usb", "authorize" if allowed else "deauthorize", name)

    def set_clock(self, utc_s: float) -> None:
        """Sets the wall clock of the box (Unix seconds). The boot clock runs on."""
        self.hands("clock", utc_s)

    def last_words(self) -> str:
        """The end of the serial console, and of the journal where the box still answers."""
        said = [f"--- serial console of {self.machine.name}", self.machine.serial_log[-3000:]]
        with contextlib.suppress(BenchError):
            noise = "unlink->seqnum|urb->status|Not yet implemented"  # of the emulated USB ports
            script = f"journalctl -b --no-pager | grep -vE '{noise}' | tail -n 150"
            said += ["--- journal", self.run(script, check=False, timeout_s=60).out]
        return "\n".join(said)


class _Part:
    def __init__(self, box: Box) -> None:
        self._box = box


class Gpio(_Part):
    """The other end of the 54 lines. A button is wired to ground."""

    def read(self, line: int) -> bool:
        """What the agent drives (or what the line is pulled to)."""
        return self._box.hands("gpio", "read", line).strip() == "1"

    def press(self, line: int) -> None:
        """Pulls a line low, until `release`."""
        self._box.hands("gpio", "low", line)

    def release(self, line: int) -> None:
        """Lets a line go high."""
        self._box.hands("gpio", "high", line)

    def pulse(self, line: int, seconds: float = 0.2) -> None:
        """Presses and releases; timed inside the box."""
        self._box.hands("gpio", "pulse", line, seconds)


class Display(_Part):
    """Two heads, `Virtual-1` (with a monitor at first) and `Virtual-2` (without)."""

    def plug(self, head: int = 1, width: int = 1920, height: int = 1080) -> None:
        """A monitor comes; the kernel sends its uevent."""
        screen.resize(self._socket(head), width, height)

    def unplug(self, head: int = 1) -> None:
        """The monitor goes."""
        # Not 0 x 0: a QEMU that was resumed from memory takes that for the size it has, and is
        # still.
        screen.resize(self._socket(head), 0, 1)

    def _socket(self, head: int) -> Path:
        return self._box.machine.folder / f"vnc{head - 1}.sock"

    def list(self) -> str:
        """Connectors with status, enabled, dpms, first mode and size of the EDID."""
        return self._box.hands("display", "list")

    def edid(self, head: int, data: bytes | None) -> None:
        """Another EDID (None: its own) and a replug, at which the kernel reads it."""
        word = "reset"
        if data is not None:
            (self._box.machine.folder / "share" / "edid").write_bytes(data)
            word = "/mnt/host/edid"
        self._box.hands("display", "edid", f"Virtual-{head}", word)
        self.unplug(head)
        self.plug(head)

    def shot(self, target: Path) -> None:
        """What is on the first screen, as PPM."""
        with self._box.machine.monitor() as monitor:
            monitor.call("screendump", filename=str(target.absolute()), device="gpu0", head=0)


class Network(_Part):
    """`broker:1883` leads to the host; nothing else leaves the box."""

    def cable(self, plugged: bool) -> None:
        """The cable of eth0."""
        with self._box.machine.monitor() as monitor:
            monitor.call("set_link", name="nic0", up=plugged)

    def shape(self, *words: object) -> None:
        """A bad line, in words of netem: `shape("delay", "200ms", "loss", "20%")`."""
        self._box.hands("network", "shape", *words)

    def clear(self) -> None:
        """A good line again."""
        self._box.hands("network", "clear")

    def device(self, act: str, name: str, *address: str) -> None:
        """A device of the room with an address of its own: `add`, `del`, `up`, `down`. What it
        serves is run by `box.start(unit, f"ip netns exec {name} ...")`."""
        self._box.hands("network", "device", act, name, *address)


class Disk(_Part):
    """The one disk."""

    def fill(self, left_mb: int = 0) -> None:
        """Leaves so much room."""
        self._box.hands("disk", "fill", left_mb)

    def free(self) -> None:
        """Undoes `fill`."""
        self._box.hands("disk", "free")

    def break_down(self) -> None:
        """An error of the file system: read-only until the box boots again."""
        self._box.hands("disk", "readonly")

    def slow(self, operations_per_s: int) -> None:
        """A worn SD card; 0 is fast again."""
        none = dict.fromkeys(("bps", "bps_rd", "bps_wr", "iops_rd", "iops_wr"), 0)
        with self._box.machine.monitor() as monitor:
            monitor.call("block_set_io_throttle", device="sd", iops=operations_per_s, **none)
