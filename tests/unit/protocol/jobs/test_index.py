"""The index of open jobs: what a start reads, and what counts of a task stand in its row."""

from __future__ import annotations

import pytest
from job_bench import TASK, CoreBench, new_job
from test_core import report_of

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.effects import Put
from offgrid_node.protocol.jobs.commands import RunJobs
from offgrid_node.protocol.jobs.index import OPEN_JOBS, TASK_ENDS, TASKS_REMEMBERED, Index
from offgrid_node.protocol.jobs.naming import PREFIXED, ids_of, stem_of


def together(bench: CoreBench, count: int) -> list[str]:
    """Jobs of one RunJobs."""
    jobs = tuple(new_job() for _ in range(count))
    bench.intake.on_run(1, RunJobs(TASK, jobs, jobs_pb2.DISPATCH_MODE_OFFGRID, "", b""), bench.now, bench.rng)
    bench.intake.answer()
    bench.settle()
    return list(bench.replied(jobs_pb2.RunJobsResponse).job_ids)


def entries(bench: CoreBench) -> dict[bytes, bytes]:
    return {key: value for (table, key), value in bench.disk.rows.items() if table == OPEN_JOBS}


def test_jobs_made_together_share_one_entry_until_the_last_has_ended() -> None:
    bench = CoreBench()
    first, second = together(bench, 2)
    assert entries(bench) == {stem_of(first).encode(): PREFIXED}
    bench.cancel(first)
    bench.restart()
    assert [entry.job.job_id for entry in bench.core.jobs] == [second]
    bench.cancel(second)
    assert entries(bench) == {}


def test_a_job_made_alone_has_its_own() -> None:
    bench = CoreBench()
    job_id = bench.submitted()
    assert entries(bench) == {job_id.encode(): b""}
    bench.restart()
    bench.cancel(job_id)
    assert entries(bench) == {}


def test_a_start_reads_no_row_of_a_job_that_has_ended_alone() -> None:
    bench = CoreBench()
    ended, kept = bench.awarded(), bench.submitted()
    bench.report(report_of(bench.job(ended)))
    read: list[bytes] = []
    get = bench.disk.get
    bench.disk.get = lambda table, key: read.append(key) or get(table, key)  # type: ignore[method-assign, func-returns-value]
    bench.restart()
    assert kept.encode() in read
    assert ended.encode() not in read


def test_all_that_ends_in_one_step_is_one_row_of_counts() -> None:
    bench = CoreBench()
    ids = together(bench, 5)
    bench.effects.clear()
    bench.cancel(*ids)
    [put] = [e for e in bench.effects if isinstance(e, Put) and e.table == TASK_ENDS]
    assert jobs_pb2.TaskEnds.FromString(put.value).ended[0].jobs == 5


def test_executions_of_a_redundant_job_count_for_nothing_with_its_task() -> None:
    bench = CoreBench()
    index = Index(bench.post)
    job = jobs_pb2.Job(job_id="j-1.r1", task_id="t-1", parent_id="j-1", state=jobs_pb2.JOB_STATE_COMPLETED)
    index.add(job.job_id, job)
    assert list(index.of_task("t-1")) == []
    index.end(job.job_id, job)
    assert dict(index.ends("t-1")) == {}


def test_counts_of_many_tasks_are_not_all_kept_in_memory() -> None:
    bench = CoreBench()
    index = Index(bench.post)
    list(index.load(bench.disk))
    for number in range(TASKS_REMEMBERED + 5):
        job = jobs_pb2.Job(job_id=f"j-{number}", task_id=f"t-{number}", state=jobs_pb2.JOB_STATE_FAILED)
        index.add(job.job_id, job)
        index.end(job.job_id, job)
    index.close_step()
    bench.settle()
    index.begin()
    assert len(index._ends) == TASKS_REMEMBERED
    assert dict(index.ends("t-0")) == {jobs_pb2.JOB_STATE_FAILED: 1}, "read back"


@pytest.mark.parametrize(
    ("job_id", "stem"),
    [("j-abc-007", "j-abc"), ("j-abc", "j-abc"), ("j-abc-007.r1", "j-abc"), ("j-abc.r1", "j-abc"), ("j-123", "j-123")],
)
def test_a_stem_is_what_ids_of_one_call_share(job_id: str, stem: str) -> None:
    assert stem_of(job_id) == stem


def test_ids_made_together_lie_together_in_their_order() -> None:
    ids = ids_of("j-abc", 256)
    assert sorted(ids) == ids
    assert {stem_of(job_id) for job_id in ids} == {"j-abc"}
