"""Open jobs that nobody has looked at for a while are packed, and nobody who looks can tell."""

from __future__ import annotations

import pytest
from job_bench import MARKET, WORKER, CoreBench, award
from test_core import report_of

from offgrid_node.protocol.jobs import open_jobs
from offgrid_node.protocol.jobs.open_job import Look, Open
from offgrid_node.protocol.jobs.open_jobs import HOT_MAX
from offgrid_node.protocol.jobs.table import COMPLETED, QUEUED


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_jobs, "HOT_MAX", 1)


def next_step(bench: CoreBench) -> None:
    bench.now_ms += 1
    bench.core.jobs.begin(bench.now)


def packed(bench: CoreBench) -> list[str]:
    return [entry.job_id for entry in bench.core.jobs if entry.packed]


def entry_of(bench: CoreBench, job_id: str) -> Open:
    entry = bench.core.jobs.get(job_id)
    assert entry is not None
    return entry


def test_those_looked_at_longest_ago_are_and_within_a_step_none() -> None:
    bench = CoreBench()
    ids = [bench.submitted() for _ in range(3)]
    assert packed(bench) == []
    next_step(bench)
    assert packed(bench) == ids[:2]
    assert bench.job(ids[0]).job_id == ids[0], "whoever looks unpacks it"
    assert packed(bench) == ids[1:2]
    next_step(bench)
    assert packed(bench) == ids[1:]


def test_what_is_asked_of_all_at_once_unpacks_nothing() -> None:
    bench = CoreBench()
    ids = [bench.submitted() for _ in range(3)]
    before = [entry_of(bench, job_id).look for job_id in ids]
    next_step(bench)
    assert [entry_of(bench, job_id).look for job_id in ids] == before
    assert before[0] == Look(QUEUED, bench.job(ids[2]).route, "", MARKET.node_id)
    bench.up(WORKER)
    bench.counts()
    assert packed(bench) == ids[:2]


def test_what_is_not_written_yet_is_kept_and_the_job_goes_on() -> None:
    bench = CoreBench()
    job_id = bench.awarded()
    bench.submitted()
    next_step(bench)
    assert packed(bench) == [job_id]
    bench.report(report_of(bench.job(job_id)))
    assert bench.row(job_id).state == COMPLETED


def test_a_host_that_dies_is_known_to_have_had_it() -> None:
    bench = CoreBench()
    job_id = bench.awarded()
    bench.submitted()
    next_step(bench)
    bench.down(WORKER)
    assert (bench.row(job_id).attempt, bench.row(job_id).state) == (2, QUEUED)


def test_a_start_packs_as_it_reads() -> None:
    bench = CoreBench()
    ids = [bench.submitted() for _ in range(3)]
    bench.restart()
    assert len(packed(bench)) == 2
    bench.wait(0)
    for job_id in ids:
        bench.clears(award(job_id))
    assert all(bench.job(job_id).host == WORKER.node_id for job_id in ids)


def test_redundant_jobs_and_their_executions_never_are() -> None:
    """Others keep their messages."""
    bench = CoreBench()
    parent = bench.submitted(replicas=2, quorum=2)
    for _ in range(3):
        bench.submitted()
    next_step(bench)
    assert parent not in packed(bench)


def test_a_field_that_is_none_is_no_job() -> None:
    with pytest.raises(AttributeError):
        getattr(Open.__new__(Open), "jobs")  # noqa: B009


def test_so_many_are_unpacked_that_ordinary_work_packs_none() -> None:
    assert HOT_MAX >= 8_192
