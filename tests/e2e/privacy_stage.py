"""What the privacy tests stand on: a picture and a sound that carry a secret, every form in which
the secret could turn up again, and a search through everything that was written or said."""

from __future__ import annotations

import base64
import contextlib
import ctypes
import json
import os
import re
import shutil
import sqlite3
import stat
import struct
import tempfile
import time
import wave
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import paho.mqtt.client as mqtt

WINDOW = 32
"""Bytes of a secret that are looked for at once: no chance finds them."""
RATE = 16_000
OUTSIDE = (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"))
"""Where programs leave things when nobody tells them where."""
LARGEST = 16 << 20
"""Of a file out there, where others work too: a core of ours would fall elsewhere."""
ROOT = Path("/")
_PIECE = 16 << 20
_WORD = re.compile(rb"[A-Za-z0-9+/=_-]{65,}")
_NUMBERS = re.compile(rb"(?:[-+]?\d+(?:\.\d+)?(?:e-?\d+)?[\s,;|]+){12,}")


# -- the secret -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Secret:
    """A piece of a picture or a sound; `numbers` are the points or samples that it is made of."""

    data: bytes
    numbers: tuple[int, ...] = ()


def marked_clip(path: Path, seconds: float = 4.0) -> dict[str, Secret]:
    """A Motion JPEG clip with a hidden sheet in it: blocks like those of a QR code, and below them
    points of chance. Gives the secrets: the file's own bytes, and what a reader decodes."""
    dice = np.random.default_rng(int.from_bytes(os.urandom(8)))
    blocks = np.kron(dice.integers(0, 2, (8, 24)) * 200 + 20, np.ones((8, 8))).astype(np.uint8)
    points = dice.integers(0, 255, (64, 192), np.uint8)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 15, (640, 360))
    for number in range(round(15 * seconds)):
        view = np.full((360, 640, 3), (90, 120, 140), np.uint8)
        cv2.circle(view, (150 + number, 200), 60, (60, 70, 160), -1)
        view = np.clip(view + dice.normal(0, 2, (360, 640, 1)), 0, 255).astype(np.uint8)
        view[40:104, 400:592] = blocks[..., None]
        view[104:168, 400:592] = points[..., None]
        writer.write(view)
    writer.release()
    raw = path.read_bytes()
    secrets = {
        "file": _plain(raw[len(raw) // 2 :]),
        "file, later": _plain(raw[len(raw) // 4 * 3 :]),
    }
    source = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    for number in range(2):  # sensor noise and rounding differ from picture to picture
        _, shown = source.read()
        grey = cv2.cvtColor(shown, cv2.COLOR_BGR2GRAY)
        half = cv2.resize(grey, (320, 180), interpolation=cv2.INTER_AREA)
        secrets |= {
            f"blocks {number}": _points(grey[60, 448:]),
            f"points {number}": _points(grey[140, 448:]),
            f"points {number}, colour": _points(shown[140, 448:].ravel()),
            f"points {number}, small": _points(half[70, 224:]),
        }
    source.release()
    return secrets


def marked_sound(path: Path, seconds: float = 4.0) -> dict[str, Secret]:
    """A recording whose samples hide a message: a tone with a known sequence on top of it."""
    dice = np.random.default_rng(int.from_bytes(os.urandom(8)))
    time_s = np.arange(round(RATE * seconds)) / RATE
    tone = 6_000 * np.sin(2 * np.pi * 440 * time_s)
    message = np.resize(dice.integers(-3_000, 3_000, RATE // 4), len(time_s))
    samples = np.asarray(tone + message, "<i2")
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(samples.tobytes())
    part = samples[RATE : RATE + WINDOW // 2]
    return {
        "samples": Secret(part.tobytes(), tuple(part.tolist())),
        "samples, swapped": Secret(part.astype(">i2").tobytes()),
        "samples, floating": Secret((part / 32_768).astype("<f4").tobytes()),
    }


def _plain(raw: bytes) -> Secret:
    return Secret(raw[:WINDOW])


def _points(row: np.ndarray) -> Secret:  # type: ignore[type-arg]
    return Secret(row[:WINDOW].tobytes(), tuple(row[:WINDOW].tolist()))


def forms(secrets: Mapping[str, Secret]) -> dict[str, bytes]:
    """Every form in which a secret is looked for -> its bytes."""
    found: dict[str, bytes] = {}
    for name, secret in secrets.items():
        ways = {"raw": secret.data} | _texts(secret.data) | _lists(list(secret.data))
        if secret.numbers:
            ways |= {f"numbers, {k}": v for k, v in _lists(list(secret.numbers)).items()}
            for full in (255, 32_768):
                shares = _lists([round(n / full, 3) for n in secret.numbers])
                ways |= {f"shares of {full}, {k}": v for k, v in shares.items()}
        found |= {f"{name}: {way}": needle for way, needle in ways.items()}
    return found


def _texts(data: bytes) -> dict[str, bytes]:
    texts = {
        "hex": data.hex().encode(),
        "HEX": data.hex().upper().encode(),
        "hex with spaces": data.hex(" ").encode(),
        "Python": repr(data)[2:-1].encode(),
        "JSON": json.dumps(data.decode("latin-1"))[1:-1].encode(),
        "UTF-8": data.decode("latin-1").encode(),
    }
    # What stands before it moves the letters: every alignment is another text.
    for shift in range(3):
        plain = base64.b64encode(data[shift:])[:-4]
        texts[f"base64+{shift}"] = plain
        texts[f"base64url+{shift}"] = plain.translate(bytes.maketrans(b"+/", b"-_"))
    for shift in range(4):
        texts[f"base85+{shift}"] = base64.b85encode(data[shift : shift + 24])
    for shift in range(5):
        texts[f"base32+{shift}"] = base64.b32encode(data[shift : shift + 25])
    return texts


def _lists(numbers: list[int] | list[float]) -> dict[str, bytes]:
    between = {"commas": ",", "commas and spaces": ", ", "spaces": " ", "lines": "\n"}
    return {k: mark.join(map(str, numbers)).encode() for k, mark in between.items()}


def hidden_in(data: bytes, needles: Mapping[str, bytes]) -> list[str]:
    """The forms that are in there."""
    return [name for name, needle in needles.items() if needle in data]


def long_runs(text: bytes, known: Iterable[str] = ()) -> list[str]:
    """Words longer than the longest that may be said, and rows of a dozen numbers: whatever they
    are, a picture or a sound could be in them. `known` are paths of the test itself."""
    for word in known:
        text = text.replace(word.encode(), b"")
    found = [m[0][:80].decode("ascii", "replace") for m in _WORD.finditer(text)]
    return found + [m[0][:80].decode("ascii", "replace") for m in _NUMBERS.finditer(text)]


# -- where it could have gone ---------------------------------------------------------------------


class Tap:
    """Every message of a broker, raw."""

    def __init__(self, port: int) -> None:
        self.said: list[tuple[str, bytes]] = []
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv311)
        self._client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self._client.on_message = lambda _c, _d, m: self.said.append((m.topic, m.payload))
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def publish(self, topic: str, payload: bytes) -> None:
        self._client.publish(topic, payload, qos=1).wait_for_publish(10)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class Births:
    """Names that appear in some folders, also of what is gone again at once: inotify(7)."""

    _CREATE, _MOVED_TO = 0x100, 0x80

    def __init__(self, *folders: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert self._fd >= 0
        self._folders: dict[int, Path] = {}
        for folder in folders:
            mask = self._CREATE | self._MOVED_TO
            self._folders[libc.inotify_add_watch(self._fd, os.fsencode(folder), mask)] = folder
        self._seen: set[Path] = set()

    @property
    def seen(self) -> set[Path]:
        """All that was born since the start."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._fd, 65_536):
                while data:
                    watch, _, _, size = struct.unpack_from("iIII", data)
                    name = data[16 : 16 + size].rstrip(b"\0").decode()
                    self._seen.add(self._folders[watch] / name)
                    data = data[16 + size :]
        return set(self._seen)

    def close(self) -> None:
        os.close(self._fd)


class Search:
    """Looks for the secret in folders, in messages, in a database, and in what is new in the
    places of `OUTSIDE` and at the root since it was made."""

    def __init__(self, needles: Mapping[str, bytes], inside: Path, sources: Path) -> None:
        self.needles = dict(needles)
        self._inside = inside
        self._sources = sources  # the clips themselves
        self._since_s = time.time() - 1

    def files(self) -> list[Path]:
        """Every file that belongs to the test, and every one that is new outside."""
        inside = [p for p in self._inside.rglob("*") if self._sources not in p.parents]
        outside = list(ROOT.iterdir())  # a worker lives at the root: its core would fall there
        for folder in OUTSIDE:
            outside += [p for p in _walk(folder) if self._inside not in p.parents]
        found = [p for p in inside if self._is_file(p, float("-inf"))]
        return found + [p for p in outside if self._is_file(p, self._since_s)]

    def _is_file(self, path: Path, since_s: float) -> bool:
        """Whether it is a file, and as new as that; what cannot be seen belongs to others."""
        try:
            info = path.lstat()
        except OSError:
            return False
        ours = path.parent == ROOT or self._inside in path.parents
        small = ours or info.st_size < LARGEST
        return stat.S_ISREG(info.st_mode) and small and info.st_mtime >= since_s

    def in_files(self) -> dict[str, list[str]]:
        """File -> forms of the secret in it. Files of others may vanish meanwhile."""
        found: dict[str, set[str]] = {}
        longest = max(map(len, self.needles.values()))
        for path in self.files():
            before = b""
            with contextlib.suppress(FileNotFoundError, PermissionError), path.open("rb") as file:
                while piece := file.read(_PIECE):
                    if names := hidden_in(before + piece, self.needles):
                        found.setdefault(str(path), set()).update(names)
                    before = piece[-longest:]
        return {path: sorted(names) for path, names in found.items()}

    def in_messages(self, tap: Tap) -> dict[str, list[str]]:
        """Topic -> forms of the secret in what was said there."""
        found: dict[str, list[str]] = {}
        for topic, payload in list(tap.said):
            if names := hidden_in(topic.encode() + b" " + payload, self.needles):
                found.setdefault(topic, []).extend(names)
        return found


def _walk(folder: Path, deep: int = 2) -> Iterator[Path]:
    """What lies in a folder and in the folders in it: deeper, programs build what they were told
    to."""
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        if not entry.is_dir(follow_symlinks=False):
            yield Path(entry.path)
        elif deep > 1 and not entry.name.startswith("pytest-of-"):  # other tests
            yield from _walk(Path(entry.path), deep - 1)


def cells(database: Path) -> Iterator[tuple[str, bytes]]:
    """Table and content of every cell of an SQLite file, its WAL included; it is copied first."""
    with tempfile.TemporaryDirectory() as folder:
        for path in database.parent.glob(database.name + "*"):
            shutil.copy(path, folder)
        db = sqlite3.connect(Path(folder) / database.name)
        with contextlib.closing(db):
            tables = [n for (n,) in db.execute("SELECT name FROM sqlite_master WHERE type='table'")]
            for table in tables:
                for row in db.execute(f'SELECT * FROM "{table}"'):
                    yield from ((table, _bytes(cell)) for cell in row)


def _bytes(cell: object) -> bytes:
    return cell if isinstance(cell, bytes) else str(cell).encode()


# -- processes ------------------------------------------------------------------------------------


def in_memory(pid: int, needles: Mapping[str, bytes]) -> set[str]:
    """The forms of the secret in the memory of a process. Raises `PermissionError`."""
    taken: list[bytes] = []  # all of it first: a picture does not stay for long
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in lines:
            span, rights, *_ = line.split()
            if rights.startswith("rw"):
                first, last = (int(n, 16) for n in span.split("-"))
                with contextlib.suppress(OSError, OverflowError):
                    memory.seek(first)
                    taken.append(memory.read(last - first))
    return {name for data in taken for name in hidden_in(data, needles)}


def written(pid: int) -> dict[str, int]:
    """/proc/PID/io. Raises `PermissionError`."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return {key: int(value) for key, _, value in (line.partition(": ") for line in lines)}


def open_for_writing(pid: int) -> set[str]:
    """What a process has open so that it could write to it. Raises `PermissionError`."""
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            flags = Path(f"/proc/{pid}/fdinfo/{entry.name}").read_text()
            mode = int(flags.partition("flags:")[2].split()[0], 8) & os.O_ACCMODE
            if mode != os.O_RDONLY:
                found.add(str(entry.readlink()))
    return found
