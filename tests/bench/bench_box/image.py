"""The image of the box: a Debian root file system, its kernel, and a snapshot of it booted.

Everything is made once and kept; the stamp says what it was made from.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench_box import kernel, media, places, recipe, stamp, wheels
from bench_box.host import TO_BUILD, TO_RUN, archive, need, need_root, sh
from bench_box.machine import Machine, take_snapshot

_KEPT_S = 3 * 86_400.0
"""An image of another recipe that was not used for so long is tidied away."""
_SPARE_MB = 1500
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


def facts() -> dict[str, str]:
    """What is known of the image; empty where there is none."""
    try:
        found: dict[str, str] = json.loads((stamp.image_folder() / "image.json").read_text())
    except (OSError, ValueError):
        return {}
    return found


def is_current() -> bool:
    """Whether the image is there and made from what stands here now."""
    return bool(facts())


def build(*, force: bool = False) -> None:
    """Makes image and snapshot where they are missing or old. Needs root."""
    if is_current() and not force:
        return
    need([*TO_BUILD, *TO_RUN])
    need_root("building the image (mmdebstrap, chroot, owners of files)")
    cache, image = places.cache(), stamp.image_folder()
    image.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # who waited finds it done
        if force or not is_current():
            _build(cache, image)
            _tidy(image)


def _build(cache: Path, image: Path) -> None:
    for name in ("image.json", "booted.state", "booted.qcow2"):
        (image / name).unlink(missing_ok=True)
    said = {"hands": stamp.hands_stamp()}
    with _told("wheels"):
        wheels.fetch(cache / "wheels", recipe.requirements())
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        root, tree = Path(scratch) / "root", Path(scratch) / "kernel"
        with _told(f"Debian {recipe.SUITE}"):
            _debian(root)
        with _told("kernel"):
            _fetch_kernel(root, tree)
            said["kernel"] = kernel.install(tree, root, image)
        with _told("Python, pictures and sounds, files"):
            _fill(root)
        with _told("image"):
            said["root_mb"] = _make_disk(root, image / "base.raw")
    with _told("snapshot of the booted box"):
        take_snapshot(_settle)
    (image / "image.json").write_text(json.dumps(said))


def _tidy(current: Path) -> None:
    for image in current.parent.iterdir():
        if image != current and time.time() - image.stat().st_mtime > _KEPT_S:
            shutil.rmtree(image, ignore_errors=True)


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    print(f"bench: {what}: {time.monotonic() - started:.0f} s", flush=True)


def _in_root(root: Path, script: str) -> None:
    sh("chroot", root, "sh", "-ec", script, env=_ENVIRONMENT, stdout=subprocess.DEVNULL)


def _debian(root: Path) -> None:
    sources = [f"deb {archive()} {suite} main" for suite in (recipe.SUITE, recipe.KERNEL_SUITE)]
    without = [f"--dpkgopt=path-exclude=/usr/share/{d}/*" for d in ("doc", "man", "locale")]
    sh(
        *("mmdebstrap", "-q", "--variant=minbase", "--skip=output/dev,cleanup/apt/lists"),
        *without,
        "--include=" + ",".join(recipe.PACKAGES),
        *(recipe.SUITE, root, *sources),
    )


_KERNEL_PACKAGES = """
cd /kernel
version=$(apt-cache depends linux-image-amd64/{suite} |
  sed -n 's/.*Depends: linux-image-\\([0-9].*\\)/\\1/p' | head -1)
test -n "$version"
apt-get download -q -o APT::Sandbox::User=root \\
  linux-base-$version linux-binary-$version linux-modules-$version
"""


def _fetch_kernel(root: Path, tree: Path) -> None:
    """Unpacks the newest kernel of the backports; not installed, for most of it is not needed."""
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    packages = root / "kernel"
    packages.mkdir()
    _in_root(root, _KERNEL_PACKAGES.format(suite=recipe.KERNEL_SUITE))
    for package in packages.glob("*.deb"):
        sh("dpkg-deb", "-x", package, tree)
    shutil.rmtree(packages)


def _fill(root: Path) -> None:
    """Python and its packages, what the bench plays, its files and its hands."""
    shutil.copytree(places.cache() / "wheels", root / recipe.WHEELS.lstrip("/"))
    wanted = shlex.join(recipe.requirements())
    pip = f"{recipe.VENV}/bin/pip -q --isolated --disable-pip-version-check install"
    _in_root(
        root,
        f"python3 -m venv {recipe.VENV}; {pip} --no-index --find-links {recipe.WHEELS} {wanted}",
    )
    site = root / recipe.SITE.lstrip("/")
    media.make(site / "media")
    for path, text in recipe.FILES.items():
        file = root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        file.write_text(text)
        file.chmod(0o755 if path in recipe.PROGRAMS else 0o644)
    shutil.copytree(places.HANDS, site / "bench_hands", ignore=shutil.ignore_patterns("__py*"))
    for folder in (root / "mnt/host", root / recipe.PROJECT.lstrip("/")):
        folder.mkdir(parents=True)
    _in_root(root, f"python3 -m compileall -q {recipe.SITE}; {recipe.CONFIGURE}")


def _make_disk(root: Path, disk: Path) -> str:
    """An ext4 image of a folder; gives the size of what is in it, in MB."""
    size = sh("du", "-sm", root, stdout=subprocess.PIPE, text=True).stdout.split()[0]
    disk.unlink(missing_ok=True)
    sh("mke2fs", "-q", "-t", "ext4", "-L", "root", "-d", root, disk, f"{int(size) + _SPARE_MB}M")
    return str(size)


def _settle(machine: Machine) -> None:
    """Until nothing moves any more; the USB ports are slow to load, so they are there already."""
    script = "systemctl is-system-running --wait; modprobe vhci-hcd; udevadm settle; sync"
    machine.inside.run(script, 300)
