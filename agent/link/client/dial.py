"""What may block on the way to a broker: files, names, TCP, TLS. Runs in a daemon thread.

A thread, because a look-up cannot be interrupted; a daemon, because an executor's thread would
hold the end of the process until the look-up returns.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

from agent.link.contract import Broker
from agent.model import AgentError

T = TypeVar("T")

Word = Literal[
    "",
    "dns",
    "refused",
    "timeout",
    "tls",
    "tls_time",
    "auth",
    "protocol",
    "network",
    "subscribe",
    "taken_over",
]
"""Why there is no connection, or what is wrong with it. `tls_time`: the broker's certificate is
not yet valid, as for a box whose clock is in the past. `taken_over`: another client has our id."""

_NOT_YET_VALID = 9
"""X509_V_ERR_CERT_NOT_YET_VALID of OpenSSL's x509_vfy.h."""


class LinkLost(AgentError, RuntimeError):
    """No connection, or no longer; `word` says why, the message is for the log."""

    def __init__(self, word: Word, message: str = "") -> None:
        super().__init__(message or word)
        self.word: Word = word


def read_secret(path: Path) -> str:
    """A password file without the line end that editors add."""
    return path.read_text(encoding="utf-8").rstrip("\r\n")


class _Socket(ssl.SSLSocket):
    """Closes when the handshake fails; paho leaves that to the garbage collector."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except Exception:
            self.close()
            raise


def tls_context(broker: Broker) -> ssl.SSLContext:
    """A client context: TLS 1.2 or later, host name checked, trusting `ca_file` alone where it is
    given. Raises `LinkLost("tls")` where a file cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.sslsocket_class = _Socket
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if broker.ca_file is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(cafile=broker.ca_file)
        if broker.certificate_file is not None and broker.key_file is not None:
            # Without a callback OpenSSL would ask the terminal for the passphrase of a key.
            context.load_cert_chain(broker.certificate_file, broker.key_file, password=lambda: "")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise LinkLost("tls", f"certificate files: {error}") from error
    return context


def look_up(host: str, port: int) -> None:
    """Ask for the addresses of a host. Raises `LinkLost("dns")`."""
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise LinkLost("dns", f"{host}: {error}") from error


def why(error: Exception) -> LinkLost:
    """What a failed TCP or TLS connection means."""
    word: Word = "network"
    if isinstance(error, ssl.SSLCertVerificationError):
        word = "tls_time" if error.verify_code == _NOT_YET_VALID else "tls"
    elif isinstance(error, ssl.SSLError):
        word = "tls"
    elif isinstance(error, ConnectionRefusedError):
        word = "refused"
    elif isinstance(error, TimeoutError):
        word = "timeout"
    elif isinstance(error, socket.gaierror):
        word = "dns"
    return LinkLost(word, str(error))


class Errand:
    """Something that blocks, in a thread of its own, whose end nobody has to wait for."""

    def __init__(self, work: Callable[[], None], undo: Callable[[], None]) -> None:
        """`undo` takes back a `work` that ended well when nobody waited for it any more."""
        self._work = work
        self._undo = undo
        self._thread = threading.Thread(target=self._run, name="dial", daemon=True)
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[None] = self._loop.create_future()

    @property
    def stuck(self) -> bool:
        """Whether the thread is still at it."""
        return self._thread.is_alive()

    async def run(self, timeout_s: float) -> None:
        """Raises what the work raised, or `TimeoutError`."""
        self._thread.start()
        try:
            await asyncio.wait_for(self._done, timeout_s)
        finally:
            self._done.cancel()

    def _run(self) -> None:
        error: Exception | None = None
        try:
            self._work()
        except Exception as caught:  # handed to the one who waits
            error = caught
        try:
            self._loop.call_soon_threadsafe(self._deliver, error)
        except RuntimeError:  # the loop is closed: the agent has ended
            if error is None:
                self._undo()

    def _deliver(self, error: Exception | None) -> None:
        if self._done.done():
            if error is None:
                self._undo()
        elif error is not None:
            self._done.set_exception(error)
        else:
            self._done.set_result(None)
