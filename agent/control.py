"""The same commands over a Unix socket, and the status file.

The socket takes one JSON line, `{"command": name, "args": {...}}`, and answers with JSON lines;
the last has a `state`. Who may command is decided by the kernel's word about the peer
(SO_PEERCRED): root, the agent's own user, or a member of the group.
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import json
import os
import pwd
import socket
import struct
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.model import AgentError, Command, ConfigError

GROUP = "hearing-room"
MAX_REQUEST = 16 * 1024
MAX_ANSWER = 1024 * 1024
IDLE_S = 10.0
MAX_CLIENTS = 16


class NoAgentError(AgentError, ConnectionError):
    """No agent answers on the control socket."""


@dataclass(frozen=True, slots=True)
class Folders:
    """Where the agent keeps its state, and what lives only as long as it runs."""

    state: Path
    runtime: Path


def folders() -> Folders:
    """$STATE_DIRECTORY and $RUNTIME_DIRECTORY where they are set (systemd sets them), the system's
    folders for root, the XDG folders for a user."""
    state, runtime = _named("STATE_DIRECTORY"), _named("RUNTIME_DIRECTORY")
    if os.geteuid() == 0:
        return Folders(state or Path("/var/lib/hearing-room"), runtime or Path("/run/hearing-room"))
    home = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state")
    base = os.environ.get("XDG_RUNTIME_DIR")
    own = Path(base) / "hearing-room" if base else Path(f"/tmp/hearing-room-{os.getuid()}")  # noqa: S108
    return Folders(state or home / "hearing-room", runtime or own)


def _named(variable: str) -> Path | None:
    first = os.environ.get(variable, "").partition(":")[0]
    return Path(first) if first else None


def make(where: Folders) -> None:
    """Make the folders that are missing. Raises `ConfigError` for one that belongs to another
    user: in a shared folder it could be a trap."""
    for folder in (where.state, where.runtime):
        try:
            folder.mkdir(mode=0o750, parents=True, exist_ok=True)
            owner = folder.stat().st_uid
        except OSError as error:
            raise ConfigError(
                f"{folder}: cannot be made: {error.strerror}; run as the service's user, or set"
                " $STATE_DIRECTORY and $RUNTIME_DIRECTORY"
            ) from None
        if os.geteuid() != 0 and owner != os.geteuid():
            raise ConfigError(f"{folder} belongs to another user (uid {owner})")


# -- the server -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is on the other end, by the kernel's word."""

    pid: int
    uid: int
    gid: int


Dispatch = Callable[[Command, Peer], Awaitable[Mapping[str, Any]]]


class ControlServer:
    """Serves commands on a Unix socket, at most `MAX_CLIENTS` at a time."""

    def __init__(self, path: Path, dispatch: Dispatch, group: str = GROUP) -> None:
        self._path = path
        self._dispatch = dispatch
        self._group = group
        self._server: asyncio.AbstractServer | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen. Raises `ConfigError` where another agent already does."""
        if pid := _listening(self._path):
            raise ConfigError(f"another agent is running on {self._path} (pid {pid})")
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        before = os.umask(0o117)  # the socket must never be open to all, not even for a moment
        try:
            self._server = await asyncio.start_unix_server(
                self._connected, self._path, limit=MAX_REQUEST
            )
        finally:
            os.umask(before)
        with contextlib.suppress(KeyError, OSError):  # no such group, or not a member of it
            os.chown(self._path, -1, grp.getgrnam(self._group).gr_gid)

    async def stop(self) -> None:
        """Stop listening, let go of clients, take the socket away."""
        if self._server is not None:
            self._server.close()
        for task in self._clients:
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        with contextlib.suppress(OSError):
            self._path.unlink()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            answer = await self._answer(reader, writer)
            writer.write(json.dumps(answer, ensure_ascii=False).encode() + b"\n")
            async with asyncio.timeout(IDLE_S):
                await writer.drain()
        except (OSError, TimeoutError, asyncio.CancelledError):
            pass  # the client went away, or we do
        finally:
            self._clients.discard(task)
            writer.close()

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Mapping[str, Any]:
        peer = _peer(writer.get_extra_info("socket"))
        if len(self._clients) > MAX_CLIENTS:
            return _refused("too_many", "too many clients at once; try again")
        if not self._may(peer):
            who = f"uid {peer.uid} may not command; be root or in group {self._group}"
            return _refused("not_allowed", who)
        try:
            async with asyncio.timeout(IDLE_S):
                line = await reader.readuntil(b"\n")
        except TimeoutError:
            return _refused("bad_request", f"no request within {IDLE_S:.0f} s")
        except asyncio.LimitOverrunError:
            return _refused("bad_request", f"a request has at most {MAX_REQUEST} bytes")
        except asyncio.IncompleteReadError:
            return _refused("bad_request", "a request is one JSON line")
        try:
            command = parse_request(line)
        except ValueError as error:
            return _refused("bad_request", str(error))
        return await self._dispatch(command, peer)

    def _may(self, peer: Peer) -> bool:
        if peer.uid in (0, os.geteuid()):
            return True
        try:
            name = pwd.getpwuid(peer.uid).pw_name
            return grp.getgrnam(self._group).gr_gid in os.getgrouplist(name, peer.gid)
        except KeyError:
            return False


def _refused(code: str, message: str) -> dict[str, Any]:
    return {"state": "refused", "code": code, "message": message}


def parse_request(line: bytes) -> Command:
    """A command from a request line. Raises `ValueError` that names the mistake."""
    try:
        raw = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("a request is one JSON line") from None
    if not isinstance(raw, dict):
        raise ValueError("a request is a JSON object")
    name, args, by = raw.get("command"), raw.get("args", {}), raw.get("by", "")
    number = raw.get("id") or uuid.uuid4().hex
    if not isinstance(name, str) or not 0 < len(name) <= 64:
        raise ValueError("`command` must be a name")
    if not isinstance(args, dict) or not all(
        isinstance(v, bool | int | float | str) for v in args.values()
    ):
        raise ValueError("`args` must be an object of numbers, booleans and texts")
    if not isinstance(by, str) or not isinstance(number, str) or len(by) > 64 or len(number) > 64:
        raise ValueError("`by` and `id` must be texts of at most 64 characters")
    return Command(id=number, name=name, args=args, by=by)


def _peer(sock: Any) -> Peer:
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return Peer(*struct.unpack("3i", raw))


def _listening(path: Path) -> int | None:
    """The pid of whoever listens on a socket file, None where nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2)
        try:
            probe.connect(str(path))
        except OSError:
            return None
        return _peer(probe).pid


# -- the client -------------------------------------------------------------------------------


def request(
    path: Path, payload: Mapping[str, Any], *, timeout_s: float
) -> Iterator[dict[str, Any]]:
    """Send one request and yield the answers. Raises `NoAgentError` with what to do."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(timeout_s)
            sock.connect(str(path))
            sock.sendall(json.dumps(payload).encode() + b"\n")
            with sock.makefile("rb") as answers:
                heard = False
                while line := answers.readline(MAX_ANSWER):
                    heard = True
                    yield json.loads(line)
        if not heard:
            raise NoAgentError("the agent closed the connection without an answer")
    except (FileNotFoundError, ConnectionRefusedError):
        raise NoAgentError(
            f"no agent runs here (nobody answers on {path}); start it: hearing-room run"
        ) from None
    except PermissionError:
        raise NoAgentError(
            f"{path}: not permitted; be root or in group {GROUP} (adduser YOU {GROUP})"
        ) from None
    except TimeoutError:
        raise NoAgentError(f"the agent did not answer within {timeout_s:.0f} s") from None


# -- the status file --------------------------------------------------------------------------


def write_status(path: Path, document: Mapping[str, Any]) -> None:
    """Replace the status file in one step: a reader sees the old one or the new one."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(json.dumps(document, ensure_ascii=False, separators=(",", ":")), "utf-8")
    fresh.chmod(0o644)
    fresh.replace(path)


def read_status(path: Path) -> dict[str, Any] | None:
    """The status file, None where there is none or it cannot be read."""
    try:
        document = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def remove_status(path: Path) -> None:
    """Take the status file away: a stopped agent says nothing."""
    with contextlib.suppress(OSError):
        path.unlink()
