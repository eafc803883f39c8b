"""Rooms that are drawn, and the clips that a camera in them would send."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

WIDTH, HEIGHT, FPS = 640, 360, 15


def room(seed: int = 1, at: int = 0, width: int = WIDTH, height: int = HEIGHT) -> Picture:
    """A wall with things on it, a table, and one person who moves a little with `at`."""
    dice = np.random.default_rng(seed)
    scale = height / 360
    light = (
        np.linspace(0.85, 1.1, width)[None, :, None]
        * np.linspace(1.05, 0.85, height)[:, None, None]
    )
    view = np.clip(light * dice.uniform(110, 170, 3), 0, 255).astype(np.uint8)
    view[int(height * 0.7) :] = view[int(height * 0.7) :] // 2
    for _ in range(9):
        x, y = int(dice.uniform(0, 0.85) * width), int(dice.uniform(0, 0.75) * height)
        w, h = int(dice.uniform(0.06, 0.2) * width), int(dice.uniform(0.08, 0.25) * height)
        colour = dice.uniform(20, 235, 3).tolist()
        cv2.rectangle(view, (x, y), (x + w, y + h), colour, -1)
        for line in range(y + 6, y + h - 3, 8):
            length = int(w * dice.uniform(0.3, 0.9))
            cv2.line(
                view, (x + 4, line), (x + length, line + 2), dice.uniform(0, 255, 3).tolist(), 1
            )
    edge = 0
    while edge < width:  # a shelf with books across the room
        book = int(dice.uniform(6, 16) * scale)
        top = int(height * dice.uniform(0.4, 0.44))
        colour = dice.uniform(20, 220, 3).tolist()
        cv2.rectangle(view, (edge, top), (edge + book, int(height * 0.56)), colour, -1)
        edge += book + int(dice.uniform(0, 6) * scale)
    cv2.putText(
        view, f"PHONG {seed}", (int(width * 0.1), int(height * 0.14)), 0, scale, (30, 30, 60), 2
    )
    x, y = int(width * 0.5 + 14 * scale * np.sin(at / 5)), int(height * 0.6)
    cv2.ellipse(
        view,
        (x, y + int(70 * scale)),
        (int(60 * scale), int(80 * scale)),
        0,
        0,
        360,
        (70, 50, 60),
        -1,
    )
    cv2.circle(view, (x, y - int(20 * scale)), int(32 * scale), (125, 150, 205), -1)
    for side in (-11, 11):
        cv2.circle(
            view,
            (x + int(side * scale), y - int(26 * scale)),
            max(2, int(3 * scale)),
            (20, 20, 20),
            -1,
        )
    return view


def grain(view: Picture, sigma: float = 2.0, seed: int = 0) -> Picture:
    """The view with the noise of a sensor."""
    noise = np.random.default_rng(seed).normal(0, sigma, view.shape[:2])
    return np.clip(view + noise[..., None], 0, 255).astype(np.uint8)


def healthy(seconds: float = 4.0, seed: int = 1, fps: float = FPS) -> list[Picture]:
    """A live room: movement and noise."""
    return [grain(room(seed, at), seed=at) for at in range(int(seconds * fps))]


def empty(seconds: float = 4.0, seed: int = 1) -> list[Picture]:
    """The same room with nobody moving: only the noise is new."""
    return [grain(room(seed), seed=at) for at in range(int(seconds * FPS))]


def each(views: Sequence[Picture], change: Callable[[Picture], Picture]) -> list[Picture]:
    """Every picture changed."""
    return [np.ascontiguousarray(change(v)) for v in views]


def write(path: Path, views: Sequence[Picture], fps: float = FPS, fourcc: str = "MJPG") -> Path:
    """A clip, as MJPEG unless said otherwise."""
    height, width = views[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*fourcc), fps, (width, height))
    assert writer.isOpened()
    for view in views:
        writer.write(view)
    writer.release()
    return path
