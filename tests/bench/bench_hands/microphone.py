"""The microphones: a loopback sound card into which something is played, and USB microphones.

The loopback is played into at `hw:Mic,0,0` and recorded from at `hw:Mic,1,0`, at 48 kHz, mono, 16
bits. With nobody playing it gives digital silence.
"""

from __future__ import annotations

import shlex

from bench_hands import MEDIA, Wrong, option, run, set_mode
from bench_hands.usb_microphone import MODES

_PLAYER = "aplay -q -t raw -f S16_LE -r 48000 -c 1 -D hw:0,0,0"
"""By number: to find a card by its name ALSA opens all cards, and whoever listens lets go."""


def microphone(words: list[str]) -> None:
    """Sets the mode of a microphone."""
    name, mode = option(words, "-d", ""), words[0]
    if name:
        set_mode(name, mode, MODES)
        return
    sounds = [m for m in MODES if m != "stall"]
    if mode not in (*sounds, "stop"):
        raise Wrong(f"no mode {mode!r}; there are {' '.join(sounds)} stop")
    run("systemctl", "-q", "stop", "bench-loopback.service")
    if mode == "stop":
        return
    again = f"while cat {shlex.quote(str(MEDIA / mode))}.pcm; do :; done | {_PLAYER}"
    if run("systemd-run", "-q", "--collect", "--unit=bench-loopback", "/bin/sh", "-c", again):
        raise Wrong("the player could not be started")
