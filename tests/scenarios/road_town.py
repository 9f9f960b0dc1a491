"""A small town for scenarios: a cluster without random misfortunes, and people who wait for their answers."""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence

from google.protobuf.message import Message

from offgrid.v1 import jobs_pb2, state_pb2
from offgrid_node.executors.executor import Outcome
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.jobs.table import ENDED
from offgrid_tools.sim.cluster import Cluster
from offgrid_tools.sim.driver import writes_to
from offgrid_tools.sim.engine import SECOND, Trace
from offgrid_tools.sim.plan import FIVE
from offgrid_tools.sim.process import Process
from offgrid_tools.sim.spec import Spec
from offgrid_tools.sim.work import outcome_of, verdict_of

WARM_UP_S = 8.0
ANSWER_S = 5.0
TOKENS = 2_000_000


class Town:
    """`seconds` is how long work takes; both may be changed while the town lives."""

    def __init__(self, specs: Sequence[Spec] = FIVE, seed: int = 1) -> None:
        self.seconds = 0.5
        self.work_error = ""
        self._trace = io.StringIO()
        self._made = 0
        self.cluster = Cluster(seed, specs, trace=Trace(self._trace), work=self._work)
        self.cluster.start()
        self.cluster.run_for(WARM_UP_S)

    def _work(self, payload: jobs_pb2.JobPayload) -> tuple[int, Outcome]:
        outcome = outcome_of(payload)
        if self.work_error:
            outcome = Outcome(b"", b"", -1, self.work_error, "as planned", "sim/1")
        return int(self.seconds * SECOND), outcome

    def __getitem__(self, name: str) -> Process:
        return self.cluster.processes[name]

    def run_for(self, seconds: float) -> None:
        self.cluster.run_for(seconds)

    @property
    def now_s(self) -> float:
        return self.cluster.engine.now_us / SECOND

    def falls_at(self, process: Process, moment: str, tables: Collection[str] = (), *, away_s: float = 0.3) -> None:
        """It crashes beside its next commit, or the next one that writes to one of these tables, and comes back."""

        def fall() -> None:
            process.crash()
            self.cluster.engine.after(int(away_s * SECOND), process.start)

        process.trap, process.on_trapped = moment, fall
        if tables:
            process.trap_on = writes_to(frozenset(tables))

    # ---- what people do at the core

    def ask(self, method: str, request: Message) -> Message | Fault:
        """The core's answer to its owner, of JobService unless the method says otherwise."""
        answers: list[Message | Fault] = []
        name = method if "." in method else f"offgrid.v1.JobService/{method}"
        self["core"].admin(name, request, answers.append)
        for _ in range(int(ANSWER_S * 1000)):
            if answers:
                return answers[0]
            self.run_for(0.001)
        raise AssertionError(f"no answer to {method}")

    def create(self, timeout_ms: int = 30_000, *, module_bytes: int = 8, input_name: str = "") -> jobs_pb2.Job:
        """A job of a new task, not dispatched yet. Of an input that is called LARGE_NAME the output is large."""
        mission = self.ask("CreateMission", jobs_pb2.CreateMissionRequest(title="m"))
        assert isinstance(mission, jobs_pb2.CreateMissionResponse)
        task = self.ask(
            "CreateTask",
            jobs_pb2.CreateTaskRequest(mission_id=mission.mission.mission_id, name="t", kind="compute"),
        )
        assert isinstance(task, jobs_pb2.CreateTaskResponse)
        payload = self.sound_payload(module_bytes, input_name)
        job = self.ask(
            "CreateJob",
            jobs_pb2.CreateJobRequest(
                task_id=task.task.task_id,
                job=jobs_pb2.JobSpec(payload=payload, size_tokens=TOKENS, timeout_ms=timeout_ms),
            ),
        )
        assert isinstance(job, jobs_pb2.CreateJobResponse)
        return job.job

    def sound_payload(self, module_bytes: int = 8, input_name: str = "") -> jobs_pb2.JobPayload:
        """The next work that does not fail by itself; the monitor expects it."""
        while True:
            self._made += 1
            work = b"work %d" % self._made
            task = jobs_pb2.WasmTask(module=b"m" * module_bytes)
            payload = jobs_pb2.JobPayload(wasm=task, input=work, input_name=input_name)
            if not verdict_of(payload):
                self.cluster.monitor.jobs.expect(payload)
                return payload

    def dispatch(
        self, job: jobs_pb2.Job, mode: jobs_pb2.DispatchMode.ValueType = jobs_pb2.DISPATCH_MODE_UNSPECIFIED
    ) -> jobs_pb2.DispatchJobResponse | Fault:
        answer = self.ask("DispatchJob", jobs_pb2.DispatchJobRequest(job_id=job.job_id, mode=mode))
        assert isinstance(answer, jobs_pb2.DispatchJobResponse | Fault)
        return answer

    def look(self, job: jobs_pb2.Job) -> jobs_pb2.Job:
        answer = self.ask("GetJob", jobs_pb2.GetJobRequest(job_id=job.job_id))
        assert isinstance(answer, jobs_pb2.GetJobResponse)
        return answer.job

    def until(self, job: jobs_pb2.Job, state: jobs_pb2.JobState.ValueType, within_s: float = 60.0) -> jobs_pb2.Job:
        """Lets time pass until the job is in that state."""
        end_s = self.now_s + within_s
        while (seen := self.look(job)).state != state:
            assert seen.state not in ENDED, f"it ended as {seen.error!r}: {seen.error_detail}"
            assert self.now_s < end_s, f"still {jobs_pb2.JobState.Name(seen.state)} after {within_s} s"
            self.run_for(0.05)
        return seen

    def states_of(self, job: jobs_pb2.Job) -> list[str]:
        """What the core's journal says of the job, in order, each state once."""
        states: list[str] = []
        for _, data in self["core"].store.events(0):
            event = state_pb2.Event.FromString(data)
            if event.HasField("job") and event.job.job_id == job.job_id:
                state = jobs_pb2.JobState.Name(event.job.state).removeprefix("JOB_STATE_")
                states += [state] if states[-1:] != [state] else []
        return states

    # ---- what was seen on the roads and machines

    def sent_s(self, source: str, target: str, method: str) -> list[float]:
        """When such calls left, in seconds."""
        head = f"> {source} {target} offgrid.v1.MarketService/{method}"
        lines = (line.split(" ", 1) for line in self._trace.getvalue().splitlines())
        return [int(at) / SECOND for at, text in lines if text.startswith(head)]

    def runs_of(self, job: jobs_pb2.Job) -> list[tuple[str, int]]:
        """(host, attempt) of every execution of the job, in order."""
        runs = self.cluster.monitor.jobs.executions
        return [(self.cluster.name_of(host), attempt) for host, job_id, attempt in runs if job_id == job.job_id]
