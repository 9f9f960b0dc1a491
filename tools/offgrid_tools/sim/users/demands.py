"""Who asks for more than the work: many jobs at once, some after others, some by a deadline, some at a priority; and
who takes some of them back."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from google.protobuf.message import Message

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.errors import Fault, InvalidRequest
from offgrid_node.protocol.jobs.table import ENDED
from offgrid_tools.sim.engine import MS, SECOND, Engine
from offgrid_tools.sim.monitor import Monitor
from offgrid_tools.sim.process import Process
from offgrid_tools.sim.users.person import JobOwner

POLL_US = SECOND
JOBS_MIN, JOBS_MAX = 2, 8
JOB_TIMEOUT_MS = 5_000
PROGRAM_CHANCE, AFTER_CHANCE, DEADLINE_CHANCE, CANCEL_CHANCE, ALL_CHANCE = 0.4, 0.3, 0.25, 0.5, 0.3
DEADLINE_US, CANCEL_WITHIN_US = (500 * MS, 20 * SECOND), 6 * SECOND


class DemandingUser(JobOwner):
    """One person at one core; as many calls as `arrays`."""

    wants = "jobs on terms"
    jobs = JOBS_MIN, JOBS_MAX  # of one call
    cancel_chance = CANCEL_CHANCE

    def __init__(
        self,
        engine: Engine,
        monitor: Monitor,
        core: Process,
        arrays: int,
        name: str,
        sizes_tokens: Sequence[int] = (0,),
    ) -> None:
        super().__init__(engine, monitor, core, name, sizes_tokens)
        self._left = arrays
        self._open: dict[str, None] = {}
        self._cancelling = 0

    @property
    def content(self) -> bool:
        """Whether all jobs have ended, and what was to be taken back was."""
        return not (self._left or self._open or self._cancelling)

    def _begin(self) -> None:
        self._next()

    def _next(self) -> None:
        if self._left:
            self._engine.after(int(self._engine.rng.random() * 2 * SECOND), lambda: self._run(deadlines=True))

    def _run(self, *, deadlines: bool) -> None:
        rng = self._engine.rng
        count = rng.randint(*self.jobs)
        request = jobs_pb2.RunJobsRequest(
            task_id=self._task,
            jobs=[self._spec(number, deadlines=deadlines) for number in range(count)],
            mode=jobs_pb2.DISPATCH_MODE_AUTO,
            request_id=f"{self._name}-{self._left}-{deadlines}",
        )
        self._call("JobService/RunJobs", request, self._on_run, self._on_refused)

    def _spec(self, number: int, *, deadlines: bool) -> jobs_pb2.JobSpec:
        rng = self._engine.rng
        payload = self._payload(f"{self._name} {number} {rng.random()}".encode(), PROGRAM_CHANCE)
        spec = jobs_pb2.JobSpec(payload=payload, timeout_ms=JOB_TIMEOUT_MS, priority=rng.randint(-100, 100))
        spec.size_tokens = self._size_tokens()
        if number and rng.random() < AFTER_CHANCE:
            spec.after.append(f"#{rng.randrange(number)}")
        if deadlines and rng.random() < DEADLINE_CHANCE:
            spec.deadline_us = self._process.utc_us + rng.randint(*DEADLINE_US)
        return spec

    def _on_refused(self, fault: Fault) -> bool:
        """A deadline may have passed before it was heard of: then without any."""
        if not isinstance(fault, InvalidRequest):
            return False
        self._run(deadlines=False)
        return True

    def _on_run(self, reply: Message) -> None:
        assert isinstance(reply, jobs_pb2.RunJobsResponse)
        self._left -= 1
        for job_id in reply.job_ids:
            self._open[job_id] = None
            self._poll(job_id)
        if self._engine.rng.random() < self.cancel_chance:
            self._cancelling += 1
            later_us = int(self._engine.rng.random() ** 2 * CANCEL_WITHIN_US)
            self._engine.after(later_us, partial(self._cancel, list(reply.job_ids)))
        self._next()

    def _cancel(self, job_ids: list[str]) -> None:
        rng, request = self._engine.rng, jobs_pb2.CancelJobsRequest(reason="changed my mind")
        if rng.random() < ALL_CHANCE:
            request.task_id = self._task
        else:
            request.job_ids.extend(rng.sample(job_ids, rng.randint(1, len(job_ids))))
        self._monitor.jobs.terms.on_cancel(self.node, self._task if request.task_id else "", request.job_ids)
        self._call("JobService/CancelJobs", request, self._on_cancelled)

    def _on_cancelled(self, reply: Message) -> None:
        assert isinstance(reply, jobs_pb2.CancelJobsResponse)
        self._cancelling -= 1
        self._monitor.jobs.on_taken_back(self.node, reply.job_ids)

    def _poll(self, job_id: str) -> None:
        self._call("JobService/GetJob", jobs_pb2.GetJobRequest(job_id=job_id), self._on_state)

    def _on_state(self, reply: Message) -> None:
        assert isinstance(reply, jobs_pb2.GetJobResponse)
        self._monitor.jobs.on_shown(self.node, reply.job)
        if reply.job.state in ENDED:
            self._open.pop(reply.job.job_id, None)
        else:
            self._engine.after(POLL_US, lambda: self._poll(reply.job.job_id))
