"""What the kernel says of sound cards, read from /proc/asound and /sys: no device is opened.

Shared by `microphone` and `speaker`. All functions take the file-system root, so that a recorded
tree is the fake. A worker may live without /proc/asound (systemd's `ProcSubset=pid`), so cards
are found through /sys as well; native formats and stream states then stay unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from agent import usb_tree
from agent.model import Fault, Reading, Scalar

CAPTURE = "c"
PLAYBACK = "p"
_SECTION = {CAPTURE: "Capture:", PLAYBACK: "Playback:"}
_BITS = {"S16_LE": 16, "S24_3LE": 24, "S24_LE": 24, "S32_LE": 32}
_USB = re.compile(r"usb:([0-9a-f]{4}):([0-9a-f]{4})(?:@(\d+-\d+(?:\.\d+)*))?", re.IGNORECASE)
_PCM = re.compile(
    r"(?P<how>hw|plughw):(?:(?:CARD=)?(?P<card>[A-Za-z0-9_]{1,32})"
    r"(?:,(?:DEV=)?(?P<dev>\d{1,2})(?:,(?:SUBDEV=)?\d{1,2})?)?)?"
)
_INTERFACE = re.compile(r"(\d+-\d+(?:\.\d+)*):\d+\.\d+")


@dataclass(frozen=True, slots=True)
class Source:
    """Which stream is meant: a USB device, an ALSA card, or a file.

    `card` is an index or an id, empty for the first card that has such a stream; `device` the
    PCM device of that card, None for the first. `converts` says that ALSA may convert (plughw).
    """

    usb: str = ""
    port: str = ""
    card: str = ""
    device: int | None = None
    converts: bool = False
    path: str = ""


@dataclass(frozen=True, slots=True)
class Stream:
    """One direction of one PCM device of a card that is there."""

    card: int
    device: int
    direction: str
    usb: str = ""
    port: str = ""

    @property
    def name(self) -> str:
        """The ALSA name that opens it as it is, without conversion."""
        return f"hw:{self.card},{self.device}"

    @property
    def plug(self) -> str:
        """The ALSA name that opens it through converters of rate, channels and format."""
        return f"plug{self.name}"

    @property
    def control(self) -> str:
        """The control node of the card, relative to the root."""
        return f"dev/snd/controlC{self.card}"


@dataclass(frozen=True, slots=True)
class Native:
    """A format that the hardware itself speaks: rates in Hz, `bits` of one sample."""

    rates: tuple[int, ...]
    channels: int
    bits: int


GUESS = Native((48_000,), 1, 16)


@dataclass(frozen=True, slots=True)
class Status:
    """What the first substream is doing. `state` is `closed` or the kernel's word in lower case;
    `hw_ptr` counts frames since the stream was started, None while it is closed."""

    state: str
    hw_ptr: int | None = None
    owner: int | None = None


STATES = frozenset(
    {"closed", "open", "setup", "prepared", "running", "xrun", "draining", "paused", "suspended"}
)


def parse_source(text: str) -> Source:
    """A source as written in room.toml. Raises `ValueError` that says what may stand there."""
    if match := _USB.fullmatch(text):
        return Source(usb=f"{match[1]}:{match[2]}".lower(), port=match[3] or "")
    if match := _PCM.fullmatch(text):
        device = match["dev"]
        return Source(
            card=match["card"] or "",
            device=None if device is None else int(device),
            converts=match["how"] == "plughw",
        )
    path = text.removeprefix("file:")
    if path and (text.startswith("file:") or path.lower().endswith(".wav")):
        return Source(path=path)
    raise ValueError(
        f"no sound source: {text!r}; write usb:VID:PID (four hex digits each, @PORT for one of"
        " two alike), hw:CARD[,DEVICE], plughw:CARD[,DEVICE] or file:PATH.wav"
    )


def streams(root: Path, direction: str) -> list[Stream]:
    """All streams of one direction that the kernel has now, by card and device."""
    return [
        Stream(card, device, direction, _usb_id(root, card), _usb_port(root, card))
        for card in _cards(root)
        for device in _devices(root, card, direction)
    ]


def exact(native: list[Native], stream: Stream) -> tuple[str, Native]:
    """The ALSA name and the format to open a stream with: as it is, in 16 bits; through ALSA's
    converters where the hardware has no 16 bits; a guess where its formats are not known."""
    best = next((n for n in native if n.bits == 16), (native or [GUESS])[0])
    return stream.name if best.bits == 16 else stream.plug, best


def nearest(rates: tuple[int, ...]) -> int:
    """The rate that costs least and still holds all of speech and hiss: 48 kHz or next below."""
    return max((r for r in rates if r <= 48_000), default=min(rates))


def find(root: Path, source: Source, direction: str) -> list[Stream]:
    """The streams that a source names, best first; more than one means two devices alike."""
    index = _card_index(root, source.card) if source.card else None
    found = []
    for stream in streams(root, direction):
        if source.usb:
            meant = stream.usb == source.usb and source.port in ("", stream.port)
        elif source.card:
            meant = stream.card == index
        else:
            meant = True
        if meant and source.device in (None, stream.device):
            found.append(stream)
    # The first device of each card comes first; cards in the order of their ports, which stays.
    return sorted(found, key=lambda s: (s.device, s.port, s.card))


def usb_port(root: Path, source: Source, direction: str) -> str:
    """Where on the USB the device of a source sits now, empty where it is not there or not on USB.
    One without a sound card (its driver let go) is still found by its ids."""
    found = find(root, source, direction)
    if found or not source.usb:
        return found[0].port if found else ""
    device = usb_tree.find(source.usb, root, source.port)
    return device.port if device is not None else ""


def card_id(root: Path, card: int) -> str:
    """The id that ALSA gave a card, `card N` where it cannot be read."""
    return _first_line(root / f"proc/asound/card{card}/id") or f"card {card}"


def identity(root: Path, stream: Stream) -> dict[str, str]:
    """Who a USB device says it is, in printable ASCII of at most 64 characters a string: `usb`,
    `port`, `product` and `revision` (bcdDevice); what it does not say is left out."""
    usb = root / f"sys/class/sound/card{stream.card}/device/.."
    told = {
        "usb": stream.usb,
        "port": stream.port,
        "product": _first_line(usb / "product"),
        "revision": _first_line(usb / "bcdDevice"),
    }
    plain = {k: "".join(c for c in v if c.isascii() and c.isprintable()) for k, v in told.items()}
    return {key: value[:64].strip() for key, value in plain.items() if stream.usb and value}


def native(root: Path, stream: Stream) -> list[Native]:
    """The formats of /proc/asound/cardN/stream0 in its order; empty where the file is not there
    (only USB cards have it, a confined worker may not see it)."""
    try:
        text = (root / f"proc/asound/card{stream.card}/stream{stream.device}").read_text()
    except OSError:
        return []
    return parse_stream(text, stream.direction)


def parse_stream(text: str, direction: str) -> list[Native]:
    """The formats of one direction in the text of a `streamN` file. Odd blocks are left out."""
    formats: list[Native] = []
    block: dict[str, str] = {}
    inside = False
    for line in (*text.splitlines(), "Altset"):
        key, _, value = line.strip().partition(":")
        if line.startswith(tuple(_SECTION.values())):
            formats += _native(block)
            block, inside = {}, line.startswith(_SECTION[direction])
        elif key.startswith("Altset"):
            formats += _native(block)
            block = {}
        elif inside:
            block.setdefault(key, value.strip())
    return formats


def _native(block: Mapping[str, str]) -> Iterable[Native]:
    bits, channels = _BITS.get(block.get("Format", "")), block.get("Channels", "")
    rates = tuple(dict.fromkeys(int(r) for r in re.findall(r"\d{4,6}", block.get("Rates", ""))))
    if bits and rates and channels.isdecimal() and 1 <= int(channels) <= 32:
        yield Native(rates, int(channels), bits)


def status(root: Path, stream: Stream) -> Status | None:
    """The state of a stream: of its first substream that is not closed. None where the kernel
    does not tell."""
    folder = root / f"proc/asound/card{stream.card}/pcm{stream.device}{stream.direction}"
    states = []
    for name in sorted(match[0] for match in _names(folder, r"sub\d+")):
        try:
            states.append(parse_status((folder / name / "status").read_text()))
        except OSError:
            continue
    busy = [state for state in states if state.state != "closed"]
    return next(iter(busy or states), None)


def parse_status(text: str) -> Status:
    """The text of a `status` file: `closed`, or lines of `key : value`."""
    fields = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields[key.strip()] = value.strip()
    state = fields.get("state", "closed").lower()
    pointer, owner = fields.get("hw_ptr", ""), fields.get("owner_pid", "")
    return Status(
        state=state if state in STATES else "open",
        hw_ptr=int(pointer) if pointer.isdecimal() else None,
        owner=int(owner) if owner.isdecimal() else None,
    )


class Observer:
    """Watches one direction of a device without opening it: whether it is there, whether somebody
    uses it, and whether samples move. `advancing` compares the frame counter with that of the last
    read, so it is there from the second read of one running stream on."""

    def __init__(self, root: Path, source: Source, direction: str) -> None:
        self._root = root
        self._source = source
        self._direction = direction
        self._before: tuple[str, int] | None = None

    def read(self) -> Reading:
        """Values `present`, `in_use`, `state`, `advancing`, `alike`, and who it is; or absent."""
        before, self._before = self._before, None
        found = find(self._root, self._source, self._direction)
        if not found:
            return Reading({"present": False}, Fault.ABSENT, "no_node")
        stream, values = found[0], dict[str, Scalar](present=True)
        alike = len({s.card for s in found})
        if self._source.usb and alike > 1:
            values["alike"] = alike
        now = status(self._root, stream)
        if now is not None:
            values["in_use"] = now.state != "closed"
            values["state"] = now.state
            if now.hw_ptr is not None:
                self._before = (stream.name, now.hw_ptr)
                if now.state == "running" and before and before[0] == stream.name:
                    values["advancing"] = now.hw_ptr != before[1]
        return Reading(values, identity=identity(self._root, stream))


def _names(folder: Path, pattern: str) -> list[re.Match[str]]:
    try:
        names = [entry.name for entry in folder.iterdir()]
    except OSError:
        return []
    return [match for name in names if (match := re.fullmatch(pattern, name))]


def _cards(root: Path) -> list[int]:
    seen = _names(root / "proc/asound", r"card(\d+)") + _names(
        root / "sys/class/sound", r"card(\d+)"
    )
    return sorted({int(match[1]) for match in seen})


def _devices(root: Path, card: int, direction: str) -> list[int]:
    seen = _names(root / f"proc/asound/card{card}", rf"pcm(\d+){direction}")
    seen += _names(root / "sys/class/sound", rf"pcmC{card}D(\d+){direction}")
    return sorted({int(match[1]) for match in seen})


def _first_line(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _usb_id(root: Path, card: int) -> str:
    if told := _first_line(root / f"proc/asound/card{card}/usbid"):
        return told.lower()
    usb = root / f"sys/class/sound/card{card}/device/.."
    vid, pid = _first_line(usb / "idVendor"), _first_line(usb / "idProduct")
    return f"{vid}:{pid}".lower() if vid and pid else ""


def _usb_port(root: Path, card: int) -> str:
    """The port path (`1-1.2`), out of the link to the USB interface: it stays over replugs."""
    try:
        target = (root / f"sys/class/sound/card{card}/device").readlink()
    except OSError:
        return ""
    match = _INTERFACE.fullmatch(target.name)
    return match[1] if match else ""


def _card_index(root: Path, card: str) -> int | None:
    if card.isdecimal():
        return int(card)
    for index in _cards(root):
        told = _first_line(root / f"proc/asound/card{index}/id")
        if card == (told or _first_line(root / f"sys/class/sound/card{index}/id")):
            return index
    return None
