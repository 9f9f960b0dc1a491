"""Attempts of which a core that has just begun does not know whether they were awarded.

An award is written a moment after it was made (`open_jobs.py`), so a job that is queued by its row may be at work at a
host. The broker of record is asked first; until it has spoken nobody else is. When it has forgotten, is dead or stays
away, the attempt is given up: another number, lest two hosts are at work on one.
"""

from __future__ import annotations

from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.jobs.open_job import Open
from offgrid_node.protocol.jobs.open_jobs import OpenJobs
from offgrid_node.protocol.jobs.peers import Peers

DOUBT_MS, RETRY_MS = 10_000, 1_000  # how long the broker of record is waited for
GIVEN_UP_MAX, STEP_MS = 256, 50  # at once, and how long until the next: a long queue is no long step


class Doubts:
    """Decides when a doubtful attempt waits no longer."""

    def __init__(self, jobs: OpenJobs, peers: Peers) -> None:
        self._jobs, self._peers = jobs, peers
        self._until_ms = self._waiting = 0

    def begin(self, now: Now) -> None:
        """The core begins."""
        self._until_ms = now.mono_ms + DOUBT_MS

    def keeps_waiting(self, entry: Open, now: Now) -> bool:
        """Whether the attempt, whose broker cannot be asked now, is still to wait for it; else it has been given up."""
        job = entry.job
        if now.mono_ms >= self._until_ms or self._peers.is_down(job.broker):
            self.give_up(entry, now)
            return False
        self._waiting += 1
        due_ms = self._until_ms + self._waiting // GIVEN_UP_MAX * STEP_MS
        if job.broker in entry.avoided:  # it is there, and failed to answer
            entry.avoided -= {job.broker}
            due_ms = now.mono_ms + RETRY_MS
        self._jobs.timers.set(job.job_id, due_ms)
        return True

    def give_up(self, entry: Open, now: Now) -> None:
        """The next attempt is durable with this batch."""
        entry.job.attempts.add(number=entry.job.attempt, started_us=now.utc_us)
        self._jobs.lose(entry, "Forgotten: its broker does not know whom it was awarded to", now)
