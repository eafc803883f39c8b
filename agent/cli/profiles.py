"""`hearing-room profiles`: what is known about models of devices, boxes and relay boards."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from agent import kinds, profiles, words
from agent.cli import output
from agent.kinds.camera import controls, nodes
from agent.model import ConfigError

_PIPE_COLUMNS = 220
"""Wide enough for the longest row: what reads a pipe wants one line a profile."""
_HUB = "09"
_HERE = "here"
"""Stands for a port where it is the box itself that a profile is about."""


@dataclass(frozen=True, slots=True)
class Plugged:
    """A USB device that is there now, and which profile is about it. `sure` is False where many
    makes share the id; `mode` tells that it shows itself as a boot loader or the like."""

    port: str
    usb: str
    product: str
    profile: str | None = None
    sure: bool = True
    mode: str | None = None

    @property
    def text(self) -> str:
        """The port, with what is odd about it."""
        return f"{self.port}{'' if self.sure else '?'}{f' ({self.mode})' if self.mode else ''}"


def plugged(root: Path = Path("/")) -> list[Plugged]:
    """The USB devices that are plugged in, hubs left out, by port. Opens nothing."""
    try:
        folders = sorted((root / "sys/bus/usb/devices").iterdir())
    except OSError:
        return []
    return [
        _recognised(folder.name, nodes.usb_id(folder), nodes.read(folder / "product"))
        for folder in folders
        if ":" not in folder.name
        and nodes.usb_id(folder)
        and nodes.read(folder / "bDeviceClass") != _HUB
    ]


def _recognised(port: str, usb: str, product: str) -> Plugged:
    if found := profiles.match(usb, product) or profiles.match_relay_board(usb, product):
        return Plugged(port, usb, product, found.id)
    if away := profiles.out_of_service(usb):
        return Plugged(port, usb, product, away[0].id, mode=away[1].mode)
    matches = [(p.id, p.match) for p in profiles.all_devices().values()]
    matches += [(b.id, b.match) for b in profiles.all_relay_boards().values() if b.match]
    shared = [id for id, match in matches if match.ambiguous and usb in match.usb]
    return Plugged(port, usb, product, shared[0] if shared else None, sure=not shared)


def this_box(root: Path = Path("/")) -> str | None:
    """The id of the profile of the box that this runs on."""
    try:
        told = (root / "proc/device-tree/compatible").read_bytes()
    except OSError:
        return None
    found = profiles.box_of(told.decode("utf-8", "replace").split("\0"))
    return found.id if found else None


def shipped() -> dict[str, Mapping[str, profiles.Profile]]:
    """All profiles, by folder and id."""
    return {
        "devices": profiles.all_devices(),
        "boxes": profiles.all_boxes(),
        "relay_boards": profiles.all_relay_boards(),
    }


# -- list -----------------------------------------------------------------------------------------


def list_(*, only_plugged: bool, as_json: bool, language: str | None) -> int:
    """Print all profiles, or the devices that are plugged in with the profile of each."""
    terms = words.terms(output.language(language))
    there = plugged()
    if only_plugged:
        _print_plugged(there, terms, as_json=as_json)
        return 0
    box = this_box()
    for folder, found in shipped().items():
        rows = [_row(folder, profile, there, box) for profile in found.values()]
        if as_json:
            for row in rows:
                print(json.dumps(row, ensure_ascii=False, separators=(",", ":")))
        else:
            _print_rows(folder, rows, terms)
    return 0


def _row(
    folder: str, profile: profiles.Profile, there: Iterable[Plugged], box: str | None
) -> dict[str, Any]:
    row: dict[str, Any] = {"folder": folder, "id": profile.id, "name": profile.name}
    ids: tuple[str, ...] = ()
    if isinstance(profile, profiles.BoxProfile):
        ids = (profile.compatible.value,)
    elif isinstance(profile, profiles.DeviceProfile):
        row["kinds"] = profile.kinds
        ids = profile.match.usb
    elif isinstance(profile, profiles.RelayBoard):
        row["bus"] = profile.bus
        ids = profile.match.usb if profile.match else ()
    here = [p.text for p in there if p.profile == profile.id]
    return {**row, "ids": ids, "plugged": here or ([_HERE] if box == profile.id else [])}


def _print_rows(folder: str, rows: Sequence[Mapping[str, Any]], terms: Mapping[str, str]) -> None:
    second = "bus" if folder == "relay_boards" else "kinds"
    table = _table(terms, "id", "name", *([] if folder == "boxes" else [second]), "ids", "plugged")
    for row in rows:
        serves = row.get("bus") or ", ".join(terms[f"kind.{k}"] for k in row.get("kinds", ()))
        cells = [row["id"], row["name"], *([] if folder == "boxes" else [serves])]
        table.add_row(*cells, " ".join(row["ids"]), _ports(row["plugged"], terms))
    _show(table, f"{terms[f'profile.{folder}']} ({len(rows)})")


def _print_plugged(there: Sequence[Plugged], terms: Mapping[str, str], *, as_json: bool) -> None:
    if as_json:
        for one in there:
            print(json.dumps(asdict(one), ensure_ascii=False, separators=(",", ":")))
        return
    if not there:
        print(terms["profile.none_plugged"])
        return
    table = _table(terms, "port", "ids", "name", "profile")
    for one in there:
        name = one.profile or terms["profile.no_profile"]
        mark = ("" if one.sure else " ?") + (f" ({one.mode})" if one.mode else "")
        table.add_row(one.port, one.usb, one.product, f"{name}{mark}")
    _show(table, "")


def _ports(ports: Iterable[str], terms: Mapping[str, str]) -> str:
    return ", ".join(terms["profile.here"] if port == _HERE else port for port in ports)


def _table(terms: Mapping[str, str], *columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(terms[f"profile.{column}"], header_style="dim", overflow="fold")
    return table


def _show(table: Table, title: str) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=_PIPE_COLUMNS)
    if title:
        console.print(title, style="bold", highlight=False)
    with console.capture() as shown:
        console.print(table)
    print("\n".join(line.rstrip() for line in shown.get().splitlines()) + "\n", flush=True)


# -- show -----------------------------------------------------------------------------------------


def show(id: str, *, as_json: bool, language: str | None) -> int:
    """Print everything that is known about one model, each fact with its source; 64 for an id
    that there is not."""
    found = [(folder, p[id]) for folder, p in shipped().items() if id in p]
    if not found:
        known = [name for p in shipped().values() for name in p]
        close = difflib.get_close_matches(id, known, n=1)
        hint = f"did you mean {close[0]}?" if close else "see: hearing-room profiles list"
        print(f"hearing-room profiles: no profile {id!r}; {hint}", file=sys.stderr)
        return output.USAGE
    folder, profile = found[0]
    here = _row(folder, profile, plugged(), this_box())["plugged"]
    if as_json:
        facts = {**profile.model_dump(mode="json", exclude_unset=True), "id": profile.id}
        print(json.dumps({"folder": folder, **facts, "plugged": here}, ensure_ascii=False))
        return 0
    terms = words.terms(output.language(language))
    print(f"{profile.id}  {profile.name}")
    if isinstance(profile, profiles.DeviceProfile):
        print("  " + ", ".join(terms[f"kind.{k}"] for k in profile.kinds))
    if here:
        print(f"  {terms['profile.plugged']}: {_ports(here, terms)}")
    for field in type(profile).model_fields:
        value = getattr(profile, field)
        facts_of = value if isinstance(value, tuple) else (value,)
        tables = [v for v in facts_of if isinstance(v, profiles.Sourced)]
        if tables:
            print(f"\n  {terms[f'profile.{field}']}")
        for table in tables:
            print("\n".join(f"    {line}" for line in _lines(table, terms)))
    return 0


def _lines(table: profiles.Sourced, terms: Mapping[str, str]) -> Iterator[str]:
    """The facts of a table, one a line, and then where they come from."""
    facts = table.model_dump(exclude_unset=True, exclude={"source"})
    for key, value in facts.items():
        yield _text(value) if key in ("value", "text") else f"{key}: {_text(value)}"
    yield f"  [{terms['profile.source']}: {table.source}]"


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} = {_text(v)}" for k, v in value.items())
    if isinstance(value, tuple | list):
        return ", ".join(_text(v) for v in value)
    return json.dumps(value) if isinstance(value, bool) else str(value)


# -- check ----------------------------------------------------------------------------------------


def check(paths: Sequence[Path], *, as_json: bool) -> int:
    """Validate profiles: those of some files and folders, else the shipped ones. All mistakes at
    once; 78 where there are any. Raises `ConfigError` with them."""
    files, mistakes = _files(paths or [Path(str(_shipped_folder()))])
    good: dict[str, profiles.Profile] = {}
    for file in files:
        try:
            good[str(file)] = _read(file)
        except ConfigError as error:
            head, *several = str(error).split("\n  ")
            mistakes += [f"{file}: {m}" for m in several or [head.partition(": ")[2]]]
    mistakes += [f"{place}: {m}" for place, p in good.items() for m in _wrong_words(p)]
    # What is shipped already is in the way of a new file too, unless that is meant to replace it.
    names = {file.stem for file in files}
    others = [(n, p) for found in shipped().values() for n, p in found.items() if n not in names]
    told = profiles.clashes([*(others if paths else ()), *good.items()])
    mistakes += [f"{place}: {mistake}" for place, mistake in told]
    if as_json:
        document = {"ok": not mistakes, "checked": len(files), "mistakes": mistakes}
        print(json.dumps(document, ensure_ascii=False))
        return output.CONFIG if mistakes else 0
    if mistakes:
        count = f"{len(mistakes)} mistake{'s' if len(mistakes) > 1 else ''}"
        raise ConfigError("\n  ".join([f"profiles: {count}", *mistakes]))
    print(f"{len(files)} profiles: in order")
    return 0


def _shipped_folder() -> Path:
    import firmware_profiles

    return Path(firmware_profiles.__path__[0])


def _files(paths: Iterable[Path]) -> tuple[list[Path], list[str]]:
    files: list[Path] = []
    mistakes: list[str] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(path.rglob("*.toml"))
            files += inside
            if not inside:
                mistakes.append(f"{path}: there is no .toml file in this folder")
        elif path.is_file():
            files.append(path)
        else:
            mistakes.append(f"{path}: no such file or folder")
    return list(dict.fromkeys(files)), mistakes


def _read(file: Path) -> profiles.Profile:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read as UTF-8: {error}") from None
    return profiles.parse(_model(file, text), file.stem, text)


def _model(file: Path, text: str) -> type[profiles.Profile]:
    """What a file is about: its folder says so, else what only such a profile has."""
    if file.parent.name in profiles.FOLDERS:
        return profiles.FOLDERS[file.parent.name]
    lines = [line.strip() for line in text.splitlines()]
    if "[compatible]" in lines:
        return profiles.BoxProfile
    if any(line.partition("=")[0].strip() == "bus" for line in lines):
        return profiles.RelayBoard
    return profiles.DeviceProfile


def _wrong_words(profile: profiles.Profile) -> Iterator[str]:
    """Words of a profile that other parts of the program do not know."""
    if not isinstance(profile, profiles.DeviceProfile):
        return
    try:
        controls.known(profile.controls_on_attach.values if profile.controls_on_attach else {})
    except ValueError as error:
        yield f"controls_on_attach.values: {error}"
    known = kinds.names()
    for place, named in [
        ("kinds", profile.kinds),
        *((f"functions.{n}.kinds", f.kinds) for n, f in enumerate(profile.functions)),
    ]:
        for kind in named:
            if kind not in known:
                yield f"{place}: no such kind: {kind!r}; kinds are {', '.join(known)}"
