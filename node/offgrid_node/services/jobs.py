"""Handlers of JobService, what a core's owner calls: check what came, hand it to the jobs machine.

Questions are answered from committed rows; whatever changes something goes through the runtime.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from google.protobuf.message import Message

from offgrid.v1 import jobs_pb2, state_pb2
from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.protocol.jobs import commands
from offgrid_node.protocol.jobs.catalogue import ACTIVE, COMPLETED, KINDS, MISSION_TASKS, MISSIONS, TASKS
from offgrid_node.protocol.jobs.needs import check_payload, estimate_tokens, needs_of
from offgrid_node.protocol.jobs.open_jobs import JOBS, RESULTS, TASK_JOBS
from offgrid_node.protocol.jobs.requests import request_digest
from offgrid_node.protocol.jobs.table import ENDED
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.caller import Caller
from offgrid_node.services.shelf import Shelf
from offgrid_node.services.stream import Stream

TITLE_CHARS_MAX, TEXT_CHARS_MAX, REQUEST_ID_CHARS_MAX = 256, 16_384, 64
UNSEEN = {"Cc", "Cf", "Cs"}  # Unicode categories: they would reach terminals as escapes or turn text around
ALLOWED = "\n\t\u200c\u200d"  # the joiners belong to the spelling of Persian, of Indic scripts and of emoji
TIMEOUT_MS_MIN, TIMEOUT_MS_MAX = 100, 86_400_000
TOKENS_MAX = 10**15
REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]*\Z")


class JobHandlers:
    """One method per RPC of JobService."""

    def __init__(self, runtime: Runtime, timeout_ms: int) -> None:
        """`timeout_ms` is given to jobs that name none."""
        self._runtime, self._shelf, self._timeout_ms = runtime, Shelf(runtime.store), timeout_ms

    def create_mission(self, caller: Caller, request: jobs_pb2.CreateMissionRequest) -> Ticket:
        title = _text("title", request.title, TITLE_CHARS_MAX)
        description = _text("description", request.description, TEXT_CHARS_MAX, empty=True)
        command = commands.CreateMission(title, description, request.request_id, _digest(request))
        return self._ask(caller, command, request)

    def get_mission(self, caller: Caller, request: jobs_pb2.GetMissionRequest) -> Message:
        mission = self._shelf.get("mission_id", MISSIONS, jobs_pb2.Mission, request.mission_id)
        return jobs_pb2.GetMissionResponse(mission=mission)

    def list_missions(self, caller: Caller, request: jobs_pb2.ListMissionsRequest) -> Message:
        missions, token = self._shelf.page(MISSIONS, jobs_pb2.Mission, request.page_size, request.page_token)
        return jobs_pb2.ListMissionsResponse(missions=missions, next_page_token=token)

    def update_mission(self, caller: Caller, request: jobs_pb2.UpdateMissionRequest) -> Ticket:
        self._shelf.get("mission_id", MISSIONS, jobs_pb2.Mission, request.mission_id)
        title = _text("title", request.title, TITLE_CHARS_MAX) if request.HasField("title") else None
        description = None
        if request.HasField("description"):
            description = _text("description", request.description, TEXT_CHARS_MAX, empty=True)
        status = request.status if request.HasField("status") else None
        if status not in (None, ACTIVE, COMPLETED):
            raise InvalidRequest.field("status", f"{status!r} is not known; allowed: {ACTIVE}, {COMPLETED}")
        return self._ask(caller, commands.UpdateMission(request.mission_id, title, description, status), request)

    def create_task(self, caller: Caller, request: jobs_pb2.CreateTaskRequest) -> Ticket:
        name = _text("name", request.name, TITLE_CHARS_MAX)
        if request.kind not in KINDS:
            raise InvalidRequest.field("kind", f"{request.kind!r} is not known; allowed: {', '.join(KINDS)}")
        self._shelf.get("mission_id", MISSIONS, jobs_pb2.Mission, request.mission_id)
        digest = _digest(request)
        command = commands.CreateTask(request.mission_id, name, request.kind, request.request_id, digest)
        return self._ask(caller, command, request)

    def get_task(self, caller: Caller, request: jobs_pb2.GetTaskRequest) -> Message:
        return jobs_pb2.GetTaskResponse(task=self._shelf.get("task_id", TASKS, jobs_pb2.Task, request.task_id))

    def list_tasks(self, caller: Caller, request: jobs_pb2.ListTasksRequest) -> Message:
        row, size, token = jobs_pb2.Task, request.page_size, request.page_token
        if request.mission_id:
            tasks, token = self._shelf.page_of(request.mission_id, MISSION_TASKS, TASKS, row, size, token)
        else:
            tasks, token = self._shelf.page(TASKS, row, size, token)
        return jobs_pb2.ListTasksResponse(tasks=tasks, next_page_token=token)

    def create_job(self, caller: Caller, request: jobs_pb2.CreateJobRequest) -> Ticket:
        task = self._shelf.get("task_id", TASKS, jobs_pb2.Task, request.task_id)
        check_payload(request.payload)
        if request.size_tokens > TOKENS_MAX:
            raise InvalidRequest.field("size_tokens", f"{request.size_tokens}; at most {TOKENS_MAX} are allowed")
        timeout_ms = request.timeout_ms or self._timeout_ms
        if not TIMEOUT_MS_MIN <= timeout_ms <= TIMEOUT_MS_MAX:
            raise InvalidRequest.field("timeout_ms", f"{timeout_ms}; {TIMEOUT_MS_MIN} to {TIMEOUT_MS_MAX} are allowed")
        command = commands.CreateJob(
            task=task,
            payload=request.payload.SerializeToString(deterministic=True),
            needs=needs_of(request.payload),
            size_tokens=request.size_tokens or estimate_tokens(request.payload),
            timeout_ms=timeout_ms,
            input_name=_text("payload.input_name", request.payload.input_name, TITLE_CHARS_MAX, empty=True),
            request_id=request.request_id,
            digest=_digest(request),
        )
        return self._ask(caller, command, request)

    def get_job(self, caller: Caller, request: jobs_pb2.GetJobRequest) -> Message:
        return jobs_pb2.GetJobResponse(job=self._whole(request.job_id))

    def list_jobs(self, caller: Caller, request: jobs_pb2.ListJobsRequest) -> Message:
        row, size, token = jobs_pb2.Job, request.page_size, request.page_token
        if request.task_id:
            jobs, token = self._shelf.page_of(request.task_id, TASK_JOBS, JOBS, row, size, token)
        else:
            jobs, token = self._shelf.page(JOBS, row, size, token)
        return jobs_pb2.ListJobsResponse(jobs=jobs, next_page_token=token)

    def dispatch_job(self, caller: Caller, request: jobs_pb2.DispatchJobRequest) -> Message | Ticket:
        job = self._shelf.get("job_id", JOBS, jobs_pb2.Job, request.job_id)
        if request.mode not in jobs_pb2.DispatchMode.values():
            raise InvalidRequest.field("mode", f"{request.mode} is not known; allowed: auto, offgrid, disabled")
        if job.state in ENDED:
            return jobs_pb2.DispatchJobResponse(job=job, route=job.route, reason="it has ended")
        return self._ask(caller, commands.DispatchJob(request.job_id, request.mode), request)

    def watch_job(self, caller: Caller, request: jobs_pb2.WatchJobRequest) -> Stream:
        """The job now and at each change; ends after the last one.

        The row may be ahead of the events: those of a batch that is committed and not settled are still to come.
        """
        stream, shown = Stream(), self._shelf.get("job_id", JOBS, jobs_pb2.Job, request.job_id)

        def push(job: jobs_pb2.Job) -> None:
            nonlocal shown
            shown, ended = job, job.state in ENDED
            stream.push(jobs_pb2.WatchJobResponse(job=self._whole(job.job_id) if ended else job))
            if ended:
                stream.end()

        def on_events(events: Sequence[state_pb2.Event]) -> None:
            for event in events:
                # Within an attempt states only rise, and attempts do: no clock is asked.
                if event.HasField("job") and event.job.job_id == request.job_id and _age(event.job) >= _age(shown):
                    push(event.job)

        stream.when_closed(self._runtime.watch(on_events))
        push(shown)
        return stream

    def _whole(self, job_id: str) -> jobs_pb2.Job:
        job = self._shelf.get("job_id", JOBS, jobs_pb2.Job, job_id)
        result = self._shelf.find(RESULTS, jobs_pb2.JobResult, job_id)
        if result is not None:
            job.result.CopyFrom(result)
        return job

    def _ask(self, caller: Caller, command: object, request: Message) -> Ticket:
        return self._runtime.ask("jobs", str(caller), command, size_bytes=request.ByteSize())


def _text(field: str, value: str, most: int, *, empty: bool = False) -> str:
    if not value and not empty:
        raise InvalidRequest.field(field, f"must not be empty; 1 to {most} characters are allowed")
    if len(value) > most:
        raise InvalidRequest.field(field, f"{len(value)} characters; at most {most} are allowed")
    if any(unicodedata.category(char) in UNSEEN and char not in ALLOWED for char in value):
        raise InvalidRequest.field(field, "holds characters that cannot be seen (control or direction)")
    return value


def _digest(request: jobs_pb2.CreateMissionRequest | jobs_pb2.CreateTaskRequest | jobs_pb2.CreateJobRequest) -> bytes:
    """What tells a repeated call from another one with the same request id; empty without one. Checks the id."""
    request_id = request.request_id
    if len(request_id) > REQUEST_ID_CHARS_MAX or not REQUEST_ID.match(request_id):
        raise InvalidRequest.field(
            "request_id", f"at most {REQUEST_ID_CHARS_MAX} characters of A-Z a-z 0-9 . _ : - are allowed"
        )
    return request_digest(request) if request_id else b""


def _age(job: jobs_pb2.Job) -> tuple[int, int]:
    return job.attempt, job.state
