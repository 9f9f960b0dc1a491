"""What an application has recorded and its node does not have yet: bounded, in order, and never waited for.

A full backlog drops its oldest expendable events (of kinds that say how things go, and are said again soon) down to
four fifths of its room, and counts each. What is not expendable is never dropped: there is more room for that alone,
and once that is full too, `add` says so at once.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

QUEUE_MAX = 1_000
SPILL_MAX = 1_000  # beyond it, of what is not expendable
LOW = 0.8  # of QUEUE_MAX is left when some were dropped
BYTES_MAX = 32 * 1024 * 1024
NONE = 1 << 62  # the place of the oldest, where there is none


class BacklogFull(Exception):
    """Nothing was recorded: too much waits that may not be dropped."""


class Waiting(NamedTuple):
    """One event, as it will be sent but for its `place` in all that was accepted; `data` is most of its size."""

    timestamp_us: int
    kind: str
    frame_id: int | None
    energy_delta: float | None
    data: bytes
    place: int = 0


class Backlog:
    """Thread-safe, also where a signal's handler records; nothing takes longer than a walk over QUEUE_MAX events."""

    def __init__(self, expendable: frozenset[str], queue_max: int = QUEUE_MAX, spill_max: int = SPILL_MAX) -> None:
        self._expendable, self._queue_max, self._spill_max = expendable, queue_max, spill_max
        self._lock = threading.RLock()
        self._queue: deque[Waiting] = deque()
        self._bytes = 0
        self._dropped: Counter[str] = Counter()
        self.accepted = self.turned_away = 0  # the first is the place of what was accepted last, too

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def oldest(self) -> int:
        """The place of what has waited longest; NONE where nothing waits."""
        with self._lock:
            return self._queue[0].place if self._queue else NONE

    @property
    def dropped(self) -> Mapping[str, int]:
        """How many so far, by kind; those that were turned away too."""
        with self._lock:
            return dict(self._dropped)

    def add(self, event: Waiting) -> int:
        """How many wait now. Raises BacklogFull."""
        with self._lock:
            if self._is_full():
                self._shed()
                if self._is_full() and not self._takes_in_spite(event):
                    return len(self._queue)
            self.accepted += 1
            self._queue.append(event._replace(place=self.accepted))
            self._bytes += len(event.data)
            return len(self._queue)

    def take(self, events_max: int, bytes_max: int) -> list[Waiting]:
        """The oldest, and at least one if there is any."""
        taken, room = list[Waiting](), bytes_max
        with self._lock:
            while self._queue and len(taken) < events_max:
                room -= len(self._queue[0].data)
                if room < 0 and taken:
                    break
                taken.append(self._queue.popleft())
                self._bytes -= len(taken[-1].data)
        return taken

    def put_back(self, taken: Sequence[Waiting]) -> None:
        """What was taken last, before all that waits."""
        with self._lock:
            self._queue.extendleft(reversed(taken))
            self._bytes += sum(len(event.data) for event in taken)

    # ---- inside

    def _is_full(self) -> bool:
        return len(self._queue) >= self._queue_max or self._bytes >= BYTES_MAX

    def _takes_in_spite(self, event: Waiting) -> bool:
        if event.kind in self._expendable:
            self._dropped[event.kind] += 1
            self.turned_away += 1
            return False
        if len(self._queue) >= self._queue_max + self._spill_max or self._bytes >= 2 * BYTES_MAX:
            raise BacklogFull(
                f"{len(self._queue)} events wait for the node, none of which may be dropped: nothing more is taken"
            )
        return True

    def _shed(self) -> None:
        left = deque[Waiting]()
        surplus = len(self._queue) - int(self._queue_max * LOW)
        heavy = self._bytes - int(BYTES_MAX * LOW)
        for event in self._queue:
            if (surplus > 0 or heavy > 0) and event.kind in self._expendable:
                self._dropped[event.kind] += 1
                surplus, heavy = surplus - 1, heavy - len(event.data)
                self._bytes -= len(event.data)
            else:
                left.append(event)
        self._queue = left
