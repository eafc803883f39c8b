"""`hearing-room may-upgrade`: whether this box may be worked on, for scripts of a fleet.

While a hearing runs, pauses or is near, nothing is installed, restarted or switched.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from agent import control
from agent.cli import output
from agent.clock import boot_id
from agent.model import Mode

TEMPFAIL = 75
"""sysexits.h EX_TEMPFAIL: try again later."""
FREE = (Mode.IDLE, Mode.MAINTENANCE)


def busy(status: Mapping[str, Any] | None, *, alive: bool, boot: str, utc_s: float) -> str:
    """Why the box may not be worked on; empty where it may.

    A dead agent may be mended, except in the hearing that was the last it knew of.
    """
    if status is None or (status.get("agent") or {}).get("boot") != boot:
        return ""
    readiness = status.get("readiness") or {}
    mode, hearing = readiness.get("mode"), readiness.get("hearing") or {}
    if mode is None or mode in FREE:
        return ""
    if not alive and _ended(hearing, utc_s):
        return ""
    named = f", hearing {hearing['id']} from {hearing['starts']}" if hearing else ""
    return f"the room is {mode}{named}"


def _ended(hearing: Mapping[str, Any], utc_s: float) -> bool:
    try:
        ends = datetime.fromisoformat(str(hearing["ends"]).replace("Z", "+00:00"))
    except (KeyError, ValueError):
        return True
    return ends.timestamp() <= utc_s


def run(*, as_json: bool) -> int:
    """0 when the box may be worked on, 75 with the reason when it may not."""
    status = control.read_status(control.runtime_to_ask() / "status.json")
    alive = status is not None and output.agent_alive(status)
    why = busy(status, alive=alive, boot=boot_id(), utc_s=time.time())
    if as_json:
        print(json.dumps({"may": not why, "why": why or None}, ensure_ascii=False))
    elif why:
        print(
            f"{why}; to work on it all the same, say so first: hearing-room command mode.set"
            " mode=maintenance minutes=30 (refused in session)"
        )
    else:
        print("no hearing runs or is near")
    return TEMPFAIL if why else 0
