"""What a core's owner asks for: jobs made, jobs sent, or both at once for many of them.

Jobs made by one call share the beginning of their ids, so that one row remembers the call and one lists them all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import islice

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.errors import AlreadyExists, Corrupt, Exhausted, FailedPrecondition, Unavailable
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.events import BROKER
from offgrid_node.protocol.ids import fresh_timely_id
from offgrid_node.protocol.jobs.commands import CANCEL_MAX, CancelJobs, CountJobs, CreateJob, DispatchJob, RunJobs
from offgrid_node.protocol.jobs.core import Core
from offgrid_node.protocol.jobs.index import JOBS
from offgrid_node.protocol.jobs.naming import PREFIXED, ids_of
from offgrid_node.protocol.jobs.open_jobs import TASK_JOBS, Open, OpenJobs
from offgrid_node.protocol.jobs.peers import Peers
from offgrid_node.protocol.jobs.post import Post
from offgrid_node.protocol.jobs.settings import JobsSettings
from offgrid_node.protocol.jobs.table import CREATED, move
from offgrid_node.protocol.requests import Requests
from offgrid_node.protocol.rng import Rng

QUEUE_RETRY_MS = 1_000
ROUTE_REASONS = {
    "disabled": "the mesh is switched off for this job (mode disabled)",
    "no broker": "no broker of the mesh is alive",
    "broker": "a broker is alive",
    "wait": "no broker of the mesh is alive, and this node cannot run it itself; it waits for one",
}

Way = tuple[jobs_pb2.Route.ValueType, str]  # and why


class Intake:
    """Makes jobs and hands them to the core that drives them."""

    def __init__(self, settings: JobsSettings, peers: Peers, post: Post, requests: Requests, core: Core) -> None:
        self._settings, self._peers, self._post = settings, peers, post
        self._requests, self._core = requests, core
        self._jobs: OpenJobs = core.jobs
        self._answers: list[tuple[int, jobs_pb2.RunJobsResponse]] = []

    def check(
        self,
        request_id: str,
        digest: bytes,
        needs: Sequence[str],
        mode: jobs_pb2.DispatchMode.ValueType | None = None,
    ) -> None:
        """Raises what a call for jobs of these `needs` would be refused with now, by on_create or, given a mode, by
        on_run: for a handler, before it goes to any length for them. The machine still decides."""
        if not self._requests.made(request_id, digest):
            self._check_room(len(needs))
            if mode is not None:
                for need in sorted(set(needs)):
                    self._route(mode or self._settings.mode, need)

    def on_create(self, ticket: int, command: CreateJob, now: Now, rng: Rng) -> None:
        try:
            made = self._requests.made(command.request_id, command.digest)
            entry = self._jobs.get(made)
            job = entry.job if entry is not None else self._requests.row(JOBS, jobs_pb2.Job, made)
            if job is None:
                self._check_room(1)
        except (AlreadyExists, Corrupt, Exhausted) as fault:
            self._post.reply(ticket, fault)
            return
        if job is None:
            job_id = fresh_timely_id("j", now.utc_us, rng)
            job = self._jobs.create(job_id, command.task, command.job, command.request_id, now).job
            self._post.put_bytes(TASK_JOBS, f"{job.task_id}/{job_id}".encode(), b"")
            self._jobs.keep(job, now, EventType.JOB_CREATED)
            self._requests.remember(command.request_id, command.digest, job_id)
        self._post.reply(ticket, jobs_pb2.CreateJobResponse(job=job))

    def on_dispatch(self, ticket: int, command: DispatchJob, now: Now, rng: Rng) -> None:
        entry = self._jobs.get(command.job_id)
        if entry is None:
            ended = FailedPrecondition(f"job {command.job_id} has ended", reason="JobEnded")
            self._post.reply(ticket, ended)
            return
        job, reason = entry.job, "it was dispatched before"
        if job.state == CREATED:
            mode = command.mode or self._settings.mode
            try:
                way = self._route(mode, job.needs)
            except Unavailable as fault:
                self._post.reply(ticket, fault)
                return
            reason = way[1]
            self._send(entry, mode, way, now, rng)
            self._jobs.keep(job, now, EventType.JOB_DISPATCHED)
        self._post.reply(ticket, jobs_pb2.DispatchJobResponse(job=job, route=job.route, reason=reason))

    def on_run(self, ticket: int, command: RunJobs, now: Now, rng: Rng) -> None:
        """Answered at the end of the step (`answer`): some of them may have ended by then."""
        way: Way = (jobs_pb2.ROUTE_UNSPECIFIED, "it was asked for before")
        try:
            stem = self._requests.made(command.request_id, command.digest)
            if not stem:
                self._check_room(len(command.jobs))
                stem = fresh_timely_id("j", now.utc_us, rng)
                way = self._run(stem, command, now, rng)
        except (AlreadyExists, Corrupt, Exhausted, Unavailable) as fault:
            self._post.reply(ticket, fault)
            return
        response = jobs_pb2.RunJobsResponse(job_ids=ids_of(stem, len(command.jobs)), route=way[0], reason=way[1])
        self._answers.append((ticket, response))

    def run(self, command: RunJobs, now: Now, rng: Rng) -> list[str]:
        """The ids of jobs that are under way: as on_run, for somebody in this machine who has seen that the request id
        is a new one. Raises Exhausted and Unavailable; then none was made."""
        self._check_room(len(command.jobs))
        stem = fresh_timely_id("j", now.utc_us, rng)
        self._run(stem, command, now, rng)
        return ids_of(stem, len(command.jobs))

    def is_open(self, job_id: str) -> bool:
        return self._jobs.get(job_id) is not None

    def on_cancel(self, ticket: int, command: CancelJobs, now: Now) -> None:
        """Ended jobs stay as they are."""
        of_task = self._jobs.index.of_task(command.task_id)
        entries = [self._jobs.get(job_id) for job_id in command.job_ids or list(islice(of_task, CANCEL_MAX))]
        taken_back = [entry for entry in entries if entry is not None]
        for entry in taken_back:
            self._core.take_back(entry, command.reason or "its owner took it back", now)
        more = bool(self._jobs.index.of_task(command.task_id))
        cancelled = [entry.job.job_id for entry in taken_back]
        self._post.reply(ticket, jobs_pb2.CancelJobsResponse(job_ids=cancelled, more=more))

    def on_count(self, ticket: int, command: CountJobs) -> None:
        """As of this step: what has ended in it is durable when the answer leaves."""
        index, task_id = self._jobs.index, command.task.task_id
        entries = (self._jobs.get(job_id) for job_id in index.of_task(task_id))
        states = Counter(entry.job.state for entry in entries if entry is not None)
        states.update(index.ends(task_id))
        counts = [jobs_pb2.JobCount(state=state, jobs=jobs) for state, jobs in sorted(states.items())]
        self._post.reply(ticket, jobs_pb2.GetTaskResponse(task=command.task, counts=counts))

    def answer(self) -> None:
        """Closes the step."""
        answers, self._answers = self._answers, []
        for ticket, response in answers:
            response.ended.extend(job_id for job_id in response.job_ids if self._jobs.get(job_id) is None)
            self._post.reply(ticket, response)

    # ---- inside

    def _run(self, stem: str, command: RunJobs, now: Now, rng: Rng) -> Way:
        """Raises Unavailable when no way is open to one of them; then none was made."""
        mode, task = command.mode or self._settings.mode, command.task
        ways = {needs: self._route(mode, needs) for needs in {new.needs for new in command.jobs}}
        for job_id, new in zip(ids_of(stem, len(command.jobs)), command.jobs, strict=True):
            request_id = command.request_id and f"{command.request_id}{job_id[len(stem) :]}"
            entry = self._jobs.create(job_id, task, new, request_id, now)
            self._send(entry, mode, ways[new.needs], now, rng)
            self._jobs.keep(entry.job, now, EventType.JOB_CREATED, EventType.JOB_DISPATCHED)
        self._post.put_bytes(TASK_JOBS, f"{task.task_id}/{stem}".encode(), PREFIXED)
        self._requests.remember(command.request_id, command.digest, stem)
        return ways[command.jobs[0].needs]

    def _check_room(self, count: int) -> None:
        if len(self._jobs) + count > self._settings.queue_max:
            text = f"{len(self._jobs)} jobs of this node have not ended, and it holds no more at once"
            raise Exhausted(text, reason="QueueFull", retry_ms=QUEUE_RETRY_MS)

    def _route(self, mode: jobs_pb2.DispatchMode.ValueType, needs: str) -> Way:
        """Which way a job goes, and why. What this node could not run itself is worth waiting for a broker.

        Raises Unavailable (BrokerUnavailable) where the mode allows no way that is open."""
        broker_alive = bool(self._peers.with_role(BROKER))
        if mode == jobs_pb2.DISPATCH_MODE_OFFGRID and not broker_alive:
            why = f"{ROUTE_REASONS['no broker']}; mode offgrid uses nothing else"
            raise Unavailable(why, reason="BrokerUnavailable", retry_ms=2_000)
        if mode == jobs_pb2.DISPATCH_MODE_DISABLED:
            return jobs_pb2.ROUTE_FILE_QUEUE, ROUTE_REASONS["disabled"]
        if broker_alive:
            return jobs_pb2.ROUTE_OFFGRID, ROUTE_REASONS["broker"]
        if needs in self._settings.executors or self._settings.drop:
            return jobs_pb2.ROUTE_FILE_QUEUE, ROUTE_REASONS["no broker"]
        return jobs_pb2.ROUTE_OFFGRID, ROUTE_REASONS["wait"]

    def _send(self, entry: Open, mode: jobs_pb2.DispatchMode.ValueType, way: Way, now: Now, rng: Rng) -> None:
        """The first attempt begins."""
        job = entry.job
        job.mode, job.attempt, job.route = mode, 1, way[0]
        job.route_reason = "" if way[1] == ROUTE_REASONS["broker"] else way[1]
        move(job, "dispatch")
        self._core.send(entry, now, rng)
