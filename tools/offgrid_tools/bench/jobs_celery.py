"""Celery with Debian's Redis as broker and for the results: one worker of one process, late acknowledgement.

Redis as it comes: snapshots, no fsync for a job.
"""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path
from typing import Any

from offgrid_tools.bench.harness import timed
from offgrid_tools.bench.peers import PYTHON, Processes, free_port, lacking, listens

URL = "BENCH_REDIS_URL"
RESULT_S_MAX = 60.0
TASK = "bench.echo"
WORKER = (
    "--app", "offgrid_tools.bench.celery_worker", "worker",
    "--pool", "solo", "--concurrency", "1", "--without-gossip", "--without-mingle", "--loglevel", "INFO",
)  # fmt: skip


def make_app(url: str) -> Any:
    """The application, the same in the worker and here."""
    from celery import Celery

    app = Celery("bench", broker=url, backend=url)
    app.conf.update(
        task_acks_late=True,
        worker_prefetch_multiplier=64,
        broker_connection_retry_on_startup=True,
        task_serializer="json",
        result_expires=60,
    )
    app.task(name=TASK)(echo)
    return app


def echo(content: str) -> str:
    """The job."""
    return content


class CeleryCluster:
    """Redis, one worker, and a client in this process. Use it in a `with` block."""

    name = "Celery"

    def __init__(self, folder: Path) -> None:
        self._processes = Processes(folder)

    @staticmethod
    def missing() -> str:
        return lacking(["celery", "redis"], ["redis-server"])

    def __enter__(self) -> CeleryCluster:
        port, processes = free_port(), self._processes
        url = f"redis://127.0.0.1:{port}/0"
        try:
            where = ("--bind", "127.0.0.1", "--port", str(port), "--dir", str(processes.folder))
            processes.start("redis", ["redis-server", *where])
            processes.wait("redis", lambda: listens(port))
            alone = (
                "--pool",
                "solo",
                "--concurrency",
                "1",
                "--without-gossip",
                "--without-mingle",
                "--loglevel",
                "INFO",
            )
            module = "offgrid_tools.bench.celery_worker"
            processes.start(
                "worker", [PYTHON, "-m", "celery", "-A", module, "worker", *alone], {**os.environ, URL: url}
            )
            processes.wait("worker", lambda: "ready" in processes.log_of("worker"))
            self._app = make_app(url)
            self._task = self._app.tasks[TASK]
        except BaseException:
            processes.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._app.close()
        finally:
            self._processes.stop()

    def run(self, count: int, in_flight: int) -> float:
        return timed(lambda: self._run(count, in_flight))

    def _run(self, count: int, in_flight: int) -> None:
        under_way: deque[tuple[str, Any]] = deque()
        for number in range(count):
            if len(under_way) == in_flight:
                finish(*under_way.popleft())
            content = str(number)
            under_way.append((content, self._task.delay(content)))
        while under_way:
            finish(*under_way.popleft())


def finish(content: str, result: Any) -> None:
    if result.get(timeout=RESULT_S_MAX) != content:
        raise RuntimeError("Celery has lost a job")
