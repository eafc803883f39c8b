"""A box on which the project is installed by its own install.sh, and what can be asked of it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench_box import places, recipe
from bench_box.box import Box
from bench_box.sockets import Done
from e2e_stage import ROOM, SITE
from room_stage import Hearsay

PATIENCE_S = 600.0
"""For what has no promise of its own: the box is emulated, and the machine may be busy."""
INSTALL_S = 1_800.0
"""Some five minutes under emulation, most of it unpacking and compiling other people's Python."""
AGENT, HANDS = "hearing-room-agent", "hearing-room-hands"
CAM, MIC, LAMP, PIN = "cam-front", "mic-counsel", "lamp", 26
ROOM_TOML = f"""[room]
site = "{SITE}"
id = "{ROOM}"
language = "en"

[broker]
host = "broker"
tls = false
username = "{ROOM}"
password_file = "secrets/mqtt"

[network.network]
gateway = false

[camera.{CAM}]
source = "usb:046d:082d"
period_s = 30
deadline_s = 30
look_s = 1
low_fps_below = 0.5

[microphone.{MIC}]
source = "usb:0d8c:0014"
period_s = 30
deadline_s = 30

[display.screen]
connector = "Virtual-1"

[relay.{LAMP}]
pin = {PIN}
period_s = 5

[indicator.status]
red = 17
green = 27
period_s = 5

[button.button]
pin = 4
"""
SET_CLOCK = """
import ctypes, struct
timex = bytearray(struct.pack("=IxxxxqqqqI", 0x1C, 0, 0, 0, 0, 0x2001)) + bytearray(512)
buffer = (ctypes.c_char * len(timex)).from_buffer(timex)
assert 0 <= ctypes.CDLL(None).adjtimex(buffer) < 5
"""
"""What an NTP client tells the kernel: the clock is right (adjtimex(2))."""
ASK_HANDS = """
import json, socket, sys
from agent.lanes import wire
sock = socket.socket(socket.AF_UNIX)
sock.settimeout(20)
sock.connect("/run/hearing-room-hands/hands.sock")
lines = sock.makefile("rb")
lines.readline()
kind, ask, args = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
sock.sendall(wire.encode_question(wire.Question(1, kind, ask, 5.0, args)))
print(lines.readline().decode())
"""
PROBE = "/usr/local/lib/bench/probe.py"


def wheelhouse(name: str, version: str, change: Callable[[Path], None] | None = None) -> Path:
    """The checkout as a wheelhouse for the box, under another version where that is wanted, and
    with something changed in its sources."""
    folder = places.cache() / "wheelhouses"
    made, source = folder / name, folder / f"{name}-source"
    shutil.rmtree(source, ignore_errors=True)
    skip = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for part in ("agent", "firmware_profiles", "systemd", "packaging"):
        shutil.copytree(places.CHECKOUT / part, source / part, ignore=skip)
    for part in ("install.sh", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(places.CHECKOUT / part, source)
    for file, key in (("pyproject.toml", "version"), ("agent/__init__.py", "__version__")):
        path = source / file
        text = re.sub(f'^{key} = ".*"$', f'{key} = "{version}"', path.read_text(), flags=re.M)
        path.write_text(text)
    if change is not None:
        change(source)
    command = [source / "install.sh", "--make-offline", made, "--python", recipe.PYTHON]
    done = subprocess.run(
        [*command, "--arch", "x86_64"],
        env={**os.environ, "PYTHON": str(places.CHECKOUT / ".venv/bin/python")},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return made


class Installed:
    """The box, as the person in front of it and the centre see it."""

    def __init__(self, box: Box, hearsay: Hearsay) -> None:
        self.box = box
        self.hearsay = hearsay
        self.took_s = 0.0

    # -- install.sh ----------------------------------------------------------------------------

    def bring(self, wheels: Path) -> str:
        """Carries a wheelhouse to the box, as on a stick: it is not on its disk."""
        share = self.box.machine.folder / "share" / wheels.name
        shutil.rmtree(share, ignore_errors=True)
        shutil.copytree(wheels, share, copy_function=os.link)
        return f"/mnt/host/{wheels.name}"

    def install(self, *words: str, script: str = "/usr/local/sbin/hearing-room-install") -> Done:
        """Runs an installer as root, without a terminal."""
        line = shlex.join([script, *words])
        return self.box.run(line, check=False, timeout_s=INSTALL_S)

    def version(self, link: str = "current") -> str:
        return self.box.run(f"readlink /opt/hearing-room/{link}", check=False).out.strip()

    def files(self) -> str:
        """Inode, time and hash of everything that install.sh put anywhere."""
        what = "/opt/hearing-room /etc /usr/local/lib/systemd /usr/local/bin /usr/local/sbin"
        return self.box.run(
            f"find {what} -xdev ! -name '*.pyc' ! -type d -printf '%p %i %T@ %l\\n' | sort;"
            f" find {what} -xdev -type f ! -name '*.pyc' -print0 | sort -z |"
            " xargs -0 sha256sum | sha256sum",
            timeout_s=600,
        ).out

    # -- the room ------------------------------------------------------------------------------

    def hearing_room(self, *words: str) -> Done:
        return self.box.run(shlex.join(["/usr/local/bin/hearing-room", *words]), check=False)

    def status(self) -> dict[str, Any]:
        done = self.box.run("cat /run/hearing-room/status.json", check=False)
        return dict(json.loads(done.out)) if done.code == 0 and done.out else {}

    def readiness(self) -> dict[str, Any]:
        return dict(self.status().get("readiness") or {})

    def plug_everything_in(self) -> None:
        """A camera, a microphone, and a clock that is right."""
        there = self.box.hands("usb", "list")
        for kind, name in (("webcam", CAM), ("microphone", MIC)):
            if name not in there:
                self.box.usb_plug(kind, name)
        self.box.write("/root/set_clock.py", SET_CLOCK)
        self.box.run("python3 /root/set_clock.py")

    def pid(self, unit: str) -> int:
        return int(self.box.run(f"systemctl show -p MainPID --value {unit}").out)

    def stored(self, unit: str) -> int:
        """Bytes that its process has sent to the disk (proc_pid_io(5))."""
        text = self.box.read(f"/proc/{self.pid(unit)}/io")
        return int(text.partition("\nwrite_bytes:")[2].split()[0])

    def workers(self) -> dict[str, int]:
        """The processes of senses, by unit."""
        out = self.box.run("systemctl list-units --plain --no-legend 'hearing-room-senses@*'").out
        names = [line.split()[0] for line in out.splitlines() if line.split()]
        return {name: self.pid(name) for name in names}

    def worker_of(self, node: str) -> int:
        """The worker that has a device open (a pattern of the shell); waits for one."""
        line = f"for n in $(seq 900); do fuser {node} 2>/dev/null && exit; sleep 0.05; done; exit 1"
        return int(self.box.run(line, timeout_s=300).out.split()[0])

    def wait_for(self, what: Callable[[], Any], within_s: float, why: str) -> float:
        """Seconds until it is true."""
        began = time.monotonic()
        while not what():
            waited = time.monotonic() - began
            assert waited < within_s, f"not within {within_s:.0f} s: {why}\n{self.log()}"
            time.sleep(0.5)  # every question costs the box some of what is measured
        return time.monotonic() - began

    def log(self) -> str:
        return self.box.run(
            "journalctl -b --no-pager -n 60 -u 'hearing-room*' 2>/dev/null", check=False
        ).out

    def lamp(self) -> bool:
        """The level that the relay's line really has."""
        return self.box.gpio.read(PIN)

    def switch(self, on: bool) -> None:
        word = str(on).lower()
        done = self.hearing_room("command", "relay.set", f"relay={LAMP}", f"on={word}")
        assert done.code == 0, done.err + done.out
        assert self.lamp() is on

    def pattern(self) -> str:
        """What the status light shows."""
        self.box.write("/root/ask_hands.py", ASK_HANDS)
        python = "/opt/hearing-room/current/bin/python"
        args = json.dumps({"light": "status"})
        line = shlex.join([python, "/root/ask_hands.py", "indicator", "read", args])
        done = self.box.run(line, check=False)
        return str(json.loads(done.out)["values"].get("pattern")) if done.code == 0 else ""

    # -- from inside a unit ----------------------------------------------------------------------

    def inside(self, unit: str, probe: str, timeout_s: float = 300.0) -> dict[str, Any]:
        """What a program finds out inside a unit: the very unit, with this program in it."""
        text = self.box.read(f"/usr/local/lib/systemd/system/{unit}")
        name = f"probe-{unit.replace('@', '')}"
        kept = [
            line
            for line in text.splitlines()
            if not re.match(
                r"(Type|NotifyAccess|ExecStart|ExecStopPost|Restart.*|WatchdogSec|Standard.*|"
                r"Requires|Wants|After|WantedBy|RuntimeMaxSec|SyslogLevel|LogLevelMax|"
                r"CollectMode)=",  # how it ended is asked afterwards
                line,
            )
        ]
        new = "\n".join(kept).replace("RuntimeDirectory=hearing-room", f"RuntimeDirectory={name}")
        run = f"Type=oneshot\nExecStart=/opt/hearing-room/current/bin/python -I {PROBE}\n"
        self.box.write(PROBE, probe)
        self.box.write(f"/run/systemd/system/{name}", new.replace("[Service]", f"[Service]\n{run}"))
        self.box.run("systemctl daemon-reload")
        self.box.run(f"systemctl start {name}", check=False, timeout_s=timeout_s)
        show = f"systemctl show -p Result,ExecMainStatus {name}"
        said = self.box.run(f"{show}; journalctl -b --no-pager -o cat _SYSTEMD_UNIT={name}").out
        self.box.run(f"rm /run/systemd/system/{name}; systemctl daemon-reload")
        self.box.run(f"systemctl reset-failed {name}", check=False)
        answers = [line for line in said.splitlines() if line.startswith("{")]
        found: dict[str, Any] = json.loads(answers[-1]) if answers else {}
        return {**found, "unit": said}
