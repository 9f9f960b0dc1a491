"""A job's life as its owner meets it: taken back, expired, counted, listed by state, and one job after another."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.message import Message
from jobs_bench import SPEC, WASM, Bench, spec

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.errors import Fault, InvalidRequest, NotFound
from offgrid_node.protocol.jobs.large import INLINE_BYTES_MAX
from offgrid_node.protocol.jobs.table import CANCELLED, COMPLETED, CREATED, EXPIRED, FAILED
from offgrid_tools.sim.work import LARGE_NAME, outcome_of, verdict_of

ECHO = jobs_pb2.JobPayload(wasm=WASM, input_job="#1", input_name="the last")


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench()


def run(bench: Bench, *specs: jobs_pb2.JobSpec, task_id: str = "") -> list[str]:
    request = jobs_pb2.RunJobsRequest(task_id=task_id or bench.job().task_id, jobs=specs)
    return list(bench.own("RunJobs", request).job_ids)


def job(bench: Bench, job_id: str) -> jobs_pb2.Job:
    found: jobs_pb2.Job = bench.own("GetJob", jobs_pb2.GetJobRequest(job_id=job_id)).job
    return found


def counts(bench: Bench, task_id: str) -> dict[int, int]:
    answer = bench.own("GetTask", jobs_pb2.GetTaskRequest(task_id=task_id))
    assert answer.task.task_id == task_id
    return {count.state: count.jobs for count in answer.counts}


REFUSED: dict[str, tuple[str, Message, type[Fault], str]] = {
    "nothing to cancel": ("CancelJobs", jobs_pb2.CancelJobsRequest(), InvalidRequest, "and not both"),
    "jobs and a task": (
        "CancelJobs", jobs_pb2.CancelJobsRequest(job_ids=["j"], task_id="t"), InvalidRequest, "and not both"),
    "too many to cancel": (
        "CancelJobs", jobs_pb2.CancelJobsRequest(job_ids=["j"] * 257), InvalidRequest, "257 jobs; at most 256"),
    "a job that is none": ("CancelJobs", jobs_pb2.CancelJobsRequest(job_ids=["j-x"]), NotFound, "no job 'j-x'"),
    "a task that is none": ("CancelJobs", jobs_pb2.CancelJobsRequest(task_id="t-x"), NotFound, "no task 't-x'"),
    "a reason that nobody can read": (
        "CancelJobs", jobs_pb2.CancelJobsRequest(task_id="T", reason="\x1b[2J"), InvalidRequest, "cannot be seen"),
    "a state that is none": ("ListJobs", jobs_pb2.ListJobsRequest(states=[1, 99]), InvalidRequest, "99 is not known"),  # type: ignore[list-item]
    "an input of a job that it does not go after": (
        "RunJobs",
        jobs_pb2.RunJobsRequest(task_id="T", jobs=[spec(payload=jobs_pb2.JobPayload(wasm=WASM, input_job="j-1"))]),
        InvalidRequest, "jobs[0].payload.input_job: 'j-1' is not among the jobs that it goes after"),
    "two inputs": (
        "RunJobs",
        jobs_pb2.RunJobsRequest(
            task_id="T", jobs=[spec(payload=jobs_pb2.JobPayload(wasm=WASM, input=b"x", input_job="j"))]),
        InvalidRequest, "is set beside another input"),
    "too many names in all": (
        "RunJobs",
        jobs_pb2.RunJobsRequest(task_id="T", jobs=[spec(after=[f"j-{n}" for n in range(256)])] * 17),
        InvalidRequest, "4352 names in `after`; at most 4096"),
    "a job of another task": (
        "RunJobs", jobs_pb2.RunJobsRequest(task_id="T", jobs=[spec(after=["j-x"])]), InvalidRequest, "no job 'j-x'"),
    "a deadline that has passed": (
        "CreateJob", jobs_pb2.CreateJobRequest(task_id="T", job=spec(deadline_us=1)), InvalidRequest, "has passed"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_by_name_and_changes_nothing(bench: Bench, case: str) -> None:
    method, request, fault, words = REFUSED[case]
    asked: Any = type(request)()
    asked.CopyFrom(request)
    if getattr(asked, "task_id", "") == "T":
        asked.task_id = bench.job().task_id
    before = bench.core.store.journal_seq
    with pytest.raises(fault) as refused:
        bench.own(method, asked)
    assert words in refused.value.message
    assert bench.core.store.journal_seq == before


def test_a_job_is_taken_back_wherever_it_is_and_counted_and_listed(bench: Bench) -> None:
    made = bench.job()
    task_id, ended = made.task_id, run(bench, SPEC, task_id=made.task_id)
    bench.cluster.run_for(10)
    (under_way,) = run(bench, spec(requirements="memory_mb >= 1000000000"), task_id=task_id)  # no host has so much
    bench.cluster.monitor.jobs.terms.on_cancel(bench.core.node_id, task_id, [])
    answer = bench.own("CancelJobs", jobs_pb2.CancelJobsRequest(task_id=task_id, reason="enough"))
    assert (list(answer.job_ids), answer.more) == ([made.job_id, under_way], False)
    bench.cluster.run_for(10)
    assert counts(bench, task_id) == {COMPLETED: 1, CANCELLED: 2}
    listed = bench.own("ListJobs", jobs_pb2.ListJobsRequest(task_id=task_id, states=[CANCELLED])).jobs
    assert {(each.job_id, each.error_detail) for each in listed} == {(made.job_id, "enough"), (under_way, "enough")}
    assert job(bench, ended[0]).state == COMPLETED


def test_a_job_expires_at_its_deadline(bench: Bench) -> None:
    deadline_us = bench.core.running.runtime.clock.now().utc_us + 1_000_000
    late = bench.job(deadline_us=deadline_us)
    bench.cluster.run_for(2)
    assert (job(bench, late.job_id).state, job(bench, late.job_id).error) == (EXPIRED, "DeadlinePassed")


def test_its_watchers_are_told_of_an_end_without_a_result(bench: Bench) -> None:
    stream = bench.own("WatchJobs", jobs_pb2.WatchJobsRequest(watch="w-life"))
    task_id = bench.job().task_id
    request = jobs_pb2.RunJobsRequest(
        task_id=task_id, jobs=[spec(requirements="memory_mb >= 1000000000"), spec(after=["#0"])], watch="w-life"
    )
    first, second = bench.own("RunJobs", request).job_ids
    bench.cluster.monitor.jobs.terms.on_cancel(bench.core.node_id, "", [first])
    bench.own("CancelJobs", jobs_pb2.CancelJobsRequest(job_ids=[first]))
    bench.cluster.run_for(1)
    told = {each.job_id: (each.state, each.error) for message in stream.take() for each in message.jobs}
    assert told == {first: (CANCELLED, "Cancelled"), second: (FAILED, "DependencyFailed")}


def first_of_a_sound_chain(input_name: str) -> jobs_pb2.JobPayload:
    """Neither this work, nor what is made of its output, nor what is made of that, fails by itself."""
    for number in range(1_000):
        first = payload = jobs_pb2.JobPayload(wasm=WASM, input=b"work %d" % number, input_name=input_name)
        for _ in range(3):
            if verdict_of(payload):
                break
            payload = jobs_pb2.JobPayload(wasm=WASM, input=outcome_of(payload).output)
        else:
            return first
    raise AssertionError("no such work")


@pytest.mark.parametrize("large", [False, True])
def test_a_jobs_output_becomes_the_next_ones_input(large: bool) -> None:
    bench = Bench()
    first = first_of_a_sound_chain(LARGE_NAME if large else "")
    second = jobs_pb2.JobPayload(wasm=WASM, input_job="#0", input_name="chained")
    output = outcome_of(first).output
    assert (len(output) > INLINE_BYTES_MAX) == large
    bench.cluster.monitor.jobs.expect(first)
    bench.cluster.monitor.jobs.chains.expect(second)
    bench.cluster.monitor.jobs.chains.expect(ECHO)
    made = run(bench, spec(payload=first), spec(payload=second, after=["#0"]), spec(payload=ECHO, after=["#1"]))
    assert [job(bench, job_id).state for job_id in made[1:]] == [CREATED, CREATED]
    bench.cluster.run_for(30)
    chained = job(bench, made[1])
    assert (chained.state, chained.input_bytes) == (COMPLETED, len(output))
    expected = jobs_pb2.JobPayload(wasm=WASM, input=output, input_name="chained")
    assert chained.result.output == outcome_of(expected).output
    assert job(bench, made[2]).state == COMPLETED


class TestWhy:
    def why(self, bench: Bench, job_id: str) -> Any:
        return bench.own("ExplainJob", jobs_pb2.ExplainJobRequest(job_id=job_id))

    def test_names_each_host_and_what_its_broker_thinks_of_it(self, bench: Bench) -> None:
        made = bench.job(requirements="memory_mb >= 1000000000")
        answer = self.why(bench, made.job_id)
        assert answer.job.job_id == made.job_id
        assert not answer.job.kept_payload
        assert answer.story == "It has not been dispatched."
        assert answer.broker == bench.broker.node_id
        assert {verdict.host for verdict in answer.verdicts} >= {bench.host.node_id}
        assert all(verdict.reason and not verdict.wins for verdict in answer.verdicts)

    def test_says_of_an_ended_job_that_hosts_are_told_as_of_now(self, bench: Bench) -> None:
        made = bench.job()
        bench.cluster.monitor.jobs.terms.on_cancel(bench.core.node_id, "", [made.job_id])
        bench.own("CancelJobs", jobs_pb2.CancelJobsRequest(job_ids=[made.job_id]))
        assert "What is said of hosts is of now" in self.why(bench, made.job_id).story

    def test_says_so_when_the_broker_does_not_answer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        bench = Bench()
        made = bench.job()
        bench.broker.crash()
        answer = self.why(bench, made.job_id)
        assert list(answer.verdicts) == []
        assert "does not say more" in answer.story or "No broker of the mesh is alive" in answer.story

    def test_of_nothing_is_not_found(self, bench: Bench) -> None:
        with pytest.raises(NotFound):
            self.why(bench, "j-x")
