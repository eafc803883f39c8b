"""`hearing-room card`: what the lights and the button mean, on a terminal or on one page of A4."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from agent import settings, words
from agent.cli.card import table, text
from agent.model import ConfigError
from agent.settings import DEFAULT_PATH, Room


def run(
    config: Path | None,
    *,
    pdf: Path | None,
    general: bool,
    contact: str,
    as_json: bool,
    language: str | None,
) -> int:
    """Print the card, or write it as a page; Vietnamese with English under it unless one language
    is asked for."""
    card = table.of(None if general else _room(config))
    languages = (language,) if language else words.LANGUAGES
    if pdf is not None:
        from agent.cli.card import page

        _write(pdf, page.draw(card, languages, contact=contact))
    if as_json:
        print(json.dumps(table.document(card), ensure_ascii=False, separators=(",", ":")))
    elif pdf is None:
        print(text.render(card, languages, contact=contact))
    return 0


def _room(config: Path | None) -> Room | None:
    """The room that was named, else the one of this box, else none: the card is then a general
    one."""
    if config is not None:
        return settings.load(config)
    try:
        if not DEFAULT_PATH.exists():
            return None
        room = settings.load(DEFAULT_PATH)
        if table.has_hands(room):
            return room
        why = "it has neither light nor button"
    except (ConfigError, OSError) as error:
        why = str(error)
    print(f"hearing-room card: not the card of {DEFAULT_PATH}: {why}", file=sys.stderr)
    print("This is the general one; name a room with --config FILE.", file=sys.stderr)
    return None


def _write(path: Path, page: bytes) -> None:
    if str(path) == "-":
        sys.stdout.buffer.write(page)
        sys.stdout.buffer.flush()
        return
    try:
        path.write_bytes(page)
    except OSError as error:
        raise ConfigError(
            f"--pdf {path}: cannot be written: {error.strerror}; name another file"
        ) from None
