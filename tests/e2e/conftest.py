from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_stage import MOSQUITTO, Broker, Listener

from agent import simulator


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A healthy, a frozen and a black clip, a live and a dead recording."""
    folder = tmp_path_factory.mktemp("clips")
    for fault in simulator.CAMERA_FAULTS:
        sound = "silent" if fault == "frozen" else "none"
        subprocess.run(
            [
                sys.executable,
                "-m",
                "agent.simulator",
                str(folder / fault),
                "--camera",
                fault,
                "--microphone",
                sound,
            ],
            check=True,
            timeout=60,
        )
    return folder


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    if MOSQUITTO is None:
        pytest.skip("mosquitto is not installed")
    server = Broker(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def listener(broker: Broker) -> Iterator[Listener]:
    client = Listener(broker.port)
    yield client
    client.close()
