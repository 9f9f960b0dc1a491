"""How wide what is printed may be, and what must not reach a terminal."""

from __future__ import annotations

import os
import sys
import unicodedata

COLUMNS_UNLESS_KNOWN = 80
HELP_COLUMNS_MIN, HELP_COLUMNS_MAX = 50, 100


def clean(text: str, *, lines: bool = False) -> str:
    """`text` without what a terminal would obey; with `lines` line ends and tabs stay."""
    kept = "\n\t" if lines else ""
    return "".join(
        char if char in kept or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") else "�"
        for char in text
    )


def counted(count: int, noun: str) -> str:
    """ "1 event", "2 events", "0 witnesses": a noun whose plural ends in s."""
    ending = "" if count == 1 else "es" if noun.endswith(("s", "x", "ch")) else "s"
    return f"{count} {noun}{ending}"


def terminal_columns(unless_known: int = COLUMNS_UNLESS_KNOWN) -> int:
    """How wide what is printed may be."""
    try:
        return int(os.environ.get("COLUMNS") or os.get_terminal_size(sys.stdout.fileno()).columns)
    except (OSError, ValueError):
        return unless_known


def help_columns() -> int:
    """How wide help is set. (click would import shutil for this, four milliseconds of --help.)"""
    return max(HELP_COLUMNS_MIN, min(terminal_columns(HELP_COLUMNS_MAX), HELP_COLUMNS_MAX) - 2)
