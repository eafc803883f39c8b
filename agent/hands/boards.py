"""Relay boards that do not sit on the header: USB HID, serial, I2C."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Protocol

from agent.hands.layout import Place


class Board(Protocol):
    """One board. Levels are the board's own: a board that inverts says so by `active_low`."""

    def set(self, channel: int, on: bool) -> None:
        """Switch a relay, counted from 1. Raises `OSError`."""
        ...

    def get(self, channel: int) -> bool | None:
        """What a relay is, None where the board does not tell. Raises `OSError`."""
        ...

    def close(self) -> None:
        """Let go of the board."""
        ...


def open_board(place: Place, root: Path = Path("/")) -> Board:
    """The board that `place` names. Raises `OSError`: ENODEV where it is not plugged in."""
    raise OSError(errno.ENODEV, f"no driver for board {place.board}")
