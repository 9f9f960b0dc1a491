"""Runs Execute effects on the executors and hands their ends back: the asyncio side of the host's part."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

from offgrid.v1 import jobs_pb2
from offgrid_node.executors.executor import Outcome
from offgrid_node.protocol.effects import Execute, Executed

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
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Execute) -> None:
        began = time.perf_counter()
        try:
            outcome = self._executor.run_at_once(work.payload)
        except Exception as error:  # noqa: BLE001 - an executor's own defect must not leave the lease hanging
            outcome = _broken(work, error)
        if outcome is not None:
            self._end(work, outcome, began)
            return
        task = asyncio.get_running_loop().create_task(self._run(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Kills what is running and waits for its end; nothing of it is delivered."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._executor.close()

    async def _run(self, work: Execute) -> None:
        began = time.perf_counter()
        try:
            outcome = await self._executor.run(work.payload, work.timeout_ms)
        except Exception as error:  # noqa: BLE001 - as above
            outcome = _broken(work, error)
        self._end(work, outcome, began)

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
