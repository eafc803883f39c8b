"""The commands as a person meets them: real processes, exit codes, both languages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.cli import run as daemon
from agent.cli import sources
from agent.model import ConfigError


def hearing_room(
    *words: str, folder: Path | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agent", *words],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **env},
        cwd=folder,
    )


@pytest.mark.parametrize(
    "words",
    [
        ("nonsense",),
        ("check", "--bogus"),
        ("codes", "mars"),
        ("run", "--bogus"),
        ("run", "--config"),
        ("run", "--log-level=loud"),
        ("check", "camera:x.mp4?fps"),
        ("check", "camera:x.mp4?colour=1"),
        ("check", "host:x"),
        ("check", "camera:x.mp4?fps=1&fps=2"),
        ("check", "host:x", "camera:"),
    ],
)
def test_wrong_usage_is_64_and_says_what_is_wrong(words: tuple[str, ...]) -> None:
    run = hearing_room(*words)
    assert run.returncode == 64
    assert run.stderr.strip()
    assert run.stdout == ""


def test_version_and_help() -> None:
    assert hearing_room("--version").stdout.strip() == "0.1.0"
    help_text = hearing_room("--help").stdout
    for command in (
        "run",
        "try",
        "check",
        "status",
        "codes",
        "config",
        "adopt",
        "doctor",
        "command",
        "card",
    ):
        assert command in help_text
    assert hearing_room("run", "--help").returncode == 0


def test_codes_are_printed_in_both_languages() -> None:
    english = hearing_room("codes", "camera.frozen", "--language", "en").stdout
    vietnamese = hearing_room("codes", "camera.frozen", "--language", "vi").stdout
    assert "camera.frozen" in english
    assert english != vietnamese
    every = [json.loads(line) for line in hearing_room("codes", "--json").stdout.splitlines()]
    assert {"camera.frozen", "agent.no_evidence", "host.hot"} <= {e["code"] for e in every}
    assert all(len(e["steps"]) == 3 for e in every)


def test_config_check_and_schema(tmp_path: Path) -> None:
    file = tmp_path / "room.toml"
    file.write_text('[room]\nsite = "a"\nid = "b"\n')
    good = hearing_room("config", "check", str(file), "--json")
    assert good.returncode == 0
    assert json.loads(good.stdout)["ok"] is True
    file.write_text('[room]\nsite = "A"\nid = "b"\nx = 1\n')
    bad = hearing_room("config", "check", str(file))
    assert bad.returncode == 78
    assert "2 mistakes" in bad.stderr
    as_json = hearing_room("config", "check", str(file), "--json")
    assert as_json.returncode == 78
    assert len(json.loads(as_json.stdout)["mistakes"]) == 2
    file.write_text('[room]\nsite = "a"\nid = "b"\n[relay.r]\nboard = "x"\nchannel = 1\n')
    board = hearing_room("config", "check", str(file))
    assert board.returncode == 78
    assert "relay.r: no board 'x'" in board.stderr
    schema = json.loads(hearing_room("config", "schema").stdout)
    assert "camera" in schema["properties"]


def test_status_without_an_agent_is_unknown(tmp_path: Path) -> None:
    run = hearing_room("status", "--json", RUNTIME_DIRECTORY=str(tmp_path))
    assert run.returncode == 3
    assert json.loads(run.stdout)["readiness"]["state"] == "unknown"
    text = hearing_room("status", "--language", "vi", RUNTIME_DIRECTORY=str(tmp_path))
    assert text.returncode == 3
    assert "CHƯA RÕ TRẠNG THÁI" in text.stdout


def test_a_status_of_another_boot_or_process_is_unknown(tmp_path: Path) -> None:
    status = {
        "agent": {"pid": os.getpid(), "start": 1, "boot": "00000000"},
        "readiness": {"state": "ready"},
        "devices": [],
        "valid_until_up_s": 1e12,
    }
    (tmp_path / "status.json").write_text(json.dumps(status))
    run = hearing_room("status", "--json", RUNTIME_DIRECTORY=str(tmp_path))
    assert run.returncode == 3
    assert json.loads(run.stdout)["readiness"]["state"] == "unknown"


def test_check_without_an_agent_says_how_to_start_one(tmp_path: Path) -> None:
    run = hearing_room("check", "cam-front", RUNTIME_DIRECTORY=str(tmp_path))
    assert run.returncode == 3
    assert "hearing-room run" in run.stderr


def test_check_prints_one_object_per_source_in_the_order_given(tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no film")
    run = hearing_room(
        "check",
        "--json",
        "camera:bad.mp4",
        "host",
        "camera:none.mp4",
        folder=tmp_path,
        RUNTIME_DIRECTORY=str(tmp_path),
    )
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    assert [line["source"] for line in lines] == ["camera:bad.mp4", "host", "camera:none.mp4"]
    for line in lines:
        assert set(line) >= {"source", "level", "findings", "readings"}
        assert all(set(f) == {"code", "level", "numbers"} for f in line["findings"])
    assert lines[0]["level"] in ("unknown", "fail")
    assert lines[2]["findings"][0]["code"] == "camera.absent"
    assert run.returncode in (2, 3)


def test_an_argument_that_describes_nothing_has_its_line_and_the_others_are_judged(
    tmp_path: Path,
) -> None:
    words = (
        "camera:x.mp4?fps=1&fps=2",
        "host",
        "camera:rtsp://guard:s3cret@10.0.0.5/live",
        "display:none.bin",
        "camera:none.mp4",
        "microphone:none.wav",
    )
    run = hearing_room("check", "--json", *words, folder=tmp_path, RUNTIME_DIRECTORY=str(tmp_path))
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    assert [line["source"] for line in lines] == [
        *words[:2],
        "camera:rtsp://***@10.0.0.5/live",
        *words[3:],
    ]
    assert (lines[0]["level"], lines[2]["level"]) == ("unknown", "unknown")
    for line in (lines[0], lines[2]):
        assert [f["code"] for f in line["findings"]] == ["agent.no_evidence"]
        assert line["readings"] == {}
    assert "fps stands there twice" in run.stderr
    assert "credentials_file" in run.stderr
    assert "s3cret" not in run.stdout + run.stderr
    for line, kind in zip(lines[3:], ("display", "camera", "microphone"), strict=True):
        assert line["level"] == "fail", "a file that is not there is absent, whatever it should be"
        assert [f["code"] for f in line["findings"]] == [f"{kind}.absent"]
    assert run.returncode == 2
    text = hearing_room("check", *words[:2], folder=tmp_path, RUNTIME_DIRECTORY=str(tmp_path))
    assert "? unknown camera:x.mp4?fps=1&fps=2" in text.stdout
    assert text.returncode == 3
    useless = hearing_room("check", "--json", "host:x", "camera:", folder=tmp_path)
    assert useless.returncode == 64
    assert len(useless.stdout.splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("camera:/dev/video0", {"source": "v4l2:/dev/video0"}),
        ("camera:rtsp://cam/stream?channel=1", {"source": "rtsp://cam/stream?channel=1"}),
        (
            "camera:rtsp://cam/stream?channel=1?fps=25",
            {"source": "rtsp://cam/stream?channel=1", "fps": 25.0},
        ),
        ("camera:usb:046d:0843?width=1280", {"source": "usb:046d:0843", "width": 1280}),
        ("microphone:hw:1", {"source": "hw:1"}),
        ("display:HDMI-A-1", {"connector": "HDMI-A-1"}),
        ("network", {"interface": "auto"}),
        (
            "network?endpoints=tcp://a:1,tls://b:2",
            {"endpoints": ("tcp://a:1", "tls://b:2")},
        ),
    ],
)
def test_a_source_becomes_settings(text: str, expected: dict[str, object]) -> None:
    settings = sources.parse(text).device.settings
    assert {key: getattr(settings, key) for key in expected} == expected


def test_a_file_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    clip = sources.parse("camera:clip.mp4?fps=30")
    assert clip.whole
    assert clip.device.settings.source == f"file:{tmp_path}/clip.mp4"
    (tmp_path / "edid.bin").write_bytes(b"")
    assert sources.parse("display:edid.bin").device.settings.source == f"file:{tmp_path}/edid.bin"


def test_a_bad_setting_of_a_source_is_named() -> None:
    with pytest.raises(ConfigError, match=r"fps.*did you mean|width"):
        sources.parse("camera:x.mp4?widht=3")


def test_a_loop_test_is_for_the_agent_and_not_for_a_source() -> None:
    run = hearing_room("check", "--loop", "network")
    assert run.returncode == 64
    assert "name its loudspeaker" in run.stderr


def test_options_of_the_daemon() -> None:
    assert daemon.parse([]).log_level == "info"
    assert daemon.parse(["-c", "a.toml"]).config == Path("a.toml")
    assert daemon.parse(["--config=a=b.toml", "--log-level", "debug"]) == daemon.Options(
        Path("a=b.toml"), "debug"
    )


def test_doctor_names_a_fix_for_everything_that_is_not_in_order(tmp_path: Path) -> None:
    run = hearing_room(
        "doctor",
        "--json",
        "--config",
        str(tmp_path / "none.toml"),
        STATE_DIRECTORY=str(tmp_path),
        RUNTIME_DIRECTORY=str(tmp_path),
    )
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    assert run.returncode == 2
    assert {"box", "confinement", "clock", "configuration"} <= {line["what"] for line in lines}
    for line in lines:
        assert line["fix"] or line["level"] == "ok", line
    assert next(line for line in lines if line["what"] == "configuration")["level"] == "fail"
