"""Where a key or a password is read: systemd hands a service copies of the files that it may know
(`LoadCredential=`, systemd.exec(5)), while the files themselves are root's alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

FOLDER = "secrets"
"""The folder beside room.toml whose files are handed over; a copy is called `secrets_NAME`."""


def where(named: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """The copy that was made for this process of a file in the folder `secrets`; where there is
    none, the file as it was named."""
    given = environ.get("CREDENTIALS_DIRECTORY")
    if given and named.parent.name == FOLDER:
        copy = Path(given) / f"{FOLDER}_{named.name}"
        if copy.exists():
            return copy
    return named
