"""Hosts that are emptied and have no place in an object's newest epoch: each is told that it may drop what it keeps of
it, once all who have a place are proved to have theirs.

Whether they are follows from audits and comparisons (`strays.py`), and is asked when the word is to leave: what cannot
be said then is tried again, sooner at first. What falls off, and what a restart forgets, the hourly comparison finds.
"""

from __future__ import annotations

from collections.abc import Callable

from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.timers import Timers

RETRY_MS, RETRY_MAX_MS = 5_000, 3_600_000  # doubling
WAITING_MAX = 10_000  # hosts and objects

Leaver = tuple[str, str]
"""A host and an object that it keeps."""


class Leaving:
    """Who could not be told yet."""

    def __init__(self, tell: Callable[[str, str, Now], None]) -> None:
        """`tell`: a node has to hear of an object; when that is about to leave, `later` or `over` is called."""
        self._tell = tell
        self._due: Timers[Leaver] = Timers()
        self._delays: dict[Leaver, int] = {}  # of those that are due, or being told: how long they wait next

    def later(self, node_id: str, object_id: str, now: Now) -> None:
        """It cannot be said yet."""
        leaver = node_id, object_id
        if leaver not in self._delays and len(self._delays) >= WAITING_MAX:
            return
        delay_ms = self._delays.get(leaver, RETRY_MS)
        self._delays[leaver] = min(RETRY_MAX_MS, 2 * delay_ms)
        self._due.set(leaver, now.mono_ms + delay_ms)

    def over(self, node_id: str, object_id: str) -> None:
        """It is said, or there is nothing to say any more."""
        self._delays.pop((node_id, object_id), None)
        self._due.cancel((node_id, object_id))

    def deadline_ms(self) -> int | None:
        return self._due.next_ms()

    def close_step(self, now: Now) -> None:
        for node_id, object_id in self._due.take_due(now.mono_ms):
            self._tell(node_id, object_id, now)
