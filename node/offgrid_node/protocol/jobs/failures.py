"""Failures that a host only claims: without a receipt, so they cost it nothing, and nothing proves them.

A host that says of all work that it failed would end its jobs for good, at no cost and for no blame. So the first such
claim about a job is a lost attempt: the job goes to another host, if there is one. Who fails it too has confirmed it
(as BOINC takes so many errors of different hosts before it gives a workunit up); who brings a result has refuted it,
and the brokers are told whose claim it was. A time-out has cost its host the time and stands (`reports.py`); so does
what this node found itself, and in redundant jobs the executions are compared as they are.
"""

from __future__ import annotations

from collections.abc import Iterator

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.jobs.orders import AttemptKey

CLAIMS = frozenset({"ExecutionFailed", "OutputTooLarge"})


def is_unconfirmed(job: jobs_pb2.Job, error: str, self_id: str) -> bool:
    """Whether another host is to be asked before the job ends with this error of its present attempt."""
    alone = job.host == self_id or job.parent_id or job.route != jobs_pb2.ROUTE_OFFGRID
    return error in CLAIMS and not alone and not any(claims_of(job))


def claims_of(job: jobs_pb2.Job) -> Iterator[AttemptKey]:
    """The earlier attempts whose hosts claimed that the work failed."""
    for attempt in job.attempts:
        if attempt.number != job.attempt and _is_claim(attempt):
            yield job.job_id, attempt.number


def forget_oldest(job: jobs_pb2.Job) -> None:
    """The job has had too many attempts to show them all. Claims stay: the next is judged by them."""
    attempts = job.attempts
    del attempts[next((at for at, attempt in enumerate(attempts) if not _is_claim(attempt)), 0)]


def _is_claim(attempt: jobs_pb2.Attempt) -> bool:
    return attempt.outcome.partition(":")[0] in CLAIMS
