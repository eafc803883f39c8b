"""The card as a page: one page, everything on it, nothing over the edge or over something else."""

from __future__ import annotations

import importlib.util
import io
import os
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from agent import settings, words
from agent.cli import app
from agent.cli.card import fonts, page, table, text
from agent.cli.card.fonts import MM
from agent.cli.card.ink import Ink, Run
from agent.cli.card.table import Card
from agent.model import AgentError

pypdf = pytest.importorskip("pypdf")
pytest.importorskip("reportlab")

LONG = "Phòng trợ giúp pháp lý số 1, Trung tâm Trợ giúp pháp lý nhà nước Thành phố Hồ Chí Minh,"
LONG = f"{LONG} điểm cầu thành phần mười hai ở lầu 3"[:120]
TOWER = "[indicator.tower]\nred = 5\nyellow = 6\ngreen = 13\n"
DOOR = '[indicator.door]\npin = 19\nrole = "door"\n'
MIC = '[indicator.mic]\npin = 26\nrole = "mic_live"\n'
BUTTON = "[button.desk]\npin = 21\ncheck_s = 2.5\n"


def room_card(body: str, name: str = "Phòng xử án số 1") -> Card:
    head = f'[room]\nsite = "hcm"\nid = "p-01"\nname = "{name}"\n'
    return table.of(settings.parse(head + body))


def many_lights() -> str:
    name = LONG.replace("Phòng", "Đèn")
    return "".join(
        f'[indicator.light-{n}]\nname = "{name}"\nred = {n}\ngreen = {n + 8}\nblue = {n + 16}\n'
        for n in range(8)
    )


CARDS = {
    "general": lambda: table.of(None),
    "room": lambda: room_card(TOWER + DOOR + MIC + BUTTON),
    "long": lambda: room_card(TOWER + DOOR + MIC + BUTTON, LONG),
    "many": lambda: room_card(many_lights() + "[button.desk]\npin = 24\n", LONG),
    "door-only": lambda: room_card(DOOR),
    "button-only": lambda: room_card(BUTTON),
}


def rows(card: Card) -> list[table.Row]:
    return [*card.states, *card.families, *card.buttons, *card.lamps]


def squeezed(what: str) -> str:
    return "".join(what.split())


def read(pdf: bytes) -> Any:
    return pypdf.PdfReader(io.BytesIO(pdf))


@pytest.mark.parametrize("name", CARDS)
def test_one_page_of_a4_with_every_entry_in_both_languages(name: str) -> None:
    card = CARDS[name]()
    made = read(page.draw(card, words.LANGUAGES))
    assert len(made.pages) == 1
    assert [round(float(side)) for side in made.pages[0].mediabox[2:]] == [595, 842]
    there = squeezed(made.pages[0].extract_text())
    for row in rows(card):
        for language in words.LANGUAGES:
            for said in (row.name[language], text.sentences(row, language)):
                assert squeezed(said) in there, said
    if card.room is not None:
        assert squeezed(card.room.name) in there
    assert table.revision() in there
    for language in words.LANGUAGES:
        for who in ("technician", "central"):
            assert squeezed(words.terms(language)[f"who.{who}"]) in there


def test_one_language_alone() -> None:
    card = table.of(None)
    there = squeezed(read(page.draw(card, ["en"])).pages[0].extract_text())
    assert all(squeezed(row.name["en"]) in there for row in rows(card))
    assert squeezed("Chưa sẵn sàng") not in there


def test_every_font_is_embedded() -> None:
    (only,) = read(page.draw(table.of(None), words.LANGUAGES)).pages
    used = only["/Resources"]["/Font"]
    assert len(used) >= 3
    for font in used.values():
        described = font.get_object()["/FontDescriptor"].get_object()
        assert "/FontFile2" in described, font.get_object()["/BaseFont"]


def test_the_same_card_gives_the_same_bytes(tmp_path: Path) -> None:
    made = []
    for seed in ("1", "2"):
        file = tmp_path / f"{seed}.pdf"
        done = subprocess.run(
            [sys.executable, "-m", "agent", "card", "--general", "--pdf", str(file)],
            env={**os.environ, "PYTHONHASHSEED": seed, "TZ": f"UTC-{seed}"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        made.append(file.read_bytes())
    assert made[0] == made[1]
    assert page.draw(table.of(None), words.LANGUAGES, contact="x") != made[0]


@pytest.mark.parametrize("languages", [words.LANGUAGES, ("vi",), ("en",)], ids="-".join)
@pytest.mark.parametrize("name", CARDS)
def test_nothing_is_over_the_edge_or_over_something_else(
    name: str, languages: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    written = boxes_of(CARDS[name](), languages, monkeypatch)
    check_apart(written)


def test_the_font_of_debian_serves_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    if not (fonts.DEBIAN / "DejaVuSans-Bold.ttf").exists():
        pytest.skip("fonts-dejavu-core is not here")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert {p.parent for p in fonts.files().values()} == {fonts.DEBIAN}
    written = boxes_of(table.of(None), words.LANGUAGES, monkeypatch)
    check_apart(written)


Box = tuple[str, float, float, float, float]


def boxes_of(card: Card, languages: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> list[Box]:
    """Every word that is written, with where its ink is: left, top, right, bottom, millimetres."""
    boxes: list[Box] = []
    write = Ink.write

    def seen(self: Ink, word: str, x: float, base: float, run: Run) -> None:
        high = run.size / MM
        wide = self._fonts[run.font].stringWidth(word, run.size) / MM
        boxes.append((word, x, base - 0.72 * high, x + wide - 0.01, base + 0.2 * high))
        write(self, word, x, base, run)

    monkeypatch.setattr(Ink, "write", seen)
    page.draw(card, languages, contact="Nguyễn Văn Ước, 028 3829 1234")
    return boxes


def check_apart(boxes: list[Box]) -> None:
    assert len(boxes) > 30
    for word, left, top, right, bottom in boxes:
        assert left >= page.MARGIN - 2, word  # the figure 0 of the axis stands around its mark
        assert top >= page.MARGIN - 0.5, word
        assert right <= page.WIDTH - page.MARGIN + 0.01, word
        assert bottom <= page.HEIGHT - page.MARGIN + 0.5, word
    for number, (word, left, top, right, bottom) in enumerate(boxes):
        for other, left2, top2, right2, bottom2 in boxes[number + 1 :]:
            apart = right <= left2 or right2 <= left or bottom <= top2 or bottom2 <= top
            assert apart, f"{word!r} and {other!r} at {left:.1f}, {top:.1f}"


def test_a_name_keeps_its_marks_and_loses_what_the_font_does_not_have() -> None:
    name = unicodedata.normalize("NFD", "Phòng Đổng Hữu Ước") + " 法庭"
    there = read(page.draw(room_card(TOWER, name), words.LANGUAGES)).pages[0].extract_text()
    assert squeezed("Phòng Đổng Hữu Ước ??") in squeezed(there)


def test_a_contact_that_is_long_gets_smaller_and_is_never_cut() -> None:
    who = "Nguyễn Thị Thanh Tuyền, phòng kỹ thuật, 028 3829 1234"
    there = read(page.draw(table.of(None), words.LANGUAGES, contact=who)).pages[0].extract_text()
    assert squeezed(who) in squeezed(there)
    with pytest.raises(AgentError, match="--contact: too long"):
        page.draw(table.of(None), words.LANGUAGES, contact=who * 3)


# -- the command ---------------------------------------------------------------------------------


def test_a_page_goes_to_standard_output(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert app.main(["card", "--general", "--pdf", "-"]) == 0
    assert capfdbinary.readouterr().out.startswith(b"%PDF-")


def test_a_file_that_cannot_be_written_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "none" / "card.pdf"
    assert app.main(["card", "--general", "--pdf", str(file)]) == 78
    assert str(file) in capsys.readouterr().err


def test_without_the_library_the_fix_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "card.pdf"
    with monkeypatch.context() as gone:
        gone.setitem(sys.modules, "reportlab.pdfgen", None)
        assert app.main(["card", "--general", "--pdf", str(file)]) == 3
    assert "pip install 'hearing-room-agent[card]'" in capsys.readouterr().err
    assert not file.exists()
    assert app.main(["card", "--general", "--pdf", str(file)]) == 0
    assert file.exists()


def test_without_a_font_the_fix_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(fonts, "DEBIAN", tmp_path)
    with pytest.raises(AgentError, match=r"hearing-room-agent\[card\].*fonts-dejavu-core"):
        page.draw(table.of(None), words.LANGUAGES)
