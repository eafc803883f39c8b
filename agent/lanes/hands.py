"""The agent's line to hands: one question, one answer, one outstanding. It never kills: an answer
that is late or makes no sense closes the connection, and the next question makes a new one.

By hand the first connection also starts the process; where systemd keeps it, it is only called.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from agent.clock import up_s
from agent.lanes import wire
from agent.model import Fault, Reading, WireError

log = logging.getLogger("agent.hands")

Connect = Callable[[], Awaitable[socket.socket]]
"""Gives a connected socket. Raises `OSError`."""
SOCKET = Path("/run/hearing-room-hands/hands.sock")
"""Where the service manager listens for those who ask hands."""
LOST = "hands_lost"
DEADLINE_S = 2.0
RETRY_S = 1.0
START_S = 20.0
"""How long hands may take from its start by hand to its socket: it works out the room first."""
START_AGAIN_S = 10.0
"""One that ends by itself is not started again more often than this."""
KEPT_ENVIRONMENT = ("PATH", "GPIOZERO_PIN_FACTORY", "LANG")


class HandsLane:
    """One connection to hands, made when it is needed. Times are boot-time seconds."""

    def __init__(self, connect: Connect, clock: Callable[[], float] = up_s) -> None:
        self._connect = connect
        self._clock = clock
        self._lock = asyncio.Lock()
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._number = 0
        self._not_before_s = float("-inf")
        self._said = False
        self.hello: wire.Hello | None = None
        """How hands introduced itself, the last time."""
        self.lost_s: float | None = clock()
        """Since when there has been no answer; None while there is one."""

    async def ask(
        self,
        kind: str,
        ask: str,
        args: Mapping[str, Any] | None = None,
        *,
        words: Collection[str] = (),
        deadline_s: float = DEADLINE_S,
    ) -> Reading:
        """The answer; `no_answer: hands_lost` where there is none. `words` is the closed list of
        what may stand in it."""
        async with self._lock:
            asked_s = self._clock()
            if self._writer is None and asked_s < self._not_before_s:
                return Reading(fault=Fault.NO_ANSWER, why=LOST, asked_s=asked_s)
            try:
                async with asyncio.timeout(None if self._writer else START_S):
                    await self._open()
                async with asyncio.timeout(deadline_s):
                    reading = await self._exchange(kind, ask, dict(args or {}), words, deadline_s)
            except (OSError, TimeoutError, WireError, EOFError) as error:
                self._lose(str(error) or "late")
                return Reading(fault=Fault.NO_ANSWER, why=LOST, asked_s=asked_s)
            except BaseException:  # cancelled: its answer must not pass for the next one
                self._close()
                raise
            self._found()
            return reading

    async def close(self) -> None:
        """Hang up; hands goes on."""
        writer = self._writer
        self._close()
        if writer is not None:
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _open(self) -> None:
        if self._writer is not None:
            return
        sock = await self._connect()
        self._reader, self._writer = await asyncio.open_unix_connection(
            sock=sock, limit=wire.MAX_LINE
        )
        self.hello = wire.decode_hello(await self._line())

    async def _exchange(
        self, kind: str, ask: str, args: dict[str, Any], words: Collection[str], deadline_s: float
    ) -> Reading:
        assert self._writer is not None
        self._number += 1
        question = wire.Question(self._number, kind, ask, deadline_s, args)
        self._writer.write(wire.encode_question(question))
        return wire.decode(await self._line(), words, number=self._number, ask=ask)

    async def _line(self) -> bytes:
        assert self._reader is not None
        try:
            return await self._reader.readuntil(b"\n")
        except asyncio.IncompleteReadError:
            raise EOFError("hung up") from None
        except asyncio.LimitOverrunError:
            raise WireError(f"a line of more than {wire.MAX_LINE} bytes") from None

    def _found(self) -> None:
        if self._said:
            log.info("hands answers again")
        self._said, self.lost_s = False, None

    def _lose(self, why: str) -> None:
        self._close()
        now_s = self._clock()
        self._not_before_s = now_s + RETRY_S
        if self.lost_s is None:
            self.lost_s = now_s
        if not self._said:
            log.warning("hands does not answer: %s", why)
        self._said = True

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


def by_socket(path: Path) -> Connect:
    """Call hands where systemd keeps it."""

    async def connect() -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        try:
            sock.connect(str(path))
        except OSError:
            sock.close()
            raise
        return sock

    return connect


class ByHand:
    """hands as a child of this process, found again by a later one through its socket."""

    def __init__(
        self, config: Path, runtime: Path, state: Path, clock: Callable[[], float] = up_s
    ) -> None:
        self.socket = runtime / "hands.sock"
        self._state = state / "hands"
        self._config = config
        self._call = by_socket(self.socket)
        self._clock = clock
        self._child: subprocess.Popen[bytes] | None = None
        self._not_before_s = float("-inf")

    def start_no_more(self) -> None:
        """From now on only one that is there is called: the agent is about to end."""
        self._not_before_s = float("inf")

    async def connect(self) -> socket.socket:
        """A connection to the one that is there, else to one that is started now."""
        with contextlib.suppress(OSError):
            return await self._call()
        if self._child is None or self._child.poll() is not None:
            now_s = self._clock()
            if now_s < self._not_before_s:
                raise OSError(f"hands ended with {self._ended_with}; its log tells why")
            self._not_before_s = now_s + START_AGAIN_S
            self._state.mkdir(mode=0o700, exist_ok=True)
            self._child = self._start()
        while self._child.poll() is None:
            with contextlib.suppress(OSError):
                return await self._call()
            await asyncio.sleep(0.02)
        raise OSError(f"hands ended with {self._ended_with}; its log tells why")

    async def ended(self, within_s: float) -> bool:
        """Wait for the child that was told to stop; also reaps it."""
        if self._child is None:
            return True
        for _ in range(int(within_s / 0.02)):
            if self._child.poll() is not None:
                return True
            await asyncio.sleep(0.02)
        return False

    @property
    def _ended_with(self) -> int | None:
        return self._child.returncode if self._child else None

    def _start(self) -> subprocess.Popen[bytes]:
        """In a session of its own: what ends the agent does not end hands."""
        command = [sys.executable, "-P", "-s", "-m", "agent.hands.main"]
        command += ["--config", str(self._config), "--state", str(self._state)]
        command += ["--socket", str(self.socket)]
        env = {key: os.environ[key] for key in KEPT_ENVIRONMENT if key in os.environ}
        env |= {"PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=env,
            cwd="/",
            start_new_session=True,
        )
