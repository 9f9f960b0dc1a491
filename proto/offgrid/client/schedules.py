"""jobs: schedules, by which a core makes jobs of itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Unpack

from offgrid.client.calls import Calls, fresh_request_id
from offgrid.client.jobs import Jobs
from offgrid.client.options import JobOptions, Work, mode_of
from offgrid.client.paging import pages
from offgrid.v1 import jobs_pb2


class Schedules:
    """The schedules of JobService."""

    def __init__(self, calls: Calls, jobs: Jobs) -> None:
        self._calls = calls
        self._jobs = jobs

    def create(
        self,
        cron: str,
        work: Work,
        *,
        name: str = "",
        timezone: str = "UTC",
        task_id: str = "",
        mode: str = "",
        no_overlap: bool = False,
        catch_up: bool = False,
        request_id: str = "",
        **options: Unpack[JobOptions],
    ) -> jobs_pb2.Schedule:
        """The job of a payload or JobSpec, made anew at each time that `cron` names (five fields, as in crontab(5)) in
        `timezone` ("Europe/Berlin").

        With `no_overlap` a time is passed over while the last job is open; with `catch_up` the last of the times that
        passed while the node was down is made up for. Without `task_id` its jobs get a task of their own.
        """
        request_id = request_id or fresh_request_id()
        schedule = jobs_pb2.Schedule(
            task_id=task_id or self._jobs.task_for(work, title=name),
            name=name,
            cron=cron,
            timezone=timezone,
            job=self._jobs.placed(work, options, request_id),
            mode=mode_of(mode),
            no_overlap=no_overlap,
            catch_up=catch_up,
        )
        request = jobs_pb2.CreateScheduleRequest(schedule=schedule, request_id=request_id)
        return self._calls.unary("JobService/CreateSchedule", request, jobs_pb2.CreateScheduleResponse).schedule

    def list(self, *, limit: int | None = None) -> Iterator[jobs_pb2.Schedule]:
        """Every schedule, without its job's payload."""

        def fetch(size: int, token: str) -> tuple[list[jobs_pb2.Schedule], str]:
            request = jobs_pb2.ListSchedulesRequest(page_size=size, page_token=token)
            page = self._calls.unary("JobService/ListSchedules", request, jobs_pb2.ListSchedulesResponse)
            return [*page.schedules], page.next_page_token

        return pages(fetch, limit)

    def pause(self, schedule_id: str, *, paused: bool = True) -> jobs_pb2.Schedule:
        """Makes no more jobs, or (`paused` False) goes on with the next time that is due."""
        request = jobs_pb2.UpdateScheduleRequest(schedule_id=schedule_id, paused=paused)
        return self._calls.unary("JobService/UpdateSchedule", request, jobs_pb2.UpdateScheduleResponse).schedule

    def delete(self, schedule_id: str) -> None:
        """Jobs that it has made go on."""
        request = jobs_pb2.DeleteScheduleRequest(schedule_id=schedule_id)
        self._calls.unary("JobService/DeleteSchedule", request, jobs_pb2.DeleteScheduleResponse)
