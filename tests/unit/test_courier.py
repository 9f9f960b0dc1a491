"""`client.jobs.submit`: sent by the batch, told by one stream, lost and doubled never."""

from __future__ import annotations

import threading
from concurrent.futures import wait

import pytest
from small_node import SmallNode

import offgrid
from offgrid.client import Client, OffgridError, payloads
from offgrid.client import courier as courier_module
from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.errors import Exhausted, FailedPrecondition, OutcomeUnknown

GIVE_UP_S = 60.0
COMPLETED, FAILED = jobs_pb2.JOB_STATE_COMPLETED, jobs_pb2.JOB_STATE_FAILED


@pytest.fixture
def client(node: SmallNode):
    with offgrid.connect(node.address) as connected:
        yield connected


def words(count: int) -> jobs_pb2.JobPayload:
    return payloads.command("wc", input=b"a " * count)


def test_a_job_that_failed_is_a_result_and_no_exception(client: Client) -> None:
    assert client.jobs.submit(words(3)).result(GIVE_UP_S).result.output == b"3 words\n"
    assert client.jobs.submit(payloads.command("false")).result(GIVE_UP_S).state == FAILED


def test_without_a_task_all_join_one_of_the_clients_own(node: SmallNode, client: Client) -> None:
    jobs = [client.jobs.submit(words(number)).result(GIVE_UP_S) for number in range(3)]
    assert {job.task_id for job in jobs} == set(node.tasks)
    assert len(node.missions) == 1


def test_what_gathers_while_a_call_is_under_way_shares_the_next(node: SmallNode, client: Client) -> None:
    entered, let_go, run_jobs = threading.Event(), threading.Event(), node.on_RunJobs

    def slowly(request: jobs_pb2.RunJobsRequest) -> jobs_pb2.RunJobsResponse:
        entered.set()
        let_go.wait(GIVE_UP_S)
        return run_jobs(request)

    node.on_RunJobs = slowly
    first = client.jobs.submit(words(1))
    entered.wait(GIVE_UP_S)
    others = [client.jobs.submit(words(2)) for _ in range(300)]
    let_go.set()
    assert not wait([first, *others], 10).not_done
    assert [len(call.jobs) for call in node.calls["RunJobs"]] == [1, 256, 44]


def test_a_map_keeps_the_order_and_its_bound(node: SmallNode, client: Client) -> None:
    outputs = [job.result.output for job in client.jobs.map((words(n) for n in range(50)), in_flight=4)]
    assert outputs == [b"%d words\n" % number for number in range(50)]
    assert max(len(call.jobs) for call in node.calls["RunJobs"]) <= 4


def test_jobs_of_different_tasks_and_modes_do_not_share_a_call(node: SmallNode, client: Client) -> None:
    task_id = client.tasks.create(client.missions.create("m").mission_id, "t").task_id
    futures = [client.jobs.submit(words(1)), client.jobs.submit(words(1), task_id=task_id, mode="offgrid")]
    wait(futures, 5)
    assert {(call.task_id, call.mode) for call in node.calls["RunJobs"]} >= {(task_id, 2)}
    assert len({call.task_id for call in node.calls["RunJobs"]}) == 2


def test_a_wrong_job_costs_those_beside_it_nothing(node: SmallNode, client: Client) -> None:
    node.stumble("RunJobs", OutcomeUnknown("lost"))  # so that the three share a call
    client.jobs.submit(words(1)).result(GIVE_UP_S)
    right, wrong, also = (client.jobs.submit(p) for p in (words(1), payloads.command("/bin/sh"), words(2)))
    with pytest.raises(OffgridError) as refused:
        wrong.result(GIVE_UP_S)
    assert refused.value.violations[0].field.endswith("payload.process.command")
    assert [right.result(GIVE_UP_S).state, also.result(GIVE_UP_S).state] == [COMPLETED, COMPLETED]


def test_a_lost_answer_makes_no_second_job(node: SmallNode, client: Client) -> None:
    run_jobs, lost = node.on_RunJobs, [OutcomeUnknown("lost"), OutcomeUnknown("lost")]

    def forgetful(request: jobs_pb2.RunJobsRequest) -> jobs_pb2.RunJobsResponse:
        answer = run_jobs(request)
        if lost:
            raise lost.pop()
        return answer

    node.on_RunJobs = forgetful
    assert client.jobs.submit(words(1)).result(GIVE_UP_S).state == COMPLETED
    assert len(node.jobs) == 1
    assert len({call.request_id for call in node.calls["RunJobs"]}) == 1


def test_a_full_node_is_asked_again(node: SmallNode, client: Client) -> None:
    node.stumble("RunJobs", Exhausted("the queue is full", reason="QueueFull", retry_ms=10))
    assert client.jobs.submit(words(1)).result(GIVE_UP_S).state == COMPLETED


def test_another_refusal_is_the_futures_exception(node: SmallNode, client: Client) -> None:
    node.stumble("RunJobs", FailedPrecondition("this node is no core", reason="NotACore"))
    with pytest.raises(OffgridError, match="no core"):
        client.jobs.submit(words(1)).result(GIVE_UP_S)


def test_a_lost_stream_is_opened_again_with_what_is_still_awaited(node: SmallNode, client: Client) -> None:
    client.jobs.submit(words(1)).result(GIVE_UP_S)
    node.cuts = 2
    while node.cuts:
        futures = [client.jobs.submit(words(number)) for number in range(20)]
        assert [future.result(GIVE_UP_S).state for future in futures] == [COMPLETED] * 20
    assert client.jobs.submit(words(1)).result(GIVE_UP_S).state == COMPLETED
    opened = 1 + 2
    assert opened <= len(node.calls["WatchJobs"]) <= 3 * opened  # again where it was not there yet for what was sent


def test_a_restart_of_the_node_is_waited_for(node: SmallNode, client: Client) -> None:
    client.jobs.submit(words(1)).result(GIVE_UP_S)
    node.stop()
    future = client.jobs.submit(words(2))
    node.awaited.clear()
    node.start()
    assert future.result(GIVE_UP_S).result.output == b"2 words\n"


def test_large_results_are_fetched(node: SmallNode, client: Client) -> None:
    run = node._run

    def verbose(job: jobs_pb2.Job) -> None:
        run(job)
        job.result.output = b"x" * 100_000

    node._run = verbose
    assert client.jobs.submit(words(1)).result(GIVE_UP_S).result.output == b"x" * 100_000
    assert len(node.calls["GetJob"]) == 1


def test_more_than_a_stream_may_wait_for_are_not_under_way(
    node: SmallNode, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier_module, "IN_FLIGHT_MAX", 3)
    let_go, run = threading.Event(), node._run

    def slowly(job: jobs_pb2.Job) -> None:
        let_go.wait(GIVE_UP_S)
        run(job)

    node._run = slowly
    futures = [client.jobs.submit(words(1)) for _ in range(3)]
    later = threading.Thread(target=lambda: futures.append(client.jobs.submit(words(4))))
    later.start()
    later.join(0.2)
    assert later.is_alive(), "it waits for room"
    let_go.set()
    later.join(GIVE_UP_S)
    assert [future.result(GIVE_UP_S).state for future in futures] == [COMPLETED] * 4


def test_closing_the_client_ends_what_is_under_way(node: SmallNode) -> None:
    let_go, run = threading.Event(), node._run
    node._run = lambda job: (let_go.wait(GIVE_UP_S), run(job))
    with offgrid.connect(node.address) as client:
        future = client.jobs.submit(words(1))
    with pytest.raises(OffgridError, match="closed"):
        future.result(GIVE_UP_S)
    let_go.set()
