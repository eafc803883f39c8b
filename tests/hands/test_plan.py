"""room.toml -> what hands has to hold, with every mistake named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from agent import profiles, settings
from agent.hands import layout, plan
from agent.hands.boards import PROTOCOLS
from agent.hands.layout import Layout, Place
from agent.model import ConfigError

HEAD = '[room]\nsite = "test"\nid = "room-01"\n'


def made(text: str) -> Layout:
    return plan.of(settings.parse(HEAD + text))


def mistakes(text: str) -> str:
    with pytest.raises(ConfigError) as error:
        made(text)
    return str(error.value)


def test_relays_keep_all_their_rules() -> None:
    text = """
    [camera.cam]
    source = "usb:046d:0843"
    [relay.cam-power]
    pin = 26
    active_low = true
    group = "g"
    wait_ms = 1500
    power_on = "last"
    on_stop = "safe"
    min_on_s = 5
    min_off_s = 10
    max_per_h = 6
    pulse_s = 12
    max_on_s = 3600
    session_lock = false
    feedback_pin = 16
    feedback_active_low = false
    powers = "cam"
    """
    (relay,) = made(text).relays
    assert relay == layout.Relay(
        "cam-power",
        Place(pin=26, active_low=True),
        group="g",
        power_on="last",
        on_stop="safe",
        wait_s=1.5,
        min_on_s=5,
        min_off_s=10,
        max_per_h=6,
        pulse_s=12,
        max_on_s=3600,
        session_lock=False,
        feedback_pin=16,
        feedback_active_low=False,
    )


def test_a_board_on_the_header_gives_pin_and_polarity() -> None:
    (relay,) = made('[relay.r]\nboard = "waveshare-3ch"\nchannel = 2\n').relays
    assert relay.place == Place(pin=20, active_low=True)
    (turned,) = made('[relay.r]\nboard = "waveshare-3ch"\nchannel = 2\nactive_low = false\n').relays
    assert turned.place.active_low is False, "a jumper may turn it round"


def test_a_board_elsewhere_says_how_it_is_spoken_to() -> None:
    (relay,) = made('[relay.r]\nboard = "lcus-serial"\nat = "1-1.3"\nchannel = 2\n').relays
    assert relay.place.spec == {
        "bus": "serial",
        "protocol": "lcus",
        "relays": 8,
        "usb": ["1a86:7523"],
        "product": None,
        "baud": 9600,
        "framing": "8N1",
        "reads_back": True,
    }
    assert str(relay.place) == "lcus-serial@1-1.3 channel 2"


def test_lights_of_all_shapes() -> None:
    text = """
    [indicator.rgb]
    red = 17
    green = 27
    blue = 22
    [indicator.door]
    role = "door"
    pin = 5
    [indicator.tower]
    red = "dcttech-usbrelay:1"
    green = "dcttech-usbrelay:2"
    quiet_in_session = false
    [indicator.act]
    led = "ACT"
    [indicator.flag]
    red = "led:luxafor*:red:led*"
    green = "led:luxafor*:green:led*"
    blue = 23
    [indicator.one]
    pin = "led:delcom0:red"
    """
    lights = {light.id: light for light in made(text).lights}
    assert lights["rgb"].lamps == {"red": Place(17), "green": Place(27), "blue": Place(22)}
    assert (lights["door"].role, lights["door"].lamps) == ("door", {"white": Place(5)})
    assert lights["tower"].lamps["green"].channel == 2
    assert lights["tower"].quiet_in_session is False
    assert lights["act"].lamps == {"white": Place(led="ACT")}
    assert lights["flag"].lamps == {
        "red": Place(led="luxafor*:red:led*"),
        "green": Place(led="luxafor*:green:led*"),
        "blue": Place(23),
    }
    assert lights["one"].lamps == {"white": Place(led="delcom0:red")}


def test_two_boards_of_a_kind_are_told_apart_by_where_they_are() -> None:
    text = """
    [relay.a]
    board = "dcttech-usbrelay"
    at = "1-1.2"
    channel = 1
    [relay.b]
    board = "dcttech-usbrelay"
    at = "1-1.3"
    channel = 1
    [indicator.i]
    red = "dcttech-usbrelay@1-1.3:2"
    green = "seeed-4ch-i2c@i2c-1@0x20:4"
    """
    room = made(text)
    assert [str(r.place) for r in room.relays] == [
        "dcttech-usbrelay@1-1.2 channel 1",
        "dcttech-usbrelay@1-1.3 channel 1",
    ]
    green = room.lights[0].lamps["green"]
    assert (green.at, green.channel, green.active_low) == ("i2c-1@0x20", 4, True)


def test_every_board_in_the_catalogue_can_be_spoken_to() -> None:
    boards = profiles.all_relay_boards().values()
    named = {b.id: b.protocol.value for b in boards if b.protocol}
    assert set(named) == {b.id for b in boards if b.bus != "gpio"}
    assert set(named.values()) == set(PROTOCOLS)


def test_a_board_without_a_protocol_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    text = 'name = "B"\nbus = "hid"\n[match]\nusb = ["1234:5678"]\nsource = "made up here"\n'
    mute = profiles.parse(profiles.RelayBoard, "mute", text)
    monkeypatch.setattr(profiles, "all_relay_boards", lambda: {"mute": mute})
    assert "its profile names no protocol" in mistakes('[relay.r]\nboard = "mute"\nchannel = 1\n')


def test_a_button_keeps_its_times() -> None:
    (button,) = made("[button.b]\npin = 4\ncheck_s = 2\nmaintenance_s = 6\n").buttons
    assert button == layout.Button("b", 4, check_s=2, maintenance_s=6)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[relay.r]\nboard = "nope"\nchannel = 1\n', "relay.r: no board 'nope'; known are dcttech"),
        ('[relay.r]\nboard = "waveshare-3ch"\nchannel = 4\n', "has 3 relays, no channel 4"),
        ('[relay.r]\nboard = "generic-opto"\nchannel = 1\n', "wired freely: give pin"),
        ('[relay.r]\nboard = "lcus-serial"\nchannel = 1\n', "say where it is plugged in, at = "),
        ('[relay.r]\nboard = "waveshare-3ch"\nat = "1-1"\nchannel = 1\n', "leave `at` out"),
        ('[relay.r]\nboard = "seeed-4ch-i2c"\nchannel = 1\n', "it may be at 0x20, 0x21, 0x22"),
        ('[relay.r]\nboard = "seeed-4ch-i2c"\nat = "0x10"\nchannel = 1\n', "it answers at 0x20"),
        ('[relay.r]\nboard = "seeed-4ch-i2c"\nat = "1-1"\nchannel = 1\n', "is no address"),
        ('[relay.r]\nboard = "lcus-serial"\nat = "COM3"\nchannel = 1\n', "neither a USB port"),
        ('[relay.r]\nboard = "hidrelay"\nchannel = 9\n', "has 8 relays at most, no channel 9"),
        (
            '[relay.r]\nboard = "hidrelay"\nchannel = 1\n'
            '[relay.s]\nboard = "hidrelay"\nat = "1-1.2"\nchannel = 1\n',
            'relay.s: board hidrelay with at = "1-1.2", in relay.r with at = "": say in both',
        ),
        (
            '[relay.r]\nboard = "waveshare-3ch"\nchannel = 1\n[button.b]\npin = 26\n',
            "button.b: GPIO 26 is taken by relay.r",
        ),
        (
            '[relay.r]\nboard = "waveshare-3ch"\nchannel = 1\n'
            "[relay.s]\npin = 4\nfeedback_pin = 26\n",
            "relay.s: GPIO 26 is taken by relay.r",
        ),
        (
            '[relay.r]\npin = 4\ngroup = "g"\npower_on = "on"\n'
            '[relay.s]\npin = 5\ngroup = "g"\npower_on = "on"\n',
            "relay.s.power_on: r of group 'g'",
        ),
    ],
)
def test_what_cannot_be_is_named_with_its_place(text: str, said: str) -> None:
    assert said in mistakes(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[relay.r]\npin = 4\n[indicator.i]\npin = 4\n", "GPIO 4 is taken by"),
        ("[indicator.i]\n", "indicator.i: give pin, led, or one or more of red"),
        ("[indicator.i]\nred = 4\ngreen = 4\n", "two lamps on the same pin"),
        ("[indicator.i]\npin = 4\nred = 5\n", "name the colours instead"),
        ("[indicator.i]\npin = 28\n", "must be a BCM pin (0 to 27)"),
        ('[indicator.i]\nred = "gpio4"\n', "must be a BCM pin (0 to 27), BOARD:CHANNEL"),
        ('[indicator.i]\nled = "../x"\n', "indicator.i.led"),
        ('[indicator.i]\nred = "led:../x"\n', "or led:NAME (of /sys/class/leds), not 'led:../x'"),
        ('[indicator.i]\nred = "led:"\n', "indicator.i.red"),
        ('[indicator.i]\nled = "A"\n[indicator.j]\nred = "led:A"\n', "LED A is taken by"),
        ('[indicator.i]\nred = "led:A"\ngreen = "led:A"\n', "two lamps on the same pin"),
        ("[button.b]\npin = 4\ncheck_s = 9\n", "must rise in this order"),
        ("[relay.r]\npin = 4\nmax_on_s = 5\nmin_on_s = 6\n", "max_on_s is shorter"),
        ('[relay.r]\npin = 4\nmax_on_s = 5\npower_on = "on"\n', "off soon after every boot"),
        ('[relay.r]\npin = 4\nat = "1-1"\n', "at names a board"),
    ],
)
def test_what_is_wrong_in_one_table_is_found_when_it_is_read(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        settings.parse(HEAD + text)
    assert said in str(error.value)


def test_a_layout_survives_its_journey() -> None:
    text = """
    [relay.r]
    board = "dockerpi-4ch-i2c"
    at = "0x10"
    channel = 1
    [indicator.i]
    red = 17
    [button.b]
    pin = 4
    """
    before = made(text)
    after = layout.parse(layout.dump(before))
    assert after == before
    assert after.digest == before.digest
    assert made(text.replace("pin = 4", "pin = 5")).digest != before.digest


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version":2}', '{"version":1}', "nope"])
def test_what_is_no_layout_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"layout|JSON|Expecting"):
        layout.parse(text)


def test_the_program_prints_a_layout_or_the_mistakes(tmp_path: Path) -> None:
    file = tmp_path / "room.toml"
    command = [sys.executable, "-m", "agent.hands.plan", str(file)]

    def run(text: str) -> subprocess.CompletedProcess[str]:
        file.write_text(HEAD + text)
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    wrong = run('[relay.r]\nboard = "nope"\nchannel = 1\n')
    assert (wrong.returncode, wrong.stdout) == (78, "")
    assert "relay.r: no board" in wrong.stderr
    good = run("[relay.r]\npin = 4\n")
    assert good.returncode == 0, good.stderr
    assert json.loads(good.stdout)["relays"][0]["id"] == "r"
    assert len(good.stdout.splitlines()) == 1


def test_a_room_without_relays_lights_and_buttons_has_nothing_to_hold() -> None:
    assert made("") == Layout()
