"""Times on the command line: "10m" before or after now, a date, or what clocks and this node's answers count."""

from __future__ import annotations

import re
import time

import click

from offgrid.moments import us_since_1970

LENGTH = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)\s*(ms|s|m|min|h|d)\Z")
NUMBER = re.compile(r"\d{9,}(?:\.\d+)?\Z", re.ASCII)  # of fewer digits it may be a date: 20261120
UNIT_US = {"ms": 1_000, "s": 1_000_000, "m": 60_000_000, "min": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}


def length_us(text: str) -> int | None:
    """Microseconds of "10m"; None for what is no length."""
    match = LENGTH.match(text)
    return int(float(match[1]) * UNIT_US[match[2]]) if match else None


def stamp_us(text: str) -> int:
    """Microseconds since 1970 of "2026-11-20", "2026-11-20T08:00", or seconds, milliseconds or microseconds since then.

    Raises ValueError for anything else. A date without a zone is this machine's local time.
    """
    if NUMBER.match(text):
        if (at_us := us_since_1970(float(text))) is None:
            raise ValueError(f"{text} is a time behind the year 2286")
        return at_us
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
