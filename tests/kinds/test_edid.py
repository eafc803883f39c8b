"""The EDID parser: made EDIDs, any bytes, and real ones where they lie beside the checkout."""

from __future__ import annotations

import csv
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from make_edid import HEADER, edid, seal, timing

from agent.kinds._edid import Edid, parse

REAL = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "edid"
INDEX = REAL / "INDEX.csv"
ROWS: list[dict[str, str]] = (
    list(csv.DictReader(INDEX.read_text().splitlines())) if INDEX.exists() else []
)


def test_a_sound_edid_is_read_whole() -> None:
    found = parse(edid())
    assert found == Edid(
        header_ok=True,
        blocks_declared=2,
        checksums=(True, True),
        truncated=False,
        manufacturer="DEL",
        product=0xD0D8,
        name="DELL P2419H",
        serial="7LM1234",
        version="1.3",
        year=2019,
        width=1920,
        height=1080,
        refresh_hz=60.0,
    )
    assert found.whole
    assert found.base_ok
    assert found.blocks_present == 2


def test_the_product_code_is_little_endian_and_the_maker_big_endian() -> None:
    raw = edid(manufacturer="GSM", product=0x0001)
    assert raw[8:12].hex() == "1e6d0100"
    assert (parse(raw).manufacturer, parse(raw).product) == ("GSM", 1)


def test_without_a_text_the_serial_is_the_number() -> None:
    assert parse(edid(serial=None, number=12345)).serial == "12345"
    assert parse(edid(serial=None, number=0)).serial == ""
    assert parse(edid(serial="   ", number=7)).serial == "7"


@pytest.mark.parametrize("version", [(1, 0), (1, 4), (1, 19), (2, 0)])
def test_a_strange_version_is_told_and_the_rest_is_read(version: tuple[int, int]) -> None:
    found = parse(edid(version=version, name=None))
    assert found.version == f"{version[0]}.{version[1]}"
    assert (found.manufacturer, found.name) == ("DEL", "")


@pytest.mark.parametrize(
    ("preferred", "mode"),
    [
        (timing(3840, 2160, 594_000, 560, 90), (3840, 2160, 60.0)),
        (timing(1280, 800, 83_500, 400, 31), (1280, 800, 59.81)),
        (timing(1920, 540, 74_250, 280, 22, interlaced=True), (1920, 1080, 60.05)),
        (bytes(18), (None, None, None)),
        (timing(0, 1080, 148_500, 280, 45), (None, None, None)),
    ],
)
def test_the_preferred_mode_is_the_first_descriptor(
    preferred: bytes, mode: tuple[int | None, int | None, float | None]
) -> None:
    found = parse(edid(preferred=preferred))
    assert (found.width, found.height, found.refresh_hz) == mode


def test_a_broken_extension_leaves_the_name_and_shows() -> None:
    raw = bytearray(edid(extensions=2))
    raw[300] ^= 1
    found = parse(bytes(raw))
    assert found.checksums == (True, True, False)
    assert (found.base_ok, found.whole) == (True, False)
    assert found.name == "DELL P2419H"


def test_a_broken_base_block_is_not_believed() -> None:
    raw = bytearray(edid())
    raw[60] ^= 1
    assert (parse(bytes(raw)).base_ok, parse(bytes(raw)).whole) == (False, False)
    raw[60] ^= 1
    assert parse(bytes(raw)).whole


def test_a_bad_header_is_not_believed_even_with_a_sound_sum() -> None:
    raw = seal(b"\1" + edid(extensions=0)[1:127])
    found = parse(raw)
    assert (found.header_ok, found.checksums, found.base_ok) == (False, (True,), False)


@pytest.mark.parametrize(
    ("keep", "blocks", "truncated"),
    [(256, 2, False), (255, 1, True), (200, 1, True), (128, 1, True), (127, 0, True), (0, 0, True)],
)
def test_a_truncated_edid_says_so(keep: int, blocks: int, truncated: bool) -> None:
    found = parse(edid()[:keep])
    assert (found.blocks_present, found.truncated) == (blocks, truncated)
    assert found.base_ok == (blocks > 0)
    assert (found.name == "DELL P2419H") == (blocks > 0)


def test_texts_are_printable_ascii_and_short() -> None:
    found = parse(edid(name="\x1b[31mTV\xe9\x00", serial="a\tb"))
    assert (found.name, found.serial) == ("[31mTV", "ab")


def test_letters_that_are_none_give_no_maker() -> None:
    raw = edid()
    assert parse(seal(raw[:8] + b"\0\0" + raw[10:127])).manufacturer == ""


def check(found: Edid) -> None:
    """What holds for any bytes at all."""
    for text in (found.manufacturer, found.name, found.serial, found.version):
        assert len(text) <= 64
        assert text.isascii()
        assert text == "" or text.isprintable()
    assert 0 <= found.product <= 0xFFFF
    assert found.whole <= found.base_ok
    assert (found.width is None) == (found.height is None) == (found.refresh_hz is None)
    if found.width is not None and found.height is not None and found.refresh_hz is not None:
        assert 0 < found.width <= 4095
        assert 0 < found.height <= 8190
        assert found.refresh_hz >= 0


@given(st.binary(max_size=400))
def test_any_bytes_are_data(raw: bytes) -> None:
    found = parse(raw)
    check(found)
    assert found.blocks_present == len(raw) // 128


@given(st.binary(min_size=119, max_size=119), st.binary(max_size=300))
def test_any_content_behind_a_good_header_and_sum_is_data(body: bytes, more: bytes) -> None:
    found = parse(seal(HEADER + body) + more)
    check(found)
    assert found.base_ok


@given(st.integers(0, 255), st.integers(1, 255))
def test_any_flipped_byte_is_noticed(at: int, by: int) -> None:
    raw = bytearray(edid())
    raw[at] = (raw[at] + by) % 256
    assert not parse(bytes(raw)).whole


@pytest.mark.golden
@pytest.mark.skipif(not ROWS, reason="the labelled EDIDs are not beside the checkout")
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["file"])
def test_real_edids_are_read_as_their_index_says(row: dict[str, Any]) -> None:
    raw = (REAL / row["file"]).read_bytes()
    found = parse(raw)
    check(found)
    assert len(raw) == int(row["bytes"])
    assert found.header_ok
    assert found.manufacturer == row["mfr"]
    assert f"0x{found.product:04x}" == row["product"]
    assert found.name == row["name"].strip()
    assert found.version == row["edid_version"]
    assert found.blocks_declared == int(row["ext_count_byte126"]) + 1
    assert found.checksums == tuple(s == "0" for s in row["block_sum_mod256"].split())
    assert found.truncated == ("truncated" in row["file"])
    assert found.base_ok
    assert found.whole == (not row["file"].startswith("BROKEN"))


def test_parsing_is_quick() -> None:
    raw = edid()
    started = time.perf_counter()
    for _ in range(100):
        parse(raw)
    assert (time.perf_counter() - started) / 100 < 0.005
