"""USB HID relays: which board is meant, and what is sent to it."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import relay_boards
from hypothesis import given
from hypothesis import strategies as st
from relay_boards import UsbRelay

from agent.hands.boards import hid, node, open_board
from agent.hands.layout import Place

ANY = r"."
DCTTECH = {"protocol": "dcttech", "usb": ["16c0:05df"], "product": "USBRelay[1-8]"}
HIDRELAY = {"protocol": "hidrelay", "usb": ["0519:2018"], "product": "HIDRelay"}


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def place(at: str = "", spec: dict[str, Any] = DCTTECH, board: str = "dcttech-usbrelay") -> Place:
    return Place(board=board, spec=spec, at=at, channel=1)


def refused(root: Path, at: str = "", **more: Any) -> OSError:
    with pytest.raises(OSError, match=ANY) as error:
        hid.find(place(at), root, **more)
    return error.value


# -- which one -----------------------------------------------------------------------------------


def test_only_the_product_string_makes_it_a_board(tmp_path: Path) -> None:
    relay_boards.plug(tmp_path, "1-1", "16c0:05df", "My mouse wiggler", node="hidraw0")
    relay_boards.plug(tmp_path, "1-2", "16c0:05df", "", node="hidraw1")
    relay_boards.plug(tmp_path, "1-3", "16c0:05df", "USBRelay44", node="hidraw2")
    relay_boards.plug(tmp_path, "1-4", "1234:05df", "USBRelay4", node="hidraw3")
    error = refused(tmp_path)
    assert error.errno == errno.ENODEV
    assert "no dcttech-usbrelay is plugged in" in str(error)
    relay_boards.plug(tmp_path, "1-5", "16c0:05df", "USBRelay4", node="hidraw4")
    assert hid.find(place(), tmp_path).name == "hidraw4"


def test_of_two_alike_the_port_says_which(tmp_path: Path) -> None:
    relay_boards.plug(tmp_path, "1-1.2", "16c0:05df", "USBRelay4", node="hidraw0")
    relay_boards.plug(tmp_path, "1-1.3", "16c0:05df", "USBRelay2", node="hidraw1")
    error = refused(tmp_path)
    assert error.errno == errno.ENOTUNIQ
    for told in ("ambiguous: 2 boards", "1-1.2, 1-1.3", 'at = "1-1.2"'):
        assert told in str(error)
    assert hid.find(place("1-1.3"), tmp_path).name == "hidraw1"
    missing = refused(tmp_path, "1-1.4")
    assert missing.errno == errno.ENODEV
    assert "no dcttech-usbrelay at 1-1.4; there is one at 1-1.2, 1-1.3" in str(missing)


def test_a_serial_says_which_too_unless_two_have_it(tmp_path: Path) -> None:
    relay_boards.plug(tmp_path, "1-1.2", "16c0:05df", "USBRelay4", "A0001", node="hidraw0")
    relay_boards.plug(tmp_path, "1-1.3", "16c0:05df", "USBRelay4", "A0002", node="hidraw1")
    assert hid.find(place("A0002"), tmp_path).port == "1-1.3"
    relay_boards.plug(tmp_path, "1-1.4", "16c0:05df", "USBRelay4", "A0002", node="hidraw2")
    error = refused(tmp_path, "A0002")
    assert error.errno == errno.ENOTUNIQ
    assert "1-1.3, 1-1.4" in str(error)


def test_a_port_is_never_taken_for_a_serial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another board is not spoken to, to find out that it is not the one that is missing."""
    relay_boards.plug(tmp_path, "1-1.2", "16c0:05df", "USBRelay4")
    monkeypatch.setattr(hid, "_own_serial", lambda path: pytest.fail("it was spoken to"))
    assert refused(tmp_path, "1-1.3", serial_too=True).errno == errno.ENODEV


def test_the_serial_in_the_report_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, port in enumerate(("1-1.2", "1-1.3")):
        relay_boards.plug(tmp_path, port, "16c0:05df", "USBRelay2", node=f"hidraw{number}")
    serials = {"hidraw0": b"PSUIS", "hidraw1": b"BITFT"}

    def ioctl(fd: int, request: int, buffer: bytearray, mutate: bool) -> int:
        assert request == hid.GET_FEATURE == 0xC0094807
        assert (buffer[0], len(buffer), mutate) == (1, 9, True)
        name = Path(f"/proc/self/fd/{fd}").readlink().name
        buffer[:8] = serials[name].ljust(8, b"\0")
        return 8

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    assert hid.find(place("BITFT"), tmp_path, serial_too=True).port == "1-1.3"
    assert refused(tmp_path, "OTHER", serial_too=True).errno == errno.ENODEV


# -- what is sent --------------------------------------------------------------------------------


def test_a_dcttech_board_is_switched_by_feature_reports() -> None:
    firmware = UsbRelay(4)
    board = hid.Dcttech(firmware)
    board.set(2, True)
    board.set(4, True)
    board.set(2, False)
    assert firmware.frames == [b"\xff\x02", b"\xff\x04", b"\xfd\x02"]
    assert [board.get(n) for n in (1, 2, 3, 4)] == [False, False, False, True]


def test_a_hidrelay_is_switched_by_output_reports_and_tells_nothing() -> None:
    firmware = relay_boards.HidRelay(2)
    board = hid.HidRelay(firmware)
    board.set(1, True)
    board.set(2, True)
    board.set(1, False)
    assert firmware.frames == [b"\xf1", b"\xf2", b"\x01"]
    assert firmware.state == [False, True]
    assert board.get(2) is None


@pytest.mark.parametrize("channel", [-1, 0, 5, 9, 16, 255])
def test_a_relay_that_is_not_there_is_never_sent_for(channel: int) -> None:
    firmware = UsbRelay(4)
    for act in (
        lambda: hid.Dcttech(firmware).set(channel, True),
        lambda: hid.Dcttech(firmware).get(channel),
    ):
        with pytest.raises(OSError, match="USBRelay4 has 4 relays") as error:
            act()
        assert error.value.errno == errno.ENXIO
    assert firmware.frames == []


@pytest.mark.parametrize("channel", [-1, 0, 9, 15])
def test_a_hidrelay_is_never_told_to_switch_all(channel: int) -> None:
    """9 is every relay at once."""
    firmware = relay_boards.HidRelay(2)
    with pytest.raises(OSError, match="no relay") as error:
        hid.HidRelay(firmware).set(channel, True)
    assert error.value.errno == errno.ENXIO
    assert firmware.frames == []


def test_a_board_that_is_gone_is_an_error_also_where_nothing_is_read_back() -> None:
    for firmware, board in (
        (one := UsbRelay(4), hid.Dcttech(one)),
        (other := relay_boards.HidRelay(), hid.HidRelay(other)),
    ):
        firmware.gone = True
        for act in (lambda b=board: b.get(1), lambda b=board: b.set(1, True)):
            with pytest.raises(OSError, match=ANY) as error:
                act()
            assert error.value.errno == errno.ENODEV
        firmware.gone = False
        board.set(1, True)
        assert firmware.state[0]


@given(
    st.lists(st.tuples(st.integers(1, 8), st.booleans())), st.integers(1, 8), st.sampled_from("du")
)
def test_whatever_is_asked_for_every_frame_says_just_that(
    wishes: list[tuple[int, bool]], relays: int, maker: str
) -> None:
    firmware = UsbRelay(relays) if maker == "d" else relay_boards.HidRelay(8)
    board = hid.Dcttech(firmware) if maker == "d" else hid.HidRelay(firmware)
    model = [False] * firmware.relays
    sent = []
    for channel, on in wishes:
        if channel <= firmware.relays:
            board.set(channel, on)
            model[channel - 1] = on
            sent.append((channel, on))
        assert firmware.state == model
        states = [board.get(n) for n in range(1, firmware.relays + 1)]
        assert states == (model if maker == "d" else [None] * 8)
    assert [decoded(frame, maker) for frame in firmware.frames] == sent


def decoded(frame: bytes, maker: str) -> tuple[int, bool]:
    if maker == "d":
        command, number = frame
        return number, {0xFF: True, 0xFD: False}[command]
    (command,) = frame
    return command & 0x0F, {0xF0: True, 0x00: False}[command & 0xF0]


@given(st.binary(max_size=12))
def test_any_answer_is_a_state_or_an_error(answer: bytes) -> None:
    firmware = UsbRelay(8)
    firmware.answer = answer
    board = hid.Dcttech(firmware)
    if len(answer) < 8:
        with pytest.raises(OSError, match="bytes in place of 8"):
            board.get(1)
    else:
        assert [board.get(n) for n in range(1, 9)] == [bool(answer[7] >> n & 1) for n in range(8)]


# -- the node ------------------------------------------------------------------------------------


class Kernel:
    """The kernel's side of hidraw: ioctls on nodes that are plain files of a tree."""

    def __init__(self) -> None:
        self.boards: dict[str, UsbRelay] = {}
        self.requests: list[int] = []

    def ioctl(self, fd: int, request: int, buffer: bytearray, mutate: bool) -> int:
        assert mutate
        self.requests.append(request)
        path = Path(f"/proc/self/fd/{fd}").readlink()
        if path.name.endswith(" (deleted)"):
            raise OSError(errno.ENODEV, "No such device")
        board = self.boards[path.name]
        if request == 0x80084803:  # HIDIOCGRAWINFO
            board.product()
            return 0
        assert len(buffer) == 9
        if request == 0xC0094806:  # HIDIOCSFEATURE(9)
            assert buffer[0] == 0, "the report has no number"
            board.send(bytes(buffer[1:3]), feature=True)
            assert not any(buffer[3:])
            return 9
        assert request == 0xC0094807  # HIDIOCGFEATURE(9)
        answer = board.feature()
        buffer[: len(answer)] = answer
        return len(answer)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr(fcntl, "ioctl", made.ioctl)
    return made


def test_a_board_is_opened_when_it_is_used_and_again_after_it_was_pulled(
    tmp_path: Path, kernel: Kernel
) -> None:
    board = open_board(place(), tmp_path)
    with pytest.raises(OSError, match="is plugged in") as error:
        board.set(1, True)
    assert error.value.errno == errno.ENODEV
    device = relay_boards.plug(tmp_path, "1-1.2", "16c0:05df", "USBRelay2", node="hidraw0")
    first = kernel.boards["hidraw0"] = UsbRelay(2)
    board.set(1, True)
    assert first.state == [True, False]
    relay_boards.pull(tmp_path, device)
    for _ in range(2):
        with pytest.raises(OSError, match=ANY) as error:
            board.get(1)
        assert error.value.errno == errno.ENODEV
    relay_boards.plug(tmp_path, "1-1.2", "16c0:05df", "USBRelay2", node="hidraw5")
    second = kernel.boards["hidraw5"] = UsbRelay(2)
    assert board.get(1) is False, "it lost its power, and that is what is read"
    board.set(1, True)
    assert second.state == [True, False]
    board.close()


def test_a_board_that_was_exchanged_unseen_is_not_taken_for_the_old_one(
    tmp_path: Path, kernel: Kernel
) -> None:
    device = relay_boards.plug(tmp_path, "1-1", "16c0:05df", "USBRelay2", node="hidraw0")
    kernel.boards["hidraw0"] = UsbRelay(2)
    board = open_board(place(), tmp_path)
    board.set(2, True)
    relay_boards.pull(tmp_path, device)
    relay_boards.plug(tmp_path, "1-1", "16c0:05df", "USBRelay1", node="hidraw0")
    kernel.boards["hidraw0"] = UsbRelay(1)
    with pytest.raises(OSError, match=ANY) as error:
        board.set(2, True)
    assert error.value.errno == errno.ENODEV
    with pytest.raises(OSError, match="USBRelay1 has 1 relays"):
        board.set(2, True)
    board.close()


def test_closing_twice_and_using_again_is_no_harm(tmp_path: Path, kernel: Kernel) -> None:
    relay_boards.plug(tmp_path, "1-1", "16c0:05df", "USBRelay1")
    kernel.boards["hidraw0"] = UsbRelay(1)
    board = open_board(place(), tmp_path)
    before = open_files()
    for _ in range(3):
        board.set(1, True)
        board.close()
        board.close()
    assert open_files() == before


@pytest.mark.parametrize("number", [errno.EPIPE, errno.EPROTO, errno.EIO])
def test_what_the_kernel_says_is_said_and_the_next_use_tries_again(
    tmp_path: Path, kernel: Kernel, number: int
) -> None:
    relay_boards.plug(tmp_path, "1-1", "16c0:05df", "USBRelay1")
    firmware = kernel.boards["hidraw0"] = UsbRelay(1)
    board = open_board(place(), tmp_path)
    board.set(1, True)
    firmware.trouble = number
    with pytest.raises(OSError, match=ANY) as error:
        board.get(1)
    assert error.value.errno == number
    firmware.trouble = 0
    assert board.get(1) is True
    board.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(node, "monotonic", lambda: now[0])
    return now


def test_a_board_that_hung_is_left_alone_for_a_while(
    tmp_path: Path, kernel: Kernel, clock: list[float]
) -> None:
    """It costs 5 s each time, and hands has other things to do."""
    relay_boards.plug(tmp_path, "1-1", "16c0:05df", "USBRelay1")
    firmware = kernel.boards["hidraw0"] = UsbRelay(1)
    board = open_board(place(), tmp_path)
    firmware.trouble = errno.ETIMEDOUT
    with pytest.raises(TimeoutError):
        board.set(1, True)
    firmware.trouble = 0
    asked = len(kernel.requests)
    clock[0] += node.REST_S - 1
    for act in (lambda: board.get(1), lambda: board.set(1, True)):
        with pytest.raises(TimeoutError, match="left alone for 1 s"):
            act()
    assert len(kernel.requests) == asked, "not even the kernel was asked"
    clock[0] += 1
    board.set(1, True)
    assert firmware.state == [True]
    board.close()


@pytest.mark.parametrize("where", ["open", "transfer"])
def test_nobody_waits_for_a_call_that_hangs(
    tmp_path: Path,
    kernel: Kernel,
    clock: list[float],
    monkeypatch: pytest.MonkeyPatch,
    where: str,
) -> None:
    """The kernel ends it after some seconds, and then its descriptor is closed as well."""
    relay_boards.plug(tmp_path, "1-1", "16c0:05df", "USBRelay1")
    firmware = kernel.boards["hidraw0"] = UsbRelay(1)
    may_end, ended = threading.Event(), threading.Event()
    opened, sent = os.open, firmware.send

    def stuck() -> None:
        may_end.wait(30)
        ended.set()

    def stuck_open(path: Any, flags: int, *more: Any) -> int:
        stuck()
        return opened(path, flags, *more)

    def stuck_send(data: bytes, *, feature: bool) -> None:
        stuck()
        raise OSError(errno.ETIMEDOUT, "after 5 s")

    before = open_files()
    monkeypatch.setattr(node, "LIMIT_S", 0.02)
    if where == "open":
        monkeypatch.setattr(os, "open", stuck_open)
    else:
        monkeypatch.setattr(firmware, "send", stuck_send)
    board = open_board(place(), tmp_path)
    with pytest.raises(TimeoutError, match="no answer in"):
        board.set(1, True)
    assert not ended.is_set()
    with pytest.raises(TimeoutError, match="left alone"):
        board.get(1)
    may_end.set()
    assert ended.wait(10)
    for _ in range(1000):
        if open_files() == before:
            break
        time.sleep(0.002)
    assert open_files() == before
    monkeypatch.setattr(node, "LIMIT_S", 5.0)
    monkeypatch.setattr(os, "open", opened)
    monkeypatch.setattr(firmware, "send", sent)
    clock[0] += node.REST_S
    board.set(1, True)
    assert firmware.state == [True]
    board.close()


def test_without_a_thread_it_is_an_error_and_nothing_is_lost(
    tmp_path: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay_boards.plug(tmp_path, "1-1", "16c0:05df", "USBRelay1")
    kernel.boards["hidraw0"] = UsbRelay(1)
    board = open_board(place(), tmp_path)
    board.set(1, True)
    before = open_files()

    def none_left(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none_left)
    with pytest.raises(BlockingIOError, match="new thread") as error:
        board.get(1)
    assert error.value.errno == errno.EAGAIN
    monkeypatch.undo()
    monkeypatch.setattr(fcntl, "ioctl", kernel.ioctl)
    assert open_files() == before
    assert board.get(1) is True
    board.close()


def test_a_board_that_hung_and_is_plugged_in_anew_is_used_at_once(
    tmp_path: Path, kernel: Kernel, clock: list[float]
) -> None:
    device = relay_boards.plug(tmp_path, "1-1", "16c0:05df", "USBRelay1", node="hidraw0")
    kernel.boards["hidraw0"] = UsbRelay(1)
    kernel.boards["hidraw0"].trouble = errno.ETIMEDOUT
    board = open_board(place(), tmp_path)
    with pytest.raises(TimeoutError):
        board.get(1)
    relay_boards.pull(tmp_path, device)
    with pytest.raises(OSError, match="is plugged in") as error:
        board.get(1)
    assert error.value.errno == errno.ENODEV
    relay_boards.plug(tmp_path, "1-1", "16c0:05df", "USBRelay1", node="hidraw1")
    kernel.boards["hidraw1"] = UsbRelay(1)
    assert board.get(1) is False
    board.close()


def test_without_the_right_it_is_eacces_and_with_it_it_works(kernel: Kernel) -> None:
    with relay_boards.open_folder() as root:
        relay_boards.plug(root, "1-1", "16c0:05df", "USBRelay1")
        firmware = kernel.boards["hidraw0"] = UsbRelay(1)
        (root / "dev/hidraw0").chmod(0o400)
        board = open_board(place(), root)
        with relay_boards.as_nobody(), pytest.raises(PermissionError):
            board.set(1, True)
        assert firmware.frames == []
        (root / "dev/hidraw0").chmod(0o666)
        with relay_boards.as_nobody():
            board.set(1, True)
        assert firmware.state == [True]
        board.close()


def test_a_hidrelay_gets_nine_bytes_of_an_output_report(tmp_path: Path, kernel: Kernel) -> None:
    relay_boards.plug(tmp_path, "1-1", "0519:2018", "HIDRelay", "A0001")
    kernel.boards["hidraw0"] = relay_boards.HidRelay()
    board = open_board(place(spec=HIDRELAY, board="hidrelay"), tmp_path)
    assert board.get(1) is None
    board.set(2, True)
    assert (tmp_path / "dev/hidraw0").read_bytes() == b"\0\xf2\0\0\0\0\0\0\0"
    board.close()
