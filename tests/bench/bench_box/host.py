"""This machine: the tools it needs, the archive it installs from, subprocesses."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
TO_BUILD = ("mmdebstrap", "mke2fs", "depmod", "xz", "cpio", "dpkg-deb", "chroot")
TO_RUN = ("qemu-system-x86_64", "qemu-img", "nc", "mosquitto")


class BenchError(Exception):
    """What keeps the bench from working, in a sentence that names the way out."""


def sh(*command: object, **options: Any) -> subprocess.CompletedProcess[Any]:
    """Run a program that must succeed. Raises `BenchError` with the last it said."""
    words = [str(word) for word in command]
    options.setdefault("stderr", subprocess.PIPE)
    done = subprocess.run(words, check=False, **options)
    if done.returncode:
        said = done.stderr or b""
        text = said if isinstance(said, str) else said.decode(errors="replace")
        raise BenchError(f"{words[0]} ended with {done.returncode}: {text.strip()[-2000:]}")
    return done


def need(tools: Sequence[str]) -> None:
    """Raises `BenchError` where a program is missing; `tests/bench/run` installs them all."""
    missing = [tool for tool in tools if not shutil.which(tool, path=PATH)]
    if missing:
        raise BenchError(f"missing on this machine: {' '.join(missing)}; tests/bench/run gets them")


def need_root(what: str) -> None:
    """Raises `BenchError` for anybody else."""
    if os.geteuid() != 0:
        raise BenchError(f"{what} needs root: run it once as root, or with sudo")


def archive() -> str:
    """The Debian archive that this machine's apt uses, so that no other is needed;
    `$HEARING_ROOM_BENCH_ARCHIVE` names another."""
    if named := os.environ.get("HEARING_ROOM_BENCH_ARCHIVE"):
        return named
    apt = Path("/etc/apt")
    for file in (apt / "sources.list", *sorted(apt.glob("sources.list.d/*"))):
        for line in file.read_text().splitlines() if file.is_file() else ():
            found = re.search(r"^(?:deb|URIs:)\s.*?(https?://\S+)", line)
            if found and "/debian" in found[1] and "security" not in found[1]:
                return found[1].rstrip("/")
    raise BenchError(
        "no Debian archive in this machine's apt sources; name one in HEARING_ROOM_BENCH_ARCHIVE"
    )
