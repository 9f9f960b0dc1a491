"""ExecutorPool: the right executor for each payload, and a clear word when there is none."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from offgrid.v1 import jobs_pb2
from offgrid_node.executors import programs
from offgrid_node.executors.capture import failed
from offgrid_node.executors.cgroups import Groups, Kernel
from offgrid_node.executors.executor import WASM_ISOLATION, Outcome, Work
from offgrid_node.executors.late import LateExecutor
from offgrid_node.executors.pool import ExecutorPool, Offered
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


class Models:
    """A live executor: what it offers is whatever the test says."""

    def __init__(self) -> None:
        self.offers: tuple[str, ...] = ()
        self.problems: tuple[str, ...] = ()
        self.isolation = {"llm": "none"}

    async def run(self, work: Work) -> Outcome:
        return failed("ModelNotFound", "", "models")

    def close(self) -> None:
        pass


def test_what_a_live_executor_offers_comes_and_goes() -> None:
    models = Models()
    pool = ExecutorPool([], live={"llm": models})
    offered = Offered(pool)
    assert (list(offered), "llm:a" in offered, bool(offered)) == ([], False, False)
    models.offers = ("llm:a", "llm:b")
    assert (list(offered), "llm:a" in offered, bool(offered), offered[1:]) == (
        ["llm:a", "llm:b"],
        True,
        True,
        ("llm:b",),
    )


def test_a_live_executor_says_itself_what_it_cannot_run() -> None:
    """A model may be gone between award and start; that is no fault of the job's."""
    pool = ExecutorPool([], live={"llm": Models()})
    payload = jobs_pb2.JobPayload(llm=jobs_pb2.LlmTask(model="gone"), input=b"hi")
    assert asyncio.run(pool.run(Work(payload, 1_000))).error == "ModelNotFound"


def test_a_late_one_says_what_it_will_be_and_is_made_once() -> None:
    made: list[WasmExecutor] = []

    def make() -> WasmExecutor:
        made.append(WasmExecutor(1 << 24, 1))
        return made[-1]

    real, late = WasmExecutor(1 << 24, 1), LateExecutor(("wasm",), WASM_ISOLATION, make)
    pool = ExecutorPool([late])
    assert (pool.offers, pool.isolation, pool.problems, made) == (real.offers, real.isolation, real.problems, [])
    for _ in range(2):
        assert asyncio.run(pool.run(Work(WASM, 10_000))).output.startswith(b"lines 1\nwords 2\n")
    assert len(made) == 1
    pool.close()


def test_a_late_one_that_had_no_job_has_nothing_to_close() -> None:
    LateExecutor(("wasm",), WASM_ISOLATION, lambda: pytest.fail("made")).close()


def test_groups_go_last() -> None:
    """A folder of groups can be removed only once no executor has one of its own."""
    ended: list[str] = []
    one = Models()
    one.close = lambda: ended.append("executor")  # type: ignore[method-assign]
    groups = Groups(Path("/nowhere"), frozenset(), Kernel())
    groups.close = lambda: ended.append("groups")  # type: ignore[method-assign]
    ExecutorPool([], live={"llm": one}, groups=groups).close()
    assert ended == ["executor", "groups"]
