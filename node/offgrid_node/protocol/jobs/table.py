"""A job's life as a table: which event may move it from which state to which."""

from __future__ import annotations

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.errors import Internal

CREATED, QUEUED, AWARDED, RUNNING, COMPLETED, FAILED, CANCELLED, EXPIRED = (
    jobs_pb2.JOB_STATE_CREATED,
    jobs_pb2.JOB_STATE_QUEUED,
    jobs_pb2.JOB_STATE_AWARDED,
    jobs_pb2.JOB_STATE_RUNNING,
    jobs_pb2.JOB_STATE_COMPLETED,
    jobs_pb2.JOB_STATE_FAILED,
    jobs_pb2.JOB_STATE_CANCELLED,
    jobs_pb2.JOB_STATE_EXPIRED,
)
STOPS = {"cancel": CANCELLED, "expire": EXPIRED}  # from wherever it is

TRANSITIONS: dict[jobs_pb2.JobState.ValueType, dict[str, jobs_pb2.JobState.ValueType]] = {
    CREATED: {"dispatch": QUEUED, "fail": FAILED, **STOPS},
    # "complete": a redundant job by its executions' results, one of the local queue by what came back to its folder.
    QUEUED: {"award": AWARDED, "start": RUNNING, "lose": QUEUED, "complete": COMPLETED, "fail": FAILED, **STOPS},
    AWARDED: {"start": RUNNING, "lose": QUEUED, "complete": COMPLETED, "fail": FAILED, **STOPS},
    RUNNING: {"start": RUNNING, "lose": QUEUED, "complete": COMPLETED, "fail": FAILED, **STOPS},
    COMPLETED: {},
    FAILED: {},
    CANCELLED: {},
    EXPIRED: {},
}

ENDED = frozenset(state for state, moves in TRANSITIONS.items() if not moves)


def move(job: jobs_pb2.Job, event: str) -> None:
    """Moves the job; an event that its state does not know is a defect of ours."""
    state = TRANSITIONS[job.state].get(event)
    if state is None:
        raise Internal(f"job {job.job_id}: {event!r} in state {jobs_pb2.JobState.Name(job.state)}")
    job.state = state
