"""The bench by hand: `tests/bench/run --box VERB`. Scenarios use `bench_box.box` instead."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench_box import image, stamp
from bench_box.box import Box
from bench_box.host import BenchError
from bench_box.machine import Machine
from bench_box.qemu import Shape

_EPILOG = """\
$HEARING_ROOM_BENCH_BOX names the box (default: hand), $HEARING_ROOM_BENCH_DIR the folder of images
and boxes. Inside, `bench-hands` lists what can be made to fail; `hands WORD ...` asks it from here.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Does one thing; 0, or the exit status of the command in the box, or 69."""
    parser = argparse.ArgumentParser(
        prog="tests/bench/run --box",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    build = verbs.add_parser("build", help="make image and snapshot where they are missing or old")
    build.add_argument("--force", action="store_true", help="also where they are not")
    boot = verbs.add_parser("boot", help="switch the box on")
    boot.add_argument("--cold", action="store_true", help="boot the kernel")
    boot.add_argument("--keep", action="store_true", help="go on with the last disk")
    boot.add_argument("--memory-mb", type=int, default=Shape().memory_mb)
    boot.add_argument("--clock", default="", help="of the hardware: 2020-01-01T00:00:00")
    boot.add_argument("--kernel", default="", help="more words for the kernel's command line")
    boot.add_argument("--broker-port", type=int, default=1883, help="where broker:1883 leads")
    run = verbs.add_parser("run", help="a line of shell in the box")
    run.add_argument("--timeout-s", type=float, default=600)
    run.add_argument("line")
    hands = verbs.add_parser("hands", help="make something fail; no words list what there is")
    hands.add_argument("words", nargs=argparse.REMAINDER)
    for name, help_ in (("push", "into the box"), ("pull", "out of the box")):
        copy = verbs.add_parser(name, help=f"copy a file or a folder {help_}")
        copy.add_argument("source")
        copy.add_argument("target")
    for name, help_ in (
        ("checkout", "put the checkout under test into the box"),
        ("console", "the serial console (needs socat; Ctrl-] leaves it)"),
        ("log", "what came over the serial console"),
        ("status", "what runs"),
        ("reset", "the reset button"),
        ("cut-power", "pull the plug"),
        ("stop", "shut down"),
    ):
        verbs.add_parser(name, help=help_)
    options = parser.parse_args(arguments)
    try:
        return _do(options)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 69


def _do(options: argparse.Namespace) -> int:
    name = os.environ.get("HEARING_ROOM_BENCH_BOX", "hand")
    machine = Machine(name, getattr(options, "broker_port", 1883))
    box = Box(machine)
    match options.verb:
        case "build":
            image.build(force=options.force)
        case "boot":
            started = time.monotonic()
            shape = Shape(options.memory_mb, clock=options.clock, kernel=options.kernel)
            box.boot(shape, cold=options.cold, keep=options.keep)
            print(f"bench: {name} is on after {time.monotonic() - started:.1f} s")
        case "run" | "hands":
            line = options.line if options.verb == "run" else ""
            line = line or " ".join(["bench-hands", *options.words])
            done = box.run(line, check=False, timeout_s=getattr(options, "timeout_s", 600))
            sys.stdout.write(done.out)
            sys.stderr.write(done.err)
            return done.code
        case "push":
            box.push(Path(options.source), options.target)
        case "pull":
            box.pull(options.source, Path(options.target))
        case "checkout":
            box.install_checkout()
        case "console":
            socket = f"UNIX-CONNECT:{machine.folder}/serial.sock"
            os.execvp("socat", ["socat", "-,raw,echo=0,escape=0x1d", socket])
        case "log":
            sys.stdout.write(machine.serial_log)
        case "status":
            state = f"runs, pid {machine.pid}" if machine.pid else "is off"
            print(f"{name} {state}; image {stamp.image_folder()}: {image.facts() or 'not made'}")
        case "reset":
            box.reset()
        case "cut-power":
            box.cut_power()
        case "stop":
            box.shut_down()
    return 0


if __name__ == "__main__":
    sys.exit(main())
