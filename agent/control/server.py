"""The agent's end of the control socket.

Who may command is decided by the kernel's word about the peer: root, the agent's own user, or a
member of the group.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import grp
import json
import logging
import os
import pwd
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.control.protocol import FINAL, GROUP, MAX_REQUEST, parse_request
from agent.model import Command, ConfigError, Refused

log = logging.getLogger("agent.control")

IDLE_S = 10.0
ACCEPT_S = 1.0
MAX_CLIENTS = 16
MAX_PATH = 107  # unix(7): sun_path, without its final zero
_SO_PEERGROUPS = 59  # Linux 4.13; asm-generic, the same on x86_64 and aarch64


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is on the other end, by the kernel's word."""

    pid: int
    uid: int
    gid: int


Dispatch = Callable[[Command, Peer], Awaitable[Mapping[str, Any]]]


class ControlServer:
    """Serves commands on a Unix socket, at most `MAX_CLIENTS` at a time, one command each.

    `dispatch` gives the answer, with its `state`; it may raise `Refused`. A command that runs goes
    on when its client leaves.
    """

    def __init__(
        self,
        path: Path,
        dispatch: Dispatch,
        group: str | None = GROUP,
        *,
        idle_s: float = IDLE_S,
        accept_s: float = ACCEPT_S,
    ) -> None:
        self._path = path
        self._fresh = path.with_name(f".{path.name}.new")
        self._dispatch = dispatch
        self._group = group
        self._idle_s = idle_s
        self._accept_s = accept_s
        self._lock: int | None = None
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()
        self._running: set[asyncio.Task[dict[str, Any]]] = set()

    async def start(self) -> None:
        """Listen. Raises `ConfigError` where another agent does, or where the path is no place
        for a socket."""
        if len(os.fsencode(self._fresh)) > MAX_PATH:
            raise ConfigError(f"{self._path}: too long for a socket; set $RUNTIME_DIRECTORY")
        try:
            self._lock = self._claim()
            listener = self._bind()
        except OSError as error:
            self._release()
            raise ConfigError(f"{self._path}: {error.strerror or error}") from None
        except ConfigError:
            self._release()
            raise
        self._server = await asyncio.start_unix_server(
            self._connected, sock=listener, limit=MAX_REQUEST, backlog=MAX_CLIENTS
        )

    async def stop(self) -> None:
        """Stop listening, take the socket away, let go of clients and of what runs for them."""
        if self._server is None:
            return
        self._server.close()
        with contextlib.suppress(OSError):
            self._path.unlink()
        tasks = self._clients | self._running
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._release()

    def _claim(self) -> int:
        """Hold the lock beside the socket; the kernel lets go of it when this process ends."""
        lock = os.open(
            self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(lock, 20).decode(errors="replace").strip()
            os.close(lock)
            raise ConfigError(f"another agent is running on {self._path}, pid {pid}") from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, b"%d\n" % os.getpid(), 0)
        return lock

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _bind(self) -> socket.socket:
        """A socket under another name, given its owner and mode, then moved into place: nobody
        can reach it before, and a left-over one is replaced."""
        fresh = self._fresh
        fresh.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(str(fresh))
            gid = self._gid()
            if gid is not None:
                with contextlib.suppress(PermissionError):  # not a member: the owner commands
                    os.chown(fresh, -1, gid)
            fresh.chmod(0o660)
            listener.listen(MAX_CLIENTS)
            fresh.replace(self._path)
        except BaseException:
            listener.close()
            fresh.unlink(missing_ok=True)
            raise
        return listener

    def _gid(self) -> int | None:
        if self._group is None:
            return None
        try:
            return grp.getgrnam(self._group).gr_gid
        except KeyError:
            return None

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, TimeoutError, asyncio.CancelledError):
            pass  # the client went away, or we do
        finally:
            self._clients.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            peer = self._admit(writer.get_extra_info("socket"))
            command = await self._hear(reader)
        except Refused as refusal:
            await self._say(writer, _refused(refusal))
            writer.write_eof()
            # Take what is still on its way: closing over unread bytes would break the answer.
            async with asyncio.timeout(min(1.0, self._idle_s)):
                while await reader.read(MAX_REQUEST):
                    pass
            return
        running = asyncio.get_running_loop().create_task(self._run(command, peer))
        self._running.add(running)
        running.add_done_callback(self._running.discard)
        done, _ = await asyncio.wait({running}, timeout=self._accept_s)
        if not done:
            await self._say(writer, {"id": command.id, "state": "accepted", "code": "ok"})
        await self._say(writer, await running)

    def _admit(self, sock: Any) -> Peer:
        if len(self._clients) > MAX_CLIENTS:
            raise Refused("too_many", "too many clients at once; try again")
        peer = _peer(sock)
        gid = self._gid()
        if peer.uid in (0, os.geteuid()) or (gid is not None and gid in _groups(sock, peer)):
            return peer
        who = f"uid {peer.uid} may not command; be root or in group {self._group or GROUP}"
        raise Refused("not_allowed", who)

    async def _hear(self, reader: asyncio.StreamReader) -> Command:
        try:
            async with asyncio.timeout(self._idle_s):
                line = await reader.readuntil(b"\n")
            return parse_request(line)
        except TimeoutError:
            why = f"no request within {self._idle_s:.0f} s"
        except asyncio.LimitOverrunError:
            why = f"a request has at most {MAX_REQUEST} bytes"
        except asyncio.IncompleteReadError:
            why = "a request is one JSON line"
        except ValueError as error:
            why = str(error)
        raise Refused("bad_request", why)

    async def _run(self, command: Command, peer: Peer) -> dict[str, Any]:
        try:
            answer = await self._dispatch(command, peer)
            if answer.get("state") not in FINAL:
                raise ValueError(f"no final state: {answer.get('state')!r}")
        except Refused as refusal:
            return {"id": command.id, **_refused(refusal)}
        except Exception:
            log.exception("command %s failed", command.name)
            return {
                "id": command.id,
                "state": "failed",
                "code": "exception",
                "message": "the agent failed to do it; its log tells why",
            }
        return {"id": command.id, **answer}

    async def _say(self, writer: asyncio.StreamWriter, answer: Mapping[str, Any]) -> None:
        line = json.dumps(answer, ensure_ascii=False, separators=(",", ":"))
        writer.write(line.encode() + b"\n")
        async with asyncio.timeout(self._idle_s):
            await writer.drain()


def _refused(refusal: Refused) -> dict[str, Any]:
    return {"state": "refused", "code": refusal.code, "message": str(refusal)}


def _peer(sock: Any) -> Peer:
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return Peer(*struct.unpack("3i", raw))


def _groups(sock: Any, peer: Peer) -> list[int]:
    """The groups that the peer really has, and no slow directory service asked: those that the
    kernel knows of it; those of its user where the kernel is too old to tell."""
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 1024)
    except OSError:
        with contextlib.suppress(KeyError):
            return os.getgrouplist(pwd.getpwuid(peer.uid).pw_name, peer.gid)
        return [peer.gid]
    return [peer.gid, *struct.unpack(f"{len(raw) // 4}I", raw)]
