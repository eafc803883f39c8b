"""Where a picture comes from: `source` of room.toml, taken apart."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import urlsplit, urlunsplit

FORMS = (
    "usb:vid:pid, usb:vid:pid@port, v4l2:/dev/videoN, rtsp://host/path, http://host/path (MJPEG) "
    "or file:clip.mp4"
)
_USB = re.compile(r"usb:([0-9a-fA-F]{4}):([0-9a-fA-F]{4})(?:@([0-9]+-[0-9]+(?:\.[0-9]+)*))?")
_PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}


class Scheme(StrEnum):
    """The kinds of source."""

    USB = "usb"
    V4L2 = "v4l2"
    FILE = "file"
    RTSP = "rtsp"
    HTTP = "http"


@dataclass(frozen=True, slots=True)
class Source:
    """A source taken apart.

    `target` is a device node, a path or a URL (kept out of `repr`: it may hold a password).
    `usb_id` is `vid:pid` in lower case, `port` the place on the USB tree (`1-1.2`).
    """

    scheme: Scheme
    target: str = field(default="", repr=False)
    usb_id: str = ""
    port: str = ""

    @property
    def on_network(self) -> bool:
        """Whether a network is needed to reach it."""
        return self.scheme in (Scheme.RTSP, Scheme.HTTP)

    @property
    def local(self) -> bool:
        """Whether it is a camera of this box."""
        return self.scheme in (Scheme.USB, Scheme.V4L2)


def parse(text: str) -> Source:
    """A source from its text. Raises `ValueError` with the forms that may stand there.

    The message never repeats the text: a URL may hold a password.
    """
    text = text.strip()
    if match := _USB.fullmatch(text):
        vid, pid, port = match.groups()
        return Source(Scheme.USB, usb_id=f"{vid}:{pid}".lower(), port=port or "")
    scheme, _, rest = text.partition(":")
    if text.startswith("/dev/") and len(text) > len("/dev/"):
        return Source(Scheme.V4L2, text)
    if scheme == "v4l2" and rest.startswith("/dev/") and len(rest) > len("/dev/"):
        return Source(Scheme.V4L2, rest)
    if scheme == "file" and rest and "\0" not in rest:
        return Source(Scheme.FILE, rest)
    if scheme.lower() in _PORTS and rest.startswith("//"):
        return Source(
            Scheme.RTSP if scheme.lower() in ("rtsp", "rtsps") else Scheme.HTTP, _url(text)
        )
    raise ValueError(f"no camera source; it may be {FORMS}")


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        if not parts.hostname or parts.port == 0:
            raise ValueError
    except ValueError:  # a port that is no number, a broken IPv6 address
        raise ValueError("the address of the camera has no valid host and port") from None
    if "@" in parts.netloc:
        raise ValueError(
            "no user and password in the address: write user:password into a file of its own and"
            " name that with credentials_file"
        )
    return text


def port_of(source: Source) -> int | None:
    """The TCP port of a camera on the network, None for one of this box."""
    where = address_of(source.target) if source.on_network else None
    return where[1] if where else None


def address_of(url: str) -> tuple[str, int] | None:
    """Host and TCP port of a URL, None where it has none."""
    parts = urlsplit(url)
    if not parts.hostname:
        return None
    return parts.hostname, parts.port or _PORTS[parts.scheme.lower()]


def with_credentials(url: str, credentials: str) -> str:
    """The URL with `user:password` set in it; OpenCV takes credentials in no other way.

    `credentials` is taken as it is: percent-encoded where it holds one of `/?#@`.
    """
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{credentials}@{parts.netloc}"))
