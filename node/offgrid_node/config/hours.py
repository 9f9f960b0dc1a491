"""A span of hours as the config writes it: "22:00-06:00", local times of the day."""

from __future__ import annotations

import re

HOURS = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])\Z")


def minutes_of(hours: str) -> tuple[int, ...]:
    """From and to, as minutes of the day; empty for always."""
    found = HOURS.match(hours)
    if found is None:
        return ()
    start, start_minute, end, end_minute = map(int, found.groups())
    return start * 60 + start_minute, end * 60 + end_minute
