"""Makes EDIDs for tests, sound ones unless told otherwise."""

from __future__ import annotations

HEADER = bytes.fromhex("00ffffffffffff00")


def text(tag: int, content: str) -> bytes:
    """A text descriptor of 18 bytes."""
    line = content.encode("latin-1") + (b"\n" if len(content) < 13 else b"")
    return b"\0\0\0" + bytes([tag, 0]) + line.ljust(13, b" ")


def timing(
    width: int, height: int, clock_khz: int, h_blank: int, v_blank: int, *, interlaced: bool = False
) -> bytes:
    """A detailed timing of 18 bytes; `height` is that of one field where it is interlaced."""
    return (
        (clock_khz // 10).to_bytes(2, "little")
        + bytes([width & 255, h_blank & 255, (width >> 8) << 4 | h_blank >> 8])
        + bytes([height & 255, v_blank & 255, (height >> 8) << 4 | v_blank >> 8])
        + bytes(9)
        + bytes([0x80 if interlaced else 0])
    )


FULL_HD = timing(1920, 1080, 148_500, 280, 45)


def seal(block: bytes) -> bytes:
    """127 bytes and the last one that makes them sound."""
    return block + bytes([-sum(block) % 256])


def edid(
    *,
    manufacturer: str = "DEL",
    product: int = 0xD0D8,
    number: int = 0x4C4B4A49,
    name: str | None = "DELL P2419H",
    serial: str | None = "7LM1234",
    version: tuple[int, int] = (1, 3),
    year: int = 2019,
    preferred: bytes = FULL_HD,
    extensions: int = 1,
) -> bytes:
    """A whole EDID: the base block and `extensions` more."""
    letters = [ord(c) - 64 for c in manufacturer]
    packed = letters[0] << 10 | letters[1] << 5 | letters[2]
    descriptors = [preferred]
    descriptors += [text(0xFF, serial)] if serial is not None else []
    descriptors += [text(0xFC, name)] if name is not None else []
    descriptors += [text(0xFE, "x")] * (4 - len(descriptors))
    base = (
        HEADER
        + packed.to_bytes(2, "big")
        + product.to_bytes(2, "little")
        + number.to_bytes(4, "little")
        + bytes([20, year - 1990, *version])
        + bytes(34)
        + b"".join(descriptors)
        + bytes([extensions])
    )
    return seal(base) + seal(b"\x02\x03\x04" + bytes(124)) * extensions
