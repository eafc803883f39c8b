"""`hearing-room codes`: every code with level, meaning, steps."""

from __future__ import annotations

import json
import sys

from agent import kinds, words
from agent.cli import output
from agent.judge import own
from agent.model import Level


def declared() -> dict[str, Level]:
    """Every code of this version with its usual level, the kinds in order, the agent last."""
    found: dict[str, Level] = {}
    for kind in kinds.names():
        found.update(kinds.load(kind).CODES)
    return {**found, **own.CODES}


def run(pattern: str | None, *, as_json: bool, language: str | None) -> int:
    """Print the codes, all or those of a kind; 64 for a pattern that matches none."""
    chosen = output.language(language)
    texts = words.load(chosen)
    terms = words.terms(chosen)
    codes = {
        code: level
        for code, level in declared().items()
        if pattern is None or code == pattern or code.partition(".")[0] == pattern
    }
    if not codes:
        print(f"hearing-room codes: no code {pattern!r}", file=sys.stderr)
        return output.USAGE
    for code, level in codes.items():
        meaning = texts[code]
        title = meaning.title_for(terms[f"kind.{code.partition('.')[0]}"])
        if as_json:
            entry = {
                "code": code,
                "level": level,
                "title": title,
                "cause": meaning.cause,
                "steps": meaning.steps,
                "fix": meaning.who,
            }
            print(json.dumps(entry, ensure_ascii=False, separators=(",", ":")))
            continue
        print(f"{output.SIGNS[level]} {code}  ({terms[f'level.{level}']})  {title}")
        print(f"    {meaning.cause} [{terms[f'who.{meaning.who}']}]")
        for number, step in enumerate(meaning.steps, 1):
            print(f"    {number}. {step}")
    return 0
