"""Payloads that kill hosts: after a named number of hosts, over all jobs of a core, they are sent out no more."""

from __future__ import annotations

import pytest
from job_bench import WORKER, Bench, CoreBench, award

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.jobs import poison
from offgrid_node.protocol.jobs.commands import Arriving
from offgrid_node.protocol.jobs.poison import BARRED, BARRED_US, SUSPECTS_MAX, TOGETHER_MS, Poison
from offgrid_node.protocol.jobs.table import FAILED, QUEUED
from offgrid_node.protocol.jobs.terms import LOSSES_MAX

DIED = "HostDied: its host was seen dead"


class PoisonBench(Bench):
    def __init__(self) -> None:
        super().__init__(WORKER)
        self.poison = Poison(self.post)

    def lose(self, digest: bytes = b"a", times: int = 1, *, allowed: int = 0, outcome: str = DIED) -> None:
        for _ in range(times):
            self.now_ms += TOGETHER_MS
            self.poison.on_lost(digest, outcome, allowed, self.now)
        self.settle()

    def refusal(self, digest: bytes = b"a") -> str:
        found = self.poison.refusal(digest, self.now)
        self.settle()
        return found


@pytest.fixture
def bench() -> PoisonBench:
    return PoisonBench()


def test_a_payload_is_barred_when_it_has_lost_one_host_too_many(bench: PoisonBench) -> None:
    bench.lose(times=LOSSES_MAX)
    assert bench.refusal() == ""
    bench.lose()
    assert "hosts go down under this very payload" in bench.refusal()
    assert bench.refusal(b"b") == ""


def test_for_an_hour_and_over_a_restart(bench: PoisonBench) -> None:
    bench.lose(times=LOSSES_MAX + 1)
    bench.poison = Poison(bench.post)
    bench.poison.load(bench.disk)
    assert bench.refusal()
    bench.now_ms += BARRED_US // 1_000
    assert bench.refusal() == ""
    assert list(bench.disk.scan(BARRED)) == []
    bench.lose()
    assert bench.refusal() == "", "it begins anew"


def test_hosts_that_are_lost_together_are_one(bench: PoisonBench) -> None:
    for _ in range(5 * LOSSES_MAX):
        bench.poison.on_lost(b"a", DIED, 0, bench.now)
    assert bench.refusal() == ""


def test_a_result_clears_it(bench: PoisonBench) -> None:
    for _ in range(3):
        bench.lose(times=LOSSES_MAX)
        bench.poison.on_result(b"a")
    assert bench.refusal() == ""


def test_its_job_s_owner_may_allow_for_more(bench: PoisonBench) -> None:
    bench.lose(times=30, allowed=30)
    assert bench.refusal() == ""
    bench.lose(allowed=30)
    assert bench.refusal()


@pytest.mark.parametrize("outcome", ["Unreachable: x", "ExecutorBroken: x", "Implausible: x", "OutputLost: x"])
def test_what_kills_no_host_does_not_count(bench: PoisonBench, outcome: str) -> None:
    bench.lose(times=100, outcome=outcome)
    assert bench.refusal() == ""


def test_so_many_are_remembered(bench: PoisonBench, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(SUSPECTS_MAX + 10):
        bench.lose(b"%d" % number)
    assert len(bench.poison._losses) == SUSPECTS_MAX
    monkeypatch.setattr(poison, "SUSPECTS_MAX", 3)
    for number in range(5):
        bench.lose(b"bad %d" % number, LOSSES_MAX + 1)
    assert len(bench.poison._barred) == len(list(bench.disk.scan(BARRED))) == 3
    assert bench.refusal(b"bad 4")
    assert not bench.refusal(b"bad 0")


class TestACore:
    def die(self, bench: CoreBench, job_id: str) -> jobs_pb2.Job:
        bench.up(WORKER)
        bench.clears(award(job_id, attempt=bench.job(job_id).attempt))
        bench.down(WORKER)
        bench.now_ms += TOGETHER_MS
        return bench.job(job_id)

    def test_stops_the_next_job_with_a_payload_that_took_its_hosts(self) -> None:
        bench = CoreBench()
        first = bench.submitted()
        for _ in range(LOSSES_MAX + 1):
            assert bench.job(first).state == QUEUED
            self.die(bench, first)
        assert (bench.job(first).state, bench.job(first).error) == (FAILED, "AttemptsExhausted")
        asked = len(bench.calls("SubmitJobs"))
        second, other = bench.submitted(), bench.submitted(input_bytes=2)
        bench.wait(0)
        assert (bench.job(second).state, bench.job(second).error) == (FAILED, "AttemptsExhausted")
        assert bench.job(other).state == QUEUED
        assert len(bench.calls("SubmitJobs")) == asked + 1
        bench.restart()
        third = bench.submitted()
        bench.wait(0)
        assert bench.job(third).state == FAILED

    def test_does_not_count_hosts_that_had_done_the_work(self) -> None:
        bench = CoreBench()
        first = bench.submitted()
        for attempt in range(1, LOSSES_MAX + 2):
            bench.up(WORKER)
            bench.clears(award(first, attempt=attempt))
            arriving = Arriving(WORKER.node_id, (first, attempt), 10)
            bench.core.reports.on_arriving(arriving, bench.now)
            bench.down(WORKER)
            bench.now_ms += TOGETHER_MS
        assert bench.job(first).state == FAILED
        second = bench.submitted()
        bench.wait(0)
        assert bench.job(second).state == QUEUED

    def test_counts_over_all_jobs_with_it(self) -> None:
        bench = CoreBench()
        jobs = [bench.submitted() for _ in range(LOSSES_MAX + 1)]
        for job_id in jobs[:-1]:
            assert self.die(bench, job_id).state == QUEUED
        assert self.die(bench, jobs[-1]).state == FAILED
        assert bench.job(jobs[-1]).losses == 1
