"""Where a secret is read: systemd's copy for this service, else the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent import settings
from agent.credentials import where
from agent.kinds.camera.driver import Driver
from agent.kinds.camera.settings import Settings

ROOM = '[room]\nsite = "test"\nid = "room-01"\n[broker]\nhost = "broker"\n'


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    folder = tmp_path / "copies"
    folder.mkdir()
    (folder / "secrets_room.key").write_text("a copy")
    return folder


def test_only_files_of_the_folder_secrets_have_copies(tmp_path: Path, copies: Path) -> None:
    given = {"CREDENTIALS_DIRECTORY": str(copies)}
    key, other = tmp_path / "secrets/room.key", tmp_path / "room.key"
    assert where(key, given) == copies / "secrets_room.key"
    assert where(key, {}) == key
    assert where(other, given) == other
    missing = tmp_path / "secrets/none.key"
    assert where(missing, given) == missing


def test_the_broker_table_gets_the_copies(
    tmp_path: Path, copies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = ROOM + 'certificate_file = "room.pem"\nkey_file = "secrets/room.key"\n'
    file = tmp_path / "room.toml"
    plain = settings.parse(text, file).broker
    assert plain is not None
    assert plain.key_file == tmp_path / "secrets/room.key"
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(copies))
    broker = settings.parse(text, file).broker
    assert broker is not None
    assert broker.key_file == copies / "secrets_room.key"
    assert broker.certificate_file == tmp_path / "room.pem"


def test_a_network_camera_reads_its_own_copy(
    tmp_path: Path, copies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent's settings name the file; which copy it is depends on who reads it."""
    (copies / "secrets_cam.txt").write_text("name:word\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(copies))
    made = Settings(source="rtsp://192.0.2.1/stream", credentials_file=tmp_path / "secrets/cam.txt")
    assert made.credentials_file == tmp_path / "secrets/cam.txt"
    assert Driver(made)._url() == "rtsp://name:word@192.0.2.1/stream"
