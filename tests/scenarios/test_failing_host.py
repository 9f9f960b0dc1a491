"""A host that answers "failed" to everything: its jobs are done by others, and soon it gets none."""

from __future__ import annotations

from collections import Counter

from msgspec.structs import replace
from road_town import Town

from offgrid.v1 import jobs_pb2
from offgrid_node.executors.executor import Outcome
from offgrid_node.protocol.jobs.table import COMPLETED

JOBS = 24


def fail(outcome: Outcome) -> Outcome:
    return replace(outcome, output=b"", exit_code=-1, error="ExecutionFailed", error_detail="it did not work")


def test_a_host_that_fails_everything_ends_up_with_few_jobs() -> None:
    town = Town()
    town.seconds = 0.1
    town["host-a"].finished = fail  # the cheapest: all would be its
    ran = Counter[str]()
    for number in range(JOBS):
        job = town.create()
        town.dispatch(job)
        town.until(jobs_pb2.Job(job_id=job.job_id), COMPLETED)
        if number >= JOBS // 2:
            ran.update(host for host, _ in town.runs_of(job))
    assert ran["host-a"] == 0
    assert ran.total() == JOBS // 2
