"""Executions under way: their ends are delivered, and those killed with the node end without a word."""

from __future__ import annotations

import asyncio

from offgrid.v1 import jobs_pb2
from offgrid_node.executors.executor import Outcome, OutputFile, Progress, Usage, Work
from offgrid_node.executors.running import Running, executed
from offgrid_node.protocol.effects import Execute, Executed, Stop
from offgrid_node.protocol.jobs.orders import ClaimKey

WORK = Execute("core", "job", 1, jobs_pb2.JobPayload(), 1_000)
KEY = ("core", "job", 1)


class Gate:
    """An executor whose work ends when the test says so."""

    offers = ("wasm",)

    def __init__(self) -> None:
        self.opened, self.closed = asyncio.Event(), False

    def run_at_once(self, payload: jobs_pb2.JobPayload) -> Outcome | None:
        return None

    async def run(self, work: Work) -> Outcome:
        await self.opened.wait()
        return Outcome(b"out", b"", 0, "", "", "gate/1")

    def close(self) -> None:
        self.closed = True


def test_the_end_of_an_execution_is_delivered_once() -> None:
    async def run() -> None:
        ends: list[Executed] = []
        ended = asyncio.Event()

        def deliver(end: Executed) -> None:
            ends.append(end)
            ended.set()

        gate = Gate()
        running = Running(gate, deliver)
        running.start(WORK)
        assert ends == []
        gate.opened.set()
        await ended.wait()
        assert [(end.core, end.job_id, end.attempt, end.output) for end in ends] == [(*KEY, b"out")]
        await running.close()
        assert gate.closed

    asyncio.run(asyncio.wait_for(run(), 60))


def test_what_an_executor_says_of_a_failure_fits_into_a_report() -> None:
    """The words may be a stranger's: JSON holds half a surrogate pair, protobuf does not."""
    outcome = Outcome(b"", b"", -1, "ClusterLost", "it said \ud800", "dask")
    assert jobs_pb2.AttemptReport(error_detail=executed(WORK, outcome, 1).error_detail).error_detail == "it said ?"


def test_what_is_killed_with_the_node_is_not_delivered() -> None:
    async def run() -> None:
        ends: list[Executed] = []
        running = Running(Gate(), ends.append)
        running.start(WORK)
        await asyncio.sleep(0)
        await running.close()
        assert ends == []

    asyncio.run(asyncio.wait_for(run(), 60))


def test_what_is_stopped_ends_as_cancelled_once() -> None:
    """Whether it has begun or has not come to its first step yet."""

    async def run(head_start: bool) -> list[str]:
        ends: list[Executed] = []
        running = Running(Gate(), ends.append)
        running.start(WORK)
        if head_start:
            await asyncio.sleep(0)
        running.stop(Stop(*KEY))
        running.stop(Stop(*KEY))
        for _ in range(3):
            await asyncio.sleep(0)
        running.stop(Stop(*KEY))
        await running.close()
        return [end.error for end in ends]

    for head_start in (True, False):
        assert asyncio.run(asyncio.wait_for(run(head_start), 60)) == ["Cancelled"]


def test_what_is_stopped_after_its_end_has_ended_well() -> None:
    async def run() -> None:
        ends: list[Executed] = []
        gate = Gate()
        running = Running(gate, ends.append)
        gate.opened.set()
        running.start(WORK)
        for _ in range(3):
            await asyncio.sleep(0)
        running.stop(Stop(*KEY))
        await running.close()
        assert [end.error for end in ends] == [""]

    asyncio.run(asyncio.wait_for(run(), 60))


def test_what_work_says_is_told_with_its_key() -> None:
    class Talker(Gate):
        async def run(self, work: Work) -> Outcome:
            work.say(Progress(0.5, "half"))
            return Outcome(b"", b"", 0, "", "", "talker/1", Usage(7, 8, 9), (OutputFile("a", b"bc"),))

    async def run() -> None:
        ends: list[Executed] = []
        said: list[tuple[ClaimKey, Progress]] = []
        running = Running(Talker(), ends.append, lambda key, progress: said.append((key, progress)))
        running.start(WORK)
        await asyncio.sleep(0.01)
        [end] = ends
        assert said == [(KEY, Progress(0.5, "half"))]
        assert (end.cpu_us, end.memory_peak_bytes, end.used_tokens, end.output_bytes) == (7, 8, 9, 2)
        assert end.files == (("a", b"bc"),)

    asyncio.run(asyncio.wait_for(run(), 60))
