"""A host that claims that work failed: it is not believed alone, and whoever refutes it costs it its good name."""

from __future__ import annotations

import pytest
from job_bench import OTHER, OWNER, RIVAL, WORKER, BrokerBench, CoreBench, award, ends

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.events import PeerDown
from offgrid_node.protocol.jobs.closing import EXCUSED, REFUTED
from offgrid_node.protocol.jobs.commands import Report, ReportResults
from offgrid_node.protocol.jobs.open_jobs import ATTEMPTS_SHOWN
from offgrid_node.protocol.jobs.receipts import COMPLETED as WELL
from offgrid_node.protocol.jobs.receipts import ReceiptBody, result_digest, sign_receipts
from offgrid_node.protocol.jobs.reputation import DISTRUSTED_BAD
from offgrid_node.protocol.jobs.table import COMPLETED, FAILED, QUEUED
from offgrid_tools.sim.crypto import SimSigner


def claims(bench: CoreBench, job_id: str, host: SimSigner, error: str = "ExecutionFailed") -> jobs_pb2.Job:
    attempt = bench.job(job_id).attempt
    message = jobs_pb2.AttemptReport(job_id=job_id, attempt=attempt, error=error, error_detail="trap")
    reports = ReportResults(host.node_id, (Report((job_id, attempt), message, None),))
    bench.core.reports.on_reports(9, reports, bench.now, bench.rng)
    bench.settle()
    return bench.job(job_id)


def brings(bench: CoreBench, job_id: str, host: SimSigner) -> jobs_pb2.Job:
    job = bench.job(job_id)
    body = ReceiptBody(
        host.node_id,
        OWNER.node_id,
        job_id,
        job.attempt,
        job.payload_digest,
        result_digest(0, b""),
        WELL,
        job.size_tokens,
        1,
        job.price_micro,
        "test/1",
    )
    message = jobs_pb2.AttemptReport(job_id=job_id, attempt=job.attempt)
    message.result.status = WELL
    message.result.receipt.CopyFrom(sign_receipts([body.encode()], host, b"")[0])
    reports = ReportResults(host.node_id, (Report((job_id, job.attempt), message, body),))
    bench.core.reports.on_reports(9, reports, bench.now, bench.rng)
    bench.settle()
    return bench.job(job_id)


@pytest.fixture
def bench() -> CoreBench:
    return CoreBench()


@pytest.mark.parametrize("error", ["ExecutionFailed", "OutputTooLarge"])
def test_the_first_claim_is_a_lost_attempt_that_is_held_against_nobody(bench: CoreBench, error: str) -> None:
    job_id = bench.awarded()
    job = claims(bench, job_id, WORKER, error)
    assert (job.state, job.attempt, job.losses, job.error) == (QUEUED, 2, 0, "")
    assert job.attempts[0].outcome == f"{error}: trap"
    assert ends(bench) == [(1, EXCUSED)]


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("second", [OTHER, WORKER], ids=["another host", "the only one"])
def test_the_second_one_ends_the_job(bench: CoreBench, second: SimSigner, restarts: bool) -> None:
    job_id = bench.awarded()
    claims(bench, job_id, WORKER)
    bench.clears(award(job_id, second.node_id, attempt=2))
    if restarts:
        bench.wait(1_000)
        bench.restart()
    job = claims(bench, job_id, second)
    assert (job.state, job.error, job.error_detail) == (FAILED, "ExecutionFailed", "trap")
    assert REFUTED not in [end for _, end in ends(bench)]


def test_who_brings_a_result_refutes_those_before_it(bench: CoreBench) -> None:
    job_id = bench.awarded()
    claims(bench, job_id, WORKER)
    bench.clears(award(job_id, OTHER.node_id, attempt=2))
    assert brings(bench, job_id, OTHER).state == COMPLETED
    assert (1, REFUTED) in ends(bench)


def test_a_host_that_died_in_between_confirms_nothing(bench: CoreBench) -> None:
    job_id = bench.awarded()
    claims(bench, job_id, WORKER)
    bench.clears(award(job_id, OTHER.node_id, attempt=2))
    bench.down(OTHER)
    assert (bench.job(job_id).state, bench.job(job_id).attempt) == (QUEUED, 3)


def test_a_claim_is_remembered_however_many_attempts_came_to_nothing_since(bench: CoreBench) -> None:
    job_id = bench.awarded()
    claims(bench, job_id, WORKER)
    bench.peers.on_down(PeerDown(OTHER.node_id))
    for number in range(2, ATTEMPTS_SHOWN + 4):
        bench.clears(award(job_id, OTHER.node_id, attempt=number))
    shown = bench.job(job_id).attempts
    assert [shown[0].number, *(each.number for each in shown[-2:])] == [1, ATTEMPTS_SHOWN + 2, ATTEMPTS_SHOWN + 3]
    assert len(shown) == ATTEMPTS_SHOWN
    bench.clears(award(job_id, WORKER.node_id, attempt=ATTEMPTS_SHOWN + 4))
    assert claims(bench, job_id, WORKER).state == FAILED


class TestABrokerThatIsTold:
    def fail(self, bench: BrokerBench, core: SimSigner, number: int) -> None:
        job_id = f"j-{number}"
        assert bench.submit(core, job_id).kind == jobs_pb2.CLEARING_KIND_AWARDED
        bench.close(core, job_id, 1, EXCUSED)
        bench.close(core, job_id, 1, REFUTED)

    def test_thinks_less_of_the_host(self) -> None:
        bench = BrokerBench()
        bench.offer()
        self.fail(bench, OWNER, 1)
        assert bench.broker.reputation.of(WORKER.node_id) < 0.5
        assert not bench.broker.reputation.distrusted(OWNER.node_id), "once may be an honest host's misfortune"
        for number in range(2, 2 + int(DISTRUSTED_BAD / 4)):
            self.fail(bench, OWNER, number)
        assert bench.broker.reputation.distrusted(OWNER.node_id) == (WORKER.node_id,)

    def test_takes_no_core_s_word_on_leases_of_others(self) -> None:
        bench = BrokerBench()
        bench.offer()
        bench.submit(OWNER, "j-1")
        bench.close(OWNER, "j-1", 1, EXCUSED)
        bench.close(RIVAL, "j-1", 1, REFUTED)
        assert bench.broker.reputation.of(WORKER.node_id) == 0.5
