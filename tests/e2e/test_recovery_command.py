"""`device.recover` over a real broker: asked, accepted, answered, recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from e2e_stage import Agent, Broker, Listener, running, wait_for

from agent.link import contract

CONFIG = """
[host]
period_s = 3600
[network.network]
period_s = 3600
gateway = false
[camera.cam]
source = "file:{clip}"
period_s = 2
"""


@pytest.fixture
def room(tmp_path: Path, broker: Broker, clips: Path) -> Agent:
    clip = clips / "frozen/camera.avi"
    return Agent(tmp_path, CONFIG.format(clip=clip), broker.port)


def ask(listener: Listener, id_: str, **args: Any) -> dict[str, Any]:
    wish = {"v": 1, "id": id_, "command": "device.recover", "args": {"device": "cam", **args}}
    listener.publish("command", {**wish, "by": "op@central", "reason": "frozen"}, retain=False)

    def answered() -> dict[str, Any]:
        last = listener.last("result")
        final = last.get("id") == id_ and last["state"] != "accepted"
        return last if final else {}

    return dict(wait_for(answered, 60, "no answer"))


def test_a_recovery_over_the_broker(room: Agent, listener: Listener) -> None:
    with running(room):
        wait_for(lambda: "camera.frozen" in listener.codes(), 60)
        plan = ask(listener, "dry", dry_run=True)
        assert (plan["state"], plan["effect"]["now"]) == ("done", "allowed")
        assert plan["effect"]["step_1"] == "reopen"
        assert plan["effect"]["step_3_why_not"] == "not_on_usb"
        assert not listener.events("recovery")
        # A clip stays what it is: it is tried, and said.
        result = ask(listener, "do")
        assert (result["state"], result["code"]) == ("failed", "not_healed")
        assert result["effect"] == {
            "device": "cam",
            "step": "reopen",
            "before": "camera.frozen",
            "after": "camera.frozen",
            "healed": False,
        }
        states = [d["state"] for s, d, _ in listener.messages if s == "result" and d]
        assert "accepted" in states
        wait_for(lambda: listener.events("recovery.ended"), 10)
        wait_for(lambda: listener.events("command.failed"), 10)
        stories = [listener.events(f"recovery.{w}")[0] for w in ("started", "step", "ended")]
        incident = next(
            e for e in listener.events("incident.opened") if e["code"] == "camera.frozen"
        )
        for event in stories:
            contract.PAYLOADS["event"].model_validate_json(json.dumps(event))
            assert (event["by"], event["reason"]) == ("op@central", "frozen")
            assert (event["code"], event["since"]) == ("camera.frozen", incident["since"])
        contract.PAYLOADS["result"].model_validate_json(json.dumps(result))
        typed = room.command("command", "device.recover", "device=cam", "step=reopen", "--json")
        answer = json.loads(typed.stdout)
        assert (typed.returncode, answer["code"]) == (2, "not_healed")
        refused = room.command("command", "device.recover", "device=cam", "step=rebind")
        assert refused.returncode == 1
        assert "rebind: not_on_usb" in refused.stderr
