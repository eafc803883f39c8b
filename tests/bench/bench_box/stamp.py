"""What image and hands are made from: another recipe is another image, beside the first."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from bench_box import places, recipe

_MADE_FROM = ("recipe", "wheels", "kernel", "media", "image", "qemu")
_ON_BOOT = ("hardware", "__main__", "__init__")
"""Those of the hands that run before anything newer can be brought into the box."""


@functools.cache
def image_stamp() -> str:
    """What the image is made from; for one run it stays what it was at first."""
    parts = [repr(recipe.requirements()).encode()]
    parts += [(places.BENCH / f"bench_box/{name}.py").read_bytes() for name in _MADE_FROM]
    parts += [(places.HANDS / f"{name}.py").read_bytes() for name in _ON_BOOT]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def hands_stamp() -> str:
    """Which edition of `bench_hands` this is; it is brought up to date at every boot."""
    files = sorted(places.HANDS.glob("*.py"))
    return hashlib.sha256(b"\0".join(f.read_bytes() for f in files)).hexdigest()


def image_folder() -> Path:
    """Where the image of this recipe is, or will be."""
    return places.cache() / "images" / image_stamp()[:12]
