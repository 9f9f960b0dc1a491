"""Handlers of schedules, a part of JobService: what comes is checked here, made and kept by the jobs machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from google.protobuf.message import Message

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.protocol.jobs import commands
from offgrid_node.protocol.jobs.catalogue import TASKS
from offgrid_node.protocol.jobs.schedules import SCHEDULE_JOBS, SCHEDULES
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.caller import Caller
from offgrid_node.services.checks import check_text, digest_of_request
from offgrid_node.services.jobs.cron import check_cron, check_timezone
from offgrid_node.services.paging import take_page
from offgrid_node.services.shelf import Shelf

NAME_CHARS_MAX = 256
MODES = frozenset(jobs_pb2.DispatchMode.values())
FILLED_IN = ("schedule_id", "next_us", "last_job_id", "last_due_us", "created_us", "updated_us", "trouble")

CheckJob = Callable[[str, jobs_pb2.JobSpec], int]
Place = Callable[[jobs_pb2.JobSpec, Caller, str, bytes, Callable[[Sequence[int]], Ticket]], Ticket]


class ScheduleHandlers:
    """One method per RPC."""

    def __init__(self, runtime: Runtime, check_job: CheckJob, place: Place) -> None:
        """`check_job` raises what is wrong with a spec below a field, and gives the time-out that it will have; `place`
        makes an object of its input where that is large."""
        self._runtime, self._shelf = runtime, Shelf(runtime.store)
        self._check_job, self._place = check_job, place

    def create(self, caller: Caller, request: jobs_pb2.CreateScheduleRequest) -> Ticket:
        schedule = jobs_pb2.Schedule()
        schedule.CopyFrom(request.schedule)
        digest, spec = digest_of_request(request), jobs_pb2.JobSpec()
        spec.CopyFrom(schedule.job)
        self._check(schedule)
        spec.timeout_ms = self._check_job("schedule.job.", spec)
        schedule.ClearField("job")

        def create(sizes: Sequence[int]) -> Ticket:
            job = jobs_pb2.ScheduledJob(job=spec, input_bytes=sizes[0])
            command = commands.CreateSchedule(schedule, job, request.request_id, digest)
            return self._ask(caller, command, request)

        return self._place(spec, caller, request.request_id, digest, create)

    def list(self, caller: Caller, request: jobs_pb2.ListSchedulesRequest) -> Message:
        rows = self._shelf.rows(SCHEDULES, jobs_pb2.Schedule, request.page_token)
        schedules, token = take_page(rows, request.page_size)
        for schedule in schedules:
            kept = self._shelf.find(SCHEDULE_JOBS, jobs_pb2.ScheduledJob, schedule.schedule_id)
            if kept is not None:
                kept.job.ClearField("payload")
                schedule.job.CopyFrom(kept.job)
        return jobs_pb2.ListSchedulesResponse(schedules=schedules, next_page_token=token)

    def update(self, caller: Caller, request: jobs_pb2.UpdateScheduleRequest) -> Ticket:
        self._shelf.get("schedule_id", SCHEDULES, jobs_pb2.Schedule, request.schedule_id)
        paused = request.paused if request.HasField("paused") else None
        return self._ask(caller, commands.UpdateSchedule(request.schedule_id, paused), request)

    def delete(self, caller: Caller, request: jobs_pb2.DeleteScheduleRequest) -> Ticket:
        self._shelf.get("schedule_id", SCHEDULES, jobs_pb2.Schedule, request.schedule_id)
        return self._ask(caller, commands.DeleteSchedule(request.schedule_id), request)

    # ---- inside

    def _check(self, schedule: jobs_pb2.Schedule) -> None:
        """Fills in what may be left out. Raises InvalidRequest, or NotFound for the task."""
        for name in FILLED_IN:
            if getattr(schedule, name):
                raise InvalidRequest.field(f"schedule.{name}", "is filled in by the node")
        self._shelf.get("schedule.task_id", TASKS, jobs_pb2.Task, schedule.task_id)
        check_text("schedule.name", schedule.name, NAME_CHARS_MAX, empty=True)
        check_cron("schedule.cron", schedule.cron)
        schedule.timezone = check_timezone("schedule.timezone", schedule.timezone)
        check_mode("schedule.mode", schedule.mode)
        for name in ("deadline_us", "after"):
            if getattr(schedule.job, name):
                text = "is for a single job; each of a schedule's jobs would have the same"
                raise InvalidRequest.field(f"schedule.job.{name}", text)

    def _ask(self, caller: Caller, command: object, request: Message) -> Ticket:
        return self._runtime.ask("jobs", str(caller), command, size_bytes=request.ByteSize())


def check_mode(field: str, mode: jobs_pb2.DispatchMode.ValueType) -> None:
    """Raises InvalidRequest."""
    if mode not in MODES:
        raise InvalidRequest.field(field, f"{mode} is not known; allowed: auto, offgrid, disabled")
