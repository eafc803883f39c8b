"""`hearing-room adopt --baseline`: a person says the room is good; the agent remembers how good."""

from __future__ import annotations

import json
import os
import pwd
import sys
from collections.abc import Mapping
from typing import Any

from agent import control, words
from agent.cli import output
from agent.model import Level

TIMEOUT_S = 600.0
"""Devices are asked one after the other, each within its deadline and that of its worker."""
_CODES = {"not_in_order": output.exit_code(Level.FAIL), "unknown_device": output.USAGE}


def run(device: str | None, *, anyway: bool, as_json: bool, language: str | None) -> int:
    """Record the baseline of the running agent's devices; 2 where one is not in order, 3 where
    there is no agent or the room is not idle."""
    args: dict[str, Any] = {"device": device} if device else {}
    if anyway:
        args["anyway"] = True
    request = {"command": "baseline", "args": args, "by": _who()}
    socket = control.runtime_to_ask() / "control.sock"
    try:
        answer = list(control.request(socket, request, timeout_s=TIMEOUT_S))[-1]
    except (OSError, ConnectionError) as error:
        answer = {"state": "refused", "code": "no_agent", "message": str(error)}
    if as_json:
        print(json.dumps(answer, ensure_ascii=False))
    if answer.get("state") != "done":
        reason = answer.get("message") or answer.get("code")
        print(f"hearing-room adopt --baseline: {reason}", file=sys.stderr)
        return _CODES.get(str(answer.get("code")), output.UNKNOWN)
    if not as_json:
        terms = words.terms(output.language(language))
        for name, entry in answer["detail"].items():
            print(_line(name, entry, terms))
    return 0


def _who() -> str:
    """The person at the keyboard, also behind sudo."""
    name = os.environ.get("SUDO_USER") if os.geteuid() == 0 else None
    if not name:
        try:
            name = pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            return ""
    return name if name.isprintable() and len(name) <= 64 else ""


def _line(name: str, entry: Mapping[str, Any], terms: Mapping[str, str]) -> str:
    level = Level(entry["level"])
    recorded = terms["table.recorded" if entry["recorded"] else "table.not_recorded"]
    numbers = " ".join(f"{k}={v}" for k, v in list(entry["readings"].items())[:8])
    found = "".join(f" {f['code']}" for f in entry["findings"])
    return f"{output.SIGNS[level]} {name} ({entry['name']}): {recorded}{found}\n    {numbers}"
