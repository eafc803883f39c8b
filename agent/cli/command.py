"""`hearing-room command NAME [ARG=VALUE ...]`: the same commands as over MQTT, on this box."""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from agent import control
from agent.cli import output
from agent.link.commands import CATALOGUE, typed
from agent.model import Command, Refused

WAIT_S = 3_600.0
"""A recovery may take minutes; Ctrl-C leaves, what runs goes on."""
_FAILED, _REFUSED = 2, 1


def run(
    name: str | None, words: Sequence[str], *, reason: str, as_json: bool, wait_s: float = WAIT_S
) -> int:
    """Have the running agent do something. 0 done, 1 refused, 2 failed or expired, 3 no agent,
    64 for a command that cannot be."""
    if name is None:
        _print_catalogue(as_json)
        return 0
    try:
        args = parse(words)
        typed(Command("", name, args))
    except (ValueError, Refused) as error:
        print(f"hearing-room command: {error}", file=sys.stderr)
        return output.USAGE
    request = {"command": name, "args": args, "by": _who(), "reason": reason}
    answer: dict[str, Any] = {}
    try:
        socket = control.runtime_to_ask() / "control.sock"
        for answer in control.request(socket, request, timeout_s=wait_s):
            if answer.get("state") == "accepted":
                output.waiting(f"{name} ...")
    except control.NoAgentError as error:
        print(f"hearing-room command: {error}", file=sys.stderr)
        return output.UNKNOWN
    finally:
        output.progress_done()
    if as_json:
        print(json.dumps(answer, ensure_ascii=False, separators=(",", ":")))
    else:
        _print(name, answer)
    return {"done": 0, "refused": _REFUSED}.get(answer["state"], _FAILED)


def parse(words: Sequence[str]) -> dict[str, Any]:
    """`on=true relay=cam-power` -> arguments: true, false and numbers are what they say, all else
    is text; quotes as in JSON make text of anything. Raises `ValueError`."""
    args: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise ValueError(f"{word!r} is no ARG=VALUE")
        if key in args:
            raise ValueError(f"{key} is given twice")
        try:
            said = json.loads(value)
        except ValueError:
            said = value
        args[key] = said if isinstance(said, bool | int | float | str) else value
    return args


def _who() -> str:
    try:
        return f"{getpass.getuser()}@console"[:64]
    except (KeyError, OSError):  # a user without a name
        return "console"


def _print(name: str, answer: Mapping[str, Any]) -> None:
    state, code = answer["state"], answer.get("code", "")
    if state != "done":
        print(f"{name}: {state}: {answer.get('message') or code} ({code})", file=sys.stderr)
        return
    effect = " ".join(f"{k}={_shown(v)}" for k, v in answer.get("effect", {}).items())
    print(f"{name}: done{': ' if effect else ''}{effect}")


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _print_catalogue(as_json: bool) -> None:
    for name, spec in CATALOGUE.items():
        fields = spec.args.model_fields
        if as_json:
            args = {key: field.description or "" for key, field in fields.items()}
            print(json.dumps({"command": name, "args": args}, ensure_ascii=False))
            continue
        print(f"{name:<16} {(spec.args.__doc__ or '').strip()}")
        for key, field in fields.items():
            default = None if field.is_required() else field.default
            usual = "" if default in (None, "") else f" (default {_shown(default)})"
            print(f"{'':<16}   {key}= {field.description}{usual}")
