"""The wheelhouse: every Python package that the box needs, for the Python of the box."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from bench_box.host import sh
from bench_box.recipe import PYTHON

_ABI = "cp" + PYTHON.replace(".", "")
_PLATFORMS = (
    "linux_x86_64",
    "manylinux2014_x86_64",
    *(f"manylinux_2_{minor}_x86_64" for minor in range(17, 42)),
)


def fetch(folder: Path, requirements: Sequence[str]) -> None:
    """Downloads what is missing through pip's own configuration; no source distributions."""
    folder.mkdir(parents=True, exist_ok=True)
    platforms = [word for name in _PLATFORMS for word in ("--platform", name)]
    abis = [word for name in (_ABI, "abi3", "none") for word in ("--abi", name)]
    pip = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check"]
    sh(
        *pip,
        "--only-binary=:all:",
        *("--python-version", PYTHON, "--implementation", "cp"),
        *abis,
        *platforms,
        *("--find-links", folder, "-d", folder),
        *requirements,
    )
