"""QEMU's command line: what the virtual machine is made of. A snapshot fits one such only, so a
change here makes a new image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_KERNEL_LINE = (
    "root=/dev/vda ro console=ttyS0,115200 net.ifnames=0 mitigations=off quiet loglevel=4 "
    "systemd.show_status=no tsc=reliable no_timer_check random.trust_cpu=on"
)
_PROCESSOR = "max,-avx,-avx2,-fma,-f16c"
"""Without AVX: QEMU 7.2 reads beyond what a masked load may read, and NumPy dies of it. What is
emulated is quicker without, too."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a box is made of; anything but the default means a cold boot.

    `clock` is the date of the hardware clock (`2020-01-01T00:00:00`), `kernel` more words for the
    kernel's command line.
    """

    memory_mb: int = 1024
    processors: int = 2
    clock: str = ""
    kernel: str = ""


PLAIN = Shape()


def command(
    shape: Shape, title: str, run: Path, image: Path, disk: Path, broker_port: int
) -> list[str]:
    """All words. `run` is where its sockets and its log go, `image` where kernel and initrd are."""
    forward = f"guestfwd=tcp:10.0.2.100:1883-cmd:nc 127.0.0.1 {broker_port}"
    heads = [
        word
        for head in (0, 1)
        for word in ("-vnc", f"unix:{run}/vnc{head}.sock,display=gpu0,head={head}")
    ]
    share = f"local,path={run}/share,mount_tag=share,security_model=none,id=share"
    console = f"socket,id=console,path={run}/serial.sock,server=on,wait=off"
    words = f"""qemu-system-x86_64 -name {title} -machine q35
        -accel tcg,thread=multi,tb-size=512 -cpu {_PROCESSOR} -smp {shape.processors}
        -m {shape.memory_mb} -nodefaults -display none
        -device virtio-blk-pci,drive=sd,id=disk0
        -device virtio-net-pci,netdev=lan,id=nic0,romfile=
        -device virtio-gpu-pci,id=gpu0,max_outputs=2,edid=on,xres=1920,yres=1080
        -device i6300esb,id=wdt -action watchdog=reset
        -device qemu-xhci,id=xhci -device virtio-rng-pci
        -device virtio-serial-pci
        -device virtserialport,chardev=inside,name=org.qemu.guest_agent.0
        -serial chardev:console -rtc base={shape.clock or "utc"}""".split()
    return [
        *words,
        *("-kernel", f"{image}/vmlinuz", "-initrd", f"{image}/initrd"),
        *("-append", f"{_KERNEL_LINE} {shape.kernel}"),
        *("-drive", f"file={disk},if=none,id=sd,format=qcow2,cache=writeback,discard=unmap"),
        *("-netdev", f"user,id=lan,restrict=on,{forward}"),
        *heads,
        *("-virtfs", share),
        *("-chardev", f"socket,id=inside,path={run}/inside.sock,server=on,wait=off"),
        *("-chardev", f"{console},logfile={run}/serial.log"),
        *("-qmp", f"unix:{run}/qmp.sock,server=on,wait=off", "-pidfile", f"{run}/pid"),
    ]
