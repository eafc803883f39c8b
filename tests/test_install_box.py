"""install.sh as root would run it, below a folder of its own (DESTDIR): no user is made, nothing is
started, and what is put in place can be counted. The rest is shown on a box (tests/bench).

The program is a stand-in of the same name that installs without an index; units, rules and the
installer itself are the real ones.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EX_USAGE, EX_UNAVAILABLE, EX_CONFIG = 64, 69, 78

PYPROJECT = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["packaging"]
[project]
name = "hearing-room-agent"
version = "1.0"
"""
BACKEND = '''\
"""A build backend that needs nothing. A wheel is a zip file."""
import pathlib, re, zipfile

VERSION = re.search('version = "(.*)"', pathlib.Path("pyproject.toml").read_text())[1]
NAME = f"hearing_room_agent-{VERSION}"
FILES = {
    "stand_in.py": pathlib.Path("agent/stand_in.py").read_text(),
    f"{NAME}.dist-info/METADATA": f"Metadata-Version: 2.1\\nName: hearing-room-agent\\n"
    f"Version: {VERSION}\\nProvides-Extra: card\\n",
    f"{NAME}.dist-info/WHEEL": "Wheel-Version: 1.0\\nGenerator: backend\\n"
    "Root-Is-Purelib: true\\nTag: py3-none-any\\n",
    f"{NAME}.dist-info/entry_points.txt": "[console_scripts]\\nhearing-room = stand_in:main\\n",
}


def build_wheel(folder, settings=None, metadata=None):
    record = f"{NAME}.dist-info/RECORD"
    share = f"{NAME}.data/data/share/hearing-room"
    with zipfile.ZipFile(f"{folder}/{NAME}-py3-none-any.whl", "w") as wheel:
        for path, text in FILES.items():
            wheel.writestr(path, text)
        names = list(FILES)
        for top in ("systemd", "packaging", "install.sh"):
            for file in [pathlib.Path(top), *pathlib.Path(top).rglob("*")]:
                if file.is_file():
                    wheel.write(file, f"{share}/{file}")
                    names.append(f"{share}/{file}")
        wheel.writestr(record, "".join(f"{name},,\\n" for name in [*names, record]))
    return f"{NAME}-py3-none-any.whl"
'''
STAND_IN = '''\
"""Answers as `hearing-room` would, as far as install.sh asks."""
import pathlib, sys

VERSION = "1.0"


def main():
    words = sys.argv[1:]
    if words == ["--version"]:
        print(VERSION)
    elif words[0] == "doctor":
        print("examined")
        sys.exit(2 if VERSION == "6.66" else 0)
    elif words[:2] == ["config", "check"]:
        sys.exit(78 if "wrong" in pathlib.Path(words[2]).read_text() else 0)
    elif words[:2] == ["config", "netcams"]:
        room = pathlib.Path(words[-1])
        if room.exists() and "rtsp" in room.read_text():
            folder = pathlib.Path(words[words.index("--output") + 1])
            (folder / "hearing-room-netcam-far.socket").write_text("[Install]\\n"
                "WantedBy=sockets.target\\n[Socket]\\nListenStream=/run/far\\nAccept=yes\\n")
            (folder / "far.hosts").write_text("127.0.0.1 localhost\\n")
'''
TOOLS = """
basename bash cat chmod cmp cp cut dirname dpkg-deb du env find flock getent grep gzip head id
install ln ls md5sum mkdir mktemp mv nice readlink rm sed sha256sum sh sort tail tar tr uname xargs
"""


def program(folder: Path, name: str, script: str) -> None:
    file = folder / name
    file.unlink(missing_ok=True)
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


QUICK_PYTHON = """
if [ "$1 $2" = "-m venv" ]; then
  for last; do :; done
  rm -rf -- "$last"
  mkdir -p -- "${{last%/*}}"
  exec cp -R -- "{template}" "$last"
fi
exec "{python}" "$@"
"""


class Bench:
    """A checkout, a box's files, and a machine where apt must not run."""

    def __init__(self, folder: Path, template: Path) -> None:
        self.box = folder / "box"
        self.checkout = folder / "checkout"
        self.tools = folder / "tools"
        for made in (self.box, self.checkout / "agent", self.tools):
            made.mkdir(parents=True)
        for name in TOOLS.split():
            if found := shutil.which(name):
                (self.tools / name).symlink_to(found)
        if found := shutil.which("systemctl"):
            (self.tools / "systemctl").symlink_to(found)
        python = QUICK_PYTHON.format(template=template, python=sys.executable)
        program(self.tools, "python3", python)
        program(self.tools, "arecord", "exit 0")
        program(self.tools, "apt-get", 'touch "${0%/*}/apt-was-called"; exit 100')
        skip = shutil.ignore_patterns("__pycache__")
        for name in ("systemd", "packaging"):
            shutil.copytree(ROOT / name, self.checkout / name, ignore=skip)
        shutil.copy(ROOT / "install.sh", self.checkout)
        (self.checkout / "packaging/backend.py").write_text(BACKEND)
        (self.checkout / "pyproject.toml").write_text(PYPROJECT)
        (self.checkout / "LICENSE").write_text("a licence\n")
        (self.checkout / "agent/stand_in.py").write_text(STAND_IN)

    def set_version(self, version: str) -> None:
        for file in ("pyproject.toml", "agent/stand_in.py"):
            text = (self.checkout / file).read_text()
            text = re.sub('^(version|VERSION) = ".*"', rf'\1 = "{version}"', text, flags=re.M)
            (self.checkout / file).write_text(text)

    def install(self, *args: str | Path, by: Path | None = None, **env: str) -> tuple[int, str]:
        done = subprocess.run(
            [str(by or self.checkout / "install.sh"), *map(str, args)],
            cwd="/",
            env={
                "PATH": str(self.tools),
                "HOME": str(self.box.parent),
                "LANG": "C.UTF-8",
                "PIP_NO_INDEX": "1",
                "DESTDIR": str(self.box),
                **env,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.stdout == "", done.stdout
        assert not (self.tools / "apt-was-called").exists()
        return done.returncode, done.stderr

    def version(self, link: str = "current") -> str:
        path = self.box / "opt/hearing-room" / link
        return str(path.readlink()) if path.is_symlink() else ""

    def state(self) -> dict[str, tuple[int, int, str]]:
        """Every file: inode, time, contents. Byte code is Python's own affair."""
        found = {}
        for path in sorted(self.box.rglob("*")):
            if path.suffix == ".pyc" or path.is_dir():
                continue
            info = path.lstat()
            what = str(path.readlink()) if path.is_symlink() else ""
            body = b"" if what else path.read_bytes()
            digest = what or hashlib.sha256(body).hexdigest()
            found[str(path.relative_to(self.box))] = (info.st_ino, info.st_mtime_ns, digest)
        return found


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty environment: copied, where making one would take seconds."""
    folder = tmp_path_factory.mktemp("template") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=120)
    return folder


@pytest.fixture
def bench(tmp_path: Path, template: Path) -> Bench:
    return Bench(tmp_path, template)


@pytest.fixture
def box(bench: Bench) -> Bench:
    """Version 1.0 is installed."""
    code, said = bench.install()
    assert code == 0, said
    return bench


def test_an_installation_puts_everything_where_it_belongs(bench: Bench) -> None:
    box = bench
    code, said = box.install(PYTHON=sys.executable)  # an environment that is really made
    assert code == 0, said
    files = box.state()
    units = "usr/local/lib/systemd/system"
    for unit in (ROOT / "systemd/system").iterdir():
        assert (box.box / units / unit.name).read_bytes() == unit.read_bytes()
    for path in (
        "etc/sysusers.d/hearing-room.conf",
        "etc/tmpfiles.d/hearing-room.conf",
        "etc/udev/rules.d/60-hearing-room.rules",
        "etc/sysctl.d/60-hearing-room.conf",
        "etc/systemd/journald.conf.d/60-hearing-room.conf",
    ):
        assert path in files
    assert not any("watchdog" in path for path in files if path.startswith("etc/")), "there is none"
    assert box.version() == "1.0"
    links = {p.name: str(p.readlink()) for p in (box.box / "usr/local").glob("*bin/*")}
    assert links == {
        "hearing-room": "/opt/hearing-room/current/bin/hearing-room",
        "hearing-room-install": "/opt/hearing-room/current/share/hearing-room/install.sh",
    }
    if shutil.which("systemctl"):
        wants = {p.name for p in (box.box / "etc/systemd/system").glob("*.wants/*")}
        assert wants == {
            "hearing-room-agent.service",
            "hearing-room-hands.service",
            "hearing-room-hands.socket",
            "hearing-room-senses.socket",
            "hearing-room-reboot.path",
        }
    assert not (box.checkout / "build").exists(), "a checkout stays as it is"
    noted = (box.box / "opt/hearing-room/files").read_text().split()
    outside = {f"/{path}" for path in files if not path.startswith("opt/")}
    assert set(noted) == {path for path in outside if ".wants/" not in path}


def test_a_second_run_changes_nothing(box: Bench, tmp_path: Path) -> None:
    before = box.state()
    code, said = box.install()
    assert (code, "nothing to do" in said) == (0, True)
    assert box.state() == before
    # The installed script without a checkout neither, and what was broken it mends.
    own = box.box / "opt/hearing-room/current/share/hearing-room/install.sh"
    assert box.install(by=own)[0] == 0
    assert box.state() == before
    unit = box.box / "usr/local/lib/systemd/system/hearing-room-agent.service"
    good = unit.read_text()
    unit.write_text(good.replace("PrivateDevices=yes", "PrivateDevices=no"))
    assert box.install(by=own)[0] == 0
    assert unit.read_text() == good


def test_a_dry_run_says_everything_and_does_nothing(bench: Bench) -> None:
    code, said = bench.install("--dry-run")
    assert code == 0
    assert bench.state() == {}
    for word in ("would: Python environment", "hearing-room-agent.service", "current -> 1.0"):
        assert word in said
    assert bench.install()[0] == 0
    before = bench.state()
    bench.set_version("2.0")
    for args in (["--dry-run"], ["--uninstall", "--purge", "--dry-run"]):
        code, said = bench.install(*args)
        assert (code, "would: " in said) == (0, True)
        assert bench.state() == before


def test_an_upgrade_keeps_the_version_before_and_can_go_back(box: Bench) -> None:
    old_unit = (box.checkout / "systemd/system/hearing-room-reboot.path").read_text()
    box.set_version("2.0")
    (box.checkout / "systemd/system/hearing-room-new.path").write_text("[Path]\nPathExists=/x\n")
    changed = box.checkout / "systemd/system/hearing-room-reboot.path"
    changed.write_text(old_unit + "# newer\n")
    assert box.install()[0] == 0
    assert (box.version(), box.version("previous")) == ("2.0", "1.0")
    units = box.box / "usr/local/lib/systemd/system"
    assert (units / "hearing-room-new.path").exists()

    # Back, with the units that belong to it; and forward again.
    assert box.install("--rollback")[0] == 0
    assert (box.version(), box.version("previous")) == ("1.0", "2.0")
    assert not (units / "hearing-room-new.path").exists()
    assert (units / "hearing-room-reboot.path").read_text() == old_unit
    assert box.install("--rollback")[0] == 0
    assert (box.version(), box.version("previous")) == ("2.0", "1.0")

    # A third one: two are kept.
    box.set_version("3.0")
    assert box.install()[0] == 0
    assert (box.version(), box.version("previous")) == ("3.0", "2.0")
    assert not (box.box / "opt/hearing-room/1.0").exists()


def test_the_same_version_with_other_contents_is_another_one(box: Bench) -> None:
    with (box.checkout / "agent/stand_in.py").open("a") as file:
        file.write("# changed\n")
    assert box.install()[0] == 0
    assert re.fullmatch(r"1\.0\+[0-9a-f]{8}", box.version())
    assert box.version("previous") == "1.0"
    before = box.state()
    assert box.install()[0] == 0
    assert box.state() == before


def test_a_version_that_does_not_pass_never_takes_over(box: Bench) -> None:
    box.set_version("6.66")
    before = {k: v for k, v in box.state().items() if not k.startswith("opt/hearing-room/6.66")}
    code, said = box.install()
    assert code == EX_UNAVAILABLE
    assert "examined" in said, "what it found is shown"
    assert "1.0 runs on" in said
    after = {k: v for k, v in box.state().items() if not k.startswith("opt/hearing-room/6.66")}
    assert after == before
    box.set_version("7.0")
    assert box.install()[0] == 0
    assert not (box.box / "opt/hearing-room/6.66").exists(), "and it does not stay"


def test_an_unfinished_version_is_made_anew(box: Bench) -> None:
    box.set_version("2.0")
    broken = box.box / "opt/hearing-room/2.0"
    broken.mkdir()
    (broken / "half").touch()
    assert box.install()[0] == 0
    assert box.version() == "2.0"
    assert not (broken / "half").exists()


def test_rollback_needs_something_to_go_back_to(box: Bench) -> None:
    code, said = box.install("--rollback")
    assert code == EX_UNAVAILABLE
    assert "no earlier version" in said


def test_a_room_is_put_in_place_once_and_never_overwritten(bench: Bench, tmp_path: Path) -> None:
    room = tmp_path / "my room.toml"
    room.write_text("wrong\n")
    code, said = bench.install("--config", room)
    assert code == EX_CONFIG
    assert "has mistakes" in said
    assert bench.version() == "", "nothing took over"
    room.write_text("first\n")
    assert bench.install("--config", room)[0] == 0
    kept = bench.box / "etc/hearing-room/room.toml"
    assert kept.read_text() == "first\n"
    assert kept.stat().st_mode & 0o777 == 0o640
    before = bench.state()
    assert bench.install("--config", room)[0] == 0, "the same again is in order"
    assert bench.state() == before

    room.write_text("second\n")
    bench.set_version("2.0")
    code, said = bench.install("--config", room)
    assert code == EX_CONFIG
    assert "never overwritten" in said
    assert bench.state() == before
    assert bench.install()[0] == 0
    assert kept.read_text() == "first\n"


def test_network_cameras_get_units_and_lose_them(box: Bench) -> None:
    room = box.box / "etc/hearing-room/room.toml"
    room.write_text("rtsp\n")
    own = box.box / "opt/hearing-room/current/share/hearing-room/install.sh"
    assert box.install(by=own)[0] == 0
    units = box.box / "usr/local/lib/systemd/system"
    hosts = box.box / "etc/hearing-room/netcam/far.hosts"
    assert (units / "hearing-room-netcam-far.socket").exists()
    assert hosts.exists()
    room.write_text("no more\n")
    assert box.install(by=own)[0] == 0
    assert not (units / "hearing-room-netcam-far.socket").exists()
    assert not hosts.exists()


def test_uninstalling_leaves_the_room_and_purging_nothing(box: Bench) -> None:
    (box.box / "etc/hearing-room/room.toml").write_text("a room\n")
    record = box.box / "var/lib/hearing-room/agent.db"
    record.parent.mkdir(parents=True)
    record.touch()
    strange = box.box / "etc/udev/rules.d/99-other.rules"
    strange.touch()
    code, said = box.install("--uninstall")
    assert (code, "--purge" in said) == (0, True)
    kept = {"etc/hearing-room/room.toml", "var/lib/hearing-room/agent.db"}
    kept |= {"etc/udev/rules.d/99-other.rules"}
    assert set(box.state()) == kept
    assert box.install("--uninstall")[0] == 0, "once more is in order"
    assert box.install("--uninstall", "--purge")[0] == 0
    assert set(box.state()) == {"etc/udev/rules.d/99-other.rules"}
    # And it can come back.
    assert box.install()[0] == 0
    assert box.version() == "1.0"


@pytest.mark.parametrize(
    "args",
    [
        ["--purge"],
        ["--rollback", "--offline", "x"],
        ["--uninstall", "--config", "x"],
        ["--config"],
        ["--offline", ""],
        ["--config", "no-such-file.toml"],
        ["--dry-run", "folder"],
        ["--python", "3.13"],
        ["--make-offline"],
        ["--make-offline", "x", "--python", "2.7"],
        ["--make-offline", "x", "--arch", "riscv64"],
        ["--make-deb", "x", "--purge"],
    ],
)
def test_wrong_usage_is_told_before_anything_happens(bench: Bench, args: list[str]) -> None:
    code, said = bench.install(*args)
    assert (code, said.count("\n")) == (EX_USAGE, 1), said
    assert bench.state() == {}


def test_without_destdir_it_takes_root(bench: Bench) -> None:
    program(bench.tools, "id", "echo 1000")
    for args in ([], ["--rollback"], ["--uninstall"]):
        code, said = bench.install(*args, DESTDIR="")
        assert code == EX_USAGE
        assert "sudo " in said


def test_a_32_bit_machine_is_refused_by_name(bench: Bench) -> None:
    program(bench.tools, "uname", "echo armv7l")
    code, said = bench.install()
    assert code == EX_UNAVAILABLE
    assert "armv7l" in said
    assert "64" in said
    assert bench.state() == {}


# -- a wheelhouse ---------------------------------------------------------------------------------


@pytest.fixture
def wheelhouse(bench: Bench, tmp_path: Path) -> Path:
    folder = tmp_path / "a wheelhouse"
    code, said = bench.install("--make-offline", folder)
    assert code == 0, said
    return folder


def test_a_wheelhouse_installs_itself_without_checkout_and_apt(
    bench: Bench, wheelhouse: Path
) -> None:
    about = (wheelhouse / "ABOUT").read_text()
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert about == f"hearing-room-agent 1.0\npython {python}\narch {os.uname().machine}\n"
    shutil.rmtree(bench.checkout)
    code, said = bench.install(by=wheelhouse / "install.sh")
    assert code == 0, said
    assert bench.version() == "1.0"
    before = bench.state()
    assert bench.install(by=wheelhouse / "install.sh")[0] == 0
    assert bench.state() == before

    # What is missing from Debian is named, and not fetched.
    (bench.tools / "arecord").unlink()
    code, said = bench.install(by=wheelhouse / "install.sh")
    assert code == EX_UNAVAILABLE
    assert "sudo apt-get install alsa-utils" in said


def test_a_wheelhouse_that_was_damaged_or_is_of_another_kind_is_refused(
    bench: Bench, wheelhouse: Path
) -> None:
    def refused(*words: str) -> None:
        code, said = bench.install("--offline", wheelhouse)
        assert code == EX_UNAVAILABLE
        for word in words:
            assert word in said, said
        assert bench.version() == ""

    about = (wheelhouse / "ABOUT").read_text()
    (wheelhouse / "ABOUT").write_text(re.sub("python .*", "python 3.99", about))
    refused("Python 3.99")
    (wheelhouse / "ABOUT").write_text(re.sub("arch .*", "arch vax", about))
    refused("vax", os.uname().machine)
    (wheelhouse / "ABOUT").write_text(about)
    (wheel,) = wheelhouse.glob("*.whl")
    good = wheel.read_bytes()
    wheel.write_bytes(good + b" ")
    refused("copy it again")
    wheel.rename(wheel.with_suffix(".gone"))
    refused("0 wheels", "--make-offline")
    wheel.with_suffix(".gone").unlink()
    wheel.write_bytes(good)
    assert bench.install("--offline", wheelhouse)[0] == 0


def test_a_wheelhouse_is_not_made_into_somebody_elses_folder(bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "full"
    folder.mkdir()
    (folder / "thesis.txt").touch()
    code, said = bench.install("--make-offline", folder)
    assert code == EX_UNAVAILABLE
    assert "neither empty nor a wheelhouse" in said
    assert [p.name for p in folder.iterdir()] == ["thesis.txt"]


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="no dpkg-deb")
def test_the_debian_package_carries_the_wheelhouse_and_lets_it_work(
    bench: Bench, tmp_path: Path
) -> None:
    code, said = bench.install(
        "--make-deb", tmp_path / "debs", "--python", "3.13", "--arch", "arm64"
    )
    assert code == 0, said
    (deb,) = (tmp_path / "debs").iterdir()
    assert deb.name == "hearing-room-agent_1.0-1_arm64.deb"

    def ask(*words: str) -> str:
        done = subprocess.run(["dpkg-deb", *words], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    depends = ask("--field", str(deb), "Depends")
    for word in ("python3 (>= 3.13)", "python3 (<< 3.14)", "python3-venv", "alsa-utils"):
        assert word in depends
    tree = tmp_path / "tree"
    ask("--raw-extract", str(deb), str(tree))
    offline = tree / "usr/lib/hearing-room/offline"
    assert (offline / "ABOUT").read_text().endswith("python 3.13\narch aarch64\n")
    for script in ("preinst", "postinst", "prerm", "postrm"):
        assert os.access(tree / "DEBIAN" / script, os.X_OK)
    assert "offline/install.sh" in (tree / "DEBIAN/postinst").read_text()
    assert os.access(offline / "install.sh", os.X_OK)


def test_a_package_waits_for_a_room_that_is_not_in_session(tmp_path: Path) -> None:
    """`preinst` asks the version that is there, and dpkg leaves everything as it is."""
    text = (ROOT / "packaging/deb/preinst").read_text()
    command = "/opt/hearing-room/current/bin/hearing-room"
    assert command in text
    script = tmp_path / "preinst"
    script.write_text(text.replace(command, str(tmp_path / "hearing-room")))

    def run(verb: str) -> tuple[int, str]:
        done = subprocess.run(
            ["sh", script, verb], capture_output=True, text=True, timeout=30, env=dict(os.environ)
        )
        return done.returncode, done.stderr

    assert run("install")[0] == 0, "none is there yet"
    program(tmp_path, "hearing-room", '[ "$1" = may-upgrade ] && exit 75')
    code, said = run("upgrade")
    assert code == 1
    assert "try again later" in said
    program(tmp_path, "hearing-room", '[ "$1" = may-upgrade ] && exit 0')
    assert run("upgrade")[0] == 0
    program(tmp_path, "hearing-room", "exit 1")  # one that is broken has to be mended
    assert run("upgrade")[0] == 0
