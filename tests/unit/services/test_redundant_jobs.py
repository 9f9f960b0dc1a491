"""Redundant jobs as their owner meets them: asked for, listed, explained."""

from __future__ import annotations

from typing import Any

import pytest
from jobs_bench import PAYLOAD, Bench, spec

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.protocol.jobs.table import COMPLETED
from offgrid_tools.sim.work import outcome_of

THREE = spec(replicas=3, quorum=2)


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench()


def shown(bench: Bench, job_id: str) -> Any:
    return bench.own("GetJob", jobs_pb2.GetJobRequest(job_id=job_id))


def listed(bench: Bench, task_id: str, *, executions: bool, size: int = 2) -> list[str]:
    job_ids: list[str] = []
    token = ""
    while token or not job_ids:
        request = jobs_pb2.ListJobsRequest(
            task_id=task_id, page_size=size, page_token=token, include_executions=executions
        )
        page = bench.own("ListJobs", request)
        job_ids += [job.job_id for job in page.jobs]
        token = page.next_page_token
    return job_ids


def test_a_redundant_job_ends_with_what_its_hosts_agree_on(bench: Bench) -> None:
    made = bench.own("RunJobs", jobs_pb2.RunJobsRequest(task_id=bench.job().task_id, jobs=[THREE]))
    bench.cluster.run_for(10)
    answer = shown(bench, made.job_ids[0])
    assert (answer.job.state, answer.job.result.output) == (COMPLETED, outcome_of(PAYLOAD).output)
    executions = answer.executions
    assert len({each.host for each in executions if each.agreed}) >= 2
    assert len({each.result_digest for each in executions if each.agreed}) == 1
    assert answer.job.price_micro == sum(each.price_micro for each in executions if each.agreed)
    assert shown(bench, executions[0].job_id).job.parent_id == answer.job.job_id


@pytest.mark.parametrize("alone", [False, True], ids=["made together", "made alone"])
def test_lists_show_executions_only_to_who_asks_for_them(bench: Bench, alone: bool) -> None:
    task_id = bench.job().task_id
    (first,) = listed(bench, task_id, executions=False)
    if alone:
        request = jobs_pb2.CreateJobRequest(task_id=task_id, job=THREE)
        job_id = bench.own("CreateJob", request).job.job_id
        bench.own("DispatchJob", jobs_pb2.DispatchJobRequest(job_id=job_id))
    else:
        job_id = bench.own("RunJobs", jobs_pb2.RunJobsRequest(task_id=task_id, jobs=[THREE])).job_ids[0]
    bench.cluster.run_for(10)
    assert listed(bench, task_id, executions=False) == [first, job_id]
    names = [each.job_id for each in shown(bench, job_id).executions]
    assert listed(bench, task_id, executions=True, size=1) == [first, job_id, *names]


def test_a_job_like_any_other_has_no_executions(bench: Bench) -> None:
    assert not shown(bench, bench.job().job_id).executions


def test_what_cannot_agree_is_refused(bench: Bench) -> None:
    task_id = bench.job().task_id
    with pytest.raises(InvalidRequest, match=r"jobs\[0\]\.quorum: 2; of 4 executions 3 to 4 must agree"):
        bench.own("RunJobs", jobs_pb2.RunJobsRequest(task_id=task_id, jobs=[spec(replicas=4, quorum=2)]))
