"""Attempts that are over and whose brokers have not been told: told along with the next orders, or after a moment.

A broker frees a slot when it hears of it. While orders wait there for a slot, it is told at once.
"""

from __future__ import annotations

from collections.abc import Iterator

from offgrid_node.protocol.jobs.orders import AttemptKey

PATIENCE_MS = 50


class Closing:
    """Per broker, oldest first; at most `items_max` go with one call. Lost words heal by the hosts' next offers."""

    def __init__(self, items_max: int) -> None:
        self._items_max = items_max
        self._over: dict[str, list[AttemptKey]] = {}
        self._busy: set[str] = set()  # brokers with a queue, as they last said
        self._hasty = False
        self.due_ms: int | None = None

    def add(self, broker: str, key: AttemptKey, now_ms: int) -> None:
        self._over.setdefault(broker, []).append(key)
        self._hasty = self._hasty or broker in self._busy
        if self.due_ms is None:
            self.due_ms = now_ms + PATIENCE_MS

    def heard(self, broker: str, queued: int) -> None:
        """How many orders wait at a broker, of whatever core."""
        if not queued:
            self._busy.discard(broker)
        else:
            self._busy.add(broker)
            self._hasty = self._hasty or broker in self._over

    def forget(self, broker: str) -> None:
        """It is dead: its leases died with it."""
        self._over.pop(broker, None)
        self._busy.discard(broker)

    def take(self, broker: str) -> list[AttemptKey]:
        """What goes along with a call to it."""
        over = self._over.pop(broker, [])
        if len(over) > self._items_max:
            self._over[broker] = over[self._items_max :]
        if not self._over:
            self.due_ms, self._hasty = None, False
        return over[: self._items_max]

    def take_due(self, now_ms: int) -> Iterator[tuple[str, list[AttemptKey]]]:
        """What must be told by calls of its own now."""
        due = self.due_ms is not None and now_ms >= self.due_ms
        brokers = [broker for broker in self._over if due or broker in self._busy] if due or self._hasty else []
        self._hasty = False
        for broker in brokers:
            while broker in self._over:
                yield broker, self.take(broker)
