"""A display at a connector of the box: whether it is there, and whether it is the right one.

Connected is not on: some televisions stay connected when they are switched off, others go away,
and the power of a display is no fact that the connector has. So nothing here says `off`; what the
box itself does at the connector (`enabled`, `dpms`) is told as it is and not judged.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from agent.kinds import DeviceSettings
from agent.kinds._edid import Edid, parse
from agent.kinds._uevents import uevents
from agent.model import Fault, Finding, Level, Reading, Scalar

CODES: Mapping[str, Level] = {
    "display.absent": Level.FAIL,
    "display.changed": Level.WARN,
}
WORDS: frozenset[str] = frozenset({"on", "standby", "suspend", "off"})
"""What the box may do at the connector (DPMS)."""

_MAX_EDID = 32 * 1024  # 255 extensions and the base block
_MODE = re.compile(r"(\d{1,5})x(\d{1,5})")
_IDENTITY = ("name", "manufacturer", "product", "serial")


class Settings(DeviceSettings):
    """One display: where it is, and who it is expected to be.

    What is expected and left unset is not compared. `hearing-room adopt` writes what it finds.
    """

    period_s: float = Field(default=60.0, ge=1, le=86_400, description="time between readings")
    connector: str | None = Field(
        default=None,
        pattern=r"^(card\d+-)?[A-Za-z]+(-[A-Za-z]+)*(-\d+)+$",
        max_length=40,
        description="as the kernel names it, HDMI-A-1 or card1-HDMI-A-1",
    )
    source: str | None = Field(
        default=None, pattern="^file:.", description="file:EDID instead of a connector"
    )
    expect_manufacturer: str | None = Field(
        default=None, pattern="^[A-Z]{3}$", description="three letters, as in the EDID"
    )
    expect_product: str | None = Field(
        default=None, pattern="^0x[0-9a-f]{4}$", description="model code, as in the EDID"
    )
    expect_name: str | None = Field(default=None, max_length=64, description="name, as in the EDID")
    expect_serial: str | None = Field(
        default=None, max_length=64, description="serial number, as in the EDID"
    )

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.connector is None) == (self.source is None):
            raise ValueError("give either connector (like HDMI-A-1) or source (file:EDID)")
        return self

    def claims(self) -> Mapping[str, str]:
        """What only one device may have."""
        return {"connector": f"connector {self.connector}"} if self.connector else {}


class Passive:
    """Reads a connector of DRM, or an EDID from a file."""

    def __init__(self, settings: Settings, root: Path = Path("/")) -> None:
        self._deadline_s = settings.deadline_s / 2  # whoever asks has the whole of it
        self._asked: Future[Reading] | None = None
        self._look: Callable[[], Reading]
        if settings.source is not None:
            path = Path(settings.source.removeprefix("file:"))
            self._look = lambda: _file(path)
        else:
            self._look = lambda: _connector(root, settings.connector or "")

    async def read(self) -> Reading:
        """One reading. Values of a connector: `connector_known`, `connected` (left out where the
        kernel cannot tell), `enabled`, `dpms`, and of a display there `modes` (how many), `width`
        and `height` of the preferred one. Of an EDID: `edid_bytes`, `edid_header_ok`,
        `edid_blocks`, `edid_blocks_declared`, `edid_bad_blocks`, `edid_truncated`. `identity`
        holds what a sound base block says.

        The kernel hands out EDID and modes under a lock that it also holds while it talks to the
        display. A graphics driver that hangs would hang the reader: a thread of its own reads, and
        while it has not come back nobody asks again.
        """
        if self._asked is not None and not self._asked.done():
            return Reading(fault=Fault.NO_ANSWER, why="deadline")
        self._asked = _aside(self._look)
        try:
            async with asyncio.timeout(self._deadline_s):
                return await asyncio.wrap_future(self._asked)
        except TimeoutError:
            return Reading(fault=Fault.NO_ANSWER, why="deadline")


def _aside(look: Callable[[], Reading]) -> Future[Reading]:
    """What a look sees, from a thread of its own: a daemon, which an executor's would not be, so
    that it cannot hold the end of the program."""
    answer: Future[Reading] = Future()
    answer.set_running_or_notify_cancel()

    def run() -> None:
        try:
            answer.set_result(look())
        except Exception as error:
            answer.set_exception(error)

    threading.Thread(target=run, name="display", daemon=True).start()
    return answer


def connectors(root: Path = Path("/")) -> list[Path]:
    """The connectors of all graphics cards (`card1-HDMI-A-1`, ...), by name."""
    try:
        entries = sorted((root / "sys/class/drm").iterdir())
    except OSError:
        return []
    return [e for e in entries if re.fullmatch(r"card\d+-.+-\d+", e.name)]


def _connector(root: Path, name: str) -> Reading:
    # The number of the card differs from start to start, the rest of the name does not.
    found = [c for c in connectors(root) if name in (c.name, c.name.partition("-")[2])]
    found.sort(key=lambda c: _text(c / "status") != "connected")
    if not found:
        return Reading({"connector_known": False}, Fault.ABSENT, "no_node")
    place = found[0]
    values: dict[str, Scalar] = {"connector_known": True}
    if (enabled := _text(place / "enabled")) in ("enabled", "disabled"):
        values["enabled"] = enabled == "enabled"
    if (dpms := _text(place / "dpms").lower()) in WORDS:
        values["dpms"] = dpms
    status = _text(place / "status")
    if status == "disconnected":
        return Reading({**values, "connected": False}, Fault.ABSENT)
    if status != "connected":  # the kernel says `unknown`, or nothing
        return Reading(values)
    edid = _bytes(place / "edid")
    values |= {"connected": True, **_modes(_text(place / "modes")), **_facts(edid)}
    return Reading(values, identity=_identity(parse(edid)))


def _modes(listed: str) -> dict[str, Scalar]:
    """The kernel lists the preferred mode first."""
    modes = listed.split()
    values: dict[str, Scalar] = {"modes": len(modes)}
    if modes and (first := _MODE.match(modes[0])):
        values |= {"width": int(first[1]), "height": int(first[2])}
    return values


def _file(path: Path) -> Reading:
    if not path.exists():
        return Reading({"present": False}, Fault.ABSENT, "no_node")
    raw = _bytes(path)
    edid = parse(raw)
    values = _facts(raw)
    if not edid.base_ok:
        return Reading(values, Fault.ERROR, "bad_file")
    if edid.width is not None and edid.height is not None and edid.refresh_hz is not None:
        values |= {"width": edid.width, "height": edid.height, "refresh_hz": edid.refresh_hz}
    return Reading(values, identity=_identity(edid))


def _facts(raw: bytes) -> dict[str, Scalar]:
    if not raw:
        return {"edid_bytes": 0}
    edid = parse(raw)
    return {
        "edid_bytes": len(raw),
        "edid_header_ok": edid.header_ok,
        "edid_blocks": edid.blocks_present,
        "edid_blocks_declared": edid.blocks_declared,
        "edid_bad_blocks": edid.checksums.count(False),
        "edid_truncated": edid.truncated,
    }


def _identity(edid: Edid) -> dict[str, str]:
    """The names of a display; none from a block that cannot be believed."""
    if not edid.base_ok:
        return {}
    product = f"0x{edid.product:04x}"
    names = (edid.name, edid.manufacturer, product, edid.serial)
    return {key: value for key, value in zip(_IDENTITY, names, strict=True) if value}


def _text(path: Path) -> str:
    return _bytes(path).decode("ascii", "replace").strip()


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_EDID)
    except OSError:
        return b""


def judge(reading: Reading, limits: Settings) -> list[Finding]:
    """A display that is not there, that nobody can tell of, or that is another than expected.

    Without a readable identity nothing is compared: the display is there, and that is all.
    """
    values = reading.values
    told = values.get("connected") is True or "edid_bytes" in values
    if reading.fault is Fault.ABSENT:
        return [_absent(reading, Level.FAIL)]
    if reading.fault is not None or not told:
        return [_absent(reading, Level.UNKNOWN)]
    expected = {key: getattr(limits, f"expect_{key}") for key in _IDENTITY}
    differs: dict[str, Scalar] = {
        f"{key}_differs": True
        for key, value in expected.items()
        if value is not None and reading.identity and reading.identity.get(key, "") != value
    }
    if not differs:
        return []
    code = "display.changed"
    return [Finding(code, CODES[code], differs, reading.device)]


def _absent(reading: Reading, level: Level) -> Finding:
    keys = ("present", "connector_known", "connected", "edid_bytes")
    numbers = {key: reading.values[key] for key in keys if key in reading.values}
    return Finding("display.absent", level, numbers, reading.device)


async def changes(settings: Settings, root: Path = Path("/")) -> AsyncIterator[None]:
    """Yields when a display was plugged in or out, or a graphics card came or went. Ends at once
    for a file or a recorded tree."""
    if settings.connector is None or root != Path("/"):
        return
    async with contextlib.aclosing(uevents("drm")) as events:
        async for event in events:
            if event is None or is_hotplug(event):
                yield None


def is_hotplug(event: Mapping[str, str]) -> bool:
    """Whether an event of the `drm` subsystem may have changed what is connected."""
    return event.get("HOTPLUG") == "1" or event.get("ACTION") in ("add", "remove")


def discover(root: Path = Path("/")) -> list[dict[str, Any]]:
    """A settings table for every connector with a display, which is expected from then on."""
    tables: list[dict[str, Any]] = []
    for place in connectors(root):
        connector = place.name.partition("-")[2]
        reading = _connector(root, place.name)
        if reading.values.get("connected") is not True:
            continue
        known = {f"expect_{key}": value for key, value in reading.identity.items()}
        name = reading.identity.get("name") or connector
        tables.append({"name": name, "connector": connector, **known})
    return tables


def baseline(reading: Reading) -> dict[str, Any]:
    """Who the display is: from then on another one is `changed`."""
    return {f"expect_{key}": reading.identity[key] for key in _IDENTITY if key in reading.identity}
