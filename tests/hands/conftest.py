"""What every test of hands starts with."""

from __future__ import annotations

from pathlib import Path

import pytest
from hands_stage import Box


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Box:
    return Box(tmp_path, monkeypatch)
