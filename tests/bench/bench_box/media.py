"""What the USB webcam shows and the microphones hear: drawn once, when the image is built.

A drawn room with what a real picture has: a lens that is not quite sharp, light that falls off
towards the corners, surfaces that are not plain, people who move a little, and a sensor whose noise
is different in every picture. Faults are made where they arise: defocus before the noise of the
sensor, darkness before it too, a torn picture after the compression.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Light = NDArray[np.float32]

FORMATS: dict[str, tuple[tuple[int, int], ...]] = {
    "YUYV": ((640, 480),),
    "MJPG": ((1280, 720), (640, 480)),
}
"""As the webcam of `bench_hands` offers them."""
RATE = 48_000
_QUALITY = 85
_LENS = 0.7  # standard deviation of the blur of a good lens, in pixels
_NOISE = 2.0  # of the sensor in a lit room, in grey levels
_LOOP = 24  # pictures until a scene begins again
_BROAD, _TALL = 1.5, 1.2  # the room is drawn larger than it is seen, so that the camera can turn


def make(folder: Path) -> None:
    """Writes `pictures.json`, the pictures and the sounds."""
    folder.mkdir(parents=True, exist_ok=True)
    index: dict[str, list[int]] = {}
    for fourcc, sizes in FORMATS.items():
        for size in sizes:
            for mode, shown in _modes(size).items():
                key = f"{mode}-{fourcc}-{size[0]}x{size[1]}"
                pictures = [_encode(picture, fourcc) for picture in shown]
                index[key] = [len(p) for p in pictures]
                (folder / f"{key}.bin").write_bytes(b"".join(pictures))
    (folder / "pictures.json").write_text(json.dumps(index))
    for name, sound in _sounds().items():
        samples = np.clip(sound, -1, 1) * 32_767
        (folder / f"{name}.pcm").write_bytes(samples.astype("<i2").tobytes())


# -- pictures -----------------------------------------------------------------------------------


def _modes(size: tuple[int, int]) -> dict[str, Iterator[Picture]]:
    dice = np.random.default_rng(2026)
    width, height = size
    room = _room(width, height)

    def seen(
        change: Callable[[Light], Light] = lambda light: light,
        *,
        noise: float = _NOISE,
        turned: float = 0.0,
        tilted: float = 0.0,
        count: int = _LOOP,
    ) -> Iterator[Picture]:
        left, top = int((0.1 + turned) * width), int((0.05 + tilted) * height)
        for number in range(count):
            light = _with_people(room, number / count)[top : top + height, left : left + width]
            light = cv2.GaussianBlur(light, (0, 0), _LENS)
            yield _sensor(change(light), noise, dice)

    def out_of_focus(light: Light) -> Light:
        return np.asarray(cv2.GaussianBlur(light, (0, 0), height / 50), np.float32)

    flat = np.zeros((height, width, 3), np.float32)
    return {
        "live": seen(),
        "dark": seen(lambda light: 0.05 * light, count=12),
        "blur": seen(out_of_focus, count=12),
        "moved": seen(turned=0.3, tilted=0.1),  # somebody bumped into the camera
        # A sensor that dies, or whose gain runs away: the room is still there behind it.
        "noise": seen(noise=30.0, count=12),
        "covered": (_sensor(_hand(width, height), _NOISE, dice) for _ in range(12)),
        # A shutter, or a lens cap: the webcam's own processing leaves nothing of the noise.
        "black": iter([np.full((height, width, 3), 2, np.uint8)]),
        "white": (_sensor(flat + 262, _NOISE, dice) for _ in range(6)),
    }


def _room(width: int, height: int) -> Light:
    """An empty hearing room, larger than the picture."""
    w, h = int(width * _BROAD), int(height * _TALL)
    room = np.empty((h, w, 3), np.float32)
    room[:] = (188, 196, 202)  # the wall
    room[int(0.62 * h) :] = (74, 92, 112)  # the floor
    dice = np.random.default_rng(7)
    for cells, depth in ((8, 5.0), (40, 3.0)):  # plaster and wood are not plain
        spots = dice.normal(0, depth, (max(2, cells * h // w), cells, 1)).astype(np.float32)
        room += cv2.resize(spots, (w, h), interpolation=cv2.INTER_CUBIC)[..., None]

    def box(x: float, y: float, wide: float, tall: float, colour: tuple[int, int, int]) -> None:
        first, last = (int(x * w), int(y * h)), (int((x + wide) * w), int((y + tall) * h))
        cv2.rectangle(room, first, last, colour, -1)
        cv2.rectangle(room, first, last, tuple(0.6 * c for c in colour), max(1, h // 240))

    box(0.03, 0.12, 0.11, 0.56, (52, 78, 110))  # a door
    box(0.18, 0.10, 0.10, 0.30, (214, 208, 190))  # a notice board
    for line in range(6):
        box(0.19, 0.13 + 0.04 * line, 0.075, 0.008, (90, 90, 90))
    box(0.40, 0.52, 0.34, 0.16, (40, 62, 100))  # the bench of the panel
    for seat in range(3):
        box(0.43 + 0.11 * seat, 0.34, 0.06, 0.18, (30, 40, 56))  # chairs
    for x, y, wide, tall in (
        (0.08, 0.80, 0.20, 0.20),  # desks, and who sits where differs from room to room
        (0.33, 0.72, 0.12, 0.13),
        (0.62, 0.78, 0.25, 0.20),
        (0.90, 0.70, 0.08, 0.22),
    ):
        box(x, y, wide, tall, (58, 86, 128))
        box(x + 0.02, y + 0.02, wide / 3, tall / 2, (168, 176, 180))  # papers
    box(0.82, 0.10, 0.15, 0.42, (232, 226, 214))  # a window with its bars
    for bar in range(4):
        box(0.85 + 0.03 * bar, 0.10, 0.006, 0.42, (96, 92, 90))
    crest = (int(0.57 * w), int(0.17 * h))
    cv2.circle(room, crest, h // 12, (40, 60, 200), -1)
    cv2.circle(room, crest, h // 12, (60, 200, 230), max(1, h // 120))
    sign = np.zeros((h, w), np.uint8)
    cv2.putText(sign, "PHONG 1", (int(0.30 * w), int(0.2 * h)), 0, h / 420, (255,), 2)
    room[sign > 127] = (40, 44, 60)
    across = np.linspace(-1, 1, w, dtype=np.float32)[None, :, None]
    down = np.linspace(-1, 1, h, dtype=np.float32)[:, None, None]
    # Lamps, and daylight from the right.
    room *= 0.88 - 0.16 * (across * across + 0.7 * down * down) + 0.08 * across
    return room


def _with_people(room: Light, phase: float) -> Light:
    """The room with three people who sway as the loop goes round."""
    picture = room.copy()
    height, width = room.shape[:2]
    for number in range(3):
        sway = 0.006 * np.sin(2 * np.pi * (phase + number / 3))
        x, y = int((0.46 + 0.11 * number + sway) * width), int((0.40 - sway) * height)
        size = height // 17
        cv2.ellipse(picture, (x, y + 2 * size), (2 * size, 2 * size), 0, 180, 360, (44, 40, 46), -1)
        cv2.circle(picture, (x, y), size, (120, 150, 188), -1, cv2.LINE_AA)
        cv2.circle(picture, (x, y - size // 2), size * 3 // 4, (30, 34, 42), -1, cv2.LINE_AA)
        cv2.circle(picture, (x, y + size // 6), size * 2 // 3, (120, 150, 188), -1, cv2.LINE_AA)
    return picture


def _hand(width: int, height: int) -> Light:
    """A hand on the lens: dim, reddish, without any outline."""
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :, None]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None, None]
    return (30 + 14 * x - 8 * y) * np.array([0.8, 0.9, 1.4], np.float32)


def _sensor(light: Light, noise: float, dice: np.random.Generator) -> Picture:
    """Light -> a picture: every pixel of every picture has noise of its own."""
    grain = dice.normal(0, noise, light.shape).astype(np.float32)
    return np.clip(np.round(light + grain), 0, 255).astype(np.uint8)


def _encode(picture: Picture, fourcc: str) -> bytes:
    if fourcc == "MJPG":
        done, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        assert done
        return bytes(data)
    # Of 16 to 235, as webcams send it.
    return bytes(cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_YUY2).tobytes())


# -- sounds -------------------------------------------------------------------------------------


def _sounds() -> dict[str, NDArray[np.float64]]:
    """Each some seconds of mono, to be played round and round; full scale is 1."""
    dice = np.random.default_rng(2026)
    t = np.arange(6 * RATE) / RATE
    floor = 0.0006 * dice.standard_normal(len(t))  # a quiet room
    speech = _speech(t, dice) + floor
    return {
        "live": speech,
        "silence": np.zeros(RATE),
        "tone": 0.2 * np.sin(2 * np.pi * 440 * t) + floor,
        "clip": 40 * speech,
        "noise": 0.05 * dice.standard_normal(len(t)),
        "hum": speech + sum(0.06 / n * np.sin(2 * np.pi * 50 * n * t) for n in range(1, 6)),
    }


def _speech(t: NDArray[np.float64], dice: np.random.Generator) -> NDArray[np.float64]:
    """What has the rhythm of speech: a voice in syllables, with pauses between phrases."""
    pitch = 2 * np.pi * np.cumsum(130 + 18 * np.sin(2 * np.pi * 0.5 * t)) / RATE
    voice = sum(np.sin(n * pitch + n) / n**1.2 for n in range(1, 24))
    syllables = np.clip(np.sin(2 * np.pi * 3.7 * t + np.sin(2 * np.pi * 0.4 * t)), 0, 1) ** 0.7
    phrases = (np.sin(2 * np.pi * t / 3 + 0.6) > -0.45).astype(float)
    smooth = np.hanning(RATE // 12)
    phrases = np.convolve(phrases, smooth / smooth.sum(), "same")
    hiss = 0.15 * dice.standard_normal(len(t)) * (np.sin(2 * np.pi * 1.9 * t) > 0.9)
    return np.asarray(0.055 * (voice + hiss) * syllables * phrases, np.float64)
