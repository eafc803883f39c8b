"""Commands: the closed list with its typed arguments, and how one that came over MQTT is taken.

No shell, no templates, nothing that is not in `CATALOGUE`. A command is refused when it is retained
(it would be done again at every connect), when it came twice (the stored result is the answer),
when its time is over, or when an argument is not what it must be.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent.link.contract import INCOMING_BYTES, CommandDoc, Id, ReplyTo, common, encode
from agent.model import Command, Moment, Refused, StoreError

log = logging.getLogger("agent.commands")

ACCEPT_S = 1.0
"""A command that takes longer is answered `accepted` first."""
RUNNING_MAX = 8
REMEMBERED = 256
"""Ids that are known without asking the disk."""
DISK_S = 2.0
"""How long a command waits for the disk. One that hangs costs the memory, not the command."""

DeviceId = Annotated[str, Field(min_length=1, max_length=64)]


class _Args(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


class ReportArgs(_Args):
    """Everything that stands, published again."""


class RestartArgs(_Args):
    """End the agent; the service manager starts it again. Relays hold meanwhile."""


class RebootArgs(_Args):
    """Restart the whole box."""


class CheckArgs(_Args):
    """Fresh readings, of one device or of all."""

    device: DeviceId | None = Field(default=None, description="id of the device; all without it")
    loop: bool = Field(
        default=False,
        description="have loudspeakers with loop_test = true make a short sound, and nothing else",
    )


class LocateArgs(_Args):
    """The status light says where the room is."""

    seconds: int = Field(default=30, ge=0, le=600, description="how long; 0 ends it")


class RelaySetArgs(_Args):
    """Switch a relay."""

    relay: DeviceId = Field(description="id of the relay")
    on: bool = Field(description="true or false")
    break_glass: bool = Field(
        default=False, description="also in session, while the button is held at the box"
    )


class RelayPulseArgs(_Args):
    """Switch a relay over, and back after its pulse_s."""

    relay: DeviceId = Field(description="id of the relay")
    break_glass: bool = Field(
        default=False, description="also in session, while the button is held at the box"
    )


class RecoverArgs(_Args):
    """Try to bring a device back, step by step as its profile says."""

    device: DeviceId = Field(description="id of the device")
    dry_run: bool = Field(default=False, description="only say what would be done")
    step: Literal["reopen", "rebind", "reauthorize", "usb_reset", "power_cycle"] | None = Field(
        default=None, description="this step alone, also where nothing is wrong"
    )
    shared_power: bool = Field(
        default=False, description="others may lose power too; the dry run names them"
    )
    break_glass: bool = Field(
        default=False, description="also in session, while the button is held at the box"
    )


class ModeArgs(_Args):
    """Say what the room is doing. `auto` gives it back to the schedule."""

    mode: Literal["maintenance", "in_session", "recess", "idle", "auto"] = Field(
        description="maintenance, in_session, recess, idle or auto"
    )
    minutes: int = Field(default=60, ge=1, le=1_440, description="ends by itself after so long")


class AckArgs(_Args):
    """Somebody has seen an incident; it stays open until it is over."""

    code: Annotated[str, Field(max_length=64)] = Field(description="code of the incident")
    device: str = Field(default="", max_length=64, description="id of its device, if it has one")


class BaselineArgs(_Args):
    """The room is good: remember what its devices give, and compare with it from now on."""

    device: DeviceId | None = Field(default=None, description="id of the device; all without it")
    anyway: bool = Field(default=False, description="also what is not in order")


@dataclass(frozen=True, slots=True)
class Spec:
    """One command: its arguments, whether it may be sent to all rooms of a site at once (never with
    an argument of `alone`), and whether it is taken at the box alone: it is for somebody who sees
    the room."""

    args: type[_Args]
    broadcast: bool = False
    at_the_box: bool = False
    alone: frozenset[str] = frozenset()


CATALOGUE: Mapping[str, Spec] = {
    "check": Spec(CheckArgs, broadcast=True, alone=frozenset({"loop"})),
    "report": Spec(ReportArgs, broadcast=True),
    "locate": Spec(LocateArgs, broadcast=True),
    "relay.set": Spec(RelaySetArgs),
    "relay.pulse": Spec(RelayPulseArgs),
    "device.recover": Spec(RecoverArgs),
    "mode.set": Spec(ModeArgs),
    "incident.ack": Spec(AckArgs),
    "agent.restart": Spec(RestartArgs),
    "box.reboot": Spec(RebootArgs),
    "baseline": Spec(BaselineArgs, at_the_box=True),
}
"""The closed list."""


def typed(command: Command) -> Command:
    """The command with its arguments checked and completed. Raises `Refused`."""
    spec = CATALOGUE.get(command.name)
    if spec is None:
        known = ", ".join(CATALOGUE)
        raise Refused("unknown_command", f"no command {command.name[:40]!r}; commands are {known}")
    try:
        args = spec.args.model_validate(dict(command.args))
    except ValidationError as error:
        detail = error.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(part) for part in detail["loc"])[:64]
        code = "unknown_argument" if detail["type"] == "extra_forbidden" else "bad_argument"
        takes = ", ".join(spec.args.model_fields) or "no arguments"
        raise Refused(code, f"{name}: {detail['msg']}; {command.name} takes {takes}") from None
    return replace(command, args=args.model_dump(exclude_none=True))


class Ledger(Protocol):
    """Where results are kept, by the command's id. Both raise `StoreError`."""

    async def seen_command(self, id_: str) -> bytes | None:
        """The result of a command that was remembered, None for a new one."""
        ...

    async def remember_command(self, id_: str, result: bytes) -> None:
        """Keep a result, or replace it."""
        ...


Dispatch = Callable[[Command], Awaitable[Mapping[str, Any]]]
"""Carries a command out; the outcome has `state`, `code`, and perhaps `effect` and `took_ms`."""


@dataclass(slots=True)
class Inbox:
    """Commands from the broker: taken, carried out, answered once each."""

    dispatch: Dispatch
    ledger: Ledger
    answer: Callable[[bytes, ReplyTo | None], None]
    clock: Callable[[], Moment]
    refused: Callable[[str, str], None] = lambda code, why: None
    """Told of what was refused without being a command: code and why."""
    accept_s: float = ACCEPT_S
    _running: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _done: OrderedDict[str, bytes] = field(default_factory=OrderedDict)
    _keeping: set[asyncio.Task[None]] = field(default_factory=set)

    def receive(
        self, payload: bytes, *, retained: bool, broadcast: bool, reply_to: ReplyTo | None
    ) -> None:
        """Take a message. Returns at once; what comes of it is answered later."""
        received_s = self.clock().up_s
        try:
            command = parse(payload)
        except Refused as refusal:
            log.warning("command refused: %s", refusal)
            self.refused(refusal.code, str(refusal))
            if id_ := _id_in(payload):
                self._say(id_, {"state": "refused", "code": refusal.code}, reply_to)
            return
        unfit = self._refusal(command, retained=retained, broadcast=broadcast)
        if unfit is None and command.id in self._done:
            self.answer(self._done[command.id], reply_to)
            return
        if unfit is None and command.id in self._running:
            self._say(command.id, {"state": "accepted", "code": "ok"}, reply_to)
            return
        if unfit is None and len(self._running) >= RUNNING_MAX:
            unfit = Refused("too_many", "too many commands at once")
        if unfit is not None:
            log.warning("command %s refused: %s", command.name[:40], unfit)
            self.refused(unfit.code, str(unfit))
            self._say(command.id, {"state": "refused", "code": unfit.code}, reply_to)
            return
        task = asyncio.get_running_loop().create_task(self._take(command, received_s, reply_to))
        self._running[command.id] = task
        task.add_done_callback(lambda _: self._running.pop(command.id, None))

    async def close(self) -> None:
        """Let go of what runs; wait for the disk, but not for one that hangs."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if keeping := set(self._keeping):
            _, hanging = await asyncio.wait(keeping, timeout=DISK_S)
            for task in hanging:
                task.cancel()
            await asyncio.gather(*hanging, return_exceptions=True)

    def _refusal(self, command: Command, *, retained: bool, broadcast: bool) -> Refused | None:
        if retained:
            return Refused("retained", "a retained command would be done again at every connect")
        spec = CATALOGUE.get(command.name)
        if broadcast and (spec is None or not spec.broadcast or spec.alone & command.args.keys()):
            return Refused("not_broadcast", f"{command.name[:40]} is not for all rooms at once")
        if spec is not None and spec.at_the_box:
            return Refused("only_at_the_box", f"{command.name} is for somebody who sees the room")
        return None

    async def _take(self, command: Command, received_s: float, reply_to: ReplyTo | None) -> None:
        before = await self._seen(command.id)
        if before is not None:
            self.answer(before, reply_to)
            return
        if self.clock().up_s - received_s >= command.ttl_s:
            self._finish(command.id, {"state": "expired", "code": "expired"}, reply_to)
            return
        begun = encode(self._result(command.id, {"state": "failed", "code": "interrupted"}))
        keeping = self._keep(command.id, begun)
        work = asyncio.get_running_loop().create_task(self._carry_out(command))
        try:
            done, _ = await asyncio.wait({work}, timeout=self.accept_s)
            if not done:
                self._say(command.id, {"state": "accepted", "code": "ok"}, reply_to)
            outcome = await work
            await asyncio.wait({keeping}, timeout=DISK_S)
        finally:
            work.cancel()
        # What is answered is answered the same after a power cut, unless the disk hangs.
        result = self._made(command.id, outcome)
        await asyncio.wait({self._keep(command.id, result)}, timeout=DISK_S)
        self._know(command.id, result)
        self.answer(result, reply_to)

    def _keep(self, id_: str, result: bytes) -> asyncio.Task[None]:
        """Have a result remembered; the ledger keeps the order in which it was asked."""
        task = asyncio.get_running_loop().create_task(self._remember(id_, result))
        self._keeping.add(task)
        task.add_done_callback(self._keeping.discard)
        return task

    async def _carry_out(self, command: Command) -> Mapping[str, Any]:
        try:
            return await self.dispatch(command)
        except Exception:
            log.exception("command %s failed", command.name[:40])
            return {"state": "failed", "code": "exception"}

    async def _seen(self, id_: str) -> bytes | None:
        """What was answered before; a disk that does not answer leaves what memory knows."""
        if id_ in self._done:
            return self._done[id_]
        try:
            async with asyncio.timeout(DISK_S):
                before = await self.ledger.seen_command(id_)
        except (StoreError, TimeoutError) as error:
            why = str(error) or "the disk does not answer"
            log.warning("whether a command came before cannot be read: %s", why)
            return None
        if before is not None:  # the disk may not say it a second time
            self._know(id_, before)
        return before

    async def _remember(self, id_: str, result: bytes) -> None:
        try:
            await self.ledger.remember_command(id_, result)
        except StoreError as error:
            log.warning("the result of a command cannot be kept: %s", error)

    def _finish(self, id_: str, outcome: Mapping[str, Any], reply_to: ReplyTo | None) -> bytes:
        result = self._say(id_, outcome, reply_to)
        self._know(id_, result)
        return result

    def _know(self, id_: str, result: bytes) -> None:
        self._done[id_] = result
        while len(self._done) > REMEMBERED:
            self._done.popitem(last=False)

    def _say(self, id_: str, outcome: Mapping[str, Any], reply_to: ReplyTo | None) -> bytes:
        result = self._made(id_, outcome)
        self.answer(result, reply_to)
        return result

    def _made(self, id_: str, outcome: Mapping[str, Any]) -> bytes:
        try:
            return encode(self._result(id_, outcome))
        except ValueError as error:  # too long, of a room with hundreds of devices
            log.warning("what came of a command is not told in full: %s", error)
            return encode(self._result(id_, {k: outcome[k] for k in ("state", "code")}))

    def _result(self, id_: str, outcome: Mapping[str, Any]) -> dict[str, Any]:
        told = {k: outcome[k] for k in ("state", "code", "effect", "took_ms") if k in outcome}
        return {**common(self.clock()), "id": id_, **told}


def parse(payload: bytes) -> Command:
    """A command from its payload, arguments not looked at yet. Raises `Refused`."""
    if len(payload) > INCOMING_BYTES:
        raise Refused("bad_request", f"{len(payload)} bytes")
    try:
        doc = CommandDoc.model_validate_json(payload, strict=True)
    except ValidationError as error:
        detail = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in detail["loc"]) or "command"
        raise Refused("bad_request", " ".join(f"{place}: {detail['msg']}".split())[:200]) from None
    return Command(doc.id, doc.command, doc.args, doc.ttl_s, doc.by, doc.reason)


class _OnlyId(BaseModel):
    id: Id


def _id_in(payload: bytes) -> str:
    """The id of a payload that is no command, if it has one: whoever sent it gets an answer."""
    try:
        return _OnlyId.model_validate(json.loads(payload)).id
    except (ValueError, RecursionError):
        return ""
