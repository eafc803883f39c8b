"""The contract of a kind of device. A kind is one file (or folder) in here, named as in room.toml.

A kind module has

- `Settings`: a subclass of `DeviceSettings`; every limit is a field with its bounds and unit.
- `CODES`: every code it can give -> its usual level. Declared beside `judge`.
- `WORDS`: the closed list of words that may stand in a reading's values.
- `TELLS` (where there is a driver): every key of its answers with unit, rounding and range. What is
  not declared there does not get out of the worker.
- `judge(reading, limits) -> list[Finding]`: pure and memoryless; `limits` is the `Settings`.
- `Passive(settings, root)` (optional): `async read() -> Reading` in the agent's own process.
  Kernel facts and sockets only, opens no device node. It is all that is asked in session.
- `Driver(settings)` (optional): blocking, lives in a worker; may open devices, hang or crash.
  `read(question) -> Reading`; the questions are `QUESTIONS`. Heavy libraries are imported in its
  constructor, never by the module.
- `ANSWERS` (optional): the questions that its driver answers; `look`, `whole` and `baseline` where
  it does not say. A device is not opened for a question that its driver does not answer.
- `HEARS` (optional): True where a look listens to the room; it waits while a loudspeaker is tested.
- `LOOP_CODES` (optional): the codes that only the answer to `loop` speaks of. They stand until the
  next such answer.
- `prepare()` (optional): imports those libraries, so that a worker can be warm before its first
  deadline runs. Opens no device.
- `changes(settings, root)` (optional): an async iterator that yields when it is worth asking now.
- `needs_worker(settings) -> bool` (optional): whether its driver is ever asked; else always.
- `variant(settings) -> str` (optional): `senses` (default) or `netcam`, the kind of worker, and
  `ports(settings) -> tuple[int, ...]`: the TCP ports that a `netcam` needs to reach.
- `IN_HANDS = True` (optional): hands does the work and is asked for the readings.
- `from_profile(facts, told) -> dict` (optional): settings that the facts of a profile give (its
  tables, as in the file). They count where room.toml says nothing; `told` is what it does say.
- `baseline(reading) -> dict` (optional): settings that a reading of the day of commissioning gives.
  They count where room.toml says nothing. A kind that has it takes part in commissioning.
- `RECOVERABLE` (optional): the codes that bringing the device back may cure, whatever its model is.
- `usb_port(settings, root) -> str` (optional): where on the USB it sits now, empty for nowhere.
- `discover(root) -> list[dict]` (optional): a settings table for every device of this kind that
  is plugged in, read from the kernel without opening anything.

A kind with neither `Passive` nor `Driver` does its work in hands.
Adding a kind is one such file, its words and its test. Nothing else moves.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import AsyncIterator, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeVar, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from agent.model import ConfigError, Finding, Level, Reading, Seat

if TYPE_CHECKING:
    from agent.kinds._tells import Tell

QUESTIONS = frozenset({"look", "whole", "baseline", "loop"})
"""`look`: a short one at a live device, or at a file at its own pace. `whole`: a file from end to
end, at decode speed. `baseline`: a look that also gives the commissioning fingerprint. `loop`: a
loudspeaker makes a short quiet sound for the microphones; only in an idle room, and announced."""


LONGEST_WORD = 64


def _no_endless_word(name: str) -> str:
    if any(len(word) > LONGEST_WORD for word in name.split()) or not name.isprintable():
        raise ValueError(f"must be printable, with no word of more than {LONGEST_WORD} letters")
    return name


Name = Annotated[str, Field(max_length=120), AfterValidator(_no_endless_word)]
"""A name for people. What leaves the room has no endless words: nothing can hide in one."""


class DeviceSettings(BaseModel):
    """What every device table takes, whatever its kind. Durations are seconds."""

    # Built at first use: a room pays only for the kinds that it has.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    name: Name = Field(default="", description="shown to people")
    required: bool = Field(default=True, description="the room is not ready without it")
    seat: Seat | None = Field(default=None, description="whose device it is")
    profile: str | None = Field(default=None, description="firmware profile to use")
    virtual: bool = Field(default=False, description="stands in for hardware that is not there")
    period_s: float = Field(default=120.0, ge=1, le=86_400, description="time between readings")
    deadline_s: float = Field(default=8.0, gt=0, le=120, description="an answer later is none")
    raise_s: float = Field(
        default=5.0, ge=0, le=3_600, description="how long a fault is watched before it is raised"
    )
    clear_s: float = Field(
        default=5.0, ge=0, le=3_600, description="how long good is watched before it is cleared"
    )

    def refers(self) -> Mapping[str, tuple[str, ...]]:
        """Fields that name other devices -> the ids they name."""
        return {}

    def claims(self) -> Mapping[str, str]:
        """Fields that take something only one device may have -> what they take."""
        return {}


S = TypeVar("S", bound=DeviceSettings)


class Passive(Protocol):
    """The part of a kind that reads kernel facts, in the agent's process."""

    async def read(self) -> Reading:
        """One reading; a broken device is a fault in it, never an exception."""
        ...


class Driver(Protocol):
    """The part of a kind that may touch hardware, in a worker."""

    def read(self, question: str) -> Reading:
        """The answer to one of `QUESTIONS`; may block, the lane has a deadline."""
        ...


class Kind(Protocol):
    """What `load` gives: a module that keeps the contract above."""

    CODES: Mapping[str, Level]
    WORDS: frozenset[str]
    Settings: type[DeviceSettings]

    def judge(self, reading: Reading, limits: Any) -> list[Finding]:
        """What a reading means; pure and memoryless."""
        ...


def names() -> list[str]:
    """The kinds that exist, by file name."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def load(kind: str) -> Kind:
    """The module of a kind. Raises `ConfigError` for a name that is none."""
    if kind not in names():
        raise ConfigError(f"no such kind of device: {kind!r}; kinds are {', '.join(names())}")
    return cast(Kind, importlib.import_module(f"{__name__}.{kind}"))


def passive_of(kind: str, settings: DeviceSettings, root: Path) -> Passive | None:
    """The passive part for a device, None where the kind has none."""
    make = getattr(load(kind), "Passive", None)
    return cast(Passive, make(settings, root)) if make else None


def has_driver(kind: str, settings: DeviceSettings | None = None) -> bool:
    """Whether a device of this kind (with these settings) is asked through a lane."""
    module = load(kind)
    needs = getattr(module, "needs_worker", None)
    return hasattr(module, "Driver") and (
        settings is None or needs is None or bool(needs(settings))
    )


def in_hands(kind: str) -> bool:
    """Whether devices of this kind are held by the process of relays and lights."""
    return bool(getattr(load(kind), "IN_HANDS", False))


def tells(kind: str) -> Mapping[str, Tell] | None:
    """What the workers of a kind may tell; None where the kind has no driver."""
    module = load(kind)
    return cast("Mapping[str, Tell]", module.TELLS) if hasattr(module, "TELLS") else None


def answers(kind: str) -> frozenset[str]:
    """The questions that the driver of a kind answers."""
    return frozenset(getattr(load(kind), "ANSWERS", ("look", "whole", "baseline")))


def hears(kind: str) -> bool:
    """Whether a look at a device of this kind listens to the room."""
    return bool(getattr(load(kind), "HEARS", False))


def loop_codes(kind: str) -> frozenset[str]:
    """The codes that only a loop test can raise and clear."""
    return frozenset(getattr(load(kind), "LOOP_CODES", ()))


def changes_of(kind: str, settings: DeviceSettings, root: Path) -> AsyncIterator[None] | None:
    """The stream of \"ask now\" for a device, None where the kind has none."""
    make = getattr(load(kind), "changes", None)
    return cast("AsyncIterator[None]", make(settings, root)) if make else None


def variant_of(kind: str, settings: DeviceSettings) -> str:
    """Which worker may open the device: `senses`, or `netcam` for a camera on the network."""
    tell = getattr(load(kind), "variant", None)
    return str(tell(settings)) if tell else "senses"


def ports_of(kind: str, settings: DeviceSettings) -> tuple[int, ...]:
    """The TCP ports that the worker of a camera on the network needs."""
    tell = getattr(load(kind), "ports", None)
    return tuple(tell(settings)) if tell else ()


def recoverable(kind: str) -> frozenset[str]:
    """The codes that bringing a device of a kind back may cure."""
    return frozenset(getattr(load(kind), "RECOVERABLE", ()))


def usb_port_of(kind: str, settings: DeviceSettings, root: Path) -> str:
    """Where on the USB a device sits now (`1-1.2`), empty where it is not there or not on USB."""
    tell = getattr(load(kind), "usb_port", None)
    return str(tell(settings, root)) if tell else ""


def discover(kind: str, root: Path) -> list[dict[str, Any]]:
    """Settings tables for what is plugged in of a kind; empty where the kind cannot tell."""
    find = getattr(load(kind), "discover", None)
    return list(find(root)) if find else []


def baseline_of(kind: str, reading: Reading) -> dict[str, Any] | None:
    """The settings that a reading of the day of commissioning gives; None where the kind takes no
    part in it."""
    take = getattr(load(kind), "baseline", None)
    return dict(take(reading)) if take else None


def takes_baseline(kind: str) -> bool:
    """Whether devices of a kind take part in commissioning."""
    return hasattr(load(kind), "baseline")


def with_baseline(settings: S, learnt: Mapping[str, Any]) -> S:
    """Settings with what was learnt on the day of commissioning, where they say nothing
    themselves. Raises `ValueError` for what is no setting of the kind."""
    told = settings.model_dump(mode="json", exclude_unset=True)
    if not learnt.keys() - told.keys():
        return settings
    return type(settings).model_validate_json(json.dumps({**learnt, **told}))


def from_profile(kind: str, facts: Mapping[str, Any], told: Collection[str]) -> dict[str, Any]:
    """The settings that a kind takes from the facts of a profile; empty where it takes none."""
    take = getattr(load(kind), "from_profile", None)
    return dict(take(facts, told)) if take else {}
