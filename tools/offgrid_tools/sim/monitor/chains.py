"""The rule of jobs whose input is another one's output: it is that output, and nothing else."""

from __future__ import annotations

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.jobs.orders import payload_digest
from offgrid_tools.sim.monitor.evidence import Violation
from offgrid_tools.sim.work import LARGE_NAME, outcome_of


class Chains:
    """What work was asked for upon which output, by the names that users gave."""

    def __init__(self) -> None:
        self._payloads: dict[str, jobs_pb2.JobPayload] = {}
        self._templates: dict[str, jobs_pb2.JobPayload] = {}

    def expect(self, payload: jobs_pb2.JobPayload) -> None:
        """A user is about to ask for this work upon another job's output; no other has its `input_name`."""
        template = jobs_pb2.JobPayload()
        template.CopyFrom(payload)
        template.ClearField("input_job")
        self._templates[template.input_name] = template

    def is_waiting(self, job: jobs_pb2.Job) -> bool:
        """Whether its payload is not put together yet, or never was."""
        return bool(job.input_job) and job.attempt == 0

    def note(self, job: jobs_pb2.Job, payload: jobs_pb2.JobPayload) -> None:
        """Any event of a job, with its payload."""
        self._payloads[job.job_id] = payload

    def filled(self, job: jobs_pb2.Job) -> jobs_pb2.JobPayload | None:
        """The payload that a job with another one's output must have; None for any other job. Raises Violation."""
        template, source = self._templates.get(job.input_name), self._payloads.get(job.input_job)
        if template is None or source is None or self.is_waiting(job):
            return None
        payload = jobs_pb2.JobPayload()
        payload.CopyFrom(template)
        payload.input = outcome_of(source).output
        digest = payload_digest(payload.SerializeToString(deterministic=True))
        apart = source.input_name == LARGE_NAME  # a reference to an object: its bytes nobody can foresee
        if len(payload.input) != job.input_bytes or (job.payload_digest != digest and not apart):
            raise Violation(f"job {job.job_id}: its input is not the output of {job.input_job}")
        return payload
