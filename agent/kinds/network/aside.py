"""Blocking calls beside the event loop: bounded in time, and never more than one stuck per key."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Aside:
    """Runs short blocking calls, each on a daemon thread of its own.

    Not an executor: its threads are joined at exit, so a look-up that hangs for half a minute
    would hold up the stop of the agent.
    """

    def __init__(self) -> None:
        self._out: set[str] = set()

    async def run(self, key: str, call: Callable[[], T], timeout: float) -> T:
        """The result of `call`, or what it raised.

        Raises `TimeoutError` when it takes longer than `timeout` seconds, and at once while an
        earlier call with the same key is still out.
        """
        if key in self._out:
            raise TimeoutError
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def deliver(result: T | None, error: Exception | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]  # None only if T allows it

        def work() -> None:
            result, error = None, None
            try:
                result = call()
            except Exception as caught:
                error = caught
            self._out.discard(key)
            try:
                loop.call_soon_threadsafe(deliver, result, error)
            except RuntimeError:
                return  # the loop has closed: nobody waits any more

        self._out.add(key)
        threading.Thread(target=work, name=f"aside-{key}"[:32], daemon=True).start()
        async with asyncio.timeout(timeout):
            return await future
