"""A worker ties its own hands before it opens a device, with what needs no privilege.

Every layer stands alone: one that the kernel does not have is missing from the answer, and the
others hold. Sources: prctl(2), setrlimit(2), landlock(7), seccomp(2), the kernel's
`uapi/linux/landlock.h` and the system call tables of x86-64 and asm-generic (aarch64).
"""

from __future__ import annotations

import ctypes
import os
import resource
import socket
import stat
import struct
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from errno import EPERM
from pathlib import Path

LAYERS = ("no_new_privs", "no_core", "no_file_growth", "landlock", "landlock_net", "seccomp")
"""Every layer there is, in the order in which they are taken on."""

DEVICES = ("video*", "media*", "v4l-subdev*", "snd", "null", "cec*", "i2c-*")
"""What may be written to, below /dev. `snd` is a folder and covers what appears in it later."""

_PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 4, 22, 38

# Landlock: bit -> ABI that brought it. Reading and executing are not handled, so they stay free.
_WRITE_FILE, _IOCTL_DEV = 1 << 1, 1 << 15
_FS_RIGHTS = {_WRITE_FILE: 1} | {1 << bit: 1 for bit in range(4, 13)}  # remove_*, make_*
_FS_RIGHTS |= {1 << 13: 2, 1 << 14: 3, _IOCTL_DEV: 5}  # refer, truncate, ioctl_dev
_BIND_TCP, _CONNECT_TCP, _NET_ABI = 1, 2, 4
_SCOPES, _SCOPE_ABI = 3, 6  # no abstract socket and no signal beyond this process and its children
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_RULE_PATH, _RULE_PORT = 1, 2

_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32 = 0x40000000  # x32 calls are these numbers with this bit, under the same architecture
_REFUSED = {  # call -> number on (x86_64, aarch64), None where there is none
    # another way to every other call, and so past the filter
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    # into another process
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    # into the kernel
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "iopl": (172, None),
    "ioperm": (173, None),
    # another view of the files, or of the machine
    "open_by_handle_at": (304, 265),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
}
_SOCKET_CALLS = {"socket": (41, 198), "socketpair": (53, 199)}
_SEND_CALLS = {"sendto": (44, 206, 3), "sendmsg": (46, 211, 2), "sendmmsg": (307, 269, 3)}
"""Their last figure: which argument holds the flags."""

_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06  # classic BPF: ld [k], and #k, ret #k
_IF_EQUAL, _IF_AT_LEAST, _IF_ANY_BIT = 0x15, 0x35, 0x45
_ALLOW, _ANSWER_EPERM, _KILL = 0x7FFF0000, 0x00050000 | EPERM, 0x80000000
_NUMBER, _ARCHITECTURE = 0, 4  # offsets in struct seccomp_data
_MSG_FASTOPEN = 0x20000000

Instruction = tuple[int, int, int, int]
"""One step of a filter: code, jump if true, jump if false, constant."""


def confine(network: Sequence[int] | None = None, dev: Path = Path("/dev")) -> tuple[str, ...]:
    """Ties this process, and all it will start, for good. Returns the layers now in force.

    `network` lists the TCP ports that may be connected to (a network camera's worker); None is
    no network at all. Landlock cannot restrict UDP, so names still resolve. Devices that may be
    written to are those that `dev` holds now (see `nodes`). Call it before the first thread:
    Landlock and the filter bind the calling thread. Raises nothing.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    return _take(
        lambda: _no_new_privs(libc),
        lambda: _no_core(libc),
        _no_file_growth,
        lambda: _landlock(libc, network or (), dev),
        lambda: _seccomp(libc, network is not None),
    )


def confine_hands() -> tuple[str, ...]:
    """The same for the process that holds relays and lights: no network and no way to more rights,
    but it writes one small state file. Returns the layers now in force. Raises nothing."""
    libc = ctypes.CDLL(None, use_errno=True)
    return _take(lambda: _no_new_privs(libc), lambda: _no_core(libc), lambda: _seccomp(libc, False))


def _take(*steps: Callable[[], Sequence[str]]) -> tuple[str, ...]:
    layers: list[str] = []
    for step in steps:
        with suppress(OSError, ValueError):
            layers += step()
    return tuple(layers)


def nodes(dev: Path = Path("/dev")) -> dict[str, tuple[int, int]]:
    """What a worker confined now may write to: path -> device and inode of the file itself.

    Landlock ties a rule to the file, not to its name: a camera that was plugged in again is a
    new file, and only a worker that is confined afterwards may open it.
    """
    found: dict[str, tuple[int, int]] = {}
    for pattern in DEVICES:
        for path in dev.glob(pattern):
            with suppress(OSError):
                info = path.stat()
                if stat.S_ISCHR(info.st_mode) or (path.name == "snd" and path.is_dir()):
                    found[str(path)] = (info.st_dev, info.st_ino)
    return found


def _call(libc: ctypes.CDLL, number: int, *arguments: int | bytes) -> int:
    """A system call by its number; every argument is passed as a register wide."""
    wide = [a if isinstance(a, bytes) else ctypes.c_long(a) for a in arguments]
    answer: int = libc.syscall(ctypes.c_long(number), *wide)
    if answer < 0:
        raise OSError(ctypes.get_errno(), f"system call {number}")
    return answer


def _prctl(libc: ctypes.CDLL, option: int, *arguments: int) -> None:
    values = [*arguments, *(0 for _ in range(4 - len(arguments)))]
    if libc.prctl(option, *(ctypes.c_ulong(v) for v in values)) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}")


def _no_new_privs(libc: ctypes.CDLL) -> Sequence[str]:
    _prctl(libc, _PR_SET_NO_NEW_PRIVS, 1)
    return ("no_new_privs",)


def _no_core(libc: ctypes.CDLL) -> Sequence[str]:
    """A core would hold the picture. Not dumpable also keeps others out of /proc/PID/mem."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _prctl(libc, _PR_SET_DUMPABLE, 0)
    return ("no_core",)


def _no_file_growth() -> Sequence[str]:
    """A write that would make a file longer fails with EFBIG (Python ignores SIGXFSZ)."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    return ("no_file_growth",)


def _landlock(libc: ctypes.CDLL, ports: Sequence[int], dev: Path) -> Sequence[str]:
    abi = _call(libc, _CREATE_RULESET, 0, 0, 1)  # flag 1 asks for the version
    rights = sum(right for right, since in _FS_RIGHTS.items() if since <= abi)
    network = _BIND_TCP | _CONNECT_TCP if abi >= _NET_ABI else 0
    attributes = struct.pack("=QQQ", rights, network, _SCOPES if abi >= _SCOPE_ABI else 0)
    ruleset = _call(libc, _CREATE_RULESET, attributes, len(attributes), 0)
    try:
        for path in nodes(dev):
            with suppress(OSError):  # unplugged since
                _allow_device(libc, ruleset, path, rights & (_WRITE_FILE | _IOCTL_DEV))
        for port in ports if network else ():
            rule = struct.pack("=QQ", _CONNECT_TCP, port)
            _call(libc, _ADD_RULE, ruleset, _RULE_PORT, rule, 0)
        _call(libc, _RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return ("landlock", "landlock_net") if network else ("landlock",)


def _allow_device(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    node = os.open(path, os.O_PATH | os.O_CLOEXEC)  # opens the name, not the device
    try:
        _call(libc, _ADD_RULE, ruleset, _RULE_PATH, struct.pack("=Qi", rights, node), 0)
    finally:
        os.close(node)


def _seccomp(libc: ctypes.CDLL, network: bool) -> Sequence[str]:
    machine = os.uname().machine
    if machine not in _ARCH or sys.maxsize < 2**32:  # a 32-bit program on a 64-bit kernel
        return ()
    steps = b"".join(struct.pack("=HBBI", *step) for step in program(machine, network))
    code = ctypes.create_string_buffer(steps, len(steps))
    header = struct.pack("@HP", len(steps) // 8, ctypes.addressof(code))
    handle = ctypes.create_string_buffer(header, len(header))
    _prctl(libc, _PR_SET_SECCOMP, 2, ctypes.addressof(handle))
    return ("seccomp",)


def program(machine: str, network: bool) -> list[Instruction]:
    """The seccomp filter for `x86_64` or `aarch64`, as classic BPF.

    Another architecture's calls end the process. With `network`, TCP and UDP sockets are
    allowed, but not TCP Fast Open: it connects without asking Landlock.
    """
    column = list(_ARCH).index(machine)
    steps: list[Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_IF_EQUAL, 1, 0, _ARCH[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
    ]
    refuse: Instruction = (_RETURN, 0, 0, _ANSWER_EPERM)
    if machine == "x86_64":
        steps += [(_IF_AT_LEAST, 0, 1, _X32), refuse]
    for numbers in _REFUSED.values():
        if (number := numbers[column]) is not None:
            steps += [(_IF_EQUAL, 0, 1, number), refuse]
    for call, numbers in _SOCKET_CALLS.items():
        steps += _only_if(numbers[column], _domains(network and call == "socket"))
    for *calls, flags in _SEND_CALLS.values() if network else ():
        fast_open: list[Instruction] = [
            (_LOAD, 0, 0, _argument(flags)),
            (_IF_ANY_BIT, 0, 1, _MSG_FASTOPEN),
            refuse,
            (_RETURN, 0, 0, _ALLOW),
        ]
        steps += _only_if(calls[column], fast_open)
    return [*steps, (_RETURN, 0, 0, _ALLOW)]


def _argument(index: int) -> int:
    """Offset of the low half of a call's argument: both machines are little-endian."""
    return 16 + 8 * index


def _only_if(number: int, steps: list[Instruction]) -> list[Instruction]:
    """Runs `steps` (which return) for one call, and goes on behind them for the others."""
    return [(_IF_EQUAL, 0, len(steps), number), *steps]


def _domains(network: bool) -> list[Instruction]:
    """Which sockets there may be: Unix; with `network` also TCP and UDP over IPv4 and IPv6."""
    allow: Instruction = (_RETURN, 0, 0, _ALLOW)
    refuse: Instruction = (_RETURN, 0, 0, _ANSWER_EPERM)
    steps: list[Instruction] = [(_LOAD, 0, 0, _argument(0))]
    steps += [(_IF_EQUAL, 0, 1, socket.AF_UNIX), allow]
    if not network:
        return [*steps, refuse]
    return [
        *steps,
        (_IF_EQUAL, 2, 0, socket.AF_INET),
        (_IF_EQUAL, 1, 0, socket.AF_INET6),
        refuse,
        (_LOAD, 0, 0, _argument(1)),
        (_AND, 0, 0, 0xF),  # the type, without SOCK_NONBLOCK and SOCK_CLOEXEC
        (_IF_EQUAL, 2, 0, socket.SOCK_STREAM),
        (_IF_EQUAL, 1, 0, socket.SOCK_DGRAM),
        refuse,
        (_LOAD, 0, 0, _argument(2)),
        (_IF_EQUAL, 3, 0, 0),
        (_IF_EQUAL, 2, 0, socket.IPPROTO_TCP),
        (_IF_EQUAL, 1, 0, socket.IPPROTO_UDP),
        refuse,  # MPTCP and SCTP connect past Landlock
        allow,
    ]
