"""When a certificate ends, from its DER (RFC 5280 4.1).

By hand, because `ssl` decodes a certificate only after it has been verified, and the days left
are worth knowing most when it was not.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

_SEQUENCE, _VERSION, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18

Element = tuple[int, int, int]
"""Tag, and where in the data the value begins and ends."""


_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"


def days_left(path: Path, utc_s: float) -> float | None:
    """Days until the first certificate of a PEM file ends, negative afterwards; None where it
    cannot be read."""
    try:
        body = path.read_text("ascii").partition(_BEGIN)[2].partition(_END)[0]
        ends_s = not_after(ssl.PEM_cert_to_DER_cert(f"{_BEGIN}{body}{_END}\n"))
    except (OSError, ValueError):
        return None
    return (ends_s - utc_s) / 86_400


def not_after(certificate: bytes) -> float:
    """notAfter in Unix seconds. Raises `ValueError` for what is no certificate."""
    whole = _elements(certificate, 0, len(certificate))
    signed = _inside(certificate, _next(whole))
    fields = _inside(certificate, _next(signed))
    if _next(fields)[0] == _VERSION:  # not there in version 1; then this was the serial number
        _next(fields)
    _next(fields)  # signature algorithm
    _next(fields)  # issuer
    validity = _inside(certificate, _next(fields))
    _next(validity)  # notBefore
    tag, start, stop = _next(validity)
    return _seconds(tag, certificate[start:stop])


def _seconds(tag: int, value: bytes) -> float:
    text = value.decode("ascii", "replace")
    if tag == _UTC_TIME:  # two digits of the year: from 50 on they mean 19xx
        text = ("19" if text[:2] >= "50" else "20") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError("no time where notAfter should be")
    digits = text.removesuffix("Z")
    if len(text) != 15 or len(digits) != 14 or not digits.isdecimal():
        raise ValueError(f"no time: {text[:32]!r}")
    year, parts = int(digits[:4]), [int(digits[at : at + 2]) for at in range(4, 14, 2)]
    month, day, hour, minute, second = parts
    return datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()


def _inside(data: bytes, element: Element) -> Iterator[Element]:
    tag, start, stop = element
    if tag != _SEQUENCE:
        raise ValueError(f"a sequence was expected at {start}, not tag {tag:#x}")
    return _elements(data, start, stop)


def _elements(data: bytes, at: int, stop: int) -> Iterator[Element]:
    while at < stop:
        if stop - at < 2:
            raise ValueError(f"cut short at {at}")
        tag, length = data[at], data[at + 1]
        at += 2
        if length & 0x80:
            size = length & 0x7F
            if not 1 <= size <= 4 or at + size > stop:
                raise ValueError(f"bad length at {at}")
            length = int.from_bytes(data[at : at + size])
            at += size
        if at + length > stop:
            raise ValueError(f"cut short at {at}")
        yield tag, at, at + length
        at += length


def _next(elements: Iterator[Element]) -> Element:
    found = next(elements, None)
    if found is None:
        raise ValueError("ends before notAfter")
    return found
