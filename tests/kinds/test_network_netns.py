"""A room and its gateway in two network namespaces: the live kernel, real packets, real faults."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from agent.kinds import network
from agent.model import Level, Reading


def _has_namespaces() -> bool:
    if os.getuid() != 0 or shutil.which("ip") is None:
        return False
    name = f"hr{os.getpid()}t"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode == 0
    subprocess.run(["ip", "netns", "del", name], capture_output=True)
    return made


pytestmark = pytest.mark.skipif(not _has_namespaces(), reason="needs root and network namespaces")

ROOM, GATEWAY, FAR = "198.51.100.2", "198.51.100.1", "203.0.113.5"
CHILD = """
import asyncio, json, sys
from pathlib import Path
from agent.kinds import network

async def main():
    settings = network.Settings.model_validate_json(sys.argv[1])
    passive = network.Passive(settings)

    async def watch():
        async for _ in network.changes(settings):
            print(json.dumps({"changed": True}), flush=True)

    watching = asyncio.create_task(watch())
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.readline():
        reading = await passive.read()
        print(json.dumps({"values": dict(reading.values), "took_s": reading.took_s}), flush=True)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)

asyncio.run(main())
"""
NAMES = """
import socket, struct, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind((sys.argv[1], 53))
print("ready", flush=True)
while True:
    question, asker = sock.recvfrom(512)
    end = question.index(0, 12) + 5
    is_a = question[end - 4 : end - 2] == b"\\0\\1"
    head = question[:2] + struct.pack("!HHHHH", 0x8180, 1, int(is_a), 0, 0)
    record = b"\\xc0\\x0c" + struct.pack("!HHIH", 1, 1, 1, 4) + socket.inet_aton(sys.argv[2])
    sock.sendto(head + question[12:end] + (record if is_a else b""), asker)
"""


class Wire:
    """Two namespaces joined by one cable: `room` (room0) and `far`, the gateway (far0)."""

    def __init__(self) -> None:
        self.room, self.far = f"hr{os.getpid()}r", f"hr{os.getpid()}f"

    def __enter__(self) -> Wire:
        try:
            self._lay()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _lay(self) -> None:
        for name in (self.room, self.far):
            ip("netns", "add", name)
        ends = (
            "room0",
            "netns",
            self.room,
            "type",
            "veth",
            "peer",
            "name",
            "far0",
            "netns",
            self.far,
        )
        ip("link", "add", *ends)
        self.in_far("link", "set", "lo", "up")
        self.in_far("link", "set", "far0", "up")
        self.in_far("address", "add", f"{GATEWAY}/24", "dev", "far0")
        self.in_far("address", "add", f"{FAR}/32", "dev", "lo")
        self.in_room("link", "set", "lo", "up")
        self.in_room("link", "set", "room0", "up")
        self.address_room()

    def __exit__(self, *_: object) -> None:
        for name in (self.room, self.far):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=10)

    def address_room(self) -> None:
        self.in_room("address", "add", f"{ROOM}/24", "dev", "room0")
        self.in_room("route", "add", "default", "via", GATEWAY)

    def in_room(self, *words: str) -> None:
        ip("-n", self.room, *words)

    def in_far(self, *words: str) -> None:
        ip("-n", self.far, *words)

    def set_far(self, key: str, value: int) -> None:
        path = f"/proc/sys/net/{key}"
        run_in(self.far, sys.executable, "-c", f"open({path!r}, 'w').write('{value}')")

    def drop_replies(self) -> None:
        """From now on the gateway answers ARP only."""
        self.in_far("route", "add", "blackhole", f"{ROOM}/32")

    def answer_again(self) -> None:
        self.in_far("route", "del", "blackhole", f"{ROOM}/32")


def ip(*words: str) -> None:
    ran = subprocess.run(["ip", *words], capture_output=True, timeout=10)
    assert ran.returncode == 0, (words, ran.stderr)


def run_in(namespace: str, *command: str) -> None:
    subprocess.run(
        ["ip", "netns", "exec", namespace, *command], check=True, capture_output=True, timeout=10
    )


class Box:
    """The kind in a process of its own, inside the room's namespace."""

    def __init__(self, process: asyncio.subprocess.Process, limits: network.Settings) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin, self._stdout = process.stdin, process.stdout
        self._limits = limits
        self.values: dict[str, Any] = {}
        self.took_s = 0.0
        self._changes = 0

    async def _line(self) -> dict[str, Any]:
        line = await self._stdout.readline()
        assert line, "the box has died"
        said: dict[str, Any] = json.loads(line)
        return said

    async def read(self) -> dict[str, Level]:
        """One reading, judged: code -> level."""
        self._stdin.write(b"read\n")
        await self._stdin.drain()
        while "values" not in (said := await self._line()):
            self._changes += 1
        self.values, self.took_s = said["values"], said["took_s"]
        assert all(v in network.WORDS for v in self.values.values() if isinstance(v, str))
        found = network.judge(Reading(self.values), self._limits)
        return {f.code.removeprefix("network."): f.level for f in found}

    async def changed(self) -> None:
        """Waits until the kernel's word came through."""
        if self._changes:
            self._changes = 0
            return
        said = await self._line()
        assert said == {"changed": True}

    async def becomes(self, expected: dict[str, Level]) -> None:
        """Reads until a reading is judged so: some things take the kernel a moment."""
        while (found := await self.read()) != expected:
            print(found, self.values)  # for whoever looks into a time-out


Story = Callable[[Wire, Box], Awaitable[None]]


def play(story: Story, prepare: Callable[[Wire], None] | None = None, **table: Any) -> None:
    table = {"interface": "auto", "echoes": 2, "echo_spacing_s": 0.2, "deadline_s": 3.0, **table}
    limits = network.Settings(**table)

    async def whole(wire: Wire) -> None:
        process = await asyncio.create_subprocess_exec(
            *("ip", "netns", "exec", wire.room, sys.executable, "-c", CHILD),
            limits.model_dump_json(exclude_unset=True),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(45):
                await story(wire, Box(process, limits))
                assert process.stdin is not None
                process.stdin.close()
                assert await process.wait() == 0, "changes() and the loop end cleanly"
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    with Wire() as wire:
        if prepare:
            prepare(wire)
        asyncio.run(whole(wire))


def test_a_good_line_is_well_and_measured() -> None:
    async def story(wire: Wire, box: Box) -> None:
        assert await box.read() == {}
        assert box.values["icmp"] == "ok"
        assert box.values["gateway_by"] == "icmp"
        assert box.values["ipv4"] == "present"
        assert box.values["loss_pct"] == 0
        assert box.values["rtt_by"] == "icmp"
        assert box.values["duplex"] == "full"
        assert box.values["speed_mbps"] == 10_000  # what veth claims

    play(story)


def test_a_pulled_cable_is_told_at_once_and_so_is_a_plugged_one() -> None:
    async def story(wire: Wire, box: Box) -> None:
        nobody_listens = {"endpoint_unreachable": Level.FAIL}
        assert await box.read() == nobody_listens
        wire.in_far("link", "set", "far0", "down")
        await box.changed()
        assert await box.read() == {"no_link": Level.FAIL}
        assert box.took_s < 0.5
        assert "endpoints" not in box.values  # nothing is tried over a dead link
        wire.in_far("link", "set", "far0", "up")
        await box.changed()
        await box.becomes(nobody_listens)

    play(story, endpoints=(f"tcp://{FAR}:443",))


def test_one_change_is_told_once() -> None:
    async def story(wire: Wire, box: Box) -> None:
        assert await box.read() == {}
        for _ in range(5):
            wire.in_room("address", "add", "198.51.100.3/24", "dev", "room0")
            wire.in_room("address", "del", "198.51.100.3/24", "dev", "room0")
        await box.changed()
        await box.read()  # 0.2 s and more: another change would stand before the answer
        assert box._changes <= 1

    play(story)


def test_an_interface_switched_off_by_hand_is_no_link() -> None:
    async def story(wire: Wire, box: Box) -> None:
        assert await box.read() == {}
        wire.in_room("link", "set", "room0", "down")
        await box.changed()
        assert await box.read() == {"no_link": Level.FAIL}
        wire.in_room("link", "set", "room0", "up")
        wire.in_room("route", "add", "default", "via", GATEWAY)  # went with the link
        await box.becomes({})

    play(story)


def test_a_lost_address_is_named_and_nothing_that_follows_from_it() -> None:
    async def story(wire: Wire, box: Box) -> None:
        nobody_listens = {"endpoint_unreachable": Level.FAIL}
        assert await box.read() == nobody_listens
        wire.in_room("address", "flush", "dev", "room0", "scope", "global")
        await box.changed()
        assert await box.read() == {"no_address": Level.FAIL}
        assert box.values["ipv4"] == "none"
        wire.in_room(
            "address", "add", "169.254.7.7/16", "dev", "room0"
        )  # what a DHCP client gives up with
        assert await box.read() == {"no_address": Level.FAIL}
        assert box.values["ipv4"] == "link_local"
        wire.address_room()
        await box.changed()
        await box.becomes(nobody_listens)

    play(story, endpoints=("tcp://198.51.100.1:7",), interface="room0")


def test_a_gateway_that_stops_answering_is_unreachable_and_not_loss() -> None:
    async def story(wire: Wire, box: Box) -> None:
        assert await box.read() == {}
        wire.drop_replies()
        assert await box.read() == {"gateway_unreachable": Level.FAIL}
        assert box.values["icmp"] == "silent"
        assert "loss_pct" not in box.values
        assert "rtt_ms" not in box.values
        wire.answer_again()
        assert await box.read() == {}
        assert box.values["loss_pct"] == 0  # an outage has its own name

    play(story)


def test_a_gateway_that_is_gone_from_the_link_is_unreachable() -> None:
    async def story(wire: Wire, box: Box) -> None:
        # It never answered, so the neighbour table alone can tell: it needs its three tries.
        await box.becomes({"gateway_unreachable": Level.FAIL})
        wire.in_far("address", "add", f"{GATEWAY}/24", "dev", "far0")
        await box.becomes({})

    play(story, lambda wire: wire.in_far("address", "del", f"{GATEWAY}/24", "dev", "far0"))


def test_a_gateway_that_ignores_echoes_is_reached_by_tcp() -> None:
    async def story(wire: Wire, box: Box) -> None:
        assert await box.read() == {}
        assert box.values["icmp"] == "silent"
        assert (box.values["gateway_by"], box.values["rtt_by"]) == ("tcp", "tcp")
        assert "loss_pct" not in box.values
        wire.set_far("ipv4/icmp_echo_ignore_all", 0)
        assert await box.read() == {}
        assert box.values["gateway_by"] == "icmp"

    play(story, lambda wire: wire.set_far("ipv4/icmp_echo_ignore_all", 1))


def test_a_gateway_that_answers_nothing_but_arp_is_reached_by_its_neighbour_entry() -> None:
    async def story(wire: Wire, box: Box) -> None:
        assert await box.read() == {}
        assert (box.values["icmp"], box.values["gateway_by"]) == ("silent", "neighbour")
        assert not {"rtt_ms", "loss_pct", "jitter_ms"} & box.values.keys()
        wire.answer_again()
        assert await box.read() == {}
        assert box.values["gateway_by"] == "icmp"

    play(story, Wire.drop_replies)


def test_no_default_route_is_an_unreachable_gateway_unless_nobody_wants_one() -> None:
    async def story(wire: Wire, box: Box) -> None:
        assert await box.read() == {}
        wire.in_room("route", "del", "default")
        assert await box.read() == {"gateway_unreachable": Level.FAIL}
        wire.in_room("route", "add", "default", "via", GATEWAY)
        assert await box.read() == {}

    play(story)

    async def isolated(wire: Wire, box: Box) -> None:
        assert await box.read() == {}

    play(isolated, lambda wire: wire.in_room("route", "del", "default"), gateway=False)


def test_a_line_of_ipv6_alone_is_a_line() -> None:
    def prepare(wire: Wire) -> None:
        wire.in_room("address", "flush", "dev", "room0", "scope", "global")
        wire.in_far("-6", "address", "add", "fe80::1/64", "dev", "far0", "nodad")
        wire.in_room("-6", "address", "add", "2001:db8::2/64", "dev", "room0", "nodad")
        wire.in_room("-6", "address", "add", "fe80::2/64", "dev", "room0", "nodad")
        wire.in_room("-6", "route", "add", "default", "via", "fe80::1", "dev", "room0")

    async def story(wire: Wire, box: Box) -> None:
        await box.becomes({})
        assert (box.values["ipv4"], box.values["ipv6"]) == ("none", "present")
        assert (box.values["icmp"], box.values["gateway_reachable"]) == ("ok", True)
        wire.set_far("ipv6/icmp/echo_ignore_all", 1)
        assert await box.read() == {}
        assert box.values["gateway_by"] == "tcp"

    play(story, prepare)


def test_an_endpoint_behind_a_black_hole_times_out_and_comes_back() -> None:
    def prepare(wire: Wire) -> None:
        wire.in_far("rule", "add", "from", FAR, "to", ROOM, "table", "66")
        wire.in_far("route", "add", "blackhole", "default", "table", "66")

    async def story(wire: Wire, box: Box) -> None:
        assert await box.read() == {"endpoint_unreachable": Level.FAIL}
        assert box.values["endpoint_1_why"] == "timeout"
        assert box.took_s < 3.0
        wire.in_far("route", "del", "blackhole", "default", "table", "66")
        assert await box.read() == {"endpoint_unreachable": Level.FAIL}
        assert box.values["endpoint_1_why"] == "refused"  # the host is back, its service is not

    play(story, prepare, endpoints=(f"tcp://{FAR}:443",))


def test_names_fail_with_their_server_and_come_back_with_it() -> None:
    server = next(
        (
            words[1]
            for words in map(str.split, Path("/etc/resolv.conf").read_text().splitlines())
            if words[:1] == ["nameserver"] and ":" not in words[1] and words[1][:4] != "127."
        ),
        None,
    )
    if server is None:
        pytest.skip("no name server of IPv4 in /etc/resolv.conf")

    async def story(wire: Wire, box: Box) -> None:
        found = await box.read()
        assert found == {"dns_failing": Level.FAIL}
        assert box.values["dns_why"] in ("dns_timeout", "dns_failed")
        assert box.values["endpoint_1_why"] == box.values["dns_why"]
        wire.in_far("address", "add", f"{server}/32", "dev", "lo")
        names = await asyncio.create_subprocess_exec(
            *("ip", "netns", "exec", wire.far, sys.executable, "-c", NAMES, server, FAR),
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            assert names.stdout is not None
            assert await names.stdout.readline() == b"ready\n"
            # The name resolves now; nobody listens there, which is another fault.
            await box.becomes({"endpoint_unreachable": Level.FAIL})
            assert box.values["endpoint_1_why"] == "refused"
            assert box.values["dns_failed"] == 0
        finally:
            names.kill()
            await names.wait()

    play(story, endpoints=("tcp://court.example:443",), deadline_s=3.0)


def test_a_gateway_past_which_an_endpoint_answers_is_only_worth_knowing() -> None:
    async def story(wire: Wire, box: Box) -> None:
        # The endpoint is the room's own loopback: it answers without any gateway.
        server = await asyncio.create_subprocess_exec(
            *("ip", "netns", "exec", wire.room, sys.executable, "-c"),
            "import socket; s = socket.create_server(('127.0.0.1', 5061)); "
            "print('ready', flush=True)\nwhile True: s.accept()[0].close()",
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            assert server.stdout is not None
            assert await server.stdout.readline() == b"ready\n"
            for _ in range(3):
                assert await box.read() == {}
            assert "endpoints_age_s" in box.values  # well, so it is spared
            wire.drop_replies()
            assert await box.read() == {"gateway_unreachable": Level.FAIL}
            # What was true before the gateway fell silent says nothing now: it is asked anew.
            assert await box.read() == {"gateway_unreachable": Level.INFO}
            wire.answer_again()
            assert await box.read() == {}
        finally:
            server.kill()
            await server.wait()

    play(story, endpoints=("tcp://127.0.0.1:5061",))
