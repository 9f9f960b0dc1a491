"""A clock that moves only when it is told to: the worlds in which several machines meet run on it."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

from offgrid_node.protocol.clock import Now


class VirtualTime:
    """What is to happen, the earliest first; of one moment in the order in which it was planned."""

    def __init__(self) -> None:
        self.now_ms = 1_000
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def now(self) -> Now:
        return Now(self.now_ms, 1_700_000_000_000_000 + self.now_ms * 1_000)

    def at(self, when_ms: int, action: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (max(when_ms, self.now_ms), next(self._numbers), action))

    def after(self, delay_ms: int, action: Callable[[], None]) -> None:
        self.at(self.now_ms + delay_ms, action)

    def run(self, for_ms: int) -> None:
        until = self.now_ms + for_ms
        while self._heap and self._heap[0][0] <= until:
            self.now_ms, _, action = heapq.heappop(self._heap)
            action()
        self.now_ms = until
