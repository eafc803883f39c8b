"""Tables of JSON -> nouns, each field of the type that it says: hands has no room for pydantic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

T = TypeVar("T")
_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "str": str,
    "bool": bool,
    "bool | None": (bool, type(None)),
    "int": int,
    "int | None": (int, type(None)),
    "float": (int, float),
    "float | None": (int, float, type(None)),
    "Mapping[str, Any]": dict,
    "dict[str, Any]": dict,
    "dict[str, str]": dict,
}


def made(shape: type[T], raw: Mapping[str, Any]) -> T:
    """A dataclass from a table; fields of other types than those above are taken as they are.
    Raises `ValueError` for a value of another type, `TypeError` for a key too many or missing."""
    for at in fields(shape):  # type: ignore[arg-type] # a TypeVar cannot be bound to dataclasses
        wanted = _TYPES.get(str(at.type))
        if wanted is None or at.name not in raw:
            continue
        value = raw[at.name]
        truth_for_number = isinstance(value, bool) and not str(at.type).startswith("bool")
        if truth_for_number or not isinstance(value, wanted):
            raise ValueError(f"{at.name} = {value!r:.40}")
    return shape(**raw)
