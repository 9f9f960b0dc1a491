"""Who wants work done: creates a mission, a task and jobs, dispatches them and watches until they have ended."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from google.protobuf.message import Message

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.jobs.table import ENDED
from offgrid_tools.sim.engine import MS, SECOND, Engine
from offgrid_tools.sim.monitor import Monitor
from offgrid_tools.sim.process import Process
from offgrid_tools.sim.users.person import JobOwner

POLL_US = SECOND
REDUNDANT_CHANCE = 0.5  # of the jobs of a seed that has any
PAUSES_MAX_US = (3 * SECOND, 3 * SECOND, 100 * MS)  # the last is in a hurry
JOB_TIMEOUT_MS = 5_000
PROGRAM_CHANCE = 0.4  # of work that would show if it were done twice
MODES = (  # as people choose: mostly whatever the config says
    jobs_pb2.DISPATCH_MODE_UNSPECIFIED,
    jobs_pb2.DISPATCH_MODE_UNSPECIFIED,
    jobs_pb2.DISPATCH_MODE_AUTO,
    jobs_pb2.DISPATCH_MODE_OFFGRID,
    jobs_pb2.DISPATCH_MODE_OFFGRID,
    jobs_pb2.DISPATCH_MODE_DISABLED,
)


class Redundancy(NamedTuple):
    """How many executions a job has, and how many of them must agree."""

    replicas: int
    quorum: int
    adaptive: bool


class JobUser(JobOwner):
    """One person at one core, with a number of jobs to get done."""

    wants = "jobs"

    def __init__(
        self,
        engine: Engine,
        monitor: Monitor,
        core: Process,
        jobs: int,
        name: str,
        terms: Redundancy | None = None,
        sizes_tokens: Sequence[int] = (0,),
    ) -> None:
        """With `terms` some of the jobs are redundant."""
        super().__init__(engine, monitor, core, name, sizes_tokens)
        self._terms, self._odds = terms, Random(f"redundant {name}")  # noqa: S311 - to be repeatable
        self._left = jobs
        self._open = jobs
        self._pause_max_us = engine.rng.choice(PAUSES_MAX_US)
        self.done: dict[str, jobs_pb2.Job] = {}

    @property
    def content(self) -> bool:
        """Whether all jobs were dispatched and have been seen to end."""
        return len(self.done) == self._open

    def _begin(self) -> None:
        self._next()

    def _next(self) -> None:
        if self._left == 0:
            return
        number, self._left = self._left, self._left - 1
        self._engine.after(int(self._engine.rng.random() ** 2 * self._pause_max_us), lambda: self._create(number))

    def _create(self, number: int) -> None:
        work = f"{self._name} {number} {self._engine.rng.random()}".encode()
        payload = self._payload(work, PROGRAM_CHANCE)
        request = jobs_pb2.CreateJobRequest(
            task_id=self._task,
            job=self._spec(payload),
            request_id=f"{self._name}-j{number}",
        )
        self._call("JobService/CreateJob", request, self._on_job)

    def _spec(self, payload: jobs_pb2.JobPayload) -> jobs_pb2.JobSpec:
        spec, terms = jobs_pb2.JobSpec(payload=payload, timeout_ms=JOB_TIMEOUT_MS), self._terms
        spec.size_tokens = self._size_tokens()
        if terms is not None and self._odds.random() < REDUNDANT_CHANCE:
            spec.replicas, spec.quorum, spec.adaptive = terms
        return spec

    def _on_job(self, reply: Message) -> None:
        assert isinstance(reply, jobs_pb2.CreateJobResponse)
        self._monitor.jobs.on_acked(self.node, reply.job)
        mode = self._engine.rng.choice(MODES)
        request = jobs_pb2.DispatchJobRequest(job_id=reply.job.job_id, mode=mode)
        self._call("JobService/DispatchJob", request, self._on_dispatched)

    def _on_dispatched(self, reply: Message) -> None:
        assert isinstance(reply, jobs_pb2.DispatchJobResponse)
        self._monitor.jobs.on_acked(self.node, reply.job)
        self._poll(reply.job.job_id)
        self._next()

    def _poll(self, job_id: str) -> None:
        self._call("JobService/GetJob", jobs_pb2.GetJobRequest(job_id=job_id), self._on_state)

    def _on_state(self, reply: Message) -> None:
        assert isinstance(reply, jobs_pb2.GetJobResponse)
        self._monitor.jobs.on_shown(self.node, reply.job)
        if reply.job.state in ENDED:
            self.done[reply.job.job_id] = reply.job
        else:
            self._engine.after(POLL_US, lambda: self._poll(reply.job.job_id))
