"""What the kernel says about the box, read from /proc and /sys: one function, one subject.

Every function takes the file-system root, so that a recorded tree is the fake. What cannot be
measured is absent from the values. Nothing here waits for hardware: the files are counters and
states that the kernel keeps in memory.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.model import Scalar

Values = dict[str, Scalar]

_MIB = 1024 * 1024
_KTHREAD = 0x0020_0000  # PF_KTHREAD in the flags of /proc/PID/stat
STUCK_LOAD = 0.5
"""A process in uninterruptible sleep counts as 1 in the load average (proc_loadavg(5)); one that
has been there for a minute shows as 1 - 1/e = 0.63 in the 1-minute figure. Below this nothing has
been stuck for long, and the walk through all processes is saved."""
_REMOTE = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "afs", "ncpfs", "autofs", "virtiofs", "lustre"}
)
"""File systems of which statvfs(2) asks a server, and can wait for it without end."""
_NEVER_WRITABLE = frozenset({"squashfs", "erofs", "iso9660", "cramfs", "romfs"})
_CPU_SENSORS = ("coretemp", "k10temp", "zenpower")
_CPU_ZONES = frozenset(
    {"cpu-thermal", "cpu_thermal", "soc-thermal", "soc_thermal", "bcm2835_thermal", "x86_pkg_temp"}
)
_UNNAMED_MODELS = frozenset({"to be filled by o.e.m.", "system product name", "default string"})
_OCTAL = re.compile(r"\\([0-7]{3})")


def text(path: Path) -> str | None:
    """A small file of /proc or /sys without the white space around it, None where it fails."""
    try:
        return path.read_bytes().decode("ascii", "replace").strip()
    except OSError:
        return None


def number(path: Path) -> int | None:
    """A file that holds one whole number, None where it holds none."""
    try:
        return int(text(path) or "")
    except ValueError:
        return None


def box_model(root: Path = Path("/")) -> str:
    """What the box calls itself (`Raspberry Pi 4 Model B Rev 1.4`), empty where it does not say.

    At most 64 printable ASCII characters, from the device tree (NUL-terminated) or the DMI table.
    """
    tree = text(root / "proc/device-tree/model")
    name = tree if tree is not None else text(root / "sys/class/dmi/id/product_name") or ""
    name = "".join(c for c in name if c.isascii() and c.isprintable()).strip()
    return "" if name.lower() in _UNNAMED_MODELS else name[:64]


def load(root: Path) -> Values:
    """`load1` and `load_per_core`: the 1-minute load average, whole and per online core."""
    try:
        load1 = float((text(root / "proc/loadavg") or "").split()[0])
    except (ValueError, IndexError):
        return {}
    if not 0 <= load1 < 1_000_000:
        return {}
    values: Values = {"load1": load1}
    if cores := _count(text(root / "sys/devices/system/cpu/online") or ""):
        values["load_per_core"] = round(load1 / cores, 2)
    return values


def _count(ranges: str) -> int:
    """How many there are in the kernel's list format, `0-3,5`."""
    total = 0
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        if not first.isdecimal() or not (last or first).isdecimal():
            return 0
        total += int(last or first) - int(first) + 1
    return total


def memory(root: Path) -> Values:
    """`memory_available_pct` and `memory_available_mib`: what programs can still get."""
    kib: dict[str, int] = {}
    for line in (text(root / "proc/meminfo") or "").splitlines()[:4]:
        key, _, rest = line.partition(":")
        amount = rest.removesuffix("kB").strip()
        if amount.isdecimal():
            kib[key] = int(amount)
    if not kib.get("MemTotal") or "MemAvailable" not in kib:
        return {}
    available = kib["MemAvailable"]
    return {
        "memory_available_pct": round(100 * available / kib["MemTotal"], 1),
        "memory_available_mib": available // 1024,
    }


@dataclass(frozen=True, slots=True)
class _Mount:
    point: str
    type: str
    options: frozenset[str]  # of the file system itself, not of this mount of it

    @property
    def read_only(self) -> bool:
        # Since 6.12 ext4 no longer turns to `ro` after an error; it shows `emergency_ro`.
        return bool({"ro", "emergency_ro", "shutdown"} & self.options)


def _mounts(root: Path) -> Iterator[_Mount]:
    """The mounts that this process sees, in the order of mounting (proc_pid_mountinfo(5))."""
    for line in (text(root / "proc/self/mountinfo") or "").splitlines():
        left, _, right = line.partition(" - ")
        fields, ours = right.split(), left.split()
        if len(fields) >= 3 and len(ours) >= 5:
            point = _OCTAL.sub(lambda m: chr(int(m[1], 8)), ours[4])
            yield _Mount(point, fields[0], frozenset(fields[2].split(",")))


def disk(root: Path, folder: str) -> Values:
    """Room on the file system that holds `folder`: `disk_free_pct`, `disk_free_mib` and
    `inodes_free_pct` for a user without privileges; `disk_readonly`, and `root_readonly` for `/`.

    Read-only is read from the file system's own options: in a systemd sandbox the mount of a sound
    file system is read-only too. Room is asked of a local file system only, which answers from
    counters in memory; one on a server could hold the caller for as long as the server is away.
    """
    here, top = None, None
    folder = os.path.normpath(folder)
    for mount in _mounts(root):
        if mount.point == "/":
            top = mount
        inside = folder == mount.point or folder.startswith(mount.point.rstrip("/") + "/")
        if inside and (here is None or len(mount.point) >= len(here.point)):
            here = mount
    values: Values = {}
    if top is not None and top.type not in _NEVER_WRITABLE:
        values["root_readonly"] = top.read_only
    if here is None:
        return values
    values["disk_readonly"] = here.read_only
    if here.type in _REMOTE or here.type.startswith("fuse"):
        return values
    return {**values, **_room(root / folder.lstrip("/"))}


def _room(folder: Path) -> Values:
    try:
        stat = os.statvfs(folder)
    except OSError:
        return {}
    values: Values = {}
    # What root keeps for itself is neither free nor used, as df(1) counts.
    usable = stat.f_blocks - stat.f_bfree + stat.f_bavail
    if usable > 0:
        values["disk_free_pct"] = round(100 * stat.f_bavail / usable, 1)
        values["disk_free_mib"] = stat.f_bavail * stat.f_frsize // _MIB
    if stat.f_files > 0:  # btrfs and others have no fixed number of inodes
        values["inodes_free_pct"] = round(100 * stat.f_favail / stat.f_files, 1)
    return values


def storage_errors(root: Path) -> int | None:
    """Errors that the ext4 file systems in use have noted since their last full check.

    None where no ext4 is mounted: other file systems keep no such count.
    """
    counts = [number(f / "errors_count") for f in _entries(root / "sys/fs/ext4")]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def temperature(root: Path) -> Values:
    """`temp_c` of the processor, and `temp_limit_c` where its sensor names the limit.

    Sensors are found by name: their numbers change from one start to the next.
    """
    for name in _CPU_SENSORS:
        for chip in _hwmon(root, name):
            # The first input is the whole package; asking each core would wake it.
            if (celsius := _celsius(chip / "temp1_input")) is not None:
                limit = _celsius(chip / "temp1_crit")
                return {"temp_c": celsius, **({} if limit is None else {"temp_limit_c": limit})}
    zones = [z for z in _entries(root / "sys/class/thermal") if text(z / "type") in _CPU_ZONES]
    found = [c for c in (_celsius(zone / "temp") for zone in zones) if c is not None]
    return {"temp_c": max(found)} if found else {}


def _celsius(path: Path) -> float | None:
    milli = number(path)
    if milli is None or not -40_000 <= milli <= 200_000:
        return None
    return round(milli / 1000, 1)


def _hwmon(root: Path, name: str) -> list[Path]:
    return [c for c in _entries(root / "sys/class/hwmon") if text(c / "name") == name]


def undervoltage_file(root: Path) -> Path | None:
    """The alarm of a Raspberry Pi's supply: 1 for a dip in the last two seconds, else 0.

    The driver notifies pollers of it on both edges (drivers/hwmon/raspberrypi-hwmon.c).
    """
    for chip in _hwmon(root, "rpi_volt"):
        return chip / "in0_lcrit_alarm"
    return None


def undervoltage(root: Path) -> bool | None:
    """Whether the supply is too weak now; None on a box that cannot tell."""
    file = undervoltage_file(root)
    alarm = number(file) if file else None
    return None if alarm is None else alarm != 0


def throttling(root: Path) -> Values:
    """`throttled`, `freq_capped`, `soft_temp_limit`: why a Raspberry Pi runs slower than it could.

    Bits 1 to 3 of the firmware's word are now, 17 to 19 the same within the last two seconds.
    Recent kernels log one warning per start when this file is read: ask when there is a reason.
    """
    for place in _entries(root / "sys/devices/platform"):
        if not place.name.startswith("soc"):
            continue
        for firmware in _entries(place):
            if firmware.name.endswith(":firmware"):
                try:
                    word = int(text(firmware / "get_throttled") or "", 16)
                except ValueError:
                    continue
                bits = word | word >> 16
                return {
                    "freq_capped": bool(bits & 2),
                    "throttled": bool(bits & 4),
                    "soft_temp_limit": bool(bits & 8),
                }
    return {}


def frequency_cap(root: Path) -> Values:
    """`freq_cap_pct`: how fast the slowest-kept core may run, of what it was made for."""
    shares = []
    for policy in _entries(root / "sys/devices/system/cpu/cpufreq"):
        allowed, made_for = number(policy / "scaling_max_freq"), number(policy / "cpuinfo_max_freq")
        if allowed and made_for and allowed > 0 and made_for > 0:
            shares.append(min(100.0, round(100 * allowed / made_for, 1)))
    return {"freq_cap_pct": min(shares)} if shares else {}


@dataclass(frozen=True, slots=True)
class Sleeper:
    """A process in uninterruptible sleep: which one (pid and start time name it within a boot),
    and how often it had been switched to and from a processor."""

    pid: int
    started: int
    switches: int


def is_below(values: Mapping[str, Scalar], key: str, limit: float) -> bool:
    """Whether a value was measured and lies below a limit."""
    value = values.get(key)
    return isinstance(value, int | float) and value < limit


def sleepers(root: Path) -> list[Sleeper] | None:
    """The processes in uninterruptible sleep, kernel threads left out.

    None where other users' processes are hidden (`hidepid`, `ProtectProc=`): then nobody can say.
    Kernel threads are told by their flag and not by their empty command line, because reading a
    command line takes a lock that a stuck process may hold.
    """
    proc = root / "proc"
    if not _stat(f"{proc}/1"):
        return None
    found = []
    for name in _names(proc):
        if not name.isdecimal():
            continue
        fields = _stat(f"{proc}/{name}")
        if not fields or fields[0] != b"D" or int(fields[6]) & _KTHREAD:
            continue
        if (switches := _switches(proc / name)) is not None:
            found.append(Sleeper(int(name), int(fields[19]), switches))
    return found


def _stat(process: str) -> list[bytes]:
    """The fields of /proc/PID/stat from the third (the state) on, [] for a process that ended.

    Without the layers of a file object: this is asked of every process.
    """
    try:
        descriptor = os.open(f"{process}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            line = os.read(descriptor, 1024)
        finally:
            os.close(descriptor)
    except OSError:
        return []
    # The name of the program before the last bracket may hold anything, brackets too.
    fields = line.rpartition(b")")[2].split()
    return fields if len(fields) >= 20 else []


def _switches(process: Path) -> int | None:
    found = [
        int(line.rpartition("\t")[2])
        for line in (text(process / "status") or "").splitlines()
        if "ctxt_switches:" in line
    ]
    return sum(found) if found else None


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 (names only: /proc is large)
    except OSError:
        return []


def _entries(folder: Path) -> list[Path]:
    return [folder / name for name in sorted(_names(folder))]
