"""The host kind on recorded trees: a Pi 4, a Pi 5, a laptop; and on the machine of the test."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agent import kinds
from agent.kinds import host
from agent.kinds.host import facts
from agent.model import Finding, Level, Reading

Build = Callable[[], Path]
KTHREAD = 0x0020_8040


def put(root: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)


def mountinfo(*lines: str) -> str:
    return "".join(
        f"{30 + i} 1 179:2 / {point} {mount} shared:1 - {kind} /dev/x {options}\n"
        for i, (point, mount, kind, options) in enumerate(line.split() for line in lines)
    )


COMMON = {
    "proc/loadavg": "0.08 0.03 0.01 1/190 4242\n",
    "proc/meminfo": "MemTotal: 3884508 kB\nMemFree: 1000 kB\nMemAvailable: 1942254 kB\n",
    "proc/1/stat": "1 (systemd) S 0 1 1 0 -1 4194560 1 1 1 1 1 1 1 1 20 0 1 0 5 0 0\n",
    "proc/self/mountinfo": mountinfo("/ rw,noatime ext4 rw", "/boot rw vfat rw"),
    "sys/devices/system/cpu/online": "0-3\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq": "1800000\n",
    "sys/devices/system/cpu/cpufreq/policy0/cpuinfo_max_freq": "1800000\n",
    "sys/fs/ext4/mmcblk0p2/errors_count": "0\n",
    "sys/fs/ext4/features/casefold": "supported\n",
}


def pi4(root: Path) -> Path:
    put(root, COMMON)
    put(
        root,
        {
            "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
            "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
            "sys/class/thermal/thermal_zone0/temp": "51121\n",
            "sys/class/hwmon/hwmon0/name": "cpu_thermal\n",
            "sys/class/hwmon/hwmon0/temp1_input": "51121\n",
            "sys/class/hwmon/hwmon1/name": "rpi_volt\n",
            "sys/class/hwmon/hwmon1/in0_lcrit_alarm": "0\n",
            "sys/devices/platform/soc/soc:firmware/get_throttled": "0\n",
        },
    )
    return root


def pi5(root: Path) -> Path:
    put(root, COMMON)
    put(
        root,
        {
            "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
            "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
            "sys/class/thermal/thermal_zone0/temp": "63900\n",
            "sys/class/hwmon/hwmon0/name": "cpu_thermal\n",
            "sys/class/hwmon/hwmon1/name": "rp1_adc\n",
            "sys/class/hwmon/hwmon1/temp1_input": "99000\n",
            "sys/class/hwmon/hwmon2/name": "pwmfan\n",
            "sys/class/hwmon/hwmon3/name": "rpi_volt\n",
            "sys/class/hwmon/hwmon3/in0_lcrit_alarm": "0\n",
            "sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled": "80000\n",
        },
    )
    return root


def laptop(root: Path) -> Path:
    put(root, COMMON)
    put(
        root,
        {
            "sys/class/dmi/id/product_name": "ThinkPad T14\n",
            "sys/class/thermal/thermal_zone0/type": "acpitz\n",
            "sys/class/thermal/thermal_zone0/temp": "16800\n",
            "sys/class/hwmon/hwmon0/name": "nvme\n",
            "sys/class/hwmon/hwmon0/temp1_input": "35000\n",
            "sys/class/hwmon/hwmon4/name": "coretemp\n",
            "sys/class/hwmon/hwmon4/temp1_input": "84000\n",
            "sys/class/hwmon/hwmon4/temp1_crit": "100000\n",
        },
    )
    return root


class Box:
    """A recorded box and its clocks."""

    def __init__(self, root: Path, settings: host.Settings | None = None) -> None:
        self.root = root
        self.settings = settings or host.Settings()
        self.up_s = 1_000.0
        self.utc_s = 1_796_000_000.0
        self.synced = True
        self.passive = host.Passive(
            self.settings,
            root,
            synced=lambda: self.synced,
            utc_s=lambda: self.utc_s,
            up_s=lambda: self.up_s,
        )

    def read(self, later_s: float = 60.0) -> Reading:
        self.up_s += later_s
        self.utc_s += later_s
        return asyncio.run(self.passive.read())

    def findings(self, later_s: float = 60.0) -> dict[str, Finding]:
        found = host.judge(self.read(later_s), self.settings)
        return {f.code: f for f in found if f.code != "host.disk_full"}  # the test's own disk


def test_the_module_keeps_the_contract_of_a_kind() -> None:
    kind = kinds.load("host")
    assert kind.Settings().required is False
    assert kind.Settings().period_s == 60
    assert all(code.startswith("host.") for code in kind.CODES)
    assert isinstance(kinds.passive_of("host", host.Settings(), Path("/")), host.Passive)
    assert not kinds.has_driver("host")


def test_a_pi_4_at_rest_is_ok_and_says_all_its_numbers(tmp_path: Path) -> None:
    box = Box(pi4(tmp_path))
    values = box.read().values
    assert values["load1"] == 0.08
    assert values["load_per_core"] == 0.02
    assert values["memory_available_pct"] == 50.0
    assert values["memory_available_mib"] == 1896
    assert values["temp_c"] == 51.1
    assert values["undervoltage"] is False
    assert values["undervoltage_count"] == 0
    assert values["freq_cap_pct"] == 100.0
    assert values["storage_errors"] == 0
    assert values["root_readonly"] is False
    assert values["clock_synced"] is True
    assert values["stuck_processes"] == 0
    assert "throttled" not in values, "a cool box is not asked what logs a kernel warning"
    assert box.findings() == {}


def test_room_on_the_disk_is_what_statvfs_says(tmp_path: Path) -> None:
    values = Box(pi4(tmp_path)).read().values
    stat = os.statvfs(tmp_path)
    free_mib = stat.f_bavail * stat.f_frsize / 2**20
    assert values["disk_free_mib"] == pytest.approx(free_mib, rel=0.05, abs=64)
    usable = stat.f_blocks - stat.f_bfree + stat.f_bavail
    assert values["disk_free_pct"] == pytest.approx(100 * stat.f_bavail / usable, abs=0.2)
    if stat.f_files:
        assert 0 < float(values["inodes_free_pct"]) <= 100


def test_a_warm_pi_5_is_asked_about_throttling_by_another_path(tmp_path: Path) -> None:
    box = Box(pi5(tmp_path))
    values = box.read().values
    assert values["temp_c"] == 63.9, "of the processor, not of the input and output chip"
    assert (values["throttled"], values["soft_temp_limit"]) == (False, True)
    assert box.findings()["host.throttled"].level is Level.INFO
    word = "sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled"
    put(tmp_path, {word: "50005\n"})
    assert box.findings()["host.throttled"].level is Level.WARN
    put(tmp_path, {word: "0\n"})
    assert box.findings() == {}


def test_a_weak_supply_slows_a_cool_box_too(tmp_path: Path) -> None:
    box = Box(pi4(tmp_path))
    alarm = "sys/class/hwmon/hwmon1/in0_lcrit_alarm"
    put(tmp_path, {"sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n", alarm: "1\n"})
    assert set(box.findings()) == {"host.undervoltage", "host.throttled"}
    put(tmp_path, {alarm: "0\n"})
    assert set(box.findings()) == {"host.undervoltage"}


def test_a_laptop_without_pi_files_is_ok_and_says_nothing_of_them(tmp_path: Path) -> None:
    box = Box(laptop(tmp_path))
    values = box.read().values
    assert (values["temp_c"], values["temp_limit_c"]) == (84.0, 100.0)
    assert not {"undervoltage", "undervoltage_count", "throttled"} & values.keys()
    assert box.findings() == {}


def test_sensors_are_found_by_name_when_their_numbers_change(tmp_path: Path) -> None:
    box = Box(pi4(tmp_path))
    sensors = tmp_path / "sys/class/hwmon"
    (sensors / "hwmon1").rename(sensors / "hwmon7")
    (sensors / "hwmon0").rename(sensors / "hwmon1")
    put(tmp_path, {"sys/class/hwmon/hwmon7/in0_lcrit_alarm": "1\n"})
    assert box.read().values["undervoltage"] is True


def test_a_dip_of_the_supply_is_counted_and_stays_visible_for_a_while(tmp_path: Path) -> None:
    box = Box(pi4(tmp_path))
    alarm = "sys/class/hwmon/hwmon1/in0_lcrit_alarm"
    assert box.findings() == {}
    put(tmp_path, {alarm: "1\n"})
    dip = box.findings()["host.undervoltage"]
    assert dip.level is Level.FAIL
    assert dip.numbers == {"undervoltage_count": 1, "undervoltage_age_s": 0}
    assert box.findings(2)["host.undervoltage"].numbers["undervoltage_count"] == 1, "the same dip"
    put(tmp_path, {alarm: "0\n"})
    past = box.findings()["host.undervoltage"]
    assert past.level is Level.WARN
    assert past.numbers == {"undervoltage_count": 1, "undervoltage_age_s": 60}
    put(tmp_path, {alarm: "1\n"})
    assert box.findings()["host.undervoltage"].numbers["undervoltage_count"] == 2
    put(tmp_path, {alarm: "0\n"})
    assert box.findings(box.settings.hold_s + 1) == {}
    assert box.read().values["undervoltage_count"] == 2


@pytest.mark.parametrize("years", [-2, 2])
def test_a_clock_that_jumps_by_years_is_seen_and_later_forgiven(tmp_path: Path, years: int) -> None:
    box = Box(pi4(tmp_path))
    jump_s = years * 365 * 86_400.0
    assert box.findings() == {}
    box.utc_s += jump_s
    stepped = box.findings()["host.clock_stepped"]
    assert stepped.level is Level.WARN, "it was thought right before"
    assert stepped.numbers == {"clock_step_s": jump_s, "clock_step_age_s": 0}
    assert box.findings()["host.clock_stepped"].numbers["clock_step_age_s"] == 60
    box.utc_s -= jump_s
    assert box.findings()["host.clock_stepped"].numbers["clock_step_s"] == -jump_s
    assert box.findings(box.settings.hold_s + 1) == {}
    assert box.read().values["clock_steps"] == 2


def test_the_first_time_that_a_box_hears_the_time_is_only_worth_knowing(tmp_path: Path) -> None:
    box = Box(pi4(tmp_path))
    box.synced, box.utc_s = False, 1_700_000_000.0
    assert box.findings()["host.clock_unsynced"].level is Level.WARN
    box.synced, box.utc_s = True, 1_796_000_000.0
    found = box.findings()
    assert list(found) == ["host.clock_stepped"]
    assert found["host.clock_stepped"].level is Level.INFO


def test_a_disciplined_clock_is_no_step(tmp_path: Path) -> None:
    box = Box(pi4(tmp_path))
    box.read()
    box.utc_s += 0.9
    assert box.read().values["clock_steps"] == 0


def test_without_anybody_to_ask_the_clock_is_unknown(tmp_path: Path) -> None:
    reading = asyncio.run(host.Passive(host.Settings(), pi4(tmp_path)).read())
    assert "clock_synced" not in reading.values
    found = {f.code: f.level for f in host.judge(reading, host.Settings())}
    assert found["host.clock_unsynced"] is Level.UNKNOWN


def process(
    root: Path, pid: int, state: str, *, started: int = 700, switches: int = 5, flags: int = 4194560
) -> None:
    name = f"proc/{pid}"
    fields = " ".join(["1"] * 2 + ["0"] * 3 + [str(flags)] + ["0"] * 12 + [str(started)])
    counts = f"voluntary_ctxt_switches:\t{switches}\nnonvoluntary_ctxt_switches:\t0\n"
    stat = f"{pid} (a (b) D S) {state} {fields} 0 0\n"
    put(root, {f"{name}/stat": stat, f"{name}/status": f"Name:\ta\n{counts}"})


def busy(root: Path) -> Path:
    put(root, {"proc/loadavg": "1.00 0.60 0.20 1/190 4242\n"})
    return root


def test_a_process_stuck_in_the_kernel_is_found_and_its_end_noticed(tmp_path: Path) -> None:
    box = Box(busy(pi4(tmp_path)))
    assert box.findings() == {}
    process(tmp_path, 812, "D")
    assert box.findings() == {}, "seen once: it may merely be waiting"
    stuck = box.findings()["host.stuck_process"]
    assert stuck.level is Level.WARN
    assert stuck.numbers == {"stuck_processes": 1, "stuck_pid": 812, "stuck_s": 60}
    put(tmp_path, {"proc/loadavg": "0.10 0.60 0.20 1/190 4242\n"})
    assert "host.stuck_process" in box.findings(), "one under watch is looked for at any load"
    process(tmp_path, 812, "S", switches=6)
    assert box.findings() == {}
    assert box.read().values["stuck_processes"] == 0


def test_a_process_that_is_often_asleep_but_runs_is_not_stuck(tmp_path: Path) -> None:
    box = Box(busy(pi4(tmp_path)))
    for switches in range(5):
        process(tmp_path, 812, "D", switches=switches)
        assert box.findings() == {}


def test_another_process_with_the_same_number_is_another_process(tmp_path: Path) -> None:
    box = Box(busy(pi4(tmp_path)))
    process(tmp_path, 812, "D", started=700)
    box.read()
    process(tmp_path, 812, "D", started=900)
    assert box.findings() == {}


def test_a_short_look_twice_is_not_yet_stuck(tmp_path: Path) -> None:
    box = Box(busy(pi4(tmp_path)))
    process(tmp_path, 812, "D")
    box.read()
    assert box.findings(5) == {}
    assert "host.stuck_process" in box.findings(25)


def test_kernel_threads_may_sleep_as_they_like(tmp_path: Path) -> None:
    box = Box(busy(pi4(tmp_path)))
    process(tmp_path, 42, "D", flags=KTHREAD)
    box.read()
    assert box.read().values["stuck_processes"] == 0


def test_at_low_load_no_process_is_asked(tmp_path: Path) -> None:
    box = Box(pi4(tmp_path))
    process(tmp_path, 812, "D")
    box.read()
    assert box.read().values["stuck_processes"] == 0


def test_hidden_processes_leave_the_number_out(tmp_path: Path) -> None:
    box = Box(busy(pi4(tmp_path)))
    (tmp_path / "proc/1/stat").unlink()
    assert "stuck_processes" not in box.read().values


def test_errors_of_the_card_warn_and_new_ones_fail(tmp_path: Path) -> None:
    box = Box(pi4(tmp_path))
    count = "sys/fs/ext4/mmcblk0p2/errors_count"
    assert box.findings() == {}
    put(tmp_path, {count: "3\n"})
    found = box.findings()["host.storage_errors"]
    assert found.level is Level.FAIL
    assert found.numbers == {"storage_errors": 3, "storage_errors_new": 3}
    restarted = Box(tmp_path)
    assert restarted.findings()["host.storage_errors"].level is Level.WARN
    put(tmp_path, {count: "0\n"})
    assert restarted.findings() == {}


@pytest.mark.parametrize("options", ["ro", "rw,emergency_ro", "rw,shutdown"])
def test_a_file_system_that_gave_up_writing_fails_and_recovers(
    tmp_path: Path, options: str
) -> None:
    box = Box(pi4(tmp_path))
    put(tmp_path, {"proc/self/mountinfo": mountinfo(f"/ rw ext4 {options}")})
    found = box.findings()["host.disk_readonly"]
    assert found.level is Level.FAIL
    assert found.numbers == {"disk_readonly": True, "root_readonly": True}
    put(tmp_path, {"proc/self/mountinfo": mountinfo("/ rw ext4 rw,errors=remount-ro")})
    assert box.findings() == {}


def test_a_sandbox_that_makes_the_mount_read_only_is_no_fault(tmp_path: Path) -> None:
    box = Box(pi4(tmp_path))
    put(tmp_path, {"proc/self/mountinfo": mountinfo("/ ro,noatime ext4 rw")})
    assert box.findings() == {}


def test_the_disk_of_the_state_folder_is_the_one_that_holds_it(tmp_path: Path) -> None:
    lines = ["/ rw ext4 ro", "/var rw ext4 rw", r"/var/lib/a\040b rw ext4 ro", "/vari rw ext4 ro"]
    put(pi4(tmp_path), {"proc/self/mountinfo": mountinfo(*lines)})
    for folder, readonly in (("/var/lib/x", False), ("/var/lib/a b/c", True), ("/opt", True)):
        assert facts.disk(tmp_path, folder)["disk_readonly"] is readonly
    on_purpose = host.Settings(path="/var/lib/x", readonly_root=True)
    assert "host.disk_readonly" not in Box(tmp_path, on_purpose).findings()


def test_a_server_is_never_asked_how_much_room_it_has(tmp_path: Path) -> None:
    put(pi4(tmp_path), {"proc/self/mountinfo": mountinfo("/ rw ext4 rw", "/srv rw nfs4 rw")})
    (tmp_path / "srv/state").mkdir(parents=True)
    assert "disk_free_pct" not in facts.disk(tmp_path, "/srv/state")
    assert "disk_free_pct" in facts.disk(tmp_path, "/proc")
    reading = asyncio.run(host.Passive(host.Settings(path="/srv/state"), tmp_path).read())
    levels = {f.code: f.level for f in host.judge(reading, host.Settings())}
    assert levels["host.disk_full"] is Level.UNKNOWN


def test_a_live_image_says_nothing_of_its_root(tmp_path: Path) -> None:
    put(pi4(tmp_path), {"proc/self/mountinfo": mountinfo("/ ro squashfs ro", "/var rw ext4 rw")})
    assert facts.disk(tmp_path, "/var").get("root_readonly") is None


def test_an_empty_tree_is_a_reading_and_not_ok(tmp_path: Path) -> None:
    reading = asyncio.run(host.Passive(host.Settings(), tmp_path).read())
    levels = {f.code: f.level for f in host.judge(reading, host.Settings())}
    assert levels == {
        "host.disk_full": Level.UNKNOWN,
        "host.memory_low": Level.UNKNOWN,
        "host.clock_unsynced": Level.UNKNOWN,
    }


@pytest.mark.parametrize("content", ["", "garbage\n", "\xff\0\n", "nan\n", "inf -1 , -\n"])
def test_nonsense_in_a_file_is_no_value(tmp_path: Path, content: str) -> None:
    pi4(tmp_path)
    for file in [p for p in tmp_path.rglob("*") if p.is_file() and p.name != "mountinfo"]:
        file.write_text(content, encoding="latin-1")
    left = set(Box(tmp_path).read().values)
    disk = {"disk_free_pct", "disk_free_mib", "inodes_free_pct", "disk_readonly", "root_readonly"}
    assert left - disk == {"clock_synced", "clock_steps"}, "no `stuck_processes` either"


@pytest.mark.parametrize(
    ("build", "model"),
    [
        (pi4, "Raspberry Pi 4 Model B Rev 1.4"),
        (pi5, "Raspberry Pi 5 Model B Rev 1.0"),
        (laptop, "ThinkPad T14"),
        (lambda root: root, ""),
    ],
)
def test_the_box_says_its_model(tmp_path: Path, build: Callable[[Path], Path], model: str) -> None:
    assert host.box_model(build(tmp_path)) == model


def test_a_model_that_nobody_filled_in_is_none(tmp_path: Path) -> None:
    put(tmp_path, {"sys/class/dmi/id/product_name": "To Be Filled By O.E.M.\n"})
    assert host.box_model(tmp_path) == ""


def test_this_machine_is_read_quickly_and_judged() -> None:
    passive = host.Passive(host.Settings())
    reading = asyncio.run(passive.read())
    assert {
        "load1",
        "memory_available_pct",
        "disk_free_pct",
        "clock_synced",
    } <= reading.values.keys()
    host.judge(reading, host.Settings())


def test_a_real_process_in_the_kernel_is_seen_until_it_leaves(tmp_path: Path) -> None:
    """A parent that waits for its vfork is in uninterruptible sleep; its child waits for a FIFO."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    code = (
        "import os; os.posix_spawn('/bin/true', ['true'], {}, "
        f"file_actions=[(os.POSIX_SPAWN_OPEN, 9, {str(fifo)!r}, os.O_RDONLY, 0)])"
    )
    child = subprocess.Popen([sys.executable, "-c", code])

    def seen() -> list[facts.Sleeper]:
        found = facts.sleepers(Path("/"))
        if found is None:
            pytest.skip("other processes are hidden here")
        return [s for s in found if s.pid == child.pid]

    def stays(asleep: bool) -> bool:
        """Whether it is so at two looks with the same count of switches: a program that starts
        also sleeps in the kernel now and then, but runs in between."""
        until, before = time.monotonic() + 10, None
        while (found := seen()) != before or bool(found) != asleep:
            if time.monotonic() > until:
                return False
            before = found
            time.sleep(0.02)
        return True

    try:
        assert stays(True), "the process never went to sleep for good"
    finally:
        release = os.open(fifo, os.O_RDWR)
        child.wait(10)
        os.close(release)
    assert stays(False)
