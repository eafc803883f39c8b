"""What a code means to a person, in Vietnamese and English: title, cause, three steps, who."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

LANGUAGES = ("vi", "en")
WHO = ("user", "technician", "network", "central", "vendor")
"""Who can fix it: anybody in the room, the technician, whoever runs the network, the central
operators, the supplier."""


@dataclass(frozen=True, slots=True)
class Words:
    """The words of one code. `title` may hold `{name}`, the device's display name."""

    title: str
    cause: str
    steps: tuple[str, ...]
    who: str

    def title_for(self, name: str) -> str:
        """The title, with the device's display name in its place."""
        return self.title.replace("{name}", name)


@cache
def load(language: str) -> dict[str, Words]:
    """All codes of a language. Raises `ValueError` for a language that is not there."""
    if language not in LANGUAGES:
        raise ValueError(f"no words in {language!r}; languages are {', '.join(LANGUAGES)}")
    text = Path(__file__).with_name(f"{language}.toml").read_text(encoding="utf-8")
    table = tomllib.loads(text)["codes"]
    return {
        f"{kind}.{problem}": Words(w["title"], w["cause"], tuple(w["steps"]), w["who"])
        for kind, problems in table.items()
        for problem, w in problems.items()
    }


@cache
def terms(language: str) -> dict[str, str]:
    """The other texts of a language: states, modes, headings."""
    if language not in LANGUAGES:
        raise ValueError(f"no words in {language!r}; languages are {', '.join(LANGUAGES)}")
    text = Path(__file__).with_name(f"{language}.toml").read_text(encoding="utf-8")
    flat: dict[str, str] = {}
    for section, entries in tomllib.loads(text)["terms"].items():
        flat.update({f"{section}.{key}": value for key, value in entries.items()})
    return flat
