"""The documents of the contract, built from what the agent knows. Pure: time is handed in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent import words
from agent.link.contract import TEXT_CHARACTERS, common
from agent.model import Device, Finding, Level, Moment, Readiness, Reading, Scalar, iso, worst

RELATIVE_BAND = 0.1
ABSOLUTE_BAND = 1.0
"""The dead band of a number: a change of less than a tenth, or of less than one unit, is not
worth a message of its own. Telemetry carries every number once a minute."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What stands about one device at one moment."""

    device: Device
    findings: Sequence[Finding]
    reading: Reading | None
    valid_until_s: float | None

    @property
    def level(self) -> Level:
        """The device's own level."""
        return worst(f.level for f in self.findings)


def label(up_s: float, now: Moment) -> str:
    """A boot-time instant as UTC, as far as the clock of now can say."""
    return iso(now.utc_s + up_s - now.up_s)


def _finding(finding: Finding) -> dict[str, Any]:
    fields: dict[str, Any] = {"code": finding.code, "level": finding.level}
    if finding.since is not None:
        fields["since"] = finding.since.iso
    if finding.numbers:
        fields["numbers"] = dict(finding.numbers)
    return fields


def device(seen: Seen, now: Moment, *, published_for_s: float) -> dict[str, Any]:
    """`device/{id}`. It is good until its evidence runs out, or for `published_for_s` seconds if
    that is longer: the agent says so at once when evidence runs out earlier."""
    doc: dict[str, Any] = {
        **common(now),
        "id": seen.device.id,
        "kind": seen.device.kind,
        "name": seen.device.name,
        "level": seen.level,
        "findings": [_finding(f) for f in seen.findings],
        "readings": {},
    }
    if seen.reading is not None:
        doc["readings"] = dict(seen.reading.values)
        doc["asked"] = label(seen.reading.asked_s, now)
        if seen.reading.fault is not None:
            why = seen.reading.why
            doc["fault"] = f"{seen.reading.fault}: {why}" if why else str(seen.reading.fault)
    until = max(seen.valid_until_s or now.up_s, now.up_s + published_for_s)
    doc["valid_until"] = label(until, now)
    return doc


def readiness(
    answer: Readiness, devices: Mapping[str, Device], now: Moment, language: str
) -> dict[str, Any]:
    """`readiness`, with titles in the room's language."""
    texts = words.load(language)
    hearing = answer.hearing
    reasons = []
    for finding in answer.reasons:
        meaning = texts[finding.code]
        name = devices[finding.device].name if finding.device in devices else ""
        reason = _finding(finding)
        if finding.device:
            reason["device"] = finding.device
        reasons.append({**reason, "title": meaning.title_for(name), "fix": meaning.who})
    return {
        **common(now),
        "state": answer.state,
        "mode": answer.mode,
        "hearing": hearing
        and {"id": hearing.id, "starts": iso(hearing.starts_s), "ends": iso(hearing.ends_s)},
        "reasons": reasons,
        "devices": {level.value: answer.devices.get(level, 0) for level in Level},
        "virtual": answer.virtual,
        "requirements": answer.requirements,
        "valid_until": label(answer.valid_until_s, now),
    }


def about(
    *,
    name: str,
    version: str,
    box: str,
    python: str,
    requirements: str,
    capabilities: Iterable[str],
    seen: Iterable[Seen],
    now: Moment,
) -> dict[str, Any]:
    """`about`: who speaks, and what it expected and found."""
    return {
        **common(now),
        "name": name,
        "version": version,
        "box": box,
        "python": python,
        "schema": 1,
        "capabilities": sorted(capabilities),
        "requirements": requirements,
        "inventory": [_inventory(s) for s in seen],
    }


def _inventory(seen: Seen) -> dict[str, Any]:
    device, reading = seen.device, seen.reading
    found = reading is not None and reading.fault != "absent"
    entry: dict[str, Any] = {
        "id": device.id,
        "kind": device.kind,
        "name": device.name,
        "required": device.required,
        "found": found,
    }
    if reading is not None and reading.identity:
        identity = " ".join(v for v in reading.identity.values() if v)
        entry["identity"] = identity[:TEXT_CHARACTERS]
    if device.seat:
        entry["seat"] = device.seat
    if device.virtual:
        entry["virtual"] = True
    return entry


def event(type_: str, now: Moment, **fields: Any) -> dict[str, Any]:
    """An event without its number and chain, which the store adds."""
    return {**common(now), "type": type_, **{k: v for k, v in fields.items() if v is not None}}


def short(text: str, characters: int = 200) -> str:
    """What somebody outside wrote, as it may leave the room: of endless words the beginning, and
    nothing that is no character."""
    words = " ".join(word[:40] for word in text.split())[:characters]
    return "".join(c if c.isprintable() else "?" for c in words)


def telemetry(seen: Iterable[Seen], now: Moment) -> dict[str, Any]:
    """All numbers of the last readings, by device."""
    doc: dict[str, Any] = dict(common(now))
    for item in seen:
        if item.reading is None:
            continue
        numbers = {k: v for k, v in item.reading.values.items() if _is_number(v)}
        if numbers:
            doc[item.device.id] = numbers
    return doc


def _is_number(value: Scalar) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_LABELS = frozenset({"v", "at", "ts", "clock", "boot", "up_ms", "asked", "valid_until", "numbers"})


def differs(before: Any, after: Any, *, bands: bool = False) -> bool:
    """Whether a document says something new: labels of time do not, readings have dead bands."""
    if before == after:
        return False
    if isinstance(before, dict) and isinstance(after, dict):
        keys = (before.keys() | after.keys()) - _LABELS
        return any(
            differs(before.get(k), after.get(k), bands=bands or k == "readings") for k in keys
        )
    if isinstance(before, list) and isinstance(after, list):
        if len(before) != len(after):
            return True
        return any(differs(b, a, bands=bands) for b, a in zip(before, after, strict=True))
    if bands and _is_number(before) and _is_number(after):
        return bool(abs(after - before) > max(ABSOLUTE_BAND, RELATIVE_BAND * abs(before)))
    return True
