"""The documents are held to the code: commands, links, pictures, files, codes and lights in them.

    python tests/test_docs.py --write

writes the tables that are made from the code (lights and codes, in both languages) anew.
"""

from __future__ import annotations

import ast
import re
import shlex
import sys
import textwrap
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from test_words import FORBIDDEN, broken_rules
from typer.main import get_command

from agent import patterns, profiles, settings, words
from agent.cli import codes, command
from agent.cli.app import app
from agent.cli.card import table, text
from agent.hands import plan
from agent.link.commands import typed
from agent.model import Command, State
from agent.room.commands import ON_A_BOX

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted({*ROOT.glob("*.md"), *DOCS.rglob("*.md")} - {ROOT / "CHANGELOG.md"})
PICTURES = sorted((DOCS / "pictures").glob("*.svg"))
TROUBLE = {"en": DOCS / "troubleshooting.md", "vi": DOCS / "vi" / "khac-phuc-su-co.md"}
PAIRS = [
    (DOCS / english, DOCS / "vi" / vietnamese)
    for english, vietnamese in (
        ("troubleshooting.md", "khac-phuc-su-co.md"),
        ("installation.md", "cai-dat.md"),
    )
    if (DOCS / english).exists()
]
STRIP_S = 6.0
STANDINS = '[camera.cam-front]\nsource = "v4l2:/dev/video0"\n'
"""Devices that a fragment of a room.toml may name."""
_PROGRAM = re.compile(r"(?<![\w.-])(?<!-[ugo] )hearing-room(?![\w./-])[ ]+([^|\n`>]*)")
_ROW = re.compile(r"\| `([a-z0-9-]+)` \| (.*) \|$")
_PATH = re.compile(
    r"`((?:agent|tests|docs|firmware_profiles|systemd|packaging)/[\w./-]*|install\.sh)`"
)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def lines_of(page: Path) -> tuple[str, ...]:
    return tuple(page.read_text(encoding="utf-8").splitlines())


def fences(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page that are in a language."""
    pattern = rf"^( *)```{language}\n(.*?)^\1```$"
    found = re.findall(pattern, page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(block) for _, block in found]


def is_code(line: str) -> bool:
    """Whether a line is indented as code; five spaces are a list in a list that goes on."""
    indent = len(line) - len(line.lstrip())
    return indent == 4 or indent > 5


def prose(page: Path) -> Iterator[str]:
    """The lines of a page outside of blocks of code."""
    inside = False
    for line in lines_of(page):
        if line.lstrip().startswith("```"):
            inside = not inside
        elif not inside and not is_code(line) and not line.startswith("<!--"):
            yield line


def anchor(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    kept = re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", heading).strip().lower())
    return kept.replace(" ", "-")


@cache
def headings(page: Path) -> tuple[tuple[int, str], ...]:
    found = (re.match(r"(#+) (.*)", line) for line in prose(page))
    return tuple((len(m[1]), m[2]) for m in found if m)


# -- commands -----------------------------------------------------------------------------------


def commands() -> Iterator[tuple[str, str]]:
    """Every `hearing-room ...` of every page: where, and the words after the name."""
    for page in PAGES:
        fenced = False
        for number, line in enumerate(lines_of(page), 1):
            fenced ^= line.lstrip().startswith("```")
            whole = fenced or is_code(line)
            for code in [line] if whole else re.findall(r"`([^`]*)`", line):
                for found in _PROGRAM.finditer(code):
                    yield f"{name_of(page)}:{number}", found[1].strip()


def check_command(tail: str) -> None:
    """Raises for a subcommand or an option that is not there, or an argument that cannot be."""
    given = shlex.split(tail, comments=True)
    node: Any = get_command(app)
    if given[0].startswith("-"):
        assert given[0] in {o for p in node.params for o in p.opts} | {"--help"}, given[0]
        return
    while hasattr(node, "commands"):
        assert given, f"a subcommand is missing after {node.name}"
        name, *given = given
        assert name in node.commands, f"no command {name!r}"
        node = node.commands[name]
    if any(word in ("NAME", "...") or word.startswith("[") for word in given):
        return  # a form, not a command
    context = node.make_context(node.name, list(given))
    if node.name == "command" and context.params["name"]:
        wanted = context.params["name"]
        typed(Command("", wanted, command.parse(context.params["words"] or [])))
        assert wanted in ON_A_BOX, f"{wanted} is not carried out by this version"
    if node.name == "codes" and (chosen := context.params["pattern"]) not in (None, "KIND"):
        known = codes.declared()
        assert chosen in known or chosen in {c.partition(".")[0] for c in known}, chosen


def test_every_command_in_the_documents_exists() -> None:
    wrong = []
    for where, tail in commands():
        if not tail or tail.startswith("#"):
            continue
        try:
            check_command(tail)
        except Exception as error:
            wrong.append(f"{where}: hearing-room {tail}: {getattr(error, 'message', error)}")
    assert wrong == []


@pytest.mark.parametrize(
    "tail",
    [
        "statsu",
        "status --wath",
        "config",
        "codes cameras",
        "command relay.set relay=a",
        "command relay.set relay=a on=maybe",
        "command box.explode",
        "--verison",
    ],
)
def test_a_command_that_does_not_exist_is_seen(tail: str) -> None:
    with pytest.raises(Exception, match=r"\w"):
        check_command(tail)


def test_the_commands_are_found() -> None:
    tails = [tail for _, tail in commands()]
    assert len(tails) > 40
    assert "command relay.pulse relay=cam-power" in tails


# -- files, links, pictures ----------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", "\n".join(prose(page))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, at = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists():
            wrong.append(f"{target}: no such file")
        elif at and at not in {anchor(h) for _, h in headings(file)}:
            wrong.append(f"{target}: no such heading")
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_file_that_is_named_is_there(page: Path) -> None:
    named = {p for line in prose(page) for p in _PATH.findall(line) if "*" not in p}
    missing = sorted(p for p in named if not (ROOT / p).exists())
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_test_that_is_named_is_there(page: Path) -> None:
    known = {n for file in (ROOT / "tests").rglob("test_*.py") for n in _functions(file)}
    named = {n for line in prose(page) for n in re.findall(r"`(test_\w+)`", line)}
    assert sorted(named - known) == []


@cache
def _functions(file: Path) -> frozenset[str]:
    return frozenset(re.findall(r"^(?:async )?def (test_\w+)", file.read_text(), re.MULTILINE))


@pytest.mark.parametrize("picture", PICTURES, ids=lambda p: p.name)
def test_a_picture_stands_alone_and_is_used(picture: Path) -> None:
    source = picture.read_text(encoding="utf-8")
    root = ElementTree.fromstring(source)
    space = "{http://www.w3.org/2000/svg}"
    assert root.tag == f"{space}svg"
    assert root.find(f"{space}title") is not None
    assert "viewBox" in root.attrib
    assert not re.search(r"href|url\(|@import|<script", source), "refers to something else"
    assert len(source) < 16_384
    assert any(f"pictures/{picture.name})" in "\n".join(lines_of(p)) for p in PAGES)


# -- room.toml -----------------------------------------------------------------------------------


def rooms() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for number, block in enumerate(fences(page, "toml")):
            yield f"{name_of(page)} block {number}", block


@pytest.mark.parametrize(
    ("where", "block"), list(rooms()), ids=lambda v: v if " block " in v else ""
)
def test_every_room_in_the_documents_can_be(where: str, block: str) -> None:
    tables = tomllib.loads(block)
    head = "" if "room" in tables else '[room]\nsite = "hcm"\nid = "hcm-tgpl-01"\n'
    standins = "" if "cam-front" in tables.get("camera", {}) else STANDINS
    plan.of(settings.parse(head + block + "\n" + standins))


def test_the_pins_of_boards_are_those_of_their_profiles() -> None:
    rows = {m[1]: m[2] for line in lines_of(DOCS / "wiring.md") if (m := _ROW.match(line))}
    for name, board in profiles.all_relay_boards().items():
        if board.bus != "gpio" or board.relays is None or not board.relays.pins:
            continue
        assert name in rows, f"{name} is missing in the table of pins"
        cells = rows[name].split("|")
        pins = [int(n) for n in re.findall(r"\d+", re.split(r"[;(]", cells[0])[0])]
        assert pins == list(board.relays.pins), name
        low = board.polarity.active_low if board.polarity else None
        assert cells[1].strip()[0] == ("0" if low else "1"), name


# -- two languages ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("english", "vietnamese"), PAIRS, ids=lambda p: p.name)
def test_both_languages_have_the_same_sections(english: Path, vietnamese: Path) -> None:
    shapes = []
    for page in (english, vietnamese):
        found = (re.match(r"#+ |\| |\d+\. |- |!\[", line) for line in lines_of(page))
        shapes.append([mark[0] for mark in found if mark])
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(("english", "vietnamese"), PAIRS, ids=lambda p: p.name)
def test_both_languages_have_the_same_commands(english: Path, vietnamese: Path) -> None:
    def typed_in(page: Path) -> list[str]:
        code = [line for line in lines_of(page) if is_code(line)]
        return [re.sub(r"\s+#.*", "", line).strip() for line in code]

    assert typed_in(english) == typed_in(vietnamese)
    for language in ("sh", "toml"):
        bare = [
            [re.sub(r"#.*", "", b) for b in fences(page, language)]
            for page in (english, vietnamese)
        ]
        assert bare[0] == bare[1] or language == "toml"


@pytest.mark.parametrize("page", [v for _, v in PAIRS], ids=lambda p: p.name)
def test_vietnamese_pages_keep_the_style_of_the_words(page: Path) -> None:
    wrong = []
    for line in prose(page):
        bare = re.sub(r"`[^`]*`|!\[[^]]*\]|[|]", "", line)
        broken = [r for r in broken_rules("vi", bare) if r != "stray spaces"]
        wrong += [f"{line}: {broken}"] if broken else []
    assert wrong == []
    assert "hãy" in FORBIDDEN["vi"]


# -- lights, codes, doctor ------------------------------------------------------------------------


def tables(language: str) -> dict[str, list[str]]:
    """The tables that are made from the code, by name."""
    terms, texts = words.terms(language), words.load(language)
    head = {
        "vi": ("Nhịp (6 giây)", "Màu", "Nghĩa", "Việc cần làm", "Mã", "Báo", "Ai xử lý"),
        "en": ("Rhythm (6 s)", "Colour", "Meaning", "What to do", "Code", "It says", "Who"),
    }[language]
    card = table.of(None)

    def row(one: table.Row) -> str:
        shown = one.pattern or patterns.DARK
        drawn = "" if one.key == "not_ready" else f"`{text.strip(shown, STRIP_S)}`"
        colour = text.colours(one, language)
        means = f"**{one.name[language]}**"
        if one.means.get(language):
            means += f": {one.means[language]}"
        return f"| {drawn} | {colour} | {means} | {one.do.get(language, '')} |"

    lights = [f"| {head[0]} | {head[1]} | {head[2]} | {head[3]} |", "|---|---|---|---|"]
    for state in card.states:
        lights.append(row(state))
        lights += [row(f) for f in card.families] if state.key == "not_ready" else []
    lights += [row(lamp) for lamp in card.lamps]
    listed = [f"| {head[4]} | {head[5]} | {head[3]} | {head[6]} |", "|---|---|---|---|"]
    for code in codes.declared():
        meaning = texts[code]
        title = meaning.title_for(terms[f"kind.{code.partition('.')[0]}"])
        steps = " ".join(f"{n}. {step}" for n, step in enumerate(meaning.steps, 1))
        listed.append(f"| `{code}` | {title} | {steps} | {terms[f'who.{meaning.who}']} |")
    return {"lights": lights, "codes": listed}


def with_tables(page: str, language: str) -> str:
    """The page with its made tables as they have to be now."""
    for name, rows in tables(language).items():
        begin, end = f"<!-- {name} (made from the code) -->", f"<!-- end of {name} -->"
        before, found, rest = page.partition(begin)
        assert found, f"{begin} is missing"
        _, found, after = rest.partition(end)
        assert found, f"{end} is missing"
        page = "\n".join([before + begin, *rows, end + after])
    return page


@pytest.mark.parametrize("language", TROUBLE)
def test_lights_and_codes_stand_in_the_page_as_in_the_code(language: str) -> None:
    page = TROUBLE[language].read_text(encoding="utf-8")
    assert page == with_tables(page, language), "run: python tests/test_docs.py --write"


@pytest.mark.parametrize("language", TROUBLE)
def test_every_pattern_can_be_found(language: str) -> None:
    """Made from the card, which has every pattern: an empty card would be seen here."""
    page = TROUBLE[language].read_text(encoding="utf-8")
    for pattern in patterns.PATTERNS.values():
        assert f"`{text.strip(pattern, STRIP_S)}`" in page, pattern.name


def doctor_lines() -> set[str]:
    """What `hearing-room doctor` may say a line about."""
    found: set[str] = set()
    files = ("agent/cli/doctor.py", "agent/cli/installed.py")
    trees = [ast.parse((ROOT / name).read_text(encoding="utf-8")) for name in files]
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Line" and node.args:
            first = node.args[0]
            if isinstance(first, ast.Constant):
                found.add(str(first.value))
    return found


@pytest.mark.parametrize("language", TROUBLE)
def test_every_line_of_doctor_is_explained(language: str) -> None:
    page = TROUBLE[language].read_text(encoding="utf-8")
    lines = doctor_lines()
    assert len(lines) > 8
    assert sorted(line for line in lines if f"`{line}`" not in page) == []


@pytest.mark.parametrize("language", TROUBLE)
def test_every_refusal_of_the_contract_is_explained(language: str) -> None:
    contract = (DOCS / "contract.md").read_text(encoding="utf-8")
    part = contract.partition("- Codes of refusal:")[2].partition("\n- ")[0]
    refusals = set(re.findall(r"`([a-z_]+)`", part)) - {
        "in_session",
        "absent",
        "error",
        "exception",
    }
    assert len(refusals) > 15
    page = TROUBLE[language].read_text(encoding="utf-8")
    assert sorted(code for code in refusals if f"`{code}`" not in page) == []


@pytest.mark.parametrize("language", TROUBLE)
def test_what_the_status_says_is_quoted_as_it_is(language: str) -> None:
    page = TROUBLE[language].read_text(encoding="utf-8")
    terms, texts = words.terms(language), words.load(language)
    said = [terms[f"table.{key}"] for key in ("no_agent", "agent_offline", "broker_lost")]
    said += [terms["mode.in_session"], terms["mode.maintenance"]]
    said += [texts["agent.nothing_configured"].title_for("")]
    assert [one for one in said if f"*{one}*" not in page] == []
    states = [f"] {terms[f'state.{state}'].upper()}`" for state in State]
    assert [one for one in states if one not in page] == []


def write() -> None:
    """Write the made tables into the pages."""
    for language, page in TROUBLE.items():
        page.write_text(with_tables(page.read_text(encoding="utf-8"), language), encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python tests/test_docs.py --write")
    write()
