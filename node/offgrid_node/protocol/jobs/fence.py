"""Which attempts a host has done with, so that a late copy of a start never makes it run one twice.

Per job of each core the highest attempt is kept, durable, for as many jobs as FENCES_MAX in all. Beyond that the core
with the most of them gives: of its own, the one settled first. So none can push another's out, however much it cancels.
A start that is later still would find its fence gone, but then the core, too, refuses what comes of it.
What is settled together is one row, which goes with the last of what it says that still counts.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Rows
from offgrid_node.protocol.jobs.orders import AttemptKey
from offgrid_node.protocol.jobs.post import Post

FENCES = "host_fences"
ATTEMPT_BITS = 32
ATTEMPT = (1 << ATTEMPT_BITS) - 1
FENCES_MAX = 65_536  # jobs; at a thousand a second a copy may be a minute late


class Fence:
    """The highest settled attempt per job of each core: no core can fence another's work out."""

    def __init__(self, post: Post, fences_max: int = FENCES_MAX) -> None:
        self._post, self._fences_max = post, fences_max
        # by core and job, the one settled first in front: number of the row that says so, and attempt, in one integer
        self._highest: dict[str, OrderedDict[str, int]] = {}
        self._counting: dict[int, int] = {}  # by row: how many of its attempts are the highest ones
        self._kept = self._number = 0

    def load(self, rows: Rows, now: Now) -> None:
        for key, value in rows.scan(FENCES):
            self._number = int.from_bytes(key, "big")
            row = jobs_pb2.SettledAttempts.FromString(value)
            for attempt in row.attempts:
                self._raise(row.core, attempt.job_id, attempt.attempt, now)
            self._close(now)

    def highest(self, core: str, job_id: str) -> int:
        """0 when nothing of the job was settled here, as far as is remembered."""
        jobs = self._highest.get(core)
        found = jobs.get(job_id) if jobs is not None else None
        return found & ATTEMPT if found is not None else 0

    def settle(self, core: str, attempts: Iterable[AttemptKey], now: Now) -> None:
        """These are over here, for ever. Written late, together with the end of their leases."""
        row = jobs_pb2.SettledAttempts()
        self._number += 1
        for job_id, attempt in attempts:
            if self._raise(core, job_id, attempt, now):
                said = row.attempts.add()
                said.job_id, said.attempt = job_id, attempt
        if row.attempts:
            row.core = core
            self._post.put_late(FENCES, _row_key(self._number), row.SerializeToString(), now)
            self._close(now)

    # ---- inside

    def _raise(self, core: str, job_id: str, attempt: int, now: Now) -> bool:
        """Whether this is the highest attempt so far; then the present row says so."""
        jobs = self._highest.get(core)
        if jobs is None:
            jobs = self._highest[core] = OrderedDict()
        before = jobs.get(job_id)
        if before is not None:
            if before & ATTEMPT >= attempt:
                return False
            del jobs[job_id]
            self._drop(before >> ATTEMPT_BITS, now)
        jobs[job_id] = self._number << ATTEMPT_BITS | attempt
        self._kept += 1
        self._counting[self._number] = self._counting.get(self._number, 0) + 1
        return True

    def _drop(self, number: int, now: Now) -> None:
        """One of the row's attempts counts no more."""
        self._kept -= 1
        self._counting[number] -= 1
        if not self._counting[number] and number != self._number:
            self._delete(number, now)

    def _close(self, now: Now) -> None:
        """The present row is whole."""
        while self._kept > self._fences_max:
            core, jobs = max(self._highest.items(), key=lambda entry: len(entry[1]))
            _, first = jobs.popitem(last=False)
            self._drop(first >> ATTEMPT_BITS, now)
            if not jobs:
                del self._highest[core]
        if not self._counting.setdefault(self._number, 0):
            self._delete(self._number, now)

    def _delete(self, number: int, now: Now) -> None:
        del self._counting[number]
        self._post.delete_late(FENCES, _row_key(number), now)


def _row_key(number: int) -> bytes:
    return number.to_bytes(8, "big")
