"""Virtual time: one heap, one Random. Equal instants run in the order they were scheduled."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from random import Random

from offgrid_node.protocol.clock import Now

EPOCH_US = 1_790_000_000_000_000  # what the simulated wall clocks read at the start, give or take their skew


class Engine:
    """Runs scheduled callbacks; `now_us` is microseconds since the start."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)  # noqa: S311 - a simulation must be repeatable
        self.now_us = 0
        self.steps = 0
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._count = itertools.count()

    def after(self, delay_us: int, callback: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (self.now_us + max(0, delay_us), next(self._count), callback))

    def run_until(self, end_us: int) -> None:
        """Runs everything due until then; the clock stands at `end_us` afterwards."""
        while self._heap and self._heap[0][0] <= end_us:
            self.now_us, _, callback = heapq.heappop(self._heap)
            self.steps += 1
            callback()
        self.now_us = end_us


class VirtualClock:
    """A node's clock: monotonic time since some boot, and a wall clock that is wrong by `skew_us`."""

    def __init__(self, engine: Engine, skew_us: int) -> None:
        self._engine, self._skew_us = engine, skew_us

    def now(self) -> Now:
        return Now(self._engine.now_us // 1000, EPOCH_US + self._engine.now_us + self._skew_us)
