"""Runs Execute effects on the executors and hands their ends back: the asyncio side of the host's part."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

from offgrid.v1 import jobs_pb2
from offgrid_node.executors.executor import Outcome
from offgrid_node.protocol.effects import Execute, Executed, Stop

Key = tuple[str, str, int]  # core, job id, attempt

NO_EXIT_CODE = -1

_log = logging.getLogger(__name__)


class Runs(Protocol):
    """What is needed of the executors: `pool.py` is one."""

    def run_at_once(self, payload: jobs_pb2.JobPayload) -> Outcome | None: ...

    async def run(self, payload: jobs_pb2.JobPayload, timeout_ms: int) -> Outcome: ...

    def close(self) -> None: ...


class Running:
    """Executions under way. How many there may be is the host part's business: it takes a lease per slot."""

    def __init__(self, executor: Runs, deliver: Callable[[Executed], None]) -> None:
        """`deliver` is called in the loop's thread, once for each execution that ends before `close`."""
        self._executor, self._deliver = executor, deliver
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._stopped: set[Key] = set()

    def start(self, work: Execute) -> None:
        began = time.perf_counter()
        try:
            outcome = self._executor.run_at_once(work.payload)
        except Exception as error:  # noqa: BLE001 - an executor's own defect must not leave the lease hanging
            outcome = _broken(work, error)
        if outcome is not None:
            self._end(work, outcome, began)
            return
        key = work.core, work.job_id, work.attempt
        self._tasks[key] = task = asyncio.get_running_loop().create_task(self._run(work))
        task.add_done_callback(lambda done: self._on_done(work, key, began, done))

    def stop(self, work: Stop) -> None:
        """Kills one; its end is delivered as Cancelled once it is dead. What is not running needs no stopping."""
        key = work.core, work.job_id, work.attempt
        task = self._tasks.get(key)
        if task is not None and not task.done():
            self._stopped.add(key)
            task.cancel()

    async def close(self) -> None:
        """Kills what is running and waits for its end; nothing of it is delivered."""
        self._stopped.clear()
        tasks = tuple(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._executor.close()

    async def _run(self, work: Execute) -> None:
        began = time.perf_counter()
        try:
            outcome = await self._executor.run(work.payload, work.timeout_ms)
        except Exception as error:  # noqa: BLE001 - as above
            outcome = _broken(work, error)
        self._end(work, outcome, began)

    def _on_done(self, work: Execute, key: Key, began: float, task: asyncio.Task[None]) -> None:
        """A task that is stopped before its first step runs none: its end can be said only here."""
        del self._tasks[key]
        if task.cancelled() and key in self._stopped:
            self._end(work, Outcome(b"", b"", NO_EXIT_CODE, "Cancelled", "it was stopped", "none"), began)
        self._stopped.discard(key)

    def _end(self, work: Execute, outcome: Outcome, began: float) -> None:
        self._deliver(
            Executed(
                core=work.core,
                job_id=work.job_id,
                attempt=work.attempt,
                output=outcome.output,
                log=outcome.log,
                exit_code=outcome.exit_code,
                error=outcome.error,
                error_detail=outcome.error_detail,
                latency_us=round((time.perf_counter() - began) * 1e6),
                executor=outcome.executor,
            )
        )


def _broken(work: Execute, error: Exception) -> Outcome:
    _log.error("the executor failed on %s/%d", work.job_id, work.attempt, exc_info=error)
    return Outcome(b"", b"", 0, "ExecutorBroken", f"the executor failed: {type(error).__name__}: {error}", "none")
