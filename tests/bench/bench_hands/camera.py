"""The cameras: kernel's own test driver (vivid), and USB webcams."""

from __future__ import annotations

from pathlib import Path

from bench_hands import Wrong, option, run, set_mode

_STILL = (
    "osd_text_mode=2,horizontal_movement=3,vertical_movement=3,brightness=128,contrast=128,"
    "percentage_of_dropped_buffers=0"
)
_PICTURES = {
    "live": "test_pattern=0,osd_text_mode=0,horizontal_movement=5",
    "bars": "test_pattern=0",
    "black": "test_pattern=5",
    "white": "test_pattern=6",
    "noise": "test_pattern=21",
}
_LOST = "disconnect=1"
"""The node stays and answers ENODEV, until the last program that has it open closes it."""
_KEEPER = "bench-vivid-lost"
_FAULTS = {
    "stall": "percentage_of_dropped_buffers=100",
    "eio": "inject_fatal_streaming_error=1",
    "eio-start": "inject_vidioc_streamon_error=1",  # once
}
_DRIVER = Path("/sys/bus/platform/drivers/vivid")


def camera(words: list[str]) -> None:
    """Sets the mode of a camera."""
    name = option(words, "-d", "")
    mode = words[0]
    if name:
        from bench_hands import webcam

        set_mode(name, mode, webcam.MODES)
        return
    run("systemctl", "-q", "stop", f"{_KEEPER}.service")  # a lost camera comes back
    if mode in ("unplug", "plug"):
        (_DRIVER / ("unbind" if mode == "unplug" else "bind")).write_text("vivid.0")
    elif mode == "lost":
        keep = f"exec sleep infinity < {_node()}"
        run("systemd-run", "-q", "--collect", f"--unit={_KEEPER}", "/bin/sh", "-c", keep)
        run("sh", "-c", f"until fuser -s {_node()}; do sleep 0.05; done")
        _set(_LOST)
    elif mode in _PICTURES:
        _set(_STILL)
        _set(_PICTURES[mode])
    elif mode in _FAULTS:
        _set(_FAULTS[mode])
    else:
        raise Wrong(
            f"no mode {mode!r}; there are {' '.join([*_PICTURES, *_FAULTS])} lost unplug plug"
        )


def _set(controls: str) -> None:
    if run("v4l2-ctl", "-d", _node(), "-c", controls):
        raise Wrong(f"vivid did not take {controls}")


def _node() -> str:
    for device in Path("/sys/class/video4linux").glob("video*"):
        if (device / "name").read_text().startswith("vivid"):
            return f"/dev/{device.name}"
    raise Wrong("the vivid camera is unplugged")
