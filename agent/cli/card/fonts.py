"""The door to reportlab, and the letters: a font that has every letter of Vietnamese."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.model import AgentError

MM = 72 / 25.4
"""Points in a millimetre."""
PLAIN, STRONG, BOLD = "Card", "Card-Strong", "Card-Bold"
"""The three weights."""
PACKAGE = "fontpkg_be_vietnam_pro"
DEBIAN = Path("/usr/share/fonts/truetype/dejavu")
_HERE = {PLAIN: "Regular", STRONG: "SemiBold", BOLD: "Bold"}
_THERE = {PLAIN: "DejaVuSans.ttf", STRONG: "DejaVuSans-Bold.ttf", BOLD: "DejaVuSans-Bold.ttf"}


def library() -> Any:
    """reportlab's canvas module. Raises `AgentError` that names the fix."""
    try:
        from reportlab.pdfgen import canvas
    except ImportError:
        raise AgentError(
            "a PDF needs the extra `card` (reportlab and a font):"
            f" {sys.executable} -m pip install 'hearing-room-agent[card]'"
        ) from None
    return canvas


def register() -> Mapping[str, Any]:
    """Make the three weights known to reportlab; returns weight -> font. Raises `AgentError` where
    no font with Vietnamese letters is found."""
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.ttfonts import TTFont

    fonts = {name: TTFont(name, str(path)) for name, path in files().items()}
    for font in fonts.values():
        pdfmetrics.registerFont(font)
    return fonts


def files() -> dict[str, Path]:
    """Where the three weights lie: in the extra's package, else in Debian's fonts-dejavu-core."""
    found = importlib.util.find_spec(PACKAGE)
    if found is not None and found.origin is not None:
        folder = Path(found.origin).parent / "files"
        paths = {name: folder / f"BeVietnamPro-{weight}.ttf" for name, weight in _HERE.items()}
        if all(path.exists() for path in paths.values()):
            return paths
    paths = {name: DEBIAN / file for name, file in _THERE.items()}
    if all(path.exists() for path in paths.values()):
        return paths
    raise AgentError(
        "a PDF needs a font with Vietnamese letters:"
        f" {sys.executable} -m pip install 'hearing-room-agent[card]',"
        " or sudo apt-get install fonts-dejavu-core"
    )
