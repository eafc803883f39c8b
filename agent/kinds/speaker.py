"""A loudspeaker: whether it is there, and (when asked for) whether a microphone hears it.

`Passive` reads kernel facts. The loop test, question `loop`, plays a short quiet sweep through
`aplay` while `arecord` listens, and finds it by correlation; nothing else ever makes a sound. It
is for idle rooms only: whoever asks it shows it on the lights and records it. A microphone with an
echo canceller of its own (a speakerphone) may rightly not hear its own loudspeaker: name another
one in `microphones` then.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import subprocess
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from agent.kinds import _alsa
from agent.kinds._recover import RecoverableSettings
from agent.kinds._tells import Tell, word
from agent.kinds._uevents import uevents
from agent.model import Fault, Finding, Level, Reading, Scalar

CODES: Mapping[str, Level] = {
    "speaker.absent": Level.FAIL,
    "speaker.no_answer": Level.FAIL,
    "speaker.busy": Level.INFO,
    "speaker.loop_failed": Level.FAIL,
    "speaker.echo": Level.WARN,
}
RECOVERABLE = frozenset({"speaker.absent", "speaker.no_answer"})
ANSWERS = frozenset({"loop"})
LOOP_CODES = frozenset({"speaker.loop_failed", "speaker.echo"})
WORDS: frozenset[str] = _alsa.STATES
TELLS: Mapping[str, Tell] = {
    "microphones": Tell("microphones that listened", "", 0, 4),
    "microphones_heard": Tell("those that heard the sound", "", 0, 4),
    "gain_db": Tell("heard over played, at the one that hears it best", "dB", -120, 60),
    "delay_ms": Tell("how late it was heard", "ms", 0, 10_000),
    "echo_db": Tell("strongest late copy over the first", "dB", -120, 20),
    "echo_ms": Tell("how much later that was", "ms", 0, 10_000),
    "state": word("state of the stream, where a program has it", _alsa.STATES),
}
_FAULTS = {
    Fault.ABSENT: "speaker.absent",
    Fault.NO_ANSWER: "speaker.no_answer",
    Fault.QUARANTINED: "speaker.no_answer",
    Fault.BUSY: "speaker.busy",
}
_TAIL_S = 1.2  # how long is listened after the sweep: buffers of both devices, and late copies
_STALL_S = 1.5
_MARGIN_S = 0.8


class Settings(RecoverableSettings):
    """One loudspeaker, and how its loop test is made."""

    source: str = Field(
        default="default",
        min_length=1,
        max_length=128,
        description="usb:VID:PID[@PORT], hw:CARD[,DEVICE], or default (the first there is)",
    )
    loop_test: bool = Field(
        default=False, description="may play a short sweep when nobody is in session"
    )
    level_dbfs: float = Field(
        default=-30.0, ge=-60, le=-12, description="AES17 level of the sweep; quiet"
    )
    microphones: tuple[str, ...] = Field(
        default=(), max_length=4, description="sources that listen; unset: the speaker's own card"
    )
    gain_above_db: float = Field(
        default=-60.0, ge=-100, le=0, description="heard weaker than this is not heard"
    )
    howl_from_db: float = Field(
        default=0.0, ge=-40, le=40, description="heard as loud as it is played: it will howl"
    )
    echo_within_db: float = Field(
        default=12.0, ge=0, le=60, description="a late copy so little weaker is an echo"
    )

    @field_validator("source")
    @classmethod
    def _source(cls, text: str) -> str:
        _stream_of(text)
        return text

    @field_validator("microphones")
    @classmethod
    def _microphones(cls, sources: tuple[str, ...]) -> tuple[str, ...]:
        for text in sources:
            _stream_of(text)
        return sources


def _stream_of(text: str) -> _alsa.Source:
    source = _alsa.parse_source("hw:" if text == "default" else text)
    if source.path:
        raise ValueError(f"{text!r} is a file; a loudspeaker is usb:VID:PID, hw:CARD or default")
    return source


def judge(reading: Reading, limits: Settings) -> list[Finding]:
    """Absent, held, stalled; after a loop test also not heard, or heard too well or twice."""
    values = reading.values
    if reading.fault is Fault.SKIPPED:
        return []
    if reading.fault is not None:
        code = _FAULTS.get(reading.fault)
        level = CODES[code] if code else Level.UNKNOWN
        return [Finding(code or "speaker.no_answer", level, dict(values), reading.device)]
    if values.get("in_use") is True and values.get("advancing") is False:
        return [_found("speaker.no_answer", reading)]
    if "microphones_heard" not in values:
        return []
    gain = _number(values, "gain_db", -999.0)
    if values["microphones_heard"] == 0 or gain < limits.gain_above_db:
        return [_found("speaker.loop_failed", reading)]
    late = _number(values, "echo_db", -999.0)
    if gain >= limits.howl_from_db or late > -limits.echo_within_db:
        return [_found("speaker.echo", reading)]
    return []


def _found(code: str, reading: Reading) -> Finding:
    return Finding(code, CODES[code], dict(reading.values), reading.device)


def _number(values: Mapping[str, Scalar], key: str, otherwise: float) -> float:
    value = values.get(key)
    return float(value) if isinstance(value, int | float) else otherwise


class Passive:
    """Whether the loudspeaker is there, whether somebody plays on it and whether samples go."""

    def __init__(self, settings: Settings, root: Path) -> None:
        self._observer = _alsa.Observer(root, _stream_of(settings.source), _alsa.PLAYBACK)

    async def read(self) -> Reading:
        """As `_alsa.Observer.read`."""
        return self._observer.read()


def usb_port(settings: Settings, root: Path) -> str:
    """As `_alsa.usb_port`."""
    return _alsa.usb_port(root, _stream_of(settings.source), _alsa.PLAYBACK)


async def changes(settings: Settings, root: Path = Path("/")) -> AsyncIterator[None]:
    """Yields when a sound card came or went. Ends at once for a recorded tree."""
    if root != Path("/"):
        return
    async with contextlib.aclosing(uevents("sound")) as events:
        async for event in events:
            if event is None or event.get("ACTION") in ("add", "remove"):
                yield None


def needs_worker(settings: Settings) -> bool:
    """Whether this loudspeaker is ever asked through a lane."""
    return settings.loop_test


def discover(root: Path = Path("/")) -> list[dict[str, Any]]:
    """A settings table for every USB device that can play."""
    found: dict[str, dict[str, Any]] = {}
    for stream in _alsa.streams(root, _alsa.PLAYBACK):
        if stream.usb:
            source = f"usb:{stream.usb}"
            if source in found:
                source += f"@{stream.port}"
            found[source] = {"name": _alsa.card_id(root, stream.card), "source": source}
    return list(found.values())


def prepare() -> None:
    """Imports what a loop test needs (numpy). Opens no device."""
    importlib.import_module("agent.kinds._loop")
    importlib.import_module("agent.kinds._pcm")


@dataclass(frozen=True, slots=True)
class _Way:
    """One stream as it will be opened."""

    name: str
    rate: int
    channels: int

    def command(self, program: str) -> list[str]:
        shape = ["-f", "S16_LE", "-r", str(self.rate), "-c", str(self.channels)]
        return [program, "-D", self.name, "-t", "raw", *shape]


class Driver:
    """Answers `loop`. To any other question it opens nothing and says nothing: there is nothing
    to be learnt from a loudspeaker without making a sound."""

    def __init__(self, settings: Settings, root: Path = Path("/")) -> None:
        self._settings = settings
        self._root = root
        self._loop: Any = importlib.import_module("agent.kinds._loop")
        self._pcm: Any = importlib.import_module("agent.kinds._pcm")
        self._left: subprocess.Popen[bytes] | None = None

    def read(self, question: str) -> Reading:
        """Values `microphones`, `microphones_heard`, and of the one that hears it best `gain_db`,
        `delay_ms` and, where there is a late copy, `echo_db` and `echo_ms`."""
        if question != "loop":
            return Reading()
        if not self._settings.loop_test:
            return Reading(fault=Fault.SKIPPED, why="refused")
        if self._left is not None and self._left.poll() is None:
            return Reading(fault=Fault.NO_ANSWER, why="held")
        speakers = _alsa.find(self._root, _stream_of(self._settings.source), _alsa.PLAYBACK)
        if not speakers:
            return Reading({"present": False}, Fault.ABSENT, "no_node")
        until_s = time.monotonic() + max(1.0, self._settings.deadline_s - _MARGIN_S)
        ears = self._ears(speakers[0])
        heard: list[Any] = []
        for ear in ears:
            found = self._try(speakers[0], ear, until_s)
            if isinstance(found, Reading):
                return found
            if found is not None:
                heard.append(found)
        if not heard:
            return Reading(fault=Fault.ERROR, why="no_samples", active=True)
        return Reading(_values(heard), active=True)

    def _ears(self, speaker: _alsa.Stream) -> list[_alsa.Stream]:
        """The microphones that listen; one that is not there is left out."""
        sources = self._settings.microphones or (f"hw:{speaker.card}",)
        found = [_alsa.find(self._root, _stream_of(text), _alsa.CAPTURE) for text in sources]
        return [streams[0] for streams in found if streams]

    def _way(self, stream: _alsa.Stream) -> _Way:
        native = _alsa.native(self._root, stream)
        name, best = _alsa.exact(native, stream)
        rate = _alsa.nearest(best.rates)
        # Without knowing the format, converters are the only way that surely opens; a mixing desk
        # of 32 channels would need more bytes than a pipe takes.
        if not native or best.channels > 8:
            return _Way(stream.plug, rate, min(best.channels, 2))
        return _Way(name, rate, best.channels)

    def _try(self, speaker: _alsa.Stream, ear: _alsa.Stream, until_s: float) -> Any:
        """What one microphone hears: a `Found`, None where it could not be listened to, or a
        reading that ends the test because the loudspeaker cannot be played on."""
        for stream in (speaker, ear):
            status = _alsa.status(self._root, stream)
            if status is not None and status.state != "closed":
                values: dict[str, Scalar] = {"state": status.state}
                return Reading(values, Fault.BUSY, "held") if stream is speaker else None
        out, back = self._way(speaker), self._way(ear)
        level = self._settings.level_dbfs
        sound = self._loop.chirp(out.rate, level)
        raw = (sound.repeat(out.channels) * 32_767).astype("<i2").tobytes()
        players: list[subprocess.Popen[bytes]] = []
        taken = bytearray()
        try:
            heard = self._pcm.listen(
                back.command("arecord"),
                round(back.rate * (self._loop.CHIRP_S + _TAIL_S)) * 2 * back.channels,
                taken.extend,
                until_s=until_s,
                stall_s=_STALL_S,
                first=lambda: players.append(self._pcm.speak(out.command("aplay"), raw)),
            )
        except FileNotFoundError:
            return Reading(fault=Fault.ERROR, why="not_supported", active=True)
        finally:
            said = "".join(self._pcm.last_words(player) for player in players)
            for player in players:
                if not self._pcm.end(player):
                    self._left = player
        if heard.left is not None:
            self._left = heard.left
        if (number := self._pcm.errno_in(said)) is not None:
            if number in (errno.EBUSY, errno.EAGAIN):
                return Reading(fault=Fault.BUSY, why="held", active=True)
            return Reading({"errno": number}, Fault.NO_ANSWER, "errno", active=True)
        if heard.ended != "done":
            return None
        return self._best(bytes(taken), back, level)

    def _best(self, raw: bytes, way: _Way, level: float) -> Any:
        """The channel that hears it best."""
        sound = self._loop.from_pcm(raw, way.channels)
        found = [self._loop.find(channel, way.rate, level) for channel in sound]
        return max(found, key=lambda one: (one.found, one.peak_db))


def _values(heard: list[Any]) -> dict[str, Scalar]:
    found = [one for one in heard if one.found]
    values: dict[str, Scalar] = {"microphones": len(heard), "microphones_heard": len(found)}
    if found:
        best = max(found, key=lambda one: one.gain_db)
        values |= {"gain_db": round(best.gain_db), "delay_ms": round(best.delay_ms)}
        if best.echo_db is not None:
            values |= {"echo_db": round(best.echo_db), "echo_ms": round(best.echo_ms)}
    return values
