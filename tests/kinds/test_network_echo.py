"""Echoes, their statistics, and what is said where the right to send them is missing."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Coroutine
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kinds.network import echo

T = TypeVar("T")
HERE = echo.Station(socket.AF_INET, "127.0.0.1", 1)
HERE6 = echo.Station(socket.AF_INET6, "::1", 1)
TOKEN = b"0123456789abcdef"
NOBODY = 65_534
families = st.sampled_from([socket.AF_INET, socket.AF_INET6])


def run(work: Coroutine[Any, Any, T]) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(15):
            return await work

    return asyncio.run(bounded())


def answer(request: bytes, family: socket.AddressFamily) -> bytes:
    """What a station makes of a request: the same with the type of a reply."""
    return bytes([0 if family is socket.AF_INET else 129]) + request[1:]


@given(families, st.integers(0, 0xFFFF), st.binary(min_size=16, max_size=16))
def test_our_own_echo_is_known_again(
    family: socket.AddressFamily, number: int, token: bytes
) -> None:
    request = echo.request(family, number, token)
    reply = answer(request, family)
    assert echo.reply_number(reply, family, raw=False, token=token) == number
    if family is socket.AF_INET:
        with_ip = b"\x46" + b"\0" * 23 + reply  # a header of six words
        assert echo.reply_number(with_ip, family, raw=True, token=token) == number
        assert echo.checksum(request) == 0  # RFC 1071: a sound message sums up to nothing
    assert echo.reply_number(request, family, raw=False, token=token) is None
    assert echo.reply_number(reply, family, raw=False, token=b"x" * 16) is None


@given(st.binary(max_size=80), families, st.booleans())
def test_no_bytes_can_break_the_parser(
    data: bytes, family: socket.AddressFamily, raw: bool
) -> None:
    echo.reply_number(data, family, raw=raw, token=TOKEN)


def test_the_checksum_is_that_of_rfc_1071() -> None:
    assert echo.checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0x220D
    assert echo.checksum(b"\x01") == 0xFEFF


@pytest.mark.parametrize("station", [HERE, HERE6])
def test_a_station_that_lives_answers_every_echo(station: echo.Station) -> None:
    train = run(echo.icmp(station, 3, 0.2))
    if train is None:
        pytest.skip("no right to send ICMP here")
    assert (train.sent, train.answered) == (3, 3)
    assert train.rtt_ms is not None
    assert 0 <= train.rtt_ms < 100


def test_a_single_echo_has_a_round_trip_too() -> None:
    train = run(echo.icmp(HERE, 1, 0.2))
    if train is None:
        pytest.skip("no right to send ICMP here")
    assert train.answered == 1
    assert len(train.rtts_ms) == 1


def test_a_closed_port_answers_by_refusing() -> None:
    train = run(echo.tcp(HERE, 3, 0.01))
    assert (train.sent, train.answered) == (3, 3)
    assert train.rtt_ms is not None


def test_the_median_is_not_moved_by_one_straggler() -> None:
    assert echo.Train(4, 4, (3.0, 1.0, 900.0)).rtt_ms == 3.0
    assert echo.Train(4, 0).rtt_ms is None


def test_jitter_follows_rfc_3550_from_its_first_difference_on() -> None:
    jitter = echo.Jitter()
    assert jitter.ms is None
    jitter.add([10.0])
    assert jitter.ms is None
    jitter.add([10.0, 18.0])
    assert jitter.ms == pytest.approx(8.0)  # RFC 3550 itself would say 0.5 here
    by_the_book = 0.0
    for before, after in [(10.0, 18.0), *[(0.0, 2.0)] * 400]:
        by_the_book += (abs(after - before) - by_the_book) / 16
    for _ in range(400):
        jitter.add([0.0, 2.0])
    assert jitter.ms == pytest.approx(by_the_book, abs=1e-6)


@given(st.lists(st.floats(0, 1e4), min_size=2, max_size=40))
def test_jitter_lies_between_the_differences(rtts: list[float]) -> None:
    jitter = echo.Jitter()
    jitter.add(rtts)
    steps = [abs(after - before) for before, after in pairwise(rtts)]
    assert jitter.ms is not None
    assert min(steps) - 1e-6 <= jitter.ms <= max(steps) * (1 + 1e-9) + 1e-6


def test_loss_forgets_what_is_older_than_its_window() -> None:
    loss = echo.Loss(60)
    loss.add(0.0, echo.Train(5, 3))
    loss.add(30.0, echo.Train(5, 5))
    assert (loss.sent, loss.lost) == (10, 2)
    loss.add(61.0, echo.Train(5, 5))
    assert (loss.sent, loss.lost) == (10, 0)


WITHOUT_RIGHTS = """
import asyncio, json, os, socket
from agent.kinds.network import echo
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
here = echo.Station(socket.AF_INET, "127.0.0.1", 1)
async def main():
    async with asyncio.timeout(15):
        train = await echo.icmp(here, 2, 0.2)
        other = await echo.tcp(here, 2, 0.01)
    print(json.dumps({"icmp": train and train.answered, "tcp": other.answered}))
asyncio.run(main())
"""


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to give up root")
def test_a_process_without_the_right_to_send_icmp_says_so_and_still_measures() -> None:
    low, high = map(int, Path("/proc/sys/net/ipv4/ping_group_range").read_text().split())
    if low <= NOBODY <= high:
        pytest.skip("this kernel lets everybody send ICMP")
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_RIGHTS],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == {"icmp": None, "tcp": 2}
