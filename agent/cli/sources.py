"""What `check` was asked to look at: `KIND[:SOURCE][?key=value&...]` -> a device to judge."""

from __future__ import annotations

import re
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin
from urllib.parse import parse_qsl

from pydantic import ValidationError

from agent import kinds
from agent.model import ConfigError, Device
from agent.settings import explain, with_profile

_SCHEMES = ("usb:", "v4l2:", "rtsp://", "rtsps://", "http://", "https://", "hw:", "plughw:")


@dataclass(frozen=True, slots=True)
class Unusable:
    """One argument of `check` that describes no device: a password taken out, and why."""

    text: str
    why: str


@dataclass(frozen=True, slots=True)
class Source:
    """One argument of `check`, as typed, and the device that it describes."""

    text: str
    device: Device
    whole: bool


def is_source(text: str) -> bool:
    """Whether an argument is a source rather than the id of a device."""
    kind = text.partition(":")[0].partition("?")[0]
    return kind in kinds.names() and (":" in text or kind in ("host", "network"))


def read(text: str) -> Source | Unusable | str:
    """What an argument of `check` means; the id of a device stays as it is."""
    if not is_source(text):
        return text
    try:
        return parse(text)
    except ConfigError as error:
        shown = _CREDENTIALS.sub("//***@", text)
        return Unusable(shown, str(error).replace(text, shown))


_CREDENTIALS = re.compile(r"//\S*@")


def parse(text: str) -> Source:
    """The source of an argument. Raises `ConfigError` that names the mistake."""
    head, query = _split(text)
    kind, _, rest = head.partition(":")
    model = kinds.load(kind).Settings
    for at, (key, _) in enumerate(query):
        if key in [before for before, _ in query[:at]]:
            raise ConfigError(f"{text}: {key} stands there twice; which one is meant?")
    table: dict[str, Any] = dict(query)
    if rest:
        table.update(_place(kind, rest, model.model_fields.keys()))
    for key, value in table.items():
        field = model.model_fields.get(key)
        if field is not None and _is_list(field.annotation) and isinstance(value, str):
            table[key] = [part for part in value.split(",") if part]
    if kind == "network":
        table.setdefault("interface", "auto")
    try:
        settings = model.model_validate(with_profile(kind, table))
    except ValidationError as error:
        details = error.errors(include_url=False)
        raise ConfigError("; ".join(explain(d, text, model) for d in details)) from None
    whole = str(table.get("source", "")).startswith("file:") and kinds.has_driver(kind)
    return Source(text, Device(id=kind, kind=kind, settings=settings, name=text), whole)


def _split(text: str) -> tuple[str, list[tuple[str, str]]]:
    """The last `?` begins settings when all its keys are settings of the kind: an address may
    have a query of its own."""
    head, mark, tail = text.rpartition("?")
    if not mark:
        return text, []
    kind = text.partition(":")[0].partition("?")[0]
    pairs = parse_qsl(tail, keep_blank_values=True)
    known = kinds.load(kind).Settings.model_fields
    if "://" in head and not all(key in known for key, _ in pairs):
        return text, []
    if not pairs or any(not key for key, _ in pairs):
        raise ConfigError(f"{text}: after ? stands key=value&key=value")
    return head, pairs


def _place(kind: str, rest: str, fields: Any) -> dict[str, Any]:
    path = Path(rest.removeprefix("file:"))
    is_file = rest.startswith("file:") or path.is_file()
    if kind == "display" and not is_file and not rest.endswith(".bin"):
        return {"connector": rest}
    if "source" not in fields:
        raise ConfigError(f"{kind}:{rest}: {kind} takes no source; write just {kind}")
    if rest.startswith(_SCHEMES) or (kind == "speaker" and not is_file):
        return {"source": rest}
    if rest.startswith("/dev/"):
        return {"source": f"v4l2:{rest}"}
    return {"source": f"file:{path.absolute()}"}


def _is_list(annotation: Any) -> bool:
    origin = get_origin(annotation)
    if origin in (types.UnionType, None):
        return any(_is_list(a) for a in get_args(annotation))
    return origin in (tuple, list)
