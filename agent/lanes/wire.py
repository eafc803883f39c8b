"""The lines of a lane: encode, decode, limits. One JSON object a line, at most 4 KiB.

Hello     {"proto":1,"version":"0.1.0","pid":7,"confined":["no_new_privs",...]}
Question  {"id":1,"kind":"camera","ask":"look","deadline_s":8.0,"settings":{...}}
Answer    {"id":1,"fault":null,"why":"","values":{...},"took_s":0.4,"active":true}
          and, each only where it is allowed, "identity":{...} or "fingerprint":[...]

An answer holds numbers, booleans and words of the list that the caller hands in: nothing in it
can carry a picture or a sound.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from agent.model import Fault, Reading, Scalar, WireError

PROTO = 1
MAX_LINE = 4096
MAX_QUESTION = 16_384
MAX_IDENTITY = 64
MAX_FINGERPRINT = 64
MAX_DIGITS = 15  # of an integer: beyond that a double no longer holds it
WHY_WORDS = frozenset(
    {
        "",
        "errno",
        "in_session",
        "maintenance",
        "exception",
        "deadline",
        "died",
        "broke_rules",
        "no_worker",
        "restarting",
        "no_frame",
        "no_samples",
        "no_node",
        "not_permitted",
        "held",
        "not_supported",
        "bad_file",
        "refused",
        "yielded",
        "hands_lost",
        "not_understood",
    }
)
"""The words that may explain a fault, whatever the kind."""


@dataclass(frozen=True, slots=True)
class Hello:
    """How a worker introduces itself."""

    proto: int
    version: str
    pid: int
    confined: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Question:
    """What the agent asks; `settings` are the kind's, as plain JSON."""

    id: int
    kind: str
    ask: str
    deadline_s: float
    settings: Mapping[str, Any]


def _refuse(what: str) -> NoReturn:
    raise WireError(what)


def _dump(payload: Mapping[str, Any], limit: int) -> bytes:
    try:
        line = json.dumps(payload, separators=(",", ":"), allow_nan=False).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise WireError(f"not encodable: {error}") from error
    if len(line) > limit:
        _refuse(f"line of {len(line)} bytes is longer than {limit}")
    return line


def _parse(line: bytes, limit: int) -> dict[str, Any]:
    if len(line) > limit:
        _refuse(f"line of {len(line)} bytes is longer than {limit}")
    try:
        payload = json.loads(line, parse_constant=lambda word: _refuse(f"{word} is not a number"))
    except (ValueError, RecursionError) as error:
        if isinstance(error, WireError):
            raise
        raise WireError(f"not JSON: {error}") from error
    if not isinstance(payload, dict):
        _refuse("not a JSON object")
    return payload


def encode_hello(hello: Hello) -> bytes:
    """A hello as one line."""
    fields = {"proto": hello.proto, "version": hello.version, "pid": hello.pid}
    return _dump({**fields, "confined": list(hello.confined)}, MAX_LINE)


def decode_hello(line: bytes) -> Hello:
    """The hello of a worker. Raises `WireError`, also when it speaks another protocol."""
    raw = _parse(line, MAX_LINE)
    proto, version, pid, confined = (raw.get(k) for k in ("proto", "version", "pid", "confined"))
    if proto != PROTO or isinstance(proto, bool):
        _refuse(f"protocol {proto!r}, this agent speaks {PROTO}")
    if not isinstance(pid, int) or isinstance(pid, bool) or pid <= 0:
        _refuse(f"bad pid {pid!r}")
    if not isinstance(confined, list) or len(confined) > 16:
        _refuse("bad list of confinement layers")
    return Hello(PROTO, _text(version, "version"), pid, tuple(_text(c, "layer") for c in confined))


def encode_question(question: Question) -> bytes:
    """A question as one line."""
    return _dump(
        {
            "id": question.id,
            "kind": question.kind,
            "ask": question.ask,
            "deadline_s": question.deadline_s,
            "settings": dict(question.settings),
        },
        MAX_QUESTION,
    )


def decode_question(line: bytes) -> Question:
    """A question, in the worker. Raises `WireError`."""
    raw = _parse(line, MAX_QUESTION)
    number, deadline, settings = raw.get("id"), raw.get("deadline_s"), raw.get("settings")
    if not isinstance(number, int) or isinstance(number, bool):
        _refuse(f"bad id {number!r}")
    if not isinstance(deadline, int | float) or isinstance(deadline, bool) or deadline <= 0:
        _refuse(f"bad deadline {deadline!r}")
    if not isinstance(settings, dict):
        _refuse("settings are not a table")
    return Question(
        number, _text(raw.get("kind"), "kind"), _text(raw.get("ask"), "ask"), deadline, settings
    )


def encode(number: int, reading: Reading) -> bytes:
    """An answer as one line. Raises `WireError` for what may not travel."""
    payload: dict[str, Any] = {
        "id": number,
        "fault": reading.fault,
        "why": reading.why,
        "values": dict(reading.values),
        "took_s": round(reading.took_s, 3),
        "active": reading.active,
    }
    if reading.identity:
        payload["identity"] = dict(reading.identity)
    if reading.fingerprint:
        payload["fingerprint"] = list(reading.fingerprint)
    return _dump(payload, MAX_LINE)


def decode(line: bytes, words: Collection[str], *, number: int, ask: str) -> Reading:
    """The answer to question `number`; `words` is the closed list of the kind.

    Raises `WireError` for another id, an unknown key, a word that is not in the list, a number
    that is not finite, an identity or a fingerprint where none may be.
    """
    raw = _parse(line, MAX_LINE)
    known = {"id", "fault", "why", "values", "took_s", "active", "identity", "fingerprint"}
    if unknown := set(raw) - known:
        _refuse(f"unknown keys {sorted(unknown)!r}")
    if raw.get("id") != number or isinstance(raw.get("id"), bool):
        _refuse(f"answer to question {raw.get('id')!r}, asked was {number}")
    values = raw.get("values", {})
    if not isinstance(values, dict):
        _refuse("values are not a table")
    why = raw.get("why", "")
    if not isinstance(why, str) or (why not in WHY_WORDS and why not in words):
        _refuse(f"word {why!r} is not in the list")
    took = _scalar("took_s", raw.get("took_s", 0.0), ())
    if isinstance(took, bool | str):
        _refuse(f"took_s is no number: {took!r}")
    active = raw.get("active", False)
    if not isinstance(active, bool):
        _refuse(f"active is no boolean: {active!r}")
    return Reading(
        values={_key(k): _scalar(k, v, words) for k, v in values.items()},
        fault=_fault(raw.get("fault")),
        why=why,
        took_s=took,
        identity=_identity(raw.get("identity", {})),
        fingerprint=_fingerprint(raw.get("fingerprint", []), ask),
        active=active,
    )


def _fault(word: Any) -> Fault | None:
    if word is None:
        return None
    try:
        return Fault(word)
    except ValueError:
        _refuse(f"no such fault: {word!r}")


def _key(key: str) -> str:
    if len(key) > 40 or not key.isascii() or not key.replace("_", "").isalnum():
        _refuse(f"bad key {key[:48]!r}")
    return key


def _scalar(key: str, value: Any, words: Collection[str]) -> Scalar:
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        if abs(value) >= 10**MAX_DIGITS:
            _refuse(f"{key}: integer of more than {MAX_DIGITS} digits")
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            _refuse(f"{key}: not finite")
        return value
    if isinstance(value, str):
        if value not in words:
            _refuse(f"{key}: word {value[:48]!r} is not in the list")
        return value
    _refuse(f"{key}: neither number, boolean nor word")


def _text(value: Any, what: str) -> str:
    """A string of at most 64 printable ASCII characters."""
    if not isinstance(value, str) or len(value) > MAX_IDENTITY:
        _refuse(f"{what}: no string of at most {MAX_IDENTITY} characters")
    if not value.isascii() or not value.isprintable():
        _refuse(f"{what}: not printable ASCII")
    return value


def _identity(raw: Any) -> dict[str, str]:
    if not isinstance(raw, dict) or len(raw) > 8:
        _refuse("identity is no table of at most 8 strings")
    return {_key(k): _text(v, f"identity.{k}") for k, v in raw.items()}


def _fingerprint(raw: Any, ask: str) -> tuple[int, ...]:
    if not isinstance(raw, list) or len(raw) > MAX_FINGERPRINT:
        _refuse(f"fingerprint is no list of at most {MAX_FINGERPRINT} integers")
    if raw and ask != "baseline":
        _refuse(f"a fingerprint answers `baseline`, not {ask!r}")
    if any(isinstance(v, bool) or not isinstance(v, int) or not 0 <= v <= 15 for v in raw):
        _refuse("fingerprint holds something else than integers of 0..15")
    return tuple(raw)
