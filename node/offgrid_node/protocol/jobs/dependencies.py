"""Jobs that wait for others: which of those have not ended yet, and who can go, or never will, now that one has.

A job names only jobs that exist when it is made, so none can wait for itself in a circle. Nothing here is a row: what a
job waits for stands in its own, and how those ended in theirs, so a core that begins anew works it out again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.jobs.table import COMPLETED, ENDED

State: TypeAlias = jobs_pb2.JobState.ValueType


class Dependencies:
    """Told of each job with `after`, and of each end."""

    def __init__(self) -> None:
        self._missing: dict[str, dict[str, None]] = {}
        self._waiters: dict[str, dict[str, None]] = {}
        self._due: dict[str, str] = {}

    @property
    def has_due(self) -> bool:
        return bool(self._due)

    def holds(self, job_id: str) -> bool:
        """Whether it is still to be decided that the job can go."""
        return job_id in self._missing or job_id in self._due

    def missing(self, job_id: str) -> tuple[str, ...]:
        """What the job still waits for; nothing when it can go, or never will."""
        return tuple(self._missing.get(job_id, ()))

    def add(self, job_id: str, states: Mapping[str, State]) -> None:
        """A job that is to go after these, each in its present state."""
        for name, state in states.items():
            if state in ENDED and state != COMPLETED:
                self._due[job_id] = _why(name, state)
                return
        left = dict.fromkeys(name for name, state in states.items() if state not in ENDED)
        if not left:
            self._due[job_id] = ""
            return
        self._missing[job_id] = left
        for name in left:
            self._waiters.setdefault(name, {})[job_id] = None

    def on_end(self, job_id: str, state: State) -> None:
        if not (self._waiters or self._due):  # as most of the time: whoever waits has a job that it waits for
            return
        self._forget(job_id)
        self._due.pop(job_id, None)
        for waiter in self._waiters.pop(job_id, ()):
            left = self._missing[waiter]
            del left[job_id]
            if state != COMPLETED:
                self._forget(waiter)
                self._due[waiter] = _why(job_id, state)
            elif not left:
                del self._missing[waiter]
                self._due[waiter] = ""

    def take_due(self) -> tuple[str, str]:
        """The next job that waits no longer, and why it never can go; empty where it can."""
        job_id = next(iter(self._due))
        return job_id, self._due.pop(job_id)

    def _forget(self, job_id: str) -> None:
        for name in self._missing.pop(job_id, ()):
            waiters = self._waiters.get(name, {})
            waiters.pop(job_id, None)
            if not waiters:
                self._waiters.pop(name, None)


def _why(job_id: str, state: State) -> str:
    return f"job {job_id}, which it goes after, has ended as {jobs_pb2.JobState.Name(state)}"
