"""Many timers in one heap, each known by a key, so that a machine's next deadline costs nothing to find."""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

K = TypeVar("K")
STALE_MAX = 64  # entries of timers moved or cancelled; beyond as many again as are set, the heap is made anew


class Timers(Generic[K]):
    """At most one timer per key; setting it again moves it. Equal instants fire in the order they were set."""

    def __init__(self) -> None:
        self._due: dict[K, tuple[int, int]] = {}
        self._heap: list[tuple[int, int, K]] = []
        self._count = 0

    def set(self, key: K, due_ms: int) -> None:
        self._count = count = self._count + 1
        self._due[key] = (due_ms, count)
        heapq.heappush(self._heap, (due_ms, count, key))
        if len(self._heap) > 2 * len(self._due) + STALE_MAX:
            self._tidy()

    def cancel(self, key: K) -> None:
        if self._due.pop(key, None) is not None and len(self._heap) > 2 * len(self._due) + STALE_MAX:
            self._tidy()

    def take_due(self, now_ms: int, most: int | None = None) -> list[K]:
        """Removes and returns the keys whose time has come; the `most` overdue, if there are more."""
        keys: list[K] = []
        while (first := self._first()) is not None and first <= now_ms and (most is None or len(keys) < most):
            keys.append(heapq.heappop(self._heap)[2])
            del self._due[keys[-1]]
        return keys

    def due_ms(self, key: K) -> int | None:
        """When this one fires; None when it is not set."""
        due = self._due.get(key)
        return due[0] if due is not None else None

    def next_ms(self) -> int | None:
        return self._first()

    def _tidy(self) -> None:
        """A timer far off that is set again and again must not fill the memory until its time comes."""
        self._heap = [(due_ms, count, key) for key, (due_ms, count) in self._due.items()]
        heapq.heapify(self._heap)

    def _first(self) -> int | None:
        while self._heap:
            due_ms, count, key = self._heap[0]
            if self._due.get(key) == (due_ms, count):
                return due_ms
            heapq.heappop(self._heap)
        return None
