"""The units of an installed box: what they promise stands in them, and systemd understands them."""

from __future__ import annotations

import ipaddress
import re
import shutil
import subprocess
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

from agent import profiles
from agent.cli import installed, netcams
from agent.credentials import FOLDER
from agent.lanes import hands, spawn
from agent.lanes.lane import LIFE_S
from agent.settings import parse

ROOT = Path(__file__).parent.parent
SYSTEMD = ROOT / "systemd"
UNITS = {f.name: f for f in sorted((SYSTEMD / "system").iterdir())}
AGENT, HANDS = "hearing-room-agent.service", "hearing-room-hands.service"
SENSES, NETCAM = "hearing-room-senses@.service", "hearing-room-netcam-far@.service"
EXPOSURE = {AGENT: 1.5, HANDS: 1.2, SENSES: 0.8, NETCAM: 1.2}
"""The most that `systemd-analyze security` may say. A network camera's worker has a network, which
alone is worth 0.6."""
ANALYZE = shutil.which("systemd-analyze")

Unit = Mapping[str, list[str]]

ROOM = """[room]
site = "test"
id = "room-01"
[camera.near]
source = "v4l2:/dev/video0"
[camera.far]
source = "rtsp://192.0.2.7:8554/stream"
credentials_file = "/etc/hearing-room/secrets/far.txt"
[camera.named]
source = "https://camera.test/stream"
"""


def look_up(host: str) -> list[str]:
    if host == "camera.test":
        return ["192.0.2.9", "2001:db8::9"]
    raise OSError("no such host")


def written() -> netcams.Written:
    return netcams.write(parse(ROOM), SYSTEMD / "netcam", look_up)


def text_of(name: str) -> str:
    return UNITS[name].read_text() if name in UNITS else written().files[name]


def unit(name: str) -> Unit:
    """Every key with its values, in order; an empty one takes back what was said before."""
    found: dict[str, list[str]] = {}
    for line in text_of(name).splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(key, []).append(value)
    return found


def words(made: Unit, key: str) -> set[str]:
    return {word for value in made.get(key, []) for word in value.split()}


# -- what every service promises -----------------------------------------------------------------


@pytest.mark.parametrize("name", EXPOSURE)
def test_a_service_has_no_more_than_it_needs(name: str) -> None:
    made = unit(name)
    for key in (
        "NoNewPrivileges",
        "ProtectHome",
        "PrivateTmp",
        "PrivateMounts",
        "ProtectKernelTunables",
        "ProtectKernelModules",
        "ProtectKernelLogs",
        "ProtectControlGroups",
        "RestrictNamespaces",
        "RestrictRealtime",
        "RestrictSUIDSGID",
        "LockPersonality",
        "MemoryDenyWriteExecute",
    ):
        assert made[key] == ["yes"], key
    assert made["ProtectSystem"] == ["strict"]
    assert made["DevicePolicy"] == ["closed"]
    assert made["CapabilityBoundingSet"] == [""]
    assert made["SystemCallArchitectures"] == ["native"]
    assert made["SystemCallErrorNumber"] == ["EPERM"], "a refused call is an error, not the end"
    assert made["LimitCORE"] == ["0"]
    for key in ("MemoryMax", "TasksMax", "CPUWeight", "User"):
        assert key in made, key
    assert made["User"][0] in installed.USERS


@pytest.mark.parametrize("name", [AGENT, HANDS])
def test_who_writes_has_its_own_folder_only(name: str) -> None:
    """Both places are world-writable, and stay so under `ProtectSystem=strict`."""
    assert {"-/run/lock", "-/dev/shm"} <= words(unit(name), "InaccessiblePaths")


def test_the_agent_has_the_network_and_no_device() -> None:
    made = unit(AGENT)
    assert made["User"] == ["hearing-room"]
    assert made["PrivateDevices"] == ["yes"]
    assert "DeviceAllow" not in made
    assert "SupplementaryGroups" not in made
    assert made["Type"] == ["notify"]
    assert made["WatchdogSec"] == ["60"]
    assert made["Restart"] == ["always"]
    assert made["StartLimitIntervalSec"] == ["0"], "it never gives up"
    assert made["StateDirectory"] == made["RuntimeDirectory"] == ["hearing-room"]
    assert made["LoadCredential"] == [f"{FOLDER}:/etc/hearing-room/{FOLDER}"]
    # What these would take away is needed: see the unit.
    assert not {"ProcSubset", "ProtectProc", "ProtectClock"} & set(made)
    # The last word counts: @privileged has the calls of the clock among its own.
    assert made["SystemCallFilter"][-1].split() == ["adjtimex", "clock_adjtime"]
    networks = [ipaddress.ip_network(word) for word in words(made, "IPAddressAllow")]
    for address, may in (
        ("127.0.0.1", True),
        ("10.0.2.100", True),
        ("192.168.1.1", True),
        ("203.0.113.9", True),
        ("224.0.0.251", False),
        ("255.255.255.255", False),
        ("::1", True),
        ("2001:db8::1", True),
        ("fd00::1", True),
        ("fe80::1", True),
        ("ff02::fb", False),
    ):
        found = any(ipaddress.ip_address(address) in network for network in networks)
        assert found is may, address


def test_hands_outlives_the_agent_and_keeps_its_lines() -> None:
    made = unit(HANDS)
    assert made["User"] == ["hearing-room-hands"]
    assert made["FileDescriptorStoreMax"] == ["64"]
    assert made["FileDescriptorStorePreserve"] == ["yes"]
    assert made["RestartKillSignal"] == ["SIGUSR2"], "a restart hands over"
    assert made["KillSignal"] == ["SIGTERM"], "a stop makes safe"
    assert made["KillMode"] == ["process"], "a step with a USB device is finished"
    tied = {"PartOf", "BindsTo", "Requires", "After", "Requisite", "Upholds"}
    for key in tied & set(made):
        assert AGENT not in words(made, key), key
    for other in UNITS:
        for key in tied & set(unit(other)):
            assert HANDS not in words(unit(other), key), f"{other} {key}"
    assert words(made, "DeviceAllow") - {"rw"} == {
        "char-gpiochip",
        "char-hidraw",
        "char-ttyUSB",
        "char-i2c",
    }
    assert made["PrivateNetwork"] == ["yes"]
    assert made["RestrictAddressFamilies"] == ["AF_UNIX"]
    assert "/run/hearing-room" in " ".join(made["InaccessiblePaths"]), "it may not command"
    assert "--user hearing-room" in made["ExecStart"][0]


def test_senses_has_eyes_and_ears_and_nothing_else() -> None:
    made = unit(SENSES)
    assert made["User"] == ["hearing-room-senses"]
    assert made["StandardInput"] == made["StandardOutput"] == ["socket"]
    assert made["PrivateNetwork"] == ["yes"]
    assert made["IPAddressDeny"] == ["any"]
    assert made["RestrictAddressFamilies"] == ["AF_UNIX"]
    assert made["MemorySwapMax"] == ["0"], "a picture may not reach the disk"
    assert "MemoryHigh" not in made, "without swap it only makes a greedy worker slow"
    assert made["LimitFSIZE"] == ["0"]
    assert words(made, "DeviceAllow") - {"rw"} == {
        "char-video4linux",
        "char-media",
        "char-alsa",
        "char-cec",
        "char-i2c",
    }
    assert {"/run:ro", "/tmp:ro", "/var:ro", "/home:ro"} == words(made, "TemporaryFileSystem")
    assert not {"StateDirectory", "RuntimeDirectory", "ReadWritePaths", "LoadCredential"} & set(
        made
    )


@pytest.mark.parametrize("name", [SENSES, NETCAM])
def test_a_worker_is_ended_at_last_but_not_before_its_lane_would(name: str) -> None:
    (limit,) = unit(name)["RuntimeMaxSec"]
    assert limit.endswith("min")
    longest_s = LIFE_S + 120 + 60  # its life, the longest deadline, the longest start
    assert int(limit.removesuffix("min")) * 60 > longest_s


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("hearing-room-senses.socket", spawn.SOCKETS / "senses.sock"),
        ("hearing-room-netcam-far.socket", spawn.SOCKETS / "netcam-far.sock"),
        ("hearing-room-hands.socket", hands.SOCKET),
    ],
)
def test_only_the_agents_user_reaches_the_sockets(name: str, path: Path) -> None:
    made = unit(name)
    assert made["ListenStream"] == [str(path)]
    assert (made["SocketUser"], made["SocketMode"]) == (["hearing-room"], ["0600"])
    assert made.get("Accept", ["no"]) == (["no"] if "hands" in name else ["yes"])


def test_only_the_agent_can_wish_for_a_reboot() -> None:
    (path,) = unit("hearing-room-reboot.path")["PathExists"]
    assert path == "/run/hearing-room/reboot-requested"
    first, second = unit("hearing-room-reboot.service")["ExecStart"]
    assert first.endswith(path), "or the next boot would begin with a reboot"
    assert second.endswith("systemctl reboot")
    assert unit(AGENT)["RuntimeDirectoryMode"] == ["0755"], "others may not write there"


# -- cameras on the network ----------------------------------------------------------------------


def test_a_network_camera_reaches_its_own_address_only() -> None:
    made = unit(NETCAM)
    assert made["IPAddressDeny"] == ["any"]
    assert made["IPAddressAllow"] == ["192.0.2.7"]
    assert made["SocketBindDeny"] == ["any"]
    assert made["PrivateDevices"] == ["yes"]
    assert "DeviceAllow" not in made
    assert made["ExecStart"][0].endswith("--variant netcam --port 8554")
    assert made["LoadCredential"] == ["secrets_far.txt:/etc/hearing-room/secrets/far.txt"]
    assert made["User"] == ["hearing-room-senses"]


def test_a_name_is_looked_up_once_and_kept_for_the_camera_alone() -> None:
    made = unit("hearing-room-netcam-named@.service")
    assert made["IPAddressAllow"] == ["192.0.2.9 2001:db8::9"]
    assert made["BindReadOnlyPaths"] == ["/etc/hearing-room/netcam/named.hosts:/etc/hosts"]
    assert "LoadCredential" not in made
    hosts = written().files["named.hosts"].splitlines()
    assert hosts == ["127.0.0.1 localhost", "192.0.2.9 camera.test", "2001:db8::9 camera.test"]
    assert any("camera.test" in w and "fixed address" in w for w in written().warnings)
    for name in (NETCAM, "hearing-room-netcam-named.socket"):
        assert not re.search("@[A-Z]+@", text_of(name)), "a word of the template was left"


def test_a_camera_that_cannot_be_found_reaches_nothing_and_is_told() -> None:
    room = parse(ROOM.replace("camera.test", "nowhere.test"))
    made = netcams.write(room, SYSTEMD / "netcam", look_up)
    assert "\nIPAddressAllow=\n" in made.files["hearing-room-netcam-named@.service"]
    assert any("nowhere.test cannot be looked up" in w for w in made.warnings)
    assert sorted(made.files) == sorted(written().files), "the others go on"


# -- systemd's own word --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def installed_units(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All units with programs that exist: systemd looks for them."""
    folder = tmp_path_factory.mktemp("units")
    for name in [*UNITS, *written().files]:
        if name.endswith(".hosts"):
            continue
        text = re.sub(r"/opt/hearing-room/current/bin/\S+", "/bin/true", text_of(name))
        (folder / name).write_text(text)
    return folder


@pytest.mark.skipif(ANALYZE is None, reason="no systemd-analyze")
@pytest.mark.parametrize("name", EXPOSURE)
def test_the_exposure_is_what_was_promised(name: str, installed_units: Path) -> None:
    limit = round(EXPOSURE[name] * 10)
    run = analyze("security", "--offline=true", f"--threshold={limit}", name, at=installed_units)
    said = run.stdout.strip().splitlines()
    assert run.returncode == 0, said[-1:] or run.stderr


@pytest.mark.skipif(ANALYZE is None, reason="no systemd-analyze")
def test_systemd_understands_every_line(installed_units: Path) -> None:
    names = [f.name for f in sorted(installed_units.iterdir())]
    run = analyze("verify", "--man=no", "--generators=no", *names, at=installed_units)
    told = [line for line in run.stderr.splitlines() if str(installed_units) in line]
    # Older ones know no lasting store: theirs lasts through restarts, which is most of it.
    told = [line for line in told if "'FileDescriptorStorePreserve'" not in line]
    assert told == []


def analyze(*args: str, at: Path) -> subprocess.CompletedProcess[str]:
    command = [str(ANALYZE), *args]
    env = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "SYSTEMD_UNIT_PATH": f"{at}:", "LC_ALL": "C"}
    return subprocess.run(command, cwd=at, env=env, capture_output=True, text=True, timeout=60)


# -- users, rules, limits ------------------------------------------------------------------------


def lines(path: str) -> list[list[str]]:
    text = (SYSTEMD / path).read_text()
    return [line.split() for line in text.splitlines() if line and not line.startswith("#")]


def test_the_users_are_those_of_the_units() -> None:
    made = lines("sysusers.d/hearing-room.conf")
    assert {w[1] for w in made if w[0] == "u"} == set(installed.USERS)
    for name in (AGENT, HANDS, SENSES):
        wanted = set(installed.USERS[unit(name)["User"][0]])
        assert words(unit(name), "SupplementaryGroups") == wanted
    # A group that is not there keeps a unit from starting.
    usual = {"video", "audio", "dialout", *installed.USERS}
    made_groups = {w[1] for w in made if w[0] == "g"}
    assert {g for groups in installed.USERS.values() for g in groups} <= usual | made_groups


def test_secrets_are_roots_alone_and_the_room_is_the_groups() -> None:
    made = {w[1]: w for w in lines("tmpfiles.d/hearing-room.conf")}
    assert made["/etc/hearing-room"][2:5] == ["2750", "root", "hearing-room"]
    assert made["/etc/hearing-room/room.toml"][2:5] == ["0640", "root", "hearing-room"]
    assert made[f"/etc/hearing-room/{FOLDER}"][2:5] == ["0700", "root", "root"]


def test_hands_may_open_every_relay_board_that_is_known() -> None:
    rules = (SYSTEMD / "udev/rules.d/60-hearing-room.rules").read_text()
    boards = profiles.all_relay_boards().values()
    hid = [
        (usb, b.match.product) for b in boards if b.bus == "hid" and b.match for usb in b.match.usb
    ]
    assert hid
    for usb, name in hid:
        vendor, product = usb.split(":")
        wanted = f'ATTRS{{idVendor}}=="{vendor}", ATTRS{{idProduct}}=="{product}"'
        assert f'{wanted}, ATTRS{{product}}=="{name}"' in rules, usb
    assert {b.bus for b in boards} <= {"gpio", "hid", "serial", "i2c"}, "a new bus: see the unit"


def test_the_hardware_watchdog_is_set_to_what_a_raspberry_pi_can_count() -> None:
    (watchdog,) = (SYSTEMD / "system.conf.d").iterdir()
    found = re.search(r"^RuntimeWatchdogSec=(\d+)s$", watchdog.read_text(), re.MULTILINE)
    assert found is not None
    assert 0 < int(found[1]) <= 15


def test_all_of_it_goes_with_the_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    data = project["tool"]["setuptools"]["data-files"]
    carried = {file for globs in data.values() for g in globs for file in ROOT.glob(g)}
    for file in [*SYSTEMD.rglob("*"), *(ROOT / "packaging").glob("*.sh"), ROOT / "install.sh"]:
        if file.is_file():
            assert file in carried, file
            place = "share/hearing-room" / file.parent.relative_to(ROOT)
            assert str(file.relative_to(ROOT)) in data[str(place)] or any(
                file in ROOT.glob(g) for g in data[str(place)]
            )
