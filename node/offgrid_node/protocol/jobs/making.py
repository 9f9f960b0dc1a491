"""How a job's message begins: from what its owner asked for, or as one execution of a redundant job."""

from __future__ import annotations

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.jobs.commands import NewJob
from offgrid_node.protocol.jobs.table import CREATED, move
from offgrid_node.protocol.jobs.terms import NO_TERMS, Terms


class Making:
    """Jobs of one task that are made at once begin with the same bytes: to parse them again costs half of setting each
    field."""

    def __init__(self) -> None:
        self._common: tuple[str, int, bytes] = ("", 0, b"")  # of which task, and when

    def job(self, job_id: str, task: jobs_pb2.Task, new: NewJob, request_id: str, now: Now) -> jobs_pb2.Job:
        job = jobs_pb2.Job.FromString(self._beginning(task, now))
        job.job_id, job.needs, job.payload_digest = job_id, new.needs, new.payload_digest
        job.size_tokens, job.timeout_ms, job.input_bytes = new.size_tokens, new.timeout_ms, new.input_bytes
        if request_id:
            job.request_id = request_id
        if new.input_name:
            job.input_name = new.input_name
        if new.terms is not NO_TERMS and new.terms != NO_TERMS:
            _set_terms(job, new.terms)
        if new.schedule_id:
            job.schedule_id, job.due_us = new.schedule_id, new.due_us
        return job

    def _beginning(self, task: jobs_pb2.Task, now: Now) -> bytes:
        task_id, at_us, common = self._common
        if task_id == task.task_id and at_us == now.utc_us:
            return common
        job = jobs_pb2.Job(task_id=task.task_id, mission_id=task.mission_id, kind=task.kind, state=CREATED)
        job.created_us = job.updated_us = now.utc_us
        self._common = task.task_id, now.utc_us, job.SerializeToString()
        return self._common[2]


def execution_of(parent: jobs_pb2.Job, job_id: str, now: Now) -> jobs_pb2.Job:
    """The same work, dispatched over the mesh for the first time."""
    job = _bare(parent)
    job.job_id, job.parent_id, job.created_us = job_id, parent.job_id, now.utc_us
    job.state, job.mode, job.attempt = CREATED, jobs_pb2.DISPATCH_MODE_OFFGRID, 1
    move(job, "dispatch")
    return job


def _set_terms(job: jobs_pb2.Job, terms: Terms) -> None:
    job.requirements, job.priority, job.deadline_us = terms.requirements, terms.priority, terms.deadline_us
    job.after.extend(terms.after)
    job.price_max_micro, job.losses_max, job.input_job = terms.price_max_micro, terms.losses_max, terms.input_job
    job.replicas, job.quorum, job.adaptive = terms.replicas, terms.quorum, terms.adaptive


def _bare(parent: jobs_pb2.Job) -> jobs_pb2.Job:
    """Without what a redundant job does not hand on: what it waits for, and until when, is its own affair."""
    job = jobs_pb2.Job()
    job.CopyFrom(parent)
    job.ClearField("replicas")
    job.ClearField("quorum")
    job.ClearField("adaptive")
    job.ClearField("request_id")
    job.ClearField("attempts")
    job.ClearField("after")
    job.ClearField("input_job")
    job.ClearField("deadline_us")
    job.ClearField("schedule_id")
    job.ClearField("due_us")
    return job
