"""PURE: comments and docstrings of the source as Markdown that reads the same."""

from __future__ import annotations

import re

_CODE = re.compile(r"(`[^`]+`)")


def shown(text: str) -> str:
    """Signs of Markdown and HTML are shown as they stand, but for `code`; fit for a cell of a table."""
    parts = _CODE.split(text)
    parts[::2] = [re.sub(r"([<>*_\[\]`\\])", r"\\\1", part) for part in parts[::2]]
    return "".join(parts).replace("|", "\\|")
