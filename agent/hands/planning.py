"""room.toml -> layout, worked out by a child that carries the libraries for it (`agent.hands.plan`)
and is gone afterwards."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from agent import clock
from agent.hands import layout as layouts
from agent.hands.factory import Watch
from agent.hands.layout import Layout

log = logging.getLogger("hands")

PLAN_S = 60.0
"""A child that takes longer hangs. A slow box needs some ten seconds for the imports."""
END_S = 1.0


class Planner:
    """Asks the child, either waiting for it or while the loop goes on."""

    def __init__(self, config: Path, watch: Watch) -> None:
        self._config = config
        self._watch = watch
        self._child: subprocess.Popen[bytes] | None = None
        self._began_s = 0.0
        self._said = bytearray()

    def wait(self) -> Layout | None:
        """The layout of the file; None, with the mistakes in the log, where there is none."""
        try:
            done = subprocess.run(
                self._command,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                timeout=PLAN_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            log.error("%s cannot be worked out: %s", self._config, error)
            return None
        return self._parsed(done.stdout, done.returncode)

    def begin(self, done: Callable[[Layout | None], None]) -> None:
        """Begin to work it out, and call back from the loop with what came of it. While one is at
        work no other begins, unless it hangs."""
        if self._child is not None:
            if clock.up_s() - self._began_s < PLAN_S:
                return
            log.error("%s cannot be worked out: nothing after %.0f s", self._config, PLAN_S)
            self.close()
        try:
            child = subprocess.Popen(
                self._command,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
            )
        except OSError as error:
            log.error("%s cannot be worked out: %s", self._config, error)
            done(None)
            return
        assert child.stdout is not None
        self._child, self._began_s = child, clock.up_s()
        self._said.clear()
        fd = child.stdout.fileno()
        os.set_blocking(fd, False)
        self._watch(fd, lambda: self._hear(fd, done))

    def close(self) -> None:
        """Let go of a child that is at work."""
        if (child := self._child) is None:
            return
        self._child = None
        assert child.stdout is not None
        self._watch(child.stdout.fileno(), None)
        child.stdout.close()
        child.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(END_S)

    def _hear(self, fd: int, done: Callable[[Layout | None], None]) -> None:
        try:
            data = os.read(fd, 1 << 16)
        except BlockingIOError:
            return
        self._said += data
        if data and len(self._said) <= layouts.MAX_BYTES:
            return
        child = self._child
        assert child is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(END_S)  # it has said all, or too much: it is about to end
        code = child.returncode
        self.close()
        done(self._parsed(bytes(self._said), code))

    def _parsed(self, text: bytes, code: int | None) -> Layout | None:
        if code != 0:
            log.error("%s has no layout (%s): what is above tells why", self._config, code)
            return None
        try:
            return layouts.parse(text.decode())
        except ValueError as error:
            log.error("%s cannot be worked out: %s", self._config, error)
            return None

    @property
    def _command(self) -> list[str]:
        return [sys.executable, "-P", "-s", "-m", "agent.hands.plan", str(self._config)]

    @property
    def _environ(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
