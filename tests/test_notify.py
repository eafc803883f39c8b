from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import notify


@pytest.fixture(params=["path", "abstract"])
def systemd(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    """The other end of the protocol: a real datagram socket, of both kinds systemd uses."""
    abstract = request.param == "abstract"
    path = f"@hearing-room-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0" + path[1:] if abstract else path)
        sock.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        yield sock


def heard(sock: socket.socket) -> list[str]:
    return sock.recv(4096).decode().split("\n")


def test_systemd_hears_what_is_said(systemd: socket.socket) -> None:
    assert notify.ready("watching 5 devices")
    assert heard(systemd) == ["READY=1", "STATUS=watching 5 devices"]
    assert notify.ready()
    assert heard(systemd) == ["READY=1"]
    assert notify.watchdog()
    assert heard(systemd) == ["WATCHDOG=1"]
    assert notify.status("Phòng: sẵn sàng")
    assert heard(systemd) == ["STATUS=Phòng: sẵn sàng"]
    assert notify.stopping()
    assert heard(systemd) == ["STOPPING=1"]


def test_a_status_is_one_short_line_and_cannot_say_anything_else(systemd: socket.socket) -> None:
    notify.ready("fine\nWATCHDOG=trigger\n")
    assert heard(systemd) == ["READY=1", "STATUS=fine WATCHDOG=trigger"]
    notify.status("x" * 100_000)
    assert heard(systemd) == ["STATUS=" + "x" * 200]


def test_without_systemd_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert [notify.ready("x"), notify.watchdog(), notify.status("x"), notify.stopping()] == [
        False
    ] * 4


def test_a_full_socket_never_holds_up_the_loop_and_is_heard_again(systemd: socket.socket) -> None:
    while notify.watchdog():
        pass  # until systemd's queue is full
    began_s = time.monotonic()
    assert not notify.watchdog()
    assert time.monotonic() - began_s < 0.5
    systemd.setblocking(False)
    while True:
        try:
            heard(systemd)
        except BlockingIOError:
            break
    assert notify.watchdog()
    assert heard(systemd) == ["WATCHDOG=1"]


@pytest.mark.parametrize("path", ["none", "none/x", "x" * 200, "vsock:2:1234"])
def test_a_socket_that_is_not_there_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", path if ":" in path else str(tmp_path / path))
    assert notify.ready() is False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "there"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "there"))
        assert notify.ready() is True


@pytest.mark.parametrize(
    ("period", "pid", "expected"),
    [
        ("30000000", "", 30.0),
        ("30000000", "self", 30.0),
        ("30000000", "1", None),
        ("500000", "self", 0.5),
        ("0", "", None),
        ("", "", None),
        ("soon", "", None),
        ("-1", "", None),
        ("²", "", None),
    ],
)
def test_the_watchdog_period_is_for_this_process(
    monkeypatch: pytest.MonkeyPatch, period: str, pid: str, expected: float | None
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", period)
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "self" else pid)
    assert notify.watchdog_period_s() == expected


def test_a_descriptor_is_kept_under_its_name_and_forgotten(systemd: socket.socket) -> None:
    reader, writer = os.pipe()
    assert notify.keep("relay.26", writer)
    message, fds, _, _ = socket.recv_fds(systemd, 4096, 4)
    assert message.decode().split("\n") == ["FDSTORE=1", "FDNAME=relay.26"]
    os.close(writer)
    os.write(fds[0], b"still open")
    assert os.read(reader, 64) == b"still open"
    for fd in (*fds, reader):
        os.close(fd)
    assert notify.forget("relay.26")
    assert heard(systemd) == ["FDSTOREREMOVE=1", "FDNAME=relay.26"]


def test_what_systemd_handed_over_is_found_by_name_and_not_inherited() -> None:
    """In a process of its own: descriptors 3 and 4 are the first that systemd gives."""
    code = (
        "import os; from agent import notify;"
        "os.environ['LISTEN_PID'] = str(os.getpid());"
        "print(notify.handed(), [os.get_inheritable(n) for n in (3, 4)],"
        " 'LISTEN_FDS' in os.environ, notify.handed())"
    )
    env = {**os.environ, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "hands.sock:relay.26"}
    # The shell puts something under 3 and 4, as systemd would.
    command = ["bash", "-c", 'exec 3</dev/null 4</dev/null; exec "$@"', "-", sys.executable]
    out = subprocess.run(
        [*command, "-c", code], env=env, capture_output=True, text=True, timeout=60
    )
    assert out.stdout.strip() == "[('hands.sock', 3), ('relay.26', 4)] [False, False] False []"


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "x"},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "-1"},
        {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "0"},
    ],
)
def test_what_was_handed_to_somebody_else_is_not_taken(environ: dict[str, str]) -> None:
    assert notify.handed(environ) == []
    assert not environ
