"""The client of the control socket: blocking, for a program that a person runs."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agent.control.protocol import FINAL, GROUP, MAX_ANSWER
from agent.model import AgentError


class NoAgentError(AgentError, ConnectionError):
    """No agent answers on the control socket."""


def request(
    path: Path, payload: Mapping[str, Any], *, timeout_s: float
) -> Iterator[dict[str, Any]]:
    """Send one request and yield the answers, the last with a final `state`. Blocking.

    Raises `NoAgentError` with what to do, also when the whole takes longer than `timeout_s`."""
    deadline_s = time.monotonic() + timeout_s
    buffer = b""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(timeout_s)
            sock.connect(str(path))
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                sock.sendall(json.dumps(payload).encode() + b"\n")  # refused at once: read why
            while True:
                while b"\n" not in buffer:
                    sock.settimeout(max(0.001, deadline_s - time.monotonic()))
                    piece = sock.recv(65_536)
                    if not piece or len(buffer) > MAX_ANSWER:
                        raise NoAgentError("the agent broke off without a whole answer")
                    buffer += piece
                line, _, buffer = buffer.partition(b"\n")
                answer = _answer(line)
                yield answer
                if answer.get("state") in FINAL:
                    return
    except (FileNotFoundError, ConnectionRefusedError):
        raise NoAgentError(
            f"no agent runs here (nobody answers on {path}); start it: hearing-room run"
        ) from None
    except PermissionError:
        raise NoAgentError(
            f"{path}: not permitted; be root or in group {GROUP} (adduser YOU {GROUP})"
        ) from None
    except ConnectionResetError:
        raise NoAgentError("the agent broke off without a whole answer") from None
    except TimeoutError:
        raise NoAgentError(f"the agent did not answer within {timeout_s:.0f} s") from None


def _answer(line: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(line)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise NoAgentError("what answers here is no agent: not a JSON object")
    return answer
