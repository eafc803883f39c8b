"""The light-and-button card: all that stands on it comes from the tables, in both languages."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from agent import kinds, patterns, settings, words
from agent.cli import app, card
from agent.cli.card import table, text
from agent.cli.card.table import ANY, Card, LightFacts
from agent.hands import press
from agent.kinds import indicator
from agent.model import ConfigError
from agent.patterns import Colour, Pattern
from agent.room.presses import MAINTENANCE_MIN

ROOM = '[room]\nsite = "hcm"\nid = "p-01"\nname = "Phòng xử án số 1"\n'
TOWER = "[indicator.tower]\nred = 5\nyellow = 6\ngreen = 13\n"
BUTTON = "[button.desk]\npin = 21\n"


def room_card(body: str) -> Card:
    return table.of(settings.parse(ROOM + body))


def keys(rows: Sequence[table.Row]) -> list[str]:
    return [row.key for row in rows]


def states() -> set[str]:
    """Every state that has a pattern; the counted ones are one state."""
    counted = {p.name for p in patterns.NOT_READY.values()}
    return set(patterns.PATTERNS) - counted | {"not_ready", "off"}


# -- the words -----------------------------------------------------------------------------------


@pytest.mark.parametrize("language", words.LANGUAGES)
def test_every_pattern_family_and_press_has_words_and_nothing_else_does(language: str) -> None:
    terms = words.terms(language)

    def of(section: str) -> set[str]:
        return {key.partition(".")[2] for key in terms if key.startswith(f"{section}.")}

    assert of("pattern") == of("pattern_do") == states()
    more = {"in_session_dark", "in_session_lit", "off_or_session"}
    assert of("pattern_means") == states() | more
    assert of("family") == of("family_do") == {str(n) for n in patterns.FAMILIES}
    meant = press.MEANINGS - {press.FREED}
    assert of("press_do") == meant | {"glass"}
    assert of("press_means") == meant | {"glass", "short_unseen"}
    assert of("lamp") == of("lamp_means") == of("lamp_do") == {"door", "mic_live", "mic_unknown"}
    assert of("colour") == {*patterns.Colour, ANY}
    roles = kinds.load("indicator").Settings.model_fields["role"].annotation
    assert {f"role_{role}" for role in roles.__args__} <= of("card")


def test_a_new_pattern_without_words_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    new = {**patterns.PATTERNS, "flooded": Pattern("flooded", Colour.RED, (0.5, 0.5))}
    monkeypatch.setattr(patterns, "PATTERNS", new)
    with pytest.raises(KeyError, match="flooded"):
        table.of(None)


def test_a_new_family_without_words_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    seven = patterns.counted("not_ready_7", Colour.RED, 7)
    monkeypatch.setattr(patterns, "NOT_READY", {**patterns.NOT_READY, 7: seven})
    with pytest.raises(KeyError, match=r"family\.7"):
        table.of(None)


def test_the_table_has_the_date_of_its_last_change() -> None:
    assert (table.revision(), table.DATE) == ("dcf2662e", "2026-11-25"), (
        "the card has changed: put the day into table.DATE, and both into this test"
    )


# -- the rhythms ---------------------------------------------------------------------------------

EVERY = [*patterns.PATTERNS.values(), patterns.DARK, patterns.HELD_CHECK]


@pytest.mark.parametrize("pattern", EVERY, ids=lambda p: p.name)
def test_what_is_drawn_is_what_hands_shows(pattern: Pattern) -> None:
    lit = list(table.flashes(pattern, table.SECONDS))
    for step in range(int(table.SECONDS * 200)):
        moment = (step + 0.5) / 200
        colour, _ = pattern.at(moment)
        assert (colour is not None) == any(a <= moment < b for a, b in lit), moment
    assert all(0 <= a < b <= table.SECONDS for a, b in lit)


@pytest.mark.parametrize("pattern", EVERY, ids=lambda p: p.name)
def test_every_flash_is_seen_on_a_terminal(pattern: Pattern) -> None:
    drawn = text.strip(pattern)
    halves = "".join({"█": "11", "▌": "10", "▐": "01", "▁": "00"}[c] for c in drawn)
    runs = [run for run in halves.split("0") if run]
    flashes = [(a, b) for a, b in table.flashes(pattern, table.SECONDS) if b - a > 0.09]
    assert len(drawn) == 60
    assert len(runs) == len(flashes)


def test_the_longest_rhythm_is_drawn_twice() -> None:
    assert max(sum(p.times) for p in patterns.PATTERNS.values()) * 2 <= table.SECONDS


def test_no_two_states_look_alike_without_colour() -> None:
    rows = [*table.of(None).states, *table.of(None).families]
    drawn = [text.strip(row.pattern) for row in rows if row.pattern is not None]
    assert len(set(drawn)) == len(drawn)


# -- what stands on it ---------------------------------------------------------------------------


def test_the_general_card_has_everything_in_the_order_of_the_table() -> None:
    made = table.of(None)
    counted = {p.name for p in patterns.NOT_READY.values()}
    single = [name for name in patterns.PATTERNS if name not in counted]
    assert [k for k in keys(made.states) if k not in ("not_ready", "off")] == single
    assert keys(made.states)[-1] == "off"
    assert keys(made.families) == [str(n) for n in patterns.FAMILIES]
    assert set(keys(made.buttons)) == press.MEANINGS - {press.FREED} | {"glass"}
    assert keys(made.lamps) == ["door", "mic_live", "mic_unknown"]
    hold = {row.key: row.name for row in made.buttons}
    assert hold["check"] == {"vi": "Giữ 3 giây", "en": "Hold for 3 s"}
    assert hold["maintenance"] == {"vi": "Giữ 8 giây", "en": "Hold for 8 s"}
    ends = next(row.means["vi"] for row in made.buttons if row.key == "maintenance")
    assert ends.endswith(f" {MAINTENANCE_MIN:g} phút.")
    for row in (*made.states, *made.families, *made.buttons, *made.lamps):
        assert set(row.name) == set(row.do) == set(words.LANGUAGES), row.key
        assert row.key in keys(made.families) or set(row.means) == set(words.LANGUAGES), row.key


def test_a_room_has_its_own_times_and_only_what_it_has() -> None:
    made = room_card("[button.desk]\npin = 21\ncheck_s = 2.5\nmaintenance_s = 6\n" + TOWER)
    hold = {row.key: row.name for row in made.buttons}
    assert hold["check"] == {"vi": "Giữ 2,5 giây", "en": "Hold for 2.5 s"}
    assert hold["maintenance"]["en"] == "Hold for 6 s"
    assert made.lamps == ()
    assert "unknown" in keys(made.states)
    without = room_card(TOWER)
    assert without.buttons == ()


def test_two_buttons_with_different_times_are_both_told() -> None:
    made = room_card(BUTTON + "[button.door]\npin = 20\ncheck_s = 5\n" + TOWER)
    assert {row.key: row.name["vi"] for row in made.buttons}["check"] == "Giữ 3 / 5 giây"


def test_without_a_status_light_nothing_is_said_about_one() -> None:
    made = room_card(BUTTON + '[indicator.door]\npin = 5\nrole = "door"\n')
    assert (made.states, made.families) == ((), ())
    assert keys(made.lamps) == ["door"]
    said = {row.key: (row.means["en"], row.do.get("en")) for row in made.buttons}
    assert said["short"] == ("The centre gets a report.", None)
    assert said["check"][1] is None
    assert said["stuck"][1] is not None


def test_a_light_that_is_quiet_in_session_is_shown_dark() -> None:
    def of(body: str) -> dict[str, table.Row]:
        return {row.key: row for row in room_card(body).states}

    quiet, lit = of(TOWER), of(TOWER + "quiet_in_session = false\n")
    assert quiet["in_session"].pattern == patterns.DARK
    assert lit["in_session"].pattern == patterns.IN_SESSION
    assert quiet["off"].means["en"].startswith("In session: normal.")
    assert "session" not in lit["off"].means["en"]


@pytest.mark.parametrize(
    ("lamps", "colour", "burns"),
    [
        (("red", "yellow", "green"), Colour.RED, ("red",)),
        (("red", "yellow", "green"), Colour.BLUE, ("yellow", "green")),
        (("red", "yellow", "green"), Colour.WHITE, ("red", "yellow", "green")),
        (("red", "green", "blue"), Colour.YELLOW, ("yellow",)),
        (("red", "green"), Colour.BLUE, ("red", "green")),
        (("green",), Colour.RED, ("green",)),
        ((ANY,), Colour.RED, (ANY,)),
        (("red",), None, ()),
    ],
)
def test_the_card_says_which_lamps_burn(
    lamps: tuple[str, ...], colour: Colour | None, burns: tuple[str, ...]
) -> None:
    assert table.burning(colour, LightFacts("x", "status", lamps, True)) == burns


def test_a_lamp_of_any_colour_counts_as_one() -> None:
    made = room_card('[indicator.act]\nled = "ACT"\n')
    assert made.lights[0].lamps == (ANY,)
    assert {row.burns for row in made.states if row.pattern != patterns.DARK} == {(ANY,)}


def test_a_room_without_light_or_button_says_what_to_add() -> None:
    with pytest.raises(ConfigError, match=r"\[indicator\.NAME\].*--general"):
        room_card("")


# -- the command ---------------------------------------------------------------------------------


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = app.main(["card", *arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def squeezed(what: str) -> str:
    return "".join(what.split())


@pytest.mark.parametrize(("asked", "there"), [([], ["vi", "en"]), (["-l", "en"], ["en"])])
def test_the_terminal_shows_every_entry(
    capsys: pytest.CaptureFixture[str], asked: list[str], there: list[str]
) -> None:
    code, out, err = run(capsys, "--general", *asked)
    assert (code, err) == (0, "")
    made = table.of(None)
    for row in (*made.states, *made.families, *made.buttons, *made.lamps):
        for language in words.LANGUAGES:
            line = f"{row.name[language]}: {text.sentences(row, language)}"
            assert (squeezed(line) in squeezed(out)) == (language in there), line
        if row.pattern is not None:
            assert text.strip(row.pattern) in out
    assert max(len(line) for line in out.splitlines()) <= 100
    assert table.revision() in out


def test_json_is_the_table(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    _, out, _ = run(capsys, "--general", "--json")
    made = json.loads(out)
    assert [row["key"] for row in made["states"]] == keys(table.of(None).states)
    at_risk = next(row for row in made["states"] if row["key"] == "at_risk")
    assert (at_risk["colour"], at_risk["times_s"], at_risk["burns"]) == (
        "yellow",
        [1.0, 1.0],
        ["yellow"],
    )
    assert made["table"] == {"date": table.DATE, "revision": table.revision()}
    assert "room" not in made
    file = tmp_path / "room.toml"
    file.write_text(ROOM + TOWER)
    _, out, _ = run(capsys, "--json", "--config", str(file))
    made = json.loads(out)
    assert made["room"]["name"] == "Phòng xử án số 1"
    assert made["lights"] == [
        {"name": "tower", "role": "status", "lamps": ["red", "yellow", "green"]}
    ]
    assert made["buttons"] == []


def test_the_card_of_a_room_names_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "room.toml"
    file.write_text(ROOM + TOWER)
    _, out, _ = run(capsys, "--config", str(file), "--contact", "Nguyễn Văn Ước, 028 3829 1234")
    assert "Phòng xử án số 1" in out
    assert "tower (đèn trạng thái: đỏ, vàng, xanh lá)" in out
    assert "vàng + xanh lá · yellow + green" in out
    assert "Nguyễn Văn Ước, 028 3829 1234" in out


def test_the_room_of_this_box_is_taken_without_being_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "room.toml"
    monkeypatch.setattr(card, "DEFAULT_PATH", file)
    assert "Phòng xử án số 1" not in run(capsys)[1]
    file.write_text(ROOM + TOWER)
    assert "Phòng xử án số 1" in run(capsys)[1]
    assert "Phòng xử án số 1" not in run(capsys, "--general")[1]


@pytest.mark.parametrize("body", ["", "[indicator.x]\nrole = 'window'\n"], ids=["bare", "wrong"])
def test_where_this_box_has_no_card_the_general_one_is_printed_and_says_so(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    file = tmp_path / "room.toml"
    file.write_text(ROOM + body)
    monkeypatch.setattr(card, "DEFAULT_PATH", file)
    code, out, err = run(capsys)
    assert code == 0
    assert "Đèn micro sáng" in out
    assert f"not the card of {file}" in err
    assert run(capsys, "--config", str(file))[0] == 78


def test_wrong_usage_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(capsys, "--language", "fr")[0] == 64
    assert run(capsys, "--config", str(tmp_path / "none.toml"))[0] == 78


def test_the_command_works_as_a_process_and_without_the_extra() -> None:
    code = (
        "import sys\n"
        "sys.modules['reportlab'] = None\n"
        "from agent.__main__ import main\n"
        "sys.exit(main(['card', '--general', '-l', 'en']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "State unknown" in done.stdout


def test_the_words_of_a_reading_are_all_explained() -> None:
    """What a light can be asked to show is on the card, or is no state of the room."""
    made = table.of(None)
    shown = {row.pattern.name for row in (*made.states, *made.families, *made.lamps) if row.pattern}
    assert indicator.WORDS - shown == {"held_check", "held_maintenance"}
