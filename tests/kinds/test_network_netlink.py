"""rtnetlink by hand: what is built can be read, and nothing that is read can break it."""

from __future__ import annotations

import ipaddress
import socket
import struct

from hypothesis import given
from hypothesis import strategies as st

from agent.kinds.network import netlink
from agent.kinds.network.changes import News

LOOPBACK = 1
UP = 0x1 | 0x40 | 0x10000


def message(kind: int, body: bytes) -> bytes:
    raw = struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body
    return raw + b"\0" * (-len(raw) % 4)


def attribute(kind: int, value: bytes) -> bytes:
    raw = struct.pack("=HH", 4 + len(value), kind) + value
    return raw + b"\0" * (-len(raw) % 4)


def link(name: str = "eth0", index: int = 2, flags: int = UP, state: int = 6) -> bytes:
    body = netlink.IFINFO.pack(0, 1, index, flags, 0)
    body += attribute(netlink.IFLA_IFNAME, name.encode() + b"\0")
    return body + attribute(netlink.IFLA_OPERSTATE, bytes([state]))


def address(text: str = "192.0.2.7", index: int = 2, flags: int = 0) -> bytes:
    which = ipaddress.ip_address(text)
    family = socket.AF_INET if which.version == 4 else socket.AF_INET6
    body = netlink.IFADDR.pack(family, 24, 0, 0, index)
    body += attribute(netlink.IFA_ADDRESS, which.packed)
    return body + attribute(netlink.IFA_FLAGS, struct.pack("=I", flags))


bodies = st.tuples(st.integers(0, 100), st.binary(max_size=40))
attributes = st.dictionaries(st.integers(0, 0x3FFF), st.binary(max_size=24), max_size=6)


@given(st.lists(bodies, max_size=5))
def test_messages_come_back_as_they_were_packed(sent: list[tuple[int, bytes]]) -> None:
    data = b"".join(message(kind, body) for kind, body in sent)
    assert list(netlink.messages(data)) == sent


@given(st.integers(0, 30), attributes)
def test_attributes_come_back_as_they_were_packed(start: int, sent: dict[int, bytes]) -> None:
    fixed = b"\xff" * (start + -start % 4)
    body = fixed + b"".join(attribute(kind, value) for kind, value in sent.items())
    assert netlink.attributes(body, start) == sent


@given(st.binary(max_size=200), st.integers(0, 16))
def test_no_bytes_can_break_the_parsers(data: bytes, start: int) -> None:
    netlink.attributes(data, start)
    netlink.address(data)
    netlink.neighbour(data)
    news = News()
    news.of(data)
    for kind in (netlink.NEWLINK, netlink.DELLINK, netlink.NEWADDR, netlink.DELADDR):
        news.of(message(kind, data))


@given(st.binary(max_size=120), st.integers(0, 119))
def test_a_message_cut_short_is_not_read(body: bytes, at: int) -> None:
    data = message(16, body)
    whole = 16 + len(body)
    assert list(netlink.messages(data[: min(at, whole - 1)])) == []


def test_an_address_still_being_checked_for_duplicates_is_not_usable() -> None:
    tentative = netlink.address(address("2001:db8::7", flags=netlink.IFA_F_TENTATIVE))
    assert tentative is not None
    assert not tentative.usable
    settled = netlink.address(address("2001:db8::7"))
    assert settled is not None
    assert settled.usable


def test_the_live_kernel_knows_loopback() -> None:
    assert netlink.addresses(LOOPBACK)[4] == "present"
    assert netlink.addresses(2_000_000_000) == {4: "none", 6: "none"}


def test_the_live_kernel_knows_no_neighbour_that_nobody_asked_for() -> None:
    assert netlink.find_neighbour(socket.AF_INET, LOOPBACK, "192.0.2.200") is None


def test_a_neighbour_is_alive_dead_or_unknown() -> None:
    assert netlink.Neighbour(0x02).alive(30) is True  # reachable
    assert netlink.Neighbour(0x20).alive(30) is False  # failed
    assert netlink.Neighbour(0x01).alive(30) is False  # incomplete
    assert netlink.Neighbour(0x04, confirmed_s=20).alive(30) is True  # stale, but lately heard
    assert netlink.Neighbour(0x04, confirmed_s=40).alive(30) is None
    assert netlink.Neighbour(0x80).alive(30) is None  # permanent: written by hand


def test_a_repetition_is_no_news_and_a_change_is() -> None:
    news = News()
    assert news.of(message(netlink.NEWLINK, link()))
    assert not news.of(message(netlink.NEWLINK, link()))
    assert news.of(message(netlink.NEWLINK, link(flags=0x1, state=2)))
    assert news.of(message(netlink.NEWLINK, link()))
    assert news.of(message(netlink.NEWADDR, address()))
    assert not news.of(message(netlink.NEWADDR, address()))
    assert news.of(message(netlink.DELADDR, address()))
    assert news.of(message(netlink.NEWADDR, address()))
    assert news.of(message(netlink.DELLINK, link()))
    assert news.of(message(netlink.NEWLINK, link()))


def test_a_named_interface_is_not_woken_for_others() -> None:
    news = News("eth0")
    assert not news.of(message(netlink.NEWLINK, link("wlan0", index=3)))
    assert not news.of(message(netlink.NEWADDR, address(index=3)))
    assert news.of(message(netlink.NEWLINK, link("eth0", index=2)))
    assert news.of(message(netlink.NEWADDR, address(index=2)))


def test_all_of_a_datagram_is_taken_in_even_after_the_first_news() -> None:
    news = News()
    both = message(netlink.NEWLINK, link()) + message(netlink.NEWADDR, address())
    assert news.of(both)
    assert not news.of(message(netlink.NEWADDR, address()))


def test_after_lost_messages_everything_is_news_again() -> None:
    news = News()
    news.of(message(netlink.NEWLINK, link()))
    news.forget()
    assert news.of(message(netlink.NEWLINK, link()))
