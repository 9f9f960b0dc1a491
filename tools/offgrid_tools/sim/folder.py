"""A core's drop folder in virtual time, and the program that works on what lies there: twins of `DropWatch` and of
whoever its owner has put beside it. Files outlive crashes; the program knows nothing of them, and works on."""

from __future__ import annotations

from contextlib import suppress

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.jobs.commands import Dropped
from offgrid_node.protocol.jobs.index import JOBS
from offgrid_node.protocol.jobs.open_jobs import PAYLOADS
from offgrid_node.protocol.jobs.receipts import COMPLETED, FAILED
from offgrid_tools.sim.cluster import Cluster
from offgrid_tools.sim.engine import MS, SECOND
from offgrid_tools.sim.process import Process
from offgrid_tools.sim.work import outcome_of

LOOK_US, WORK_US = SECOND, (50 * MS, 5 * SECOND)
AGAIN_CHANCE = 0.3  # that a result is left a second time, after the first was taken


class DropHelper:
    """Looks at one core's folder, and leaves a result for each job that it finds, once or twice."""

    def __init__(self, cluster: Cluster, core: Process) -> None:
        self._engine, self._drops = cluster.engine, cluster.monitor.jobs.drops
        self._core = core
        self._files: dict[str, bytes] = {}
        self._results: dict[str, jobs_pb2.JobResult] = {}
        self._engine.after(LOOK_US, self._look)

    def _look(self) -> None:
        if self._core.up and not self._core.frozen:
            with suppress(Fault):  # the machines are loaded anew, or the disk refuses: the next look
                self._keep_in_step()
        self._engine.after(LOOK_US, self._look)

    def _keep_in_step(self) -> None:
        """As `DropWatch.look`."""
        node = self._core.running
        wanted = node.jobs.core.local.drops.wanted()
        for job_id in [job_id for job_id in self._files if job_id not in wanted]:
            del self._files[job_id]
            self._results.pop(job_id, None)
        for job_id in wanted:
            if (result := self._results.get(job_id)) is not None:
                node.runtime.deliver("jobs", Dropped(job_id, result))
            elif job_id not in self._files:
                self._put(job_id)

    def _put(self, job_id: str) -> None:
        store = self._core.store
        row = store.get(JOBS, job_id.encode())
        if row is None:
            return
        job = jobs_pb2.Job.FromString(row)
        payload = job.kept_payload or store.get(PAYLOADS, job_id.encode())
        if payload:
            self._files[job_id] = payload
            self._engine.after(self._engine.rng.randint(*WORK_US), lambda: self._work(job_id, payload))

    def _work(self, job_id: str, payload: bytes) -> None:
        """Whether its file lies there still or not: who had begun with it leaves its result."""
        result = result_of(jobs_pb2.JobPayload.FromString(payload))
        self._results[job_id] = result
        self._drops.on_left(self._core.node_id, job_id)
        if self._engine.rng.random() < AGAIN_CHANCE and self._core.up and not self._core.frozen:
            again = Dropped(job_id, result)  # a look was under way as the file was taken
            self._core.running.runtime.deliver("jobs", again)


def result_of(payload: jobs_pb2.JobPayload) -> jobs_pb2.JobResult:
    """What a result's file can say of how this work ends."""
    outcome = outcome_of(payload)
    failed = bool(outcome.error or outcome.exit_code)
    return jobs_pb2.JobResult(
        status=FAILED if failed else COMPLETED, output=outcome.output, log=outcome.log, exit_code=int(failed)
    )
