"""One connection to a broker: a paho client inside the agent's own event loop.

A new client for each, so that nothing of an old attempt can reach a new one. paho's own thread is
never started: a stuck loop thereby stops the keep-alive, and the broker tells the truth about it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from agent.link.client import dial
from agent.link.client.dial import Errand, LinkLost, Word
from agent.link.client.feed import REFUSED, What
from agent.link.client.timing import Pace
from agent.link.contract import INCOMING_BYTES, Broker, ReplyTo, Topics

log = logging.getLogger("agent.link")

Version = Literal[4, 5]
OnMessage = Callable[[str, bytes, bool, ReplyTo | None], None]

ANSWER = "result"
WINDOW = 20
"""Messages on their way at once; more gains nothing, and paho refuses 65,536 without a word."""

_WORDS: Mapping[int, Word] = {
    **dict.fromkeys((0x86, 0x87, 0x8A, 0x8C), "auth"),
    **dict.fromkeys((0x88, 0x89, 0x8B, 0x97, 0x9C, 0x9D, 0x9F), "refused"),
    **dict.fromkeys((0x81, 0x82, 0x84, 0x85, 0x90, 0x93, 0x94, 0x95, 0x99, 0x9A), "protocol"),
    0x8D: "timeout",
    0x8E: "taken_over",
}
_BAD_VERSION = 0x84
_TOO_LARGE = 0x95


class Connection:
    """One connection, from dialling to its loss. Runs in the loop, except `_dial`."""

    def __init__(
        self,
        broker: Broker,
        topics: Topics,
        address: tuple[str, int],
        *,
        version: Version,
        will: bytes,
        pace: Pace,
        read_secret: Callable[[Path], str],
        on_acked: Callable[[What, int], None],
        on_message: OnMessage,
    ) -> None:
        self._broker = broker
        self._topics = topics
        self._address = address
        self._pace = pace
        self._read_secret = read_secret
        self._on_acked = on_acked
        self._on_message = on_message
        self._loop = asyncio.get_running_loop()
        self.version = version
        self.lost: asyncio.Future[LinkLost] = self._loop.create_future()
        self.bad_version = False
        self._accepted: asyncio.Future[None] = self._loop.create_future()
        self._granting: dict[int, asyncio.Future[list[int]]] = {}
        self._flying: dict[int, tuple[float, What]] = {}
        self._draining: asyncio.Future[None] | None = None
        self._window = WINDOW
        self._bytes_max = 1 << 28
        self._sock: mqtt.SocketLike | None = None
        self._heard_s = self._spoke_s = 0.0
        self._stage: Word = "dns"
        self._leaving = False
        self._blocked = False
        self._client = client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=topics.room,
            protocol=mqtt.MQTTv5 if version == 5 else mqtt.MQTTv311,
            reconnect_on_failure=False,
        )
        client.max_inflight_messages = WINDOW
        client.will_set(topics.of("status"), will, qos=1, retain=True)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_publication
        client.on_socket_close = self._on_socket_close
        client.on_socket_register_write = self._on_register_write

    # -- coming up ----------------------------------------------------------------------------

    async def open(self, errands: list[Errand]) -> None:
        """Dial, then wait until the broker has accepted. Raises `LinkLost`."""
        errand = Errand(self._dial, self._hang_up)
        errands.append(errand)
        try:
            await errand.run(self._pace.dial_s)
        except TimeoutError:
            raise LinkLost(self._stage, f"nothing after {self._pace.dial_s:.0f} s") from None
        self._sock = self._client.socket()
        assert self._sock is not None
        self._heard_s = self._spoke_s = self._loop.time()
        self._loop.add_reader(self._sock, self._readable)
        self._write()
        await self._first(self._accepted, self._pace.answer_s)
        if self.lost.done():
            raise self.lost.result()
        if not self._accepted.done():
            raise LinkLost("timeout", "no answer to CONNECT")

    async def _first(self, future: asyncio.Future[None], timeout_s: float | None = None) -> None:
        """Wait until it is done, the connection is lost, or the time is over."""
        waited: set[asyncio.Future[Any]] = {future, self.lost}
        await asyncio.wait(waited, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)

    def _dial(self) -> None:
        """In a daemon thread: files, name, TCP, TLS. `_stage` is what it hangs in, if it does."""
        broker, client = self._broker, self._client
        if broker.password_file is not None:
            try:
                secret = self._read_secret(broker.password_file)
            except (OSError, ValueError) as error:
                raise LinkLost("auth", f"password file: {error}") from error
            client.username_pw_set(broker.username or self._topics.room, secret)
        elif broker.username is not None:
            client.username_pw_set(broker.username)
        if broker.secure:
            client.tls_set_context(dial.tls_context(broker))
        client.connect_timeout = self._pace.dial_s / 2  # of one address
        dial.look_up(*self._address)
        self._stage = "timeout"
        properties = None
        if self.version == 5:
            properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            properties.MaximumPacketSize = 2 * INCOMING_BYTES
        try:
            client.connect(*self._address, keepalive=broker.keepalive_s, properties=properties)
        except (OSError, ValueError) as error:  # ValueError: a host that is no server name
            raise dial.why(error) from error
        if isinstance(sock := client.socket(), socket.socket):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _hang_up(self) -> None:
        """Close without DISCONNECT: the broker publishes the will."""
        if (sock := self._client.socket()) is not None:
            self._forget(sock)
            sock.close()

    def drop(self, lost: LinkLost) -> None:
        """Give the connection up, for a reason that the other side does not know."""
        self._hang_up()
        self._lose(lost)

    def _lose(self, lost: LinkLost) -> None:
        if not self.lost.done():
            self.lost.set_result(lost)
        for granting in self._granting.values():
            granting.cancel()

    # -- paho and the loop --------------------------------------------------------------------

    def _readable(self) -> None:
        self._heard_s = self._loop.time()
        try:
            self._client.loop_read()
            # TLS hands over whole records: what it holds back makes no socket readable.
            while isinstance(sock := self._client.socket(), ssl.SSLSocket) and sock.pending():
                self._client.loop_read()
        except Exception as error:  # paho parses what the network sends
            log.exception("the broker sent what paho cannot read")
            self.drop(LinkLost("protocol", str(error)))

    def _write(self) -> None:
        if self._sock is None:
            return
        self._spoke_s = self._loop.time()
        self._client.loop_write()
        if self._sock is None:
            return
        self._blocked = self._client.want_write()
        if self._blocked:
            self._loop.add_writer(self._sock, self._write)
        else:
            self._loop.remove_writer(self._sock)

    def _on_register_write(self, client: mqtt.Client, userdata: Any, sock: Any) -> None:
        if self._sock is not None:  # else still in the thread; `open` writes
            self._loop.call_soon(self._write)  # nearly always there is room: saves a wake-up

    def _on_socket_close(self, client: mqtt.Client, userdata: Any, sock: Any) -> None:
        self._forget(sock)

    def _forget(self, sock: mqtt.SocketLike) -> None:
        if self._sock is not None:
            self._sock = None
            self._loop.remove_reader(sock)
            self._loop.remove_writer(sock)

    # -- what the broker says -----------------------------------------------------------------

    def _on_connect(
        self,
        client: mqtt.Client,
        userdata: Any,
        flags: mqtt.ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if reason.is_failure:
            self.bad_version = reason.value == _BAD_VERSION
            self._lose(LinkLost(_WORDS.get(reason.value, "network"), str(reason)))
            return
        self._bytes_max = getattr(properties, "MaximumPacketSize", self._bytes_max)
        self._window = min(WINDOW, getattr(properties, "ReceiveMaximum", WINDOW))
        if not self._accepted.done():
            self._accepted.set_result(None)

    def _on_disconnect(
        self,
        client: mqtt.Client,
        userdata: Any,
        flags: mqtt.DisconnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if self.lost.done():
            return
        if self._leaving:
            self._lose(LinkLost("", "parted"))
            return
        # Many a broker does not answer a version that it does not know, it hangs up.
        self.bad_version = not self._accepted.done()
        if self.bad_version and self._broker.secure:
            # Since TLS 1.3 a client certificate is refused after the handshake, and mosquitto
            # does it without a word: this is by far the most frequent cause.
            self._lose(LinkLost("tls", "hung up after the handshake; the room's certificate?"))
        else:
            self._lose(LinkLost(_WORDS.get(reason.value, "network"), str(reason)))

    def _on_subscribe(
        self,
        client: mqtt.Client,
        userdata: Any,
        mid: int,
        reasons: list[ReasonCode],
        properties: Properties | None,
    ) -> None:
        granting = self._granting.pop(mid, None)
        if granting is not None and not granting.done():
            granting.set_result([reason.value for reason in reasons])

    def _on_publish(
        self,
        client: mqtt.Client,
        userdata: Any,
        mid: int,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        self._loop.call_soon(self._acknowledged, mid, reason.value)  # paho is in the midst of it

    def _acknowledged(self, mid: int, code: int) -> None:
        _, what = self._flying.pop(mid, (0.0, None))
        if what is not None:
            self._on_acked(what, code)
        if not self._flying and self._draining is not None and not self._draining.done():
            self._draining.set_result(None)

    def _on_publication(
        self, client: mqtt.Client, userdata: Any, message: mqtt.MQTTMessage
    ) -> None:
        suffix = self._topics.suffix(message.topic)
        if suffix is not None and len(message.payload) <= INCOMING_BYTES:
            reply_to = _reply_to(message.properties)
            self._on_message(suffix, bytes(message.payload), message.retain, reply_to)

    # -- what we say --------------------------------------------------------------------------

    @property
    def free(self) -> int:
        """Places in the window."""
        return 0 if self.lost.done() else self._window - len(self._flying)

    def send(self, what: What, payload: bytes) -> bool:
        """Send a retained document or an event at QoS 1; False when it cannot be sent now."""
        if self.free <= 0:
            return False
        event = isinstance(what, int)
        topic = self._topics.of("event" if event else str(what))
        if len(payload) + len(topic) + 16 > self._bytes_max:
            self._loop.call_soon(self._on_acked, what, _TOO_LARGE)
            return True
        sent = self._client.publish(topic, payload, qos=1, retain=not event)
        if sent.rc != mqtt.MQTT_ERR_SUCCESS:
            self.drop(LinkLost("network", mqtt.error_string(sent.rc)))
            return False
        self._flying[sent.mid] = (self._loop.time(), what)
        return True

    def answer(self, topic: str, payload: bytes, correlation: bytes | None = None) -> bool:
        """Send an answer at QoS 1, to a topic in full; False when it cannot be sent now."""
        long = len(payload) + len(topic.encode()) + len(correlation or b"") + 64
        if self.free <= 0 or long > self._bytes_max:
            return False
        properties = None
        if self.version == 5 and correlation is not None:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.CorrelationData = correlation
        sent = self._client.publish(topic, payload, qos=1, properties=properties)
        if sent.rc != mqtt.MQTT_ERR_SUCCESS:
            self.drop(LinkLost("network", mqtt.error_string(sent.rc)))
            return False
        self._flying[sent.mid] = (self._loop.time(), ANSWER)
        return True

    def send_at_most_once(self, suffix: str, payload: bytes) -> bool:
        """QoS 0; dropped when the window or the socket is full."""
        if self.free <= 0 or self._blocked:
            return False
        sent = self._client.publish(self._topics.of(suffix), payload)
        return sent.rc == mqtt.MQTT_ERR_SUCCESS

    async def subscribe(self, suffixes: Sequence[str]) -> list[str]:
        """Subscribe; returns what was refused, all of it where there was no answer in time."""
        topics = [self._topics.of(suffix) for suffix in suffixes]
        filters: Any = [(topic, 1) for topic in topics]
        if self.version == 5:
            filters = [
                (topic, SubscribeOptions(qos=1, retainAsPublished=True, retainHandling=handling))
                for topic, handling in zip(topics, map(_retain_handling, suffixes), strict=True)
            ]
        rc, mid = self._client.subscribe(filters)
        if rc != mqtt.MQTT_ERR_SUCCESS or mid is None:
            return list(suffixes)
        granting = self._granting[mid] = self._loop.create_future()
        await asyncio.wait({granting}, timeout=self._pace.answer_s)
        if not granting.done() or granting.cancelled():
            self._granting.pop(mid, None)
            return list(suffixes)
        codes = granting.result()
        return [s for s, code in zip(suffixes, codes, strict=False) if code >= REFUSED]

    async def drained(self) -> None:
        """Wait until everything sent is acknowledged, or the connection is lost."""
        if self._flying:
            self._draining = self._loop.create_future()
            await self._first(self._draining)

    async def close(self) -> None:
        """DISCONNECT: the broker throws the will away."""
        self._leaving = True
        self._client.disconnect()
        await asyncio.wait({self.lost})

    # -- keep-alive ---------------------------------------------------------------------------

    @property
    def misc_due_s(self) -> float:
        """When one direction will have been silent for the keep-alive (loop time)."""
        keepalive_s = self._client.keepalive or math.inf  # 0: the broker wants none
        return min(self._heard_s, self._spoke_s) + keepalive_s

    def misc(self) -> None:
        """Ping, or notice that the last ping was not answered; and that nothing is."""
        now = self._loop.time()
        oldest_s, _ = next(iter(self._flying.values()), (now, ""))
        if now - oldest_s > self._pace.acknowledge_s:
            self.drop(LinkLost("timeout", "the broker acknowledges nothing"))
        elif now >= self.misc_due_s:
            self._client.loop_misc()
            self._heard_s = self._spoke_s = now  # paho counts on from here, too


def _reply_to(properties: Properties | None) -> ReplyTo | None:
    """The request's wish; brokers drop it, and MQTT 3.1.1 has none."""
    topic = getattr(properties, "ResponseTopic", None)
    if not isinstance(topic, str) or not topic:
        return None
    return ReplyTo(topic, getattr(properties, "CorrelationData", None))


def _retain_handling(suffix: str) -> int:
    """2 (never send what is stored) for commands, which must not be retained."""
    return 2 if suffix.endswith("command") else 0
