"""The rule of brokers: an attempt is awarded by the one that its core asked last, however many have heard of it."""

from __future__ import annotations

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.jobs.table import AWARDED, QUEUED, RUNNING
from offgrid_tools.sim.monitor.evidence import Evidence, Violation
from offgrid_tools.sim.monitor.rules import Rules


class TakeoverRules(Rules):
    """By the rows of jobs: whom a core asks is durable before it is asked."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._asked: dict[tuple[str, int], str] = {}  # by job and attempt

    def on_job(self, core: str, job: jobs_pb2.Job) -> None:
        """Any row of a job."""
        key = job.job_id, job.attempt
        if job.state == QUEUED:
            self._asked[key] = job.broker
        elif job.state in (AWARDED, RUNNING) and job.route == jobs_pb2.ROUTE_OFFGRID:
            asked = self._asked.get(key, job.broker)
            if asked != job.broker:
                names = self._evidence.name_of(job.broker), self._evidence.name_of(asked)
                raise Violation(f"{job.job_id}/{job.attempt} was awarded by {names[0]}, and {names[1]} had been asked")
