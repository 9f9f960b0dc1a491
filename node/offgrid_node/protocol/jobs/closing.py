"""Attempts that are over and whose brokers, or hosts, have not been told: told along with the next call that brings
them work, or after a moment.

A broker frees a slot when it hears of it: while orders wait there for one, it is told at once; how the attempt went
makes the host's reputation there. A host forgets a report.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.jobs.orders import AttemptKey

PATIENCE_MS = 50
CALLS_MAX = 16  # of their own, to one node in one step; what is left waits for another moment
OVER_MAX = 1 << 17  # of one node: more than all jobs of a core that is in its right mind, fewer than a liar could name

SERVED, EXCUSED, BROKEN, REFUSED, DISAGREED, REFUTED = (
    jobs_pb2.LEASE_END_SERVED,
    jobs_pb2.LEASE_END_EXCUSED,
    jobs_pb2.LEASE_END_BROKEN,
    jobs_pb2.LEASE_END_REFUSED,
    jobs_pb2.LEASE_END_DISAGREED,
    jobs_pb2.LEASE_END_REFUTED,
)


class Over(NamedTuple):
    """An attempt that is over, and how it went; hosts are not told how."""

    job_id: str
    attempt: int
    end: jobs_pb2.LeaseEnd.ValueType = EXCUSED

    @property
    def key(self) -> AttemptKey:
        return self[:2]


class Closing:
    """Per node, oldest first; at most `items_max` go with one call. Lost words heal: a broker hears the hosts' next
    offers, a host reports again. So the oldest of more than `OVER_MAX` are lost."""

    def __init__(self, items_max: int) -> None:
        self._items_max = items_max
        self._over: dict[str, deque[Over]] = {}
        self._busy: set[str] = set()  # brokers with a queue, as they last said
        self._hasty = False
        self.is_fresh = False  # whether any was added in this step
        self.due_ms: int | None = None

    def add(self, node: str, key: AttemptKey, now_ms: int, end: jobs_pb2.LeaseEnd.ValueType = EXCUSED) -> None:
        over = self._over.get(node)
        if over is None:
            over = self._over[node] = deque(maxlen=OVER_MAX)
        over.append(Over(*key, end))
        self.is_fresh = True
        self._hasty = self._hasty or node in self._busy
        if self.due_ms is None:
            self.due_ms = now_ms + PATIENCE_MS

    def heard(self, node: str, queued: int) -> None:
        """How many orders wait at a broker, of whatever core."""
        if not queued:
            self._busy.discard(node)
        else:
            self._busy.add(node)
            self._hasty = self._hasty or node in self._over

    def take(self, node: str) -> list[Over]:
        """What goes along with a call to it."""
        over = self._over.get(node)
        taken = [over.popleft() for _ in range(min(len(over), self._items_max))] if over else []
        if taken and not over:
            del self._over[node]
        if not self._over:
            self.due_ms, self._hasty = None, False
        return taken

    def take_due(self, now_ms: int) -> Iterator[tuple[str, list[Over]]]:
        """What must be told by calls of its own now."""
        due = self.due_ms is not None and now_ms >= self.due_ms
        nodes = [node for node in self._over if due or node in self._busy] if due or self._hasty else []
        self._hasty = False
        for node in nodes:
            for _ in range(CALLS_MAX):
                if node not in self._over:
                    break
                yield node, self.take(node)
        if due and self._over:
            self.due_ms = now_ms + PATIENCE_MS
