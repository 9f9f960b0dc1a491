"""Which events share a window.

Events are summarised in the order of the journal, and a window is a run of it: an event belongs to the window under way
unless its time is past the window's end, or lies more than a whole window before its beginning. So a clock that is set
back or forward, by however much, ends a window early or opens one that there was already, and no event is in two
summaries or in none: which those are the journal's numbers say. Each summary has the times of its oldest and newest
event beside it, whatever its window is called.
"""

from __future__ import annotations

from typing import NamedTuple

SECOND_US = 1_000_000
DAY_US = 86_400 * SECOND_US
WEEK_US = 7 * DAY_US
MONDAY_US = 4 * DAY_US  # 1970 began on a Thursday


class Window(NamedTuple):
    start_us: int
    end_us: int

    @property
    def window_id(self) -> str:
        return window_id(self.start_us)

    def takes(self, at_us: int) -> bool:
        """Whether an event of that time belongs to it while it is under way."""
        return 2 * self.start_us - self.end_us <= at_us < self.end_us


def window_id(start_us: int) -> str:
    """Seconds since 1970."""
    return f"window_{start_us // SECOND_US}"


def window_at(at_us: int, length_us: int) -> Window:
    start_us = at_us // length_us * length_us
    return Window(start_us, start_us + length_us)


def span_of(start_us: int, span_us: int) -> int:
    """Which day, or which week, a window's beginning lies in."""
    return (start_us - MONDAY_US) // span_us
