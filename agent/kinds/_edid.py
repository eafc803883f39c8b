"""EDID: how a display names itself (VESA E-EDID 1.3 and 1.4, base block).

`parse` takes any bytes and never raises: a broken EDID is data. Only the base block names the
display; of the extensions the checksums are looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

BLOCK = 128
HEADER = b"\x00\xff\xff\xff\xff\xff\xff\x00"
MAX_TEXT = 64
_DESCRIPTORS = (54, 72, 90, 108)
_SERIAL, _NAME = 0xFF, 0xFC


@dataclass(frozen=True, slots=True)
class Edid:
    """What an EDID says. Texts are printable ASCII, empty where it says nothing.

    `manufacturer` is the three-letter PNP id, `product` the maker's model code, `serial` the text
    descriptor or else the number, `version` like `1.3`, `year` of make or of the model. `width` and
    `height` are the pixels of the preferred mode, `refresh_hz` its frames a second (fields where
    it is interlaced); None where the first descriptor is no timing.
    """

    header_ok: bool
    blocks_declared: int
    checksums: tuple[bool, ...]
    truncated: bool
    manufacturer: str = ""
    product: int = 0
    name: str = ""
    serial: str = ""
    version: str = ""
    year: int | None = None
    width: int | None = None
    height: int | None = None
    refresh_hz: float | None = None

    @property
    def blocks_present(self) -> int:
        """How many whole blocks there are."""
        return len(self.checksums)

    @property
    def base_ok(self) -> bool:
        """Whether the block that names the display can be believed."""
        return self.header_ok and self.checksums[:1] == (True,)

    @property
    def whole(self) -> bool:
        """Whether all of it is there and sound."""
        return self.base_ok and all(self.checksums) and not self.truncated


def parse(raw: bytes) -> Edid:
    """What the bytes say, sound or not. Fewer than 128 bytes name nothing."""
    whole = range(0, len(raw) - BLOCK + 1, BLOCK)
    checksums = tuple(sum(raw[at : at + BLOCK]) % 256 == 0 for at in whole)
    declared = raw[126] + 1 if checksums else 0
    sound = Edid(
        header_ok=raw.startswith(HEADER),
        blocks_declared=declared,
        checksums=checksums,
        truncated=len(checksums) < max(declared, 1),
    )
    return _named(raw, sound) if checksums else sound


def _named(raw: bytes, sound: Edid) -> Edid:
    width, height, refresh_hz = _timing(raw[54:72])
    number = int.from_bytes(raw[12:16], "little")
    return Edid(
        header_ok=sound.header_ok,
        blocks_declared=sound.blocks_declared,
        checksums=sound.checksums,
        truncated=sound.truncated,
        manufacturer=_manufacturer(int.from_bytes(raw[8:10], "big")),
        product=int.from_bytes(raw[10:12], "little"),
        name=_text(raw, _NAME),
        serial=_text(raw, _SERIAL) or (str(number) if number else ""),
        version=f"{raw[18]}.{raw[19]}",
        year=1990 + raw[17] if raw[17] else None,
        width=width,
        height=height,
        refresh_hz=refresh_hz,
    )


def _manufacturer(packed: int) -> str:
    """Three letters of five bits each, 1 for A; empty where one of them is no letter."""
    letters = [packed >> shift & 31 for shift in (10, 5, 0)]
    return "".join(chr(64 + v) for v in letters) if all(1 <= v <= 26 for v in letters) else ""


def _text(raw: bytes, tag: int) -> str:
    """The first text descriptor of a kind that says something: 13 bytes, up to a line feed."""
    for at in _DESCRIPTORS:
        if raw[at : at + 3] == b"\0\0\0" and raw[at + 3] == tag:
            line = raw[at + 5 : at + 18].split(b"\n")[0]
            if text := printable(line.decode("latin-1")):
                return text
    return ""


def printable(text: str) -> str:
    """Only the printable ASCII of a text, without white space at its ends, cut to 64."""
    return "".join(c for c in text if c.isascii() and c.isprintable()).strip()[:MAX_TEXT]


def _timing(d: bytes) -> tuple[int | None, int | None, float | None]:
    """Width, height and refresh rate of a detailed timing; a text descriptor has no clock."""
    clock_hz = int.from_bytes(d[0:2], "little") * 10_000
    width, height = d[2] | (d[4] & 0xF0) << 4, d[5] | (d[7] & 0xF0) << 4
    if not clock_hz or not width or not height:
        return None, None, None
    total = (width + (d[3] | (d[4] & 0x0F) << 8)) * (height + (d[6] | (d[7] & 0x0F) << 8))
    interlaced = d[17] & 0x80
    return width, height * 2 if interlaced else height, round(clock_hz / total, 2)
