"""Our road: a core, a broker and a host, each a process with its own store and keys, and a client of the core.

A job counts as done when the client has it completed, with its output and with the receipt that the host has signed and
the core has verified. By then each of the three has fsynced what it answered for.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from offgrid.client import payloads
from offgrid.client.futures import JobFuture
from offgrid.v1 import jobs_pb2
from offgrid_node.local_mesh import LocalMesh

CALL_S_MAX = 60.0
ROLES = {role: [role] for role in ("core", "broker", "host")}
SLOTS = 256  # what a host takes on at once: its processors are no measure for jobs that do nothing


class OurMesh:
    """Three nodes and a client. Use it in a `with` block."""

    def __init__(self, folder: Path) -> None:
        self._mesh = LocalMesh(folder, "bench", ROLES, host__slots=SLOTS)

    def __enter__(self) -> OurMesh:
        try:
            self._mesh.start()
            self._mesh.wait_alive()
            self._mesh.wait_offers(1)
        except BaseException:
            self._mesh.stop()
            raise
        self._client = self._mesh["core"].client(CALL_S_MAX)
        mission = self._client.missions.create("bench")
        self._task_id = self._client.tasks.create(mission.mission_id, "bench", "compute").task_id
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self._mesh.stop()

    @property
    def pids(self) -> Mapping[str, int]:
        """By role; the client is this process."""
        return {name: process.pid for name, node in self._mesh.nodes.items() if (process := node.process)}

    def run(self, count: int, in_flight: int) -> float:
        """Seconds for `count` jobs, each awaited by itself, with up to `in_flight` submitted and not awaited yet."""
        under_way: deque[tuple[bytes, JobFuture[jobs_pb2.Job]]] = deque()
        began = time.perf_counter()
        for number in range(count):
            if len(under_way) == in_flight:
                finish(*under_way.popleft())
            content = b"%d" % number
            under_way.append((content, self._submit(content)))
        while under_way:
            finish(*under_way.popleft())
        return time.perf_counter() - began

    def run_batches(self, count: int, batch: int) -> float:
        """Seconds for `count` jobs, `batch` submitted together and awaited together."""
        began = time.perf_counter()
        for first in range(0, count, batch):
            contents = [b"%d" % number for number in range(first, first + batch)]
            for content, future in [(content, self._submit(content)) for content in contents]:
                finish(content, future)
        return time.perf_counter() - began

    def run_one(self) -> float:
        """Seconds from the submission of one job to its result."""
        return self.run(1, 1)

    def _submit(self, content: bytes) -> JobFuture[jobs_pb2.Job]:
        return self._client.jobs.submit(payloads.builtin("echo", input=content), task_id=self._task_id)


def finish(content: bytes, future: JobFuture[jobs_pb2.Job]) -> None:
    """Waits for a job; raises unless it is done in the sense of this benchmark."""
    job = future.result(CALL_S_MAX)
    whole = (
        job.state == jobs_pb2.JOB_STATE_COMPLETED and job.result.output == content and job.result.HasField("receipt")
    )
    if not whole:
        raise RuntimeError(f"job {job.job_id} did not end as it should: {job.error} {job.error_detail}")
