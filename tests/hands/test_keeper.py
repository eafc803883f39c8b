"""The state file by itself: whole or not at all, and nobody waits twice for a disk that hangs."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest
from process_stage import until

from agent.hands.keeper import NAME, Keeper, Kept
from agent.hands.news import Event

KEPT = Kept(
    boot="5f0c12ab",
    relays={"lamp": {"on": True, "changed_s": None, "switched": [1.5], "back": None}},
    mode="in_session",
    layout="{}",
    number=7,
    lost=2,
    events=(Event(7, None, {"event": "switched", "on": True}, {"device": "lamp", "by": "lan"}),),
)


def other(number: int) -> Kept:
    return Kept(boot="5f0c12ab", number=number)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    assert Keeper(tmp_path).read() == Kept()
    Keeper(tmp_path).write(KEPT)
    assert Keeper(tmp_path).read() == KEPT
    assert [entry.name for entry in tmp_path.iterdir()] == [NAME]


def test_a_crash_in_the_midst_of_a_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Keeper(tmp_path).write(KEPT)
    (tmp_path / f".{NAME}.new").write_text('{"version":1,"bo')  # what a power cut leaves
    assert Keeper(tmp_path).read() == KEPT
    Keeper(tmp_path).write(other(8))
    assert Keeper(tmp_path).read() == other(8)


def test_the_file_is_on_disk_before_it_takes_the_old_ones_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (steps.append("fsync"), fsync(fd))[1])
    monkeypatch.setattr(
        Path, "replace", lambda path, to: (steps.append("replace"), replace(path, to))[1]
    )
    Keeper(tmp_path).write(KEPT)
    assert steps == ["fsync", "replace", "fsync"]


def test_nobody_waits_twice_for_a_disk_that_hangs(tmp_path: Path) -> None:
    fresh = tmp_path / f".{NAME}.new"
    os.mkfifo(fresh)
    keeper = Keeper(tmp_path, wait_s=0.02)
    keeper.write(other(1))
    assert keeper.failing == errno.ETIMEDOUT
    keeper._wait_s = 60.0
    for number in (2, 3):
        second = threading.Thread(target=keeper.write, args=(other(number),))
        second.start()
        second.join(10)
        assert not second.is_alive()
    with fresh.open("rb") as reader:  # the disk is back
        reader.read()
    until(lambda: keeper.failing != errno.ETIMEDOUT)
    assert Keeper(tmp_path).read() == other(3), "the newest, without being told again"
    keeper.write(other(4))
    assert keeper.failing == 0
    assert Keeper(tmp_path).read() == other(4)


def test_a_file_of_another_version_is_not_guessed_at(tmp_path: Path) -> None:
    Keeper(tmp_path).write(KEPT)
    file = tmp_path / NAME
    file.write_text(file.read_text().replace('"version": 1', '"version": 2'))
    assert Keeper(tmp_path).read() == Kept()
