"""Rules of what comes back from a drop folder: it ends only a job that waits there, it is what the work comes to, and
nobody is paid for it."""

from __future__ import annotations

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.jobs.table import COMPLETED, ENDED
from offgrid_node.protocol.ledger.tables import BOOKINGS
from offgrid_tools.sim.monitor.evidence import Evidence, Violation


class Drops:
    """By job and core."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._left: set[tuple[str, str]] = set()
        self._unpaid: set[tuple[str, str]] = set()
        self.taken = 0

    def on_left(self, core: str, job_id: str) -> None:
        """A result lies in the core's folder."""
        self._left.add((core, job_id))

    def judges(self, core: str, job: jobs_pb2.Job, verdict: str) -> bool:
        """Whether the job has ended by what was left there, and rightly so; `verdict` is the error that its work comes
        to."""
        if job.state not in ENDED or not job.result.status or job.result.HasField("receipt") or job.result_of:
            return False
        if (core, job.job_id) not in self._left:
            raise Violation(f"job {job.job_id} has a result without a receipt, and nobody has left one for it")
        if job.route != jobs_pb2.ROUTE_FILE_QUEUE:
            raise Violation(f"job {job.job_id} had left the drop folder, and is ended by what was left there")
        if (job.state == COMPLETED) == bool(verdict) or job.error != ("ExecutionFailed" if verdict else ""):
            raise Violation(f"job {job.job_id} ends with {job.error!r}, and its work with {verdict!r}")
        self._unpaid.add((core, job.job_id))
        self.taken += 1
        return True

    def check_store(self, core: str) -> None:
        for owner, job_id in self._unpaid:
            if owner == core and self._evidence.row(core, BOOKINGS, job_id.encode()) is not None:
                raise Violation(f"job {job_id} was done from the drop folder, and is paid")
