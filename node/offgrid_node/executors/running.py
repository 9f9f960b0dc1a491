"""Runs Execute effects on the executors and hands their ends back: the asyncio side of the host's part."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

from offgrid.v1 import jobs_pb2
from offgrid_node.executors.at_work import AtWork
from offgrid_node.executors.capture import failed
from offgrid_node.executors.executor import Outcome, Progress, Work, well_formed
from offgrid_node.logs import fields
from offgrid_node.protocol.effects import Execute, Executed, Stop
from offgrid_node.protocol.jobs.orders import ClaimKey

_log = logging.getLogger(__name__)


class Runs(Protocol):
    """What is needed of the executors: `pool.py` is one."""

    def run_at_once(self, payload: jobs_pb2.JobPayload) -> Outcome | None: ...

    async def run(self, work: Work) -> Outcome: ...

    def close(self) -> None: ...


def _unheard(key: ClaimKey, progress: Progress) -> None:
    """For a host whose work nobody listens to."""


class Running:
    """Executions under way. How many there may be is the host part's business: it takes a lease per slot."""

    def __init__(
        self,
        executor: Runs,
        deliver: Callable[[Executed], None],
        said: Callable[[ClaimKey, Progress], None] = _unheard,
        at_work: AtWork | None = None,
    ) -> None:
        """`deliver` is called in the loop's thread, once for each execution that ends before `close`; `said`, in any
        thread, with what work under way says. `at_work` notes what asks for it while it runs."""
        self._executor, self._deliver, self._said = executor, deliver, said
        self._at_work = at_work
        self._tasks: dict[ClaimKey, asyncio.Task[Outcome]] = {}
        self._stopped: set[ClaimKey] = set()

    def start(self, work: Execute) -> None:
        began = time.perf_counter()
        if self._at_work is not None and work.payload_digest:
            self._at_work.begin((work.core, work.job_id, work.attempt), work.payload_digest)
        try:
            outcome = self._executor.run_at_once(work.payload)
        except Exception as error:  # noqa: BLE001 - an executor's own defect must not leave the lease hanging
            outcome = _broken(work, error)
        if outcome is not None:
            self._end(work, outcome, began)
            return
        key = work.core, work.job_id, work.attempt
        task = self._tasks[key] = asyncio.get_running_loop().create_task(self._run(key, work))
        task.add_done_callback(lambda ended: self._on_done(key, work, ended, began))

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
        if self._at_work is not None:
            self._at_work.close()

    async def _run(self, key: ClaimKey, work: Execute) -> Outcome:
        whole = Work(work.payload, work.timeout_ms, dict(work.files), partial(self._said, key), work.core)
        try:
            return await self._executor.run(whole)
        except Exception as error:  # noqa: BLE001 - as above
            return _broken(work, error)

    def _on_done(self, key: ClaimKey, work: Execute, task: asyncio.Task[Outcome], began: float) -> None:
        """Also of a task that was stopped before its first step, where none of its own code ran."""
        del self._tasks[key]
        stopped = key in self._stopped
        self._stopped.discard(key)
        if not task.cancelled():
            self._end(work, task.result(), began)
        elif stopped:
            self._end(work, failed("Cancelled", "it was stopped", "none"), began)

    def _end(self, work: Execute, outcome: Outcome, began: float) -> None:
        if self._at_work is not None and work.payload_digest:
            self._at_work.end((work.core, work.job_id, work.attempt))
        self._deliver(executed(work, outcome, round((time.perf_counter() - began) * 1e6)))


def executed(work: Execute, outcome: Outcome, took_us: int) -> Executed:
    """What the runtime hears of an outcome."""
    usage, files = outcome.usage, outcome.files
    return Executed(
        work.core,
        work.job_id,
        work.attempt,
        outcome.output,
        outcome.log,
        outcome.exit_code,
        outcome.error,
        well_formed(outcome.error_detail),
        took_us,
        outcome.executor,
        cpu_us=usage.cpu_us,
        memory_peak_bytes=usage.memory_peak_bytes,
        output_bytes=len(outcome.output) + (sum(len(file.data) for file in files) if files else 0),
        used_tokens=usage.used_tokens,
        files=tuple((file.name, file.data) for file in files) if files else (),
    )


def _broken(work: Execute, error: Exception) -> Outcome:
    said = fields("executor_failed", job=work.job_id, attempt=work.attempt)
    _log.error("an executor failed", exc_info=error, extra=said)
    return Outcome(b"", b"", 0, "ExecutorBroken", f"the executor failed: {type(error).__name__}: {error}", "none")
