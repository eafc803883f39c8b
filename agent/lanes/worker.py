"""A worker's main: it may see and hear, so it cannot speak except by a line of numbers.

    python -m agent.lanes.worker [--variant senses|netcam] [--port N ...]

Descriptors 0 and 1 are the lane: one socket (`StandardInput=socket`) or two pipes. Questions come
in, one answer each goes out, end of file ends it. Standard error is free text for the journal.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import agent.lanes.lean  # noqa: F401  # first

# isort: split
from agent import __version__, kinds
from agent.lanes import wire
from agent.lanes.confine import confine, nodes
from agent.model import Fault, Reading, WireError

GRACE_S = 1.0
"""How long after its deadline a question may last before the kernel ends the worker."""
START_S = 30.0
"""The same for the time up to the hello."""
_ONE_THREAD = {  # one frame at a time: more threads cost memory and start time, and gain nothing
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
    "OPENCV_LOG_LEVEL": "ERROR",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs until the lane is closed. Returns the exit status: 0, or 2 for a bad question."""
    parser = argparse.ArgumentParser(prog="agent.lanes.worker", description=__doc__)
    parser.add_argument("--variant", choices=("senses", "netcam"), default="senses")
    parser.add_argument("--port", type=int, action="append", default=[], help="may connect to it")
    options = parser.parse_args(arguments)
    arm(START_S)
    faulthandler.enable()
    for name, value in _ONE_THREAD.items():
        os.environ.setdefault(name, value)
    receive, send = take_lane()
    layers = confine(options.port if options.variant == "netcam" else None)
    known = nodes()
    try:
        say(send, wire.encode_hello(wire.Hello(wire.PROTO, __version__, os.getpid(), layers)))
        disarm()
        serve(receive, send, lambda: "landlock" not in layers or nodes() == known)
    except BrokenPipeError:  # the agent is gone
        return 0
    except WireError as error:
        print(f"worker: {error}", file=sys.stderr)
        return 2
    return 0


def take_lane() -> tuple[int, int]:
    """Moves descriptors 0 and 1 away, to where no library prints and no child inherits them."""
    receive, send = os.dup(0), os.dup(1)
    os.set_blocking(receive, True)
    os.set_blocking(send, True)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return receive, send


def arm(within_s: float) -> None:
    """Has the kernel end this process after `within_s`, also inside a C call that never returns."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM, signal.SIGABRT})
    signal.setitimer(signal.ITIMER_REAL, within_s)


def disarm() -> None:
    """Takes the timer back."""
    signal.setitimer(signal.ITIMER_REAL, 0)


def serve(receive: int, send: int, fresh: Callable[[], bool]) -> None:
    """Answers questions until end of file.

    `fresh` tells whether this worker may still open every device there is; when it says no, a
    question is answered `restarting` and the agent takes a new worker. Raises `WireError` for
    what is no question, `BrokenPipeError` when nobody listens.
    """
    desk = Desk()
    for line in lines(receive):
        question = wire.decode_question(line)
        arm(question.deadline_s + GRACE_S)
        if question.ask == "prepare" or fresh():
            answer = desk.answer(question)
        else:
            answer = wire.encode(question.id, Reading(fault=Fault.NO_ANSWER, why="restarting"))
        disarm()
        say(send, answer)


def lines(receive: int) -> Iterator[bytes]:
    """The lines that come in, each without its end. Raises `WireError` for one that never ends."""
    pending = b""
    while chunk := os.read(receive, wire.MAX_QUESTION):
        *whole, pending = (pending + chunk).split(b"\n")
        yield from whole
        if len(pending) > wire.MAX_QUESTION:
            raise WireError(f"question of more than {wire.MAX_QUESTION} bytes")


def say(send: int, line: bytes) -> None:
    """Writes a whole line. Raises `BrokenPipeError`."""
    while line:
        line = line[os.write(send, line) :]


@dataclass(slots=True)
class Desk:
    """Where questions are answered; keeps the one driver in use."""

    driver: Any = None
    of: tuple[str, str] = field(default=("", ""))

    def answer(self, question: wire.Question) -> bytes:
        """The line that answers a question, whatever the driver does (short of not returning)."""
        try:
            return wire.encode(question.id, self._reading(question))
        except Exception as error:
            explain(error)
            self._let_go()  # what it holds is in an unknown state
            number = getattr(error, "errno", None)
            values = {"errno": number} if isinstance(number, int) else {}
            return wire.encode(question.id, Reading(values, Fault.ERROR, "exception"))

    def _reading(self, question: wire.Question) -> Reading:
        kind: Any = kinds.load(question.kind)
        if question.ask == "prepare":
            if prepare := getattr(kind, "prepare", None):
                prepare()
            return Reading()
        of = (question.kind, json.dumps(question.settings, sort_keys=True))
        if self.driver is None or of != self.of:
            self._let_go()
            self.driver = kind.Driver(kind.Settings.model_validate(question.settings))
            self.of = of
        reading: Reading = self.driver.read(question.ask)
        return reading

    def _let_go(self) -> None:
        old, self.driver = self.driver, None
        if close := getattr(old, "close", None):
            try:
                close()
            except Exception as error:
                explain(error)


def explain(error: BaseException | None) -> None:
    """Where it happened and what kind it was, on standard error.

    No local variable and no message: those could hold a picture, a sound or a password in a URL.
    """
    while error is not None:
        number = f" errno {error.errno}" if isinstance(error, OSError) and error.errno else ""
        where = "".join(traceback.format_tb(error.__traceback__))
        print(f"{where}{type(error).__name__}{number}", file=sys.stderr, flush=True)
        error = error.__cause__ or error.__context__


if __name__ == "__main__":
    sys.exit(main())
