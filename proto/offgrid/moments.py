"""Times that people and scripts write as a number since 1970, told by how large it is."""

from __future__ import annotations

MILLISECONDS_FROM, MICROSECONDS_FROM = 1e11, 1e14  # as seconds these are far off, as what they are they are of 1973
NUMBERS_END = MICROSECONDS_FROM * 100  # of the year 2286


def us_since_1970(number: float) -> int | None:
    """Microseconds, of seconds, milliseconds or microseconds since 1970. None for what is below 0, behind 2286, or no
    number."""
    if not 0 <= number < NUMBERS_END:
        return None
    unit_us = 1 if number >= MICROSECONDS_FROM else 1_000 if number >= MILLISECONDS_FROM else 1_000_000
    return round(number * unit_us)
