"""What every test of the lanes starts with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from lane_stage import Stage

from agent.lanes import process


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


@pytest.fixture
def short_kills(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "KILL_S", 0.2)


@pytest.fixture
def no_descriptor_is_left_open() -> Iterator[None]:
    before = len(list(Path("/proc/self/fd").iterdir()))
    yield
    assert len(list(Path("/proc/self/fd").iterdir())) == before
