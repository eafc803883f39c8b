"""The bench's hands inside the virtual box. Standard library only, so that they need nothing that
the project under test may have broken.

`bench-hands VERB WORD ...`: one verb for each thing that can be made to fail (see `__main__`).
"""

from __future__ import annotations

import subprocess
from pathlib import Path

STATE = Path("/run/bench")
"""What is plugged in, and how each device behaves."""
MEDIA = Path("/usr/local/lib/bench/media")
"""Pictures and sounds that were made with the image."""


class Wrong(Exception):
    """Something that cannot be done, in a sentence."""


def run(*command: object) -> int:
    """Runs a program and gives its exit status; what it says on standard error is dropped."""
    words = [str(word) for word in command]
    return subprocess.run(words, check=False, stderr=subprocess.DEVNULL).returncode


def option(words: list[str], flag: str, default: str) -> str:
    """Takes `flag VALUE` out of some words."""
    if flag not in words:
        return default
    place = words.index(flag)
    value = words[place + 1]
    del words[place : place + 2]
    return value


def set_mode(name: str, mode: str, modes: tuple[str, ...]) -> None:
    """How a plugged USB device behaves from now on."""
    if not (STATE / f"{name}.path").exists():
        raise Wrong(f"no USB device {name!r} is plugged in")
    if mode not in modes:
        raise Wrong(f"no mode {mode!r}; there are {' '.join(modes)}")
    fresh = STATE / f"{name}.mode.new"
    fresh.write_text(mode)
    fresh.replace(STATE / f"{name}.mode")
