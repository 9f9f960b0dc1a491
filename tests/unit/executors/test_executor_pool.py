"""ExecutorPool: the right executor for each payload, and a clear word when there is none."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from offgrid.v1 import jobs_pb2
from offgrid_node.executors import programs
from offgrid_node.executors.executor import Work
from offgrid_node.executors.pool import ExecutorPool
from offgrid_node.executors.process import ProcessExecutor
from offgrid_node.executors.wasm import WasmExecutor

WASM = jobs_pb2.JobPayload(wasm=jobs_pb2.WasmTask(module=programs.load("textstats")), input=b"a b\n")
PROCESS = jobs_pb2.JobPayload(process=jobs_pb2.ProcessTask(command="python", args=["-I", "-c", "print(2 + 2)"]))


def make_pool() -> ExecutorPool:
    return ExecutorPool([WasmExecutor(1 << 24, 1), ProcessExecutor({"python": Path(sys.executable)})])


def test_it_offers_what_its_executors_offer() -> None:
    assert make_pool().offers == ("wasm", "process:python")


def test_each_payload_finds_its_executor() -> None:
    pool = make_pool()
    assert asyncio.run(pool.run(Work(WASM, 10_000))).output.startswith(b"lines 1\nwords 2\n")
    assert asyncio.run(pool.run(Work(PROCESS, 10_000))).output.split() == [b"4"]


@pytest.mark.parametrize(
    "payload",
    [jobs_pb2.JobPayload(), jobs_pb2.JobPayload(process=jobs_pb2.ProcessTask(command="rm")), WASM],
)
def test_a_payload_that_none_can_run_is_an_outcome(payload: jobs_pb2.JobPayload) -> None:
    pool = ExecutorPool([ProcessExecutor({"python": Path(sys.executable)})])
    outcome = asyncio.run(pool.run(Work(payload, 1000)))
    assert outcome.error == "ExecutionFailed"
    assert outcome.error_detail


def test_two_executors_cannot_offer_the_same() -> None:
    with pytest.raises(ValueError, match="'wasm'"):
        ExecutorPool([WasmExecutor(1 << 24, 1), WasmExecutor(1 << 24, 1)])
