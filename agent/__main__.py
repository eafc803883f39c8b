"""`python -m agent`, `hearing-room`: the daemon lightly, all else through the commands."""

from __future__ import annotations

import sys
from collections.abc import Sequence

USAGE = 64
"""sysexits.h EX_USAGE: wrong usage."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["run"] and not {"-h", "--help"} & set(words):
        # The daemon runs for years: it loads no library that only draws tables.
        from agent.cli import lean

        lean.leave_out()
        from agent.cli import run

        return run.main(words[1:])
    from agent.cli import app

    return app.main(words)


if __name__ == "__main__":
    sys.exit(main())
