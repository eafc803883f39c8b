"""room.toml -> Room; all mistakes of a file in one message, each with its place and its fix."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from agent import credentials, kinds, known_models, words
from agent.judge import readiness
from agent.link.contract import Broker
from agent.model import ConfigError, Device

M = TypeVar("M", bound=BaseModel)

DEFAULT_PATH = Path("/etc/hearing-room/room.toml")
ID = r"^[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?$"
ID_RULE = "1 to 64 of a-z, 0-9 and -, beginning and ending with a letter or digit"
SINGLE = ("host",)
"""Kinds of which a room has exactly one: their table is `[kind]`, their id the kind's name."""
UNNAMED: Mapping[str, Mapping[str, Any]] = {"host": {}, "network": {"interface": "auto"}}
"""Watched without being named; what they have where the file says nothing else."""


class RoomTable(BaseModel):
    """The `[room]` table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    site: str = Field(pattern=ID, description="site, the first segment of every topic")
    id: str = Field(pattern=ID, description="room, unique in the fleet; user name and client id")
    name: kinds.Name = Field(default="", description="shown to people")
    language: Literal["vi", "en"] = Field(default="vi", description="of titles and lights card")
    requirements: str = Field(default="generic", description="what the room must have")
    session_by_command: bool = Field(
        default=False, description="people may say that a session begins, pauses or is over"
    )


@dataclass(frozen=True, slots=True)
class Room:
    """A room as its file describes it. `broker` is None where the room reports to nobody."""

    site: str
    id: str
    name: str
    language: str
    requirements: readiness.Requirements
    broker: Broker | None
    devices: tuple[Device, ...]
    path: Path | None = None
    session_by_command: bool = False
    commissioned: bool = True
    trouble: str = ""
    """Why the file could not be used, where this room only stands in for it."""


def load(path: Path) -> Room:
    """The room of a file. Raises `ConfigError` with all its mistakes."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such file; write one with `hearing-room adopt`, or name it with --config"
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    return parse(text, path)


def parse(text: str, path: Path | None = None) -> Room:
    """The room of a text; relative files in it are looked for beside `path`."""
    where = str(path) if path else "room.toml"
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: not TOML: {error}") from None
    reader = _Reader((path.parent if path else Path()).absolute())
    room = reader.read(tables, path)
    if reader.mistakes:
        count = len(reader.mistakes)
        head = f"{where}: {count} mistake{'s' if count > 1 else ''}"
        raise ConfigError("\n  ".join([head, *reader.mistakes]))
    assert room is not None
    return room


def uncommissioned(path: Path, trouble: str = "", root: Path = Path("/")) -> Room:
    """The room of a box that was not told about one yet, or (`trouble`) not so that it can be
    understood: it reports to nobody, and has what is watched without being named and the board's
    own LED."""
    tables: dict[str, Any] = {"room": {"site": "none", "id": "not-commissioned"}}
    if leds := kinds.discover("indicator", root):
        tables["indicator"] = {"status": leds[0]}
    room = _Reader(path.parent).read(tables, path)
    assert room is not None
    return replace(room, commissioned=False, trouble=trouble)


class _Reader:
    """Reads tables and gathers mistakes instead of stopping at the first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._language = "vi"
        self._places: dict[str, str] = {}
        self.mistakes: list[str] = []

    def read(self, tables: Mapping[str, Any], path: Path | None) -> Room | None:
        known = ("room", "broker", *kinds.names())
        for name in tables:
            if name not in known:
                self.mistakes.append(f"{name}: unknown table{_hint(name, known)}")
        room = self._model(RoomTable, tables.get("room", {}), "room")
        self._language = room.language if room else self._language
        broker = None
        if "broker" in tables:
            broker = self._model(Broker, self._handed(self._beside(tables["broker"])), "broker")
        told = _table(tables.get("room")).get("requirements", "generic")
        requirements = self._requirements(told) if isinstance(told, str) else None
        devices = tuple(self._devices(tables))
        self._cross_check(devices)
        if room is None or requirements is None:
            return None
        return Room(
            site=room.site,
            id=room.id,
            name=room.name or room.id,
            language=room.language,
            requirements=requirements,
            broker=broker,
            devices=devices,
            path=path,
            session_by_command=room.session_by_command,
        )

    def _requirements(self, name: str) -> readiness.Requirements | None:
        try:
            return readiness.load(name)
        except ConfigError as error:
            self.mistakes.append(f"room.requirements: {error}")
            return None

    def _devices(self, tables: Mapping[str, Any]) -> Iterable[Device]:
        for kind in kinds.names():
            named = tables.get(kind, {})
            if not isinstance(named, dict):
                self.mistakes.append(f"{kind}: must be a table, [{kind}.NAME]")
                continue
            if kind in SINGLE:
                named = {kind: named}
            if kind in UNNAMED:
                named = {**named, kind: {**UNNAMED[kind], **_table(named.get(kind))}}
            for name, table in named.items():
                if device := self._device(kind, name, table):
                    yield device

    def _device(self, kind: str, name: str, table: Any) -> Device | None:
        place = _place(kind, name)
        if _is_id(name):
            # Also of a table with mistakes: what it names is there, whatever else is wrong with it.
            if other := self._places.get(name):
                self.mistakes.append(f"{place}: the id is taken by {other}; ids are unique")
            self._places.setdefault(name, place)
        if not isinstance(table, dict):
            self.mistakes.append(
                f"{place}: must be a table, [{kind}.NAME], and `{name}` must stand in it"
            )
            return None
        if not _is_id(name):
            self.mistakes.append(f"{place}: bad id {name!r}; {ID_RULE}")
            return None
        try:
            table = with_profile(kind, self._beside(table))
        except ConfigError as error:
            self.mistakes.append(f"{place}.profile: {error}")
            table = {key: value for key, value in table.items() if key != "profile"}
        settings = self._model(kinds.load(kind).Settings, table, place)
        if settings is None:
            return None
        return Device(
            id=name,
            kind=kind,
            settings=settings,
            name=settings.name or self._default_name(kind, name),
            required=settings.required,
            seat=settings.seat,
            profile=settings.profile,
            virtual=settings.virtual,
        )

    def _default_name(self, kind: str, name: str) -> str:
        """The id, except for what is watched without being named: that is called what it is."""
        if kind in UNNAMED and name == kind:
            return words.terms(self._language)[f"kind.{kind}"]
        return name

    def _model(self, model: type[M], table: Any, place: str) -> M | None:
        if not isinstance(table, dict):
            self.mistakes.append(f"{place}: must be a table, [{place}]")
            return None
        try:
            return from_table(model, table)
        except ValidationError as error:
            details = error.errors(include_url=False)
            self.mistakes += [explain(d, place, model) for d in details]
            return None

    def _beside(self, table: Any) -> Any:
        """The table with its relative files made absolute: they lie beside room.toml."""
        if not isinstance(table, dict):
            return table
        return {key: self._absolute(key, value) for key, value in table.items()}

    def _handed(self, table: Any) -> Any:
        """The table with its secret files where this process may read them."""
        if not isinstance(table, dict):
            return table
        return {
            key: str(credentials.where(Path(value)))
            if key.endswith("_file") and isinstance(value, str)
            else value
            for key, value in table.items()
        }

    def _absolute(self, key: str, value: Any) -> Any:
        if not isinstance(value, str) or not value:
            return value
        if key.endswith("_file"):
            return str(self._folder / value)
        if key == "source" and value.startswith("file:"):
            return f"file:{self._folder / value.removeprefix('file:')}"
        return value

    def _cross_check(self, devices: tuple[Device, ...]) -> None:
        taken: dict[str, str] = {}
        for device in devices:
            place = _place(device.kind, device.id)
            for key, what in device.settings.claims().items():
                if holder := taken.get(what):
                    self.mistakes.append(f"{place}.{key}: {what} is taken by {holder}")
                taken.setdefault(what, place)
        for device in devices:
            for key, ids in device.settings.refers().items():
                for wanted in ids:
                    if wanted not in self._places:
                        self.mistakes.append(
                            f"{_place(device.kind, device.id)}.{key}: no device {wanted!r}"
                            f"{_hint(wanted, self._places)}"
                        )


NO_PROFILE = "none"
_USB = re.compile(r"usb:([0-9a-fA-F]{4}:[0-9a-fA-F]{4})(?:@.*)?")


def with_profile(kind: str, table: Mapping[str, Any]) -> dict[str, Any]:
    """A device's table with what is known of its model where it says nothing itself.

    The model is the one that `profile` names, else that of the USB id in `source` or `usb_id`;
    `profile = "none"` takes none. Raises `ConfigError` for a profile that is not there, or that is
    about something else.
    """
    named = table.get("profile")
    if named == NO_PROFILE:
        return dict(table)
    if isinstance(named, str):
        known = known_models.by_id(named)
        if known is None:
            hint = _hint(named, known_models.ids(), "see: hearing-room profiles list")
            raise ConfigError(f"no profile {named!r}{hint}")
        if kind not in known.kinds:
            raise ConfigError(f"{named} is no {kind}; it serves as {', '.join(known.kinds)}")
    else:
        source = _USB.fullmatch(str(table.get("source", "")).strip())
        usb_id = source[1].lower() if source else table.get("usb_id")
        known = known_models.by_usb(usb_id) if isinstance(usb_id, str) else None
        if known is None or kind not in known.kinds:
            return dict(table)
    return {**kinds.from_profile(kind, known.facts, table.keys()), **table, "profile": known.id}


def from_table(model: type[M], table: Mapping[str, Any]) -> M:
    """A model from TOML values: strict, so that the string "false" is no boolean.

    Goes through JSON because pydantic's strict mode then takes arrays for tuples and words for
    enums, which TOML cannot say otherwise.
    """
    return model.model_validate_json(json.dumps(table, default=str), strict=True)


def explain(detail: ErrorDetails, place: str, model: type[BaseModel]) -> str:
    """One mistake in the words of the person who typed it: place, what is wrong, what may stand."""
    at = ".".join([place, *(str(p) for p in detail["loc"] if isinstance(p, str | int))])
    kind, context = detail["type"], detail.get("ctx", {})
    given = detail.get("input")
    if kind == "extra_forbidden":
        return f"{at}: unknown key{_hint(str(detail['loc'][-1]), model.model_fields)}"
    if kind == "missing":
        return f"{at}: missing{_describe(model, detail)}"
    if kind == "value_error":
        return f"{at}: {context.get('error', detail['msg'])}"
    bounds = _bounds(model, detail)
    if kind in ("bool_type", "bool_parsing"):
        return f"{at}: must be true or false, without quotes, not {given!r}"
    if kind in ("int_type", "float_type", "int_from_float", "int_parsing", "float_parsing"):
        noun = "a whole number" if kind.startswith("int") else "a number"
        return f"{at}: must be {noun}{bounds}, not {given!r}"
    if kind in ("string_type", "tuple_type", "list_type"):
        noun = "text in quotes" if kind == "string_type" else "a list in brackets"
        return f"{at}: must be {noun}, not {given!r}"
    if kind in ("literal_error", "enum"):
        return f"{at}: must be {context['expected']}, not {given!r}"
    if kind.startswith(("greater_than", "less_than")):
        return f"{at}: {given!r} is out of range; allowed is{bounds}"
    if kind == "string_pattern_mismatch" and context.get("pattern") == ID:
        return f"{at}: bad id {given!r}; {ID_RULE}"
    return f"{at}: {detail['msg'][:1].lower()}{detail['msg'][1:]}"


def schema() -> dict[str, Any]:
    """The JSON Schema of room.toml."""
    definitions: dict[str, Any] = {}

    def of(model: type[BaseModel]) -> dict[str, Any]:
        shape = model.model_json_schema()
        definitions.update(shape.pop("$defs", {}))
        return shape

    tables: dict[str, Any] = {"room": of(RoomTable), "broker": of(Broker)}
    for kind in kinds.names():
        shape = of(kinds.load(kind).Settings)
        if kind not in SINGLE:
            shape = {
                "type": "object",
                "propertyNames": {"pattern": ID},
                "additionalProperties": shape,
            }
        tables[kind] = shape
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "room.toml",
        "type": "object",
        "properties": tables,
        "required": ["room"],
        "additionalProperties": False,
        "$defs": definitions,
    }


def _is_id(text: str) -> bool:
    return 0 < len(text) <= 64 and text.strip("-") == text and set(text) <= _ID_CHARACTERS


_ID_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")


def _place(kind: str, name: str) -> str:
    return kind if kind in SINGLE else f"{kind}.{name}"


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {"": value} if value is not None else {}


def _hint(word: str, known: Iterable[str], otherwise: str = "") -> str:
    import difflib  # only for a mistake: the daemon does without

    names = sorted(known)
    if close := difflib.get_close_matches(word, names, n=1):
        return f"; did you mean {close[0]}?"
    if otherwise:
        return f"; {otherwise}"
    return f"; known are {', '.join(names)}" if names else ""


def _field_schema(model: type[BaseModel], detail: ErrorDetails) -> dict[str, Any]:
    name = str(detail["loc"][0]) if detail["loc"] else ""
    found = model.model_json_schema()["properties"].get(name, {})
    choices = found.get("anyOf", [found])
    return {"description": found.get("description", ""), **choices[0]}


def _describe(model: type[BaseModel], detail: ErrorDetails) -> str:
    text = _field_schema(model, detail)["description"]
    return f"; {text}" if text else ""


def _bounds(model: type[BaseModel], detail: ErrorDetails) -> str:
    field = _field_schema(model, detail)
    low, high = field.get("minimum"), field.get("maximum")
    above, below = field.get("exclusiveMinimum"), field.get("exclusiveMaximum")
    parts = []
    if low is not None or above is not None:
        parts.append(f"from {low}" if low is not None else f"above {above}")
    if high is not None or below is not None:
        parts.append(f"to {high}" if high is not None else f"below {below}")
    return f" {' '.join(parts)}" if parts else ""
