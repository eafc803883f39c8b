"""The simulated pins keep the contract that the kernel's pins keep on the virtual box."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pins_contract import CONTRACT, Simulated, World

from agent.hands import lines


@pytest.mark.parametrize("promise", CONTRACT, ids=lambda p: p.__name__)
def test_simulated_pins_keep_the_contract(promise: Callable[[World], None]) -> None:
    promise(Simulated())


def test_where_there_is_no_chip_none_is_found(tmp_path: Path) -> None:
    assert lines.find_chip(tmp_path) is None
    (tmp_path / "gpiochip0").write_text("no chip, whatever its name")
    (tmp_path / "gpiochip4").symlink_to("gpiochip0")
    assert lines.find_chip(tmp_path) is None
