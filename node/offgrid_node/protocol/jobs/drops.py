"""Jobs of the local queue that lie in the drop folder, for another program to carry out.

Which job lies there is told by this machine; the files follow (`services/jobs/drops.py`). What comes back ends the job
as any result does, but without a receipt: nobody has signed it, and nobody is paid.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import islice

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.jobs.commands import Dropped
from offgrid_node.protocol.jobs.open_job import Open
from offgrid_node.protocol.jobs.open_jobs import OpenJobs
from offgrid_node.protocol.jobs.settings import DROP_ALL, DROP_REST, JobsSettings
from offgrid_node.protocol.jobs.table import QUEUED

DROPS_MAX = 256  # files at a time; what comes later waits its turn


class Drops:
    """Job ids in the order in which they came. Who ends a job, or sends it elsewhere, need not say so here."""

    def __init__(self, settings: JobsSettings, jobs: OpenJobs, unfit: Callable[[jobs_pb2.Job], str]) -> None:
        """`unfit` says why this node cannot run a job itself."""
        self._settings, self._jobs, self._unfit = settings, jobs, unfit
        self._waiting: OrderedDict[str, None] = OrderedDict()

    def takes(self, job: jobs_pb2.Job) -> bool:
        """Whether a job of the local queue goes to the folder."""
        drop = self._settings.drop
        return drop == DROP_ALL or (drop == DROP_REST and bool(self._unfit(job)))

    def add(self, job: jobs_pb2.Job) -> None:
        self._waiting[job.job_id] = None

    def __iter__(self) -> Iterator[str]:
        """Those that wait there still."""
        gone = [job_id for job_id in self._waiting if self._waits(job_id) is None]
        for job_id in gone:
            del self._waiting[job_id]
        return iter(list(self._waiting))

    def wanted(self) -> list[str]:
        """The jobs whose files are to lie in the folder now."""
        return list(islice(self, DROPS_MAX))

    def on_dropped(self, event: Dropped, now: Now) -> None:
        """Something came back for a job; what does not wait there any more has ended otherwise, or is under way."""
        entry = self._waits(event.job_id)
        if entry is not None and event.job_id in self._waiting:
            entry.job.attempts.add(number=entry.job.attempt, started_us=now.utc_us)
            self._jobs.complete(entry, event.result, (), now)

    def _waits(self, job_id: str) -> Open | None:
        entry = self._jobs.get(job_id)
        here = entry is not None and entry.job.state == QUEUED and entry.job.route == jobs_pb2.ROUTE_FILE_QUEUE
        return entry if here else None
