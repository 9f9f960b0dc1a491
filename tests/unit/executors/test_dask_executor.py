"""DaskExecutor on a real local cluster: drivers come and go, and losing the scheduler is no fault of a job's."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any, TypeVar

import pytest

from offgrid import by_value
from offgrid.v1 import jobs_pb2
from offgrid_node.executors import dask as dask_module
from offgrid_node.executors.dask import NOT_INSTALLED, DaskExecutor, fault_of
from offgrid_node.executors.executor import Outcome, Progress, Work
from offgrid_tools.fixtures.processes import DaskCluster

pytest.importorskip("distributed", reason="the extra `dask` is not installed")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="looks at processes as POSIX has them")

T = TypeVar("T")


@pytest.fixture(scope="module")
def cluster() -> Iterator[DaskCluster]:
    with DaskCluster() as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "work"
    assert list((tmp_path / "work").glob("*")) == []


def job(function: Callable[..., Any], *args: Any, timeout_ms: int = 30_000, said: list[Progress] | None = None) -> Work:
    task = jobs_pb2.DaskTask(function=by_value.encode_function(function), python=by_value.PYTHON)
    payload = jobs_pb2.JobPayload(dask=task, input=by_value.encode_call(args))
    return Work(payload, timeout_ms, owner="a", say=said.append if said is not None else lambda _: None)


def with_executor(address: str, folder: Path, story: Callable[[DaskExecutor], Awaitable[T]]) -> T:
    async def run() -> T:
        executor = DaskExecutor(address, folder)
        await executor.look()
        try:
            return await story(executor)
        finally:
            executor.close()

    return asyncio.run(run())


async def eventually(condition: Callable[[], Awaitable[bool]], timeout_s: float = 60) -> bool:
    deadline = time.monotonic() + timeout_s
    while not await condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True


def hang(client: Any) -> None:
    future = client.submit(time.sleep, 30, key="sleeper")
    print("submitted", flush=True)  # noqa: T201
    future.result()


def test_a_function_works_on_the_cluster(cluster: DaskCluster, folder: Path) -> None:
    def squares(client: Any, count: int) -> int:
        return sum(client.gather(client.map(lambda x: x * x, range(count))))

    async def story(executor: DaskExecutor) -> None:
        assert executor.offers == (f"dask:{by_value.PYTHON}",)
        assert executor.problems == ()
        outcome = await executor.run(job(squares, 100))
        assert by_value.decode_result(outcome.output) == 328_350, outcome
        assert outcome.executor.startswith("dask/")

    with_executor(cluster.url, folder, story)


def test_what_it_raises_is_its_own_answer(cluster: DaskCluster, folder: Path) -> None:
    def fail(client: Any) -> None:
        client.submit(lambda: 1 / 0).result()

    async def story(executor: DaskExecutor) -> None:
        outcome = await executor.run(job(fail))
        assert (outcome.error, outcome.exit_code) == ("", 1)
        assert type(by_value.decode_failure(outcome.output)) is ZeroDivisionError

    with_executor(cluster.url, folder, story)


def test_cancelling_kills_the_driver_and_the_scheduler_lets_go(cluster: DaskCluster, folder: Path) -> None:
    async def story(executor: DaskExecutor) -> None:
        said: list[Progress] = []
        task = asyncio.create_task(executor.run(job(hang, said=said)))

        async def submitted() -> bool:
            return any(b"submitted" in progress.log for progress in said)

        assert await eventually(submitted)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        async def forgotten() -> bool:
            outcome = await executor.run(job(lambda client: "sleeper" in client.run_on_scheduler(known)))
            return by_value.decode_result(outcome.output) is False

        assert await eventually(forgotten)

    with_executor(cluster.url, folder, story)


def known(dask_scheduler: Any) -> list[str]:
    return [str(key) for key in dask_scheduler.tasks]


def test_the_time_limit_kills_the_driver(cluster: DaskCluster, folder: Path) -> None:
    async def story(executor: DaskExecutor) -> None:
        assert (await executor.run(job(hang, timeout_ms=1_500))).error == "JobTimeout"

    with_executor(cluster.url, folder, story)


@pytest.mark.parametrize("how", ["stop", "freeze"])
def test_a_scheduler_that_is_lost_while_a_job_runs_is_no_fault_of_the_jobs(
    folder: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_module, "LOOK_S", 0.1)
    monkeypatch.setattr(dask_module, "ANSWER_TIMEOUT_S", 0.5)

    async def story(executor: DaskExecutor) -> Outcome:
        executor.watch()
        said: list[Progress] = []
        task = asyncio.create_task(executor.run(job(hang, said=said)))

        async def submitted() -> bool:
            return any(b"submitted" in progress.log for progress in said)

        assert await eventually(submitted)
        getattr(own, how)()
        outcome = await task
        assert executor.offers == ()
        return outcome

    with DaskCluster() as own:
        outcome = with_executor(own.url, folder, story)
    assert outcome.error == "ClusterLost", outcome
    assert "scheduler" in outcome.error_detail


def test_another_scheduler_at_the_same_place_is_another_scheduler(folder: Path) -> None:
    """The client connects to it by itself, but what was asked of the first one is gone: no fault of the job's."""

    async def story(executor: DaskExecutor) -> Outcome:
        said: list[Progress] = []
        task = asyncio.create_task(executor.run(job(hang, said=said)))

        async def submitted() -> bool:
            return any(b"submitted" in progress.log for progress in said)

        assert await eventually(submitted)
        await asyncio.to_thread(own.stop)
        with DaskCluster(own.port):
            return await task

    with DaskCluster() as own:
        outcome = with_executor(own.url, folder, story)
    assert outcome.error == "ClusterLost", outcome


def test_it_is_offered_again_when_the_scheduler_is_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_module, "LOOK_S", 0.05)

    async def story(executor: DaskExecutor) -> None:
        changes: list[int] = []
        executor._on_change = lambda: changes.append(len(executor.offers))
        executor.watch()
        await asyncio.to_thread(own.stop)

        async def gone() -> bool:
            return not executor.offers

        async def back() -> bool:
            return bool(executor.offers)

        assert await eventually(gone)
        assert (await executor.run(job(hang))).error == "ClusterLost"
        with DaskCluster(own.port):
            assert await eventually(back)
        assert changes[:2] == [0, 1]

    with DaskCluster() as own:
        with_executor(own.url, folder, story)


def test_without_the_package_it_says_so_and_offers_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(dask_module, "version", nowhere)

    async def story(executor: DaskExecutor) -> None:
        assert executor.offers == ()
        assert executor.problems == (f"dask: {NOT_INSTALLED}",)
        assert (await executor.run(job(hang))).error == "ClusterLost"

    with_executor("tcp://127.0.0.1:1", folder, story)


def test_a_port_that_says_nothing_is_no_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_module, "ANSWER_TIMEOUT_S", 0.1)

    async def run() -> None:
        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            assert "nothing within" in await fault_of(f"tcp://127.0.0.1:{port}")
        assert await fault_of(f"tcp://127.0.0.1:{port}") != ""

    asyncio.run(run())
