"""Dask as its users tune it for small jobs: a scheduler and a worker as processes, driven from here as ours is.

worker-saturation=inf (the default holds tasks back in the scheduler), no dashboard, no nanny, one worker thread, and
an asynchronous client, the quickest there is. Its jobs are neither durable nor signed.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

from distributed import Client

from offgrid_tools.bench.peers import START_S_MAX, Processes

SETTINGS = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_SATURATION": "inf"}

T = TypeVar("T")


def echo(content: bytes) -> bytes:
    """The job."""
    return content


class DaskCluster:
    """One scheduler, one worker, one client. Use it in a `with` block."""

    def __init__(self, folder: Path) -> None:
        self._processes = Processes(folder)
        self._file = folder / "scheduler.json"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="dask client", daemon=True)

    def __enter__(self) -> DaskCluster:
        try:
            self._start("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(self._file))
            self._processes.wait("scheduler", self._file.exists)
            folder = str(self._processes.folder)
            alone = ("--nthreads", "1", "--nworkers", "1", "--no-nanny", "--local-directory", folder)
            self._start("worker", "--scheduler-file", str(self._file), "--host", "127.0.0.1", *alone)
            self._thread.start()
            self._client = self._await(self._connect())
        except BaseException:
            self._processes.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._await(self._disconnect())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
        finally:
            self._processes.stop()

    @property
    def pids(self) -> Mapping[str, int]:
        return self._processes.pids

    def run(self, count: int, in_flight: int) -> float:
        """Seconds for `count` jobs, each awaited with its result by one of `in_flight` that start the next."""
        return self._await(self._run(count, in_flight))

    def run_one(self) -> float:
        """Seconds from the submission of one job to its result."""
        return self._await(self._run(1, 1))

    async def _run(self, count: int, in_flight: int) -> float:
        numbers = iter(range(count))

        async def keep_one_in_flight() -> None:
            for number in numbers:
                content = b"%d" % number
                result = await self._client.submit(echo, content, pure=False)
                assert result == content

        began = time.perf_counter()
        await asyncio.gather(*(keep_one_in_flight() for _ in range(in_flight)))
        return time.perf_counter() - began

    async def _connect(self) -> Any:
        client = await Client(scheduler_file=str(self._file), asynchronous=True)
        await client.wait_for_workers(1, timeout=START_S_MAX)
        return client

    async def _disconnect(self) -> None:
        await self._client.close()

    def _start(self, what: str, *arguments: str) -> None:
        argv = [sys.executable, "-m", f"distributed.cli.dask_{what}", "--no-dashboard", *arguments]
        self._processes.start(what, argv, {**os.environ, **SETTINGS})

    def _await(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
