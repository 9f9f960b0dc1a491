"""Brokers that refuse for load: orders for them stand in line at their core, and set out as room is made.

After a refusal no order leaves for as long as the broker named (RetryInfo), and up to half as long again, so that cores
which were refused together do not come back together; twice as long each time it takes nothing at all, PAUSE_MAX_MS at
most. Then a few go: of a call that is taken whole twice as many go next, of one that is not half as many. Meanwhile
each job of this core's that ends there lets one more go, as an acknowledgement does in TCP (Jacobson 1988): its slot is
free, and what waited for it has left a place. When the line is empty it is as if nothing had been.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.rng import Rng

PAUSE_MIN_MS, PAUSE_MAX_MS = 50, 30_000
DOUBLINGS_MAX = 10
ANSWER_MS = 10_000  # should even the end of a call get lost


class Pace(msgspec.Struct):
    """One broker's line, by priority, and how much of it may go at `due_ms`."""

    due_ms: int
    window: int
    refusals: int = 0  # in a row, of calls of which nothing was taken
    under_way: bool = False
    made_room: int = 0  # jobs that have ended there since
    line: dict[int, dict[str, None]] = msgspec.field(default_factory=dict)

    @property
    def next_ms(self) -> int:
        return 0 if self.made_room and self.line else self.due_ms

    def take(self, most: int) -> Iterator[str]:
        """The first in line, those of the highest priority first."""
        while self.line and most > 0:
            priority = max(self.line)
            jobs = self.line[priority]
            job_id = next(iter(jobs))
            self.discard(job_id, priority)
            most -= 1
            yield job_id

    def discard(self, job_id: str, priority: int) -> None:
        jobs = self.line.get(priority)
        if jobs is not None:
            jobs.pop(job_id, None)
            if not jobs:
                del self.line[priority]


class Pacing:
    """Lines by broker; a broker without one takes whatever comes."""

    def __init__(self, window_max: int) -> None:
        self._window_max = window_max
        self._paces: dict[str, Pace] = {}

    def __bool__(self) -> bool:
        """Whether there is any line."""
        return bool(self._paces)

    def deadline_ms(self) -> int | None:
        return min((pace.next_ms for pace in self._paces.values()), default=None) if self._paces else None

    def holds(self, broker: str) -> bool:
        """Whether orders for it stand in line."""
        return broker in self._paces

    def standing(self, broker: str, job_id: str, priority: int) -> tuple[int, int] | None:
        """Of an order that stands in line: how often in a row its broker has taken nothing, and when some of the line
        are said to it again. None of one that does not stand there."""
        pace = self._paces.get(broker)
        if pace is None or job_id not in pace.line.get(priority, ()):
            return None
        return pace.refusals, pace.next_ms

    def add(self, broker: str, job_id: str, priority: int) -> None:
        """To a line that there is."""
        self._paces[broker].line.setdefault(priority, {})[job_id] = None

    def discard(self, broker: str, job_id: str, priority: int) -> None:
        if (pace := self._paces.get(broker)) is not None:
            pace.discard(job_id, priority)

    def forget(self, broker: str) -> None:
        """It is gone; whoever stood in its line is looked after by the caller."""
        self._paces.pop(broker, None)

    def ended(self, broker: str) -> None:
        """A job that it had awarded."""
        if (pace := self._paces.get(broker)) is not None:
            pace.made_room = min(self._window_max, pace.made_room + 1)

    def refused(self, broker: str, retry_ms: int, now: Now, rng: Rng, *, in_part: bool = False) -> None:
        """A call to it was. Of calls that were under way together the first one counts."""
        pace = self._paces.get(broker)
        if pace is None:
            pace = self._paces[broker] = Pace(now.mono_ms, self._window_max)
        elif not pace.under_way and now.mono_ms < pace.due_ms:
            return
        pace.refusals = 0 if in_part else pace.refusals
        pause_ms = min(PAUSE_MAX_MS, max(PAUSE_MIN_MS, retry_ms) << min(pace.refusals, DOUBLINGS_MAX))
        pace.due_ms = now.mono_ms + pause_ms + int(rng.random() * pause_ms / 2)
        pace.window = max(1, pace.window // 2)
        pace.refusals, pace.under_way = pace.refusals + 1, False

    def taken(self, broker: str, now: Now) -> None:
        """A call to it was taken whole: more may follow at once. One that left before the refusal says nothing."""
        pace = self._paces.get(broker)
        if pace is None or not pace.under_way:
            return
        if not pace.line:
            del self._paces[broker]
            return
        pace.window = min(self._window_max, 2 * pace.window)
        pace.due_ms, pace.refusals, pace.under_way = now.mono_ms, 0, False

    def take_due(self, now: Now) -> list[str]:
        """The jobs whose orders are to be said now."""
        due: list[str] = []
        for broker, pace in list(self._paces.items()):
            due += pace.take(pace.made_room)
            pace.made_room = 0
            if pace.due_ms > now.mono_ms:
                continue
            taken = list(pace.take(pace.window))
            if not taken:
                del self._paces[broker]
            due += taken
            pace.due_ms, pace.under_way = now.mono_ms + ANSWER_MS, True
        return due
