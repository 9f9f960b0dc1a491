"""Jobs on their way out: sent at once, or in the step in which the last of those that they go after has completed.

A job that takes its input from another one's output gets it then, and not before: the payload is put together outside
(`services/jobs/filling.py`), since an output may be an object, and is durable before the job sets out.
"""

from __future__ import annotations

from typing import TypeAlias

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Fill, Filled
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.jobs.core import Core
from offgrid_node.protocol.jobs.needs import estimate_tokens
from offgrid_node.protocol.jobs.open_job import Open
from offgrid_node.protocol.jobs.open_jobs import OpenJobs
from offgrid_node.protocol.jobs.orders import payload_digest
from offgrid_node.protocol.jobs.post import Post
from offgrid_node.protocol.jobs.routes import ROUTE_REASONS, Routes, Way
from offgrid_node.protocol.jobs.table import CREATED, move
from offgrid_node.protocol.rng import Rng

RELEASED_MAX = 1_024  # jobs in one step: thousands may wait for one; the others go in the next

Mode: TypeAlias = jobs_pb2.DispatchMode.ValueType


class Releases:
    """Sends jobs, and those that wait as soon as they can go."""

    def __init__(self, post: Post, routes: Routes, core: Core) -> None:
        self._post, self._routes, self._core = post, routes, core
        self._jobs: OpenJobs = core.jobs
        self._filling: set[str] = set()
        self._left = RELEASED_MAX
        self._now_ms = 0

    def load(self) -> None:
        """After the open jobs."""
        for entry in self._jobs:
            if entry.look.state == CREATED and entry.job.after:
                self.follow(entry)

    def deadline_ms(self) -> int | None:
        return self._now_ms if self._jobs.dependencies.has_due else None

    @property
    def goes_on(self) -> bool:
        """Whether there is more to do in this very step."""
        return self._jobs.dependencies.has_due and self._left > 0

    def follow(self, entry: Open) -> None:
        """A job that goes after others, from now on."""
        standings = ((name, self._jobs.standing(name)) for name in entry.job.after)
        states = {name: standing[1] for name, standing in standings if standing is not None}
        self._jobs.dependencies.add(entry.job.job_id, states)

    def send(self, entry: Open, mode: Mode, way: Way, now: Now, rng: Rng) -> None:
        """The first attempt begins; the caller keeps the job."""
        job = entry.job
        job.mode, job.attempt, job.route = mode, 1, way[0]
        job.route_reason = "" if way[1] == ROUTE_REASONS["broker"] else way[1]
        move(job, "dispatch")
        self._core.send(entry, now, rng)

    def begin_step(self, now: Now) -> None:
        self._left, self._now_ms = RELEASED_MAX, now.mono_ms

    def pump(self, now: Now, rng: Rng) -> None:
        """Those that wait no longer; of one that was not dispatched yet nothing follows."""
        while self.goes_on:
            self._left -= 1
            job_id, why = self._jobs.dependencies.take_due()
            entry = self._jobs.get(job_id)
            if entry is None or entry.job.state != CREATED:
                continue
            if why:
                self._jobs.fail(entry, "DependencyFailed", why, now)
            elif entry.job.mode:
                self.go(entry, now, rng)

    def go(self, entry: Open, now: Now, rng: Rng) -> None:
        """A dispatched job that waits for nothing, but maybe for its input."""
        job = entry.job
        if not job.input_job:
            self.send(entry, job.mode, self._routes.way(job.mode, job.needs, job.requirements), now, rng)
            self._jobs.keep(job, now, EventType.JOB_DISPATCHED)
        elif job.job_id not in self._filling:
            payload = self._jobs.payload(entry, now)
            if payload is not None:
                self._filling.add(job.job_id)
                self._post.fill(Fill(job.job_id, payload, job.input_job))

    def on_filled(self, event: Filled, now: Now, rng: Rng) -> None:
        """A machine that was replaced meanwhile has asked as well: the first answer counts."""
        entry = self._jobs.get(event.job_id)
        self._filling.discard(event.job_id)
        if entry is None or entry.job.state != CREATED or not entry.job.mode:
            return
        if event.error:
            detail = f"the output of job {entry.job.input_job} cannot be its input: {event.error}"
            self._jobs.fail(entry, "InputUnavailable", detail, now)
            return
        job = entry.job
        job.input_bytes, job.payload_digest = event.input_bytes, payload_digest(event.payload)
        job.size_tokens = job.size_tokens or estimate_tokens(event.input_bytes)
        self._jobs.fill(entry, event.payload)
        self.send(entry, job.mode, self._routes.way(job.mode, job.needs, job.requirements), now, rng)
        self._jobs.keep(job, now, EventType.JOB_DISPATCHED)
