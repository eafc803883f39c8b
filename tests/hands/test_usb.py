"""hands brings USB devices back: what it refuses, what it does, that it waits for nothing."""

from __future__ import annotations

import errno
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from usb_stage import CAMERA, KEYS, SOUND, Kernel, UsbTree, uhubctl

from agent.hands import usb_step
from agent.hands.desk import Desk
from agent.hands.hardware import Hardware
from agent.hands.keeper import Keeper, Kept
from agent.hands.layout import Button, Layout, Place, Relay
from agent.hands.terms import WORDS
from agent.hands.usb import LONGEST_S, MAX_PER_H, UsbSteps
from agent.lanes import wire
from agent.lanes.wire import Question
from agent.model import Fault, Reading

BRIO = "046d:085e"


@pytest.fixture
def tree(tmp_path: Path) -> UsbTree:
    tree = UsbTree(tmp_path / "root")
    tree.plug("1-1.2", BRIO, *CAMERA, *SOUND, *KEYS, product="Logitech BRIO")
    return tree


class Stage:
    """A desk with a clock of its own."""

    def __init__(self, tree: UsbTree, folder: Path, layout: Layout | None = None) -> None:
        self.now_s = 10_000.0
        self.folder = folder
        self.desk = Desk(
            layout or Layout(),
            Hardware(watch=lambda fd, callback: None, handed={}),
            Keeper(folder),
            boot="0000000a",
            clock=lambda: self.now_s,
            usb=lambda kept: UsbSteps(tree.root, kept=kept),
        )

    def ask(self, kind: str, ask: str, **args: Any) -> Reading:
        answer = self.desk.answer(Question(1, kind, ask, 2.0, args))
        assert answer is not None
        # It has to pass the line as well.
        return wire.decode(wire.encode(1, answer), WORDS, number=1, ask=ask)

    def say(self, mode: str = "idle", lock_in_s: float | None = None) -> None:
        word = {"state": "ready", "mode": mode, "lock_in_s": lock_in_s}
        assert self.ask("hands", "say", **word).fault is None

    def step(self, step: str = "reauthorize", **args: Any) -> Reading:
        return self.ask("usb", step, **{"port": "1-1.2", "usb": BRIO, "by": "tester", **args})

    def done(self, within_s: float = 10.0) -> Reading:
        ends = time.monotonic() + within_s
        while (reading := self.ask("usb", "read")).values["running"]:
            assert time.monotonic() < ends, "the step does not end"
            time.sleep(0.01)
        return reading


@pytest.fixture
def stage(tree: UsbTree, tmp_path: Path) -> Iterator[Stage]:
    folder = tmp_path / "state"
    folder.mkdir()
    stage = Stage(tree, folder)
    stage.say()
    yield stage
    stage.done()


def refused(reading: Reading) -> str:
    assert reading.fault is Fault.SKIPPED
    return reading.why


# -- done -------------------------------------------------------------------------------------


def test_a_device_goes_off_the_bus_and_comes_back(tree: UsbTree, stage: Stage) -> None:
    with Kernel(tree).running() as kernel:
        reading = stage.step("reauthorize")  # hands waits for nothing
        assert reading.values == {"number": 1, "running": True, "step": "reauthorize"}
        assert refused(stage.step("reset")) == "step_running"
        reading = stage.done()
        assert reading.values == {
            "number": 1,
            "running": False,
            "step": "reauthorize",
            "errno": 0,
        }
    assert kernel.log == ["off 1-1.2", "on 1-1.2"]
    assert len(list((tree.devices / "1-1.2").glob("1-1.2:*"))) == 5


@pytest.mark.parametrize("driver", ["uvcvideo", "snd-usb-audio"])
def test_only_the_driver_that_is_meant_lets_go(tree: UsbTree, stage: Stage, driver: str) -> None:
    with Kernel(tree).running() as kernel:
        stage.step("rebind", driver=driver)
        assert stage.done().values["errno"] == 0
    acts = [line.split()[:2] for line in kernel.log]
    assert acts[0] == ["unbind", driver]
    assert acts[-1] == ["bind", driver]
    assert all(act[1] == driver for act in acts)
    drivers = [tree.driver_of(f"1-1.2:1.{n}") for n in range(5)]
    assert drivers == ["uvcvideo"] * 2 + ["snd-usb-audio"] * 2 + ["usbhid"]


def test_an_interface_without_a_driver_is_offered_to_all(tree: UsbTree, stage: Stage) -> None:
    tree.plug("1-1.3", "046d:0825", ("0e", "01", "00", ""), ("0e", "02", "00", ""))
    stage.step("rebind", port="1-1.3", usb="046d:0825", driver="uvcvideo")
    assert stage.done().values["errno"] == 0
    assert "1-1.3:1." in (tree.root / "sys/bus/usb/drivers_probe").read_text()


def test_a_reset_goes_to_the_node_of_the_device(tree: UsbTree, stage: Stage) -> None:
    stage.step("reset")
    # A file is no device: that the kernel says so shows that it was asked.
    assert stage.done().values["errno"] == errno.ENOTTY
    (tree.root / "dev/bus/usb/001/004").unlink()
    stage.step("reset")
    assert stage.done().values["errno"] == errno.ENOENT


def test_a_right_that_is_missing_is_said(tree: UsbTree, stage: Stage) -> None:
    (tree.devices / "1-1.2/authorized").unlink()
    (tree.devices / "1-1.2/authorized").mkdir()
    stage.step("reauthorize")
    assert stage.done().values["errno"] == errno.EISDIR
    (tree.devices / "1-1.2/authorized").rmdir()
    (tree.devices / "1-1.2/authorized").write_text("1")
    with Kernel(tree).running():
        stage.step("reauthorize")
        assert stage.done().values["errno"] == 0


def test_all_ports_go_off_before_the_first_goes_on(
    tree: UsbTree, stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    uhubctl(tmp_path / "bin", tmp_path / "log")
    reading = stage.ask("usb", "power_cycle", hubs=["2", "4:1"], by="tester")
    assert reading.values["running"] is True
    assert stage.done().values["errno"] == 0
    assert (tmp_path / "log").read_text().splitlines() == [
        "-N -l 2 -a off",
        "-N -l 4 -a off -p 1",
        "-N -l 2 -a on",
        "-N -l 4 -a on -p 1",
    ]


def test_what_failed_to_go_off_is_told_to_go_on_all_the_same(
    tree: UsbTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usb_step, "OFF_POWER_S", 0.01)
    uhubctl(tmp_path / "bin", tmp_path / "log", status=1)
    program = str(tmp_path / "bin/uhubctl")
    assert usb_step.main([str(tree.root), "power_cycle", program, "2"]) == errno.EIO
    assert (tmp_path / "log").read_text().splitlines() == ["-N -l 2 -a off", "-N -l 2 -a on"]


# -- refused ----------------------------------------------------------------------------------


def storage(tree: UsbTree) -> None:
    tree.plug("1-1.3", "0951:1666", ("08", "06", "50", "usb-storage"))


def camera_with_disk(tree: UsbTree) -> None:
    tree.plug("1-1.3", "0951:1666", *CAMERA, ("08", "06", "50", "usb-storage"))


def adapter(tree: UsbTree) -> None:
    device = tree.plug("1-1.3", "0951:1666", *CAMERA, ("ff", "ff", "00", ""))
    (device / "1-1.3:1.2/net/eth1").mkdir(parents=True)


def hub(tree: UsbTree) -> None:
    tree.plug("1-1.3", "0951:1666", ("09", "00", "00", "hub"), usb_class="09")


def keyboard(tree: UsbTree) -> None:
    tree.plug("1-1.3", "0951:1666", *KEYS)


@pytest.mark.parametrize("plug", [storage, camera_with_disk, adapter, hub, keyboard])
@pytest.mark.parametrize("step", ["rebind", "reauthorize", "reset"])
def test_only_cameras_and_sound_are_touched(
    tree: UsbTree, stage: Stage, plug: Callable[[UsbTree], None], step: str
) -> None:
    plug(tree)
    assert refused(stage.step(step, port="1-1.3", usb="0951:1666")) == "protected"
    assert stage.ask("usb", "read").values == {"number": 0, "running": False}


def test_a_device_that_updates_itself_is_left_alone(tree: UsbTree, stage: Stage) -> None:
    tree.plug("1-1.3", "0b0e:0421", ("fe", "01", "02", ""), *SOUND)
    assert refused(stage.step(port="1-1.3", usb="0b0e:0421")) == "updating"
    assert refused(stage.ask("usb", "power_cycle", hubs=["1-1"])) == "updating"


def test_what_somebody_switched_off_stays_off(tree: UsbTree, stage: Stage) -> None:
    (tree.devices / "1-1.2/authorized").write_text("0")
    assert refused(stage.step()) == "switched_off"
    assert (tree.devices / "1-1.2/authorized").read_text() == "0"


def test_the_right_device_has_to_sit_there(tree: UsbTree, stage: Stage) -> None:
    assert refused(stage.step(port="1-1.4")) == "no_device"
    assert refused(stage.step(usb="046d:0825")) == "other_device"


@pytest.mark.parametrize(
    "args",
    [
        {"port": "usb1"},
        {"port": "1-1.2/../1-1.2"},
        {"port": "1-0:1.0"},
        {"port": ""},
        {"usb": "x"},
        {"usb": "046D:085E"},
        {"step": "rebind", "driver": "usbhid"},
        {"step": "rebind", "driver": "../uvcvideo"},
        {"step": "power_cycle"},
        {"step": "power_cycle", "hubs": []},
        {"step": "power_cycle", "hubs": "1-1"},
        {"step": "power_cycle", "hubs": ["1-1", "-a"]},
        {"step": "power_cycle", "hubs": ["1-1;reboot"]},
        {"step": "power_cycle", "hubs": ["1"] * 5},
        {"step": "shell"},
    ],
)
def test_nonsense_is_not_understood(stage: Stage, args: dict[str, Any]) -> None:
    reading = stage.step(**args)
    assert (reading.fault, reading.why) == (Fault.ERROR, "not_understood")


def test_in_session_and_shortly_before_nothing_is_touched(tree: UsbTree, stage: Stage) -> None:
    stage.say("in_session")
    assert refused(stage.step()) == "session_lock"
    assert refused(stage.ask("usb", "power_cycle", hubs=["1-1"])) == "session_lock"
    stage.say("preparing", lock_in_s=LONGEST_S)
    assert refused(stage.step()) == "session_lock"
    stage.say("preparing", lock_in_s=LONGEST_S + 1)
    with Kernel(tree).running():
        assert stage.step().fault is None
        stage.done()
    assert (tree.devices / "1-1.2/authorized").read_text().strip() == "1"


def test_before_the_agent_has_spoken_nothing_is_touched(tree: UsbTree, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    assert refused(Stage(tree, tmp_path / "other").step()) == "session_lock"


def test_broken_glass_takes_a_hand_on_the_button(
    tree: UsbTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPIOZERO_PIN_FACTORY", "mock")
    folder = tmp_path / "state"
    folder.mkdir()
    stage = Stage(tree, folder, Layout(buttons=(Button("button", pin=4),)))
    stage.say("in_session")
    assert refused(stage.step(glass=True)) == "not_held"
    stage.desk._presses["button"].edge(True, stage.now_s)
    stage.now_s += 1
    stage.desk.tick()
    with Kernel(tree).running() as kernel:
        assert stage.step(glass=True).fault is None
        stage.done()
        assert kernel.log[0] == "off 1-1.2"
        assert refused(stage.step(glass=True)) == "not_held", "one press, one step"


def test_hands_has_a_budget_of_its_own_and_a_restart_gives_none_back(
    tree: UsbTree, stage: Stage
) -> None:
    (tree.root / "dev/bus/usb/001/004").unlink()
    for _ in range(MAX_PER_H):
        stage.step("reset")
        stage.done()
        stage.now_s += 1
    assert refused(stage.step("reset")) == "step_budget"
    again = Stage(tree, stage.folder)
    again.say()
    again.now_s = stage.now_s
    assert refused(again.step("reset")) == "step_budget"
    again.now_s = 10_000.0 + 3_600.0
    assert again.step("reset").fault is None, "the first of them is an hour ago"
    again.done()
    assert refused(again.step("reset")) == "step_budget"


def test_after_another_boot_the_steps_count_as_done_at_its_beginning(
    tree: UsbTree, tmp_path: Path
) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    Keeper(folder).write(Kept(boot="0000000b", usb=(90_000.0,) * MAX_PER_H))
    stage = Stage(tree, folder)
    stage.say()
    stage.now_s = 3_599.0
    assert refused(stage.step("reset")) == "step_budget"
    stage.now_s = 3_600.0
    assert stage.step("reset").fault is None
    stage.done()


@pytest.mark.parametrize("what", ["disk", "adapter", "serial"])
def test_the_power_of_all_ports_stays_where_the_box_needs_one(
    tree: UsbTree, stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    uhubctl(tmp_path / "bin", tmp_path / "log")
    device = tree.plug("2-1", "0951:1666", ("08", "06", "50", "usb-storage"))
    if what != "disk":
        (device / "2-1:1.0/bInterfaceClass").write_text("ff")
        (device / "2-1:1.0" / ("net" if what == "adapter" else "ttyUSB0")).mkdir()
    assert refused(stage.ask("usb", "power_cycle", hubs=["1-1"])) == "needed_by_box"
    assert not (tmp_path / "log").exists()


def test_the_power_of_all_ports_stays_where_relays_hang_on_them(
    tree: UsbTree, tmp_path: Path
) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    place = Place(board="dcttech-usbrelay", spec={"bus": "hid"}, channel=1)
    stage = Stage(tree, folder, Layout(relays=(Relay("relay", place),)))
    stage.say()
    assert refused(stage.ask("usb", "power_cycle", hubs=["1-1"])) == "needed_by_box"


def test_without_uhubctl_there_is_no_switch_for_all_ports(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    assert refused(stage.ask("usb", "power_cycle", hubs=["1-1"])) == "no_uhubctl"


# -- hung --------------------------------------------------------------------------------------


def test_a_step_that_hangs_blocks_further_steps_and_nothing_else(
    tree: UsbTree, stage: Stage
) -> None:
    """A FIFO without a reader: the child hangs in open(2), as it would in a driver."""
    place = tree.drivers / "uvcvideo/unbind"
    place.unlink()
    os.mkfifo(place)
    stage.step("rebind", driver="uvcvideo")
    stage.now_s += LONGEST_S
    reading = stage.ask("usb", "read")
    assert (reading.values["running"], reading.values["stuck"]) == (True, True)
    assert refused(stage.step()) == "step_stuck"
    stage.say("idle")
    assert stage.ask("hands", "about").fault is None, "hands itself goes on"
    # The kernel lets it go at last.
    reader = os.open(place, os.O_RDONLY | os.O_NONBLOCK)
    assert "stuck" not in stage.done().values
    os.close(reader)
    assert stage.step("reset").fault is None
    assert stage.done().values["errno"] == errno.ENOTTY


def test_the_step_outlives_hands(tree: UsbTree, tmp_path: Path) -> None:
    """SIGTERM to everybody in between: the device is on again, as whoever stops hands expects."""
    import signal

    steps = UsbSteps(tree.root)
    with Kernel(tree).running() as kernel:
        steps.take("reauthorize", {"port": "1-1.2", "usb": BRIO}, 0.0)
        child = steps._child
        assert child is not None
        assert os.getsid(child.pid) == child.pid, "not in the session of hands"
        ends = time.monotonic() + 10
        while not kernel.log:
            assert time.monotonic() < ends
            time.sleep(0.01)
        child.send_signal(signal.SIGTERM)
        assert child.wait(10) == 0
        while len(kernel.log) < 2:
            assert time.monotonic() < ends
            time.sleep(0.01)
    assert kernel.log == ["off 1-1.2", "on 1-1.2"]
    assert steps.tick(1.0) == math.inf


def test_when_to_look_again(tree: UsbTree) -> None:
    fds: dict[int, object] = {}
    steps = UsbSteps(tree.root, lambda fd, callback: fds.update({fd: callback}))
    assert steps.tick(0.0) == math.inf
    with Kernel(tree).running():
        steps.take("reauthorize", {"port": "1-1.2", "usb": BRIO}, 0.0)
        assert steps.tick(0.0) == LONGEST_S
        assert [callback is None for callback in fds.values()] == [False], "the loop is woken"
        ends = time.monotonic() + 10
        while steps.read(1.0).values["running"]:
            assert time.monotonic() < ends
            time.sleep(0.01)
        assert list(fds.values()) == [None]


# -- the child ----------------------------------------------------------------------------------


def test_the_child_ends_with_the_errno(tree: UsbTree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usb_step, "OFF_POWER_S", 0.01)
    root = str(tree.root)
    assert usb_step.main([root, "reauthorize", "1-1.9"]) == errno.ENOENT
    assert usb_step.main([root, "rebind", "1-1.9"]) == errno.ENODEV
    assert usb_step.main([root, "reset", "1-1.9"]) == errno.ENODEV
    assert usb_step.main([root, "power_cycle", "/nowhere/uhubctl", "1-1"]) == errno.EIO
    assert usb_step.main([root, "dance", "1-1.2"]) == errno.EINVAL
    tree.plug("1-1.3", "046d:c31c", *KEYS)
    assert usb_step.main([root, "rebind", "1-1.3"]) == errno.ENODEV, "a keyboard keeps its driver"


def test_a_driver_that_does_not_come_back_is_a_failure(
    tree: UsbTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usb_step, "UNBOUND_S", 0.05)
    (tree.drivers / "uvcvideo/bind").unlink()
    with Kernel_without_bind(tree).running():
        assert usb_step.main([str(tree.root), "rebind", "1-1.2", "uvcvideo"]) == errno.ENOENT


class Kernel_without_bind(Kernel):  # noqa: N801
    def _written(self, attribute: Path, act: Callable[[str, str], None]) -> None:
        if attribute.name != "bind":
            super()._written(attribute, act)
