"""What a confined process can still do: asked of the kernel, and of the filter by itself."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import re
import socket
import stat
import subprocess
import sys
import textwrap
from errno import EACCES, EFBIG, EPERM
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.lanes import confine

CHECKOUT = Path(__file__).parents[2]
COMMON = """
    import ctypes, errno, json, os, resource, socket, subprocess, sys
    from pathlib import Path
    from agent.lanes.confine import confine

    libc = ctypes.CDLL(None, use_errno=True)
    found = {}

    def attempt(name, act):
        try:
            act()
            found[name] = "done"
        except OSError as error:
            found[name] = error.errno

    def call(number, *arguments):
        ctypes.set_errno(0)
        if libc.syscall(number, *arguments) < 0:
            raise OSError(ctypes.get_errno(), "")
"""


def landlock_abi() -> int:
    libc = ctypes.CDLL(None)
    libc.syscall.restype = ctypes.c_long
    return int(libc.syscall(444, None, 0, 1))


NATIVE = platform.machine() in ("x86_64", "aarch64")
needs_landlock = pytest.mark.skipif(landlock_abi() < 1, reason="no Landlock in this kernel")
needs_landlock_net = pytest.mark.skipif(landlock_abi() < 4, reason="Landlock without network")
needs_filter = pytest.mark.skipif(not NATIVE, reason="no filter for this machine")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes device nodes")


def probe(code: str, *arguments: object) -> dict[str, Any]:
    """Runs a probe as a real child; its standard output is a pipe, which may grow."""
    program = textwrap.dedent(COMMON) + textwrap.dedent(code) + "\nprint(json.dumps(found))"
    child = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
    )
    assert child.returncode == 0, child.stderr
    answer: dict[str, Any] = json.loads(child.stdout)
    return answer


def test_every_layer_named_is_known_and_fits_the_hello() -> None:
    layers = probe("found['layers'] = confine()")["layers"]
    assert layers == [name for name in confine.LAYERS if name in layers]
    assert {"no_new_privs", "no_core", "no_file_growth"} <= set(layers)
    assert ("seccomp" in layers) == NATIVE
    assert ("landlock" in layers) == (landlock_abi() >= 1)
    assert ("landlock_net" in layers) == (landlock_abi() >= 4)
    assert all(len(name) <= 64 and name.isascii() for name in layers)


def test_no_core_is_left_and_no_rights_are_gained() -> None:
    found = probe(
        """
        confine()
        found["core"] = resource.getrlimit(resource.RLIMIT_CORE)
        found["status"] = Path("/proc/self/status").read_text()
        found["dumpable"] = libc.prctl(3, 0, 0, 0, 0)
        """
    )
    assert found["core"] == [0, 0]
    assert found["dumpable"] == 0
    assert re.search(r"^NoNewPrivs:\t1$", found["status"], re.M)


def test_a_file_that_was_open_before_cannot_grow(tmp_path: Path) -> None:
    found = probe(
        """
        kept = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
        os.write(kept, b"before")
        confine()
        attempt("write", lambda: os.write(kept, b"x"))
        memory = os.memfd_create("picture")
        attempt("memory", lambda: os.write(memory, b"x"))
        """,
        tmp_path / "kept",
    )
    assert found == {"write": EFBIG, "memory": EFBIG}
    assert (tmp_path / "kept").read_bytes() == b"before"


@needs_landlock
def test_no_file_is_written_made_or_removed_and_reading_stays_free(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old")
    code = """
        here = Path(sys.argv[1])
        if sys.argv[2] == "confined":
            confine()
        attempt("read", (here / "old").read_text)
        attempt("list", lambda: list(here.iterdir()))
        attempt("append", lambda: (here / "old").open("a"))
        attempt("make", lambda: (here / "new").open("x"))
        attempt("folder", (here / "folder").mkdir)
        attempt("link", lambda: (here / "link").symlink_to("old"))
        attempt("hard_link", lambda: (here / "hard").hardlink_to(here / "old"))
        attempt("fifo", lambda: os.mkfifo(here / "fifo"))
        attempt("bind", lambda: socket.socket(socket.AF_UNIX).bind(str(here / "sock")))
        attempt("rename", lambda: (here / "old").rename(here / "renamed"))
        attempt("null", lambda: Path("/dev/null").write_text("gone"))
        attempt("other_device", lambda: Path("/dev/zero").open("w"))
        attempt("child", lambda: subprocess.run(["true"], stdin=subprocess.DEVNULL, check=True))
        attempt("remove", lambda: (here / "old").unlink(missing_ok=True))
        """
    refused = probe(code, tmp_path, "confined")
    free = {"read", "list", "null", "child"}
    assert {name: refused.pop(name) for name in free} == dict.fromkeys(free, "done")
    assert set(refused.values()) <= {EACCES, 18}, refused  # EXDEV: a link across the rule
    assert [p.name for p in tmp_path.iterdir()] == ["old"]
    assert set(probe(code, tmp_path, "free").values()) == {"done"}


@needs_landlock
@pytest.mark.skipif(landlock_abi() < 3, reason="Landlock without truncate")
def test_a_file_is_not_emptied(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old")
    found = probe(
        "confine(); attempt('truncate', lambda: os.truncate(sys.argv[1], 0))", tmp_path / "old"
    )
    assert found == {"truncate": EACCES}


@needs_landlock
@needs_root
def test_only_the_devices_on_the_list_that_are_there_now_may_be_written_to(tmp_path: Path) -> None:
    dev = tmp_path / "dev"
    (dev / "snd").mkdir(parents=True)
    null = stat.S_IFCHR | 0o666, os.makedev(1, 3)
    for name in ("video0", "i2c-1", "sda", "snd/controlC0"):
        os.mknod(dev / name, *null)
    (dev / "video-front").symlink_to("video0")
    (dev / "video7").write_text("a file, not a camera")
    assert {Path(p).name for p in confine.nodes(dev)} == {"video0", "i2c-1", "video-front", "snd"}
    before = confine.nodes(dev)
    found = probe(
        """
        dev = Path(sys.argv[1])
        confine(dev=dev)
        for name in ("video0", "video-front", "i2c-1", "snd/controlC0", "sda", "video7"):
            attempt(name, lambda: (dev / name).open("r+b", buffering=0))
        """,
        dev,
    )
    assert found.pop("sda") == EACCES
    assert found.pop("video7") == EACCES
    assert set(found.values()) == {"done"}
    (dev / "video0").rename(dev / "old")  # so that its inode is not used again
    os.mknod(dev / "video0", *null)
    assert confine.nodes(dev) != before  # plugged in again: another file under the same name


@needs_filter
def test_no_socket_leaves_the_machine_and_unix_ones_still_work() -> None:
    found = probe(
        """
        confine()
        families = {"ipv4": 2, "ipv6": 10, "netlink": 16, "packet": 17, "vsock": 40}
        for name, family in families.items():
            attempt(name, lambda: socket.socket(family, socket.SOCK_DGRAM))
        attempt("pair", lambda: socket.socketpair(socket.AF_INET))
        attempt("unix", lambda: socket.socketpair())
        """
    )
    assert found.pop("unix") == "done"
    assert set(found.values()) == {EPERM}


@pytest.mark.skipif(landlock_abi() < 6, reason="Landlock without scopes")
def test_neither_a_signal_nor_an_abstract_socket_reaches_beyond_the_worker() -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0lane-test-{os.getpid()}")
        server.listen()
        found = probe(
            """
            name, parent = chr(0) + sys.argv[1], os.getppid()
            attempt("signal_before", lambda: os.kill(parent, 0))
            confine()
            attempt("signal", lambda: os.kill(parent, 0))
            attempt("own_signal", lambda: os.kill(os.getpid(), 0))
            attempt("abstract", lambda: socket.socket(socket.AF_UNIX).connect(name))
            """,
            f"lane-test-{os.getpid()}",
        )
    assert found == {
        "signal_before": "done",
        "signal": EPERM,
        "own_signal": "done",
        "abstract": EPERM,
    }


@needs_filter
def test_calls_that_go_around_the_filter_or_into_other_processes_are_refused() -> None:
    column = ("x86_64", "aarch64").index(platform.machine())
    numbers = {name: n[column] for name, n in confine._REFUSED.items() if n[column] is not None}
    del numbers["reboot"]  # not even as a trial
    found = probe(
        """
        confine()
        for name, number in json.loads(sys.argv[1]).items():
            attempt(name, lambda: call(number, 0, 0, 0, 0, 0, 0))
        """,
        json.dumps(numbers),
    )
    assert found == dict.fromkeys(numbers, EPERM)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="x32 is a part of x86-64")
def test_an_x32_number_is_refused() -> None:
    found = probe("confine(); attempt('x32', lambda: call(0x40000000 + 41, 2, 1, 0))")
    assert found == {"x32": EPERM}


@needs_filter
@needs_landlock_net
def test_a_network_camera_is_reached_at_its_port_and_nowhere_else() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as camera,
        socket.create_server(("127.0.0.1", 0)) as other,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as names,
    ):
        names.bind(("127.0.0.1", 0))
        ports = [s.getsockname()[1] for s in (camera, other, names)]
        found = probe(
            """
            camera, other, names = map(int, sys.argv[1:])
            if other:
                found["layers"] = confine([camera])
            tcp = lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            udp = lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            home = "127.0.0.1"
            attempt("camera", lambda: tcp().connect((home, camera)))
            attempt("other", lambda: tcp().connect((home, other)))
            attempt("listen", lambda: tcp().bind((home, 0)))
            attempt("fast_open", lambda: tcp().sendto(b"x", 0x20000000, (home, other)))
            attempt("fast_open_message",
                    lambda: tcp().sendmsg([b"x"], [], 0x20000000, (home, other)))
            attempt("multipath", lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262))
            attempt("raw", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
            attempt("netlink", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW))
            attempt("name_server", lambda: udp().sendto(b"?", (home, names)))
            attempt("name", lambda: socket.getaddrinfo("localhost", camera))
            """,
            *ports,
        )
        assert names.recv(1) == b"?"
    assert "landlock_net" in found.pop("layers")
    assert {n: found.pop(n) for n in ("camera", "name_server", "name")} == {
        "camera": "done",
        "name_server": "done",
        "name": "done",
    }
    assert found.pop("other") == EACCES
    assert found.pop("listen") == EACCES
    assert set(found.values()) == {EPERM}


def test_the_libraries_of_the_kinds_load_after_confinement() -> None:
    found = probe(
        """
        confine()
        import numpy
        found["sum"] = int(numpy.ones(3).sum())
        """
    )
    assert found == {"sum": 3}


# The filter itself, run by an interpreter for both machines.

ALLOW, REFUSE, KILL = "allow", "EPERM", "kill"
MACHINES = ("x86_64", "aarch64")
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def verdict(
    steps: list[confine.Instruction], architecture: int, number: int, arguments: list[int]
) -> str:
    """What the kernel would do, by the rules of classic BPF."""
    words = {0: number, 4: architecture}
    for index, value in enumerate(arguments):
        words[16 + 8 * index] = value & 0xFFFFFFFF
        words[20 + 8 * index] = value >> 32
    accumulator = position = 0
    while True:
        code, if_true, if_false, constant = steps[position]
        assert 0 <= if_true <= 255
        assert 0 <= if_false <= 255
        position += 1
        if code == 0x20:
            accumulator = words[constant]
        elif code == 0x54:
            accumulator &= constant
        elif code == 0x06:
            return {0x7FFF0000: ALLOW, 0x50000 | EPERM: REFUSE, 0x80000000: KILL}[constant]
        else:
            holds = {
                0x15: accumulator == constant,
                0x35: accumulator >= constant,
                0x45: accumulator & constant != 0,
            }
            position += if_true if holds[code] else if_false


def expected(machine: str, network: bool, number: int, arguments: list[int]) -> str:
    """The same in plain words."""
    column = MACHINES.index(machine)
    if machine == "x86_64" and number >= 0x40000000:
        return REFUSE
    if number in [n[column] for n in confine._REFUSED.values()]:
        return REFUSE
    sockets = {name: n[column] for name, n in confine._SOCKET_CALLS.items()}
    domain, kind, protocol = (a & 0xFFFFFFFF for a in arguments[:3])
    if number in sockets.values() and domain != socket.AF_UNIX:
        is_ip = domain in (socket.AF_INET, socket.AF_INET6)
        plain = kind & 0xF in (1, 2) and protocol in (0, 6, 17)
        if not (network and number == sockets["socket"] and is_ip and plain):
            return REFUSE
    for *numbers, flags in confine._SEND_CALLS.values():
        if network and number == numbers[column] and arguments[flags] & 0x20000000:
            return REFUSE
    return ALLOW


interesting = sorted(
    {
        n
        for table in (confine._REFUSED, confine._SOCKET_CALLS, confine._SEND_CALLS)
        for numbers in table.values()
        for n in numbers[:2]
        if n is not None
    }
)
arguments = st.lists(
    st.sampled_from([0, 1, 2, 3, 6, 10, 16, 17, 262, 0x80001, 0x80802, 0x20000000, 1 << 33])
    | st.integers(0, 2**64 - 1),
    min_size=6,
    max_size=6,
)


@given(
    st.sampled_from(MACHINES),
    st.booleans(),
    st.sampled_from(interesting) | st.integers(0, 500) | st.integers(0, 2**32 - 1),
    arguments,
)
def test_the_filter_does_on_both_machines_what_it_says(
    machine: str, network: bool, number: int, arguments: list[int]
) -> None:
    steps = confine.program(machine, network)
    assert len(steps) <= 4096
    assert verdict(steps, ARCHITECTURES[machine], number, arguments) == expected(
        machine, network, number, arguments
    )


@given(st.sampled_from(MACHINES), st.integers(0, 2**32 - 1), st.integers(0, 500), arguments)
def test_a_call_of_another_architecture_ends_the_process(
    machine: str, architecture: int, number: int, arguments: list[int]
) -> None:
    if architecture != ARCHITECTURES[machine]:
        assert verdict(confine.program(machine, True), architecture, number, arguments) == KILL


@pytest.mark.parametrize(
    ("column", "header"),
    [
        (0, "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
        (1, "/usr/include/asm-generic/unistd.h"),
    ],
)
def test_the_call_numbers_are_those_of_the_kernel_headers(column: int, header: str) -> None:
    if not Path(header).exists():
        pytest.skip(f"no {header}")
    listed = dict(re.findall(r"#define __NR_(\w+)\s+(\d+)", Path(header).read_text()))
    for table in (confine._REFUSED, confine._SOCKET_CALLS, confine._SEND_CALLS):
        for name, numbers in table.items():
            if (number := numbers[column]) is None:
                assert name not in listed
            else:
                assert listed[name] == str(number), name
