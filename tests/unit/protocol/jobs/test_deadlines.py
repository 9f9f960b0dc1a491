"""A job's deadline: a time of day, whatever happens to the clock that tells it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from job_bench import MARKET, WORKER, CoreBench, award
from test_cancelling import FROM, stopped
from test_core import report_of

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.jobs.deadlines import PASSED_MAX, RECHECK_MS, Deadlines
from offgrid_node.protocol.jobs.settings import RETRY_DELAYS_MS
from offgrid_node.protocol.jobs.table import AWARDED, EXPIRED

HOUR_MS = 3_600_000
ENDED_AS = "the job has ended, as"


def test_a_job_that_has_not_ended_by_then_is_expired_and_its_host_told() -> None:
    bench = CoreBench()
    job_id = bench.submitted(deadline_us=5_000_000)
    bench.clears(award(job_id))
    bench.wait(4_999)
    assert bench.job(job_id).state == AWARDED
    bench.wait(1)
    job = bench.row(job_id)
    assert (job.state, job.error) == (EXPIRED, "DeadlinePassed")
    assert stopped(bench) == [(WORKER.node_id, job_id, 1)]


def no_host(job_id: str) -> jobs_pb2.Clearing:
    return jobs_pb2.Clearing(
        job_id=job_id, attempt=1, kind=jobs_pb2.CLEARING_KIND_NO_HOST, detail="no live host offers it"
    )


def queued(job_id: str) -> jobs_pb2.Clearing:
    return jobs_pb2.Clearing(job_id=job_id, attempt=1, kind=jobs_pb2.CLEARING_KIND_QUEUED)


@pytest.mark.parametrize(
    ("clearings", "why"),
    [
        ([], "its deadline passed 0 ms ago, before it had ended"),
        ([no_host], "before it had ended: no host was found for it: no live host offers it"),
        ([queued], f"before it had ended: its order waited at broker {MARKET.node_id} for a free slot"),
        ([no_host, queued], f"before it had ended: its order waited at broker {MARKET.node_id} for a free slot"),
        ([no_host, award], "its deadline passed 0 ms ago, before it had ended"),
    ],
)
def test_it_says_what_the_job_waited_for(clearings: list[Callable[[str], jobs_pb2.Clearing]], why: str) -> None:
    bench = CoreBench()
    job_id = bench.submitted(deadline_us=3_000_000)
    for clearing in clearings:
        bench.clears(clearing(job_id))
        bench.wait(RETRY_DELAYS_MS[0] if clearing is no_host else 0)
    bench.wait(3_000 - bench.now_ms)
    job = bench.row(job_id)
    assert job.state == EXPIRED
    assert job.error_detail.endswith(why)


def test_a_result_that_comes_past_it_is_refused_though_nothing_has_looked_at_the_clock_yet() -> None:
    bench = CoreBench()
    job_id = bench.submitted(deadline_us=5_000_000)
    bench.clears(award(job_id))
    report = report_of(bench.job(job_id))
    bench.now_ms += 5_001
    bench.report(report)
    assert bench.row(job_id).state == EXPIRED
    (outcome,) = bench.replied(jobs_pb2.ReportResultsResponse).outcomes
    assert (outcome.accepted, outcome.refusal) == (False, f"{ENDED_AS} JOB_STATE_EXPIRED: nobody waits for this")


@pytest.mark.parametrize("state", FROM)
def test_it_expires_from_every_state(state: str) -> None:
    bench = CoreBench()
    job_id = FROM[state](bench)
    entry = bench.core.jobs.get(job_id)
    assert entry is not None
    entry.job.deadline_us = 1_000_000
    bench.core.jobs.deadlines.add(job_id, 1_000_000, bench.now)
    bench.wait(1_000)
    assert bench.row(job_id).state == EXPIRED


def test_a_deadline_stands_over_a_restart() -> None:
    bench = CoreBench()
    job_id = bench.submitted(deadline_us=5_000_000)
    bench.restart()
    assert bench.core.deadline_ms() is not None
    bench.wait(5_000)
    assert bench.row(job_id).state == EXPIRED


def test_a_clock_that_is_set_forward_is_noticed_within_its_recheck() -> None:
    deadlines = Deadlines()
    deadlines.add("j-1", HOUR_MS * 1_000, Now(0, 0))
    assert deadlines.deadline_ms() == RECHECK_MS
    assert deadlines.take_passed(Now(RECHECK_MS, 2 * HOUR_MS * 1_000)) == ["j-1"]
    assert deadlines.deadline_ms() is None


def test_a_clock_that_is_set_back_gives_a_job_more_time() -> None:
    deadlines = Deadlines()
    deadlines.add("j-1", 1_000_000, Now(0, 0))
    assert deadlines.take_passed(Now(1_000, -HOUR_MS * 1_000)) == []
    assert deadlines.deadline_ms() == 1_000 + RECHECK_MS


def test_no_step_ends_more_than_so_many() -> None:
    deadlines = Deadlines()
    for number in range(PASSED_MAX + 1):
        deadlines.add(f"j-{number}", 1, Now(0, 0))
    later = Now(1, 1_000)
    assert len(deadlines.take_passed(later)) == PASSED_MAX
    assert deadlines.deadline_ms() == 1, "the others at once"
    assert len(deadlines.take_passed(later)) == 1


def test_a_job_without_one_or_that_has_ended_is_not_looked_at() -> None:
    deadlines = Deadlines()
    deadlines.add("j-1", 0, Now(0, 0))
    assert deadlines.deadline_ms() is None
    deadlines.add("j-2", 1, Now(0, 0))
    deadlines.discard("j-2")
    assert deadlines.take_passed(Now(9, 9_000_000)) == []
