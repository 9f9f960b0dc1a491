"""Times on the command line: "10m" before or after now, or a date."""

from __future__ import annotations

import re

LENGTH = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|d)\Z")
UNIT_US = {"ms": 1_000, "s": 1_000_000, "m": 60_000_000, "min": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}


def length_us(text: str) -> int | None:
    """Microseconds of "10m"; None for what is no length."""
    match = LENGTH.match(text)
    return int(float(match[1]) * UNIT_US[match[2]]) if match else None


def stamp_us(text: str) -> int:
    """Microseconds since 1970 of "2026-11-20", "2026-11-20T08:00" or plain microseconds.

    Raises ValueError for anything else. A date without a zone is this machine's local time.
    """
    if text.isascii() and text.isdigit():
        return int(text)
    from datetime import datetime

    return max(0, int(datetime.fromisoformat(text).astimezone().timestamp() * 1e6))
