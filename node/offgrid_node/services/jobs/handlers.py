"""Handlers of JobService, what a core's owner calls: check what came, hand it to the jobs machine.

Questions are answered from committed rows; whatever changes something goes through the runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from google.protobuf.message import Message

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.effects import Record
from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.protocol.jobs import commands
from offgrid_node.protocol.jobs.bounds import TIMEOUT_MS_MAX, TOKENS_MAX
from offgrid_node.protocol.jobs.catalogue import ACTIVE, COMPLETED, KINDS, MISSION_TASKS, MISSIONS, TASKS
from offgrid_node.protocol.jobs.index import JOBS
from offgrid_node.protocol.jobs.machine import JobsMachine
from offgrid_node.protocol.jobs.needs import check_payload
from offgrid_node.protocol.jobs.open_jobs import TASK_JOBS
from offgrid_node.protocol.jobs.specs import job_of
from offgrid_node.protocol.jobs.table import ENDED, TRANSITIONS
from offgrid_node.protocol.jobs.terms import AFTER_CALL_MAX, NO_TERMS, Terms, terms_of
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.caller import Caller
from offgrid_node.services.checks import check_text, digest_of_request
from offgrid_node.services.flow import Flow, asked, ticket_of
from offgrid_node.services.jobs.ends import Ends, check_watch, with_result
from offgrid_node.services.jobs.executions import executions_of
from offgrid_node.services.jobs.explaining import Explaining
from offgrid_node.services.jobs.inputs import InputPlacing, is_large
from offgrid_node.services.jobs.progress import ProgressHub
from offgrid_node.services.jobs.schedules import ScheduleHandlers, check_mode
from offgrid_node.services.paging import take_page
from offgrid_node.services.shelf import Shelf
from offgrid_node.services.stream import Stream

TITLE_CHARS_MAX, TEXT_CHARS_MAX = 256, 16_384
TIMEOUT_MS_MIN = 100
KNOWN_STATES = frozenset(TRANSITIONS)


class JobHandlers:
    """One method per RPC of JobService."""

    def __init__(
        self,
        runtime: Runtime,
        timeout_ms: int,
        inputs: InputPlacing,
        progress: ProgressHub,
        explaining: Explaining,
    ) -> None:
        """`timeout_ms` is given to jobs that name none; `inputs` places those that are large; `progress` knows what
        those under way say."""
        self._inputs, self._progress, self._explaining = inputs, progress, explaining
        self._runtime, self._shelf, self._timeout_ms = runtime, Shelf(runtime.store), timeout_ms
        self._ends = Ends(runtime, self._shelf)
        schedules = ScheduleHandlers(runtime, self._check_scheduled, self._place_scheduled)
        self.create_schedule, self.list_schedules = schedules.create, schedules.list
        self.update_schedule, self.delete_schedule = schedules.update, schedules.delete

    def create_mission(self, caller: Caller, request: jobs_pb2.CreateMissionRequest) -> Ticket:
        title = check_text("title", request.title, TITLE_CHARS_MAX)
        description = check_text("description", request.description, TEXT_CHARS_MAX, empty=True)
        command = commands.CreateMission(title, description, request.request_id, digest_of_request(request))
        return self._ask(caller, command, request)

    def get_mission(self, caller: Caller, request: jobs_pb2.GetMissionRequest) -> Message:
        mission = self._shelf.get("mission_id", MISSIONS, jobs_pb2.Mission, request.mission_id)
        return jobs_pb2.GetMissionResponse(mission=mission)

    def list_missions(self, caller: Caller, request: jobs_pb2.ListMissionsRequest) -> Message:
        rows = self._shelf.rows(MISSIONS, jobs_pb2.Mission, request.page_token)
        missions, token = take_page(rows, request.page_size)
        return jobs_pb2.ListMissionsResponse(missions=missions, next_page_token=token)

    def update_mission(self, caller: Caller, request: jobs_pb2.UpdateMissionRequest) -> Ticket:
        self._shelf.get("mission_id", MISSIONS, jobs_pb2.Mission, request.mission_id)
        title = check_text("title", request.title, TITLE_CHARS_MAX) if request.HasField("title") else None
        description = None
        if request.HasField("description"):
            description = check_text("description", request.description, TEXT_CHARS_MAX, empty=True)
        status = request.status if request.HasField("status") else None
        if status not in (None, ACTIVE, COMPLETED):
            raise InvalidRequest.field("status", f"{status!r} is not known; allowed: {ACTIVE}, {COMPLETED}")
        return self._ask(caller, commands.UpdateMission(request.mission_id, title, description, status), request)

    def create_task(self, caller: Caller, request: jobs_pb2.CreateTaskRequest) -> Ticket:
        name = check_text("name", request.name, TITLE_CHARS_MAX)
        if request.kind not in KINDS:
            raise InvalidRequest.field("kind", f"{request.kind!r} is not known; allowed: {', '.join(KINDS)}")
        self._shelf.get("mission_id", MISSIONS, jobs_pb2.Mission, request.mission_id)
        digest = digest_of_request(request)
        command = commands.CreateTask(request.mission_id, name, request.kind, request.request_id, digest)
        return self._ask(caller, command, request)

    def get_task(self, caller: Caller, request: jobs_pb2.GetTaskRequest) -> Ticket:
        task = self._shelf.get("task_id", TASKS, jobs_pb2.Task, request.task_id)
        return self._ask(caller, commands.CountJobs(task), request)

    def list_tasks(self, caller: Caller, request: jobs_pb2.ListTasksRequest) -> Message:
        row, token = jobs_pb2.Task, request.page_token
        if request.mission_id:
            rows = self._shelf.rows_of(request.mission_id, MISSION_TASKS, TASKS, row, token)
        else:
            rows = self._shelf.rows(TASKS, row, token)
        tasks, token = take_page(rows, request.page_size)
        return jobs_pb2.ListTasksResponse(tasks=tasks, next_page_token=token)

    def create_job(self, caller: Caller, request: jobs_pb2.CreateJobRequest) -> Ticket:
        task, digest = self._shelf.get("task_id", TASKS, jobs_pb2.Task, request.task_id), digest_of_request(request)
        terms = self._check_job("job.", request.job)

        def create(sizes: Sequence[int]) -> Ticket:
            job = self._new_job(request.job, sizes[0], terms)
            return self._ask(caller, commands.CreateJob(task, job, request.request_id, digest), request)

        check = partial(self._check, request.request_id, digest, task.task_id, [terms])
        return self._placed([request.job], caller, request.request_id, digest, check, create)

    def run_jobs(self, caller: Caller, request: jobs_pb2.RunJobsRequest) -> Ticket:
        task = self._shelf.get("task_id", TASKS, jobs_pb2.Task, request.task_id)
        if not 1 <= len(request.jobs) <= commands.RUN_MAX:
            raise InvalidRequest.field("jobs", f"{len(request.jobs)} jobs; 1 to {commands.RUN_MAX} are allowed")
        check_mode("mode", request.mode)
        check_watch(request.watch)
        terms = [self._check_job(f"jobs[{index}].", spec, index) for index, spec in enumerate(request.jobs)]
        if (count := sum(len(spec.after) for spec in request.jobs)) > AFTER_CALL_MAX:
            raise InvalidRequest.field("jobs", f"{count} names in `after`; at most {AFTER_CALL_MAX} are allowed in all")
        digest = digest_of_request(request)

        def run(sizes: Sequence[int]) -> Ticket:
            jobs = tuple(map(self._new_job, request.jobs, sizes, terms))
            command = commands.RunJobs(task, jobs, request.mode, request.request_id, digest)
            return self._ask(caller, command, request)

        check = partial(self._check, request.request_id, digest, task.task_id, terms, request.mode)
        ticket = self._placed(request.jobs, caller, request.request_id, digest, check, run)
        return self._ends.tell_of(request.watch, ticket)

    def watch_jobs(self, caller: Caller, request: jobs_pb2.WatchJobsRequest) -> Stream:
        return self._ends.watch(request.watch, request.job_ids)

    def watch_progress(self, caller: Caller, request: jobs_pb2.WatchProgressRequest) -> Stream:
        return self._progress.watch(request.job_id)

    def get_job(self, caller: Caller, request: jobs_pb2.GetJobRequest) -> Message:
        job = self._whole(request.job_id)
        return jobs_pb2.GetJobResponse(job=job, executions=executions_of(job, self._shelf))

    def list_jobs(self, caller: Caller, request: jobs_pb2.ListJobsRequest) -> Message:
        row, token, states = jobs_pb2.Job, request.page_token, frozenset(request.states)
        if unknown := sorted(states - KNOWN_STATES):
            text = f"{unknown[0]} is not known; allowed: {min(KNOWN_STATES)} to {max(KNOWN_STATES)}"
            raise InvalidRequest.field("states", text)

        def wanted(job: jobs_pb2.Job) -> bool:
            return (not states or job.state in states) and (request.include_executions or not job.parent_id)

        if request.task_id:
            rows = self._shelf.rows_of(request.task_id, TASK_JOBS, JOBS, row, token, reverse=request.newest_first)
        else:
            rows = self._shelf.rows(JOBS, row, token, reverse=request.newest_first)
        page = ((key, job if wanted(job) else None) for key, job in rows)
        jobs, token = take_page(page, request.page_size)
        for job in jobs:
            job.ClearField("kept_payload")
            if job.result_bytes:
                job.result.ClearField("output")
                job.result.ClearField("log")
        return jobs_pb2.ListJobsResponse(jobs=jobs, next_page_token=token)

    def dispatch_job(self, caller: Caller, request: jobs_pb2.DispatchJobRequest) -> Message | Ticket:
        job = self._shelf.get("job_id", JOBS, jobs_pb2.Job, request.job_id)
        check_mode("mode", request.mode)
        if job.state in ENDED:
            return jobs_pb2.DispatchJobResponse(job=job, route=job.route, reason="it has ended")
        return self._ask(caller, commands.DispatchJob(request.job_id, request.mode), request)

    def cancel_jobs(self, caller: Caller, request: jobs_pb2.CancelJobsRequest) -> Ticket:
        if bool(request.job_ids) == bool(request.task_id):
            raise InvalidRequest.field("job_ids", "give the ids of jobs or a task_id, and not both")
        if len(request.job_ids) > commands.CANCEL_MAX:
            text = f"{len(request.job_ids)} jobs; at most {commands.CANCEL_MAX} are allowed in one call"
            raise InvalidRequest.field("job_ids", text)
        if request.task_id:
            self._shelf.get("task_id", TASKS, jobs_pb2.Task, request.task_id)
        for job_id in request.job_ids:
            self._shelf.get("job_ids", JOBS, jobs_pb2.Job, job_id)
        reason = check_text("reason", request.reason, TITLE_CHARS_MAX, empty=True)
        command = commands.CancelJobs(tuple(dict.fromkeys(request.job_ids)), request.task_id, reason)
        return self._ask(caller, command, request)

    def explain_job(self, caller: Caller, request: jobs_pb2.ExplainJobRequest) -> Ticket:
        return ticket_of(self._explaining.explain(request.job_id))

    def watch_job(self, caller: Caller, request: jobs_pb2.WatchJobRequest) -> Stream:
        """The job now and at each change; ends after the last one.

        The row may be ahead of the events: those of a batch that is committed and not settled are still to come.
        """
        stream, shown = Stream(), self._whole(request.job_id)

        def push(job: jobs_pb2.Job) -> None:
            nonlocal shown
            shown, ended = job, job.state in ENDED
            stream.push(jobs_pb2.WatchJobResponse(job=self._whole(job.job_id) if ended else job))
            if ended:
                stream.end()

        def on_events(events: Sequence[Record]) -> None:
            for event in events:
                # Within an attempt states only rise, and attempts do: no clock is asked.
                if event.job is not None and event.subject == request.job_id:
                    job = event.event.job  # as it was then: the job itself may be further by now
                    if _age(job) >= _age(shown):
                        push(job)

        stream.when_closed(self._runtime.watch(on_events))
        push(shown)
        return stream

    def _whole(self, job_id: str) -> jobs_pb2.Job:
        return with_result(self._shelf.get("job_id", JOBS, jobs_pb2.Job, job_id), self._shelf)

    def _check_job(self, field: str, spec: jobs_pb2.JobSpec, index: int = 0) -> Terms:
        """Raises InvalidRequest naming what is wrong below `field`; the spec stands at `index` in its call."""
        check_payload(spec.payload, field)
        if spec.payload.HasField("input_object"):
            text = "is filled in by the node; name an object of its own in input_object_id"
            raise InvalidRequest.field(f"{field}payload.input_object", text)
        for at, file in enumerate(spec.payload.files):
            if file.HasField("object"):
                text = "is filled in by the node; name an object of its own in object_id"
                raise InvalidRequest.field(f"{field}payload.files[{at}].object", text)
        if spec.size_tokens > TOKENS_MAX:
            text = f"{spec.size_tokens}; at most {TOKENS_MAX} are allowed"
            raise InvalidRequest.field(f"{field}size_tokens", text)
        timeout_ms = self._timeout_of(spec)
        if not TIMEOUT_MS_MIN <= timeout_ms <= TIMEOUT_MS_MAX:
            text = f"{timeout_ms}; {TIMEOUT_MS_MIN} to {TIMEOUT_MS_MAX} are allowed"
            raise InvalidRequest.field(f"{field}timeout_ms", text)
        check_text(f"{field}payload.input_name", spec.payload.input_name, TITLE_CHARS_MAX, empty=True)
        return terms_of(field, spec, index)

    def _check(
        self,
        request_id: str,
        digest: bytes,
        task_id: str,
        terms: Sequence[Terms],
        mode: jobs_pb2.DispatchMode.ValueType | None = None,
    ) -> None:
        """Raises what the machine would refuse now; with `mode` the jobs are to be sent, too."""
        intake, now = self._runtime.machine("jobs", JobsMachine).intake, self._runtime.clock.now()
        intake.check(request_id, digest, task_id, terms, mode, now)

    def _placed(
        self,
        specs: Sequence[jobs_pb2.JobSpec],
        caller: Caller,
        request_id: str,
        digest: bytes,
        check: Callable[[], None],
        ask: Callable[[Sequence[int]], Ticket],
    ) -> Ticket:
        """Asks once every large input is an object; `ask` gets the inputs' sizes, in the order of `specs`.

        `check` raises what would be refused anyway, before: an object stays.
        """
        if not any(is_large(spec.payload) for spec in specs):
            return ask([len(spec.payload.input) for spec in specs])
        check()

        def place() -> Flow[Message]:
            for index, spec in enumerate(specs):
                name = f"{request_id}/{index}" if request_id else ""
                yield from self._inputs.place(spec.payload, str(caller), name, digest)
            answer: Message = yield asked(ask([self._inputs.refer(spec.payload) for spec in specs]))
            return answer

        return ticket_of(place())

    def _check_scheduled(self, field: str, spec: jobs_pb2.JobSpec) -> int:
        self._check_job(field, spec)
        return self._timeout_of(spec)

    def _place_scheduled(
        self,
        spec: jobs_pb2.JobSpec,
        caller: Caller,
        request_id: str,
        digest: bytes,
        ask: Callable[[Sequence[int]], Ticket],
    ) -> Ticket:
        check = partial(self._check, request_id, digest, "", [NO_TERMS])
        return self._placed([spec], caller, request_id, digest, check, ask)

    def _new_job(self, spec: jobs_pb2.JobSpec, input_bytes: int, terms: Terms) -> commands.NewJob:
        return job_of(spec, input_bytes, self._timeout_ms, terms)

    def _timeout_of(self, spec: jobs_pb2.JobSpec) -> int:
        return spec.timeout_ms or self._timeout_ms

    def _ask(self, caller: Caller, command: object, request: Message) -> Ticket:
        return self._runtime.ask("jobs", str(caller), command, size_bytes=request.ByteSize())


def _age(job: jobs_pb2.Job) -> tuple[int, int]:
    return job.attempt, job.state
