"""The lines of the control socket.

Request  {"command":"check","args":{"device":"cam-front"},"by":"lan","reason":"..."}
Answers  {"id":"7d1e...","state":"accepted","code":"ok"}         when it takes longer than a second
         {"id":"7d1e...","state":"done","code":"ok","effect":{...}}      the last one is final
"""

from __future__ import annotations

import json
import math
import uuid
from typing import Any

from agent.model import Command

GROUP = "hearing-room"
"""Who is in this group may command."""
FINAL = frozenset({"done", "refused", "failed", "expired"})
MAX_REQUEST = 16 * 1024
MAX_ANSWER = 1024 * 1024
MAX_TEXT = 256
_KNOWN = {"v", "id", "command", "args", "ttl_s", "by", "reason"}


def parse_request(line: bytes) -> Command:
    """A command from a request line. Raises `ValueError` that names the mistake."""
    try:
        raw = json.loads(line)
        json.dumps(raw, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise ValueError("a request is one JSON line, in Unicode") from None
    if not isinstance(raw, dict):
        raise ValueError("a request is a JSON object")
    if unknown := sorted(set(raw) - _KNOWN):
        raise ValueError(f"unknown key {unknown[0][:64]!r}; keys are {', '.join(sorted(_KNOWN))}")
    name, args, ttl_s = raw.get("command"), raw.get("args", {}), raw.get("ttl_s", 30.0)
    if not isinstance(name, str) or not 0 < len(name) <= 64:
        raise ValueError("`command` must be a name of at most 64 characters")
    if not isinstance(args, dict) or len(args) > 16 or not all(map(_is_flat, args.values())):
        raise ValueError("`args` must be an object of at most 16 numbers, booleans and texts")
    if isinstance(ttl_s, bool) or not isinstance(ttl_s, int | float) or not 0 < ttl_s <= 3600:
        raise ValueError("`ttl_s` must be a number of seconds, at most 3600")
    texts = {key: raw.get(key, "") for key in ("id", "by", "reason")}
    for key, text in texts.items():
        limit = 64 if key == "id" else MAX_TEXT
        if not isinstance(text, str) or len(text) > limit or not (text.isprintable()):
            raise ValueError(f"`{key}` must be a text of at most {limit} characters")
    number = texts["id"] or uuid.uuid4().hex
    return Command(number, name, args, float(ttl_s), texts["by"], texts["reason"])


def _is_flat(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= MAX_TEXT
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, bool) or (isinstance(value, int) and abs(value) < 2**53)
