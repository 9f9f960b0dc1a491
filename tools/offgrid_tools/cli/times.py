"""Times on the command line: "10m" before or after now, or a date."""

from __future__ import annotations

import re
import time

import click

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


def since_us(text: str, now_us: int) -> int:
    """Microseconds since 1970 of "10m" (ago), or of what `stamp_us` reads. Raises ValueError for anything else."""
    length = length_us(text)
    return stamp_us(text) if length is None else max(0, now_us - length)


def time_us(option: str, text: str | None, *, allowed: str = "no time") -> int:
    """Likewise of what was given for `option`, by this machine's clock; 0 for None. Raises BadParameter."""
    try:
        return 0 if text is None else since_us(text, time.time_ns() // 1_000)
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(f"{text!r} is {allowed}; 10m, 2h, 2026-11-20T08:00 are", param_hint=option) from error
