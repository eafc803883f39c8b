"""The verbs. Each module of a verb is imported when it is asked for: starting costs time here.

hardware                           at every boot
camera [-d NAME] MODE              the vivid camera (no NAME), or a USB webcam
microphone [-d NAME] MODE          the loopback sound card (no NAME), or a USB microphone
usb plug KIND [NAME] [KEY=VALUE ...] | unplug NAME | authorize NAME | deauthorize NAME | list
relay NAME [MODE]                  what the relays of a USB board are; how it behaves
gpio read LINE | high LINE | low LINE | pulse LINE SECONDS | list
display list | off|on|detect CONNECTOR | edid CONNECTOR FILE|reset
network shape WORD ... | clear | device add|del|down|up NAME [IP]
disk fill [MB-LEFT] | free | readonly
clock SECONDS                      since 1970, UTC
"""

from __future__ import annotations

import importlib
import sys

from bench_hands import Wrong

VERBS = {
    "hardware": "hardware",
    "camera": "camera",
    "microphone": "microphone",
    "usb": "plug",
    "usb-serve": "plug",
    "relay": "usb_relay",
    "gpio": "gpio",
    "display": "display",
    "network": "network",
    "disk": "system",
    "clock": "system",
}


def main(words: list[str]) -> int:
    """Does one thing; 0, 1 with a sentence on standard error, 64 for what is no verb."""
    verb, rest = (words[0], words[1:]) if words else ("", [])
    if verb not in VERBS:
        print(__doc__, file=sys.stderr)
        return 64
    module = importlib.import_module(f"bench_hands.{VERBS[verb]}")
    try:
        getattr(module, verb.replace("-", "_"))(rest)
    except Wrong as error:
        print(f"bench-hands {verb}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
