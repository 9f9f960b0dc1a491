"""Rules of jobs that are asked for on terms: taken back only by their owner, expired only past their deadline, sent
only after those that they wait for; and what has ended so is not paid.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.jobs.table import CANCELLED, COMPLETED, ENDED, EXPIRED
from offgrid_node.protocol.ledger.tables import BOOKINGS
from offgrid_tools.sim.monitor.evidence import Evidence, Violation

DEPENDENCY_FAILED = "DependencyFailed"

Find = Callable[[str, str], jobs_pb2.Job | None]  # by core and id


class Terms:
    """`find` reads a job as its core's store has it."""

    def __init__(self, evidence: Evidence, find: Find) -> None:
        self._evidence, self._find = evidence, find
        self._unwanted: dict[str, set[str]] = defaultdict(set)  # by core: jobs that an owner asked to take back
        self._unwanted_tasks: set[str] = set()
        self._unpaid: set[tuple[str, str]] = set()

    def on_cancel(self, core: str, task_id: str, job_ids: Iterable[str]) -> None:
        """An owner is about to take these back, or all of the task."""
        self._unwanted[core].update(job_ids)
        if task_id:
            self._unwanted_tasks.add(task_id)

    def on_order(self, core: str, job: jobs_pb2.Job) -> None:
        for name in job.after:
            first = self._find(core, name)
            if first is None or first.state != COMPLETED:
                raise Violation(f"job {job.job_id} was sent before {name} had completed")

    def judges(self, core: str, job: jobs_pb2.Job) -> bool:
        """Whether the job has ended by its terms, and rightly so."""
        if job.state == COMPLETED and 0 < job.deadline_us < job.updated_us:
            raise Violation(f"job {job.job_id} is completed past its deadline")
        if job.state == CANCELLED:
            if job.job_id not in self._unwanted[core] and job.task_id not in self._unwanted_tasks:
                raise Violation(f"job {job.job_id} was taken back, and nobody had asked for it")
        elif job.state == EXPIRED:
            if not 0 < job.deadline_us <= job.updated_us:
                raise Violation(f"job {job.job_id} expired before its deadline")
        elif job.error == DEPENDENCY_FAILED:
            first = [self._find(core, name) for name in job.after]
            if not any(each is not None and each.state in ENDED and each.state != COMPLETED for each in first):
                raise Violation(f"job {job.job_id} failed for another that has not")
        else:
            return False
        self._unpaid.add((core, job.job_id))
        return True

    def check_store(self, core: str) -> None:
        for owner, job_id in self._unpaid:
            if owner == core and self._evidence.row(core, BOOKINGS, job_id.encode()) is not None:
                raise Violation(f"job {job_id} has ended without a result, and is paid")
