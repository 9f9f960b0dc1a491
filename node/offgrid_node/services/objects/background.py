"""Work that nobody waits for goes behind all that somebody waits for."""

from __future__ import annotations

from offgrid_node.services.bulk import Bulk
from offgrid_node.services.flow import Flow, Later, Step
from offgrid_node.services.objects.rate import Rate

YIELD_MS, YIELDS_MAX = 10, 50  # it waits while others are at the disk, half a second at most: it gets on under any load


def let_others(rate: Rate, bulk: Bulk, later: Later) -> Flow[None]:
    """Waits as long as the rate says, and while others have work for the disk."""
    if wait_ms := rate.wait_ms():
        yield pause(later, wait_ms)
    yields = 0
    while bulk.tasks and yields < YIELDS_MAX:
        yield pause(later, YIELD_MS)
        yields += 1


def pause(later: Later, pause_ms: int) -> Step[None]:
    return lambda done: later(pause_ms, lambda: done(None))
