"""upper: the shipped program answers as `bytes.upper` does, byte for byte."""

from __future__ import annotations

import asyncio

from hypothesis import example, given
from hypothesis import strategies as st

from offgrid.v1 import jobs_pb2
from offgrid_node.executors import programs
from offgrid_node.executors.executor import Work
from offgrid_node.executors.wasm import WasmExecutor

EXECUTOR = WasmExecutor(64 * 1024 * 1024, 4)
PAGE = 65_536


@given(st.binary(max_size=400))
@example(bytes(range(256)))
@example(b"")
@example(b"z" * PAGE + b"a")
@example(b"`az{" * (3 * PAGE))
def test_it_makes_capitals_of_ascii_and_leaves_all_else(data: bytes) -> None:
    task = jobs_pb2.WasmTask(module=programs.load("upper"))
    outcome = asyncio.run(EXECUTOR.run(Work(jobs_pb2.JobPayload(wasm=task, input=data), 30_000)))
    assert (outcome.error, outcome.exit_code, outcome.log) == ("", 0, b"")
    assert outcome.output == data.upper()
