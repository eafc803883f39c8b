"""The real install.sh on a box, and the installed box when it is killed, starved and upgraded.

One box for all of it, in this order: an installation takes minutes under emulation.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from bench_box.box import Box
from e2e_stage import wait_for
from install_probes import BOMB, FROM_AGENT, FROM_SENSES, HOG
from install_stage import (
    AGENT,
    CAM,
    HANDS,
    MIC,
    PATIENCE_S,
    ROOM_TOML,
    Installed,
    wheelhouse,
)
from room_stage import SLOW, Hearsay, Measured

READY_S = 60.0
EXPOSURE = {f"{AGENT}.service": 1.5, f"{HANDS}.service": 1.2, "hearing-room-senses@x.service": 0.8}
UPGRADED, BROKEN = "0.90.0", "0.91.0"


@pytest.fixture(scope="module")
def wheels() -> Path:
    return wheelhouse("installed", "0.89.0")


@pytest.fixture(scope="module")
def here(shared_box: Box, shared_hearsay: Hearsay, wheels: Path) -> Installed:
    """A box that nobody has told anything, installed."""
    made = Installed(shared_box, shared_hearsay)
    if not made.version():
        began = time.monotonic()
        done = made.install(script=f"{made.bring(wheels)}/install.sh")
        assert done.code == 0, done.err + made.log()
        made.took_s = time.monotonic() - began
    return made


@pytest.fixture(scope="module")
def room(here: Installed) -> Installed:
    """The same, commissioned and ready."""
    here.plug_everything_in()
    here.box.write("/etc/hearing-room/secrets/mqtt", "geheim\n", "0600")
    here.box.write("/root/room.toml", ROOM_TOML)
    done = here.install("--config", "/root/room.toml")
    assert done.code == 0, done.err + here.log()
    here.wait_for(lambda: here.readiness().get("state") == "ready", PATIENCE_S, "ready")
    return here


@pytest.fixture
def lamp_on(room: Installed) -> Iterator[Installed]:
    """The room with its relay on, which has to stay so."""
    room.switch(True)
    yield room
    assert room.lamp(), "the relay has moved"


# -- first boot ----------------------------------------------------------------------------------


def test_a_fresh_box_says_that_it_waits_for_its_room(here: Installed, measured: Measured) -> None:
    measured.add("install", "install.sh --offline on a fresh image", None, here.took_s)
    here.wait_for(lambda: here.readiness().get("reasons"), SLOW * READY_S, "an answer")
    answer = here.readiness()
    assert answer["state"] == "unknown"
    assert "agent.nothing_configured" in {r["code"] for r in answer["reasons"]}
    told = here.hearing_room("status", "--language", "en")
    assert told.code == 3
    assert "sudo hearing-room adopt" in " ".join(told.out.split())
    assert here.box.run("systemctl --failed --no-legend").out.strip() == ""
    lines = [json.loads(x) for x in here.hearing_room("doctor", "--json").out.splitlines()]
    found = {line["what"]: line["level"] for line in lines}
    for what in ("installed", "unit files", "units", "users", "rights", "confinement", "gpio"):
        assert found[what] == "ok", lines
    assert found["hardware watchdog"] == "ok"
    assert found["configuration"] == "fail", "there is none yet"


@pytest.mark.parametrize("unit", EXPOSURE)
def test_the_exposure_is_what_was_promised(here: Installed, unit: str, measured: Measured) -> None:
    out = here.box.run(f"systemd-analyze security --no-pager {unit} | tail -n 1").out
    score = float(out.partition("service: ")[2].split()[0])
    measured.add("exposure", f"{unit}: {score} (at most {EXPOSURE[unit]})")
    assert score <= EXPOSURE[unit]


def test_a_described_room_is_ready_within_a_minute(room: Installed, measured: Measured) -> None:
    """From the start of the service to the answer that the broker has."""
    room.box.run(f"systemctl stop {AGENT}")
    seen = len(room.hearsay.messages)
    began = time.monotonic()
    room.box.run(f"systemctl start {AGENT}")

    def ready() -> bool:
        new = room.hearsay.messages[seen:]
        return any(s == "readiness" and d and d["state"] == "ready" for s, d, _ in new)

    room.wait_for(ready, PATIENCE_S, "ready at the broker")
    took_s = time.monotonic() - began
    measured.add("install", "start of the service -> ready at the broker", None, took_s)
    assert took_s <= SLOW * READY_S
    assert room.hearing_room("status").code == 0
    # The room is the group's to read; what is secret reached the agent as a copy.
    rights = room.box.run("stat -c '%a %U:%G' /etc/hearing-room/room.toml").out.strip()
    assert rights == "640 root:hearing-room"
    copies = room.box.run(f"ls /run/credentials/{AGENT}.service").out.split()
    assert copies == ["secrets_mqtt"]


# -- privacy by the kernel -----------------------------------------------------------------------


def test_the_agent_can_open_no_device(room: Installed) -> None:
    found = room.inside(f"{AGENT}.service", FROM_AGENT)
    opened = [name for name, what in found.items() if name.startswith("/dev") and what == "done"]
    assert opened == [], found
    for name, what in found.items():
        if name.startswith(("mknod", "write")):
            assert what != "done", name
    assert (found["secrets"], found["raw"]) != ("done", "done")
    assert (found["own state"], found["network"]) == ("done", "done"), found


def test_senses_reaches_nothing_and_writes_nothing(room: Installed) -> None:
    found = room.inside("hearing-room-senses@.service", FROM_SENSES)
    assert found["/dev/video0"] == "done", found  # eyes it has
    for name in ("/dev/gpiochip0", "/dev/vda", "/dev/mem"):
        assert found[name] != "done", name
    for name, what in found.items():
        if name.startswith(("AF_", "reach")):
            assert what != "done", name
    assert found["wrote"] == [], found["wrote"]
    assert found["tried"] > 1_000
    for name in ("memfd", "shm", "processes", "room"):
        assert found[name] != "done", name


def test_hands_holds_lines_and_sees_nothing(room: Installed) -> None:
    found = room.inside(f"{HANDS}.service", FROM_SENSES)
    assert found["/dev/gpiochip0"] == "done", found
    for name in ("/dev/video0", "/dev/snd/pcmC0D1c", "/dev/vda", "/dev/mem"):
        assert found[name] != "done", name
    for name in ("AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET"):
        assert found[name] != "done", name
    assert found["reach /run/hearing-room/control.sock"] != "done", "it may not command"
    # Its own state, and what udev gave it in /sys.
    allowed = ("/var/lib/hearing-room-hands/", "/sys/", "/tmp/", "/var/tmp/")
    assert [path for path in found["wrote"] if not path.startswith(allowed)] == []


# -- killed, stopped, starved --------------------------------------------------------------------


def test_a_killed_agent_is_back_and_hands_does_not_care(
    lamp_on: Installed, measured: Measured
) -> None:
    room, agent, hands = lamp_on, lamp_on.pid(AGENT), lamp_on.pid(HANDS)
    began = time.monotonic()
    room.box.run(f"kill -9 {agent}")
    room.wait_for(lambda: room.pid(AGENT) not in (0, agent), SLOW * 20, "another agent")
    room.wait_for(lambda: room.readiness().get("state") == "ready", PATIENCE_S, "ready")
    measured.add("kill -9", "agent -> ready again", None, time.monotonic() - began)
    assert room.pid(HANDS) == hands


def test_a_stopped_agent_is_ended_by_the_watchdog_and_the_light_tells(
    lamp_on: Installed, measured: Measured
) -> None:
    room, agent, hands = lamp_on, lamp_on.pid(AGENT), lamp_on.pid(HANDS)
    began = time.monotonic()
    room.box.run(f"kill -STOP {agent}")
    lost_s = room.wait_for(lambda: room.pattern() == "monitor_lost", SLOW * 15, "monitor lost")
    measured.add("kill -STOP", "agent -> light says monitor lost", lost_s)
    room.wait_for(lambda: room.pid(AGENT) not in (0, agent), SLOW * 90, "another agent")
    room.wait_for(lambda: room.readiness().get("state") == "ready", PATIENCE_S, "ready")
    measured.add("kill -STOP", "agent -> ready again", None, time.monotonic() - began)
    assert room.pid(HANDS) == hands
    assert room.pattern() != "monitor_lost"


@pytest.mark.parametrize(("number", "within_s"), [("KILL", 10.0), ("STOP", 30.0)])
def test_hands_killed_or_stopped_comes_back_with_its_relay_held(
    lamp_on: Installed, number: str, within_s: float, measured: Measured
) -> None:
    room, agent, hands = lamp_on, lamp_on.pid(AGENT), lamp_on.pid(HANDS)
    began = time.monotonic()
    room.box.run(f"kill -{number} {hands}")
    room.wait_for(lambda: room.pid(HANDS) not in (0, hands), SLOW * within_s, "another hands")
    assert room.lamp(), "held by systemd meanwhile"
    room.wait_for(lambda: room.pattern() == "ready", SLOW * 30, "the light again")
    measured.add(f"kill -{number}", "hands -> light right again", None, time.monotonic() - began)
    assert room.pid(AGENT) == agent
    room.switch(False)
    room.switch(True)


def test_restarting_hands_moves_no_relay_and_stopping_it_neither_here(lamp_on: Installed) -> None:
    room, hands = lamp_on, lamp_on.pid(HANDS)
    room.box.run(f"systemctl restart {HANDS}")
    assert room.lamp()
    assert room.pid(HANDS) not in (0, hands)
    room.box.run(f"systemctl stop {HANDS}")  # on_stop = "hold": systemd holds the line
    assert room.lamp()
    room.wait_for(lambda: room.pid(HANDS) != 0, SLOW * 15, "the agent calls for it")


def test_a_killed_worker_costs_one_look(lamp_on: Installed, measured: Measured) -> None:
    room, agent = lamp_on, lamp_on.pid(AGENT)
    began = time.monotonic()
    room.box.run(f"kill -9 {room.worker_of('/dev/v4l/by-id/*-video-index0')}")
    seen = len(room.hearsay.messages)

    def looked() -> bool:
        new = room.hearsay.messages[seen:]
        ended = [d for s, d, _ in new if s == "event" and d and d["type"] == "look.ended"]
        return any(d["device"] == CAM and d.get("fault") is None for d in ended)

    room.wait_for(looked, SLOW * 30, "a look that is well")
    measured.add("kill -9", "worker of the camera -> a look that is well", time.monotonic() - began)
    assert room.pid(AGENT) == agent


def test_a_stopped_worker_is_left_alone_and_everything_else_goes_on(
    lamp_on: Installed, measured: Measured
) -> None:
    room = lamp_on
    began = time.monotonic()
    worker = room.worker_of("/dev/v4l/by-id/*-video-index0")
    room.box.run(f"kill -STOP {worker}")
    try:

        def unknown() -> bool:
            return room.hearsay.level_of(CAM) == "unknown" or room.hearsay.level_of(CAM) == "fail"

        room.wait_for(unknown, SLOW * 60, "the camera is not known")
        measured.add("kill -STOP", "worker of the camera -> said so", time.monotonic() - began)
        assert room.hearsay.level_of(MIC) == "ok"
        room.switch(True)
    finally:
        room.box.run(f"kill -KILL {worker}")
    began = time.monotonic()
    room.wait_for(lambda: room.hearsay.level_of(CAM) == "ok", SLOW * 60, "the camera again")
    measured.add("kill -STOP", "worker gone -> camera well", None, time.monotonic() - began)


def test_a_memory_hog_and_a_fork_bomb_in_senses_stay_there(lamp_on: Installed) -> None:
    room, agent, hands = lamp_on, lamp_on.pid(AGENT), lamp_on.pid(HANDS)
    found = room.inside("hearing-room-senses@.service", HOG)
    assert "Result=oom-kill" in found["unit"], found
    found = room.inside("hearing-room-senses@.service", BOMB)
    assert found["children"] < 16, found
    assert (room.pid(AGENT), room.pid(HANDS)) == (agent, hands)
    room.wait_for(lambda: room.readiness().get("state") == "ready", PATIENCE_S, "ready")


def test_the_steady_state_is_modest(room: Installed, measured: Measured) -> None:
    """Figures for the table; the limits are those of the units."""

    def usage(unit: str) -> float:
        return int(room.box.run(f"systemctl show -p CPUUsageNSec --value {unit}").out) / 1e9

    for unit in (AGENT, HANDS):
        pid = room.pid(unit)
        text = room.box.run(f"grep ^Pss: /proc/{pid}/smaps_rollup").out
        measured.add("steady", f"{unit}: PSS {int(text.split()[1]) / 1024:.1f} MiB")
    before = {unit: usage(unit) for unit in (AGENT, HANDS)}
    stored = {unit: room.stored(unit) for unit in (AGENT, HANDS)}
    lines = "journalctl -b -u 'hearing-room*' --no-pager -o cat 2>/dev/null | wc -l"
    sectors = "sync; awk '{ print $7 }' /sys/block/vda/stat"  # of 512 bytes (block/stat.rst)
    said, written = int(room.box.run(lines).out), int(room.box.run(sectors).out)
    began = time.monotonic()
    time.sleep(300)
    per_hour = 3600 / (time.monotonic() - began)
    for unit, cpu_s in before.items():
        spent = (usage(unit) - cpu_s) * per_hour
        measured.add("steady", f"{unit}: {spent:.0f} CPU s/h (emulated, looks every 30 s)")
        kib = (room.stored(unit) - stored[unit]) / 1024 * per_hour
        measured.add("steady", f"{unit}: {kib:.0f} KiB/h to the disk")
    more = (int(room.box.run(lines).out) - said) * per_hour * 24
    measured.add("steady", f"journal: {more:.0f} lines/day")
    kib = (int(room.box.run(sectors).out) - written) / 2 * per_hour
    measured.add("steady", f"disk, of the whole box: {kib:.0f} KiB written/h")
    assert more < 5_000


# -- again, upgrade, back ------------------------------------------------------------------------


def test_a_second_run_changes_nothing_and_restarts_nothing(
    lamp_on: Installed, wheels: Path
) -> None:
    room = lamp_on
    before, pids = room.files(), (room.pid(AGENT), room.pid(HANDS))
    done = room.install(script=f"{room.bring(wheels)}/install.sh")
    assert done.code == 0, done.err
    assert "nothing to do" in done.err
    assert room.files() == before
    assert (room.pid(AGENT), room.pid(HANDS)) == pids


def watch_lamp(room: Installed) -> None:
    """Samples the line all the time, and notes when it is not on."""
    value = "/sys/devices/platform/gpio-sim.0/gpiochip0/sim_gpio26/value"
    loop = f"while sleep 0.02; do read v < {value}; [ $v = 1 ] || date >> /root/moved; done"
    room.box.run("rm -f /root/moved")
    room.box.start("watch-lamp", loop)


def moved(room: Installed) -> str:
    room.box.run("systemctl stop watch-lamp")
    return room.box.run("cat /root/moved 2>/dev/null", check=False).out


def hearings(room: Installed, *minutes: int) -> None:
    """A hearing from now until so many minutes from now; none without a number."""
    now = datetime.now(UTC)
    listed = [
        {
            "id": "HS-1",
            "starts": (now - timedelta(minutes=1)).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "ends": (now + timedelta(minutes=m)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        for m in minutes
    ]
    room.hearsay.publish("schedule", {"v": 1, "hearings": listed}, retain=True)


@pytest.fixture(scope="module")
def newer() -> Path:
    return wheelhouse("newer", UPGRADED)


def test_nothing_is_upgraded_in_session(lamp_on: Installed, newer: Path) -> None:
    room, before = lamp_on, lamp_on.version()
    hearings(room, 60)
    wait_for(lambda: room.hearsay.last("readiness").get("mode") == "in_session", SLOW * 20)
    try:
        done = room.install(script=f"{room.bring(newer)}/install.sh")
        assert done.code == 75, done.err
        assert "in_session" in done.err
        assert room.version() == before
        assert room.box.run(f"test -e /opt/hearing-room/{UPGRADED}", check=False).code != 0
        assert room.install("--rollback").code in (69, 75)
        assert room.install("--uninstall").code == 75
    finally:
        hearings(room)
        wait_for(lambda: room.hearsay.last("readiness").get("mode") == "idle", SLOW * 20)


def test_an_upgrade_takes_over_and_moves_no_relay(
    lamp_on: Installed, newer: Path, measured: Measured
) -> None:
    room, before = lamp_on, lamp_on.version()
    agent, hands = room.pid(AGENT), room.pid(HANDS)
    watch_lamp(room)
    began = time.monotonic()
    done = room.install(script=f"{room.bring(newer)}/install.sh")
    measured.add("install", "upgrade --offline", None, time.monotonic() - began)
    assert done.code == 0, done.err + room.log()
    assert moved(room) == ""
    assert (room.version(), room.version("previous")) == (UPGRADED, before)
    assert room.pid(AGENT) not in (0, agent)
    assert room.pid(HANDS) not in (0, hands)
    assert room.status()["agent"]["version"] == UPGRADED
    room.wait_for(lambda: room.readiness().get("state") == "ready", PATIENCE_S, "ready")
    lines = [json.loads(x) for x in room.hearing_room("doctor", "--json").out.splitlines()]
    assert {x["what"]: x["level"] for x in lines}["unit files"] == "ok"


def test_a_version_that_does_not_come_up_leaves_the_old_one_running(lamp_on: Installed) -> None:
    def breaks(source: Path) -> None:
        path = source / "agent/cli/run.py"
        text = path.read_text()
        path.write_text(text.replace("    await agent.run()", "    raise RuntimeError(agent)"))
        assert path.read_text() != text

    room = lamp_on
    watch_lamp(room)
    bad = room.bring(wheelhouse("broken", BROKEN, breaks))
    done = room.install(script=f"{bad}/install.sh")
    assert done.code == 69, done.err
    assert f"{UPGRADED} runs on" in done.err
    assert moved(room) == ""
    assert room.version() == UPGRADED
    assert room.status()["agent"]["version"] == UPGRADED
    room.wait_for(lambda: room.readiness().get("state") == "ready", PATIENCE_S, "ready")
    room.box.run(f"rm -rf /opt/hearing-room/{BROKEN}")


def test_back_to_the_version_before(lamp_on: Installed) -> None:
    room, before = lamp_on, lamp_on.version("previous")
    watch_lamp(room)
    done = room.install("--rollback")
    assert done.code == 0, done.err
    assert moved(room) == ""
    assert (room.version(), room.version("previous")) == (before, UPGRADED)
    assert room.status()["agent"]["version"] == before
    room.wait_for(lambda: room.readiness().get("state") == "ready", PATIENCE_S, "ready")


# -- the end -------------------------------------------------------------------------------------


def test_only_the_agent_can_have_the_box_restarted(room: Installed) -> None:
    wish = "/run/hearing-room/reboot-requested"
    for user in ("pi", "hearing-room-hands", "hearing-room-senses"):
        assert room.box.run(f"runuser -u {user} -- touch {wish}", check=False).code != 0, user
    boot = room.box.read("/proc/sys/kernel/random/boot_id")
    asked = room.hearing_room("command", "box.reboot", "--reason", "a scenario")
    assert asked.code == 0, asked.err + asked.out

    def rebooted() -> bool:
        try:
            return room.box.read("/proc/sys/kernel/random/boot_id") != boot
        except Exception:
            return False

    room.wait_for(rebooted, SLOW * 120, "another boot")
    room.box.run("mountpoint -q /mnt/host || mount /mnt/host", timeout_s=300)
    room.plug_everything_in()
    room.wait_for(lambda: room.readiness().get("state") == "ready", PATIENCE_S, "ready")
    assert room.box.run(f"test -e {wish}", check=False).code != 0
    assert room.box.run("systemctl --failed --no-legend").out.strip() == ""


def test_uninstalling_leaves_what_it_says(room: Installed) -> None:
    done = room.install("--uninstall")
    assert done.code == 0, done.err
    # /opt/venv is the image's own.
    find = "find /etc /usr/local /opt /run -path /opt/venv -prune -o -name '*hearing-room*' -print"
    left = room.box.run(find).out.split()
    assert set(left) <= {"/etc/hearing-room", "/etc/credstore"}, left
    assert (
        room.box.run("test -e /etc/hearing-room/room.toml; test -e /var/lib/hearing-room").code == 0
    )
    assert room.box.run("systemctl list-units --all --plain --no-legend 'hearing-room*'").out == ""
    assert room.box.run("gpioinfo -c 0 26").out.count("hearing-room") == 0, "the line is let go"
    wheels = room.bring(wheelhouse("installed", "0.89.0"))
    done = room.install("--uninstall", "--purge", script=f"{wheels}/install.sh")
    assert done.code == 0, done.err
    rest = "ls -d /etc/hearing-room /var/lib/hearing-room*; getent passwd"
    assert "hearing-room-" not in room.box.run(rest, check=False).out
