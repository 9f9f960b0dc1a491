"""The local queue: who of those that wait for this very node goes first."""

from __future__ import annotations

from job_bench import CoreBench

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.jobs.table import QUEUED, RUNNING

DISABLED = jobs_pb2.DISPATCH_MODE_DISABLED


def queued(bench: CoreBench, **terms: int) -> str:
    made = bench.create(**terms)
    assert isinstance(made, jobs_pb2.CreateJobResponse)
    bench.dispatch(made.job.job_id, DISABLED)
    return made.job.job_id


def test_the_most_urgent_goes_first_and_of_those_who_came_first() -> None:
    bench = CoreBench()
    ids = [queued(bench, priority=priority) for priority in (0, -5, 7, 0, 7)]
    assert list(bench.core.local) == [ids[2], ids[4], ids[0], ids[3], ids[1]]
    bench.core.local.pump(bench.now)
    assert [bench.job(job_id).state for job_id in ids] == [QUEUED, QUEUED, RUNNING, QUEUED, QUEUED]


def test_the_order_stands_over_a_restart() -> None:
    bench = CoreBench()
    ids = [queued(bench, priority=priority) for priority in (1, 2, 3)]
    bench.restart()
    assert list(bench.core.local) == ids[::-1]


def test_a_job_that_is_taken_out_is_not_started() -> None:
    bench = CoreBench()
    first, second = queued(bench), queued(bench)
    entry = bench.core.jobs.get(first)
    assert entry is not None
    bench.core.local.discard(entry.job)
    bench.core.local.pump(bench.now)
    assert (bench.job(first).state, bench.job(second).state) == (QUEUED, RUNNING)
