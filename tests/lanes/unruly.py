"""A worker that misbehaves as told: it speaks the lines of a lane and knows nothing of the agent.

python unruly.py FOLDER

Takes its next behaviour from the first word of FOLDER/script (none left: it is good) at its start
if that word is one of `HELLOS`, and at every question but `prepare`; FOLDER/log tells what it saw.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

FOLDER = Path(sys.argv[1]) if len(sys.argv) > 1 else Path()
OUT = 1


def log(*words: object) -> None:
    with (FOLDER / "log").open("a") as file:
        print(*words, file=file)


def next_word(allowed: Callable[[str], bool]) -> str:
    words = (FOLDER / "script").read_text().split()
    if not words or not allowed(words[0]):
        return "good"
    (FOLDER / "script").write_text(" ".join(words[1:]))
    return words[0]


def say(text: str) -> None:
    data = text.encode()
    while data:
        data = data[os.write(OUT, data) :]


def answer(number: int, **fields: object) -> str:
    good = {"id": number, "fault": None, "why": "", "values": {"pid": os.getpid()}}
    return json.dumps({**good, "took_s": 0.0, "active": True, **fields}) + "\n"


def hang() -> None:
    while True:
        time.sleep(60)


def deaf() -> None:
    for number in (signal.SIGABRT, signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)
    hang()


def flood(stream: int) -> None:
    while True:
        os.write(stream, b"x" * 65536)


def leave_a_child() -> None:
    child = subprocess.Popen(["sleep", "60"])
    log("child", child.pid)
    os.abort()


HELLOS = {
    "hello-none": hang,
    "hello-exit": lambda: sys.exit(1),
    "hello-garbage": lambda: say("hello\n"),
    "hello-proto": lambda: say('{"proto":2,"version":"0","pid":1,"confined":[]}\n'),
    "hello-flood": lambda: flood(OUT),
}


def behave(word: str, number: int) -> None:
    fifo = os.fspath(FOLDER / "fifo")
    acts: dict[str, Callable[[], object]] = {
        "good": lambda: say(answer(number)),
        "hang": hang,
        "deaf": deaf,
        "fifo": lambda: os.open(fifo, os.O_RDONLY),
        "crash": os.abort,
        "exit": lambda: sys.exit(0),
        "crash-with-child": leave_a_child,
        "garbage": lambda: say("not json\n"),
        "half": lambda: (say(answer(number)[:-9]), hang()),
        "flood": lambda: flood(OUT),
        "late": lambda: (time.sleep(0.6), say(answer(number)), hang()),
        "wrong-id": lambda: say(answer(number - 1)),
        "nan": lambda: say(answer(number, values={"x": float("nan")})),
        "infinite": lambda: say(answer(number, values={"x": 1}).replace("1}", "1e999}")),
        "oversize": lambda: say(answer(number, values={f"k{n}": n for n in range(900)})),
        "free-word": lambda: say(answer(number, values={"note": "secret"})),
        "extra": lambda: say(answer(number) + "x"),
        "twice": lambda: say(answer(number) * 2),
        "then-more": lambda: (say(answer(number)), time.sleep(0.05), say("x")),
        "then-exit": lambda: (say(answer(number)), sys.exit(0)),
        "print": lambda: say("a library prints\n" + answer(number)),
        "chatter": lambda: (os.write(2, b"noise line\n" * 10_000 + b"end\n"), say(answer(number))),
        "stderr-flood": lambda: flood(2),
        "restarting": lambda: say(answer(number, fault="no_answer", why="restarting")),
        "environ": lambda: (log("environ", json.dumps(dict(os.environ))), say(answer(number))),
        "files": lambda: (
            log("files", *(p.name for p in Path("/proc/self/fd").iterdir())),
            say(answer(number)),
        ),
    }
    acts[word]()


def main() -> None:
    log("start", os.getpid())
    greeting = next_word(HELLOS.__contains__)
    if greeting in HELLOS:
        HELLOS[greeting]()
        hang()
    hello = {"proto": 1, "version": "0.1.0", "pid": os.getpid(), "confined": ["nothing"]}
    say(json.dumps(hello) + "\n")
    pending = b""
    while data := os.read(0, 65536):
        pending += data
        while b"\n" in pending:
            line, _, pending = pending.partition(b"\n")
            question = json.loads(line)
            log("ask", question["id"], question["kind"], question["ask"])
            if question["ask"] == "prepare":
                prepared = next_word(lambda word: word.startswith("prepare-"))
                behave(prepared.removeprefix("prepare-"), question["id"])
            else:
                behave(next_word(lambda word: True), question["id"])
    log("eof")


if __name__ == "__main__":
    main()
