"""Sound in and out through `arecord` and `aplay`, as children of the worker.

A child can be killed when a driver hangs, a library call in our own process cannot. It lives
inside the worker's confinement, speaks raw samples through a pipe, never has a file, and dies
with the worker (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

MAX_TEXT = 16_384
"""Bytes of a child's standard error that are kept; the rest is read and dropped."""
_GONE_S = 1.0  # a killed child that is not gone by then hangs in the kernel
_LAST_WORDS_MS = 200
_MIXER_S = 1.0
_PR_SET_PDEATHSIG = 1
_IN_OPEN = 0x20  # inotify(7): a file was opened
_LIBC = ctypes.CDLL(None, use_errno=True)


def spawn(argv: Sequence[str], *, feed: bool = False) -> subprocess.Popen[bytes]:
    """A child with pipes for its output, and for its input with `feed`.

    Its messages are in English whatever the box speaks, for they are read by a program.
    Raises `OSError` when there is no such program.
    """
    parent = os.getpid()

    def die_with_the_worker() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    with Path(os.devnull).open("rb") as nothing:
        return subprocess.Popen(
            argv,
            stdin=subprocess.PIPE if feed else nothing,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
            preexec_fn=die_with_the_worker,  # safe: the worker has one thread
            bufsize=0,
        )


def end(child: subprocess.Popen[bytes]) -> bool:
    """Kill a child and say whether it is gone. Never waits longer than a second: a child in an
    uninterruptible sleep would keep us as well. There is nothing for it to tidy up, the kernel
    closes the stream."""
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe is not None:
            pipe.close()
    if child.poll() is None:
        child.kill()
        try:
            child.wait(_GONE_S)
        except subprocess.TimeoutExpired:
            return False
    return True


class Opens:
    """Counts how often a file is opened by anybody, through inotify: the kernel's own word that
    another program comes for a device. Without inotify (or the file) it counts none."""

    def __init__(self, path: Path) -> None:
        self.fd: int = _LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd >= 0:
            _LIBC.inotify_add_watch(self.fd, os.fsencode(path), _IN_OPEN)

    def seen(self) -> bool:
        """Whether it was opened since the last call."""
        if self.fd < 0:
            return False
        try:
            return bool(os.read(self.fd, 4096))
        except BlockingIOError:
            return False

    def close(self) -> None:
        """Stop counting."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


@dataclass(slots=True)
class Heard:
    """How a recording ended: `done` (all that was asked for), `late` (the deadline, or a stall),
    `quit` (the program ended by itself), `refused` (it said what it must not say) or `yielded`
    (somebody else wants the device).

    `size` counts bytes, `text` is its standard error, `first_s` the moment of the first byte on
    the monotonic clock, `xruns` how often samples were lost because nobody fetched them. `left`
    is the child, where it could not be killed.
    """

    ended: str = "late"
    size: int = 0
    text: str = ""
    first_s: float | None = None
    xruns: int = 0
    left: subprocess.Popen[bytes] | None = None


def errno_in(text: str) -> int | None:
    """The last system error that is named in a text, as `strerror` spells it."""
    at, found = -1, None
    for number in errno.errorcode:
        place = text.rfind(os.strerror(number))
        if place > at:
            at, found = place, number
    return found


def listen(
    argv: Sequence[str],
    size: int,
    sink: Callable[[bytes], None],
    *,
    until_s: float,
    stall_s: float,
    unless: re.Pattern[str] | None = None,
    opens: Opens | None = None,
    first: Callable[[], None] = lambda: None,
) -> Heard:
    """Run a recorder and hand `size` bytes of its output to `sink`, then kill it.

    `until_s` is a moment of the monotonic clock; it is given up earlier with no byte for
    `stall_s`, and when its messages match `unless`. `opens` makes it stop when another program
    opens the watched node after the first bytes came (before that it is our own child); `first`
    is called when they come. Raises `OSError` when it cannot be started.
    """
    heard = Heard()
    child = spawn(argv)
    assert child.stdout is not None
    assert child.stderr is not None
    out, err = child.stdout.fileno(), child.stderr.fileno()
    text = bytearray()
    poll = select.poll()
    for fd in (out, err, *([opens.fd] if opens and opens.fd >= 0 else [])):
        poll.register(fd, select.POLLIN)
    silent_until = time.monotonic() + stall_s
    try:
        while heard.size < size:
            left = min(until_s, silent_until) - time.monotonic()
            ready = {fd for fd, _ in poll.poll(left * 1000)} if left > 0 else set()
            if not ready:
                break
            if err in ready:
                _keep(text, err, poll)
                if unless is not None and unless.search(text.decode("utf-8", "replace")):
                    heard.ended = "refused"
                    break
            if out in ready:
                piece = os.read(out, min(65_536, size - heard.size))
                if not piece:
                    heard.ended = "quit"
                    break
                silent_until = time.monotonic() + stall_s
                if heard.first_s is None:
                    heard.first_s = time.monotonic()
                    if opens is not None:
                        opens.seen()  # that was our own child
                    first()
                heard.size += len(piece)
                sink(piece)
            elif opens is not None and opens.fd in ready and opens.seen() and heard.size:
                heard.ended = "yielded"
                break
        else:
            heard.ended = "done"
        while heard.ended == "quit" and err in {fd for fd, _ in poll.poll(_LAST_WORDS_MS)}:
            if not _keep(text, err, poll):
                break
    finally:
        if not end(child):
            heard.left = child
    heard.text = text.decode("utf-8", "replace")
    heard.xruns = heard.text.count("overrun!!!")
    return heard


def speak(argv: Sequence[str], sound: bytes) -> subprocess.Popen[bytes]:
    """Start a player that is given `sound` (at most 1 MiB) at once, and then no more. Raises
    `OSError` when it cannot be started or took none."""
    child = spawn(argv, feed=True)
    assert child.stdin is not None
    pipe = child.stdin.fileno()
    try:
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, len(sound) + 4096)
        os.set_blocking(pipe, False)
        os.write(pipe, sound)
    except BrokenPipeError:
        pass  # it is gone already: its messages say why
    except OSError:
        end(child)
        raise
    child.stdin.close()
    return child


def last_words(child: subprocess.Popen[bytes]) -> str:
    """What a child has said on its standard error so far; never waits."""
    assert child.stderr is not None
    os.set_blocking(child.stderr.fileno(), False)
    try:
        return os.read(child.stderr.fileno(), MAX_TEXT).decode("utf-8", "replace")
    except BlockingIOError:
        return ""


def _keep(text: bytearray, fd: int, poll: select.poll) -> bool:
    piece = os.read(fd, 4096)
    if not piece:
        poll.unregister(fd)
    text += piece
    del text[:-MAX_TEXT]
    return bool(piece)


def switch(card: int) -> str | None:
    """The capture switch of a card, `on` or `off`, read by `amixer` and never set. None where the
    card has none or `amixer` is not installed: then nothing is said of it."""
    text = bytearray()
    until_s = time.monotonic() + _MIXER_S
    try:
        listen(
            # By its own name: with `-c` it opens every card there is, and whoever listens at one
            # of them takes that for a program that wants it.
            ["amixer", "-D", f"hw:{card}", "scontents"],
            MAX_TEXT,
            text.extend,
            until_s=until_s,
            stall_s=_MIXER_S,
        )
    except OSError:
        return None
    return parse_switch(text.decode("utf-8", "replace"))


def parse_switch(text: str) -> str | None:
    """The state of the capture switch in the output of `amixer scontents`.

    A card may have several, for inputs that nobody uses: `Capture` counts before any other, then
    `Mic`, then the first. A switch with several channels is off when all are.
    """
    switches: dict[str, bool] = {}
    name = ""
    for line in text.splitlines():
        if control := re.match(r"Simple mixer control '([^']*)'", line):
            name = control[1]
        elif states := re.findall(r"Capture \d+ .*?\[(on|off)\]|Capture \[(on|off)\]", line):
            on = any("on" in state for state in states)
            switches[name] = switches.get(name, False) or on
    for wanted in ("Capture", "Mic", *switches):
        if wanted in switches:
            return "on" if switches[wanted] else "off"
    return None
