"""The labelled clips beside the checkout, through the camera's driver and judge."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve()
CLIPS = HERE.parents[2].parent / "shared" / "data" / "golden" / "labels.jsonl"
BENCHMARK = HERE.parents[1] / "benchmarks" / "golden.py"


@pytest.mark.golden
@pytest.mark.skipif(not CLIPS.exists(), reason="the labelled clips are not beside the checkout")
def test_the_labelled_clips_are_judged_right() -> None:
    run = subprocess.run(
        [sys.executable, str(BENCHMARK)], capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
