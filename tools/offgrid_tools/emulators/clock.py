"""Time in microseconds for emulators: virtual, or real and perhaps faster."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable
from typing import Protocol


class Clock(Protocol):
    """When it is, and what happens later."""

    @property
    def now_us(self) -> int: ...

    def after(self, delay_us: int, fn: Callable[[], object]) -> None:
        """Calls `fn` once, later."""
        ...


class VirtualClock:
    """One heap; time jumps from one call to the next."""

    def __init__(self) -> None:
        self.now_us = 0
        self._heap: list[tuple[int, int, Callable[[], object]]] = []
        self._order = itertools.count()

    def after(self, delay_us: int, fn: Callable[[], object]) -> None:
        heapq.heappush(self._heap, (self.now_us + delay_us, next(self._order), fn))

    @property
    def waiting(self) -> int:
        """How much is to happen later."""
        return len(self._heap)

    def run(self, until_us: int) -> None:
        """Lets happen what is due by then."""
        while self._heap and self._heap[0][0] <= until_us:
            self.now_us, _, fn = heapq.heappop(self._heap)
            fn()
        self.now_us = until_us


class RealClock:
    """The running asyncio loop's time, `speed` times as fast."""

    def __init__(self, speed: float = 1.0) -> None:
        self._loop = asyncio.get_running_loop()
        self._speed = speed

    @property
    def now_us(self) -> int:
        return int(time.monotonic() * 1_000_000 * self._speed)

    def after(self, delay_us: int, fn: Callable[[], object]) -> None:
        self._loop.call_later(delay_us / 1_000_000 / self._speed, fn)


def now_ms(clock: Clock) -> int:
    return clock.now_us // 1000


def after_ms(clock: Clock, delay_ms: int, fn: Callable[[], object]) -> None:
    clock.after(delay_ms * 1000, fn)
