"""hosted: what functions, models and clusters take at a host, beside the same work done without us.

The executors alone, as a host calls them: no mesh, nothing written. Python beside concurrent.futures' process pool, a
model's answer beside the bare HTTP request to the same fixture, a cluster beside a client that stays connected.
"""

from __future__ import annotations

import asyncio
import http.client
import importlib.util
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from offgrid import by_value
from offgrid.v1 import jobs_pb2
from offgrid_node.executors import sandbox as sandboxes
from offgrid_node.executors.dask import DaskExecutor
from offgrid_node.executors.executor import Executor, Work
from offgrid_node.executors.llm import LlmExecutor
from offgrid_node.executors.python import PythonExecutor
from offgrid_tools.bench.figures import Figure
from offgrid_tools.bench.groups import Plan
from offgrid_tools.fixtures.processes import DaskCluster, OpenAiServer

WARM, WARM_QUICK = 500, 100
COLD, COLD_QUICK = 15, 5
DRIVERS, DRIVERS_QUICK = 7, 3
TIMEOUT_MS = 30_000
MS = 1000.0


def measure(plan: Plan) -> list[Figure]:
    """All figures of the group."""
    figures = [*_python(plan), *_llm(plan)]
    if importlib.util.find_spec("distributed") is not None:
        figures += _dask(plan)
    return figures


def nothing() -> None:
    """What is called."""


def nothing_on(client: Any) -> None:
    """The same with a cluster."""


def _python(plan: Plan) -> Iterator[Figure]:
    warm, cold = plan.rounds(WARM, WARM_QUICK), plan.rounds(COLD, COLD_QUICK)
    plan.say(f"hosted: {warm} calls of a function in a warm process, {cold} in a fresh one")
    pool_ms = _pool_ms(warm)
    missing = sandboxes.find()[1]
    for name, sandbox in (("python", "rlimits"), ("python_bwrap", "bwrap")):
        if sandbox == "bwrap" and missing:
            plan.say(f"hosted: {missing}, so nothing is measured behind it")
            continue
        warm_ms, cold_ms = asyncio.run(_called(plan.folder / name, sandbox, warm, cold))
        yield Figure(f"{name}_warm_ms", warm_ms, "ProcessPoolExecutor", pool_ms)
        yield Figure(f"{name}_cold_ms", cold_ms, note="a fresh process for an owner who has none")


async def _called(folder: Path, sandbox: str, warm: int, cold: int) -> tuple[float, float]:
    executor = PythonExecutor(folder, sandbox=sandbox)
    task = jobs_pb2.PythonTask(function=by_value.encode_function(nothing), python=by_value.PYTHON)
    payload = jobs_pb2.JobPayload(python=task)
    try:
        warm_ms = await _median_ms(executor, [Work(payload, TIMEOUT_MS, owner="one")] * (warm + 1))
        others = [Work(payload, TIMEOUT_MS, owner=f"other {number}") for number in range(cold + 1)]
        return warm_ms, await _median_ms(executor, others)
    finally:
        executor.close()


def _pool_ms(rounds: int) -> float:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return _median_of(rounds, lambda: pool.submit(nothing).result())


def _llm(plan: Plan) -> Iterator[Figure]:
    rounds = plan.rounds(WARM, WARM_QUICK)
    plan.say(f"hosted: {rounds} answers of a model that takes no time")
    with OpenAiServer(["echo"]) as server:
        yield Figure(
            "llm_answer_ms",
            asyncio.run(_answered(server.url, rounds)),
            "the bare request",
            _median_of(rounds, lambda: _bare(server.port)),
        )


async def _answered(url: str, rounds: int) -> float:
    executor = LlmExecutor(url)
    await executor.look()
    payload = jobs_pb2.JobPayload(llm=jobs_pb2.LlmTask(model="echo"), input=b"a b c")
    return await _median_ms(executor, [Work(payload, TIMEOUT_MS)] * (rounds + 1))


def _bare(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    body = {"model": "echo", "messages": [{"role": "user", "content": "a b c"}], "stream": True}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    connection.getresponse().read()
    connection.close()


def _dask(plan: Plan) -> Iterator[Figure]:
    rounds = plan.rounds(DRIVERS, DRIVERS_QUICK)
    plan.say(f"hosted: {rounds} calls with a cluster, each in a driver of its own")
    with DaskCluster() as cluster:
        yield Figure("dask_call_ms", asyncio.run(_driven(cluster.url, plan.folder / "dask", rounds)))


async def _driven(url: str, folder: Path, rounds: int) -> float:
    executor = DaskExecutor(url, folder, count=2)
    await executor.look()
    task = jobs_pb2.DaskTask(function=by_value.encode_function(nothing_on), python=by_value.PYTHON)
    try:
        return await _median_ms(executor, [Work(jobs_pb2.JobPayload(dask=task), TIMEOUT_MS)] * (rounds + 1))
    finally:
        executor.close()


async def _median_ms(executor: Executor, works: Sequence[Work]) -> float:
    """Of one after another; the first one warms up."""
    times = []
    for work in works:
        began = time.perf_counter()
        outcome = await executor.run(work)
        times.append(time.perf_counter() - began)
        if outcome.error or outcome.exit_code:
            raise RuntimeError(f"{outcome.error} {outcome.error_detail} {outcome.log.decode(errors='replace')}")
    return MS * statistics.median(times[1:])


def _median_of(rounds: int, work: Callable[[], object]) -> float:
    work()
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return MS * statistics.median(times)
