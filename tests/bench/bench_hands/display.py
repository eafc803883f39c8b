"""The display connectors, from inside. Plugging and unplugging is done from outside (`screen`)."""

from __future__ import annotations

from pathlib import Path

from bench_hands import Wrong

_DRM = Path("/sys/class/drm")


def display(words: list[str]) -> None:
    """`list`; `off`, `on`, `detect` (which give no uevent); `edid`."""
    what, rest = words[0], words[1:]
    connectors = sorted(_DRM.glob("card*-*"))
    if what == "list":
        for connector in connectors:
            print(connector.name, *_facts(connector))
        return
    found = [c for c in connectors if c.name.split("-", 1)[1] == rest[0]]
    if not found:
        raise Wrong(f"no connector {rest[0]!r}")
    if what in ("off", "on", "detect"):
        (found[0] / "status").write_text(what)
    elif what == "edid":
        data = b"reset" if rest[1] == "reset" else Path(rest[1]).read_bytes()
        for file in Path("/sys/kernel/debug/dri").glob(f"*/{rest[0]}/edid_override"):
            file.write_bytes(data)
            return
        raise Wrong("the kernel shows no place for an EDID")
    else:
        raise Wrong("list, off, on, detect or edid")


def _facts(connector: Path) -> list[str]:
    names = ("status", "enabled", "dpms", "modes")
    said = [f"{n}={(connector / n).read_text().partition(chr(10))[0]}" for n in names]
    return [*said, f"edid={len((connector / 'edid').read_bytes())}"]
