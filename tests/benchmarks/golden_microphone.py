"""How right the microphone's judge is on the labelled clips, and what it costs.

    python tests/benchmarks/golden_microphone.py [--clips FOLDER] [--margins]

Every clip goes through `Driver.read("whole")` with the rate and channels that its label expects.
Prints per code precision and recall, macro-F1, specificity on healthy clips, CPU per second of
sound (decoding included, reading from a warm file cache) and the peak memory; `--margins` adds the
nearest healthy and faulty clip for each limit. Exit status 1 when macro-F1 < 0.95, a healthy clip
fails, or more than 2 % of them warn. Run by hand, and by tests/kinds/test_microphone_golden.py.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from agent.kinds import microphone
from agent.model import Level, Reading

CLIPS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "golden"
LIMITS = {
    # value -> the limit beside it, and the code whose clips lie on its far side
    "level_dbfs": ("muted_below_dbfs", "silent"),
    "dead_pct": ("silent_above_pct", "silent"),
    "breaks": ("breaks_from", "dropouts"),
    "clip_pct": ("clipping_from_pct", "clipping"),
    "hum_dbfs": ("hum_above_dbfs", "hum"),
    "hiss_dbfs": ("noisy_above_dbfs", "noisy"),
    "snr_db": ("snr_below_db", "noisy"),
    "speech_dbfs": ("too_quiet_below_dbfs", "too_quiet"),
    "speech_dbfs ": ("too_loud_above_dbfs", "too_loud"),
}


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
    """Counts for one code."""

    found: int = 0
    missed: int = 0
    false: int = 0
    sources: Counter[str] = field(default_factory=Counter)

    @property
    def precision(self) -> float:
        return self.found / (self.found + self.false) if self.found + self.false else 1.0

    @property
    def recall(self) -> float:
        return self.found / (self.found + self.missed) if self.found + self.missed else 1.0

    @property
    def f1(self) -> float:
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


def listen(folder: Path) -> tuple[list[Clip], float, float]:
    """All clips judged; CPU seconds spent, seconds of sound."""
    clips, cpu_s, sound_s = [], 0.0, 0.0
    microphone.prepare()
    for line in (folder / "labels.jsonl").read_text().splitlines():
        label = json.loads(line)
        if label["kind"] != "microphone":
            continue
        table = {"source": f"file:{folder / label['file']}", **label["expect"]}
        settings = microphone.Settings.model_validate(table)
        driver = microphone.Driver(settings)
        driver.read("whole")
        begun = time.process_time()
        reading = driver.read("whole")
        found = microphone.judge(reading, settings)
        cpu_s += time.process_time() - begun
        sound_s += float(reading.values.get("heard_s", 0))
        clips.append(Clip(label, reading, [f.code for f in found], [f.level for f in found]))
    return clips, cpu_s, sound_s


def scores(clips: Iterable[Clip]) -> dict[str, Score]:
    """By the rules of the labels: an accepted code stands for the right one, a tolerated one does
    no harm, any other is a false alarm."""
    table: dict[str, Score] = {}
    for clip in clips:
        label = clip.label
        for wanted in label["findings"]:
            hit = wanted in clip.codes or any(code in clip.codes for code in label["accept"])
            score = table.setdefault(wanted, Score())
            score.found, score.missed = score.found + hit, score.missed + (not hit)
        fine = {*label["findings"], *label["accept"], *label["tolerate"]}
        for code in clip.codes:
            if code not in fine:
                table.setdefault(code, Score()).false += 1
    return table


def macro_f1(table: dict[str, Score]) -> float:
    """1 where there is nothing to find and nothing was said."""
    return sum(score.f1 for score in table.values()) / len(table) if table else 1.0


def margins(clips: list[Clip]) -> Iterable[str]:
    """The clips that lie nearest to each limit, on either side."""
    limits = microphone.Settings(source="hw:0")
    for key, (name, code) in LIMITS.items():
        limit, key = float(getattr(limits, name)), key.strip()
        rows = [
            (float(clip.reading.values[key]), clip.label["file"].split("/")[1], clip)
            for clip in clips
            if key in clip.reading.values
        ]
        well = [row for row in rows if row[2].healthy]
        ill = [row for row in rows if f"microphone.{code}" in row[2].label["findings"]]
        for what, group in (("healthy", well), (code, ill)):
            if group:
                value, file, _ = min(group, key=lambda row: abs(row[0] - limit))
                yield f"{name:24} {limit:8.2f}   nearest {what:12} {value:8.2f}  {file}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=Path, default=CLIPS)
    parser.add_argument("--margins", action="store_true")
    options = parser.parse_args()
    clips, cpu_s, sound_s = listen(options.clips)
    table = scores(clips)
    for code, score in sorted(table.items()):
        print(f"{code:28} precision {score.precision:.3f}  recall {score.recall:.3f}")
    for clip in clips:
        right = {*clip.label["findings"], *clip.label["accept"]}
        fine = right | set(clip.label["tolerate"])
        if not set(clip.codes) <= fine or (right and not set(clip.codes) & right):
            print(f"  {clip.label['file']}: {clip.codes}, right is {clip.label['findings']}")
    healthy = [clip for clip in clips if clip.healthy]
    alarms = sum(bool(clip.codes) for clip in healthy)
    fails = sum(Level.FAIL in clip.levels for clip in healthy)
    per_source = {
        source: macro_f1(scores(c for c in clips if c.label["source"] == source))
        for source in sorted({clip.label["source"] for clip in clips})
    }
    worst = min(per_source, key=lambda source: per_source[source])
    memory_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"clips {len(clips)}, macro-F1 {macro_f1(table):.3f}")
    print(f"worst source {worst}: macro-F1 {per_source[worst]:.3f}")
    print(f"healthy {len(healthy)}, specificity {1 - alarms / max(1, len(healthy)):.3f}")
    print(f"healthy called fail {fails}")
    print(
        f"CPU {1000 * cpu_s / sound_s:.2f} ms per second of sound; peak memory {memory_mib:.0f} MiB"
    )
    if options.margins:
        print("\n".join(margins(clips)))
    return int(macro_f1(table) < 0.95 or fails > 0 or alarms > 0.02 * len(healthy))


if __name__ == "__main__":
    sys.exit(main())
