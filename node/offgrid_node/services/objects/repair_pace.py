"""How many bytes a second this node gives to repairs, over all that it pulls, adds or fetches to make lost shards anew.
First deliveries are no repairs.
"""

from __future__ import annotations

from collections.abc import Callable

from offgrid_node.protocol.errors import Exhausted
from offgrid_node.services.flow import Flow, Later
from offgrid_node.services.objects.rate import UNLIMITED, Rate


class RepairPace(Rate):
    """Counts what it lets pass, by what this node does with it."""

    def __init__(self, now_ms: Callable[[], int], later: Later, bytes_per_s: int = UNLIMITED) -> None:
        super().__init__(now_ms, bytes_per_s)
        self._later = later
        self.pulled_bytes = 0  # that came in, for shards that are to be kept here, or for an object to be fetched
        self.given_bytes = 0  # sums of which a part is this node's

    def pull(self, size_bytes: int, most_ms: int) -> Flow[None]:
        """Before so much comes in. Raises Exhausted (RepairPaced) where it would have to wait longer than `most_ms`."""
        yield from self._take(size_bytes, most_ms)
        self.pulled_bytes += size_bytes

    def give(self, size_bytes: int, most_ms: int) -> Flow[None]:
        """Before so much goes out; as `pull`."""
        yield from self._take(size_bytes, most_ms)
        self.given_bytes += size_bytes

    def _take(self, size_bytes: int, most_ms: int) -> Flow[None]:
        wait_ms = self.wait_ms()
        if wait_ms > most_ms:
            text = f"this node gives {self.bytes_per_s} bytes a second to repairs, and they are taken"
            raise Exhausted(text, reason="RepairPaced", retry_ms=wait_ms)
        self.take(size_bytes)
        if wait_ms > 0:
            yield lambda done: self._later(wait_ms, lambda: done(None))
