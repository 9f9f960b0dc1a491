"""Calls functions with a client of the Dask cluster that the host's owner has named: for work beyond one machine.

Each call has a driver of its own (python_workers.py), connected to the scheduler; when it is killed, the scheduler lets
go of all that it held. What a scheduler has in memory is lost with it, but no job is: this host and the job's core have
written it down. The attempt ends with ClusterLost and the next begins, here once the scheduler is back, or elsewhere.

`distributed` is an extra: without it, this executor says so and offers nothing. The node itself never imports it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import urlsplit

from offgrid.by_value import PYTHON
from offgrid_node.executors.capture import failed
from offgrid_node.executors.cgroups import Groups
from offgrid_node.executors.executor import LARGE_INPUT_BYTES_MAX, Outcome, Work
from offgrid_node.executors.process import held
from offgrid_node.executors.python_workers import CLUSTER_LOST, Kind, Workers
from offgrid_node.executors.watch import Lookout
from offgrid_node.logs import fields
from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.protocol.jobs.needs import check_payload, needs_of

MEMORY_BYTES = 4096 * 1024 * 1024  # of a driver, of address space: it has threads and gathers results
LOOK_S = 2.0  # between two looks at the scheduler
ANSWER_TIMEOUT_S = 2.0
LOOKS_LOST = 2  # so many in a row without an answer: a running job is given up
NOT_INSTALLED = "the package distributed is not installed; install offgrid-node[dask]"

_log = logging.getLogger(__name__)


class DaskExecutor:
    """A live Executor of dask payloads. `scheduler` is "tcp://host:port" or "tls://host:port".

    `count` is how many drivers there may be at once, the host's slots; `memory_bytes` bounds each one's address space
    (POSIX); `groups` and `lookout` as in process.py. `work_dir` must be this executor's alone; raises OSError when it
    cannot be made. `on_change` is called in the loop when the scheduler comes or goes.
    """

    def __init__(
        self,
        scheduler: str,
        work_dir: Path | None,
        *,
        memory_bytes: int = MEMORY_BYTES,
        count: int = 1,
        groups: Groups | None = None,
        lookout: Lookout | None = None,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._scheduler, self._on_change = scheduler, on_change
        kind = Kind(imports=("distributed",), calls_max=1)
        self._workers = Workers(kind, work_dir, memory_bytes=memory_bytes, count=count, groups=groups, lookout=lookout)
        try:
            self._label = f"dask/{version('distributed')} python/{PYTHON}"
            self._problem = f"{scheduler} has not been asked yet"
            self._installed = True
        except PackageNotFoundError:
            self._label, self._problem, self._installed = "dask", NOT_INSTALLED, False
        self._unanswered = 0
        self._lost = asyncio.Event()  # set from so many looks on
        self._watching: asyncio.Task[None] | None = None

    @property
    def offers(self) -> tuple[str, ...]:
        return () if self._problem else (f"dask:{PYTHON}",)

    @property
    def problems(self) -> tuple[str, ...]:
        return (f"dask: {self._problem}",) if self._problem else ()

    @property
    def isolation(self) -> Mapping[str, str]:
        """Of the driver; what the cluster's workers do is the cluster's business."""
        return held("dask", None, self._workers.workplace)

    def watch(self) -> None:
        """Begins to look whether the scheduler is there, until `close`."""
        if self._installed:
            self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def look(self) -> None:
        """Asks once whether the scheduler is there."""
        if not self._installed:
            return
        fault = await fault_of(self._scheduler)
        self._unanswered = self._unanswered + 1 if fault else 0
        if not fault:
            self._lost.clear()
        problem = f"the scheduler {self._scheduler} does not answer: {fault}" if fault else ""
        changed, self._problem = bool(problem) != bool(self._problem), problem
        if self._unanswered >= LOOKS_LOST:
            self._lost.set()
        if changed:
            if problem:
                _log.warning("the Dask scheduler cannot be used", extra=fields("dask_away", why=problem))
            else:
                _log.info("the Dask scheduler is there", extra=fields("dask_there", scheduler=self._scheduler))
            self._on_change()

    async def run(self, work: Work) -> Outcome:
        """See Executor. What the function raises is its own answer, as in python.py, unless the scheduler is lost."""
        try:
            check_payload(work.payload, input_bytes_max=LARGE_INPUT_BYTES_MAX)
        except InvalidRequest as error:
            return failed("ExecutionFailed", error.message, self._label)
        if self._problem:
            return failed(CLUSTER_LOST, self._problem, self._label)
        if needs_of(work.payload) not in self.offers:
            asked = work.payload.dask.python
            return failed("ExecutionFailed", f"it is for Python {asked}, this host has {PYTHON}", self._label)
        settings = {"scheduler": self._scheduler}
        return await self._workers.run(work, settings, work.payload.dask.function, self._label, self._until_lost)

    def close(self) -> None:
        """See Executor."""
        if self._watching is not None:
            self._watching.cancel()
        self._workers.close()

    async def _watch(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def _until_lost(self) -> str:
        """A driver whose scheduler is frozen or cut off would wait for as long as its job may run."""
        await self._lost.wait()
        return f"{self._problem}, while the job ran"


async def fault_of(scheduler: str) -> str:
    """Why nobody answers there; empty when somebody does. Whoever listens speaks first, in Dask's protocol."""
    parts = urlsplit(scheduler)
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            if parts.scheme == "tcp" and not await reader.read(1):
                return "it closes the connection"
    except TimeoutError:
        return f"nothing within {ANSWER_TIMEOUT_S:g} s"
    except OSError as error:
        return error.strerror or str(error)
    finally:
        if writer is not None:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
    return ""
