"""The life of a real hands: signals, crashes, a second one, a start as systemd does it."""

from __future__ import annotations

import array
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from process_stage import CONFIG, Hands, asking, until


@pytest.fixture
def hands(tmp_path: Path) -> Iterator[Hands]:
    made = Hands(tmp_path)
    yield made
    made.end()


def switch(hands: Hands, relay: str, on: bool) -> None:
    with asking(hands) as client:
        client.ask("hands", "say", mode="idle", state="ready")
        assert client.ask("relay", "set", relay=relay, on=on)["fault"] is None


def state(hands: Hands, relay: str) -> bool:
    with asking(hands) as client:
        return bool(client.ask("relay", "read", relay=relay)["values"]["readback_on"])


def news(hands: Hands) -> list[tuple[str, bool, str]]:
    """What was switched and not told yet: relay, on, why."""
    found = []
    with asking(hands) as client:
        after = 0
        while values := (answer := client.ask("hands", "wait", after=after, within_s=0))["values"]:
            after = values["number"]
            found.append((answer["identity"]["device"], values["on"], values["cause"]))
    return found


def test_a_stop_makes_safe_a_hand_over_does_not_and_a_kill_cannot(hands: Hands) -> None:
    hands.start()
    for relay in ("lamp", "heater"):
        switch(hands, relay, True)
    news(hands)
    # A hand-over: nothing moves.
    assert hands.signal(signal.SIGUSR2) == 0
    assert not hands.socket.exists()
    assert {name: kept["on"] for name, kept in hands.kept["relays"].items()} == {
        "lamp": True,
        "heater": True,
    }
    hands.start()
    assert (state(hands, "lamp"), state(hands, "heater")) == (True, True)
    assert news(hands) == [("lamp", True, "restore"), ("heater", True, "restore")]
    # Killed: as it was, over a stale socket and a lock that died with its holder.
    assert hands.signal(signal.SIGKILL) == -signal.SIGKILL
    assert hands.socket.exists()
    hands.start()
    assert (state(hands, "lamp"), state(hands, "heater")) == (True, True)
    news(hands)
    # A stop: the heater is off, also for the next one, which tells of it.
    assert hands.signal(signal.SIGTERM) == 0
    hands.start()
    assert (state(hands, "lamp"), state(hands, "heater")) == (True, False)
    assert news(hands) == [("heater", False, "stop"), ("lamp", True, "restore")]
    assert "Traceback" not in hands.log


def test_a_second_one_is_refused_and_disturbs_nothing(hands: Hands) -> None:
    hands.start()
    switch(hands, "lamp", True)
    with asking(hands) as client:
        assert hands.run() == 75
        assert "another hands is there already" in (hands.folder / "other.log").read_text()
        assert client.ask("relay", "read", relay="lamp")["values"]["on"] is True
    assert hands.answers()


def test_what_it_was_asked_is_answered_before_it_ends(hands: Hands) -> None:
    hands.start()
    with asking(hands) as client:
        assert client.ask("hands", "stop")["fault"] is None
        assert client.hear() == {}
    assert hands.process is not None
    assert hands.process.wait(10) == 0


def test_a_wrong_room_is_an_error_at_first_and_a_warning_to_one_that_held_before(
    hands: Hands,
) -> None:
    hands.config.write_text("[relay.lamp]\npin = 99\n")
    assert hands.run() == 78
    assert "pin" in (hands.folder / "other.log").read_text()
    hands.config.write_text(CONFIG)
    hands.start()
    switch(hands, "lamp", True)
    hands.signal(signal.SIGKILL)
    hands.config.write_text("nonsense")
    hands.start()
    assert state(hands, "lamp") is True
    assert "as they were before" in hands.log


@pytest.mark.parametrize("options", [[], ["--socket", "/nowhere/hands.sock"], ["--user", "no one"]])
def test_without_a_place_to_be_asked_it_does_not_begin(hands: Hands, options: list[str]) -> None:
    argv = [*hands.argv[:4], "--config", str(hands.config), "--state", str(hands.folder), *options]
    if options[:1] == ["--user"]:
        argv += hands.own_socket
    done = subprocess.run(argv, env=hands.env({}), capture_output=True, text=True, timeout=60)
    assert done.returncode == 75
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_the_room_is_read_again_while_everything_goes_on(hands: Hands) -> None:
    """The child that reads it may take long, or hang: a pipe in the place of the file."""
    hands.start()
    switch(hands, "lamp", True)
    hands.config.unlink()
    os.mkfifo(hands.config)
    with asking(hands) as client:
        before = client.ask("hands", "about")["identity"]["layout"]
        assert client.ask("hands", "reload")["fault"] is None
        for _ in range(3):
            assert client.ask("relay", "read", relay="lamp")["fault"] is None
            assert client.ask("hands", "reload")["fault"] is None, "one at a time is enough"
        client.ask("relay", "pulse", relay="heater")
        until(lambda: client.ask("relay", "read", relay="heater")["values"]["on"] is False)
        hands.config.write_text(CONFIG.replace("pin = 20", "pin = 21"))
        until(lambda: client.ask("hands", "about")["identity"]["layout"] != before)
        assert client.ask("relay", "read", relay="lamp")["values"]["on"] is True
        assert "nothing after" not in hands.log, "nobody was given up for another one"
        # And a wrong file changes nothing.
        now = client.ask("hands", "about")["identity"]["layout"]
        client.ask("hands", "reload")
        hands.config.write_text("nonsense")
        until(lambda: "has no layout" in hands.log)
        assert client.ask("hands", "about")["identity"]["layout"] == now
        # Nor does one that hangs keep hands from ending.
        client.ask("hands", "reload")
        (child,) = until(lambda: children_of(hands.pid))
    assert hands.signal(signal.SIGTERM) == 0
    until(lambda: not Path(f"/proc/{child}").exists())


def children_of(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == pid:
                found.append(int(entry.name))
    return found


# -- as systemd does it ---------------------------------------------------------------------------

STARTER = """
import fcntl, os, sys
names, fds = sys.argv[1], [int(n) for n in sys.argv[2].split(",")]
high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 50) for fd in fds]
os.closerange(3, 50)
for number, fd in enumerate(high):
    os.dup2(fd, 3 + number)
    os.close(fd)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(fds)), "LISTEN_FDNAMES": names}
os.execv(sys.argv[3], sys.argv[3:])
"""


class Manager:
    """A service manager with a store of descriptors, as far as hands sees it."""

    def __init__(self, hands: Hands) -> None:
        self.hands = hands
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(hands.socket))
        self.listener.listen(8)
        self._notes = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notes.bind(str(hands.folder / "notify"))
        self._notes.setblocking(False)
        self.store: dict[str, int] = {}
        self.heard: list[str] = []

    def start(self, stored: dict[str, int], **env: str) -> None:
        """Start the service with its socket and what is in the store."""
        fds = {"hands.socket": self.listener.fileno(), **stored}
        argv = [*self.hands.argv[:4], "--config", str(self.hands.config)]
        numbers = ",".join(str(fd) for fd in fds.values())
        command = [sys.executable, "-c", STARTER, ":".join(fds), numbers, *argv]
        env |= {
            "NOTIFY_SOCKET": str(self.hands.folder / "notify"),
            "STATE_DIRECTORY": str(self.hands.folder),
        }
        with (self.hands.folder / "hands.log").open("ab") as log:
            self.hands.process = subprocess.Popen(
                command,
                env=self.hands.env(env),
                stderr=log,
                pass_fds=list(fds.values()),
                cwd="/",
            )

    def listen(self) -> list[str]:
        """All that was told so far, one assignment each."""
        while True:
            try:
                data, rights, _, _ = self._notes.recvmsg(4096, socket.CMSG_SPACE(16))
            except BlockingIOError:
                return self.heard
            self.heard += data.decode().splitlines()
            for _, _, raw in rights:
                for fd in array.array("i", raw[: len(raw) - len(raw) % 4]):
                    os.close(fd)

    def close(self) -> None:
        self.listener.close()
        self._notes.close()


@pytest.fixture
def manager(hands: Hands) -> Iterator[Manager]:
    made = Manager(hands)
    yield made
    hands.end()
    made.close()


def test_it_takes_its_socket_from_the_manager_and_what_is_no_line_is_closed(
    hands: Hands, manager: Manager
) -> None:
    with (hands.folder / "no-line").open("w") as file, (hands.folder / "junk").open("w") as junk:
        manager.start({"relay.26": file.fileno(), "relay.99": file.fileno(), "x": junk.fileno()})
        with asking(hands) as client:  # the socket is there before the service
            assert client.hello["pid"] == hands.pid
            client.ask("hands", "say", mode="idle", state="ready")
            assert client.ask("relay", "set", relay="lamp", on=True)["fault"] is None
    assert not any("no-line" in name or "junk" in name for name in hands.descriptors)
    assert "READY=1" in manager.listen()
    assert {"FDNAME=relay.26", "FDNAME=relay.99"} <= set(manager.heard), "out of the store"
    assert manager.heard.count("FDSTOREREMOVE=1") == 2
    # The socket is the manager's: it stays when the service ends, and the next one takes it.
    assert hands.signal(signal.SIGTERM) == 0
    assert "STOPPING=1" in manager.listen()
    assert hands.socket.exists()
    waiting = socket.socket(socket.AF_UNIX)
    waiting.connect(str(hands.socket))
    manager.start({})
    waiting.settimeout(20)
    assert b"proto" in waiting.recv(200)
    waiting.close()


def test_the_watchdog_is_fed_in_time_and_not_with_every_question(
    hands: Hands, manager: Manager
) -> None:
    no_light = CONFIG.partition("[indicator")[0]  # nothing blinks: only the watchdog wakes it
    hands.config.write_text(no_light)
    manager.start({}, WATCHDOG_USEC="400000")
    until(lambda: manager.listen().count("WATCHDOG=1") >= 3)
    with asking(hands) as client:
        began_s, before = time.monotonic(), manager.listen().count("WATCHDOG=1")
        for _ in range(1_000):
            client.ask("hands", "about")
        most = (time.monotonic() - began_s) / 0.1 + 2
    assert manager.listen().count("WATCHDOG=1") - before <= most
    # A stuck one feeds no more.
    os.kill(hands.pid, signal.SIGSTOP)
    manager.listen()
    manager.heard.clear()
    time.sleep(0.05)
    assert manager.listen() == []
    os.kill(hands.pid, signal.SIGCONT)
    until(lambda: "WATCHDOG=1" in manager.listen())


def test_a_descriptor_that_is_announced_and_not_there_is_said_and_done_without(
    hands: Hands,
) -> None:
    code = (
        "import os, sys; os.environ['LISTEN_PID'] = str(os.getpid());"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    argv = [sys.executable, "-c", code, *hands.argv]
    env = hands.env({"LISTEN_FDS": "2", "LISTEN_FDNAMES": "hands.socket:relay.26"})
    with (hands.folder / "hands.log").open("ab") as log:
        hands.process = subprocess.Popen(argv, env=env, stderr=log, cwd="/")
    until(hands.answers, 30)
    assert hands.log.count("announced and is not there") == 2


def test_a_client_that_came_before_the_service_was_ready_is_served(hands: Hands) -> None:
    manager = Manager(hands)
    early = socket.socket(socket.AF_UNIX)
    early.connect(str(hands.socket))
    early.settimeout(20)
    try:
        manager.start({})
        assert b"proto" in early.recv(200)
        with asking(hands) as late:
            assert late.hello
    finally:
        early.close()
        hands.end()
        manager.close()
