"""Schedules: jobs that a core makes by the clock.

A job, and that its due time is done with, become durable in one step; its request id is the schedule's and the due
time's. So there is one job for a due time, whatever crashes, and however often the clock passes it. Of times that were
missed, for the node was down or the clock was set forward, at most one is made up for, the last. What a cron expression
means is asked of a `Cron` handed in: the machine knows no calendar.
"""

from __future__ import annotations

from typing import Protocol

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Rows
from offgrid_node.protocol.errors import AlreadyExists, Corrupt, Exhausted, Fault, InvalidRequest, NotFound, Unavailable
from offgrid_node.protocol.ids import fresh_timely_id
from offgrid_node.protocol.jobs.catalogue import TASKS
from offgrid_node.protocol.jobs.commands import CreateSchedule, DeleteSchedule, RunJobs, UpdateSchedule
from offgrid_node.protocol.jobs.intake import Intake
from offgrid_node.protocol.jobs.post import Post
from offgrid_node.protocol.jobs.specs import job_of
from offgrid_node.protocol.jobs.terms import terms_of
from offgrid_node.protocol.requests import Requests
from offgrid_node.protocol.rng import Rng

SCHEDULES = "schedules"  # Schedule without its job, by id: a row that changes at each due time
SCHEDULE_JOBS = "schedule_jobs"  # ScheduledJob, by the same id: one that never changes
SCHEDULES_MAX = 1_000
LATE_US = 60_000_000  # a due time that is missed by more is skipped, or made up for where its owner wants that
LOOK_MS = 30_000  # at the latest: the wall clock may be set meanwhile
RETRY_MS = 2_000  # where no job can be made now
BACK_US = 1_000_000  # a clock that goes back by less is not said to have gone back
NEVER_DUE = "no time is due: does this machine know its time zone?"
DIGEST = bytes(16)  # a due time makes the same job each time


class Cron(Protocol):
    """The arithmetic of cron expressions, in microseconds of UTC."""

    def next_us(self, cron: str, timezone: str, after_us: int) -> int | None:
        """The first due time after this instant; None if there is none."""
        ...

    def last_us(self, cron: str, timezone: str, at_us: int) -> int | None:
        """The last due time until this instant, inclusive."""
        ...


class NeverDue:
    """For machines that have no schedules."""

    def next_us(self, cron: str, timezone: str, after_us: int) -> int | None:
        return None

    def last_us(self, cron: str, timezone: str, at_us: int) -> int | None:
        return None


class Schedules:
    """All of them in memory, without their jobs."""

    def __init__(self, post: Post, requests: Requests, intake: Intake, cron: Cron) -> None:
        self._post, self._requests, self._intake, self._cron = post, requests, intake, cron
        self._schedules: dict[str, jobs_pb2.Schedule] = {}
        self._fresh: dict[str, jobs_pb2.ScheduledJob] = {}  # not committed yet
        self._fresh_at: Now | None = None
        self._rows: Rows | None = None
        self._look_ms: int | None = None
        self._seen_us: int | None = None  # when last looked at: a clock that goes back shows

    def load(self, rows: Rows, now: Now) -> None:
        self._rows = rows
        for _, value in rows.scan(SCHEDULES):
            schedule = jobs_pb2.Schedule.FromString(value)
            self._schedules[schedule.schedule_id] = schedule
        if self._schedules:
            self._look_ms = now.mono_ms

    def deadline_ms(self) -> int | None:
        return self._look_ms

    # ---- from the owner

    def on_create(self, ticket: int, command: CreateSchedule, now: Now, rng: Rng) -> None:
        try:
            made = self._requests.made(command.request_id, command.digest)
            schedule = self._schedules.get(made)
            if made and schedule is None:
                raise NotFound(f"schedule {made} was made by this request and is deleted", reason="ScheduleNotFound")
            if schedule is None and len(self._schedules) >= SCHEDULES_MAX:
                raise Exhausted(
                    f"this node has {SCHEDULES_MAX} schedules, and holds no more", reason="TooManySchedules"
                )
        except (AlreadyExists, Corrupt, Exhausted, NotFound) as fault:
            self._post.reply(ticket, fault)
            return
        if schedule is None:
            schedule = self._create(command, now, rng)
        self._post.reply(ticket, jobs_pb2.CreateScheduleResponse(schedule=schedule))

    def _begin(self, now: Now) -> None:
        """What an earlier instant wrote is committed, and can be read back."""
        if now != self._fresh_at:
            self._fresh.clear()
        self._fresh_at = now

    def _create(self, command: CreateSchedule, now: Now, rng: Rng) -> jobs_pb2.Schedule:
        self._begin(now)
        schedule = jobs_pb2.Schedule()
        schedule.CopyFrom(command.schedule)
        schedule.schedule_id = fresh_timely_id("s", now.utc_us, rng)
        schedule.created_us = now.utc_us
        name = schedule.schedule_id.encode()
        self._fresh[schedule.schedule_id] = command.job
        self._post.put(SCHEDULE_JOBS, name, command.job)
        self._schedules[schedule.schedule_id] = schedule
        self._set_next(schedule, now)
        self._requests.remember(command.request_id, command.digest, schedule.schedule_id)
        return schedule

    def on_update(self, ticket: int, command: UpdateSchedule, now: Now) -> None:
        schedule = self._schedules.get(command.schedule_id)
        if schedule is None:
            self._post.reply(ticket, _not_found(command.schedule_id))
            return
        if command.paused is not None and command.paused != schedule.paused:
            schedule.paused, schedule.trouble = command.paused, ""
            self._set_next(schedule, now)
        self._post.reply(ticket, jobs_pb2.UpdateScheduleResponse(schedule=schedule))

    def on_delete(self, ticket: int, command: DeleteSchedule) -> None:
        """Jobs that it has made go on."""
        if self._schedules.pop(command.schedule_id, None) is None:
            self._post.reply(ticket, _not_found(command.schedule_id))
            return
        self._fresh.pop(command.schedule_id, None)
        self._post.delete(SCHEDULES, command.schedule_id.encode())
        self._post.delete(SCHEDULE_JOBS, command.schedule_id.encode())
        self._post.reply(ticket, jobs_pb2.DeleteScheduleResponse())

    # ---- time

    def on_wake(self, now: Now, rng: Rng) -> None:
        if self._look_ms is None or now.mono_ms < self._look_ms:
            return
        self._look_ms = None
        self._begin(now)
        went_back = self._seen_us is None or now.utc_us < self._seen_us - BACK_US
        self._seen_us = now.utc_us
        for schedule in list(self._schedules.values()):
            if schedule.paused:
                continue
            if went_back:
                self._look_nearer(schedule, now)
            if schedule.next_us and schedule.next_us <= now.utc_us:
                self._on_due(schedule, now, rng)
            else:
                self._look_by(schedule, now)

    def _look_nearer(self, schedule: jobs_pb2.Schedule, now: Now) -> None:
        """The clock was set back, or this node begins: a time is due before the one that it waits for. One that was due
        before is known by its request id."""
        nearer = self._cron.next_us(schedule.cron, schedule.timezone, now.utc_us)
        if nearer is not None and (not schedule.next_us or nearer < schedule.next_us):
            schedule.next_us = nearer
            self._keep(schedule, now)

    def _on_due(self, schedule: jobs_pb2.Schedule, now: Now, rng: Rng) -> None:
        due_us = self._cron.last_us(schedule.cron, schedule.timezone, now.utc_us) or schedule.next_us
        if now.utc_us - due_us <= LATE_US or schedule.catch_up:
            fault = self._make(schedule, due_us, now, rng)
            if fault is not None:
                self._look_soon(now.mono_ms + RETRY_MS)
                if schedule.trouble != fault:
                    schedule.trouble = fault
                    self._keep(schedule, now)
                return
        else:
            schedule.trouble = f"passed over: {due_us} was missed by more than {LATE_US // 1_000_000} s"
        self._set_next(schedule, now)

    def _make(self, schedule: jobs_pb2.Schedule, due_us: int, now: Now, rng: Rng) -> str | None:
        """Makes the job of this due time, once for ever. Returns why it cannot be made now."""
        request_id = f"{schedule.schedule_id}@{due_us}"  # no caller may choose one with that sign
        try:
            if self._requests.made(request_id, DIGEST):
                return None
            if schedule.no_overlap and self._intake.is_open(schedule.last_job_id):
                schedule.trouble = f"passed over: job {schedule.last_job_id} had not ended"
                return None
            command = self._command(schedule, due_us, request_id)
            (schedule.last_job_id,) = self._intake.run(command, now, rng)
        except (Corrupt, Exhausted, InvalidRequest, NotFound, Unavailable) as fault:
            return fault.message
        schedule.last_due_us, schedule.trouble = due_us, ""
        return None

    def _command(self, schedule: jobs_pb2.Schedule, due_us: int, request_id: str) -> RunJobs:
        task = self._requests.row(TASKS, jobs_pb2.Task, schedule.task_id)
        kept = self._fresh.get(schedule.schedule_id) or self._requests.row(
            SCHEDULE_JOBS, jobs_pb2.ScheduledJob, schedule.schedule_id
        )
        if task is None or kept is None:
            raise NotFound(f"the task or the job of schedule {schedule.schedule_id} is gone", reason="TaskNotFound")
        new = job_of(kept.job, kept.input_bytes, 0, terms_of("", kept.job))
        new = new._replace(schedule_id=schedule.schedule_id, due_us=due_us)
        return RunJobs(task, (new,), schedule.mode, request_id, DIGEST)

    # ---- inside

    def _set_next(self, schedule: jobs_pb2.Schedule, now: Now) -> None:
        schedule.next_us = self._cron.next_us(schedule.cron, schedule.timezone, now.utc_us) or 0
        schedule.trouble = schedule.trouble if schedule.next_us else NEVER_DUE
        self._keep(schedule, now)
        self._look_by(schedule, now)

    def _keep(self, schedule: jobs_pb2.Schedule, now: Now) -> None:
        schedule.updated_us = now.utc_us
        self._post.put(SCHEDULES, schedule.schedule_id.encode(), schedule)

    def _look_by(self, schedule: jobs_pb2.Schedule, now: Now) -> None:
        if schedule.next_us and not schedule.paused:
            wait_ms = (schedule.next_us - now.utc_us) // 1_000 + 1
            self._look_soon(now.mono_ms + max(1, min(LOOK_MS, wait_ms)))

    def _look_soon(self, due_ms: int) -> None:
        self._look_ms = due_ms if self._look_ms is None else min(self._look_ms, due_ms)


def _not_found(schedule_id: str) -> Fault:
    return NotFound(
        f"there is no schedule {schedule_id!r}", reason="ScheduleNotFound", metadata={"schedule_id": schedule_id}
    )
