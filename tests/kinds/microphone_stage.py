"""What the tests of microphone and speaker share: a recorded tree, programs in place of alsa-utils,
sounds made here."""

from __future__ import annotations

import os
import shlex
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

Array = NDArray[np.float64]
STREAM0 = """{product} at usb-xhci-hcd.0-1, full speed : USB Audio

Playback:
  Status: Stop
  Interface 1
    Altset 1
    Format: S16_LE
    Channels: 2
    Endpoint: 0x03 (3 OUT) (NONE)
    Rates: 8000, 16000, 48000
    Bits: 16

Capture:
  Status: Stop
  Interface 2
    Altset 1
    Format: {format}
    Channels: {channels}
    Endpoint: 0x83 (3 IN) (NONE)
    Rates: {rates}
    Bits: {bits}
    Channel map: MONO
"""
RUNNING = """state: RUNNING
owner_pid   : 4321
trigger_time: 1020.415172412
tstamp      : 1031.700000000
delay       : 320
avail       : 320
avail_max   : 1024
-----
hw_ptr      : {pointer}
appl_ptr    : 180000
"""


def card(
    root: Path,
    index: int = 1,
    usb: str = "0b0e:0422",
    port: str = "1-1.2",
    *,
    rates: str = "16000",
    channels: int = 1,
    format: str = "S16_LE",
    bits: int = 16,
    streams: str = "cp",
) -> None:
    """A USB sound card in a recorded tree, as /proc/asound and /sys show it."""
    proc = root / f"proc/asound/card{index}"
    device = root / f"sys/devices/usb1/{port}"
    home = device / f"{port}:1.0/sound/card{index}"
    home.mkdir(parents=True)
    (device / "idVendor").write_text(usb[:4] + "\n")
    (device / "idProduct").write_text(usb[5:] + "\n")
    (device / "product").write_text("Room Speakerphone\n")
    (device / "bcdDevice").write_text("0225\n")
    (home / "device").symlink_to(f"../../../{port}:1.0")
    sound = root / "sys/class/sound"
    sound.mkdir(parents=True, exist_ok=True)
    (sound / f"card{index}").symlink_to(f"../../devices/usb1/{port}/{port}:1.0/sound/card{index}")
    for direction in streams:
        (sound / f"pcmC{index}D0{direction}").mkdir()
        (proc / f"pcm0{direction}/sub0").mkdir(parents=True)
        (proc / f"pcm0{direction}/sub0/status").write_text("closed\n")
    (proc / "usbid").write_text(usb + "\n")
    (proc / "id").write_text("USB\n")
    text = STREAM0.format(
        product="Room Speakerphone", format=format, channels=channels, rates=rates, bits=bits
    )
    (proc / "stream0").write_text(text)
    control = root / f"dev/snd/controlC{index}"
    control.parent.mkdir(parents=True, exist_ok=True)
    control.write_bytes(b"")


def unplug(root: Path, index: int = 1) -> None:
    """The card is gone."""
    (root / f"sys/class/sound/card{index}").unlink()
    (root / f"proc/asound/card{index}").rename(root / f"gone{index}-{os.urandom(4).hex()}")
    for node in (root / "sys/class/sound").glob(f"pcmC{index}D*"):
        node.rmdir()


def program(folder: Path, name: str, body: str) -> Path:
    """A real program of that name; `body` is Python, with `arguments`, `out` and `say`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    lines = [
        "import os, sys, time",
        "arguments = dict(zip(sys.argv[1::2], sys.argv[2::2]))",
        "out = sys.stdout.buffer",
        "def say(text):",
        "    print(text, file=sys.stderr, flush=True)",
        f"here = {str(folder)!r}",
    ]
    script = folder / f".{name}.py"
    script.write_text("\n".join(lines) + "\n" + body)
    # Through a shell: the path of an interpreter may hold a space, which `#!` cannot say.
    command = shlex.join([sys.executable, "-SE", str(script)])
    path.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    path.chmod(0o755)
    return path


def on_path(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Only the programs of this folder are found."""
    folder.mkdir(parents=True, exist_ok=True)
    monkeypatch.setenv("PATH", str(folder))


def plays(sound: bytes) -> str:
    """The body of an `arecord` that hears this (raw S16_LE) again and again."""
    return f"sound = {sound!r}\nwhile True:\n    out.write(sound)\n"


def pcm(sound: Array) -> bytes:
    """Samples in -1..1 as S16_LE."""
    return np.clip(np.round(sound * 32768), -32768, 32767).astype("<i2").tobytes()


def noise(seconds: float, plain_db: float, rate: int = 16_000, seed: int = 1) -> Array:
    """White noise of an RMS level in dB below full scale."""
    random = np.random.default_rng(seed)
    return random.normal(0, 10 ** (plain_db / 20), round(rate * seconds))


def voice(seconds: float, plain_db: float, rate: int = 16_000, seed: int = 1) -> Array:
    """Something like speech: syllables of a few harmonics with a gliding pitch, hiss at their
    ends, pauses between words. `plain_db` is its RMS while it sounds."""
    random = np.random.default_rng(seed)
    pieces: list[Array] = []
    while sum(map(len, pieces)) < seconds * rate:
        count = round(rate * random.uniform(0.12, 0.25))
        time = np.arange(count) / rate
        pitch = random.uniform(105, 190) * (1 + random.uniform(-0.2, 0.2) * time / time[-1])
        phase = 2 * np.pi * np.cumsum(pitch) / rate
        tone = sum(
            np.sin(k * phase + random.uniform(0, 6)) * random.uniform(0.2, 1) / k
            for k in range(1, int(rate / 2 / 240))
        )
        shape = np.sin(np.pi * np.arange(count) / count) ** 0.7
        fricative = np.diff(random.normal(0, 0.3, count // 3 + 1)) * np.hanning(count // 3)
        pause = random.choice([0.02, 0.05, 0.4], p=[0.5, 0.3, 0.2])
        pieces += [np.asarray(tone) * shape, fricative, np.zeros(round(rate * pause))]
    sound = np.concatenate(pieces)[: round(seconds * rate)]
    block = rate // 50
    power = (sound[: len(sound) // block * block].reshape(-1, block) ** 2).mean(axis=1)
    active = power[power > np.quantile(power, 0.95) / 40].mean()
    return sound * (10 ** (plain_db / 20) / np.sqrt(active))


def write_wav(path: Path, sound: Array, rate: int = 16_000) -> Path:
    """A 16-bit file; two columns are two channels."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1 if sound.ndim == 1 else sound.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(pcm(sound))
    return path
