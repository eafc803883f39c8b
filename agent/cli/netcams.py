"""The units of cameras on the network: one pair for each, and each may reach its own camera only.

install.sh has them written whenever it runs, from the templates beside the other units. A name is
looked up now and kept in a hosts file of the camera's own: its worker needs no DNS, which would be
a way out of the room.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from agent import credentials, kinds, settings
from agent.model import ConfigError, Device

PREFIX = "hearing-room-netcam-"
HOSTS = Path("/etc/hearing-room/netcam")
_PLAIN = re.compile(r"[A-Za-z0-9_./@+-]+")

LookUp = Callable[[str], list[str]]
"""A host name -> its addresses. Raises `OSError`."""


@dataclass(frozen=True, slots=True)
class Written:
    """What is to be written: file name -> text, and what a person has to know."""

    files: Mapping[str, str]
    warnings: tuple[str, ...]


def look_up(host: str) -> list[str]:
    """The addresses of a host, in the order of the resolver."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def cameras(room: settings.Room) -> list[Device]:
    """The devices of a room that need a worker with a network."""
    return [d for d in room.devices if kinds.variant_of(d.kind, d.settings) == "netcam"]


def port_words(camera: Device) -> str:
    """How a worker is told the ports that it may connect to."""
    return " ".join(f"--port {p}" for p in kinds.ports_of(camera.kind, camera.settings))


def write(room: settings.Room, templates: Path, look_up: LookUp = look_up) -> Written:
    """The units and hosts files of a room. A camera that cannot be found gets units that reach
    nothing, so that everything else goes on, and a warning."""
    files: dict[str, str] = {}
    warnings: list[str] = []
    for camera in cameras(room):
        host = urlsplit(camera.settings.where().target).hostname or ""
        addresses = _addresses(camera.id, host, look_up, warnings)
        credential = _credential(camera, warnings)
        words = {
            "ID": camera.id,
            "PORTS": port_words(camera),
            "ADDRESSES": " ".join(addresses),
            "HOSTS": str(HOSTS / f"{camera.id}.hosts"),
            "CREDENTIAL": f"LoadCredential={credential}" if credential else "",
        }
        for template in sorted(templates.iterdir()):
            name = template.name.replace("ID", camera.id)
            files[name] = _filled(template.read_text(), words)
        known = "".join(f"{address} {host}\n" for address in addresses if address != host)
        files[f"{camera.id}.hosts"] = f"127.0.0.1 localhost\n{known}"
    return Written(files, tuple(warnings))


def _filled(text: str, words: Mapping[str, str]) -> str:
    """A template with its words; a line that is nothing but an empty word goes."""

    def lines() -> Iterator[str]:
        for line in text.splitlines():
            filled = re.sub(r"@([A-Z]+)@", lambda m: words[m[1]], line)
            if filled or not line:
                yield f"{filled}\n"

    return "".join(lines())


def _addresses(name: str, host: str, look_up: LookUp, warnings: list[str]) -> list[str]:
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        pass
    try:
        found = look_up(host)
    except OSError as error:
        warnings.append(
            f"camera {name}: {host} cannot be looked up ({error.strerror or error}), so nothing is"
            " reached: give its address in place of the name, and run this again"
        )
        return []
    warnings.append(
        f"camera {name}: {host} is {', '.join(found)} now and is kept so: give the camera a fixed"
        " address, and run this again when it has another"
    )
    return found


def _credential(camera: Device, warnings: list[str]) -> str:
    """What `LoadCredential=` says, empty where there is nothing to hand over."""
    file = getattr(camera.settings, "credentials_file", None)
    if file is None:
        return ""
    if file.parent.name != credentials.FOLDER:
        warnings.append(
            f"camera {camera.id}: {file} has to be readable for user hearing-room-senses; better"
            f" move it to {HOSTS.parent / credentials.FOLDER}, which is root's alone"
        )
        return ""
    if not _PLAIN.fullmatch(str(file)):
        raise ConfigError(
            f"camera.{camera.id}.credentials_file: {file}: name it with letters, digits and ._-"
        )
    return f"{credentials.FOLDER}_{file.name}:{file}"


def run(config: Path, templates: Path, output: Path) -> int:
    """Write what a file needs into a folder; nothing where there is no file."""
    if not config.exists():
        return 0
    written = write(settings.load(config), templates)
    for name, text in written.files.items():
        (output / name).write_text(text)
    for warning in written.warnings:
        print(warning, file=sys.stderr)
    return 0
