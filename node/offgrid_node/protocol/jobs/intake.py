"""What a core's owner asks for: jobs made, jobs sent, or both at once for many of them.

Jobs made by one call share the beginning of their ids, so that one row remembers the call and one lists them all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import islice

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.errors import (
    AlreadyExists,
    Corrupt,
    Exhausted,
    FailedPrecondition,
    InvalidRequest,
    Unavailable,
)
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.ids import fresh_timely_id
from offgrid_node.protocol.jobs.commands import CANCEL_MAX, CancelJobs, CountJobs, CreateJob, DispatchJob, RunJobs
from offgrid_node.protocol.jobs.core import Core
from offgrid_node.protocol.jobs.index import JOBS
from offgrid_node.protocol.jobs.naming import PREFIXED, ids_of
from offgrid_node.protocol.jobs.open_job import Open
from offgrid_node.protocol.jobs.open_jobs import TASK_JOBS, OpenJobs
from offgrid_node.protocol.jobs.peers import Peers
from offgrid_node.protocol.jobs.post import Post
from offgrid_node.protocol.jobs.releases import Releases
from offgrid_node.protocol.jobs.routes import Routes, Way
from offgrid_node.protocol.jobs.settings import JobsSettings
from offgrid_node.protocol.jobs.table import CREATED
from offgrid_node.protocol.jobs.terms import Terms, here
from offgrid_node.protocol.requests import Requests
from offgrid_node.protocol.rng import Rng

QUEUE_RETRY_MS = 1_000
WAITS = "it waits for others to complete"
MISSING_SHOWN = 3


class Intake:
    """Makes jobs and hands them to the core that drives them."""

    def __init__(self, settings: JobsSettings, peers: Peers, post: Post, requests: Requests, core: Core) -> None:
        self._settings, self._peers, self._post = settings, peers, post
        self._requests, self._core = requests, core
        self._jobs: OpenJobs = core.jobs
        self._routes = Routes(settings, peers)
        self.releases = Releases(post, self._routes, core)
        self._answers: list[tuple[int, jobs_pb2.RunJobsResponse]] = []

    def load(self) -> None:
        """After the core."""
        self.releases.load()

    def check(
        self,
        request_id: str,
        digest: bytes,
        task_id: str,
        terms: Sequence[Terms],
        mode: jobs_pb2.DispatchMode.ValueType | None,
        now: Now,
    ) -> None:
        """Raises what a call for jobs with these terms would be refused with now, by on_create or, given a mode, by
        on_run: for a handler, before it goes to any length for them. The machine still decides."""
        if not self._requests.made(request_id, digest):
            self._check_room(room_of(terms))
            self._check_terms(task_id, terms, mode is not None, now)
            if mode is not None:
                self._check_routes(terms, mode)

    def on_create(self, ticket: int, command: CreateJob, now: Now, rng: Rng) -> None:
        try:
            made = self._requests.made(command.request_id, command.digest)
            entry = self._jobs.get(made)
            job = entry.job if entry is not None else self._requests.row(JOBS, jobs_pb2.Job, made)
            if job is None:
                self._check_room(room_of([command.job.terms]))
                self._check_terms(command.task.task_id, [command.job.terms], False, now)
        except (AlreadyExists, Corrupt, Exhausted, InvalidRequest) as fault:
            self._post.reply(ticket, fault)
            return
        if job is None:
            job_id = fresh_timely_id("j", now.utc_us, rng)
            entry = self._jobs.create(job_id, command.task, command.job, command.request_id, now)
            job = entry.job
            if job.after:
                self.releases.follow(entry)
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
        if job.state == CREATED and not job.mode:
            mode = command.mode or self._settings.mode
            try:
                reason = self._dispatch(entry, mode, now, rng)
            except Unavailable as fault:
                self._post.reply(ticket, fault)
                return
        self._post.reply(ticket, jobs_pb2.DispatchJobResponse(job=job, route=job.route, reason=reason))

    def on_run(self, ticket: int, command: RunJobs, now: Now, rng: Rng) -> None:
        """Answered at the end of the step (`answer`): some of them may have ended by then."""
        way: Way = (jobs_pb2.ROUTE_UNSPECIFIED, "it was asked for before")
        try:
            stem = self._requests.made(command.request_id, command.digest)
            if not stem:
                stem, way = self._make(command, now, rng)
        except (AlreadyExists, Corrupt, Exhausted, InvalidRequest, Unavailable) as fault:
            self._post.reply(ticket, fault)
            return
        response = jobs_pb2.RunJobsResponse(job_ids=ids_of(stem, len(command.jobs)), route=way[0], reason=way[1])
        self._answers.append((ticket, response))

    def run(self, command: RunJobs, now: Now, rng: Rng) -> list[str]:
        """The ids of jobs that are under way: as on_run, for somebody in this machine who has seen that the request id
        is a new one. Raises Exhausted, InvalidRequest and Unavailable; then none was made."""
        return ids_of(self._make(command, now, rng)[0], len(command.jobs))

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
        states = Counter(entry.look.state for entry in entries if entry is not None)
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

    def _dispatch(self, entry: Open, mode: jobs_pb2.DispatchMode.ValueType, now: Now, rng: Rng) -> str:
        """Returns which way was taken, and why. Raises Unavailable when no way is open to it."""
        job, dependencies = entry.job, self._jobs.dependencies
        held = dependencies.holds(job.job_id)
        if held or job.input_job:
            job.mode = mode
            self._jobs.keep(job, now)
            if held:
                return f"{WAITS}: {', '.join(dependencies.missing(job.job_id)[:MISSING_SHOWN])}"
            self.releases.go(entry, now, rng)
            return "its input is being put together"
        self._routes.check(mode)
        way = self._routes.way(mode, job.needs, job.requirements)
        self.releases.send(entry, mode, way, now, rng)
        self._jobs.keep(job, now, EventType.JOB_DISPATCHED)
        return way[1]

    def _make(self, command: RunJobs, now: Now, rng: Rng) -> tuple[str, Way]:
        terms = [new.terms for new in command.jobs]
        self._check_room(room_of(terms))
        self._check_terms(command.task.task_id, terms, True, now)
        self._check_routes(terms, command.mode)
        stem = fresh_timely_id("j", now.utc_us, rng)
        return stem, self._run(stem, command, now, rng)

    def _run(self, stem: str, command: RunJobs, now: Now, rng: Rng) -> Way:
        mode, task = command.mode or self._settings.mode, command.task
        asked = {(new.needs, new.terms.requirements) for new in command.jobs}
        ways = {each: self._routes.way(mode, *each) for each in asked}
        ids = ids_of(stem, len(command.jobs))
        for job_id, new in zip(ids, command.jobs, strict=True):
            request_id = command.request_id and f"{command.request_id}{job_id[len(stem) :]}"
            entry = self._jobs.create(job_id, task, new, request_id, now)
            job = entry.job
            if new.terms.after:
                job.mode, job.after[:] = mode, [_named(name, ids) for name in job.after]
                job.input_job = _named(job.input_job, ids)
                self.releases.follow(entry)
                self._jobs.keep(job, now, EventType.JOB_CREATED)
            else:
                self.releases.send(entry, mode, ways[new.needs, new.terms.requirements], now, rng)
                self._jobs.keep(job, now, EventType.JOB_CREATED)  # which says that it is on its way
        self._post.put_bytes(TASK_JOBS, f"{task.task_id}/{stem}".encode(), PREFIXED)
        self._requests.remember(command.request_id, command.digest, stem)
        first = command.jobs[0]
        way = ways[first.needs, first.terms.requirements]
        return (jobs_pb2.ROUTE_UNSPECIFIED, WAITS) if first.terms.after else way

    def _check_terms(self, task_id: str, terms: Sequence[Terms], several: bool, now: Now) -> None:
        """Raises InvalidRequest for what only the time, or other jobs, can tell."""
        known: dict[str, bool] = {}
        for index, each in enumerate(terms):
            field = f"jobs[{index}]" if several else "job"
            if each.deadline_us and each.deadline_us <= now.utc_us:
                text = f"{each.deadline_us} has passed: by this node's clock it is {now.utc_us} now"
                raise InvalidRequest.field(f"{field}.deadline_us", text)
            for name in each.after:
                if name not in known:
                    standing = None if here(name) is not None else self._jobs.standing(name)
                    known[name] = here(name) is not None or (standing is not None and standing[0] == task_id)
                if not known[name]:
                    raise InvalidRequest.field(f"{field}.after", f"there is no job {name!r} in task {task_id}")

    def _check_routes(self, terms: Sequence[Terms], mode: jobs_pb2.DispatchMode.ValueType) -> None:
        """What goes at once needs a way now."""
        if not all(each.after for each in terms):
            self._routes.check(mode)

    def _check_room(self, count: int) -> None:
        if len(self._jobs) + count > self._settings.queue_max:
            text = f"{len(self._jobs)} jobs of this node have not ended, and it holds no more at once"
            raise Exhausted(text, reason="QueueFull", retry_ms=QUEUE_RETRY_MS)


def _named(name: str, ids: Sequence[str]) -> str:
    """The id that "#n" stands for among those of one call."""
    number = here(name)
    return name if number is None else ids[number]


def room_of(terms: Sequence[Terms]) -> int:
    """How many open jobs these may become: of redundant ones each execution is one."""
    return sum(max(1, each.replicas) for each in terms)
