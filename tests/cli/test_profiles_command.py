"""The profiles as a person meets them: lists, facts with sources, mistakes with places."""

from __future__ import annotations

import json
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from agent import profiles as known
from agent.cli import app, profiles

SHIPPED = Path(__file__).parents[2] / "firmware_profiles"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*words: str) -> tuple[int, str, str]:
        code = app.main(["profiles", *words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


def plug(root: Path, port: str, usb: str, product: str = "", device_class: str = "ef") -> None:
    device = root / "sys/bus/usb/devices" / port
    device.mkdir(parents=True)
    vid, _, pid = usb.partition(":")
    for name, value in (("idVendor", vid), ("idProduct", pid), ("bDeviceClass", device_class)):
        (device / name).write_text(value + "\n")
    if product:
        (device / "product").write_text(product + "\n")
    (device.parent / f"{port}:1.0").mkdir()


@pytest.fixture
def usb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recorded tree with devices of every sort, in place of this machine's."""
    plug(tmp_path, "1-1", "2109:3431", "USB2.0 Hub", device_class="09")
    plug(tmp_path, "1-1.1", "046d:085c", "C922 Pro Stream Webcam")
    plug(tmp_path, "1-1.2", "2bd9:ba01")
    plug(tmp_path, "1-1.3", "534d:2109", "USB Video")
    plug(tmp_path, "1-1.4", "1234:5678", "A camera that nobody knows")
    plug(tmp_path, "1-2", "16c0:05df", "USBRelay4")
    tree = tmp_path / "proc/device-tree"
    tree.mkdir(parents=True)
    (tree / "compatible").write_bytes(b"raspberrypi,4-model-b\0brcm,bcm2711\0")
    plugged, this_box = profiles.plugged, profiles.this_box
    monkeypatch.setattr(profiles, "plugged", lambda: plugged(tmp_path))
    monkeypatch.setattr(profiles, "this_box", lambda: this_box(tmp_path))
    return tmp_path


@pytest.mark.usefixtures("usb")
def test_the_list_tells_what_is_plugged_in(run: Run) -> None:
    code, out, _ = run("list", "--json")
    rows = {row["id"]: row for row in map(json.loads, out.splitlines())}
    assert code == 0
    assert rows.keys() == {file.stem for file in SHIPPED.rglob("*.toml")}
    assert {id: row["plugged"] for id, row in rows.items() if row["plugged"]} == {
        "logitech-c922": ["1-1.1"],
        "huddly-s1": ["1-1.2 (adapter_only)"],
        "macrosilicon-ms2109": ["1-1.3?"],
        "dcttech-usbrelay": ["1-2"],
        "raspberry-pi-4b": ["here"],
    }
    assert rows["logitech-c922"]["kinds"] == ["camera", "microphone"]
    assert rows["logitech-c922"]["ids"] == ["046d:085c"]
    assert rows["raspberry-pi-5"]["ids"] == ["raspberrypi,5-model-b"]
    assert rows["dcttech-usbrelay"]["bus"] == "hid"


@pytest.mark.usefixtures("usb")
def test_the_list_for_people_has_one_line_a_profile(run: Run) -> None:
    for language, kind, here in (
        ("en", "Microphone", "this box"),
        ("vi", "Micro", "chính máy này"),
    ):
        _, out, _ = run("list", "--language", language)
        lines = out.splitlines()
        for row, parts in (
            ("logitech-c922 ", ["Logitech C922 Pro Stream", kind, "046d:085c", "1-1.1"]),
            ("raspberry-pi-4b ", ["raspberrypi,4-model-b", here]),
        ):
            (line,) = [x for x in lines if x.startswith(row)]
            assert all(part in line for part in parts), line
        assert all(line == line.rstrip() for line in lines)


@pytest.mark.usefixtures("usb")
def test_every_plugged_in_device_is_named_with_or_without_a_profile(run: Run) -> None:
    code, out, _ = run("list", "--plugged", "--json")
    there = {row["port"]: row for row in map(json.loads, out.splitlines())}
    assert code == 0
    assert set(there) == {"1-1.1", "1-1.2", "1-1.3", "1-1.4", "1-2"}
    assert there["1-1.1"] == {
        "port": "1-1.1",
        "usb": "046d:085c",
        "product": "C922 Pro Stream Webcam",
        "profile": "logitech-c922",
        "sure": True,
        "mode": None,
    }
    assert (there["1-1.2"]["profile"], there["1-1.2"]["mode"]) == ("huddly-s1", "adapter_only")
    assert (there["1-1.3"]["profile"], there["1-1.3"]["sure"]) == ("macrosilicon-ms2109", False)
    assert there["1-1.4"]["profile"] is None
    _, text, _ = run("list", "--plugged", "--language", "vi")
    (unknown,) = [line for line in text.splitlines() if line.startswith("1-1.4")]
    assert "1234:5678" in unknown
    assert "chưa có bản mô tả" in unknown


def test_a_machine_without_usb_has_nothing_plugged_in(tmp_path: Path) -> None:
    assert profiles.plugged(tmp_path) == []
    assert profiles.this_box(tmp_path) is None


@pytest.mark.parametrize("language", ["vi", "en"])
def test_a_profile_is_shown_with_every_fact_and_every_source(run: Run, language: str) -> None:
    for file in sorted(SHIPPED.rglob("*.toml")):
        code, out, err = run("show", file.stem, "--language", language)
        assert (code, err) == (0, "")
        raw = tomllib.loads(file.read_text())
        for table in [t for v in raw.values() for t in (v if isinstance(v, list) else [v])]:
            if not isinstance(table, dict):
                continue
            assert table["source"] in out
            for value in table.values():
                for fact in value if isinstance(value, list) else [value]:
                    told = json.dumps(fact) if isinstance(fact, bool) else str(fact)
                    assert isinstance(fact, dict) or told in out, f"{file.stem}: {fact}"


def test_a_profile_as_json_holds_what_the_file_says(run: Run) -> None:
    for file in SHIPPED.rglob("*.toml"):
        code, out, _ = run("show", file.stem, "--json")
        shown = json.loads(out)
        assert code == 0
        raw = tomllib.loads(file.read_text())
        assert {key: shown[key] for key in raw} == json.loads(json.dumps(raw))
        assert (shown["id"], shown["folder"]) == (file.stem, file.parent.name)


def test_an_id_that_there_is_not_is_wrong_usage_with_a_hint(run: Run) -> None:
    code, out, err = run("show", "logitech-c92")
    assert (code, out) == (64, "")
    assert "did you mean logitech-c922?" in err
    code, _, err = run("show", "zzz")
    assert code == 64
    assert "profiles list" in err


def test_what_is_shipped_is_in_order(run: Run) -> None:
    for words in ((), (str(SHIPPED),), (str(SHIPPED / "boxes"),)):
        code, out, err = run("check", *words)
        assert (code, err) == (0, ""), err
        assert "in order" in out
    _, out, _ = run("check", "--json")
    count = len(list(SHIPPED.rglob("*.toml")))
    assert json.loads(out) == {"ok": True, "checked": count, "mistakes": []}


def test_all_mistakes_of_all_files_come_at_once_with_their_places(run: Run, tmp_path: Path) -> None:
    devices = tmp_path / "devices"
    shutil.copytree(SHIPPED / "boxes", tmp_path / "boxes")
    devices.mkdir()
    good = (SHIPPED / "devices/logitech-c922.toml").read_text()
    (devices / "mine.toml").write_text(good)
    (devices / "bad.toml").write_text(
        'name = "Bad"\nkinds = ["camra"]\nclour = 1\n[match]\nusb = ["046D:1"]\n'
    )
    (devices / "odd.toml").write_text(
        'name = "Odd"\nkinds = ["camra"]\n[match]\nusb = ["abcd:0001"]\n'
        + 'source = "made up for this test"\n'
    )
    (devices / "broken.toml").write_text("name = ")
    (devices / "latin.toml").write_bytes(b'name = "\xe9"')
    code, out, err = run("check", str(tmp_path), str(tmp_path / "gone"))
    assert (code, out) == (78, "")
    for part in (
        f"{devices}/bad.toml: clour: unknown key",
        f"{devices}/bad.toml: match.source: missing; say where the facts come from",
        f"{devices}/bad.toml: match.usb.0: '046D:1' is no USB id; vid:pid",
        f"{devices}/broken.toml: not TOML: ",
        f"{devices}/latin.toml: cannot be read as UTF-8",
        f"{devices}/mine.toml: match: 046d:085c is taken by logitech-c922",
        f"{devices}/odd.toml: kinds: no such kind: 'camra'",
        f"{tmp_path}/gone: no such file or folder",
    ):
        assert part in err, part
    assert f"{len(err.splitlines()) - 1} mistakes" in err.splitlines()[0]
    code, out, _ = run("check", "--json", str(tmp_path))
    document = json.loads(out)
    assert (code, document["ok"]) == (78, False)
    assert len(document["mistakes"]) == len(err.splitlines()) - 2  # without the one that is gone
    for file in devices.iterdir():
        file.unlink()
    (devices / "logitech-c922.toml").write_text(good)  # one that stands in for ours
    assert run("check", str(tmp_path))[0] == 0


def test_an_empty_folder_is_no_set_of_profiles(run: Run, tmp_path: Path) -> None:
    code, _, err = run("check", str(tmp_path))
    assert code == 78
    assert "there is no .toml file in this folder" in err


@pytest.mark.parametrize("folder", sorted(known.FOLDERS))
def test_a_file_alone_is_known_by_what_stands_in_it(run: Run, tmp_path: Path, folder: str) -> None:
    for file in (SHIPPED / folder).glob("*.toml"):
        shutil.copy(file, tmp_path)
    code, out, err = run("check", str(tmp_path))
    assert (code, err) == (0, "")
    assert "in order" in out
