"""A camera in the worker: opens it, looks, and answers in numbers.

The only file of the kind that needs OpenCV, which is imported when a `Driver` is made.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from agent import clock
from agent.credentials import where
from agent.kinds.camera import controls, nodes
from agent.kinds.camera import source as sources
from agent.kinds.camera.settings import Settings
from agent.kinds.camera.source import Scheme
from agent.model import Fault, Reading, Scalar

if TYPE_CHECKING:
    from agent.kinds.camera.capture import About
    from agent.kinds.camera.frames import Frame

_SPARE_S = 0.7
"""Kept of the deadline for judging and answering, so that silence is told and not waited out."""
_ENVIRONMENT = {
    # Their messages name files and addresses, passwords included.
    "OPENCV_LOG_LEVEL": "SILENT",
    "OPENCV_FFMPEG_LOGLEVEL": "-8",
}


def prepare() -> None:
    """Imports OpenCV, NumPy and what is built on them, and runs it once; opens no device."""
    for name, value in _ENVIRONMENT.items():
        os.environ[name] = value
    import cv2

    cv2.setNumThreads(1)
    from agent.kinds.camera import analysis, capture

    if not _ready:
        _ready.append(capture)
        analysis.rehearse()


_ready: list[object] = []


class Driver:
    """Looks at one camera. Blocking: whoever asks has a deadline and may end the process."""

    def __init__(self, settings: Settings, root: Path = Path("/")) -> None:
        prepare()
        self._settings = settings
        self._root = root
        self._source = settings.where()

    def read(self, question: str) -> Reading:
        """One look. `whole` reads a file to its end; of any other source it is a `look`."""
        from agent.kinds.camera.capture import About, Failed

        asked, started = clock.up_s(), time.monotonic()
        about = About()
        values: dict[str, Scalar] = {}
        reading = Reading(asked_s=asked, active=self._source.scheme is not Scheme.FILE)
        try:
            reading = self._look(question, about, started)
        except Failed as failed:
            values.update(about.controls)
            if failed.errno is not None:
                values["errno"] = failed.errno
            reading = Reading(
                values=values,
                fault=failed.fault,
                why=failed.why,
                identity=about.identity,
                active=failed.fault is not Fault.ABSENT,
            )
        return replace(reading, asked_s=asked, took_s=time.monotonic() - started)

    def _look(self, question: str, about: About, started: float) -> Reading:
        from agent.kinds.camera.analysis import Look
        from agent.kinds.camera.capture import Failed

        look = Look(live=self._source.scheme is not Scheme.FILE)
        count = 0
        for frame in self._frames(question, about, started):
            look.add(frame)
            count += 1
        if not count:
            fault = Fault.ERROR if self._source.scheme is Scheme.FILE else Fault.NO_ANSWER
            raise Failed(fault, "bad_file" if fault is Fault.ERROR else "no_frame")
        values = {**look.values(about), **about.controls}
        usual, asked = self._settings.baseline_fingerprint, question == "baseline"
        view = look.fingerprint() if asked or usual is not None else None
        if view is not None and usual is not None:
            values["view_distance"] = round(view.distance(usual), 2)
        return Reading(
            values=values,
            identity=about.identity,
            fingerprint=view.values if view is not None and asked else (),
            active=True,
        )

    def _frames(self, question: str, about: About, started: float) -> Iterator[Frame]:
        from agent.kinds.camera import capture

        until_s = started + max(self._settings.deadline_s - _SPARE_S, self._settings.deadline_s / 2)
        look_s = self._settings.look_s
        if self._source.scheme is Scheme.FILE:
            path = Path(self._source.target)
            if question == "whole":
                return capture.whole_file(path, about)
            return capture.paced_file(path, about, look_s)
        if self._source.on_network:
            live = capture.network(self._url(), about, until_s, look_s)
        else:
            live = self._device(about, until_s, look_s)
        return capture.settled(live, look_s)

    def _url(self) -> str:
        from agent.kinds.camera.capture import Failed

        path = self._settings.credentials_file
        if path is None:
            return self._source.target
        try:
            credentials = where(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise Failed(Fault.ERROR, "not_permitted") from None
        return sources.with_credentials(self._source.target, credentials)

    def _device(self, about: About, until_s: float, look_s: float) -> Iterator[Frame]:
        from agent.kinds.camera import capture

        for device in nodes.usb_devices(self._source, self._root):
            if nodes.streaming(device):  # somebody streams: do not even open it
                raise capture.Failed(Fault.BUSY, "held")
        paths = nodes.candidates(self._source, self._root)
        camera, path = capture.open_node(paths, about)
        with camera:
            s = self._settings
            about.controls = controls.apply(camera, s.controls)
            try:
                chosen = capture.choose(camera, s.width, s.height, s.fps)
            except OSError as error:
                raise capture.from_errno(error.errno) from None
            yield from capture.node(camera, path, chosen, about, until_s, look_s)
