"""What is in the image: data only. A change here rebuilds it."""

from __future__ import annotations

import tomllib

from bench_box.places import CHECKOUT


def _words(text: str) -> list[str]:
    return text.split()


SUITE = "trixie"
KERNEL_SUITE = "trixie-backports"
"""The kernel of trixie itself has no gpio-sim, the one in its backports has."""
PYTHON = "3.13"

PACKAGES = _words("""
 systemd systemd-sysv systemd-timesyncd udev dbus kmod iproute2 iputils-ping nftables
 procps psmisc python3 python3-venv ca-certificates alsa-utils v4l-utils gpiod usbutils
 qemu-guest-agent mosquitto mosquitto-clients edid-decode e2fsprogs busybox-static sudo
 less tcpdump strace""")

BESIDE = ["psutil>=5.9", "gpiod>=2.1", "gpiozero>=2.0.1", "setuptools>=70.1", "wheel", "pip"]
"""Python packages that the box needs beside the project's own dependencies: what drives GPIO, what
the bench measures with, and what builds the project's wheel without a network."""


def requirements() -> list[str]:
    """All that the wheelhouse of the box holds."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return sorted({*project["dependencies"], *BESIDE})


INITRD_MODULES = ("virtio_blk", "ext4")
MODULES = _words("""
 virtio_net 9p 9pnet_virtio virtio_gpu bochs virtio_rng qemu_fw_cfg vivid snd_aloop
 snd_dummy gpio_sim dummy_hcd libcomposite usb_f_hid usb_f_mass_storage usb_f_acm gadgetfs uvcvideo
 snd_usb_audio vhci_hcd usbhid hid_generic hid_led ch341
 usb_storage uas sd_mod xhci_pci cdc_acm sch_netem sch_tbf
 sch_fq_codel sch_ingress cls_u32 act_mirred ifb veth dummy bridge 8021q i6300esb softdog dm_flakey
 loop overlay squashfs vfat nls_ascii nls_cp437 configfs i2c_dev i2c_stub uinput evdev autofs4
 binfmt_misc nf_tables nft_ct nft_reject_inet nft_limit nf_conntrack fuse cuse zram""")

SITE = "/usr/local/lib/bench"
"""Where `bench_hands` lives in the box, and what it plays (`media`)."""
VENV = "/opt/venv"
"""The project's dependencies, installed; the checkout under test is on its path."""
WHEELS = "/opt/wheels"
"""The same as wheels, for an installation without a network."""
PROJECT = "/opt/checkout"
"""Where a scenario puts the checkout under test."""

SCRIPT = f"""\
#!/usr/bin/python3 -sS
import sys
sys.path.insert(0, "{SITE}")
from bench_hands.__main__ import main
sys.exit(main(sys.argv[1:]))
"""

FILES = {
    "/usr/local/sbin/bench-hands": SCRIPT,
    f"{VENV}/lib/python{PYTHON}/site-packages/checkout.pth": f"{PROJECT}\n",
    f"{VENV}/bin/hearing-room": f'#!/bin/sh\nexec {VENV}/bin/python -m agent "$@"\n',
    "/etc/fstab": """\
/dev/vda / ext4 errors=remount-ro,noatime 0 1
share /mnt/host 9p trans=virtio,version=9p2000.L,msize=524288,noauto 0 0
""",
    "/etc/hostname": "hearing-room-box\n",
    "/etc/hosts": "127.0.0.1 localhost\n127.0.1.1 hearing-room-box\n10.0.2.100 broker\n",
    "/etc/resolv.conf": "nameserver 10.0.2.3\n",
    "/etc/machine-id": "5eed0000000000000000000000000001\n",
    "/etc/systemd/network/eth0.network": """\
[Match]
Name=eth0
[Network]
DHCP=ipv4
LinkLocalAddressing=no
""",
    # As Raspberry Pi OS has them.
    "/etc/udev/rules.d/90-bench.rules": """\
SUBSYSTEM=="gpio", KERNEL=="gpiochip*", GROUP="gpio", MODE="0660"
SUBSYSTEM=="i2c-dev", GROUP="i2c", MODE="0660"
""",
    "/etc/systemd/system/bench-hardware.service": """\
[Unit]
Description=Virtual hardware of the bench
DefaultDependencies=no
After=systemd-udevd.service local-fs.target
Before=sysinit.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/bench-hands hardware
[Install]
WantedBy=sysinit.target
""",
    "/etc/systemd/system/serial-getty@ttyS0.service.d/bench.conf": """\
[Service]
ExecStart=
ExecStart=-/sbin/agetty --autologin root --noclear --keep-baud 115200 - $TERM
""",
    # It tells of every question that it is asked.
    "/etc/systemd/system/qemu-guest-agent.service.d/bench.conf": """\
[Service]
LogLevelMax=warning
""",
    "/etc/systemd/journald.conf.d/bench.conf": "[Journal]\nStorage=persistent\nSystemMaxUse=64M\n",
    "/etc/modprobe.d/bench.conf": """\
options vivid n_devs=1 node_types=0x1 num_inputs=1 input_types=0x00
options snd_aloop index=0 id=Mic pcm_substreams=2
""",
}
PROGRAMS = ("/usr/local/sbin/bench-hands", f"{VENV}/bin/hearing-room")
"""Of these files, those that are run."""

CONFIGURE = """
for g in gpio i2c; do groupadd -r $g; done
useradd -m -s /bin/bash -G video,audio,gpio,i2c,dialout,plugdev pi
passwd -qd root
systemctl enable -q bench-hardware systemd-networkd qemu-guest-agent
systemctl disable -q mosquitto
systemctl mask -q apt-daily.timer apt-daily-upgrade.timer fstrim.timer e2scrub_all.timer \
  e2scrub_reap.service dpkg-db-backup.timer getty@tty1.service systemd-binfmt.service \
  systemd-networkd-wait-online.service ldconfig.service proc-sys-fs-binfmt_misc.automount
rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin
touch /etc/.updated /var/.updated
"""
