"""How right the camera's judge is on the labelled clips, and what it costs.

    python tests/benchmarks/golden.py [--clips FOLDER] [--margins] [--cost]

Every clip goes through `Driver.read("whole")` with the size and rate that its label expects. Prints
per code precision and recall, macro-F1 and specificity on healthy clips; `--margins` adds the
nearest healthy and faulty clip of each limit, `--cost` the CPU of judging 720p pictures without
decoding them, and the peak memory of a worker at 1080p. Exit status 1 when macro-F1 < 0.95,
a healthy clip fails, or more than 2 % of them warn.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.kinds import camera
from agent.model import Level, Reading

CLIPS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "golden"
MARGINS: tuple[tuple[str, str, str, int], ...] = (
    # value, its limit, the code whose clips lie beyond it, and on which side (1 = above)
    ("flat_share", "no_signal_flat", "no_signal", 1),
    ("luma_spread", "black_spread", "black", -1),
    ("plain_share", "covered_share", "covered", 1),
    ("plain_softness", "covered_softness", "covered", -1),
    ("unchanged_s", "frozen_s", "frozen", 1),
    ("stuck_share", "stuck_share", "corrupted", 1),
    ("lost_channel_share", "lost_channel", "corrupted", 1),
    ("tint", "tint_above", "corrupted", 1),
    ("colour_shift", "colour_shift", "corrupted", 1),
    ("block_steps", "block_steps", "corrupted", 1),
    ("tear", "tear", "corrupted", 1),
    ("bright_share", "overexposed_share", "overexposed", 1),
    ("luma_mean", "underexposed_below", "underexposed", -1),
    ("edge_width", "blurred_above", "blurred", 1),
    ("edge_axis_width", "smeared_above", "blurred", 1),
    ("noise", "noisy_above", "noisy", 1),
    ("speckle_share", "speckle_above", "noisy", 1),
    ("fps", "low_fps_below", "low_fps", -1),
    ("fps_different", "low_fps_below", "low_fps", -1),
    ("flicker_pct", "flicker_above_pct", "flicker", 1),
)


@dataclass(slots=True)
class Clip:
    """One labelled clip, and what was said of it."""

    label: dict[str, Any]
    reading: Reading
    codes: list[str]
    levels: list[Level]

    @property
    def healthy(self) -> bool:
        return not self.label["findings"]


@dataclass(slots=True)
class Score:
    """What the clips come to. A code counts where it or one that its label accepts is given."""

    right: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    healthy: int = 0
    healthy_warned: int = 0
    healthy_failed: int = 0

    def add(self, clip: Clip) -> bool:
        """Counts one clip; whether it was right."""
        label = clip.label
        good = True
        for code in label["findings"]:
            found = code in clip.codes or any(a in clip.codes for a in label["accept"])
            (self.right if found else self.missed)[code] += 1
            good = good and found
        for code in clip.codes:
            if code not in (*label["findings"], *label["accept"], *label["tolerate"]):
                self.wrong[code] += 1
                good = False
        if clip.healthy:
            self.healthy += 1
            self.healthy_failed += any(level in _BAD for level in clip.levels)
            self.healthy_warned += Level.WARN in clip.levels
        return good

    def precision(self, code: str) -> float:
        given = self.right[code] + self.wrong[code]
        return self.right[code] / given if given else 0.0

    def recall(self, code: str) -> float:
        return self.right[code] / (self.right[code] + self.missed[code])

    def f1(self, code: str) -> float:
        p, r = self.precision(code), self.recall(code)
        return 2 * p * r / (p + r) if p + r else 0.0

    @property
    def codes(self) -> list[str]:
        return sorted(self.right.keys() | self.missed.keys())

    @property
    def macro_f1(self) -> float:
        return sum(map(self.f1, self.codes)) / max(1, len(self.codes))

    @property
    def enough(self) -> bool:
        few = self.healthy_warned <= 0.02 * self.healthy
        return self.macro_f1 >= 0.95 and not self.healthy_failed and few


_BAD = (Level.FAIL, Level.UNKNOWN)


def labels(folder: Path) -> list[dict[str, Any]]:
    """The labels of the camera clips of a folder."""
    lines = (folder / "labels.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines if line.strip()]
    return [r for r in rows if r["kind"] == "camera"]


def look(folder: Path, label: dict[str, Any]) -> Clip:
    """One clip, read whole as `check` does."""
    settings = camera.Settings(source=f"file:{folder / label['file']}", **label["expect"])
    reading = camera.Driver(settings).read("whole")
    found = camera.judge(reading, settings)
    return Clip(label, reading, [f.code for f in found], [f.level for f in found])


def clips(folder: Path) -> Iterator[Clip]:
    """All of them, one after the other."""
    return (look(folder, label) for label in labels(folder))


def margins(seen: Iterable[Clip]) -> Iterator[str]:
    """For each limit: how near healthy clips come, and what the faulty ones of its code have."""
    seen = list(seen)
    fields = camera.Settings.model_fields
    for key, limit, code, side in MARGINS:
        healthy = _values(seen, key, lambda c: c.healthy)
        faulty = _values(seen, key, lambda c, code=code: f"camera.{code}" in c.label["findings"])
        near = max(healthy, default=None) if side > 0 else min(healthy, default=None)
        beyond = sorted(faulty, reverse=side < 0)
        yield (
            f"{key:20s} limit {fields[limit].default:<6} nearest healthy {near!s:6s} "
            f"{code}: {', '.join(map(str, beyond))}"
        )


def _values(seen: list[Clip], key: str, which: Callable[[Clip], bool]) -> list[float]:
    found = [c.reading.values.get(key) for c in seen if which(c)]
    return [float(v) for v in found if v is not None and not isinstance(v, str)]


def judging_cost_ms(clip: Path, pictures: int = 90) -> float:
    """CPU milliseconds a picture, decoding excluded, one thread; the best of five runs."""
    camera.prepare()
    import cv2

    from agent.kinds.camera.analysis import Look
    from agent.kinds.camera.capture import About
    from agent.kinds.camera.frames import from_picture

    source = cv2.VideoCapture(str(clip), cv2.CAP_FFMPEG)
    fps = source.get(cv2.CAP_PROP_FPS)
    frames = [picture for _ in range(pictures) if (picture := source.read()[1]) is not None]
    best = float("inf")
    for _ in range(5):
        seen, started = Look(), time.process_time()
        for index, picture in enumerate(frames):
            seen.add(from_picture(picture, index / fps))
        seen.values(About())
        best = min(best, time.process_time() - started)
    return 1_000 * best / len(frames)


_PEAK = """
import resource, subprocess, sys
subprocess.run([sys.executable, "-m", "agent", "check", "--json", "camera:" + sys.argv[1]],
               stdout=subprocess.DEVNULL, check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def peak_memory_mib(clip: Path) -> float:
    """Peak resident memory of the worker that reads one clip whole, for `check`."""
    command = [sys.executable, "-c", _PEAK, str(clip)]
    run = subprocess.run(command, capture_output=True, check=True, timeout=120)
    return float(run.stdout) / 1_024  # the kernel counts KiB


def as_webcam(clip: Path, made: Path) -> Path:
    """The same pictures as MJPEG, which is what a webcam gives at this size."""
    import cv2

    source = cv2.VideoCapture(str(clip), cv2.CAP_FFMPEG)
    size = tuple(int(source.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    fourcc = cv2.VideoWriter.fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(made), fourcc, source.get(cv2.CAP_PROP_FPS), size)
    while (picture := source.read()[1]) is not None:
        writer.write(picture)
    writer.release()
    return made


def main() -> int:
    """Prints the figures; 1 where they are not good enough."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=Path, default=CLIPS)
    parser.add_argument("--margins", action="store_true")
    parser.add_argument("--cost", action="store_true")
    options = parser.parse_args()
    score, seen = Score(), []
    for clip in clips(options.clips):
        seen.append(clip)
        if not score.add(clip):
            print(f"WRONG {clip.label['file']} {clip.label['findings']} said {clip.codes}")
            print(f"      {dict(clip.reading.values)}")
    for code in score.codes:
        p, r, count = score.precision(code), score.recall(code), score.right[code]
        print(f"{code:24s} precision {p:.2f} recall {r:.2f} n {count + score.missed[code]}")
    well = score.healthy - score.healthy_failed - score.healthy_warned
    print(f"macro-F1 {score.macro_f1:.3f}; healthy {well} of {score.healthy} without a finding")
    if options.margins:
        print("\n".join(margins(seen)))
    if options.cost:
        by_width = {c.label["expect"]["width"]: c for c in seen if c.healthy}
        paths = {w: options.clips / c.label["file"] for w, c in by_width.items()}
        print(f"judging 720p: {judging_cost_ms(paths[1280]):.2f} ms of CPU a picture")
        print(f"worker, 1080p, H.264, read whole: peak {peak_memory_mib(paths[1920]):.0f} MiB")
        with tempfile.TemporaryDirectory() as folder:
            webcam = as_webcam(paths[1920], Path(folder) / "webcam.avi")
            print(f"worker, 1080p, MJPEG, read whole: peak {peak_memory_mib(webcam):.0f} MiB")
        took = max(c.reading.took_s for c in seen)
        print(f"slowest clip read whole in {took:.2f} s")
    return 0 if score.enough else 1


if __name__ == "__main__":
    sys.exit(main())
