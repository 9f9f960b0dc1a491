"""executors: what modules and programs cost at a host beyond the work itself, as the host calls its executors.

The no-op is the built-in echo through the same pool. A warm module has run before; a cold one is new to the host, with
all that compiling takes. A program is `true`, held by limits, and behind bubblewrap where that works. Functions, models
and clusters have a group of their own (`hosted.py`).
"""

from __future__ import annotations

import asyncio
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from offgrid.v1 import jobs_pb2
from offgrid_node.executors import programs
from offgrid_node.executors.builtin import BuiltinExecutor
from offgrid_node.executors.executor import Work
from offgrid_node.executors.pool import ExecutorPool
from offgrid_node.executors.process import BWRAP, RLIMITS, ProcessExecutor
from offgrid_node.executors.wasm import WasmExecutor
from offgrid_tools.bench.figures import Figure
from offgrid_tools.bench.groups import Plan

WARM, WARM_QUICK = 500, 100
COLD, COLD_QUICK = 40, 10
PROGRAMS, PROGRAMS_QUICK = 60, 15
MEMORY_BYTES = 64 * 1024 * 1024
TIMEOUT_MS = 30_000
MS = 1000.0


def measure(plan: Plan) -> list[Figure]:
    """All figures of the group."""
    return [*_modules(plan), *_programs(plan)]


def _modules(plan: Plan) -> Iterator[Figure]:
    warm, cold = plan.rounds(WARM, WARM_QUICK), plan.rounds(COLD, COLD_QUICK)
    plan.say(f"executors: {warm} warm runs of a module, {cold} of modules that are new")
    executor = WasmExecutor(MEMORY_BYTES, 1)
    pool = ExecutorPool([executor], BuiltinExecutor())
    try:
        echo = jobs_pb2.JobPayload(builtin=jobs_pb2.BuiltinTask(name="echo"), input=b"x")
        noop_ms = _median_ms(lambda: pool.run_at_once(echo), warm)
        source = programs.load("upper")
        # The same work in other modules: a comment more each time, so that none has been compiled before.
        modules = [source + f"\n;; {number}".encode() for number in range(cold + 1)]
        warm_ms = asyncio.run(_medians_ms(pool, [_module(source)] * (warm + 1)))
        cold_ms = asyncio.run(_medians_ms(pool, [_module(module) for module in modules]))
        metered_ms = asyncio.run(_medians_ms(pool, [_module(source, fuel=10**9)] * (warm + 1)))
        filed_ms = asyncio.run(_medians_ms(pool, [_module(source, outputs=("*",))] * (warm + 1)))
    finally:
        pool.close()
    yield Figure("wasm_warm_ms_over_noop", warm_ms - noop_ms, "no-op", noop_ms)
    yield Figure("wasm_cold_ms_over_noop", cold_ms - noop_ms, note="compiled in this process: a module below 8 KiB")
    yield Figure("wasm_warm_with_fuel_ms", metered_ms)
    yield Figure("wasm_warm_with_folder_ms", filed_ms)


def _programs(plan: Plan) -> Iterator[Figure]:
    rounds, true = plan.rounds(PROGRAMS, PROGRAMS_QUICK), Path(shutil.which("true") or "/bin/true")
    plan.say(f"executors: {rounds} runs of a program that does nothing")
    for name, sandbox in (("process_ms", RLIMITS), ("process_bwrap_ms", BWRAP)):
        executor = ProcessExecutor({"true": true}, work_dir=plan.folder / name, sandbox=sandbox)
        if not executor.offers:
            plan.say(f"executors: {executor.problems[-1]}: nothing is measured behind it")
            continue
        payload = jobs_pb2.JobPayload(process=jobs_pb2.ProcessTask(command="true"))
        yield Figure(name, asyncio.run(_medians_ms(ExecutorPool([executor]), [payload] * (rounds + 1))))


def _module(source: bytes, *, fuel: int = 0, outputs: tuple[str, ...] = ()) -> jobs_pb2.JobPayload:
    return jobs_pb2.JobPayload(wasm=jobs_pb2.WasmTask(module=source, fuel=fuel), input=b"x", outputs=outputs)


async def _medians_ms(pool: ExecutorPool, payloads: list[jobs_pb2.JobPayload]) -> float:
    """The middle one of their times, one after the other; the first warms up."""
    times = []
    for payload in payloads:
        began = time.perf_counter()
        outcome = await pool.run(Work(payload, TIMEOUT_MS))
        times.append((time.perf_counter() - began) * MS)
        if outcome.error or outcome.exit_code:
            raise RuntimeError(f"{outcome.error} {outcome.error_detail}, exit code {outcome.exit_code}")
    return statistics.median(times[1:])


def _median_ms(work: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        times.append((time.perf_counter() - began) * MS)
    return statistics.median(times)
