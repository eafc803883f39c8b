"""The few facts that a running room takes from a profile, read without its schema."""

from __future__ import annotations

import subprocess
import sys

import pytest

from agent import kinds, known_models, profiles, settings
from agent.model import ConfigError

HEAD = '[room]\nsite = "hcm"\nid = "room-01"\n'


def test_every_model_is_known_as_its_profile_knows_it() -> None:
    shipped = profiles.all_devices()
    assert known_models.ids() == sorted(shipped)
    for id, profile in shipped.items():
        known = known_models.by_id(id)
        assert known is not None
        assert (known.id, known.kinds) == (id, profile.kinds)
        for usb in profile.match.usb:
            found = known_models.by_usb(usb)
            sure = profiles.match(usb, "whatever it calls itself")
            assert (found and found.id) == (sure and sure.id)
        for mode in profile.modes:
            assert known_models.by_usb(mode.usb) is None
    assert known_models.by_id("no-such-model") is None
    assert known_models.by_id("../boxes/raspberry-pi-5") is None
    assert known_models.by_usb("1d6b:0002") is None


@pytest.mark.parametrize("id", known_models.ids())
def test_what_a_profile_gives_is_valid_for_every_kind_that_it_serves(id: str) -> None:
    known = known_models.by_id(id)
    assert known is not None
    for kind in known.kinds:
        usb = known.facts["match"]["usb"][0]
        table = settings.with_profile(kind, {"source": f"usb:{usb}", "profile": id})
        made = settings.from_table(kinds.load(kind).Settings, table)
        assert made.profile == id


def room(text: str) -> settings.Room:
    return settings.parse(HEAD + text)


def mistakes(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        room(text)
    return str(caught.value)


def test_a_room_takes_the_mode_the_controls_and_the_boot_loader_of_a_model() -> None:
    described = room(
        """
[camera.cam]
source = "usb:046d:085c@1-1.2"
[camera.huddly]
source = "usb:2bd9:a031"
[camera.by-node]
source = "v4l2:/dev/video4"
usb_id = "046d:082d"
[microphone.mic]
source = "usb:0B0E:0422"
"""
    )
    by_id = {d.id: d for d in described.devices}
    cam, huddly, mic = (by_id[name].settings for name in ("cam", "huddly", "mic"))
    assert (cam.width, cam.height, cam.fps) == (1920, 1080, 30)
    assert cam.controls == {"power_line_frequency": 1}
    assert by_id["cam"].profile == cam.profile == "logitech-c922"
    assert huddly.modes == {"2bd9:ba01": "adapter_only"}
    assert by_id["by-node"].profile == "logitech-c920"
    assert (mic.usual_rate, mic.usual_channels, mic.rate) == (16_000, 1, None)
    assert mic.modes == {"0b0e:0421": "dfu"}


def test_what_the_room_says_itself_counts() -> None:
    described = room(
        """
[camera.a]
source = "usb:046d:085c"
fps = 15
controls = { power_line_frequency = 2, exposure_dynamic_framerate = 0 }
[camera.b]
source = "usb:046d:085e"
profile = "none"
[camera.c]
source = "v4l2:/dev/video0"
profile = "logitech-c922"
[microphone.dongle]
source = "usb:534d:2109"
[camera.odd]
source = "usb:0b0e:0422"
[microphone.named]
source = "hw:1"
profile = "macrosilicon-ms2109"
"""
    )
    by_id = {d.id: d for d in described.devices}
    a = by_id["a"].settings
    assert (a.width, a.height, a.fps) == (None, None, 15), "half a mode is none"
    assert a.controls == {"power_line_frequency": 2, "exposure_dynamic_framerate": 0}
    assert by_id["b"].settings.width is None
    assert by_id["c"].settings.controls == {"power_line_frequency": 1}
    assert by_id["dongle"].profile is None, "an id that many makes share"
    odd = by_id["odd"]
    assert (odd.profile, odd.settings.modes) == (None, {}), "a speakerphone is no camera"
    assert by_id["named"].settings.usual_rate == 48_000


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            '[camera.a]\nsource = "usb:046d:1234"\nprofile = "logitech-c92"\n',
            "camera.a.profile: no profile 'logitech-c92'; did you mean logitech-c922?",
        ),
        (
            '[camera.a]\nsource = "file:x"\nprofile = "zzz"\n',
            "camera.a.profile: no profile 'zzz'; see: hearing-room profiles list",
        ),
        (
            '[camera.a]\nsource = "file:x"\nprofile = "blue-yeti"\n',
            "camera.a.profile: blue-yeti is no camera; it serves as microphone",
        ),
        ('[camera.a]\nsource = "file:x"\nprofile = 3\n', "camera.a.profile: must be text"),
        (
            '[camera.a]\nsource = "file:x"\ncontrols = { power_line_freq = 1 }\n',
            "unknown control 'power_line_freq'; did you mean power_line_frequency?",
        ),
        ('[camera.a]\nsource = "file:x"\ncontrols = { gain = "high" }\n', "camera.a.controls.gain"),
    ],
)
def test_a_mistake_is_named(text: str, told: str) -> None:
    assert told in mistakes(text)


def test_the_daemon_does_without_the_schema_of_profiles() -> None:
    code = (
        "import sys, agent.room\nfrom agent import settings\n"
        f"settings.parse({HEAD + '[camera.a]' + chr(10) + 'source = ' + repr('usb:046d:085c')!r})\n"
        "print([m for m in sys.modules if m.startswith('agent.profiles')])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "[]"
