"""install.sh and the wheel: what a person who has just cloned the project will run.

The runs use a stand-in project beside a copy of install.sh: it builds and installs without a
network, so what is tested is the script, on a real pip and real environments.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = [
    ROOT / "install.sh",
    ROOT / ".ci" / "run",
    *(ROOT / "packaging/deb" / name for name in ("preinst", "postinst", "prerm", "postrm")),
]
EX_USAGE = 64
EX_UNAVAILABLE = 69

PYPROJECT = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "stand-in"
version = "1"
[project.optional-dependencies]
test = []
"""
BACKEND = '''\
"""A build backend that needs nothing: a wheel is a zip file."""
import zipfile

SAY = "import os, sys\\ndef main():\\n    print(os.getcwd(), sys.argv[1:])\\n"
FILES = {
    "stand_in.py": SAY,
    "pytest/__main__.py": SAY + "main()\\nsys.exit(int(os.environ.get('STAND_IN_EXIT', 0)))\\n",
    "pytest/__init__.py": "",
    "stand_in-1.dist-info/METADATA": "Metadata-Version: 2.1\\nName: stand-in\\nVersion: 1\\n"
    "Provides-Extra: test\\n",
    "stand_in-1.dist-info/WHEEL": "Wheel-Version: 1.0\\nGenerator: backend\\n"
    "Root-Is-Purelib: true\\nTag: py3-none-any\\n",
    "stand_in-1.dist-info/entry_points.txt": "[console_scripts]\\n"
    "hearing-room = stand_in:main\\n",
}


def build_wheel(folder, settings=None, metadata=None):
    name = "stand_in-1-py3-none-any.whl"
    record = "stand_in-1.dist-info/RECORD"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        for path, text in FILES.items():
            wheel.writestr(path, text)
        wheel.writestr(record, "".join(f"{path},,\\n" for path in [*FILES, record]))
    return name


build_editable = build_wheel
'''
TOOLS = ("arecord", "mosquitto", "ip")
COMMANDS = "bash cat dirname env flock id mktemp readlink rm sh sha256sum stat tail"


def command(folder: Path, name: str, script: str = "exit 0") -> None:
    """A program of that name: what the machine has or has not is part of the scene."""
    file = folder / name
    file.unlink(missing_ok=True)
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PATH: a plain user's machine where nothing is missing and apt must not run."""
    folder = tmp_path_factory.mktemp("tools")
    for name in COMMANDS.split():
        program = shutil.which(name)
        assert program is not None
        (folder / name).symlink_to(program)
    for name in TOOLS:
        command(folder, name)
    command(folder, "id", "echo 1000")
    command(folder, "apt-get", 'echo "$*" >>"${0%/*}/apt-was-called"; exit 100')
    return folder


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clones") / "phòng xử án 1"
    folder.mkdir()
    shutil.copy(ROOT / "install.sh", folder)
    (folder / "pyproject.toml").write_text(PYPROJECT)
    (folder / "backend.py").write_text(BACKEND)
    return folder


def install(
    checkout: Path, tools: Path, *args: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """install.sh, called from elsewhere by somebody without a terminal or a network."""
    return subprocess.run(
        [str(checkout / "install.sh"), *args],
        cwd="/",
        env={
            "PATH": str(tools),
            "HOME": str(checkout),
            "LANG": "C.UTF-8",
            "PIP_NO_INDEX": "1",
            "PYTHON": sys.executable,
            **(env or {}),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.name)
def test_the_script_is_good_shell(script: Path) -> None:
    assert os.access(script, os.X_OK)
    shell = script.read_text().partition("\n")[0].rpartition("/")[2].removeprefix("env ")
    run = subprocess.run([shell, "-n", script], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stderr) == (0, "")
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not here")
    # -x: with the files that it reads in.
    command = ["shellcheck", "-x", script]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (run.returncode, run.stdout) == (0, "")


def test_help_is_on_stdout_and_names_every_verb(checkout: Path, tools: Path) -> None:
    run = install(checkout, tools, "--help")
    assert (run.returncode, run.stderr) == (0, "")
    words = set(run.stdout.replace("[", " ").replace("]", " ").split())
    verbs = {"--try", "--test", "--rollback", "--uninstall", "--purge", "--make-offline"}
    assert verbs | {"--make-deb", "--config", "--offline", "--dry-run", "PYTHON"} <= words


@pytest.mark.parametrize("args", [["--tset"], ["test"]])
def test_an_unknown_option_is_wrong_usage(checkout: Path, tools: Path, args: list[str]) -> None:
    run = install(checkout, tools, *args)
    assert (run.returncode, run.stdout) == (EX_USAGE, "")
    assert args[0] in run.stderr


def test_a_clone_is_set_up_once_and_again_when_it_must(checkout: Path, tools: Path) -> None:
    def answer(*args: str, folder: Path = checkout, **env: str) -> tuple[int, str, str]:
        run = install(folder, tools, *args, env=env)
        return run.returncode, run.stdout, run.stderr

    here = str(checkout)
    assert answer("--test", "-k", "a b") == (0, f"{here} ['-k', 'a b']\n", "")

    # Everything is there: nothing may be installed again, for the other verb neither.
    (checkout / "backend.py").unlink()
    assert answer("--test") == (0, f"{here} ['-n', '2', '--dist', 'worksteal']\n", "")
    assert answer("--try", "--once") == (0, "/ ['try', '--once']\n", "")
    assert answer("--test", STAND_IN_EXIT="5")[0] == 5, "pytest's exit code is ours"

    # A pyproject.toml that changed is noticed; without its backend it cannot be installed.
    with (checkout / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    code, out, err = answer("--test")
    assert (code, out) == (EX_UNAVAILABLE, "")
    assert "could not install the Python packages" in err
    (checkout / "backend.py").write_text(BACKEND)
    assert answer("--test") == (0, f"{here} ['-n', '2', '--dist', 'worksteal']\n", "")

    # The programs in an environment know where they were made: a copy is not trusted.
    copy = checkout.parent / "copy"
    shutil.copytree(checkout, copy, symlinks=True)
    assert answer("--try", folder=copy) == (0, "/ ['try']\n", "")
    assert here not in (copy / ".venv/bin/pip").read_text()

    assert not (tools / "apt-was-called").exists()


def test_packages_that_may_not_be_installed_are_named(
    checkout: Path, tools: Path, tmp_path: Path
) -> None:
    plain = tmp_path / "plain"
    shutil.copytree(tools, plain, symlinks=True)
    (plain / "arecord").unlink()
    run = install(checkout, plain, "--try")
    assert (run.returncode, run.stdout) == (EX_UNAVAILABLE, "")
    assert "sudo apt-get install alsa-utils" in run.stderr
    assert "mosquitto" not in run.stderr, "only the tests need a broker"

    # Without a terminal sudo is told not to ask.
    command(plain, "sudo", 'printf "%s\n" "$1" >"${0%/*}/sudo-was-called"; exit 1')
    run = install(checkout, plain, "--try")
    assert run.returncode == EX_UNAVAILABLE
    assert "sudo apt-get install alsa-utils" in run.stderr
    assert (plain / "sudo-was-called").read_text() == "-n\n"

    # A machine without apt is told what is missing too.
    (plain / "apt-get").unlink()
    run = install(checkout, plain, "--try")
    assert run.returncode == EX_UNAVAILABLE
    assert "missing: alsa-utils" in run.stderr

    # Once they are there, it goes on.
    command(plain, "arecord")
    assert install(checkout, plain, "--try").returncode == 0


def test_a_python_that_will_not_do_is_refused_by_name(
    checkout: Path, tools: Path, tmp_path: Path
) -> None:
    command(tmp_path, "old-python", "exit 1")
    run = install(checkout, tools, "--try", env={"PYTHON": str(tmp_path / "old-python")})
    assert run.returncode == EX_UNAVAILABLE
    assert "old-python is older than Python 3.11" in run.stderr
    run = install(checkout, tools, "--try", env={"PYTHON": "no-such-python"})
    assert run.returncode == EX_UNAVAILABLE
    assert "no-such-python: no such program" in run.stderr


READ_ALL = """
import agent, agent.profiles, agent.words
from agent.judge import readiness
for language in agent.words.LANGUAGES:
    assert agent.words.load(language) and agent.words.terms(language)
assert agent.profiles.all_devices() and agent.profiles.all_boxes()
assert agent.profiles.all_relay_boards()
assert readiness.names()
for name in readiness.names():
    readiness.load(name)
print(agent.__file__)
"""


def test_the_wheel_carries_its_data(tmp_path: Path) -> None:
    pytest.importorskip("setuptools", minversion="70.1", reason="builds wheels without help")
    source = tmp_path / "source"
    skip = shutil.ignore_patterns("__pycache__")
    for name in ("agent", "firmware_profiles", "systemd", "packaging"):
        shutil.copytree(ROOT / name, source / name, ignore=skip)
    for name in ("pyproject.toml", "README.md", "LICENSE", "install.sh"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    run(*pip, "wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", tmp_path, source)
    (wheel,) = tmp_path.glob("*.whl")

    # An environment of its own; what the package depends on is lent by the one that runs this.
    clean = tmp_path / "clean"
    run(sys.executable, "-m", "venv", "--without-pip", clean)
    run(*pip, "--python", clean / "bin/python", "install", "--no-deps", "--no-index", wheel)
    (site,) = clean.glob("lib/python3*/site-packages")
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    assert run(clean / "bin/python", "-c", READ_ALL).startswith(str(site))
    # Units and installer too, and the programs that the units name.
    carried = clean / "share/hearing-room"
    for file in (ROOT / "systemd").rglob("*"):
        if file.is_file():
            assert (carried / file.relative_to(ROOT)).read_bytes() == file.read_bytes()
    assert os.access(carried / "install.sh", os.X_OK)
    assert (carried / "packaging/box.sh").exists()
    units = "".join(f.read_text() for f in (ROOT / "systemd").rglob("*.service"))
    for name in set(re.findall(r"/opt/hearing-room/current/(bin/\S+)", units)):
        assert os.access(clean / name, os.X_OK), name


def run(*args: str | Path) -> str:
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(args, cwd="/", env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
