"""The kernel of the box: the few modules that it needs, uncompressed, and a small initrd."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from bench_box.host import sh
from bench_box.recipe import INITRD_MODULES, MODULES

_INIT = """#!/bin/busybox sh
b=/bin/busybox
$b mount -t devtmpfs dev /dev
{insmod}
$b mount -o ro -t ext4 /dev/vda /newroot || exec $b sh
$b umount /dev
exec $b switch_root /newroot /sbin/init
"""


def module_closure(depend: str, names: Iterable[str]) -> list[str]:
    """Paths of some modules and all they need, dependencies first; `depend` is the text of
    modules.dep. A name that is not there is built into the kernel."""
    needs: dict[str, list[str]] = {}
    for line in depend.splitlines():
        path, _, rest = line.partition(":")
        needs[path] = rest.split()
    by_name = {Path(p).name.split(".ko")[0].replace("-", "_"): p for p in needs}
    order: list[str] = []
    for found in filter(None, map(by_name.get, names)):
        # modules.dep names what a module needs from the nearest to the deepest.
        for path in reversed([found, *needs[found]]):
            if path not in order:
                order.append(path)
    return order


def install(tree: Path, root: Path, out: Path) -> str:
    """Takes the kernel unpacked in `tree`: its modules into `root`, `vmlinuz` and `initrd` into
    `out`. Gives its version."""
    source = next((tree / "usr/lib/modules").iterdir())
    target = root / "usr/lib/modules" / source.name
    sh("depmod", "-b", tree / "usr", source.name)
    depend = (source / "modules.dep").read_text()
    for path in module_closure(depend, [*INITRD_MODULES, *MODULES]):
        _unpack(source / path, target / path.removesuffix(".xz"))
    for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order", "config"):
        shutil.copy(source / name, target / name)
    sh("depmod", "-b", root / "usr", source.name)
    shutil.copy(source / "vmlinuz", out / "vmlinuz")
    _initrd([source / p for p in module_closure(depend, INITRD_MODULES)], root, out / "initrd")
    return source.name


def _initrd(modules: list[Path], root: Path, out: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for sub in ("bin", "mods", "dev", "newroot"):
            (folder / sub).mkdir()
        shutil.copy(root / "usr/bin/busybox", folder / "bin/busybox")
        lines = []
        for number, module in enumerate(modules):
            _unpack(module, folder / f"mods/{number:02}.ko")
            lines.append(f"$b insmod /mods/{number:02}.ko")
        init = folder / "init"
        init.write_text(_INIT.format(insmod="\n".join(lines)))
        init.chmod(0o755)
        with out.open("wb") as file:
            sh("sh", "-c", "find . | cpio -o -H newc --quiet", cwd=folder, stdout=file)


def _unpack(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        sh("xz", "-dc", source, stdout=file)
