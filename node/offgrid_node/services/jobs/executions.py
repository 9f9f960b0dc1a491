"""How the executions of a redundant job went, for its owner: by committed rows."""

from __future__ import annotations

from collections.abc import Iterator

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.jobs.index import JOBS
from offgrid_node.protocol.jobs.redundant import execution_ids
from offgrid_node.protocol.jobs.votes import digest_of, vote_of
from offgrid_node.services.shelf import Shelf


def executions_of(parent: jobs_pb2.Job, shelf: Shelf) -> Iterator[jobs_pb2.Execution]:
    """In the order in which they were made; none of a job that is not redundant."""
    if parent.replicas <= 1:
        return
    accepted = vote_of(parent)
    for name in execution_ids(parent):
        job = shelf.find(JOBS, jobs_pb2.Job, name)
        if job is None:
            return
        digest = digest_of(job)
        yield jobs_pb2.Execution(
            job_id=name,
            state=job.state,
            host=job.host,
            result_digest=digest,
            agreed=bool(accepted) and digest == accepted,
            price_micro=job.price_micro,
            error=job.error,
        )
