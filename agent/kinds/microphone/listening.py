"""Listening for a moment: through `arecord` at a device, or in a WAV file."""

from __future__ import annotations

import errno
import re
import subprocess
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from agent.kinds import _alsa, _pcm
from agent.kinds.microphone.settings import Settings
from agent.kinds.microphone.sound import Ear, to_sound
from agent.kinds.microphone.wav import BadFileError, Wav
from agent.model import Fault, Reading, Scalar

PIECE_S = 4.0
"""Sound is taken in by pieces, so that memory does not grow with its length; a look is one."""
MARGIN_S = 0.8  # an answer is given this long before the deadline
STALL_S = 2.0  # a stream that gives nothing for so long has stopped
_SHORTEST_S = 0.5  # less than this says nothing
_GOT = re.compile(r"got = (\d+) ?Hz")
_REFUSED = re.compile(rf"{_GOT.pattern}|non available|nable to install hw params", re.IGNORECASE)
"""How `arecord` says that the hardware does not speak this format (the rate: that it speaks
another one, and goes on)."""
_TOLD = {key: re.compile(rf"^{key}: .*$", re.MULTILINE) for key in ("FORMAT", "CHANNELS", "RATE")}
_stuck: dict[str, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True, slots=True)
class Plan:
    """One way to open a stream: ALSA name, Hz, channels; always 16 bits."""

    name: str
    rate: int
    channels: int

    def command(self) -> list[str]:
        """`arecord` for it, without end. The hardware's parameters go to standard error."""
        raw = ["-t", "raw", "-f", "S16_LE", "-r", str(self.rate), "-c", str(self.channels)]
        return ["arecord", "-D", self.name, *raw, "--dump-hw-params"]


@dataclass(slots=True)
class _Pieces:
    """Gathers bytes of 16-bit frames into pieces and drops the warm-up."""

    ear: Ear
    drop: int
    _rest: bytearray = field(default_factory=bytearray)

    def __call__(self, piece: bytes) -> None:
        if self.drop:
            dropped = min(self.drop, len(piece))
            self.drop -= dropped
            piece = piece[dropped:]
        self._rest += piece
        size = round(self.ear.rate * PIECE_S) * self.ear.channels * 2
        while len(self._rest) >= size:
            self.ear.hear(to_sound(bytes(self._rest[:size]), 16, self.ear.channels))
            del self._rest[:size]

    def close(self) -> None:
        """Take in what is left."""
        self.ear.hear(to_sound(bytes(self._rest), 16, self.ear.channels))
        self._rest.clear()


class Listener:
    """One microphone, listened to on demand."""

    def __init__(self, settings: Settings, root: Path) -> None:
        self._settings = settings
        self._source = settings.where
        self._root = root

    def answer(self, question: str, up_s: float) -> Reading:
        """The reading for a question; `up_s` is boot time, by which a file goes round."""
        if not self._source.path:
            return self._live()
        try:
            with Wav(Path(self._source.path)) as wav:
                ear = self._whole(wav) if question == "whole" else self._window(wav, up_s)
        except BadFileError:
            return Reading(fault=Fault.ERROR, why="bad_file")
        except FileNotFoundError:
            return Reading({"present": False}, Fault.ABSENT, "no_node")
        except OSError as error:
            why = "not_permitted" if isinstance(error, PermissionError) else "errno"
            return Reading({"errno": error.errno or 0}, Fault.ERROR, why)
        return _heard(ear.values())

    def _ear(self, rate: int, channels: int, bits: int) -> Ear:
        return Ear(rate, channels, bits, self._settings.mains_hz)

    def _whole(self, wav: Wav) -> Ear:
        layout = wav.layout
        ear = self._ear(layout.rate, layout.channels, layout.bits)
        piece = round(layout.rate * PIECE_S)
        for start in range(0, layout.frames, piece):
            ear.hear(wav.read(start, piece))
        return ear

    def _window(self, wav: Wav, up_s: float) -> Ear:
        """The last `look_s` of a file that has been playing round and round since boot."""
        layout = wav.layout
        ear = self._ear(layout.rate, layout.channels, layout.bits)
        wanted = round(self._settings.look_s * layout.rate)
        if layout.frames:
            start = (int(up_s * layout.rate) - wanted) % layout.frames
            piece = round(layout.rate * PIECE_S)
            while wanted > 0:
                sound = wav.read(start, min(piece, wanted))
                if not len(sound):
                    break
                ear.hear(sound)
                wanted -= len(sound)
                start = (start + len(sound)) % layout.frames
        return ear

    def _live(self) -> Reading:
        found = _alsa.find(self._root, self._source, _alsa.CAPTURE)
        if not found:
            return Reading({"present": False}, Fault.ABSENT, "no_node")
        stream = found[0]
        status = _alsa.status(self._root, stream)
        if status is not None and status.state != "closed":
            return Reading({"state": status.state}, Fault.BUSY, "held")
        if (stuck := _stuck.get(stream.name)) is not None:
            if stuck.poll() is None:
                return Reading(fault=Fault.NO_ANSWER, why="held")
            del _stuck[stream.name]
        until_s = time.monotonic() + max(0.5, self._settings.deadline_s - MARGIN_S)
        switch = _pcm.switch(stream.card)  # before anything is watched: it opens the control node
        opens = _pcm.Opens(self._root / stream.control)
        try:
            reading = self._try_plans(stream, until_s, opens)
        except FileNotFoundError:
            return Reading(fault=Fault.ERROR, why="not_supported")
        finally:
            opens.close()
        if switch is None or reading.fault is not None:
            return reading
        return replace(reading, values={**reading.values, "switch": switch})

    def _try_plans(self, stream: _alsa.Stream, until_s: float, opens: _pcm.Opens) -> Reading:
        """Record in the way most likely to be right, then as the hardware asked for, then through
        ALSA's converters."""
        plan: Plan | None = self._plan(stream)
        tried: list[Plan] = []
        reading = Reading(fault=Fault.NO_ANSWER, why="no_samples", active=True)
        while plan is not None and plan not in tried:
            tried.append(plan)
            heard, ear = self._record(plan, until_s, opens)
            if heard.left is not None:
                _stuck[stream.name] = heard.left
            reading = self._reading(stream, heard, ear)
            plan = None
            if heard.ended == "refused" or (heard.ended == "quit" and not heard.size):
                plan = self._replan(stream, tried, heard.text)
        return reading

    def _plan(self, stream: _alsa.Stream) -> Plan:
        """The hardware's own format where it is known."""
        native = _alsa.native(self._root, stream) or self._usual()
        name, best = _alsa.exact(native, stream)
        return Plan(
            stream.plug if self._source.converts else name,
            self._settings.rate or _alsa.nearest(best.rates),
            self._settings.channels or best.channels,
        )

    def _usual(self) -> list[_alsa.Native]:
        """What this model speaks, for a worker to which the kernel's own word is hidden."""
        rate, channels = self._settings.usual_rate, self._settings.usual_channels
        return [_alsa.Native((rate,), channels, 16)] if rate and channels else []

    def _replan(self, stream: _alsa.Stream, tried: list[Plan], text: str) -> Plan | None:
        """Another way after a format was refused, from the limits that the hardware has told."""
        failed = tried[-1]
        if not _REFUSED.search(text) or failed.name == stream.plug:
            return None
        got = _GOT.search(text)
        exact = len(tried) == 1 and "S16_LE" in (_TOLD["FORMAT"].search(text) or [""])[0]
        return Plan(
            stream.name if exact else stream.plug,
            int(got[1]) if got else _within(text, "RATE", failed.rate),
            _within(text, "CHANNELS", failed.channels),
        )

    def _record(self, plan: Plan, until_s: float, opens: _pcm.Opens) -> tuple[_pcm.Heard, Ear]:
        settings, frame = self._settings, 2 * plan.channels
        ear = self._ear(plan.rate, plan.channels, 16)
        left_s = until_s - time.monotonic()
        look_s = max(_SHORTEST_S, min(settings.look_s, left_s - settings.warm_up_s - MARGIN_S))
        pieces = _Pieces(ear, round(settings.warm_up_s * plan.rate) * frame)
        size = pieces.drop + round(look_s * plan.rate) * frame
        heard = _pcm.listen(
            plan.command(),
            size,
            pieces,
            until_s=until_s,
            stall_s=STALL_S,
            unless=_REFUSED,
            opens=opens,
        )
        pieces.close()
        return heard, ear

    def _reading(self, stream: _alsa.Stream, heard: _pcm.Heard, ear: Ear) -> Reading:
        if heard.ended == "done":
            return _heard({**ear.values(), "xruns": heard.xruns}, active=True)
        if heard.ended == "yielded":
            return Reading(fault=Fault.BUSY, why="yielded", active=True)
        number = _pcm.errno_in(heard.text)
        values: dict[str, Scalar] = {} if number is None else {"errno": number}
        fault, why = Fault.NO_ANSWER, "no_samples" if number is None else "errno"
        if number in (errno.EBUSY, errno.EAGAIN) and not heard.size:
            fault, why = Fault.BUSY, "held"
        elif number in (errno.EACCES, errno.EPERM) and not heard.size:
            fault, why = Fault.ERROR, "not_permitted"
        elif not _alsa.find(self._root, self._source, stream.direction):
            fault, why = Fault.ABSENT, "no_node"
        return Reading(values, fault, why, active=True)


def _heard(values: dict[str, Scalar], *, active: bool = False) -> Reading:
    if "level_dbfs" not in values:
        return Reading(fault=Fault.NO_ANSWER, why="no_samples", active=active)
    return Reading(values, active=active)


def _within(text: str, key: str, value: int) -> int:
    """`value`, moved into the range that the hardware told for `key`."""
    line = _TOLD[key].search(text)
    limits = [int(n) for n in re.findall(r"\d+", line[0])] if line else []
    return min(max(value, min(limits)), max(limits)) if limits else value
