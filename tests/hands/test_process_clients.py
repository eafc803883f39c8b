"""Clients of every kind ask a real hands: whatever one does, the others are served."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from process_stage import Client, Hands, asking, until

from agent.lanes import wire


@pytest.fixture(scope="module")
def hands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hands]:
    made = Hands(tmp_path_factory.mktemp("hands")).start()
    yield made
    assert made.process is not None
    assert made.process.poll() is None, made.log
    made.end()
    assert "Traceback" not in made.log


@pytest.fixture
def client(hands: Hands) -> Iterator[Client]:
    with asking(hands) as made:
        made.ask("hands", "say", mode="idle", state="ready")
        yield made
        assert made.ask("relay", "read", relay="lamp")["fault"] is None, "nobody else is harmed"


def test_it_introduces_itself_and_is_confined(hands: Hands, client: Client) -> None:
    hello = wire.decode_hello(json.dumps(client.hello).encode())
    assert hello.pid == hands.pid
    assert {"no_new_privs", "no_core", "seccomp"} <= set(hello.confined)


def test_it_has_no_network(hands: Hands) -> None:
    status = Path(f"/proc/{hands.pid}/status").read_text()
    assert "Seccomp:\t2" in status
    assert "NoNewPrivs:\t1" in status


def test_a_half_line_waits_for_its_other_half(hands: Hands, client: Client) -> None:
    line = wire.encode_question(wire.Question(1, "relay", "read", 5.0, {"relay": "lamp"}))
    with asking(hands) as slow:
        slow.sock.sendall(line[:20])
        assert client.ask("hands", "about")["values"]["relays"] == 2
        slow.sock.sendall(line[20:] + line)
        assert (slow.hear()["id"], slow.hear()["id"]) == (1, 1)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\n",
        b"\xff\xff\xff\n",
        b"{}\n",
        b"null\n",
        b"[1,2]\n",
        b'{"id":true,"kind":"relay","ask":"read","deadline_s":5,"settings":{}}\n',
        b'{"id":1,"kind":"relay","ask":"read","deadline_s":-5,"settings":{}}\n',
        b'{"id":1,"kind":"relay","ask":"read","deadline_s":NaN,"settings":{}}\n',
        b'{"id":1,"kind":5,"ask":"read","deadline_s":5,"settings":{}}\n',
        b'{"id":1,"kind":"relay","ask":"read","deadline_s":5,"settings":[]}\n',
        b"[" * 16_000 + b"\n",
        b"x" * 16_385,
        b"x" * 200_000,
        b"GET / HTTP/1.1\r\n\r\n",
    ],
    ids=lambda garbage: repr(garbage[:40]),
)
def test_who_talks_nonsense_is_hung_up_on(hands: Hands, client: Client, garbage: bytes) -> None:
    with asking(hands) as rude:
        rude.sock.sendall(garbage)
        assert rude.hear() == {}


@pytest.mark.parametrize("within_s", ["soon", None, [], {}, "0.01", False])
def test_an_odd_wait_ends_nothing(hands: Hands, client: Client, within_s: object) -> None:
    answer = client.ask("hands", "wait", after=0, within_s=within_s)
    assert (answer["why"] == "not_understood") is (within_s not in ("0.01", False))


def test_who_does_not_take_his_answers_is_left(hands: Hands, client: Client) -> None:
    def ask_on_and_on(deaf: Client) -> None:
        for _ in range(100_000):
            deaf.send("hands", "about")

    with asking(hands) as deaf, pytest.raises((BrokenPipeError, ConnectionResetError)):
        ask_on_and_on(deaf)  # were hands stuck with him, it would be a timeout
    assert client.ask("hands", "about")["fault"] is None


def test_the_ninth_is_turned_away_and_comes_when_one_has_left(hands: Hands) -> None:
    eight = [hands.client() for _ in range(8)]
    assert all(client.hello for client in eight)
    ninth = hands.client()
    assert ninth.hello == {}
    ninth.close()
    assert all(client.ask("hands", "about")["fault"] is None for client in eight)
    eight.pop().close()
    until(hands.answers)
    for client in eight:
        client.close()
    until(lambda: sum("socket:" in name for name in hands.descriptors) == 1)


def test_a_second_question_ends_the_wait_of_the_first(client: Client) -> None:
    first = client.send("hands", "wait", after=10**14, within_s=60)
    second = client.send("relay", "read", relay="lamp")
    answers = [client.hear(), client.hear()]
    assert [a["id"] for a in answers] == [first, second]
    assert answers[0]["values"] == {}
    assert answers[1]["values"]["on"] is False


def test_questions_in_a_row_are_answered_in_a_row(client: Client) -> None:
    numbers = [client.send("hands", "about") for _ in range(50)]
    assert [client.hear()["id"] for _ in numbers] == numbers


def test_a_wait_ends_with_its_time(client: Client) -> None:
    while client.ask("hands", "wait", after=10**14, within_s=0)["values"]:
        client.ask("hands", "wait", after=_newest(client), within_s=0)
    client.sock.settimeout(3.0)
    for _ in range(4):  # what wakes it every few seconds wakes it too late for one of them
        began_s = time.monotonic()
        answer = client.ask("hands", "wait", after=_newest(client), within_s=0.1)
        assert (answer["fault"], answer["values"]) == (None, {})
        assert time.monotonic() - began_s > 0.09
    for gone in (-5, 0):
        assert client.ask("hands", "wait", after=_newest(client), within_s=gone)["values"] == {}


def _newest(client: Client) -> int:
    return int(client.ask("hands", "say", mode="idle", state="ready")["values"]["number"])


def test_who_waits_hears_at_once_what_another_one_did(hands: Hands, client: Client) -> None:
    client.ask("hands", "wait", after=_newest(client), within_s=0)
    with asking(hands) as waiting:
        waiting.send("hands", "wait", after=_newest(client), within_s=30)
        client.ask("relay", "set", relay="lamp", on=True, by="lan")
        news = waiting.hear()
        assert news["values"]["event"] == "switched"
        assert news["identity"] == {"device": "lamp", "by": "lan"}
        waiting.send("hands", "wait", after=news["values"]["number"], within_s=30)
        client.ask("relay", "set", relay="lamp", on=False)
        assert waiting.hear()["values"]["on"] is False


def test_who_goes_in_the_midst_of_a_wait_is_missed_by_nobody(hands: Hands, client: Client) -> None:
    before = len(hands.descriptors)
    for _ in range(20):
        gone = hands.client()
        gone.send("hands", "wait", after=10**14, within_s=60)
        gone.send("relay", "pulse", relay="lamp")
        gone.close()
    client.ask("relay", "set", relay="lamp", on=False)
    until(lambda: len(hands.descriptors) == before)


def test_ten_thousand_questions_leave_nothing_behind(hands: Hands, client: Client) -> None:
    questions = [
        ("relay", "read", {"relay": "lamp"}),
        ("indicator", "read", {"light": "status"}),
        ("button", "read", {"button": "button"}),
        ("hands", "say", {"mode": "idle", "state": "ready"}),
        ("hands", "wait", {"after": 0, "within_s": 0}),
        ("hands", "sing", {}),
    ]

    def ask(rounds: int) -> None:
        for number in range(rounds):
            kind, what, args = questions[number % len(questions)]
            client.ask(kind, what, **args)

    ask(1_000)
    descriptors, resident_kib = hands.descriptors, hands.status("VmRSS")
    ask(10_000)
    assert hands.descriptors == descriptors
    assert hands.status("VmRSS") - resident_kib < 512


def test_an_idle_hands_sleeps(hands: Hands, client: Client) -> None:
    """Counts of wake-ups: how long they take is for the benchmarks."""

    def wake_ups(seconds: float) -> int:
        before = hands.status("voluntary_ctxt_switches")
        time.sleep(seconds)
        return hands.status("voluntary_ctxt_switches") - before

    client.ask("hands", "say", mode="idle", state="ready")
    time.sleep(0.3)
    assert wake_ups(1.5) <= 3, "a steady light"
    client.ask("hands", "say", mode="idle", state="at_risk")
    time.sleep(0.3)
    assert wake_ups(1.5) <= 8, "a light that changes once a second"


def test_many_at_once_are_each_answered(hands: Hands) -> None:
    wrong: list[object] = []

    def ask(relay: str) -> None:
        with asking(hands) as client:
            for number in range(200):
                answer = client.ask("relay", "read", relay=relay)
                if answer["fault"] is not None or "on" not in answer["values"]:
                    wrong.append((number, answer))

    threads = [threading.Thread(target=ask, args=(name,)) for name in ("lamp", "heater") * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


STRANGER = """
import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
sock = socket.socket(socket.AF_UNIX)
sock.settimeout(10)
sock.connect(chr(0) + sys.argv[1])
print(sock.recv(100))
"""


def stranger(name: str) -> str:
    """What another user hears first."""
    return subprocess.run(
        [sys.executable, "-c", STRANGER, name], capture_output=True, text=True, timeout=30
    ).stdout.strip()


@pytest.mark.parametrize(("user", "heard"), [(None, False), ("nobody", True)])
def test_only_root_its_own_user_and_the_agents_may_ask(
    tmp_path: Path, user: str | None, heard: bool
) -> None:
    import os

    from process_stage import ROOT

    if os.geteuid() != 0:
        pytest.skip("to become somebody else takes root")
    name = f"hands-{os.getpid()}-{heard}"
    hands = Hands(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0" + name)
        listener.listen(8)
        argv = [*hands.argv[:4], "--config", str(hands.config), "--state", str(tmp_path)]
        argv += ["--user", user] if user else []
        code = (
            "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ['LISTEN_PID'] ="
            " str(os.getpid()); os.execv(sys.argv[2], sys.argv[2:])"
        )
        env = hands.env({"LISTEN_FDS": "1", "PYTHONPATH": str(ROOT)})
        with (tmp_path / "hands.log").open("ab") as log:
            hands.process = subprocess.Popen(
                [sys.executable, "-c", code, str(listener.fileno()), *argv],
                env=env,
                stderr=log,
                pass_fds=[listener.fileno()],
                cwd="/",
            )
        try:
            own = Client("\0" + name)
            assert own.hello["pid"] == hands.pid
            own.close()
            assert ("proto" in stranger(name)) is heard
        finally:
            hands.end()
