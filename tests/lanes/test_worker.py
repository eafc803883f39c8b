"""The worker itself, as a real child: with kinds that the test writes, through a real socket."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lane_stage import TEST_S, Stage, look, run, until

from agent.clock import up_s
from agent.lanes import wire
from agent.lanes.lane import by_hand
from agent.model import Fault, Reading

pytestmark = pytest.mark.usefixtures("no_descriptor_is_left_open")

PROBE = """
    import ctypes, faulthandler, os, signal, socket, sys, threading, time
    from agent.kinds import DeviceSettings
    from agent.model import Reading

    CODES, WORDS = {}, frozenset({"green"})
    prepared = False
    made = closed = 0

    class Settings(DeviceSettings):
        path: str = ""
        password: str = ""

    def judge(reading, limits):
        return []

    def prepare():
        global prepared
        if os.environ.get("BREAK") == "prepare":
            raise ImportError("no such library")
        prepared = True

    class Driver:
        def __init__(self, settings):
            global made
            made += 1
            self.settings = settings
            self.asked = 0

        def close(self):
            global closed
            closed += 1
            raise RuntimeError("even this must not end the worker")

        def read(self, ask):
            self.asked += 1
            return getattr(self, self.settings.name or "plain")(ask)

        def plain(self, ask):
            return Reading({
                "prepared": prepared, "made": made, "closed": closed, "asked": self.asked,
            })

        def fails(self, ask):
            picture = "the-picture-in-a-local-variable"
            raise ValueError("the-message-with-a-" + self.settings.password)

        def fails_at_first(self, ask):
            if made == 1:
                raise ValueError("an unknown state")
            return self.plain(ask)

        def fails_with_errno(self, ask):
            os.open(self.settings.path, os.O_RDONLY)

        def holds_bytes(self, ask):
            return Reading({"frame": b"picture"})

        def holds_nan(self, ask):
            return Reading({"level_dbfs": float("nan")})

        def is_too_long(self, ask):
            return Reading({f"key_{n}": n for n in range(1000)})

        def is_nothing(self, ask):
            return None

        def says_words(self, ask):
            return Reading({"light": "green"}, identity={"name": "HD Webcam"})

        def prints(self, ask):
            print("python prints", flush=True)
            os.write(1, b"C library prints\\n")
            ctypes.CDLL(None).puts(b"and so does libc")
            ctypes.CDLL(None).fflush(None)
            return Reading({"stdin_bytes": len(os.read(0, 100)), "tty": os.isatty(0)})

        def opens(self, ask):
            os.write(2, b"opening\\n")
            fd = ctypes.CDLL(None, use_errno=True).open(self.settings.path.encode(), os.O_RDONLY)
            return Reading({"fd": fd})

        def opens_with_signals_off(self, ask):
            signal.signal(signal.SIGALRM, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
            return Reading({"done": True})

        def tries_to_leave(self, ask):
            results = {}
            for name, act in {
                "internet": lambda: socket.socket(socket.AF_INET),
                "write": lambda: open(self.settings.path, "w"),
                "tmp": lambda: open("/tmp/hearing-room-lane-probe", "w"),
            }.items():
                try:
                    act()
                    results[name] = 0
                except OSError as error:
                    results[name] = error.errno
            libc = ctypes.CDLL(None, use_errno=True)
            results["io_uring"] = ctypes.get_errno() if libc.syscall(425, 0, 0) < 0 else 0
            return Reading(results)

        def connects(self, ask):
            with socket.socket(socket.AF_INET) as sock:
                return Reading({"errno": sock.connect_ex(("127.0.0.1", int(self.settings.path)))})

        def threads(self, ask):
            return Reading({name.lower(): int(os.environ[name]) for name in
                            ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")})
"""


class Wire:
    """The agent's end of a worker, by hand and blocking."""

    def __init__(self, argv: list[str], *, pipes: bool = False, **environment: str) -> None:
        env = {**os.environ, **environment}
        if pipes:
            theirs_in, self._send = os.pipe()
            self._receive, theirs_out = os.pipe()
        else:
            ours, theirs = socket.socketpair()
            self._send = self._receive = ours.detach()
            theirs_in = theirs_out = theirs.detach()
        self.child = subprocess.Popen(
            argv, stdin=theirs_in, stdout=theirs_out, stderr=subprocess.PIPE, env=env
        )
        for fd in {theirs_in, theirs_out}:
            os.close(fd)
        self._number = 0
        self.hello = wire.decode_hello(self.line())

    def line(self) -> bytes:
        data = b""
        while not data.endswith(b"\n"):
            ready, _, _ = select.select([self._receive], [], [], TEST_S)
            assert ready, "no answer"
            chunk = os.read(self._receive, wire.MAX_LINE)
            assert chunk, self.finish()
            data += chunk
        return data

    def send(self, ask: str = "look", deadline_s: float = 10.0, **settings: Any) -> None:
        self._number += 1
        question = wire.Question(self._number, "probe", ask, deadline_s, settings)
        os.write(self._send, wire.encode_question(question))

    def ask(self, ask: str = "look", deadline_s: float = 10.0, **settings: Any) -> Reading:
        self.send(ask, deadline_s, **settings)
        return wire.decode(self.line(), {"green"}, number=self._number, ask=ask)

    def finish(self) -> tuple[int, str]:
        """Closes the lane; the exit status and what was on standard error."""
        for fd in {self._send, self._receive}:
            os.close(fd)
        _, errors = self.child.communicate(timeout=TEST_S)
        return self.child.returncode, errors.decode()


@pytest.fixture
def argv(tmp_path: Path) -> list[str]:
    """The real worker, which also knows the kind `probe`."""
    (tmp_path / "kinds").mkdir()
    (tmp_path / "kinds" / "probe.py").write_text(textwrap.dedent(PROBE))
    code = (
        "import agent.kinds, agent.lanes.worker as w;"
        f"agent.kinds.__path__.append({str(tmp_path / 'kinds')!r});"
        "raise SystemExit(w.main())"
    )
    return [sys.executable, "-B", "-c", code]


@pytest.fixture
def worker(argv: list[str]) -> Iterator[Wire]:
    wire_end = Wire(argv)
    yield wire_end
    if wire_end.child.returncode is None:
        assert wire_end.finish()[0] == 0


def test_the_program_says_hello_with_its_layers_and_leaves_at_end_of_file() -> None:
    end = Wire([sys.executable, "-m", "agent.lanes.worker"])
    assert end.hello.pid == end.child.pid
    assert {"no_new_privs", "no_core", "no_file_growth"} <= set(end.hello.confined)
    assert end.finish() == (0, "")


def test_it_works_on_two_pipes_as_well(argv: list[str]) -> None:
    end = Wire(argv, pipes=True)
    assert end.ask().values["asked"] == 1
    assert end.finish() == (0, "")


def test_a_kind_is_prepared_and_its_driver_kept_until_the_settings_change(worker: Wire) -> None:
    assert worker.ask("prepare").values == {}
    first = {"prepared": True, "made": 1, "closed": 0}
    assert worker.ask().values == {**first, "asked": 1}
    assert worker.ask().values == {**first, "asked": 2}
    changed = worker.ask(path="/other").values
    assert changed == {"prepared": True, "made": 2, "closed": 1, "asked": 1}
    _, errors = worker.finish()
    assert "RuntimeError" in errors  # of `close`, and the worker lived on


def test_a_prepare_that_fails_is_an_error_and_the_worker_lives_on(argv: list[str]) -> None:
    end = Wire(argv, BREAK="prepare")
    reading = end.ask("prepare")
    assert (reading.fault, reading.why) == (Fault.ERROR, "exception")
    assert end.ask().values["prepared"] is False
    assert end.finish()[0] == 0


@pytest.mark.parametrize("name", ["fails", "holds_bytes", "holds_nan", "is_too_long", "is_nothing"])
def test_a_driver_that_fails_is_an_error_and_the_next_question_gets_a_new_one(
    worker: Wire, name: str
) -> None:
    reading = worker.ask(name=name)
    assert (reading.fault, reading.why, reading.values) == (Fault.ERROR, "exception", {})
    assert worker.ask().values == {"prepared": False, "made": 2, "closed": 1, "asked": 1}


def test_a_driver_that_failed_is_not_asked_again(worker: Wire) -> None:
    assert worker.ask(name="fails_at_first").fault is Fault.ERROR
    again = worker.ask(name="fails_at_first").values
    assert again == {"prepared": False, "made": 2, "closed": 1, "asked": 1}


def test_an_error_of_the_system_comes_with_its_number(worker: Wire) -> None:
    reading = worker.ask(name="fails_with_errno", path="/nonexistent/video0")
    assert (reading.fault, reading.values) == (Fault.ERROR, {"errno": 2})
    assert worker.ask().fault is None


@pytest.mark.parametrize("settings", [{"unknown": 1}, {"period_s": -1}])
def test_settings_that_the_kind_refuses_are_an_error(worker: Wire, settings: Any) -> None:
    assert worker.ask(**settings).why == "exception"
    assert worker.ask().fault is None


def test_what_is_told_about_an_exception_holds_no_value(worker: Wire) -> None:
    worker.ask(name="fails", password="hunter2-secret")
    worker.ask(name="fails", password="hunter2-secret", period_s=-1)
    _, errors = worker.finish()
    assert "ValueError" in errors
    assert "in fails" in errors
    for secret in ("hunter2", "the-message", "in-a-local"):
        assert secret not in errors.replace('"the-message-with-a-"', "").replace(
            '"the-picture-in-a-local-variable"', ""
        )


def test_words_and_identity_travel(worker: Wire) -> None:
    reading = worker.ask(name="says_words")
    assert reading.values == {"light": "green"}
    assert reading.identity == {"name": "HD Webcam"}


def test_what_a_library_prints_goes_to_standard_error(worker: Wire) -> None:
    assert worker.ask(name="prints").values == {"stdin_bytes": 0, "tty": False}
    assert worker.ask().fault is None
    _, errors = worker.finish()
    assert {"python prints", "C library prints", "and so does libc"} <= set(errors.splitlines())


def test_libraries_are_told_to_use_one_thread(worker: Wire) -> None:
    assert set(worker.ask(name="threads").values.values()) == {1}


def test_the_process_that_sees_cannot_speak(worker: Wire, tmp_path: Path) -> None:
    found = worker.ask(name="tries_to_leave", path=str(tmp_path / "picture")).values
    if "seccomp" in worker.hello.confined:
        assert found["internet"] == 1
        assert found["io_uring"] == 1
    if "landlock" in worker.hello.confined:
        assert found["write"] == 13
        assert found["tmp"] == 13
        assert not (tmp_path / "picture").exists()


def test_the_worker_of_a_network_camera_reaches_its_port_only(argv: list[str]) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as camera,
        socket.create_server(("127.0.0.1", 0)) as other,
    ):
        ports = [str(s.getsockname()[1]) for s in (camera, other)]
        end = Wire([*argv, "--variant", "netcam", "--port", ports[0]])
        found = [end.ask(name="connects", path=port).values["errno"] for port in ports]
        assert found[0] == 0
        if "landlock_net" in end.hello.confined:
            assert found[1] == 13
        assert end.finish()[0] == 0
        end = Wire([*argv, "--port", ports[0]])  # no variant, no network
        if "seccomp" in end.hello.confined:
            assert end.ask(name="connects", path=ports[0]).values == {"errno": 1}
        assert end.finish()[0] == 0


def test_a_lane_to_a_network_camera_starts_that_worker(stage: Stage) -> None:
    async def test() -> None:
        lane = stage.lane(by_hand("netcam", [554, 80]))
        await look(lane, kind="none")
        assert lane.hello is not None
        words = Path(f"/proc/{lane.hello.pid}/cmdline").read_text().split("\0")
        assert words[words.index("--variant") :] == (
            ["--variant", "netcam", "--port", "554", "--port", "80", ""]
        )
        await lane.close()

    run(test)


def test_the_kernel_ends_a_worker_that_hangs_in_a_c_call_though_nobody_kills_it(
    worker: Wire, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "camera")
    began_s = up_s()
    worker.send(name="opens", path=str(tmp_path / "camera"), deadline_s=0.2)
    assert worker.child.wait(TEST_S) == -signal.SIGALRM
    assert 1.1 < up_s() - began_s < 5
    worker.finish()


def test_a_driver_cannot_switch_the_timer_off_for_the_next_question(
    worker: Wire, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "camera")
    assert worker.ask(name="opens_with_signals_off").fault is None
    worker.send(name="opens", path=str(tmp_path / "camera"), deadline_s=0.1)
    assert worker.child.wait(TEST_S) == -signal.SIGALRM
    worker.finish()


def test_the_timer_is_taken_back_with_the_answer(worker: Wire) -> None:
    assert worker.ask(deadline_s=0.01).fault is None
    pidfd = os.pidfd_open(worker.child.pid)
    ended, _, _ = select.select([pidfd], [], [], 1.2)
    os.close(pidfd)
    assert not ended
    assert worker.ask().fault is None


def test_the_last_word_of_a_killed_worker_is_where_it_hung(worker: Wire, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "camera")
    worker.send(name="opens", path=str(tmp_path / "camera"))
    assert worker.child.stderr is not None
    assert worker.child.stderr.readline() == b"opening\n"
    worker.child.send_signal(signal.SIGABRT)
    status, errors = worker.finish()
    assert status == -signal.SIGABRT
    assert "in opens" in errors


@pytest.mark.parametrize("line", [b"nonsense\n", b"{}\n", b"x" * 40_000])
def test_a_line_that_is_no_question_ends_the_worker(worker: Wire, line: bytes) -> None:
    os.write(worker._send, line)
    status, errors = worker.finish()
    assert status == 2
    assert "nonsense" not in errors


def test_questions_that_come_together_are_answered_one_by_one(worker: Wire) -> None:
    worker.send()
    worker.send()
    data = worker.line()
    while data.count(b"\n") < 2:
        data += worker.line()
    assert [json.loads(line)["id"] for line in data.splitlines()] == [1, 2]


def test_a_hung_driver_in_the_real_worker_is_a_reading_and_the_next_one_answers(
    stage: Stage, argv: list[str]
) -> None:
    fifo = stage.folder / "camera"
    os.mkfifo(fifo)

    async def test() -> None:
        lane = stage.lane(by_hand(argv=argv))
        hung = await look(lane, 0.3, kind="probe", settings={"name": "opens", "path": str(fifo)})
        assert (hung.fault, hung.why) == (Fault.NO_ANSWER, "deadline")
        stage.later_s += 1.0
        good = await look(lane, kind="probe")
        assert good.values == {"prepared": True, "made": 1, "closed": 0, "asked": 1}
        assert lane.hello is not None
        assert "no_core" in lane.hello.confined
        await lane.close()

    run(test)


def test_a_real_worker_whose_agent_is_gone_leaves(stage: Stage, argv: list[str]) -> None:
    async def test() -> None:
        lane = stage.lane(by_hand(argv=argv), idle_s=0.01)
        assert (await look(lane, kind="probe")).fault is None
        await until(lambda: lane.state == "none")
        await lane.close()

    run(test)


def test_a_worker_that_may_not_open_a_new_device_asks_for_its_own_replacement(
    stage: Stage, tmp_path: Path, argv: list[str]
) -> None:
    plugged = tmp_path / "plugged"
    code = argv[-1].replace("raise SystemExit(w.main())", "") + (
        "import os, pathlib; from agent.lanes import wire;"
        f"plugged = pathlib.Path({str(plugged)!r}); known = plugged.exists();"
        "receive, send = w.take_lane();"
        "w.say(send, wire.encode_hello(wire.Hello(1, '0', os.getpid(), ())));"
        "w.serve(receive, send, lambda: plugged.exists() == known)"
    )

    async def test() -> None:
        lane = stage.lane(by_hand(argv=[*argv[:-1], code]))
        first = await look(lane, kind="probe")
        assert first.values["asked"] == 1
        plugged.touch()
        second = await look(lane, kind="probe")
        assert second.values["asked"] == 1  # a new worker, and no fault in between
        assert (await look(lane, kind="probe")).values["asked"] == 2
        await lane.close()

    run(test)


def test_a_worker_that_sees_does_without_cryptography_and_dice() -> None:
    """6 MB less for each camera."""
    code = """
        import sys
        import agent.lanes.worker
        from agent.kinds import camera
        camera.prepare()
        heavy = [m for m in ("_hashlib", "_ssl", "numpy.random") if sys.modules.get(m)]
        print(*heavy)
    """
    line = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(line, capture_output=True, text=True, check=True, timeout=TEST_S)
    assert done.stdout.split() == []
