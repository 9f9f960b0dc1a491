"""Who has work that kills the process of whichever host takes it, asks for it twice, and gives up in the end."""

from __future__ import annotations

from functools import partial

from google.protobuf.message import Message

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.jobs.table import ENDED
from offgrid_tools.sim.bustle import RARE
from offgrid_tools.sim.engine import SECOND, Engine
from offgrid_tools.sim.monitor import Monitor
from offgrid_tools.sim.process import Process
from offgrid_tools.sim.users.person import JobOwner
from offgrid_tools.sim.work import DEADLY_NAME

TIMES, POLL_US = 2, SECOND
JOB_TIMEOUT_MS, PATIENCE_US = 5_000, 30 * SECOND  # a host that has it in quarantine refuses it for an hour


class DeadlyUser(JobOwner):
    """One person at one core; only the host that has the rare program can do it, so that it is hit again and again."""

    wants = "the end of deadly work"

    def __init__(self, engine: Engine, monitor: Monitor, core: Process, name: str) -> None:
        super().__init__(engine, monitor, core, name)
        self._left = TIMES

    @property
    def content(self) -> bool:
        return self._left == 0

    def _begin(self) -> None:
        payload = jobs_pb2.JobPayload(input=self._name.encode(), input_name=DEADLY_NAME)
        payload.process.command = RARE
        self._monitor.deadly.expect(payload)
        self._monitor.jobs.expect(payload)
        self._run(payload)

    def _run(self, payload: jobs_pb2.JobPayload) -> None:
        spec = jobs_pb2.JobSpec(payload=payload, timeout_ms=JOB_TIMEOUT_MS)
        request = jobs_pb2.RunJobsRequest(task_id=self._task, jobs=[spec], request_id=f"{self._name}-{self._left}")
        self._call("JobService/RunJobs", request, partial(self._on_run, payload))

    def _on_run(self, payload: jobs_pb2.JobPayload, reply: Message) -> None:
        assert isinstance(reply, jobs_pb2.RunJobsResponse)
        self._engine.after(PATIENCE_US, partial(self._give_up, list(reply.job_ids)))
        self._poll(payload, reply.job_ids[0])

    def _give_up(self, job_ids: list[str]) -> None:
        self._monitor.jobs.terms.on_cancel(self.node, "", job_ids)
        request = jobs_pb2.CancelJobsRequest(job_ids=job_ids, reason="it ends no more")
        self._call("JobService/CancelJobs", request, lambda reply: None)

    def _poll(self, payload: jobs_pb2.JobPayload, job_id: str) -> None:
        request = jobs_pb2.GetJobRequest(job_id=job_id)
        self._call("JobService/GetJob", request, partial(self._on_state, payload))

    def _on_state(self, payload: jobs_pb2.JobPayload, reply: Message) -> None:
        assert isinstance(reply, jobs_pb2.GetJobResponse)
        if reply.job.state not in ENDED:
            self._engine.after(POLL_US, partial(self._poll, payload, reply.job.job_id))
            return
        self._left -= 1
        if self._left:
            self._run(payload)
