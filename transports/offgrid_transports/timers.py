"""Many deadlines, one question: which is next? A heap whose outdated entries are skipped when they surface."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Hashable

_SLACK = 64  # outdated entries tolerated beside as many as there are live ones


class Timers:
    """One deadline per key, in milliseconds of the monotonic clock. Ties fall due in the order they were set."""

    def __init__(self) -> None:
        self._due: dict[Hashable, tuple[float, int]] = {}
        self._heap: list[tuple[float, int, Hashable]] = []
        self._order = itertools.count()

    def __len__(self) -> int:
        return len(self._due)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._due

    def set(self, key: Hashable, due_ms: float | None) -> None:
        """Sets, moves or (with None) cancels the deadline of `key`."""
        if due_ms is None:
            self._due.pop(key, None)
            return
        held = self._due.get(key)
        if held is not None and held[0] == due_ms:
            return
        order = next(self._order)
        self._due[key] = (due_ms, order)
        heapq.heappush(self._heap, (due_ms, order, key))
        if len(self._heap) > 2 * len(self._due) + _SLACK:
            self._heap = [(due, order, key) for key, (due, order) in self._due.items()]
            heapq.heapify(self._heap)

    @property
    def deadline_ms(self) -> float | None:
        """The earliest deadline, or None."""
        self._skip()
        return self._heap[0][0] if self._heap else None

    def take_due(self, now_ms: float) -> list[Hashable]:
        """The keys whose deadline has come, each once; their deadlines are gone."""
        due = []
        while (first := self.deadline_ms) is not None and first <= now_ms:
            key = heapq.heappop(self._heap)[2]
            del self._due[key]
            due.append(key)
        return due

    def _skip(self) -> None:
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][:2]:
            heapq.heappop(self._heap)
