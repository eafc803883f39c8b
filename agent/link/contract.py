"""The public interface over MQTT: topics, payloads, limits, and the `[broker]` table.

Every payload is one JSON object on one line, UTF-8, with the unit of a number in its key. What
could not be measured is absent. The models forbid what they do not name, so that a document of
ours cannot grow unseen; what comes in from others is checked as strictly in what it says, but may
say more (a newer central must be able to talk to an older room).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StrictBool,
    StrictInt,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import ErrorDetails

from agent import model
from agent.model import Clock, Level, Mode, Moment, Seat, State

VERSION = 1
ROOT = f"hearing/v{VERSION}"
TLS_PORT, PLAIN_PORT = 8883, 1883
PAYLOAD_BYTES = 16 * 1024
LONG_PAYLOAD_BYTES = 64 * 1024
"""For documents that grow with the number of devices: `about` (inventory) and `readiness`."""
INCOMING_BYTES = 64 * 1024
"""A schedule of 200 hearings is some 25 KiB."""
TEXT_CHARACTERS = 256
WORD_CHARACTERS = 64
"""No run of characters without a space is longer: a SHA-256 in hex fits, a picture does not."""
LONGEST_HEARING_S = 7 * 86_400.0
"""In session nothing is opened: a slip of the pen in a date must not blind a room for years."""

_SEGMENT = re.compile(r"[a-z0-9-]{1,64}")
_INSTANT = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}"
    r"(:[0-9]{2}(\.[0-9]{1,6})?)?(Z|[+-][0-9]{2}:[0-9]{2})$"
)


def _real_instant(text: str) -> str:
    datetime.fromisoformat(text)  # the pattern knows no calendar
    return text


Instant = Annotated[str, Field(pattern=_INSTANT), AfterValidator(_real_instant)]
"""ISO 8601 with `Z` or an offset; we write UTC, milliseconds and `Z`."""
Text = Annotated[str, Field(max_length=TEXT_CHARACTERS)]
Id = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,64}$")]
Code = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.]{0,63}$")]
Number = int | float
Flat = bool | int | float | Text


# -- the [broker] table ---------------------------------------------------------------------------


class Broker(BaseModel):
    """The `[broker]` table. The room's id is the client id and, unless `username` says otherwise,
    the user name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str | tuple[str, ...] = Field(description='"name", "name:port", or a list, tried in turn')
    port: int | None = Field(
        default=None, ge=1, le=65_535, description="8883 with TLS, 1883 without, where not given"
    )
    tls: StrictBool | None = Field(default=None, description="on unless it is false")
    username: str | None = Field(default=None, min_length=1, max_length=128)
    password_file: Path | None = Field(default=None, description="read at every connect")
    ca_file: Path | None = Field(
        default=None, description="the only authority to trust; the system's ones where not given"
    )
    certificate_file: Path | None = Field(default=None, description="the room's certificate, PEM")
    key_file: Path | None = Field(default=None, description="its private key, PEM, no passphrase")
    keepalive_s: int = Field(
        default=30, ge=5, le=300, description="a dead line is seen after at most twice this"
    )

    @field_validator("host")
    @classmethod
    def _hosts(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        names = (value,) if isinstance(value, str) else value
        if not names:
            raise ValueError("must name at least one host")
        for name in names:
            _address(name, PLAIN_PORT)
        return value

    @model_validator(mode="after")
    def _together(self) -> Self:
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file go together")
        files = (self.ca_file, self.certificate_file, self.key_file)
        if self.tls is False and any(f is not None for f in files):
            raise ValueError("ca_file, certificate_file and key_file need tls, which is false")
        return self

    @property
    def secure(self) -> bool:
        """Whether TLS is spoken."""
        return self.tls is not False

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """Host and port of every broker, in the order given."""
        names = (self.host,) if isinstance(self.host, str) else self.host
        port = self.port or (TLS_PORT if self.secure else PLAIN_PORT)
        return tuple(_address(name, port) for name in names)


def _address(text: str, port: int) -> tuple[str, int]:
    """`name`, `name:port`, `[v6]`, `[v6]:port`, `v6`."""
    name, tail = text, ""
    if text.startswith("["):
        name, bracket, tail = text[1:].partition("]")
        if not bracket or (tail and not tail.startswith(":")):
            raise ValueError(f"bad host {text!r}; an IPv6 address stands in brackets")
        tail = tail[1:] if tail else ""
        given = text.endswith(":")
    elif text.count(":") == 1:
        name, _, tail = text.partition(":")
        given = not tail
    else:
        given = False
    if not name or any(c.isspace() or c in "/@?#" for c in name):
        raise ValueError(f'bad host {text!r}; write "name" or "name:port", without scheme')
    if given or (tail and not (tail.isascii() and tail.isdigit() and 0 < int(tail) < 65_536)):
        raise ValueError(f"bad port in {text!r}; allowed is 1 to 65535")
    return name, int(tail) if tail else port


# -- topics ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of one room. A suffix is what stands after `hearing/v1/{site}/{room}/`."""

    site: str
    room: str

    def __post_init__(self) -> None:
        for segment in (self.site, self.room):
            if not _SEGMENT.fullmatch(segment):
                raise ValueError(f"bad topic segment {segment!r}; 1 to 64 of a-z, 0-9 and -")

    def of(self, suffix: str) -> str:
        """The full topic: `status` -> `hearing/v1/hcm/hcm-01/status`. A suffix that begins with
        `_all/` is the site's broadcast."""
        if suffix.startswith("_all/"):
            return f"{ROOT}/{self.site}/{suffix}"
        return f"{ROOT}/{self.site}/{self.room}/{suffix}"

    def suffix(self, topic: str) -> str | None:
        """What `of` made the topic from; None for a topic of somebody else."""
        for root in (f"{ROOT}/{self.site}/{self.room}/", f"{ROOT}/{self.site}/"):
            rest = topic.removeprefix(root)
            if rest != topic and self.of(rest) == topic:
                return rest
        return None

    def takes_answers(self, topic: str) -> bool:
        """Whether an answer may go to a topic that a request names: the room's own `result`, or one
        of this site, without wildcards, that this interface gives no meaning. Else whoever may ask
        this room could have it command others, or answer for them."""
        root = f"{ROOT}/{self.site}/"
        if topic == self.of("result"):
            return True
        if not topic.startswith(root) or len(topic) > 256 or not topic.isprintable():
            return False
        parts = topic.removeprefix(root).split("/")
        if not all(parts) or any(c in topic for c in "+#"):
            return False
        if parts[0].startswith("_"):  # no room: a room's id has no underscore
            return parts[0] != "_all"
        return not {*PAYLOADS, "config"}.intersection(parts[1:2])

    def device(self, device_id: str) -> str:
        """The topic of one device."""
        return self.of(f"device/{device_id}")


@dataclass(frozen=True, slots=True)
class ReplyTo:
    """Where a request wants its answer as well (MQTT 5), and what makes the two a pair."""

    topic: str
    correlation: bytes | None = None


# -- payloads -------------------------------------------------------------------------------------


class Part(BaseModel):
    """An object inside a payload. None is left out where a field need not be there."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True
    )  # the daemon builds most payloads as plain tables: their models cost it nothing

    @model_serializer(mode="wrap")
    def _absent_is_left_out(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = handler(self)
        needed = {f.alias or n for n, f in type(self).model_fields.items() if f.is_required()}
        return {k: v for k, v in fields.items() if v is not None or k in needed}


class Payload(Part):
    """What every outgoing payload has, except the will."""

    v: Literal[1]
    at: Instant
    ts: float
    clock: Clock
    boot: str = Field(pattern=r"^[0-9a-f]{8}$")
    up_ms: int = Field(ge=0)


class Status(Payload):
    """Birth and heartbeat (`online`), or the last word of a clean stop (`stopped`)."""

    state: Literal["online", "stopped"]
    session: Id
    next_s: int | None = Field(default=None, ge=1, description="the next one comes within")
    why: Text | None = None


class Will(Part):
    """The broker says it when the connection is lost; `session` names the connection."""

    v: Literal[1] = 1
    state: Literal["lost"] = "lost"
    session: Id


class InventoryEntry(Part):
    """A device as expected, and whether it is there."""

    id: Id
    kind: Code
    name: Text
    required: bool
    found: bool
    identity: Text | None = None
    seat: Seat | None = None
    virtual: bool | None = None


class About(Payload):
    """Who speaks: versions, box, abilities, what was expected and what is there."""

    name: Text
    version: Text
    box: Text
    python: Text
    schema_: Literal[1] = Field(alias="schema")
    capabilities: list[Code]
    requirements: Text
    inventory: list[InventoryEntry]


class HearingEntry(Part):
    """One hearing; the id is opaque and names nobody."""

    id: Id
    starts: Instant
    ends: Instant

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        length_s = _seconds(self.ends) - _seconds(self.starts)
        if not 0 < length_s <= LONGEST_HEARING_S:
            raise ValueError("ends must be after starts, by at most 7 days")
        if not "2000" <= self.starts < "2100":
            raise ValueError("starts must lie between 2000 and 2099")
        return self


class FindingEntry(Part):
    """One judged statement and the numbers it rests on."""

    code: Code
    level: Level
    since: Instant | None = None
    numbers: dict[str, Flat] | None = None


class Reason(FindingEntry):
    """A finding as readiness gives it: with a title for people and who can fix it."""

    device: Id | None = None
    title: Text
    fix: Text


class LevelCounts(Part):
    """How many devices stand at each level."""

    ok: int = Field(ge=0)
    info: int = Field(ge=0)
    warn: int = Field(ge=0)
    fail: int = Field(ge=0)
    unknown: int = Field(ge=0)


class ReadinessDoc(Payload):
    """The room's answer for its next hearing; without one (null), for now."""

    state: State
    mode: Mode
    hearing: HearingEntry | None
    reasons: list[Reason]
    devices: LevelCounts
    virtual: int = Field(ge=0)
    requirements: Text
    valid_until: Instant


class DeviceDoc(Payload):
    """One device: level, findings, latest numbers. `fault` says why there are none."""

    id: Id
    kind: Code
    name: Text
    level: Level
    findings: list[FindingEntry]
    readings: dict[str, Flat]
    fault: Text | None = None
    asked: Instant | None = None
    valid_until: Instant


class EventDoc(Payload):
    """A numbered fact. `(room, n)` is its identity; `prev` is the hash of the event before.

    The facts of the other types (mode, look, command, gap ...) are further flat fields.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Flat]

    n: int = Field(ge=1)
    prev: str = Field(pattern=r"^([0-9a-f]{8,64})?$", description="SHA-256, empty for the first")
    type: Code
    device: Id | None = None
    code: Code | None = None
    level: Level | None = None
    since: Instant | None = None
    until: Instant | None = None
    numbers: dict[str, Flat] | None = None


class Telemetry(Payload):
    """All numbers by device id, once a minute; the first message to be dropped."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, dict[str, Number]]


class ResultDoc(Payload):
    """The answer to a command; `effect` is what was read back, not what was asked."""

    id: Id
    state: Literal["accepted", "done", "refused", "failed", "expired"]
    code: Code
    effect: dict[str, Flat] | None = None
    took_ms: int | None = Field(default=None, ge=0)


class CommandDoc(Part):
    """A request. `ttl_s` counts from its receipt: the clocks need not agree."""

    model_config = ConfigDict(extra="ignore")

    v: Annotated[StrictInt, Field(ge=1, le=1)]
    id: Id
    command: Code
    args: dict[str, Flat] = Field(default_factory=dict, max_length=16)
    ttl_s: float = Field(default=30.0, gt=0, le=3_600)
    by: Text = ""
    reason: Text = ""


class IncomingHearing(HearingEntry):
    """A hearing as central sends it; what else it says is not for the room."""

    model_config = ConfigDict(extra="ignore")


class ScheduleDoc(Part):
    """The hearings of the coming days."""

    model_config = ConfigDict(extra="ignore")

    v: Annotated[StrictInt, Field(ge=1, le=1)]
    hearings: list[IncomingHearing] = Field(max_length=200)


PAYLOADS: Mapping[str, Any] = {
    "status": Status | Will,
    "about": About,
    "readiness": ReadinessDoc,
    "device": DeviceDoc,
    "event": EventDoc,
    "telemetry": Telemetry,
    "schedule": ScheduleDoc,
    "command": CommandDoc,
    "result": ResultDoc,
}
"""Topic (its first word below the room) -> what is said on it."""


def json_schemas() -> dict[str, Any]:
    """The JSON Schema of every payload, by topic."""
    return {topic: TypeAdapter(shape).json_schema() for topic, shape in PAYLOADS.items()}


def _seconds(instant: str) -> float:
    return datetime.fromisoformat(instant).timestamp()


# -- in and out -----------------------------------------------------------------------------------


def common(moment: Moment) -> dict[str, Any]:
    """The fields of every outgoing payload. `at` and `ts` are the same millisecond."""
    at = moment.iso
    return {
        "v": VERSION,
        "at": at,
        "ts": _seconds(at),
        "clock": moment.clock.value,
        "boot": moment.boot,
        "up_ms": int(moment.up_s * 1000),
    }


def encode(payload: Mapping[str, Any] | BaseModel) -> bytes:
    """A payload as it goes out. Raises `ValueError` as `check_outgoing` does."""
    if isinstance(payload, BaseModel):
        payload = payload.model_dump(mode="json", by_alias=True)
    check_outgoing(payload)
    line = json.dumps(payload, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    data = line.encode("utf-8")
    grows = "inventory" in payload or "reasons" in payload
    limit = LONG_PAYLOAD_BYTES if grows else PAYLOAD_BYTES
    if len(data) > limit:
        raise ValueError(f"payload of {len(data)} bytes; allowed is {limit}")
    return data


def check_outgoing(value: Any, place: str = "payload") -> None:
    """Refuse what could carry a picture or a sound: bytes, long or space-less text, lists of
    numbers; and numbers that are not finite. Raises `ValueError` with the place."""
    if value is None or isinstance(value, bool | int):
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{place}: {value} is not a number to report")
    elif isinstance(value, str):
        if len(value) > TEXT_CHARACTERS:
            raise ValueError(f"{place}: text of {len(value)} characters")
        if any(len(word) > WORD_CHARACTERS for word in value.split()):
            raise ValueError(f"{place}: a word of more than {WORD_CHARACTERS} characters")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str) or not 0 < len(key) <= WORD_CHARACTERS:
                raise ValueError(f"{place}: bad key")
            check_outgoing(item, f"{place}.{key}")
    elif isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        for index, item in enumerate(value):
            if not isinstance(item, str | Mapping):
                raise ValueError(f"{place}: a list of {type(item).__name__}")
            check_outgoing(item, f"{place}.{index}")
    else:
        raise ValueError(f"{place}: {type(value).__name__} never leaves the room")


def parse_schedule(payload: bytes) -> tuple[model.Hearing, ...]:
    """The hearings of a `schedule` payload, the earliest first.

    Raises `ValueError` with every mistake and its place, on one line.
    """
    if len(payload) > INCOMING_BYTES:
        raise ValueError(f"schedule of {len(payload)} bytes; allowed is {INCOMING_BYTES}")
    try:
        schedule = ScheduleDoc.model_validate_json(payload, strict=True)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False)[:5]
        raise ValueError("; ".join(_mistake(detail) for detail in details)) from None
    hearings = [
        model.Hearing(h.id, _seconds(h.starts), _seconds(h.ends)) for h in schedule.hearings
    ]
    return tuple(sorted(hearings, key=lambda h: h.starts_s))


def _mistake(detail: ErrorDetails) -> str:
    place = ".".join(str(part) for part in detail["loc"]) or "schedule"
    return f"{place}: {detail['msg'].removeprefix('Value error, ')}"
