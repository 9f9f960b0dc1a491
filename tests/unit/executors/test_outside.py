"""How much of what a process says of itself is believed."""

from __future__ import annotations

import pytest

from offgrid_node.executors.outside import TICKS_LOST, _agreed_us
from offgrid_node.executors.watch import TICK_US

SLACK_US = TICKS_LOST * TICK_US


@pytest.mark.parametrize(
    ("said_us", "seen_us", "agreed_us"),
    [
        (500, 0, 500),  # shorter than a tick: its own figure is the finer one
        (1_234_567, 1_230_000, 1_234_567),
        (0, 1_000_000, 1_000_000 - SLACK_US),
        (2**60, 1_000_000, 1_000_000 + SLACK_US),
        (2**60, 0, SLACK_US),
        (0, 0, 0),
        (0, -TICK_US, 0),  # processes that have gone meanwhile
        (700, -TICK_US, 700),
    ],
)
def test_a_figure_stands_as_far_as_it_agrees_with_what_was_seen(said_us: int, seen_us: int, agreed_us: int) -> None:
    assert _agreed_us(said_us, seen_us) == agreed_us
