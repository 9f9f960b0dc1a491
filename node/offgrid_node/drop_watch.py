"""Keeps the drop folder in step with the machine: a look every second, file work in a thread.

The machine says which jobs are to lie there; their files follow from committed rows. So a crash at any moment, or a
file that somebody deletes, mends itself at the next look.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

from offgrid.v1 import jobs_pb2
from offgrid_node.logs import fields
from offgrid_node.node import Node
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.jobs.commands import Dropped
from offgrid_node.protocol.jobs.index import JOBS
from offgrid_node.protocol.jobs.open_jobs import PAYLOADS
from offgrid_node.services.jobs.drops import DropFolder

LOOK_EVERY_S = 1.0
PUT_MAX = 16  # files at a time: their payloads are in memory

_log = logging.getLogger(__name__)


class DropWatch:
    """Runs beside the node. Belongs to the loop's thread."""

    def __init__(self, path: Path, node: Node) -> None:
        self._node, self._path = node, path
        self._folder = DropFolder(path, node.node_id)
        self._fault = ""
        self._task: asyncio.Task[None] | None = None

    @property
    def notices(self) -> tuple[str, ...]:
        return (self._fault,) if self._fault else ()

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._watch())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def look(self) -> None:
        """Once. Raises OSError for a folder that cannot be used, Fault while the machines are loaded anew."""
        wanted = self._node.jobs.core.local.drops.wanted()
        await asyncio.to_thread(self._folder.open)
        seen = await asyncio.to_thread(self._folder.look, frozenset(wanted))
        for job_id, result in seen.results:
            self._node.runtime.deliver("jobs", Dropped(job_id, result))
        for job, payload in self._rows(seen.missing[:PUT_MAX]):
            await asyncio.to_thread(self._folder.put, job, payload)

    async def _watch(self) -> None:
        while True:
            try:
                await self.look()
                self._fault = ""
            except OSError as error:
                self._say(f"jobs.drop_dir {self._path}: {error.strerror or error}; its jobs wait")
            except Fault as fault:
                _log.info("the drop folder waits", extra=fields("drop_folder_waits", why=fault.message))
            await asyncio.sleep(LOOK_EVERY_S)

    def _say(self, fault: str) -> None:
        if fault != self._fault:
            _log.warning("the drop folder cannot be used", extra=fields("drop_folder_failing", why=fault))
        self._fault = fault

    def _rows(self, job_ids: Sequence[str]) -> list[tuple[jobs_pb2.Job, bytes]]:
        """Of those whose rows are committed; the others follow at the next look."""
        found, store = [], self._node.runtime.store
        for job_id in job_ids:
            row = store.get(JOBS, job_id.encode())
            if row is not None:
                job = jobs_pb2.Job.FromString(row)
                payload = job.kept_payload or store.get(PAYLOADS, (job.parent_id or job_id).encode())
                if payload:
                    found.append((job, payload))
        return found
