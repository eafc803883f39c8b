"""The tables of docs/privacy.md, made of what the kinds declare.

python tests/kinds/tell_tables.py            # prints them
python tests/kinds/tell_tables.py --write    # puts them into the page
"""

from __future__ import annotations

import sys
from pathlib import Path

from agent import kinds
from agent.kinds._tells import COMMON, bits, table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "privacy.md"
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"


def tables() -> str:
    """One table for every kind that has a driver, and one for what all may tell."""
    parts = []
    for kind in kinds.names():
        tells = kinds.tells(kind)
        if tells is not None:
            many = len(tells) + len(COMMON)
            head = f"### {kind}: at most {many} values and {bits(tells):.0f} bits an answer"
            parts += [head, table(tells)]
    return "\n\n".join([*parts, "### every kind", table(COMMON)])


def page() -> str:
    """The page with the tables as they should be."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{after}"


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        PAGE.write_text(page())
    else:
        print(tables())
