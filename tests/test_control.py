"""The control socket: real sockets, real peers of other users, and every kind of bad client."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.control import ControlServer, NoAgentError, Peer, parse_request, request
from agent.control.server import MAX_CLIENTS
from agent.model import Command, ConfigError, Refused

NOBODY = 65_534
ROOT = os.geteuid() == 0


async def echo(command: Command, peer: Peer) -> dict[str, Any]:
    return {"state": "done", "code": "ok", "effect": {"name": command.name, **command.args}}


async def until(met: Callable[[], bool]) -> None:
    while not met():
        await asyncio.sleep(0.005)


async def talk(path: Path, data: bytes) -> list[dict[str, Any]]:
    """One whole conversation: what is sent, and every answer until the server closes."""
    reader, writer = await asyncio.open_unix_connection(path, limit=4_000_000)
    with contextlib.suppress(ConnectionError):
        writer.write(data)
        await writer.drain()
    answers = [json.loads(line) async for line in reader]
    writer.close()
    return answers


async def ask(path: Path, name: str = "check", **args: Any) -> list[dict[str, Any]]:
    return await talk(path, json.dumps({"command": name, "args": args}).encode() + b"\n")


def serving(
    path: Path,
    work: Callable[[ControlServer], Awaitable[Any]],
    dispatch: Callable[[Command, Peer], Awaitable[dict[str, Any]]] = echo,
    **settings: Any,
) -> Any:
    async def life() -> Any:
        async with asyncio.timeout(20):
            server = ControlServer(path, dispatch, **settings)
            await server.start()
            try:
                return await work(server)
            finally:
                await server.stop()

    return asyncio.run(life())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user of this machine may enter."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


# -- commands -------------------------------------------------------------------------------------


def test_a_command_is_carried_out_and_answered_on_one_line(path: Path) -> None:
    seen: list[tuple[Command, Peer]] = []

    async def dispatch(command: Command, peer: Peer) -> dict[str, Any]:
        seen.append((command, peer))
        return await echo(command, peer)

    async def work(_: ControlServer) -> None:
        line = (
            b'{"id":"7d1e","command":"check","args":{"device":"cam-front"},"by":"lan","ttl_s":5}\n'
        )
        assert await talk(path, line) == [
            {
                "id": "7d1e",
                "state": "done",
                "code": "ok",
                "effect": {"name": "check", "device": "cam-front"},
            }
        ]
        await ask(path)

    serving(path, work, dispatch)
    (command, peer), (second, _) = seen
    assert command == Command("7d1e", "check", {"device": "cam-front"}, 5.0, "lan", "")
    assert peer == Peer(os.getpid(), os.geteuid(), os.getegid())
    assert len(second.id) == 32


def test_a_slow_command_is_accepted_first(path: Path) -> None:
    async def dispatch(command: Command, peer: Peer) -> dict[str, Any]:
        await asyncio.sleep(0.04)
        return {"state": "done", "code": "ok"}

    async def work(_: ControlServer) -> None:
        answers = await ask(path)
        assert [a["state"] for a in answers] == ["accepted", "done"]
        assert answers[0]["id"] == answers[1]["id"]

    serving(path, work, dispatch, accept_s=0.01)


def test_two_clients_are_served_at_once(path: Path) -> None:
    both = asyncio.Barrier(2)

    async def dispatch(command: Command, peer: Peer) -> dict[str, Any]:
        await both.wait()  # neither gets through alone
        return await echo(command, peer)

    async def work(_: ControlServer) -> None:
        one, two = await asyncio.gather(ask(path, "check"), ask(path, "report"))
        assert (one[0]["effect"]["name"], two[0]["effect"]["name"]) == ("check", "report")

    serving(path, work, dispatch)


def test_a_refusal_and_a_failure_are_answers_too(path: Path) -> None:
    async def dispatch(command: Command, peer: Peer) -> dict[str, Any]:
        if command.name == "refuse":
            raise Refused("in_session", "a hearing is running")
        if command.name == "break":
            raise RuntimeError("secret detail")
        return {"state": "sort of"} if command.name == "nonsense" else await echo(command, peer)

    async def work(_: ControlServer) -> None:
        (refused,) = await ask(path, "refuse")
        assert (refused["state"], refused["code"]) == ("refused", "in_session")
        assert refused["message"] == "a hearing is running"
        for name in ("break", "nonsense"):
            (failed,) = await ask(path, name)
            assert (failed["state"], failed["code"]) == ("failed", "exception")
            assert "secret" not in json.dumps(failed)
        assert (await ask(path))[0]["state"] == "done"

    serving(path, work, dispatch)


def test_a_command_goes_on_when_its_client_leaves(path: Path) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def dispatch(command: Command, peer: Peer) -> dict[str, Any]:
        begun.set()
        await asyncio.sleep(0.03)
        ended.set()
        return {"state": "done", "code": "ok"}

    async def work(_: ControlServer) -> None:
        _, writer = await asyncio.open_unix_connection(path)
        writer.write(b'{"command":"relay.set"}\n')
        await begun.wait()
        writer.close()
        await ended.wait()
        assert (await ask(path))[-1]["state"] == "done"

    serving(path, work, dispatch, accept_s=0.005)


def test_stopping_lets_go_of_clients_and_takes_the_socket_away(path: Path) -> None:
    async def dispatch(command: Command, peer: Peer) -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def life() -> None:
        async with asyncio.timeout(5):
            server = ControlServer(path, dispatch)
            await server.start()
            idle = asyncio.create_task(talk(path, b""))
            busy = asyncio.create_task(ask(path))
            await until(lambda: len(server._running) == 1 and len(server._clients) == 2)
            await server.stop()
            assert await idle == []
            assert await busy == []
            assert not path.exists()

    asyncio.run(life())
    serving(path, lambda _: ask(path))  # and the next agent may start


# -- bad clients -----------------------------------------------------------------------------------


BAD = {
    "garbage": b"\x00\xff\xfe garbage\n",
    "no line": b'{"command":"check"}',
    "nothing": b"",
    "no object": b'["check"]\n',
    "no command": b"{}\n",
    "empty command": b'{"command":""}\n',
    "number as command": b'{"command":7}\n',
    "long command": b'{"command":"' + b"x" * 65 + b'"}\n',
    "unknown key": b'{"command":"check","shell":"rm"}\n',
    "args no object": b'{"command":"check","args":[1]}\n',
    "args nested": b'{"command":"check","args":{"a":{"b":1}}}\n',
    "args null": b'{"command":"check","args":{"a":null}}\n',
    "args not finite": b'{"command":"check","args":{"a":1e999}}\n',
    "args NaN": b'{"command":"check","args":{"a":NaN}}\n',
    "args too big": b'{"command":"check","args":{"a":99999999999999999999}}\n',
    "args too long": b'{"command":"check","args":{"a":"' + b"x" * 257 + b'"}}\n',
    "args too many": json.dumps({"command": "c", "args": dict.fromkeys("abcdefghijklmnopq", 1)})
    .encode()
    .replace(b" ", b"")
    + b"\n",
    "half a character": b'{"command":"check","by":"\\ud800"}\n',
    "control characters": b'{"command":"check","by":"a\\u0007b"}\n',
    "number as id": b'{"command":"check","id":7}\n',
    "text as ttl": b'{"command":"check","ttl_s":"5"}\n',
    "true as ttl": b'{"command":"check","ttl_s":true}\n',
    "no ttl": b'{"command":"check","ttl_s":0}\n',
    "deep": b'{"command":' + b"[" * 8_000 + b"\n",
    "too long": b'{"command":"check","by":"' + b"x" * 20_000 + b'"}\n',
    "flood": b"x" * 1_000_000,
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_a_malformed_request_is_refused_with_a_reason(path: Path, data: bytes) -> None:
    async def dispatch(command: Command, peer: Peer) -> dict[str, Any]:
        assert command.name == "good"
        return await echo(command, peer)

    async def work(_: ControlServer) -> None:
        if data.endswith(b"\n") or len(data) > 20_000:
            (answer,) = await talk(path, data)
        else:  # a client that says half of it and closes its end
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(data)
            writer.write_eof()
            answer = json.loads(await reader.readline())
            writer.close()
        assert (answer["state"], answer["code"]) == ("refused", "bad_request")
        assert len(answer["message"]) > 10
        assert (await ask(path, "good"))[0]["state"] == "done"

    serving(path, work, dispatch)


def test_a_client_that_says_nothing_for_long_is_let_go(path: Path) -> None:
    """Also one that keeps saying a little: the time counts for the whole line."""

    async def work(_: ControlServer) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        answer = asyncio.create_task(reader.readline())
        while not answer.done():
            writer.write(b" ")
            await asyncio.sleep(0.01)
        refused = json.loads(await answer)
        assert (refused["state"], refused["code"]) == ("refused", "bad_request")
        assert await reader.read() == b""
        writer.close()
        assert (await ask(path))[0]["state"] == "done"

    serving(path, work, idle_s=0.04)


def test_a_client_that_does_not_read_is_let_go(path: Path) -> None:
    async def dispatch(command: Command, peer: Peer) -> dict[str, Any]:
        return {"state": "done", "code": "ok", "effect": {"long": "x" * 2_000_000}}

    async def work(server: ControlServer) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as deaf:
            deaf.connect(str(path))
            deaf.sendall(b'{"command":"report"}\n')
            await until(lambda: bool(server._clients))
            await until(lambda: not server._clients)
        assert len((await ask(path))[0]["effect"]["long"]) == 2_000_000

    serving(path, work, dispatch, idle_s=0.04)


def test_the_seventeenth_client_is_told_to_try_again(path: Path) -> None:
    async def work(server: ControlServer) -> None:
        idle = [await asyncio.open_unix_connection(path) for _ in range(MAX_CLIENTS)]
        await until(lambda: len(server._clients) == MAX_CLIENTS)
        (refused,) = await ask(path)
        assert (refused["state"], refused["code"]) == ("refused", "too_many")
        idle.pop()[1].close()
        await until(lambda: len(server._clients) < MAX_CLIENTS)
        assert (await ask(path))[0]["state"] == "done"
        for _, writer in idle:
            writer.close()

    serving(path, work)


def command_or_reason(line: bytes) -> Command | str:
    try:
        return parse_request(line)
    except ValueError as error:
        return str(error)


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode("utf-8", "ignore")))
def test_any_line_is_a_command_or_a_mistake_with_a_reason(line: bytes) -> None:
    assert command_or_reason(line)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
_keys = st.sampled_from(["command", "args", "id", "by", "ttl_s", "reason", "v", "other"])


@given(st.dictionaries(_keys, _json))
def test_any_object_is_a_command_or_a_mistake_with_a_reason(raw: dict[str, Any]) -> None:
    heard = command_or_reason(json.dumps(raw).encode())
    assert heard
    if isinstance(heard, Command):
        assert json.dumps(dict(heard.args), allow_nan=False)
        assert heard.name == raw["command"]


# -- who may command -------------------------------------------------------------------------------


_OTHER = """
import socket, sys
s = socket.socket(socket.AF_UNIX)
try:
    s.connect(sys.argv[1])
    s.sendall(b'{"command":"check"}\\n')
    print(s.makefile().readline(), end="")
except OSError as e:
    print(e.strerror)
"""


def as_other_user(path: Path, *groups: int) -> str:
    run = subprocess.run(
        ["/usr/bin/python3", "-c", _OTHER, path],
        user=NOBODY,
        group=NOBODY,
        extra_groups=groups,
        capture_output=True,
        text=True,
        timeout=20,
    )
    return run.stdout.strip() or run.stderr


needs_root = pytest.mark.skipif(
    not ROOT or not Path("/usr/bin/python3").exists(), reason="needs root to be somebody else"
)


@needs_root
def test_another_user_is_kept_out_and_told_why(open_folder: Path) -> None:
    path = open_folder / "control.sock"
    group = grp.getgrgid(4).gr_name  # any group that exists will do

    async def work(_: ControlServer) -> None:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert path.stat().st_gid == 4
        assert await asyncio.to_thread(as_other_user, path) == "Permission denied"
        path.chmod(0o666)  # were the mode wrong, the agent itself looks who it is
        answer = json.loads(await asyncio.to_thread(as_other_user, path))
        assert (answer["state"], answer["code"]) == ("refused", "not_allowed")
        assert str(NOBODY) in answer["message"]
        assert group in answer["message"]
        path.chmod(0o660)
        member = json.loads(await asyncio.to_thread(as_other_user, path, 4))
        assert member["state"] == "done"
        assert (await ask(path))[0]["state"] == "done"

    serving(path, work, group=group)


@needs_root
@pytest.mark.parametrize("group", [None, "no-such-group-here"])
def test_without_the_group_only_root_and_the_agents_user_command(
    open_folder: Path, group: str | None
) -> None:
    path = open_folder / "control.sock"

    async def work(_: ControlServer) -> None:
        path.chmod(0o666)
        answer = json.loads(await asyncio.to_thread(as_other_user, path, 4))
        assert answer["code"] == "not_allowed"
        assert (await ask(path))[0]["state"] == "done"

    serving(path, work, group=group)


# -- one agent at a time ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["socket", "file"])
def test_what_a_dead_agent_left_is_replaced(path: Path, kind: str) -> None:
    if kind == "socket":
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
            dead.bind(str(path))
    else:
        path.write_text("")
    path.with_name(".control.sock.new").write_text("half a start")
    path.with_suffix(".lock").write_text("4711\n")

    async def work(_: ControlServer) -> None:
        assert (await ask(path))[0]["state"] == "done"

    serving(path, work)


_HOLDER = """
import asyncio, sys
from pathlib import Path
from agent.control import ControlServer
async def life():
    await ControlServer(Path(sys.argv[1]), None).start()
    print("up", flush=True)
    await asyncio.Event().wait()
asyncio.run(life())
"""


def test_a_second_agent_is_told_who_runs_and_starts_after_its_death(path: Path) -> None:
    first = subprocess.Popen([sys.executable, "-c", _HOLDER, path], stdout=subprocess.PIPE)
    assert first.stdout is not None
    try:
        assert first.stdout.readline() == b"up\n"
        os.kill(first.pid, signal.SIGSTOP)  # even one that is stuck
        with pytest.raises(ConfigError, match=f"another agent is running.*pid {first.pid}$"):
            serving(path, lambda _: ask(path))
        assert path.is_socket()  # the attempt took nothing away
    finally:
        first.kill()
        first.wait()
        first.stdout.close()

    async def work(_: ControlServer) -> None:
        assert (await ask(path))[0]["state"] == "done"

    serving(path, work)


def test_a_path_that_is_no_place_for_a_socket_is_a_clear_error(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 100) / "control.sock"
    long.parent.mkdir()
    for path in (long, tmp_path / "none" / "control.sock", Path("/proc/control.sock")):
        with pytest.raises(ConfigError, match=str(path)):
            serving(path, lambda _: asyncio.sleep(0))
    (tmp_path / "none").mkdir()
    serving(tmp_path / "none" / "control.sock", lambda _: asyncio.sleep(0))


# -- the client ------------------------------------------------------------------------------------


async def blocking(path: Path, timeout_s: float = 5.0, **payload: Any) -> list[dict[str, Any]]:
    asked = {"command": "check", **payload}
    return await asyncio.to_thread(lambda: list(request(path, asked, timeout_s=timeout_s)))


def test_the_client_hears_every_answer_up_to_the_final_one(path: Path) -> None:
    async def dispatch(command: Command, peer: Peer) -> dict[str, Any]:
        await asyncio.sleep(0.03)
        return {"state": "failed", "code": "no_answer", "effect": {"text": "x" * 200_000}}

    async def work(_: ControlServer) -> None:
        answers = await blocking(path, args={"device": "cam-front"})
        assert [a["state"] for a in answers] == ["accepted", "failed"]

    serving(path, work, dispatch, accept_s=0.005)


def test_the_client_hears_why_it_is_refused_before_it_has_spoken(path: Path) -> None:
    async def work(server: ControlServer) -> None:
        (answer,) = await blocking(path, reason="x" * 500_000)
        assert (answer["state"], answer["code"]) == ("refused", "bad_request")
        assert "16384" in answer["message"]

    serving(path, work)


def test_the_client_hears_why_also_when_nobody_listens_to_it(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen()

        def refuse() -> None:
            client, _ = server.accept()
            client.recv(1)  # the rest is never read: the client's pipe breaks
            client.sendall(b'{"state":"refused","code":"too_many"}\n')
            client.close()

        thread = threading.Thread(target=refuse)
        thread.start()
        payload = {"command": "check", "reason": "x" * 5_000_000}
        (answer,) = request(path, payload, timeout_s=5)
        assert answer["code"] == "too_many"
        thread.join()


def test_the_client_says_what_to_do_where_no_agent_runs(path: Path) -> None:
    with pytest.raises(NoAgentError, match="hearing-room run"):
        list(request(path, {"command": "check"}, timeout_s=1))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(path))
    with pytest.raises(NoAgentError, match="hearing-room run"):
        list(request(path, {"command": "check"}, timeout_s=1))

    async def work(_: ControlServer) -> None:
        assert (await blocking(path))[0]["state"] == "done"

    serving(path, work)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (b"", "broke off"),
        (b'{"state":"accep', "broke off"),
        (b'{"state":"accepted"}\n', "broke off"),
        (b"hello, I am a web server\n", "no agent"),
        (b"[1,2]\n", "no agent"),
        (b"\xff\xfe\n", "no agent"),
        (b"x" * 3_000_000, "broke off"),
        (None, "did not answer within"),
    ],
)
def test_the_client_survives_what_is_no_agent(
    path: Path, said: bytes | None, expected: str
) -> None:
    async def stranger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        with contextlib.suppress(ConnectionError):
            if said is None:
                await reader.read()  # until the client has had enough
            else:
                writer.write(said)
                await writer.drain()
        writer.close()

    async def life() -> None:
        async with asyncio.timeout(20):
            server = await asyncio.start_unix_server(stranger, path)
            with pytest.raises(NoAgentError, match=expected):
                await blocking(path, timeout_s=5.0 if said is not None else 0.05)
            server.close()

    asyncio.run(life())

    async def work(_: ControlServer) -> None:
        assert (await blocking(path))[0]["state"] == "done"

    serving(path, work)


@needs_root
def test_the_client_says_how_to_get_the_right_to_command(open_folder: Path) -> None:
    path = open_folder / "control.sock"

    async def work(_: ControlServer) -> None:
        groups = os.getgroups()
        os.setgroups([])
        os.setegid(NOBODY)
        os.seteuid(NOBODY)
        try:
            with pytest.raises(NoAgentError, match="adduser"):
                list(request(path, {"command": "check"}, timeout_s=1))
        finally:
            os.seteuid(0)
            os.setegid(0)
            os.setgroups(groups)
        assert (await blocking(path))[0]["state"] == "done"

    serving(path, work, group=None)
