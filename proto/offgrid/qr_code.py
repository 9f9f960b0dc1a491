"""A short text as a QR code (ISO/IEC 18004): for a terminal, as SVG for a page, or as a file.

The error correction is the least that there is, so that a code is small: it is read from a screen.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import segno

QUIET = 2  # modules of light around it; four by the standard, and readers take two
SUFFIXES = (".svg", ".png")
PNG_SCALE = 8  # pixels of a module
HALVES = {(False, False): "█", (False, True): "▀", (True, False): "▄", (True, True): " "}


def lines(text: str) -> list[str]:
    """Two rows of modules in each line, the light ones drawn: to be shown in white on black, whatever a terminal's
    colours are."""
    rows = [[bool(module) for module in row] for row in _code(text).matrix_iter(border=QUIET)]
    if len(rows) % 2:
        rows.append([True] * len(rows[0]))  # the terminal's own black
    return ["".join(HALVES[pair] for pair in zip(*two, strict=True)) for two in zip(rows[::2], rows[1::2], strict=True)]


def svg(text: str) -> bytes:
    """A whole SVG document, dark on white, that takes whatever size it is given."""
    return _saved(text, "svg")


def picture(text: str, path: Path) -> bytes:
    """What a file of that name is to hold. Raises ValueError for a suffix that is none of SUFFIXES."""
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path.name}: a QR code is written as {' or '.join(SUFFIXES)}")
    return _saved(text, path.suffix.lower().removeprefix("."))


def _saved(text: str, kind: str) -> bytes:
    out = io.BytesIO()
    if kind == "svg":
        _code(text).save(out, kind="svg", border=QUIET, light="#fff", omitsize=True, xmldecl=False, nl=False)
    else:
        _code(text).save(out, kind="png", border=QUIET, scale=PNG_SCALE)
    return out.getvalue()


def _code(text: str) -> segno.QRCode:
    import segno  # 20 ms, for those who want one

    return segno.make_qr(text, error="l", boost_error=False)
