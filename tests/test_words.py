"""The words: every code has them, in both languages, in the style that people were promised."""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Iterator
from importlib import resources
from typing import Any

import pytest

from agent import kinds, words
from agent.judge import own
from agent.model import Clock, Fault, Level, Mode, Seat, State

PLACES = ("codes", "terms")
NAMED = {
    "camera",
    "microphone",
    "speaker",
    "display",
    "firmware",
    "relay",
    "button",
    "indicator",
}
"""Kinds of which a room may have several: the title has to say which one it is about."""
ONE_OF_A_KIND = {"network", "host", "ups"}
"""Kinds whose title reads better without the id that stands in for a name."""
FORBIDDEN = {
    # word -> why it may not stand in a text for people
    "vi": {
        "hãy": "an order; the bare verb is polite enough",
        "hỏng": "nobody has proved it",
        "tạm ngừng": "a legal act of the panel of judges",
        "lỗi người dùng": "blames the reader",
        "micrô": "the circular writes micro",
        "toà": "spelt tòa here",
        "hoà": "spelt hòa here",
        "khoá": "spelt khóa here",
    },
    "en": {
        "defective": "nobody has proved it",
        "suspend": "a legal act of the panel of judges",
        "verdict": "in a hearing room that word has an owner",
        "user error": "blames the reader",
    },
}
CODES = (
    "camera: absent wrong_device no_answer busy black covered frozen blurred overexposed "
    "underexposed noisy no_signal corrupted low_fps low_resolution moved flicker; "
    "microphone: absent no_answer busy silent muted clipping hum noisy too_quiet too_loud "
    "dropouts dead_channel; "
    "speaker: absent no_answer busy loop_failed echo; "
    "display: absent off unknown_power wrong_mode wrong_input muted changed error; "
    "network: no_link slow_link half_duplex no_address gateway_unreachable dns_failing "
    "endpoint_unreachable tls_expiring tls_invalid high_rtt high_jitter loss low_bandwidth "
    "wifi_weak; "
    "host: undervoltage throttled hot disk_full disk_readonly storage_errors memory_low "
    "clock_unsynced clock_stepped stuck_process; "
    "usb: slow_port resets overcurrent wrong_port storage_inserted; "
    "ups: on_battery low no_answer; "
    "firmware: outdated forbidden unknown; "
    "relay: absent no_answer readback_differs interlocked over_budget; "
    "button: stuck; "
    "agent: broker_unreachable certificate_expiring store_failing store_gap clock_blocks_tls "
    "hands_lost unconfined no_evidence nothing_configured"
)


def first_set() -> set[str]:
    """The codes that the outside world was promised."""
    return {
        f"{kind}.{problem}"
        for kind, problems in (part.split(": ") for part in CODES.split("; "))
        for problem in problems.split()
    }


def raw(language: str) -> dict[str, Any]:
    text = resources.files(words).joinpath(f"{language}.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def leaves(table: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        here = f"{path}.{key}" if path else key
        if isinstance(value, dict):
            yield from leaves(value, here)
        else:
            yield here, value


def texts(language: str) -> Iterator[tuple[str, str]]:
    for path, value in leaves(raw(language)):
        for text in value if isinstance(value, list) else [value]:
            yield path, text


def broken_rules(language: str, text: str) -> list[str]:
    """The reasons why a text may not be shown to people."""
    found = [
        f"{word!r}: {why}"
        for word, why in FORBIDDEN[language].items()
        if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE)
    ]
    if unicodedata.normalize("NFC", text) != text:
        found.append("not NFC")
    if "!" in text:
        found.append("no exclamation marks")
    if text != text.strip() or "  " in text:
        found.append("stray spaces")
    return found


def test_both_languages_have_the_same_keys() -> None:
    vi, en = (dict(leaves(raw(language))) for language in words.LANGUAGES)
    assert sorted(vi) == sorted(en)
    assert {key.partition(".")[0] for key in vi} == set(PLACES)


@pytest.mark.parametrize("language", words.LANGUAGES)
def test_every_promised_code_has_words_and_nothing_else_does(language: str) -> None:
    declared = set(own.CODES).union(*(kinds.load(name).CODES for name in kinds.names()))
    assert set(words.load(language)) == first_set() | declared


@pytest.mark.parametrize("kind", kinds.names())
@pytest.mark.parametrize("language", words.LANGUAGES)
def test_every_code_of_a_kind_has_its_words(language: str, kind: str) -> None:
    assert set(kinds.load(kind).CODES) <= set(words.load(language))
    assert f"kind.{kind}" in words.terms(language)


@pytest.mark.parametrize("language", words.LANGUAGES)
def test_every_code_has_three_short_steps_and_somebody_who_can_fix_it(language: str) -> None:
    for code, w in words.load(language).items():
        assert len(w.steps) == 3, code
        assert len(set(w.steps)) == 3, code
        assert w.who in words.WHO, code
        assert 0 < len(w.title) <= 70, code
        assert not w.title.endswith("."), code
        assert 0 < len(w.cause) <= 160, code
        assert w.cause.endswith("."), code
        for step in w.steps:
            assert len(step) <= 160, code
            assert step[-1] in ".?", f"{code}: {step}"
            assert step[:1].isupper(), f"{code}: {step}"
            assert step[:-1].count(". ") == 0, f"{code}: more than one sentence: {step}"


def test_both_languages_name_the_same_person() -> None:
    vi, en = (words.load(language) for language in words.LANGUAGES)
    assert {c: w.who for c, w in vi.items()} == {c: w.who for c, w in en.items()}
    assert {w.who for w in vi.values()} == set(words.WHO)


@pytest.mark.parametrize("language", words.LANGUAGES)
def test_texts_keep_the_style_that_was_promised(language: str) -> None:
    wrong = [
        (path, rules) for path, text in texts(language) if (rules := broken_rules(language, text))
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "text",
    [
        "Hãy bật micro.",
        "Micro hỏng",
        "Phiên tòa tạm ngừng",
        "Tắt ngay!",
        "Phòng xử án của toà",
        unicodedata.normalize("NFD", "Sẵn sàng"),
        "Bật  đèn.",
    ],
)
def test_a_text_that_breaks_the_style_is_seen(text: str) -> None:
    assert broken_rules("vi", text)


def test_a_text_in_good_style_passes() -> None:
    assert broken_rules("vi", "Bật điều hòa của phòng xử án, rồi báo Thư ký phiên tòa.") == []


@pytest.mark.parametrize("language", words.LANGUAGES)
def test_the_name_stands_only_in_titles_and_only_once(language: str) -> None:
    for path, text in texts(language):
        fields = re.findall(r"\{[^}]*\}?|\}", text)
        kind = path.split(".")[1]
        if not path.endswith(".title"):
            assert fields == [], path
        else:
            assert fields in ([], ["{name}"]), path
            assert not (kind in NAMED and not fields), f"{path}: which one?"
            assert not (kind in ONE_OF_A_KIND and fields), path


@pytest.mark.parametrize("language", words.LANGUAGES)
def test_every_word_of_the_model_has_a_term(language: str) -> None:
    terms = words.terms(language)
    for section, members in {
        "state": State,
        "mode": Mode,
        "level": Level,
        "fault": Fault,
        "clock": Clock,
        "seat": Seat,
        "who": words.WHO,
    }.items():
        assert {t for t in terms if t.startswith(f"{section}.")} == {
            f"{section}.{m}" for m in members
        }
    assert all(terms.values())


def test_a_title_carries_the_name_of_its_device() -> None:
    assert (
        words.load("vi")["camera.frozen"].title_for("Camera chính") == "Camera chính bị đứng hình"
    )
    assert words.load("en")["network.loss"].title_for("court") == "The network line loses data"


def test_vietnamese_is_vietnamese_and_english_is_english() -> None:
    marks = re.compile("[đăâêôơưàáảãạèéẻẽẹìíỉĩịòóỏõọùúủũụỳýỷỹỵ]", re.IGNORECASE)
    for _, text in texts("en"):
        assert not marks.search(text), text
    for code, w in words.load("vi").items():
        for text in (w.cause, *w.steps):
            assert marks.search(unicodedata.normalize("NFC", text)), f"{code}: {text}"


@pytest.mark.parametrize("ask", [words.load, words.terms])
def test_a_language_that_is_not_there_is_refused_by_name(ask: Any) -> None:
    with pytest.raises(ValueError, match=r"'fr'.*vi, en"):
        ask("fr")
