"""What may be sent to all rooms of a site at once: what is harmless in every one of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from agent.link.commands import Inbox
from agent.model import Command, Moment


class Ledger:
    """Has seen nothing."""

    async def seen_command(self, id_: str) -> bytes | None:
        return None

    async def remember_command(self, id_: str, result: bytes) -> None:
        return None


def answers(broadcast: bool, name: str, **args: Any) -> dict[str, Any]:
    """The last answer to a command."""
    said: list[dict[str, Any]] = []

    async def dispatch(command: Command) -> Mapping[str, Any]:
        return {"state": "done", "code": "ok"}

    async def scene() -> None:
        inbox = Inbox(
            dispatch=dispatch,
            ledger=Ledger(),
            answer=lambda result, _: said.append(json.loads(result)),
            clock=lambda: Moment(1, 1_800_000_000),
            refused=lambda *_: None,
        )
        request = {"v": 1, "id": "a", "command": name, "args": args}
        payload = json.dumps(request).encode()
        inbox.receive(payload, retained=False, broadcast=broadcast, reply_to=None)
        async with asyncio.timeout(5):
            while not said:
                await asyncio.sleep(0)
        await inbox.close()

    asyncio.run(scene())
    return said[-1]


@pytest.mark.parametrize("loop", [True, False])
def test_no_message_makes_all_rooms_sound(loop: bool) -> None:
    assert answers(True, "check", loop=loop)["code"] == "not_broadcast"
    assert answers(False, "check", loop=loop)["state"] == "done"


def test_a_check_of_all_rooms_is_taken() -> None:
    assert answers(True, "check")["state"] == "done"
    assert answers(True, "relay.set", relay="a", on=True)["code"] == "not_broadcast"
