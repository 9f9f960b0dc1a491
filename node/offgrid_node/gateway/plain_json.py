"""JSON whose numbers have no exponent, 0.000004 and not 4e-06: the prototype's answers are read by shell scripts."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

_EXPONENT = re.compile(r"[0-9]e[-+]")


def plain_json(value: Any) -> bytes:
    """Of objects with texts as keys, lists, texts, numbers that are finite, booleans and None."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    if _EXPONENT.search(text):  # perhaps in a text: then it comes out the same
        text = _written(value)
    return text.encode()


def _written(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{_written(name)}:{_written(within)}" for name, within in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_written, value)) + "]"
    if isinstance(value, float):
        text = format(Decimal(repr(value)), "f")
        return text if "." in text else f"{text}.0"
    return json.dumps(value, ensure_ascii=False)
