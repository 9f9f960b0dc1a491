"""`@offgrid.job`, `client.submit` and `client.map`: functions as jobs, their values, failures and cancellation."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from small_node import SmallNode
from small_objects import ObjectNode

import offgrid
from offgrid.by_value import decode_call, decode_function, encode_failure, encode_result
from offgrid.client import Client, payloads
from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.errors import FailedPrecondition, OutcomeUnknown

COMPLETED, FAILED, CANCELLED = jobs_pb2.JOB_STATE_COMPLETED, jobs_pb2.JOB_STATE_FAILED, jobs_pb2.JOB_STATE_CANCELLED


@offgrid.job(priority=7, timeout_s=2.5)
def double(number: int, *, plus: int = 0) -> int:
    """Twice as much."""
    return 2 * number + plus


@offgrid.job
async def later(number: int) -> int:
    await asyncio.sleep(0)
    return number + 1


@offgrid.job
def broken(key: str) -> str:
    return {"a": "b"}[key]


class Pair:
    def __init__(self, left: int) -> None:
        self.left = left


@pytest.fixture
def client(node: SmallNode) -> Iterator[Client]:
    """Of a node that calls what it is sent, in this very process."""
    run = node._run

    def call(job: jobs_pb2.Job) -> None:
        run(job)
        payload = node.payloads[job.job_id]
        if not payload.HasField("python"):
            return
        function, (args, kwargs) = decode_function(payload.python.function), decode_call(payload.input)
        try:
            value = function(*args, **kwargs)
            if asyncio.iscoroutine(value):
                value = asyncio.run(value)
            job.result.output = encode_result(value)
        except Exception as error:  # noqa: BLE001 - whatever it raises
            job.state, job.error, job.result.output = FAILED, "ExecutionFailed", encode_failure(error)

    node._run = call
    with offgrid.connect(node.address) as connected:
        yield connected


def sent(node: SmallNode) -> list[jobs_pb2.JobSpec]:
    return [spec for call in node.calls["RunJobs"] for spec in call.jobs]


class Gate:
    """Keeps the node's jobs from ending."""

    def __init__(self, node: SmallNode) -> None:
        self._open, run = threading.Event(), node._run

        def wait(job: jobs_pb2.Job) -> None:
            self._open.wait(10)
            if job.state == jobs_pb2.JOB_STATE_RUNNING:
                run(job)

        node._run = wait

    def open(self) -> None:
        self._open.set()


# ---- importing


def test_decorating_loads_neither_the_wire_nor_pickling() -> None:
    """So that programs which only may submit start as fast as those that never do."""
    heavy = "grpc", "google.protobuf", "cloudpickle", "asyncio", "offgrid.client"
    code = f"import offgrid, sys; offgrid.job(timeout_s=1)(len); print([m for m in {heavy} if m in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "[]\n"
    for name in offgrid.__all__:
        assert getattr(offgrid, name) is not None


# ---- calling


def test_a_job_function_is_the_function_here() -> None:
    assert double(3) == 6
    assert asyncio.run(later(3)) == 4
    assert (double.__name__, double.__doc__) == ("double", "Twice as much.")


def test_submitted_it_is_a_job_with_the_decorators_options(node: SmallNode, client: Client) -> None:
    assert double.submit(client, 3, plus=1).result(5) == 7
    [spec] = sent(node)
    assert (spec.priority, spec.timeout_ms, spec.payload.python.name) == (7, 2500, "test_client_functions.double")


def test_so_is_an_async_one_and_a_plain_one_and_a_partial(client: Client) -> None:
    assert later.submit(client, 3).result(5) == 4
    assert client.submit(max, 3, 9, 4).result(5) == 9
    assert client.submit(functools.partial(double, plus=5), 1).result(5) == 7


def test_options_of_the_call_stand_before_those_of_the_decorator(node: SmallNode, client: Client) -> None:
    client.submit(double, 1, priority=-3).result(5)
    double.with_options(replicas=3, quorum=2).submit(client, 1).result(5)
    assert [(s.priority, s.replicas, s.quorum, s.timeout_ms) for s in sent(node)] == [(-3, 0, 0, 2500), (7, 3, 2, 2500)]


def test_bytes_come_as_they_are_and_more_than_plain_data_only_when_trusted(client: Client) -> None:
    assert client.submit(bytes, 3).result(5) == b"\0\0\0"
    with pytest.raises(offgrid.Untrusted, match="more than plain data"):
        client.submit(Pair, 3).result(5)
    assert client.submit(Pair, 3, trusted=True).result(5).left == 3


def test_what_a_function_raised_is_raised_here_with_its_traceback(client: Client) -> None:
    future = broken.submit(client, "x")
    with pytest.raises(KeyError, match="x") as raised:
        future.result(5)
    assert 'return {"a": "b"}[key]' in str(raised.value.__cause__)
    assert future.job_id in raised.value.__notes__[0]
    assert isinstance(future.exception(), KeyError)
    assert future.job().error == "ExecutionFailed"


def test_a_payload_gives_the_job_and_fails_with_all_that_is_known(client: Client) -> None:
    assert client.submit(payloads.command("wc", input=b"a b")).result(5).result.output == b"2 words\n"
    spec = jobs_pb2.JobSpec(payload=payloads.command("false"), priority=4)
    with pytest.raises(offgrid.JobFailed) as failed:
        client.submit(spec).result(5)
    assert (failed.value.error, failed.value.detail) == ("ExecutionFailed", "exit code 1")
    assert failed.value.job.job_id in str(failed.value)
    again = pickle.loads(pickle.dumps(failed.value))  # noqa: S301
    assert (str(again), again.job) == (str(failed.value), failed.value.job)


def test_what_is_no_work_is_refused_at_once(client: Client) -> None:
    with pytest.raises(TypeError, match="neither a function"):
        client.submit("wc")
    with pytest.raises(TypeError, match="only functions"):
        client.submit(payloads.builtin(), 1)
    with pytest.raises(TypeError, match="prio: no such option"):
        client.submit(double, 1, prio=3)
    with pytest.raises(ValueError, match="python and dask"):
        client.submit(double, 1, executor="ray")
    with pytest.raises(ValueError, match="time zone"):
        client.submit(double, 1, deadline=datetime(2030, 1, 1))  # noqa: DTZ001


def test_a_nodes_refusal_is_raised(node: SmallNode, client: Client) -> None:
    node.stumble("RunJobs", FailedPrecondition("this node is no core", reason="NotACore"))
    future = double.submit(client, 1)
    with pytest.raises(offgrid.OffgridError, match="no core"):
        future.result(5)
    with pytest.raises(offgrid.OffgridError, match="no core"):
        future.wait_sent(5)


# ---- options


def test_every_option_reaches_the_wire(tmp_path: Path) -> None:
    node = ObjectNode()
    try:
        with offgrid.connect(node.address) as client:
            check_every_option(node, client, tmp_path)
    finally:
        node.close()


def check_every_option(node: ObjectNode, client: Client, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"data")
    first = client.submit(payloads.builtin())
    deadline = datetime(2100, 1, 1, tzinfo=UTC)
    client.submit(
        payloads.builtin(), requirements="cpus > 1", priority=3, deadline=deadline, after=[first, "j-x"], replicas=3,
        quorum=2, adaptive=True, price_max_micro=5, losses_max=6, timeout_ms=7, size_tokens=8, outputs=["*.txt"],
        files={"a": tmp_path / "data", "b": b"more", "c": "o-known"}, mode="auto",
    ).result(5)  # fmt: skip
    spec = sent(node)[1]
    assert (spec.requirements, spec.priority, spec.deadline_us) == ("cpus > 1", 3, 4_102_444_800_000_000)
    assert list(spec.after) == [first.job_id, "j-x"]
    assert (spec.replicas, spec.quorum, spec.adaptive, spec.price_max_micro) == (3, 2, True, 5)
    assert (spec.losses_max, spec.timeout_ms, spec.size_tokens, list(spec.payload.outputs)) == (6, 7, 8, ["*.txt"])
    files = {file.name: file.object_id for file in spec.payload.files}
    assert files["c"] == "o-known"
    assert [client.objects.read(files[name]) for name in "ab"] == [b"data", b"more"]
    assert node.calls["RunJobs"][1].mode == jobs_pb2.DISPATCH_MODE_AUTO


def test_a_deadline_may_be_so_long_from_now(node: SmallNode, client: Client) -> None:
    before = datetime.now(UTC).timestamp()
    double.with_options(deadline=timedelta(hours=1)).submit(client, 1).result(5)
    assert 3_590 < sent(node)[0].deadline_us / 1e6 - before < 3_610


def test_a_conversation_joins_a_task_of_its_kind(node: SmallNode, client: Client) -> None:
    client.submit(jobs_pb2.JobPayload(llm=jobs_pb2.LlmTask(model="m"))).result(5)
    double.submit(client, 1).result(5)
    assert sorted(task.kind for task in node.tasks.values()) == ["compute", "llm_call"]
    assert len(node.missions) == 1


def test_another_jobs_output_may_be_the_input(node: SmallNode, client: Client) -> None:
    first = client.submit(payloads.builtin())
    client.submit(payloads.command("wc"), input_from=first, after=["j-x", first]).result(5)
    spec = sent(node)[1]
    assert (spec.payload.input_job, list(spec.after)) == (first.job_id, ["j-x", first.job_id])


# ---- many


def test_map_keeps_the_order_and_ends_with_the_shortest(client: Client) -> None:
    assert list(client.map(pow, range(50), [2] * 40, in_flight=7)) == [number**2 for number in range(40)]
    assert list(double.map(client, range(3))) == [0, 2, 4]


def test_a_map_that_nobody_wants_more_of_gives_up_what_is_under_way(node: SmallNode, client: Client) -> None:
    results = client.map(double, range(20), in_flight=5)
    assert next(results) == 0
    gate = Gate(node)
    results.close()
    gate.open()
    client.close()
    told = {job_id for call in node.calls["CancelJobs"] for job_id in call.job_ids}
    assert told <= set(node.jobs)
    assert len(sent(node)) < 20


def test_as_completed_and_wait_take_them(client: Client) -> None:
    futures = [double.submit(client, number) for number in range(20)]
    assert {future.result() for future in offgrid.as_completed(futures, timeout=10)} == set(range(0, 40, 2))
    assert not concurrent.futures.wait(futures, 5).not_done


# ---- progress


def test_a_future_tells_what_its_job_says_until_it_ends(node: SmallNode, client: Client) -> None:
    gate = Gate(node)
    node.progress = [
        jobs_pb2.JobProgress(attempt=1, fraction=0.5, message="half"),
        jobs_pb2.JobProgress(attempt=1, log=b"x"),
    ]
    future = double.submit(client, 1)
    said = future.progress()
    assert [(each.fraction, each.message, each.log) for each in (next(said), next(said))] == [
        (0.5, "half", b""),
        (0.0, "", b"x"),
    ]
    gate.open()
    assert list(said) == []
    assert future.result(5) == 2


# ---- cancelling


def test_cancelling_takes_the_job_back(node: SmallNode, client: Client) -> None:
    gate = Gate(node)
    future = double.submit(client, 1)
    job_id = future.wait_sent(5)
    assert future.cancel()
    assert future.cancelled()
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(5)
    while not node.calls["CancelJobs"] or node.jobs[job_id].state != CANCELLED:
        threading.Event().wait(0.01)
    assert list(node.calls["CancelJobs"][0].job_ids) == [job_id]
    gate.open()
    assert double.submit(client, 4).result(5) == 8


def test_what_was_not_sent_yet_never_is(node: SmallNode, client: Client) -> None:
    double.submit(client, 0).result(5)
    entered, let_go, run_jobs = threading.Event(), threading.Event(), node.on_RunJobs

    def slowly(request: jobs_pb2.RunJobsRequest) -> jobs_pb2.RunJobsResponse:
        entered.set()
        let_go.wait(5)
        return run_jobs(request)

    node.on_RunJobs = slowly
    first = double.submit(client, 1)
    entered.wait(5)
    waiting = double.submit(client, 2)
    assert waiting.cancel()
    assert first.cancel(), "its call is under way: it is taken back once its id is known"
    with pytest.raises(concurrent.futures.CancelledError):
        waiting.wait_sent(5)
    let_go.set()
    assert double.submit(client, 3).result(5) == 6
    client.close()
    assert [list(call.job_ids) for call in node.calls["CancelJobs"]] == [[first.job_id]]
    assert len(sent(node)) == 3


def test_a_lost_cancellation_is_said_again(node: SmallNode, client: Client) -> None:
    gate = Gate(node)
    future = double.submit(client, 1)
    future.wait_sent(5)
    node.stumble("CancelJobs", *[OutcomeUnknown("lost")] * 5)
    future.cancel()
    while node.jobs[future.job_id].state != CANCELLED:
        threading.Event().wait(0.01)
    gate.open()


def test_an_ended_job_cannot_be_cancelled(node: SmallNode, client: Client) -> None:
    future = double.submit(client, 1)
    assert future.result(5) == 2
    assert not future.cancel()
    client.close()
    assert not node.calls["CancelJobs"]


def test_jobs_are_cancelled_by_the_hundred_and_by_task(node: SmallNode, client: Client) -> None:
    task_id = client.tasks.create(client.missions.create("m").mission_id, "t").task_id
    ids = [client.jobs.create(task_id, payloads.builtin()).job_id for _ in range(3)]
    assert client.jobs.cancel(ids[:1], reason="no more") == ids[:1]
    assert client.jobs.cancel(ids[:1]) == []
    assert client.jobs.cancel(task_id=task_id) == ids[1:]
    client.jobs.cancel([f"j-{number}" for number in range(600)])
    assert [len(call.job_ids) for call in node.calls["CancelJobs"]] == [1, 1, 0, 256, 256, 88]


# ---- asyncio


def test_futures_are_awaited(client: Client) -> None:
    async def main() -> list[int]:
        futures = [double.submit(client, number) for number in range(3)]
        return [*await asyncio.gather(*futures), await later.submit(client, 10)]

    assert asyncio.run(main()) == [0, 2, 4, 11]


def test_failures_are_raised_where_they_are_awaited(client: Client) -> None:
    async def main() -> None:
        with pytest.raises(KeyError):
            await broken.submit(client, "x")
        with pytest.raises(offgrid.JobFailed):
            await client.aio.run(payloads.command("false"))

    asyncio.run(main())


def test_a_cancelled_await_gives_the_job_up(node: SmallNode, client: Client) -> None:
    gate = Gate(node)

    async def main() -> None:
        future = await client.aio.submit(double, 1)
        future.wait_sent(5)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(future, 0.05)
        assert future.cancelled()
        with pytest.raises(asyncio.CancelledError):
            await future

    asyncio.run(main())
    client.close()
    gate.open()
    assert len(node.calls["CancelJobs"]) == 1


def test_the_client_in_asyncio(node: SmallNode) -> None:
    async def main() -> None:
        async with offgrid.connect(node.address) as client:
            words = payloads.command("wc", input=b"a b c")
            job = await client.aio.run(words)
            assert job.result.output == b"3 words\n"
            assert (await client.aio.call(client.jobs.get, job.job_id)).job_id == job.job_id
            states = [seen.state async for seen in client.aio.stream(client.jobs.watch, job.job_id)]
            assert states == [COMPLETED]

    asyncio.run(main())


def test_an_async_map(client: Client) -> None:
    async def main() -> list[int]:
        return [value async for value in client.aio.map(double, range(20), in_flight=6)]

    assert asyncio.run(main()) == [2 * number for number in range(20)]
