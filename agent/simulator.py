"""A virtual room: a clip, a sound and a display that stand in for hardware that is not there.

They are data, judged by the same code as the real thing: the camera is a clip that a worker plays,
the microphone a recording, the display a tree of files as the kernel would show it. `try` uses
them, and so does whoever wants to show a fault or report one.

`python -m agent.simulator FOLDER [--camera FAULT] [--microphone FAULT] [--display FAULT]` makes
them; it runs as a process of its own, because drawing a clip needs libraries that the agent never
loads.
"""

from __future__ import annotations

import argparse
import math
import random
import struct
import sys
import wave
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

CAMERA_FAULTS = ("none", "frozen", "black")
MICROPHONE_FAULTS = ("none", "silent")
DISPLAY_FAULTS = ("none", "absent")
CONNECTOR = "HDMI-A-1"
WIDTH, HEIGHT, FPS, SECONDS = 640, 360, 15, 8
RATE = 16_000


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the virtual room in a folder."""
    parser = argparse.ArgumentParser(prog="python -m agent.simulator", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--camera", choices=CAMERA_FAULTS, default="none")
    parser.add_argument("--microphone", choices=MICROPHONE_FAULTS, default="none")
    parser.add_argument("--display", choices=DISPLAY_FAULTS, default="none")
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    make_clip(options.folder / "camera.avi", options.camera)
    make_sound(options.folder / "microphone.wav", options.microphone)
    make_display(options.folder / "root", connected=options.display == "none")
    return 0


def make_clip(path: Path, fault: str = "none") -> None:
    """A Motion JPEG clip of a drawn hearing room, 640 x 360 at 15 pictures a second, 8 s.

    Replaces what was there in one step, so that a player sees the old clip or the new one.
    """
    import cv2

    fresh = path.with_name(f".{path.name}.avi")
    code = cv2.VideoWriter.fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(fresh), code, FPS, (WIDTH, HEIGHT))
    for frame in _frames(fault):
        writer.write(frame)
    writer.release()
    fresh.replace(path)


def _frames(fault: str) -> Iterator[Any]:
    import numpy as np

    dice = np.random.default_rng(2026)
    room = _draw_room()
    held = None
    for number in range(FPS * SECONDS):
        if fault == "black":
            yield np.zeros_like(room)
            continue
        picture = room.astype(np.int16)
        _add_person(picture, number)
        picture += dice.normal(0, 3, picture.shape).astype(np.int16)  # the sensor's own noise
        frame = np.clip(picture, 0, 255).astype(np.uint8)
        held = frame if held is None else held
        yield held if fault == "frozen" else frame


def _draw_room() -> Any:
    """A wall, a bench, a window, a flag of the room's colours; enough edges to be in focus."""
    import cv2
    import numpy as np

    shade = np.linspace(150, 110, HEIGHT, dtype=np.float32)[:, None]
    room = np.repeat(shade, WIDTH, axis=1)[..., None].repeat(3, axis=2)
    room *= np.array([0.85, 0.95, 1.0], np.float32)
    room = room.astype(np.uint8)
    cv2.rectangle(room, (430, 40), (590, 170), (215, 220, 210), -1)
    cv2.line(room, (510, 40), (510, 170), (90, 80, 70), 4)
    cv2.rectangle(room, (40, 230), (600, 340), (45, 70, 110), -1)
    for x in range(40, 600, 28):
        cv2.line(room, (x, 230), (x, 340), (35, 55, 90), 2)
    cv2.rectangle(room, (60, 50), (190, 150), (70, 60, 160), -1)
    cv2.putText(room, "VIRTUAL", (72, 108), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (235, 235, 235), 2)
    return room


def _add_person(picture: Any, number: int) -> None:
    """Somebody who sits and sways a little: a live picture is never quite still."""
    import cv2

    sway = round(4 * math.sin(2 * math.pi * number / (FPS * SECONDS)))
    cv2.ellipse(picture, (320 + sway, 250), (70, 70), 0, 180, 360, (60, 55, 50), -1)
    cv2.circle(picture, (320 + sway, 150), 34, (120, 150, 190), -1)


def make_sound(path: Path, fault: str = "none") -> None:
    """A recording of a live, quiet room: 8 s, 16 kHz, mono, 16-bit, about -55 dBFS of air."""
    dice = random.Random(2026)  # noqa: S311 (noise, not a secret)
    low = 0.0
    samples = []
    for number in range(RATE * SECONDS):
        low += 0.1 * (dice.gauss(0, 1) - low)
        breath = 1 + 0.3 * math.sin(2 * math.pi * number / (RATE * 3.7))
        air = 190 * low * breath + 18 * dice.gauss(0, 1)
        samples.append(0 if fault == "silent" else round(air))
    fresh = path.with_name(f".{path.name}")
    with wave.open(str(fresh), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(struct.pack(f"<{len(samples)}h", *samples))
    fresh.replace(path)


def make_display(root: Path, *, connected: bool = True) -> None:
    """The tree that the kernel would show for one HDMI connector, with its display or without."""
    folder = root / f"sys/class/drm/card1-{CONNECTOR}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "status").write_text("connected\n" if connected else "disconnected\n")
    (folder / "enabled").write_text("enabled\n" if connected else "disabled\n")
    (folder / "dpms").write_text("On\n" if connected else "Off\n")
    (folder / "modes").write_text("1920x1080\n1280x720\n" if connected else "")
    (folder / "edid").write_bytes(_edid() if connected else b"")


def _edid() -> bytes:
    """A base EDID block (VESA E-EDID 1.4) of a display that says it is virtual."""
    letters = [ord(c) - 64 for c in "VRM"]
    maker = letters[0] << 10 | letters[1] << 5 | letters[2]
    head = bytes.fromhex("00ffffffffffff00") + struct.pack(">H", maker)
    head += struct.pack("<HIBB", 1, 2026, 1, 36)  # product, serial, week, year from 1990
    head += bytes.fromhex("0104a53c22783a")  # version 1.4, digital, 60 x 34 cm, gamma 2.2
    head += bytes(10) + bytes.fromhex("210800") + bytes.fromhex("0101") * 8
    timing = bytes.fromhex("023a801871382d40582c450055502100001e")  # 1920x1080 at 60 Hz (CTA-861)
    name = b"\x00\x00\x00\xfc\x00" + b"VIRTUAL ROOM\n".ljust(13)[:13]
    spare = b"\x00\x00\x00\x10" + bytes(14)
    block = head + timing + name + spare * 2 + b"\x00"
    return block + bytes([-sum(block) % 256])


if __name__ == "__main__":
    sys.exit(main())
