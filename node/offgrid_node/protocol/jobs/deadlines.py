"""Jobs with a deadline: a time of day, which the wall clock tells.

That clock may be set while a node runs, by hours where it had none before, so it is looked at again every RECHECK_MS at
the latest; timers that only run could not know.
"""

from __future__ import annotations

from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.timers import Timers

RECHECK_MS = 30_000
PASSED_MAX = 1_024  # that end in one step; more end in the next one


class Deadlines:
    """Job ids by their deadlines."""

    def __init__(self) -> None:
        self._by_utc: Timers[str] = Timers()  # in milliseconds of UTC, not of the monotonic clock
        self._wake_ms: int | None = None

    def deadline_ms(self) -> int | None:
        return self._wake_ms

    def add(self, job_id: str, deadline_us: int, now: Now) -> None:
        if deadline_us:
            self._by_utc.set(job_id, -(-deadline_us // 1_000))
            self._plan(now)

    def discard(self, job_id: str) -> None:
        self._by_utc.cancel(job_id)

    def take_passed(self, now: Now) -> list[str]:
        """Those whose time has come."""
        if self._wake_ms is None:
            return []
        passed = self._by_utc.take_due(now.utc_us // 1_000, PASSED_MAX)
        self._plan(now)
        return passed

    def _plan(self, now: Now) -> None:
        first = self._by_utc.next_ms()
        left_ms = None if first is None else max(0, first - now.utc_us // 1_000)
        self._wake_ms = None if left_ms is None else now.mono_ms + min(left_ms, RECHECK_MS)
