"""What a press of the button means: pure, edges and times come in, words go out."""

from __future__ import annotations

import math
from collections.abc import Iterator

from agent.hands.layout import Button

SHORT, CHECK, MAINTENANCE, STUCK, FREED = "short", "check", "maintenance", "stuck", "freed"
MEANINGS = frozenset({SHORT, CHECK, MAINTENANCE, STUCK, FREED})


class Press:
    """Follows one button. Times are boot-time seconds.

    A level counts when it has stood for `debounce_s`. What is held when hands starts means
    nothing until it was let go, except that it may be stuck.
    """

    def __init__(self, button: Button, *, down: bool, now_s: float) -> None:
        self._button = button
        self._raw = self._down = down
        self._raw_s = self._since_s = now_s
        self._spent = self._used = down
        self._stuck = False

    def edge(self, down: bool, now_s: float) -> list[str]:
        """The line has changed. Returns what has become certain."""
        words = self.tick(now_s)
        if down is not self._raw:
            self._raw, self._raw_s = down, now_s
        return words

    def tick(self, now_s: float) -> list[str]:
        """Time has passed. Returns what has become certain."""
        return list(self._certain(now_s))

    def due_s(self) -> float:
        """When `tick` can have something to say; infinite for never."""
        if self._raw is not self._down:
            return self._raw_s + self._button.debounce_s
        if not self._down:
            return math.inf
        times = [self._since_s + self._button.stuck_s] if not self._stuck else []
        if not self._spent:
            times.append(self._since_s + self._button.maintenance_s)
        return min(times, default=math.inf)

    @property
    def since_s(self) -> float | None:
        """Since when it has been held on purpose; None when it is not, when it is stuck, or when
        this press has had its effect."""
        return self._since_s if self._down and not self._spent else None

    @property
    def down(self) -> bool:
        """Whether it is down, for whatever reason."""
        return self._down

    @property
    def held(self) -> bool:
        """Whether somebody holds it down now, and this press has not served for anything else. How
        long does not matter, as long as it is not stuck."""
        return self._down and self._raw and not self._used and not self._stuck

    @property
    def stuck(self) -> bool:
        """Whether it has been down for longer than anybody holds it."""
        return self._stuck

    def spend(self) -> None:
        """This press has served for something else; letting go means nothing more."""
        self._spent = self._used = True

    def _certain(self, now_s: float) -> Iterator[str]:
        button = self._button
        if self._raw is not self._down and now_s >= self._raw_s + button.debounce_s:
            self._down = self._raw
            if self._down:
                self._since_s, self._spent, self._used = self._raw_s, False, False
            else:
                yield from self._let_go(self._raw_s - self._since_s)
        if not self._down or self._raw is not self._down:
            return
        if not self._spent and now_s >= self._since_s + button.maintenance_s:
            self._spent = True
            yield MAINTENANCE
        if not self._stuck and now_s >= self._since_s + button.stuck_s:
            self._stuck = self._spent = True
            yield STUCK

    def _let_go(self, held_s: float) -> Iterator[str]:
        if self._stuck:
            self._stuck = False
            yield FREED
        elif not self._spent:
            yield CHECK if held_s >= self._button.check_s else SHORT
