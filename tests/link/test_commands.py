"""Commands that come in: whatever is sent, nothing is done twice, and nobody gets two answers."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agent.link import commands
from agent.link.commands import CATALOGUE, REMEMBERED, RUNNING_MAX, Inbox, parse, typed
from agent.link.contract import INCOMING_BYTES, ReplyTo, ResultDoc
from agent.model import Command, Moment, Refused, StoreError

FINAL = {"done", "refused", "failed", "expired"}
BACK = ReplyTo("hearing/v1/hcm/_central/results", b"\x00\xff")


class Ledger:
    """A ledger in memory, which may fail or hang."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.history: list[tuple[str, str]] = []
        self.fails = False
        self.hangs = False

    async def _disk(self) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        if self.fails:
            raise StoreError("the disk is full")

    async def seen_command(self, id_: str) -> bytes | None:
        await self._disk()
        return self.kept.get(id_)

    async def remember_command(self, id_: str, result: bytes) -> None:
        await self._disk()
        await asyncio.sleep(0)
        self.kept[id_] = result
        self.history.append((id_, json.loads(result)["code"]))


class Post:
    """An inbox with its surroundings: what was carried out, what was answered, what was refused."""

    def __init__(self, ledger: Ledger | None = None, accept_s: float = 1.0) -> None:
        self.ledger = ledger or Ledger()
        self.up_s = 50.0
        self.done: list[Command] = []
        self.answers: list[tuple[dict[str, Any], ReplyTo | None]] = []
        self.refusals: list[str] = []
        self.hold: Callable[[], Awaitable[object]] = lambda: asyncio.sleep(0)
        self.inbox = Inbox(
            dispatch=self._dispatch,
            ledger=self.ledger,
            answer=self._answer,
            clock=lambda: Moment(self.up_s, 1.7e9 + self.up_s, boot="5f0c12ab"),
            refused=lambda code, why: self.refusals.append(code),
            accept_s=accept_s,
        )

    async def _dispatch(self, command: Command) -> Mapping[str, Any]:
        self.done.append(command)
        await self.hold()
        if command.name == "locate":
            raise RuntimeError("a bug")
        return {"state": "done", "code": "ok", "effect": {"n": len(self.done)}, "message": "secret"}

    def _answer(self, result: bytes, reply_to: ReplyTo | None) -> None:
        document = json.loads(result)
        ResultDoc.model_validate_json(result)
        self.answers.append((document, reply_to))

    def send(
        self,
        payload: bytes | Mapping[str, Any],
        *,
        retained: bool = False,
        broadcast: bool = False,
        reply_to: ReplyTo | None = None,
    ) -> None:
        raw = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        self.inbox.receive(raw, retained=retained, broadcast=broadcast, reply_to=reply_to)

    async def settled(self) -> None:
        """Everything that was taken has come to its end."""
        async with asyncio.timeout(10):
            while self.inbox._running or self.inbox._keeping:
                await asyncio.sleep(0.001)

    def finals(self, id_: str) -> list[dict[str, Any]]:
        return [a for a, _ in self.answers if a["id"] == id_ and a["state"] in FINAL]

    @property
    def codes(self) -> list[str]:
        return [f"{a['state']} {a['code']}" for a, _ in self.answers]


def wish(id_: str = "one", command: str = "report", **more: Any) -> dict[str, Any]:
    return {"v": 1, "id": id_, "command": command, **more}


# -- one command ----------------------------------------------------------------------------------


def test_a_command_is_carried_out_answered_where_it_asked_and_remembered() -> None:
    async def scene() -> None:
        post = Post()
        post.send(wish(args={}, by="lan", reason="why", surplus=[1]), reply_to=BACK)
        await post.settled()
        ((answer, reply_to),) = post.answers
        assert (answer["id"], answer["state"], answer["effect"]) == ("one", "done", {"n": 1})
        assert "message" not in answer, "what people read does not travel"
        assert reply_to == BACK
        assert json.loads(post.ledger.kept["one"]) == answer
        (command,) = post.done
        assert (command.name, command.by, command.reason) == ("report", "lan", "why")

    asyncio.run(scene())


def test_a_bug_in_a_command_is_a_failure_of_that_command() -> None:
    async def scene() -> None:
        post = Post()
        post.send(wish(command="locate"))
        await post.settled()
        post.send(wish("two"))
        await post.settled()
        assert post.codes == ["failed exception", "done ok"]

    asyncio.run(scene())


def test_one_that_takes_longer_is_accepted_first_and_answered_once_more() -> None:
    async def scene() -> None:
        post = Post(accept_s=0.01)
        post.hold = lambda: asyncio.sleep(0.05)
        post.send(wish(), reply_to=BACK)
        await post.settled()
        assert post.codes == ["accepted ok", "done ok"]
        assert {reply_to for _, reply_to in post.answers} == {BACK}

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("payload", "options", "code"),
    [
        (wish(), {"retained": True}, "retained"),
        (wish(command="relay.set"), {"broadcast": True}, "not_broadcast"),
        (wish(command="relay.pulse"), {"broadcast": True}, "not_broadcast"),
        (wish(command="device.recover"), {"broadcast": True}, "not_broadcast"),
        (wish(command="mode.set"), {"broadcast": True}, "not_broadcast"),
        (wish(command="incident.ack"), {"broadcast": True}, "not_broadcast"),
        (wish(command="agent.restart"), {"broadcast": True}, "not_broadcast"),
        (wish(command="box.reboot"), {"broadcast": True}, "not_broadcast"),
        (wish(command="rm"), {"broadcast": True}, "not_broadcast"),
        ({**wish(), "v": 2}, {}, "bad_request"),
        ({**wish(), "v": True}, {}, "bad_request"),
        ({**wish(), "v": "1"}, {}, "bad_request"),
        ({"id": "one", "command": "report"}, {}, "bad_request"),
        (wish(command="Report"), {}, "bad_request"),
        (wish(command="../x"), {}, "bad_request"),
        (wish(ttl_s=0), {}, "bad_request"),
        (wish(ttl_s=-1), {}, "bad_request"),
        (wish(ttl_s="30"), {}, "bad_request"),
        (wish(ttl_s=3_601), {}, "bad_request"),
        (wish(args=[]), {}, "bad_request"),
        (wish(args={"a": {"b": 1}}), {}, "bad_request"),
        (wish(args={"a": None}), {}, "bad_request"),
        (wish(args={"a": "x" * 257}), {}, "bad_request"),
        (wish(args={str(n): n for n in range(17)}), {}, "bad_request"),
        (wish(by=5), {}, "bad_request"),
        (wish(reason="x" * 257), {}, "bad_request"),
    ],
    ids=str,
)
def test_what_may_not_be_is_refused_and_answered_and_not_remembered(
    payload: dict[str, Any], options: dict[str, bool], code: str
) -> None:
    async def scene() -> None:
        post = Post()
        post.send(payload, **options)
        await post.settled()
        assert post.codes == [f"refused {code}"]
        assert post.refusals == [code]
        assert post.done == []
        post.send(wish(), reply_to=None)
        await post.settled()
        assert post.codes[1:] == ["done ok"], "the same id, sent rightly"

    asyncio.run(scene())


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"one"',
        b"\xff\xfe",
        b'{"id":"\\ud800"}',
        b'{"id":""}',
        b'{"id":5}',
        b'{"id":"a\\nb"}',
        json.dumps({"id": "x" * 65}).encode(),
        b"[" * 60_000,
        b'{"a":' * 10_000,
        b"1" * 6_000,
        b'{"id":"a","v":1,"command":"report","ttl_s":1e999}',
        b" " * (INCOMING_BYTES + 1),
    ],
    ids=lambda payload: repr(payload[:30]),
)
def test_what_is_no_command_and_names_nobody_is_refused_without_an_answer(payload: bytes) -> None:
    async def scene() -> None:
        post = Post()
        post.send(payload)
        assert post.refusals == ["bad_request"]
        assert [a for a, _ in post.answers if a["id"] != "a"] == []

    asyncio.run(scene())


def test_what_others_write_makes_no_lines_of_its_own_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scene() -> None:
        post = Post()
        key = "a\nCRITICAL agent: all relays off"
        post.send(wish(args={key: []}))
        post.send(wish(command="report", args={key: 1}))
        post.send(wish("x\x7f"))
        await post.settled()

    asyncio.run(scene())
    assert caplog.records
    assert not any("\n" in record.getMessage() for record in caplog.records)


# -- the same again -------------------------------------------------------------------------------


def test_the_same_id_is_answered_with_what_was_answered_before() -> None:
    async def scene() -> None:
        post = Post()
        post.send(wish())
        await post.settled()
        post.up_s += 100
        post.send(wish(command="check", args={"device": "x"}), reply_to=BACK)
        await post.settled()
        first, again = post.answers
        assert again == (first[0], BACK)
        assert len(post.done) == 1
        after = Post(post.ledger)  # the agent was restarted
        after.send(wish())
        await after.settled()
        assert after.answers == [(first[0], None)]
        assert after.done == []

    asyncio.run(scene())


def test_the_same_id_while_it_runs_is_accepted_and_done_once() -> None:
    async def scene() -> None:
        post = Post()
        go = asyncio.Event()
        post.hold = go.wait
        post.send(wish())
        await asyncio.sleep(0.01)
        for _ in range(20):
            post.send(wish(), reply_to=BACK)
        assert post.codes == ["accepted ok"] * 20, "also beyond the number that may run"
        go.set()
        await post.settled()
        assert len(post.finals("one")) == 1
        assert len(post.done) == 1

    asyncio.run(scene())


def test_one_that_a_crash_interrupted_is_not_done_again() -> None:
    async def scene() -> None:
        post = Post()
        post.hold = asyncio.Event().wait
        post.send(wish())
        await asyncio.sleep(0.01)
        await post.inbox.close()
        assert post.answers == []
        after = Post(post.ledger)
        after.send(wish())
        await after.settled()
        assert after.codes == ["failed interrupted"]
        assert after.done == []

    asyncio.run(scene())


def test_interrupted_is_written_before_and_never_after_the_result() -> None:
    async def scene() -> None:
        post = Post()
        for number in range(20):
            post.send(wish(f"id-{number}"))
            await post.settled()
        for number in range(20):
            codes = [code for id_, code in post.ledger.history if id_ == f"id-{number}"]
            assert codes == ["interrupted", "ok"]

    asyncio.run(scene())


def test_more_at_once_than_may_run_are_refused_and_may_come_again() -> None:
    async def scene() -> None:
        post = Post()
        go = asyncio.Event()
        post.hold = go.wait
        for number in range(RUNNING_MAX + 2):
            post.send(wish(f"id-{number}"))
        assert post.codes == ["refused too_many"] * 2
        go.set()
        await post.settled()
        post.send(wish(f"id-{RUNNING_MAX}"))
        await post.settled()
        assert post.codes[-1] == "done ok"

    asyncio.run(scene())


def test_what_was_done_is_answered_also_when_all_hands_are_full() -> None:
    async def scene() -> None:
        post = Post()
        post.send(wish("first"))
        await post.settled()
        go = asyncio.Event()
        post.hold = go.wait
        for number in range(RUNNING_MAX):
            post.send(wish(f"id-{number}"))
        post.send(wish("first"))
        assert post.codes == ["done ok"] * 2
        go.set()
        await post.settled()

    asyncio.run(scene())


def test_memory_is_bounded_and_the_ledger_knows_the_rest() -> None:
    async def scene() -> None:
        post = Post()
        for number in range(REMEMBERED + 10):
            post.send(wish(f"id-{number}"))
            await post.settled()
        assert len(post.inbox._done) == REMEMBERED
        post.send(wish("id-0"))
        await post.settled()
        assert post.finals("id-0")[0] == post.finals("id-0")[1]
        assert len(post.done) == REMEMBERED + 10

    asyncio.run(scene())


def test_an_old_command_is_not_carried_out() -> None:
    async def scene() -> None:
        post = Post()

        async def slow_disk(id_: str) -> None:
            post.up_s += 31

        post.ledger.seen_command = slow_disk  # type: ignore[assignment, method-assign]
        post.send(wish())
        await post.settled()
        assert post.codes == ["expired expired"]
        assert post.done == []
        post.send(wish())
        await post.settled()
        assert post.codes == ["expired expired"] * 2

    asyncio.run(scene())


# -- disks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", ["fails", "hangs"])
def test_a_disk_that_is_ill_costs_the_memory_and_no_command(
    trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "DISK_S", 0.02)

    async def scene() -> None:
        post = Post()
        setattr(post.ledger, trouble, True)
        for number in range(2 * RUNNING_MAX):
            post.send(wish(f"id-{number}"))
            async with asyncio.timeout(5):
                while post.inbox._running:
                    await asyncio.sleep(0.001)
        assert post.codes == ["done ok"] * (2 * RUNNING_MAX)
        post.send(wish("id-3"))
        assert post.codes[-1] == "done ok", "this agent remembers"
        assert len(post.done) == 2 * RUNNING_MAX
        async with asyncio.timeout(1):
            await post.inbox.close()
        assert not post.inbox._keeping

    asyncio.run(scene())


def test_an_inbox_closes_while_its_disk_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "DISK_S", 0.02)

    async def scene() -> None:
        post = Post()
        post.ledger.hangs = True
        post.hold = asyncio.Event().wait
        post.send(wish())
        await asyncio.sleep(0.05)
        async with asyncio.timeout(1):
            await post.inbox.close()

    asyncio.run(scene())


def test_an_outcome_that_is_too_long_loses_its_effect_and_not_its_answer() -> None:
    async def scene() -> None:
        post = Post()

        async def many(command: Command) -> Mapping[str, Any]:
            return {
                "state": "done",
                "code": "ok",
                "effect": {f"device-{n}": n for n in range(5000)},
            }

        post.inbox.dispatch = many
        post.send(wish())
        await post.settled()
        ((answer, _),) = post.answers
        assert (answer["state"], answer["code"]) == ("done", "ok")
        assert "effect" not in answer

    asyncio.run(scene())


def test_what_is_answered_is_on_the_disk_before() -> None:
    """Else a cut of the power between the two would make two answers of one."""

    async def scene() -> None:
        post = Post()
        kept: list[bool] = []

        def answer(result: bytes, reply_to: ReplyTo | None) -> None:
            kept.append(post.ledger.kept.get(json.loads(result)["id"]) == result)

        post.inbox.answer = answer
        for id_ in "ab":
            post.send(wish(id_))
        await post.settled()
        assert kept == [True, True]

    asyncio.run(scene())


# -- whatever is sent -----------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)
NEARLY = st.fixed_dictionaries(
    {},
    optional={
        "v": st.just(1) | JSON,
        "id": st.sampled_from(["a", "b"]) | JSON,
        "command": st.sampled_from(sorted(CATALOGUE)) | JSON,
        "args": st.dictionaries(st.sampled_from(["device", "relay", "on", "x"]), JSON) | JSON,
        "ttl_s": st.floats() | JSON,
        "by": st.text() | JSON,
        "reason": st.text() | JSON,
    },
)
PAYLOADS = st.binary(max_size=200) | (JSON | NEARLY).map(lambda raw: json.dumps(raw).encode())


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(PAYLOADS, st.booleans(), st.booleans()), max_size=6))
def test_whatever_comes_nothing_raises_and_every_answer_is_a_result(
    messages: list[tuple[bytes, bool, bool]],
) -> None:
    async def scene() -> None:
        post = Post()
        for payload, retained, broadcast in messages:
            post.send(payload, retained=retained, broadcast=broadcast)
        await post.settled()
        assert all(n == 1 for n in Counter(c.id for c in post.done).values())

    asyncio.run(scene())


@settings(max_examples=150, deadline=None)
@given(NEARLY.map(lambda raw: json.dumps(raw).encode()))
def test_whatever_is_asked_arguments_are_checked_or_refused(payload: bytes) -> None:
    known = {"bad_request", "unknown_command", "unknown_argument", "bad_argument"}
    try:
        command = typed(parse(payload))
    except Refused as error:
        refusal = error
    else:
        assert command.name in CATALOGUE
        assert set(command.args) <= set(CATALOGUE[command.name].args.model_fields)
        return
    assert refusal.code in known
    assert len(str(refusal)) < 500


STEPS = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.sampled_from(["report", "locate", "relay.set"]),
        st.sampled_from(["send", "send", "send", "retained", "wait", "crash", "disk"]),
    ),
    max_size=25,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
@example(  # what an agent before it did is known to this one, also when its disk fails then
    [("a", "report", x) for x in ("send", "crash", "send", "wait", "send", "disk")]
    + [("a", "report", "send")]
)
@example([("a", "report", x) for x in ("send", "wait", "crash", "send", "wait", "disk", "send")])
def test_an_id_is_done_once_and_has_one_answer_through_crashes(
    steps: list[tuple[str, str, str]],
) -> None:
    async def scene() -> None:
        ledger = Ledger()
        post = Post(ledger)
        lives = [post]
        forgetful = False
        for id_, name, what in steps:
            if what == "wait":
                await post.settled()
            elif what == "crash":
                await asyncio.sleep(0.002)  # else nothing was begun that could be interrupted
                await post.inbox.close()
                post = Post(ledger)
                lives.append(post)
            elif what == "disk":
                ledger.fails = not ledger.fails
                forgetful = True
            else:
                post.send(wish(id_, name), retained=what == "retained")
        await post.settled()
        for id_ in "abc":
            finals = [f for life in lives for f in life.finals(id_) if f["code"] != "retained"]
            assert forgetful or len({json.dumps(final) for final in finals}) <= 1
            done = sum(command.id == id_ for life in lives for command in life.done)
            assert forgetful or done <= 1
            for life in lives:
                kept = {json.dumps(f) for f in life.finals(id_) if f["code"] != "retained"}
                assert len(kept) <= 1, "one agent gives one answer, whatever its disk does"

    asyncio.run(scene())
