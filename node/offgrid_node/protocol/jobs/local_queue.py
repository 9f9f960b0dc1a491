"""The local queue: jobs that this very node carries out, for want of a broker or by their owner's wish.

Of what waits, the most urgent goes first, and of those the one that has waited longest.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import chain

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.jobs.commands import Start
from offgrid_node.protocol.jobs.drops import Drops
from offgrid_node.protocol.jobs.host import Host
from offgrid_node.protocol.jobs.needs import how_offered
from offgrid_node.protocol.jobs.open_job import Open
from offgrid_node.protocol.jobs.open_jobs import OpenJobs
from offgrid_node.protocol.jobs.prices import price_of
from offgrid_node.protocol.jobs.settings import JobsSettings
from offgrid_node.protocol.jobs.table import QUEUED


class LocalQueue:
    """Job ids, by priority; at most 201 of those. Whoever takes a job out of the queue need not say so: one that is no
    longer queued is passed over."""

    def __init__(self, settings: JobsSettings, jobs: OpenJobs, host: Host) -> None:
        self._settings, self._jobs, self._host = settings, jobs, host
        self._waiting: dict[int, OrderedDict[str, None]] = {}
        self.drops = Drops(settings, jobs, self._unfit)

    def __iter__(self) -> Iterator[str]:
        """In the order in which they go."""
        return (job_id for priority in sorted(self._waiting, reverse=True) for job_id in self._waiting[priority])

    def add(self, job: jobs_pb2.Job) -> None:
        if self.drops.takes(job):
            self.drops.add(job)
        else:
            self._waiting.setdefault(job.priority, OrderedDict())[job.job_id] = None

    def discard(self, job: jobs_pb2.Job) -> None:
        there = self._waiting.get(job.priority)
        if there is not None:
            there.pop(job.job_id, None)
            if not there:
                del self._waiting[job.priority]

    def take_auto(self, most: int, may_go: Callable[[jobs_pb2.Job], bool]) -> list[Open]:
        """Takes out some of the jobs that would rather go over the mesh and may; none of them has been started."""
        taken: list[Open] = []
        for job_id in chain(self, self.drops):
            entry = self._jobs.get(job_id)
            if entry is not None and _would_go(entry.job) and may_go(entry.job):
                taken.append(entry)
                if len(taken) == most:
                    break
        for entry in taken:
            self.discard(entry.job)
        return taken

    def pump(self, now: Now) -> None:
        """Starts queued jobs on this node while it has slots."""
        while self._waiting and self._host.slots_free:
            entry = self._jobs.get(self._first())
            if entry is None or not _waits_here(entry.job):
                self._take()
            elif entry.job.requirements and not self._host.is_known:
                break  # this node has only just begun, and what the mesh calls it is still to be heard
            else:
                self._take()
                self._start(entry, now)

    def _first(self) -> str:
        return next(iter(self._waiting[max(self._waiting)]))

    def _take(self) -> None:
        priority = max(self._waiting)
        self._waiting[priority].popitem(last=False)
        if not self._waiting[priority]:
            del self._waiting[priority]

    def _start(self, entry: Open, now: Now) -> None:
        settings, job = self._settings, entry.job
        if why := self._unfit(job):
            self._jobs.fail(entry, "NoHostsAvailable", why, now)
            return
        price_micro = price_of(settings.price_micro, job.size_tokens)
        self._jobs.award(entry, "start", "", settings.node_id, price_micro, now)
        payload = self._jobs.payload(entry, now)
        if payload is not None:
            order = self._jobs.order(job)
            self._host.take(Start(order, order.encode(), jobs_pb2.JobPayload.FromString(payload), price_micro))

    def _unfit(self, job: jobs_pb2.Job) -> str:
        """Why this node cannot run the job; empty when it can."""
        if job.needs not in self._settings.executors:
            offered = ", ".join(self._settings.executors) or "nothing"
            return f"the job needs {job.needs!r}; this node's own executors offer {offered}" + how_offered(job.needs)
        why = self._host.unmet(job.requirements)
        return f"this node is not what the job requires: {why}" if why else ""


def _would_go(job: jobs_pb2.Job) -> bool:
    return _waits_here(job) and job.mode == jobs_pb2.DISPATCH_MODE_AUTO


def _waits_here(job: jobs_pb2.Job) -> bool:
    return job.state == QUEUED and job.route == jobs_pb2.ROUTE_FILE_QUEUE
