"""At every boot: a camera, a sound card, 54 GPIO lines, and the words of a Raspberry Pi."""

from __future__ import annotations

from pathlib import Path

from bench_hands import STATE, run

LINES = 54
NAMED = 28  # GPIO0 to GPIO27, as on the header
_CONFIG = Path("/sys/kernel/config/gpio-sim/pi")
_CPUINFO = """
Hardware\t: BCM2835
Revision\t: c03114
Serial\t\t: 10000000deadbeef
Model\t\t: Raspberry Pi 4 Model B Rev 1.4
"""
"""What a Pi 4B says at the end of /proc/cpuinfo; gpiozero reads the revision."""


def hardware(words: list[str]) -> None:
    """Loads the drivers and makes what they need. `words` are none."""
    del words
    run("modprobe", "-a", "vivid", "snd-aloop", "gpio-sim")
    bank = _CONFIG / "bank0"
    bank.mkdir(parents=True)
    (bank / "num_lines").write_text(str(LINES))
    (bank / "label").write_text("pinctrl-bcm2711")
    for number in range(NAMED):
        line = bank / f"line{number}"
        line.mkdir()
        (line / "name").write_text(f"GPIO{number}")
    (_CONFIG / "live").write_text("1")
    STATE.mkdir(exist_ok=True)
    told = STATE / "cpuinfo"
    told.write_text(Path("/proc/cpuinfo").read_text() + _CPUINFO)
    run("mount", "--bind", told, "/proc/cpuinfo")
