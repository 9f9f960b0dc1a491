"""Schedules as their owner meets them: what is refused by name, listed, and made in time."""

from __future__ import annotations

from typing import Any

import pytest
from jobs_bench import Bench, spec

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.errors import Fault, InvalidRequest, NotFound
from offgrid_node.protocol.jobs.table import COMPLETED

BAD: dict[str, tuple[dict[str, Any], type[Fault], str]] = {
    "no task": ({"task_id": "t-none"}, NotFound, "t-none"),
    "no cron": ({"cron": ""}, InvalidRequest, "schedule.cron"),
    "a cron out of bounds": ({"cron": "0 25 * * *"}, InvalidRequest, "schedule.cron: hour '25'"),
    "no time zone": ({"timezone": "Mars/Olympus"}, InvalidRequest, "schedule.timezone"),
    "an unknown mode": ({"mode": 9}, InvalidRequest, "schedule.mode"),
    "no payload": ({"job": jobs_pb2.JobSpec()}, InvalidRequest, "schedule.job.payload"),
    "a deadline": ({"job": spec(deadline_us=9)}, InvalidRequest, "schedule.job.deadline_us"),
    "others to wait for": ({"job": spec(after=["j-1"])}, InvalidRequest, "schedule.job.after"),
    "too few that agree": ({"job": spec(replicas=4, quorum=2)}, InvalidRequest, "schedule.job.quorum"),
    "an id of its own": ({"schedule_id": "s-1"}, InvalidRequest, "schedule.schedule_id: is filled in"),
    "a name without end": ({"name": "x" * 257}, InvalidRequest, "schedule.name"),
}


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench()


def create(bench: Bench, request_id: str = "", **fields: Any) -> Any:
    fields = {"task_id": bench.job().task_id, "cron": "* * * * *", "job": spec(), **fields}
    request = jobs_pb2.CreateScheduleRequest(schedule=jobs_pb2.Schedule(**fields), request_id=request_id)
    return bench.own("CreateSchedule", request).schedule


def listed(bench: Bench) -> dict[str, Any]:
    page = bench.own("ListSchedules", jobs_pb2.ListSchedulesRequest(page_size=100))
    return {schedule.schedule_id: schedule for schedule in page.schedules}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_schedule_is_refused_by_name_and_changes_nothing(bench: Bench, case: str) -> None:
    fields, fault, words = BAD[case]
    before = listed(bench)
    with pytest.raises(fault) as refused:
        create(bench, **fields)
    assert words in refused.value.message
    assert listed(bench) == before


def test_a_schedule_makes_its_jobs_in_time(bench: Bench) -> None:
    made = create(bench, name="each minute", job=spec(priority=3))
    assert (made.timezone, made.next_us % 60_000_000) == ("UTC", 0)
    bench.cluster.run_for(130)
    shown = listed(bench)[made.schedule_id]
    assert (shown.job.priority, shown.job.HasField("payload")) == (3, False)
    done = bench.own("GetJob", jobs_pb2.GetJobRequest(job_id=shown.last_job_id)).job
    assert (done.state, done.schedule_id, done.due_us) == (COMPLETED, made.schedule_id, shown.last_due_us)
    bench.own("DeleteSchedule", jobs_pb2.DeleteScheduleRequest(schedule_id=made.schedule_id))
    assert made.schedule_id not in listed(bench)


def test_a_paused_schedule_is_shown_as_such(bench: Bench) -> None:
    made = create(bench, "once", cron="0 0 1 1 *")
    for paused in (True, False):
        request = jobs_pb2.UpdateScheduleRequest(schedule_id=made.schedule_id, paused=paused)
        assert bench.own("UpdateSchedule", request).schedule.paused == paused
        assert listed(bench)[made.schedule_id].paused == paused


def test_what_is_not_there_cannot_be_changed(bench: Bench) -> None:
    for method, request in (
        ("UpdateSchedule", jobs_pb2.UpdateScheduleRequest(schedule_id="s-none", paused=True)),
        ("DeleteSchedule", jobs_pb2.DeleteScheduleRequest(schedule_id="s-none")),
    ):
        with pytest.raises(NotFound):
            bench.own(method, request)
