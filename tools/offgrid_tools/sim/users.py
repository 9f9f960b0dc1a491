"""The users of a simulated cluster: they create missions, tasks and jobs, dispatch them, and repeat a call with the
same request id when they get no answer, as the client library does."""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.message import Message

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.jobs.table import ENDED
from offgrid_tools.sim.engine import MS, SECOND, Engine
from offgrid_tools.sim.monitor import Monitor

RETRY_US, POLL_US = 400 * MS, SECOND
PAUSES_MAX_US = (3 * SECOND, 3 * SECOND, 100 * MS)  # the last is in a hurry
JOB_TIMEOUT_MS = 5_000
MODES = (  # as people choose: mostly whatever the config says
    jobs_pb2.DISPATCH_MODE_UNSPECIFIED,
    jobs_pb2.DISPATCH_MODE_UNSPECIFIED,
    jobs_pb2.DISPATCH_MODE_AUTO,
    jobs_pb2.DISPATCH_MODE_OFFGRID,
    jobs_pb2.DISPATCH_MODE_OFFGRID,
    jobs_pb2.DISPATCH_MODE_DISABLED,
)

Ask = Callable[[str, Message, Callable[[Message | Fault], None]], None]


class User:
    """One person at one core, with a number of jobs to get done."""

    def __init__(self, engine: Engine, monitor: Monitor, core: str, ask: Ask, jobs: int, name: str) -> None:
        """`ask` brings an admin's request to the core; it answers with a Fault while the core is down."""
        self._engine, self._monitor, self._core, self._ask = engine, monitor, core, ask
        self._left, self._name = jobs, name
        self._task = ""
        self._open = jobs
        self._pause_max_us = engine.rng.choice(PAUSES_MAX_US)
        self.done: dict[str, jobs_pb2.Job] = {}

    @property
    def content(self) -> bool:
        """Whether all jobs were dispatched and have been seen to end."""
        return len(self.done) == self._open

    def start(self) -> None:
        request = jobs_pb2.CreateMissionRequest(title="m", request_id=f"{self._name}-m")
        self._call("CreateMission", request, self._on_mission)

    def _on_mission(self, reply: Message) -> None:
        assert isinstance(reply, jobs_pb2.CreateMissionResponse)
        request = jobs_pb2.CreateTaskRequest(
            mission_id=reply.mission.mission_id, name="t", kind="compute", request_id=f"{self._name}-t"
        )
        self._call("CreateTask", request, self._on_task)

    def _on_task(self, reply: Message) -> None:
        assert isinstance(reply, jobs_pb2.CreateTaskResponse)
        self._task = reply.task.task_id
        self._next()

    def _next(self) -> None:
        if self._left == 0:
            return
        number, self._left = self._left, self._left - 1
        self._engine.after(int(self._engine.rng.random() ** 2 * self._pause_max_us), lambda: self._create(number))

    def _create(self, number: int) -> None:
        work = f"{self._name} {number} {self._engine.rng.random()}".encode()
        payload = jobs_pb2.JobPayload(wasm=jobs_pb2.WasmTask(module=b"(module)"), input=work)
        self._monitor.expect(payload)
        request = jobs_pb2.CreateJobRequest(
            task_id=self._task, payload=payload, timeout_ms=JOB_TIMEOUT_MS, request_id=f"{self._name}-j{number}"
        )
        self._call("CreateJob", request, self._on_job)

    def _on_job(self, reply: Message) -> None:
        assert isinstance(reply, jobs_pb2.CreateJobResponse)
        self._monitor.on_acked(self._core, reply.job)
        mode = self._engine.rng.choice(MODES)
        request = jobs_pb2.DispatchJobRequest(job_id=reply.job.job_id, mode=mode)
        self._call("DispatchJob", request, self._on_dispatched)

    def _on_dispatched(self, reply: Message) -> None:
        assert isinstance(reply, jobs_pb2.DispatchJobResponse)
        self._monitor.on_acked(self._core, reply.job)
        self._poll(reply.job.job_id)
        self._next()

    def _poll(self, job_id: str) -> None:
        self._call("GetJob", jobs_pb2.GetJobRequest(job_id=job_id), self._on_state)

    def _on_state(self, reply: Message) -> None:
        assert isinstance(reply, jobs_pb2.GetJobResponse)
        self._monitor.on_shown(self._core, reply.job)
        if reply.job.state in ENDED:
            self.done[reply.job.job_id] = reply.job
        else:
            self._engine.after(POLL_US, lambda: self._poll(reply.job.job_id))

    def _call(self, method: str, request: Message, done: Callable[[Message], None]) -> None:
        """Until it is answered; the run's own end bounds it."""
        answered = False

        def ended(outcome: Message | Fault) -> None:
            nonlocal answered
            if answered:
                return
            answered = True
            if isinstance(outcome, Fault):
                self._engine.after(RETRY_US, lambda: self._call(method, request, done))
            else:
                done(outcome)

        self._ask(f"offgrid.v1.JobService/{method}", request, ended)
        # A daemon that dies takes the answer with it; its client sees the socket close, here by this time.
        self._engine.after(HANG_UP_US, lambda: ended(HUNG_UP))


HANG_UP_US = 3 * SECOND
HUNG_UP = Fault("no answer")
