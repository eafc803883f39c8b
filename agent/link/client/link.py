"""The link to the broker for as long as the agent lives: connect, serve, connect again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import uuid
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from agent.link.client import dial
from agent.link.client.connection import ANSWER, Connection, OnMessage, Version
from agent.link.client.dial import Errand, LinkLost, Word
from agent.link.client.feed import REFUSED, Feed, Outbox, What
from agent.link.client.timing import Backoff, Pace
from agent.link.contract import Broker, ReplyTo, Status, Topics, Will, common, encode
from agent.model import Moment, StoreError

log = logging.getLogger("agent.link")

ANSWERS_MAX = 64
"""Answers that wait for a place in the window. Who missed one asks again, with the same id."""
STUCK_MAX = 3
"""So many look-ups that do not return may hang about before no more are begun."""


class Link:
    """The room's link. Everything runs in one event loop; `run` is a task, the rest are calls."""

    def __init__(
        self,
        broker: Broker,
        site: str,
        room: str,
        *,
        outbox: Outbox,
        clock: Callable[[], Moment],
        on_message: OnMessage,
        subscriptions: Sequence[str] = ("schedule",),
        heartbeat_gate: Callable[[], bool] = lambda: True,
        read_secret: Callable[[Path], str] = dial.read_secret,
        chance: Callable[[], float] = random.random,
        pace: Pace = Pace(),  # noqa: B008 - frozen
    ) -> None:
        """`on_message(suffix, payload, retained, reply_to)` gets what comes in on `subscriptions`
        (suffixes, `_all/...` for the site's broadcast). `heartbeat_gate` says whether the agent is
        alive on evidence: while it is not, nothing keeps the connection alive and none is made."""
        self._broker = broker
        self._topics = Topics(site, room)
        self._outbox = outbox
        self._clock = clock
        self._listener = on_message
        self._subscriptions = tuple(subscriptions)
        self._gate = heartbeat_gate
        self._read_secret = read_secret
        self._chance = chance
        self._pace = pace
        self._documents: dict[str, bytes] = {}
        self._acked: set[int] = set()
        self._speaks_4: set[tuple[str, int]] = set()
        self._guesses: dict[tuple[str, int], Version] = {}
        self._errands: list[Errand] = []
        self._answers: deque[tuple[str, bytes, bytes | None]] = deque(maxlen=ANSWERS_MAX)
        self._connection: Connection | None = None
        self._feed: Feed | None = None
        self._session = ""
        self._address = broker.addresses[0]
        self._since_s = clock().up_s
        self._last_error: Word = ""
        self._refusals: Counter[str] = Counter()
        self._stopping = asyncio.Event()
        self._running: asyncio.Task[Any] | None = None

    # -- how it stands ------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether a broker has accepted us and is still there, as far as we know."""
        return self._connection is not None

    @property
    def since_s(self) -> float:
        """Since when `connected` has been what it is, in boot time."""
        return self._since_s

    @property
    def last_error(self) -> Word:
        """Why there is no connection; of one that stands, what is wrong with it; else empty."""
        return self._last_error

    @property
    def broker_host(self) -> str:
        """`host:port` of the broker in use, or tried last."""
        host, port = self._address
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def protocol(self) -> Version:
        """5, or 4 (MQTT 3.1.1): spoken now, or to be tried next."""
        if self._connection is not None:
            return self._connection.version
        return 4 if self._address in self._speaks_4 else self._guesses.get(self._address, 5)

    @property
    def session(self) -> str:
        """The name of the connection: the same in birth, heartbeat and will."""
        return self._session

    @property
    def refusals(self) -> Mapping[str, int]:
        """How often the broker refused something, by topic suffix. MQTT 3.1.1 cannot say."""
        return dict(self._refusals)

    # -- what the room says -------------------------------------------------------------------

    def put(self, suffix: str, payload: bytes | None) -> None:
        """A retained document; the newest wins, None removes it. Sent now or when connected, and
        again on every connect. Bytes that did not change are not sent twice on a connection."""
        if suffix == "status":
            raise ValueError("status is the link's own")
        self._documents[suffix] = payload or b""
        if self._feed is not None:
            self._feed.offer(suffix)

    def telemetry(self, payload: bytes) -> None:
        """A message that nobody misses: dropped when there is no connection, or it is busy."""
        if self._connection is not None and self._feed is not None and self._feed.born:
            self._connection.send_at_most_once("telemetry", payload)

    def answer(self, payload: bytes, reply_to: ReplyTo | None = None) -> None:
        """The answer to a command: on `result`, and where the request asked for it, if that is a
        place for answers. Without a connection it is lost; who asks again gets it again."""
        if self._connection is None:
            return
        result = self._topics.of("result")
        correlation = reply_to.correlation if reply_to and reply_to.topic == result else None
        self._answers.append((result, payload, correlation))
        if reply_to is not None and reply_to.topic != result:
            if self._topics.takes_answers(reply_to.topic):
                self._answers.append((reply_to.topic, payload, reply_to.correlation))
            else:
                log.warning("no answer to %.200r: not a place for answers", reply_to.topic)
        self._send_answers()

    def _send_answers(self) -> None:
        connection = self._connection
        while connection is not None and self._answers and connection.free > 0:
            sent = connection.answer(*self._answers.popleft())
            if not sent and connection.free > 0:
                log.warning("an answer is too large for the broker")

    def kick(self) -> None:
        """There are new events in the outbox."""
        if self._feed is not None:
            self._feed.kick()

    # -- life ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Connect, serve, connect again, until `stop`. Cancelled, it leaves as if it had crashed:
        the broker publishes the will."""
        self._running = asyncio.current_task()
        life = asyncio.create_task(self._live())
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({life, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if life.done():
                life.result()
        finally:
            for task in (life, stopping):
                task.cancel()
            await asyncio.gather(life, stopping, return_exceptions=True)

    async def stop(self, why: str, timeout_s: float = 3.0) -> None:
        """Say `stopped`, with `why`, and part, as far as the time allows. `run` returns."""
        connection, feed = self._connection, self._feed
        if connection is not None and feed is not None:
            feed.close()
            farewell = encode(self._status("stopped", why=why))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    if not connection.free:
                        await connection.drained()
                    connection.send("status", farewell)
                    await connection.drained()
                    await connection.close()
            with contextlib.suppress(StoreError):
                await feed.mark()
        self._stopping.set()
        if self._running is not None:
            await asyncio.wait({self._running})

    async def _live(self) -> None:
        pace = self._pace
        retry = Backoff(pace.retry_base_s, pace.retry_cap_s, self._chance)
        addresses = self._broker.addresses
        turn = 0
        while True:
            if not self._may_dial():
                await asyncio.sleep(pace.gate_s)
                continue
            self._address = addresses[turn % len(addresses)]
            connection = self._connect()
            served_s = await self._serve(connection)
            if served_s is None:
                turn += 1
            elif served_s >= pace.stable_s:
                retry.reset()
            if not (connection.bad_version and self._other_version(connection)):
                await asyncio.sleep(retry.next_s())

    def _may_dial(self) -> bool:
        self._errands = [errand for errand in self._errands if errand.stuck]
        return self._gate() and len(self._errands) < STUCK_MAX

    def _connect(self) -> Connection:
        address = self._address
        self._session = str(uuid.uuid4())
        return Connection(
            self._broker,
            self._topics,
            address,
            version=4 if address in self._speaks_4 else self._guesses.pop(address, 5),
            will=encode(Will(session=self._session)),
            pace=self._pace,
            read_secret=self._read_secret,
            on_acked=self._on_acked,
            on_message=self._on_message,
        )

    def _other_version(self, connection: Connection) -> bool:
        """Choose the version for the next try; True when there is no need to wait for it."""
        if connection.lost.result().word != "protocol":  # it hung up: because of the version?
            self._guesses[self._address] = 4 if connection.version == 5 else 5
            return False
        if connection.version == 4:
            return False
        self._speaks_4.add(self._address)
        return True

    async def _serve(self, connection: Connection) -> float | None:
        """One connection from dialling to its loss; how long it was one, None if it never was."""
        loop = asyncio.get_running_loop()
        tasks: set[asyncio.Future[Any]] = set()
        try:
            await connection.open(self._errands)
            since_s = loop.time()
            feed = self._up(connection)
            works = (feed.events(), self._beat(connection, feed), self._subscribe(connection, feed))
            tasks.update(asyncio.ensure_future(work) for work in works)
            while not connection.lost.done():
                waited = {connection.lost, *tasks}
                await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
                for task in [t for t in tasks if t.done()]:
                    tasks.remove(task)
                    task.result()  # raises only what is a mistake of ours
        except LinkLost as failed:
            connection.drop(failed)
            return None
        finally:
            connection.drop(LinkLost("", "given up"))
            self._down(connection.lost.result())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(StoreError):
            await feed.mark()
        return loop.time() - since_s

    def _up(self, connection: Connection) -> Feed:
        self._connection = connection
        self._since_s = self._clock().up_s
        self._last_error = ""
        log.info("connected to %s, MQTT version %d", self.broker_host, connection.version)
        self._feed = Feed(
            connection,
            self._documents,
            self._outbox,
            self._acked,
            online=lambda: encode(self._status("online", next_s=self._pace.heartbeat_s)),
            pace=self._pace,
            chance=self._chance,
        )
        return self._feed

    def _down(self, lost: LinkLost) -> None:
        """No connection, or no longer: all that is said of it changes in one step."""
        was = self._connection is not None
        self._connection = self._feed = None
        self._answers.clear()
        if was:
            self._since_s = self._clock().up_s
        if lost.word and (was or lost.word != self._last_error):
            log.warning("no broker at %s: %s (%s)", self.broker_host, lost.word, lost)
        self._last_error = lost.word

    def _status(self, state: Literal["online", "stopped"], **fields: Any) -> Status:
        return Status(**common(self._clock()), state=state, session=self._session, **fields)

    async def _subscribe(self, connection: Connection, feed: Feed) -> None:
        """Subscribe, then let the feed speak; what was refused is asked for again and again."""
        pace = self._pace
        again = Backoff(pace.refused_base_s, pace.refused_cap_s, self._chance)
        wanted = list(self._subscriptions)
        while wanted:
            wanted = await connection.subscribe(wanted)
            if connection.lost.done():
                return
            feed.open()
            for suffix in wanted:
                self._count_refusal(suffix, "subscription")
            self._last_error = "subscribe" if wanted else ""
            if wanted:
                await asyncio.sleep(again.next_s())
        feed.open()

    async def _beat(self, connection: Connection, feed: Feed) -> None:
        """Heartbeat and keep-alive on one timer, only while the agent is alive on evidence."""
        loop = asyncio.get_running_loop()
        beat_due_s = loop.time() + self._pace.heartbeat_s
        while True:
            due_s = min(beat_due_s, connection.misc_due_s)
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            if not self._gate():
                await asyncio.sleep(self._pace.gate_s)
            elif loop.time() >= beat_due_s:
                beat_due_s = loop.time() + self._pace.heartbeat_s
                feed.beat()
                await asyncio.sleep(1.0)  # its acknowledgement saves the ping that is due as well
            else:
                connection.misc()

    # -- what the broker says -----------------------------------------------------------------

    def _on_acked(self, what: What, code: int) -> None:
        if code >= REFUSED:
            self._count_refusal("event" if isinstance(what, int) else what, f"0x{code:02X}")
        if self._feed is not None and what != ANSWER:
            self._feed.answered(what, code)
        self._send_answers()

    def _count_refusal(self, suffix: str, how: str) -> None:
        self._refusals[suffix] += 1
        if self._refusals[suffix] == 1:
            log.warning("%s refused by the broker: %s", self._topics.of(suffix), how)

    def _on_message(
        self, suffix: str, payload: bytes, retained: bool, reply_to: ReplyTo | None
    ) -> None:
        if suffix not in self._subscriptions:
            return
        try:
            self._listener(suffix, payload, retained, reply_to)
        except Exception:  # a message must not end the link: it may be retained and come again
            log.exception("message on %s", self._topics.of(suffix))
