"""A steady stream of small jobs, by clients that repeat what they got no answer to, as clients should."""

from __future__ import annotations

from dataclasses import dataclass, field

from offgrid.client import Client, OffgridError, payloads
from offgrid.v1 import jobs_pb2
from offgrid_tools.soak.clients import PAUSE_S, Writer

OPEN_MAX = 12  # jobs of one client that have not ended; then it waits
SLEEPY_CHANCE = 0.5
ENDED = (jobs_pb2.JOB_STATE_COMPLETED, jobs_pb2.JOB_STATE_FAILED)

# Copies its input to its output and exits.
ECHO = b"""(module
  (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (i32.store (i32.const 0) (i32.const 64))
    (i32.store (i32.const 4) (i32.const 4096))
    (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 16)))
    (i32.store (i32.const 4) (i32.load (i32.const 16)))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)))))"""


@dataclass(slots=True)
class Acked:
    """What the core has acknowledged of one job; from then on it must neither vanish nor end twice."""

    job_id: str
    expected: bytes
    dispatched: bool = False


@dataclass(slots=True)
class Load(Writer):
    """One client that has jobs done."""

    acked: list[Acked] = field(default_factory=list)
    _task_id: str = ""

    def begin(self, client: Client) -> None:
        self._task_id = self.insist(lambda: self._task(client)) or ""

    def step(self, client: Client, number: int) -> None:
        self._submit(client, self._task_id, number)
        self._wait_for_room(client)

    def _task(self, client: Client) -> str:
        mission = client.missions.create(self.name, request_id=f"{self.name}-m")
        return client.tasks.create(mission.mission_id, self.name, "compute", request_id=f"{self.name}-t").task_id

    def _submit(self, client: Client, task: str, number: int) -> None:
        content = f"{self.name} {number} {self.rng.getrandbits(64):x}".encode()
        if self.rng.random() < SLEEPY_CHANCE:
            payload = payloads.command("sh", ["-c", f"sleep {self.rng.uniform(0.1, 0.6):.2f}; cat"], input=content)
        else:
            payload = payloads.wasm(ECHO, input=content)
        request_id = f"{self.name}-{number}"
        job = self.insist(lambda: client.jobs.create(task, payload, request_id=request_id))
        if job is None:
            return
        acked = Acked(job.job_id, content)
        self.acked.append(acked)
        if self.rng.random() < 0.2:  # a client that has forgotten that it was answered
            again = self.insist(lambda: client.jobs.create(task, payload, request_id=request_id))
            if again is not None and again.job_id != job.job_id:
                self.violations.append(f"request {request_id} made two jobs: {job.job_id} and {again.job_id}")
        acked.dispatched = self.insist(lambda: self._dispatch(client, job.job_id)) is not None

    def _dispatch(self, client: Client, job_id: str) -> bool:
        try:
            client.jobs.dispatch(job_id)
        except OffgridError as error:
            if error.reason != "JobEnded":  # an earlier try got through, and no answer came back
                raise
        return True

    def _wait_for_room(self, client: Client) -> None:
        recent = self.acked[-OPEN_MAX:]
        if len(recent) < OPEN_MAX:
            return
        oldest = recent[0].job_id
        while not self._stop.is_set():
            job = self.insist(lambda: client.jobs.get(oldest))
            if job is None or job.state in ENDED:
                return
            self._stop.wait(PAUSE_S)
