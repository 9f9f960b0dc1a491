"""The core as a plain object: what it believes of what others say, and where its bounds lie.

Long, since it is the whole specification of one machine part, case by case, over one bench.
"""

from __future__ import annotations

from typing import Any

import pytest
from job_bench import MARKET, OTHER, OWNER, WORKER, CoreBench, award

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.effects import Raise
from offgrid_node.protocol.errors import Exhausted, OutcomeUnknown, Unavailable
from offgrid_node.protocol.events import BROKER, HOST, CostIncurred, PeerDown
from offgrid_node.protocol.jobs.bounds import DETAIL_CHARS_MAX, PRICE_MAX, REFUSAL_CHARS_MAX
from offgrid_node.protocol.jobs.closing import BROKEN, PATIENCE_MS
from offgrid_node.protocol.jobs.commands import BrokerPreferred, DeliverAwards, Report, ReportResults
from offgrid_node.protocol.jobs.doubts import DOUBT_MS, GIVEN_UP_MAX, STEP_MS
from offgrid_node.protocol.jobs.host import REPORT_RETRY_MS
from offgrid_node.protocol.jobs.intake import QUEUE_RETRY_MS
from offgrid_node.protocol.jobs.machine import JobsMachine
from offgrid_node.protocol.jobs.open_jobs import OUTCOME_CHARS_MAX, SAID_MS
from offgrid_node.protocol.jobs.peers import Peers
from offgrid_node.protocol.jobs.prices import price_of
from offgrid_node.protocol.jobs.receipts import ReceiptBody, result_digest, sign_receipts
from offgrid_node.protocol.jobs.settings import RETRY_DELAYS_MS
from offgrid_node.protocol.jobs.story import story_of
from offgrid_node.protocol.jobs.table import AWARDED, COMPLETED, FAILED, QUEUED, RUNNING
from offgrid_node.protocol.jobs.terms import LOSSES_MAX

LONG = "x" * 1_000_000
LOST = OutcomeUnknown("no answer")


def doubted(bench: CoreBench) -> list[tuple[str, int]]:
    """Of the last SubmitJobs."""
    request = bench.calls("SubmitJobs")[-1].request
    assert isinstance(request, jobs_pb2.SubmitJobsRequest)
    return [(key.job_id, key.attempt) for key in request.doubtful]


class TestAwards:
    def test_of_the_broker_that_was_asked_is_believed(self) -> None:
        bench = CoreBench()
        job = bench.job(bench.awarded())
        assert (job.state, job.host, job.broker) == (AWARDED, WORKER.node_id, MARKET.node_id)

    def test_are_written_after_a_moment_if_the_job_has_not_ended_by_then(self) -> None:
        bench = CoreBench()
        job_id = bench.awarded()
        assert bench.row(job_id).state == QUEUED
        assert bench.calls("StartJobs")
        bench.wait(SAID_MS)
        assert (bench.row(job_id).state, bench.row(job_id).host) == (AWARDED, WORKER.node_id)
        assert bench.job_events()[-1].host == WORKER.node_id

    def test_that_were_not_written_yet_are_asked_for_again_and_reports_come_again_meanwhile(self) -> None:
        bench = CoreBench()
        job_id = bench.awarded()
        report = report_of(bench.job(job_id))
        bench.restart()
        bench.report(report)
        assert list(bench.replied(jobs_pb2.ReportResultsResponse).outcomes) == [], "neither accepted nor refused"
        bench.wait(0)
        assert len(bench.calls("SubmitJobs")) == 2
        bench.clears(award(job_id))
        bench.report(report)
        [outcome] = bench.replied(jobs_pb2.ReportResultsResponse).outcomes
        assert outcome.accepted
        assert (bench.row(job_id).state, bench.row(job_id).attempt) == (COMPLETED, 1)

    def test_that_nobody_remembers_end_the_attempt(self) -> None:
        """Whether a host is at work on it, nobody can say."""
        bench = CoreBench()
        job_id = bench.awarded()
        bench.restart()
        bench.wait(0)
        assert doubted(bench) == [(job_id, 1)]
        bench.clears(jobs_pb2.Clearing(job_id=job_id, attempt=1, kind=jobs_pb2.CLEARING_KIND_FORGOTTEN))
        assert (bench.row(job_id).state, bench.row(job_id).attempt) == (QUEUED, 2)
        assert doubted(bench) == [], "the next one is asked for as ever"

    def test_that_were_never_in_doubt_nobody_can_forget(self) -> None:
        """A broker that says so again and again is one that has no host, and is asked as seldom."""
        bench = CoreBench()
        job_id = bench.submitted()
        bench.clears(jobs_pb2.Clearing(job_id=job_id, attempt=1, kind=jobs_pb2.CLEARING_KIND_FORGOTTEN))
        assert (bench.job(job_id).attempt, len(bench.calls("SubmitJobs"))) == (1, 1)
        bench.wait(RETRY_DELAYS_MS[0])
        assert len(bench.calls("SubmitJobs")) == 2
        bench.restart()
        bench.wait(0)
        for attempt in (1, 2, 2):
            bench.clears(jobs_pb2.Clearing(job_id=job_id, attempt=attempt, kind=jobs_pb2.CLEARING_KIND_FORGOTTEN))
        assert bench.job(job_id).attempt == 2, "and of one that was, once"

    def test_that_nobody_remembers_are_seen_in_the_jobs_attempts(self) -> None:
        bench = CoreBench()
        job_id = bench.awarded()
        bench.restart()
        bench.clears(jobs_pb2.Clearing(job_id=job_id, attempt=1, kind=jobs_pb2.CLEARING_KIND_FORGOTTEN))
        [forgotten] = bench.row(job_id).attempts
        assert (forgotten.number, forgotten.host) == (1, "")
        assert forgotten.outcome.startswith("Forgotten")

    def test_in_doubt_do_not_make_the_core_refuse_what_its_own_host_brings(self) -> None:
        bench = CoreBench()
        job_id = bench.submitted()
        bench.clears(award(job_id, OWNER.node_id))
        bench.start_here(job_id)
        bench.restart(still_at_work=[(OWNER.node_id, job_id, 1)])
        bench.finish_here(job_id)
        assert bench.job(job_id).state == QUEUED
        bench.wait(0)
        bench.clears(award(job_id, OWNER.node_id))
        bench.wait(2 * REPORT_RETRY_MS)
        assert (bench.row(job_id).state, bench.row(job_id).attempt) == (COMPLETED, 1)

    def test_in_doubt_do_not_complete_a_job_whose_large_output_was_forgotten(self) -> None:
        """What the output was to become is in memory until the job ends."""
        bench = CoreBench()
        job_id = bench.submitted()
        bench.clears(award(job_id, OWNER.node_id))
        bench.start_here(job_id)
        bench.restart(still_at_work=[(OWNER.node_id, job_id, 1)])
        bench.finish_here(job_id, output_object="o-large")
        bench.restart()
        bench.wait(0)
        bench.clears(award(job_id, OWNER.node_id))
        bench.wait(2 * REPORT_RETRY_MS)
        job = bench.row(job_id)
        assert (job.state, job.attempt) == (QUEUED, 2)
        assert job.attempts[0].outcome.startswith("ResultNotKept")

    def test_in_doubt_are_asked_for_as_soon_as_their_broker_comes(self) -> None:
        bench = CoreBench()
        bench.awarded()
        bench.peers = Peers()
        bench.seen(BROKER, OTHER)
        bench.restart()
        bench.wait(0)
        assert bench.core.deadline_ms() == bench.now.mono_ms + DOUBT_MS, "nothing is polled"
        bench.seen(BROKER, MARKET)
        bench.core.on_peer_up(MARKET.node_id, frozenset({BROKER}), bench.now)
        bench.wait(0)
        assert bench.calls("SubmitJobs")[-1].node == MARKET.node_id

    def test_in_doubt_are_given_up_some_at_a_time(self) -> None:
        bench = CoreBench(queue_max=2 * GIVEN_UP_MAX + 10)
        jobs = [bench.awarded() for _ in range(GIVEN_UP_MAX + 10)]
        bench.peers = Peers()
        bench.seen(BROKER, OTHER)
        bench.restart()
        bench.wait(0)
        bench.wait(DOUBT_MS)
        given_up = sum(bench.job(job_id).attempt == 2 for job_id in jobs)
        assert 0 < given_up <= GIVEN_UP_MAX
        bench.wait(STEP_MS)
        assert all(bench.job(job_id).attempt == 2 for job_id in jobs)

    def test_are_waited_for_while_their_broker_may_come_back(self) -> None:
        bench = CoreBench()
        job_id = bench.awarded()
        bench.peers.on_down(PeerDown(MARKET.node_id))
        bench.peers = Peers()
        bench.seen(BROKER, OTHER)
        bench.restart()
        bench.wait(0)
        bench.wait(DOUBT_MS - 1)
        assert (len(bench.calls("SubmitJobs")), bench.job(job_id).attempt) == (1, 1)
        bench.wait(1)
        assert bench.calls("SubmitJobs")[-1].node == OTHER.node_id
        assert bench.row(job_id).attempt == 2

    def test_of_a_broker_that_is_dead_are_not_waited_for(self) -> None:
        bench = CoreBench()
        job_id = bench.awarded()
        bench.seen(BROKER, OTHER)
        bench.restart()
        bench.down(MARKET)
        assert bench.calls("SubmitJobs")[-1].node == OTHER.node_id
        assert bench.row(job_id).attempt == 2

    def test_in_doubt_do_not_let_the_local_queue_run_the_attempt(self) -> None:
        bench = CoreBench()
        made = bench.create()
        assert isinstance(made, jobs_pb2.CreateJobResponse)
        job_id = made.job.job_id
        bench.dispatch(job_id, jobs_pb2.DISPATCH_MODE_AUTO)
        bench.clears(award(job_id))
        bench.peers = Peers()
        bench.restart()
        for delay_ms in (0, *RETRY_DELAYS_MS):
            bench.wait(delay_ms)
        job = bench.row(job_id)
        assert (job.route, job.attempt) == (jobs_pb2.ROUTE_FILE_QUEUE, 2)

    @pytest.mark.parametrize("kind", [jobs_pb2.CLEARING_KIND_AWARDED, jobs_pb2.CLEARING_KIND_NO_HOST])
    def test_of_any_other_changes_nothing(self, kind: jobs_pb2.ClearingKind.ValueType) -> None:
        bench = CoreBench()
        job_id = bench.submitted()
        clearing = award(job_id)
        clearing.kind = kind
        bench.core.broker_answers.on_awards(9, DeliverAwards(OTHER.node_id, (clearing,)), bench.now, bench.rng)
        bench.settle()
        assert bench.job(job_id).state == QUEUED
        closed = [call.node for call in bench.calls("CloseLeases")]
        assert closed == ([OTHER.node_id] if kind == jobs_pb2.CLEARING_KIND_AWARDED else [])

    @pytest.mark.parametrize(
        "clearing",
        [award("", host=LONG), award("", host=""), award("", price_micro=PRICE_MAX + 1)],
        ids=["a host that is none", "no host", "a price beyond the bound"],
    )
    def test_that_make_no_sense_are_not_taken(self, clearing: jobs_pb2.Clearing) -> None:
        bench = CoreBench()
        clearing.job_id = bench.submitted()
        bench.clears(clearing)
        assert bench.job(clearing.job_id).state == QUEUED
        assert bench.calls("StartJobs") == []

    def test_that_are_too_dear_are_turned_down_and_asked_for_again_later(self) -> None:
        bench = CoreBench()
        job_id = bench.submitted()
        most = price_of(bench.settings.price_max_micro, bench.job(job_id).size_tokens)
        for delay_ms in RETRY_DELAYS_MS:
            bench.clears(award(job_id, price_micro=most + 1))
            assert bench.job(job_id).state == QUEUED
            bench.wait(delay_ms)
        bench.clears(award(job_id, price_micro=most + 1))
        job = bench.job(job_id)
        assert (job.state, job.error) == (FAILED, "NoHostsAvailable")
        assert f"{most + 1} millionths" in job.error_detail
        assert "jobs.price_max_micro" in job.error_detail
        assert bench.calls("StartJobs") == []
        job_id = bench.submitted()
        bench.clears(award(job_id, price_micro=most))
        assert bench.job(job_id).state == AWARDED

    def test_of_jobs_that_were_not_asked_about_are_not_even_given_back(self) -> None:
        bench = CoreBench()
        bench.submitted()
        before = len(bench.effects)
        tag_of = bench.calls("SubmitJobs")[0].tag
        bench.answers_submission(tag_of, [award(f"j-{number}") for number in range(1_000)])
        assert len(bench.effects) == before


class TestThePreferredBroker:
    def test_is_asked_first_and_the_others_where_it_is_not_there(self) -> None:
        bench = CoreBench()
        bench.seen(BROKER, OTHER)
        for preferred, asked in ((MARKET, MARKET), (OTHER, OTHER), (MARKET, MARKET)):
            bench.core.preferred_broker(preferred.node_id)
            for _ in range(5):
                job_id = bench.submitted()
                assert bench.job(job_id).broker == asked.node_id
        bench.peers.on_down(PeerDown(MARKET.node_id))
        assert bench.job(bench.submitted()).broker == OTHER.node_id

    def test_is_told_to_the_machine(self) -> None:
        bench = CoreBench()
        machine = JobsMachine(bench.settings)
        told = list[str]()
        machine.core.preferred_broker = told.append  # type: ignore[method-assign]
        machine.step([BrokerPreferred(MARKET.node_id)], bench.now, bench.rng)
        assert told == [MARKET.node_id]

    def test_need_be_none_and_then_is_none(self) -> None:
        bench = CoreBench()
        bench.core.preferred_broker(WORKER.node_id)
        assert bench.job(bench.submitted()).broker == MARKET.node_id


class TestWordsOfOthers:
    def test_a_host_s_refusal_is_cut(self) -> None:
        bench = CoreBench()
        job_id = bench.awarded()
        bench.answers_start(job_id, refusal=LONG)
        assert bench.job(job_id).attempts[0].outcome == "refused: " + LONG[:REFUSAL_CHARS_MAX]

    def test_a_broker_s_detail_is_cut(self) -> None:
        bench = CoreBench()
        job_id = bench.submitted()
        for _ in range(4):
            bench.clears(jobs_pb2.Clearing(job_id=job_id, attempt=1, kind=jobs_pb2.CLEARING_KIND_NO_HOST, detail=LONG))
        job = bench.job(job_id)
        assert (job.state, job.error, job.error_detail) == (FAILED, "NoHostsAvailable", LONG[:DETAIL_CHARS_MAX])

    def test_why_there_is_no_host_is_told_at_once_while_it_waits(self) -> None:
        bench = CoreBench()
        job_id = bench.submitted()
        no_host = jobs_pb2.Clearing(
            job_id=job_id, attempt=1, kind=jobs_pb2.CLEARING_KIND_NO_HOST, detail="nobody offers it"
        )
        bench.clears(no_host)
        assert bench.row(job_id).waiting == "up to 14 s for a host: nobody offers it"
        assert bench.job_events()[-1].waiting == bench.row(job_id).waiting, "who watches it hears"
        said = len(bench.job_events())
        bench.wait(RETRY_DELAYS_MS[0])
        bench.clears(no_host)
        assert len(bench.job_events()) == said, "the same again says nothing new"
        bench.wait(RETRY_DELAYS_MS[1])
        no_host.detail = "the only one is paused"
        bench.clears(no_host)
        assert bench.row(job_id).waiting == "up to 8 s for a host: the only one is paused"

    @pytest.mark.parametrize("end", ["queued", "awarded", "failed"])
    def test_and_not_any_more_once_it_does_not_wait_for_one(self, end: str) -> None:
        bench = CoreBench()
        job_id = bench.submitted()
        no_host = jobs_pb2.Clearing(job_id=job_id, attempt=1, kind=jobs_pb2.CLEARING_KIND_NO_HOST, detail="none")
        bench.clears(no_host)
        for delay_ms in RETRY_DELAYS_MS[: 3 if end == "failed" else 1]:
            bench.wait(delay_ms)
            if end == "failed":
                bench.clears(no_host)
        if end == "queued":
            bench.clears(jobs_pb2.Clearing(job_id=job_id, attempt=1, kind=jobs_pb2.CLEARING_KIND_QUEUED))
        elif end == "awarded":
            bench.clears(award(job_id))
            bench.wait(SAID_MS)
        assert bench.row(job_id).waiting == ""
        assert bench.job_events()[-1].waiting == ""

    @pytest.mark.parametrize("error", ["ExecutionFailed", "Whatever", LONG])
    def test_a_report_s_error_is_cut(self, error: str) -> None:
        bench = CoreBench()
        job_id = bench.awarded()
        message = jobs_pb2.AttemptReport(job_id=job_id, attempt=1, error=error, error_detail=LONG)
        reports = ReportResults(WORKER.node_id, (Report((job_id, 1), message, None),))
        bench.core.reports.on_reports(9, reports, bench.now, bench.rng)
        bench.settle()
        job = bench.job(job_id)
        assert len(job.error_detail) <= DETAIL_CHARS_MAX
        assert len(job.attempts[0].outcome) <= OUTCOME_CHARS_MAX
        assert all(job.ByteSize() < 5_000 for job in bench.job_events())


class TestStarting:
    def test_one_call_is_under_way_at_a_time(self) -> None:
        bench = CoreBench()
        job_id = bench.awarded(input_bytes=1_000_000)
        for _ in range(20):
            bench.wait(1_000)
        assert len(bench.calls("StartJobs")) == 1
        bench.answers_start(job_id, fault=LOST)
        bench.wait(999)
        assert len(bench.calls("StartJobs")) == 1
        bench.wait(1)
        assert len(bench.calls("StartJobs")) == 2

    def test_patience_ends_with_a_host_that_does_not_answer(self) -> None:
        bench = CoreBench()
        job_id = bench.awarded()
        for _ in range(2):
            bench.wait(5_000)
            bench.answers_start(job_id, fault=LOST)
            bench.wait(1_000)
        assert bench.job(job_id).attempts[0].outcome.startswith("Unreachable")

    def test_patience_grows_with_the_payload(self) -> None:
        bench = CoreBench()
        job_id = bench.awarded(input_bytes=1_000_000)
        bench.wait(24_000)
        bench.answers_start(job_id, fault=LOST)
        bench.wait(1_000)
        assert bench.job(job_id).attempt == 1
        bench.wait(24_000)
        bench.answers_start(job_id, fault=LOST)
        bench.wait(1_000)
        assert bench.job(job_id).attempt == 2

    def test_a_start_whose_end_got_lost_is_said_again_at_last(self) -> None:
        bench = CoreBench()
        job_id = bench.awarded(input_bytes=1_000_000)
        bench.wait(100_000)
        assert bench.job(job_id).attempt == 2

    def test_that_it_runs_is_an_event(self) -> None:
        bench = CoreBench()
        job_id = bench.awarded()
        bench.answers_start(job_id)
        bench.wait(SAID_MS)
        assert bench.job_events()[-1].state == RUNNING
        assert bench.job(job_id).state == RUNNING
        events = len(bench.job_events())
        bench.answers_start(job_id)
        bench.wait(SAID_MS)
        assert len(bench.job_events()) == events, "and said once"

    def test_that_it_ran_for_less_than_a_moment_is_not(self) -> None:
        bench = CoreBench()
        job_id = bench.awarded()
        bench.answers_start(job_id)
        report = report_of(bench.job(job_id))
        bench.core.reports.on_reports(9, ReportResults(WORKER.node_id, (report,)), bench.now, bench.rng)
        bench.wait(SAID_MS)
        assert RUNNING not in {job.state for job in bench.job_events()}


def test_a_job_that_keeps_losing_hosts_is_taken_for_the_cause() -> None:
    bench = CoreBench()
    job_id = bench.awarded()
    for number in range(1, LOSSES_MAX + 2):
        assert bench.job(job_id).state == AWARDED
        bench.down(WORKER)
        bench.up(WORKER)
        bench.clears(award(job_id, attempt=number + 1))
    job = bench.job(job_id)
    assert (job.state, job.error, job.attempt) == (FAILED, "AttemptsExhausted", LOSSES_MAX + 1)
    assert "8 are allowed (losses_max)" in job.error_detail


class TestAHostThatSaysItselfThatItCouldNotRunIt:
    """What it stands before, a model's endpoint or a cluster, may be away for a moment."""

    def fault(self, bench: CoreBench, job_id: str, attempt: int) -> None:
        message = jobs_pb2.AttemptReport(job_id=job_id, attempt=attempt, error="EndpointFailed")
        bench.answers_start_with(Report((job_id, attempt), message, None))

    def orders(self, bench: CoreBench) -> int:
        return len(bench.calls("SubmitJobs"))

    def test_is_followed_by_another_host_at_once(self) -> None:
        bench = CoreBench()
        job_id = bench.awarded()
        self.fault(bench, job_id, 1)
        assert self.orders(bench) == 2

    def test_gets_time_where_it_is_the_only_one_longer_each_time(self) -> None:
        bench = CoreBench()
        job_id = bench.awarded()
        self.fault(bench, job_id, 1)
        for attempt, pause_ms in ((2, 400), (3, 800), (4, 1_600)):
            bench.clears(award(job_id, attempt=attempt))
            orders = self.orders(bench)
            self.fault(bench, job_id, attempt)
            assert story_of(bench.row(job_id), bench.core.jobs, bench.now).startswith(
                f"Its host could not run it; attempt {attempt + 1} follows in {pause_ms / 1e3:.1f} s."
            )
            bench.wait(pause_ms - 1)
            assert self.orders(bench) == orders
            bench.wait(1)
            assert self.orders(bench) == orders + 1

    def test_is_not_waited_for_where_others_were_asked_between(self) -> None:
        bench = CoreBench()
        job_id = bench.awarded()
        self.fault(bench, job_id, 1)
        bench.clears(award(job_id, OTHER.node_id, attempt=2))
        bench.down(OTHER)
        bench.clears(award(job_id, attempt=3))
        orders = self.orders(bench)
        self.fault(bench, job_id, 3)
        assert self.orders(bench) == orders + 1


def test_lost_hosts_are_counted_over_restarts_up_to_what_the_owner_allows() -> None:
    bench = CoreBench()
    job_id = bench.submitted(losses_max=2)
    for number in range(1, 4):
        bench.clears(award(job_id, attempt=number))
        bench.down(WORKER)
        bench.up(WORKER)
        assert bench.row(job_id).losses == number
        bench.restart()
        bench.wait(0)
    job = bench.row(job_id)
    assert (job.state, job.error, job.attempt) == (FAILED, "AttemptsExhausted", 3)


def test_a_late_result_of_a_job_that_was_given_up_is_settled_and_not_accepted() -> None:
    bench = CoreBench()
    job_id = bench.submitted(losses_max=1)
    for number in (1, 2):
        bench.clears(award(job_id, attempt=number))
        report = report_of(bench.job(job_id))
        bench.down(WORKER)
        bench.up(WORKER)
    bench.report(report)
    [outcome] = bench.replied(jobs_pb2.ReportResultsResponse).outcomes
    assert not outcome.accepted
    assert "the job has ended, as JOB_STATE_FAILED" in outcome.refusal


def test_a_jobs_own_price_cap_stands_in_the_place_of_the_nodes() -> None:
    bench = CoreBench()
    job_id = bench.submitted(price_max_micro=1_000_000)
    bench.clears(award(job_id, price_micro=1_001))
    assert bench.job(job_id).state == QUEUED, "its 1,000 tokens are worth 1,000 millionths at most"
    bench.clears(award(job_id, price_micro=1_000))
    assert bench.job(job_id).state == AWARDED


def test_refusals_are_not_held_against_a_job() -> None:
    bench = CoreBench()
    job_id = bench.awarded()
    for number in range(1, 3 * LOSSES_MAX):
        bench.answers_start(job_id, number, refusal="busy")
        bench.wait(5_000)
        bench.clears(award(job_id, attempt=number + 1))
    assert bench.job(job_id).state == AWARDED


def test_a_call_that_was_refused_at_once_is_made_again_after_a_second() -> None:
    bench = CoreBench()
    job_id = bench.awarded()
    bench.answers_start(job_id, fault=Unavailable("connection refused"))
    bench.wait(1_000)
    assert len(bench.calls("StartJobs")) == 2


def test_a_core_has_no_more_jobs_open_than_its_bound() -> None:
    bench = CoreBench(queue_max=2)
    first = bench.create(request_id="r-1")
    bench.create()
    full = bench.create()
    assert isinstance(full, Exhausted)
    assert (full.reason, full.retry_ms) == ("QueueFull", QUEUE_RETRY_MS)
    again = bench.create(request_id="r-1")
    assert again == first, "a repeated request finds what the first one made, however full it is"


def test_a_job_that_ends_makes_room_for_another() -> None:
    bench = CoreBench(queue_max=1)
    job_id = bench.awarded()
    assert isinstance(bench.create(), Exhausted)
    bench.cancel(job_id)
    assert isinstance(bench.create(), jobs_pb2.CreateJobResponse)


def report_of(job: jobs_pb2.Job, *, status: str = "completed", exit_code: int = 0) -> Report:
    """What WORKER brings of the present attempt; its signature was the handler's business."""
    message = jobs_pb2.AttemptReport(job_id=job.job_id, attempt=job.attempt)
    body = ReceiptBody(
        node=WORKER.node_id,
        core=OWNER.node_id,
        job_id=job.job_id,
        attempt=job.attempt,
        payload_digest=job.payload_digest,
        result_digest=result_digest(exit_code, b""),
        status=status,
        size_tokens=job.size_tokens,
        latency_us=1,
        price_micro=job.price_micro,
        executor="test/1",
    )
    message.result.status, message.result.exit_code = status, exit_code
    message.result.receipt.CopyFrom(sign_receipts([body.encode()], WORKER, b"")[0])
    return Report((job.job_id, job.attempt), message, body)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, ""),
        ({"payload_digest": bytes(32)}, "another payload"),
        ({"price_micro": 10**9}, "price is not the award's"),
        ({"size_tokens": 10**9}, "of another size"),
    ],
    ids=["what was ordered", "another payload", "a higher price", "more work"],
)
def test_a_receipt_counts_for_what_was_ordered_alone(changes: dict[str, Any], why: str) -> None:
    bench = CoreBench()
    report = report_of(bench.job(bench.awarded()))
    assert report.receipt is not None
    told = report._replace(receipt=report.receipt._replace(**changes))
    outcome = bench.core.reports.take(WORKER.node_id, told, bench.now, bench.rng)
    assert (outcome.accepted, why in outcome.refusal) == (not why, True)


class TestReportsThatComeWithTheAnswerToAStart:
    def settled(self, bench: CoreBench) -> list[list[tuple[str, int]]]:
        """What each StartJobs told of."""
        told = [call.request for call in bench.calls("StartJobs")]
        return [[(key.job_id, key.attempt) for key in request.settled] for request in told]  # type: ignore[attr-defined]

    def test_are_accepted_and_settled_by_the_next_start_or_after_a_moment(self) -> None:
        bench = CoreBench()
        job_id = bench.awarded()
        bench.answers_start_with(report_of(bench.job(job_id)))
        assert bench.row(job_id).state == COMPLETED
        assert self.settled(bench) == [[]]
        bench.awarded()
        assert self.settled(bench) == [[], [(job_id, 1)]]
        bench.answers_start_with(report_of(bench.job(job_id)))
        bench.wait(PATIENCE_MS)
        assert self.settled(bench)[2:] == [[(job_id, 1)]], "a call with nothing to start"

    def test_that_come_too_early_are_neither_accepted_nor_settled(self) -> None:
        bench = CoreBench()
        job_id = bench.awarded()
        report = report_of(bench.job(job_id))
        bench.restart()
        bench.answers_start_with(report)
        bench.wait(PATIENCE_MS)
        assert self.settled(bench) == [[]]
        bench.clears(award(job_id))
        bench.report(report)
        assert bench.row(job_id).state == COMPLETED

    def test_of_attempts_of_another_host_are_not_accepted(self) -> None:
        bench = CoreBench()
        job_id = bench.submitted()
        bench.clears(award(job_id, OTHER.node_id))
        bench.answers_start_with(report_of(bench.job(job_id)))
        assert bench.job(job_id).state == AWARDED

    def test_of_an_attempt_that_was_given_back_begin_the_next(self) -> None:
        bench = CoreBench()
        job_id = bench.awarded()
        message = jobs_pb2.AttemptReport(job_id=job_id, attempt=1, error="HostRestarted")
        bench.answers_start_with(Report((job_id, 1), message, None))
        assert (bench.row(job_id).state, bench.row(job_id).attempt) == (QUEUED, 2)


class TestCosts:
    def costs(self, bench: CoreBench) -> list[CostIncurred]:
        return [e.event for e in bench.effects if isinstance(e, Raise) and isinstance(e.event, CostIncurred)]

    @pytest.mark.parametrize(("status", "exit_code"), [("completed", 0), ("failed", 1)])
    def test_a_result_with_a_receipt_is_owed_for_once(self, status: str, exit_code: int) -> None:
        bench = CoreBench()
        job = bench.job(bench.awarded())
        report = report_of(job, status=status, exit_code=exit_code)
        for _ in range(2):
            bench.core.reports.on_reports(9, ReportResults(WORKER.node_id, (report,)), bench.now, bench.rng)
            bench.settle()
        assert self.costs(bench) == [CostIncurred(job.job_id, 1, WORKER.node_id, 5, "compute", is_new=True)]

    def test_of_a_job_from_before_a_restart_it_is_not_said_to_be_new(self) -> None:
        bench = CoreBench()
        job_id = bench.awarded()
        bench.wait(SAID_MS)
        bench.restart()
        bench.report(report_of(bench.job(job_id)))
        assert self.costs(bench) == [CostIncurred(job_id, 1, WORKER.node_id, 5, "compute")]

    def test_what_brought_no_result_costs_nothing(self) -> None:
        bench = CoreBench()
        job_id = bench.awarded()
        message = jobs_pb2.AttemptReport(job_id=job_id, attempt=1, error="JobTimeout")
        bench.now_ms += bench.job(job_id).timeout_ms
        bench.report(Report((job_id, 1), message, None))
        assert bench.job(job_id).error == "JobTimeout"
        assert self.costs(bench) == []

    @pytest.mark.parametrize("restarts", [False, True])
    def test_that_it_takes_too_long_is_not_believed_before_its_time(self, restarts: bool) -> None:
        bench = CoreBench()
        job_id = bench.awarded()
        bench.answers_start(job_id)
        bench.wait(1_000)
        if restarts:
            bench.restart()
        bench.report(Report((job_id, 1), jobs_pb2.AttemptReport(job_id=job_id, attempt=1, error="JobTimeout"), None))
        job = bench.job(job_id)
        assert (job.state, job.attempt, job.losses) == (QUEUED, 2, 1)
        assert job.attempts[0].outcome == "Implausible: its host says JobTimeout after 1000 ms of 30000"
        bench.wait(PATIENCE_MS)
        told = [
            call.request for call in bench.calls("SubmitJobs") if isinstance(call.request, jobs_pb2.SubmitJobsRequest)
        ]
        assert [(each.attempt, each.end) for request in told for each in request.closed] == [(1, BROKEN)]


class TestABrokerThatLeadsNowhere:
    """None may fail or hold up a job alone, whether it lies or merely sees little of the mesh."""

    @staticmethod
    def said(job_id: str, kind: jobs_pb2.ClearingKind.ValueType) -> list[jobs_pb2.Clearing]:
        return [jobs_pb2.Clearing(job_id=job_id, attempt=1, kind=kind)]

    @pytest.mark.parametrize("kind", [jobs_pb2.CLEARING_KIND_NO_HOST, jobs_pb2.CLEARING_KIND_REFUSED])
    def test_is_not_asked_twice_running_while_there_is_another(self, kind: jobs_pb2.ClearingKind.ValueType) -> None:
        bench = CoreBench()
        job_id = bench.submitted()
        bench.seen(BROKER, OTHER)
        for delay_ms in RETRY_DELAYS_MS:
            last = bench.calls("SubmitJobs")[-1]
            bench.answers_submission(last.tag, self.said(job_id, kind))
            bench.wait(delay_ms)
        asked = [call.node for call in bench.calls("SubmitJobs")]
        assert asked == [MARKET.node_id, OTHER.node_id] * 2

    def test_is_asked_again_where_it_is_the_only_one(self) -> None:
        bench = CoreBench()
        job_id = bench.submitted()
        bench.answers_submission(bench.calls("SubmitJobs")[-1].tag, self.said(job_id, jobs_pb2.CLEARING_KIND_NO_HOST))
        bench.wait(RETRY_DELAYS_MS[0])
        assert [call.node for call in bench.calls("SubmitJobs")] == [MARKET.node_id] * 2

    def test_that_says_nothing_of_an_order_is_left_at_once(self) -> None:
        bench = CoreBench()
        bench.submitted()
        bench.seen(BROKER, OTHER)
        bench.answers_submission(bench.calls("SubmitJobs")[-1].tag, [])
        assert [call.node for call in bench.calls("SubmitJobs")] == [MARKET.node_id, OTHER.node_id]

    def test_that_awards_to_hosts_that_refuse_is_left_after_the_second(self) -> None:
        bench = CoreBench()
        job_id = bench.submitted()
        bench.seen(BROKER, OTHER)
        for attempt in (1, 2):
            assert bench.calls("SubmitJobs")[-1].node == MARKET.node_id
            clearing = award(job_id)
            clearing.attempt = attempt
            bench.clears(clearing)
            bench.answers_start(job_id, attempt, refusal="no")
            bench.wait(5_000)
        assert bench.calls("SubmitJobs")[-1].node == OTHER.node_id

    def test_that_awards_to_hosts_that_are_lost_is_left_after_the_second(self) -> None:
        bench = CoreBench()
        job_id = bench.submitted()
        bench.seen(BROKER, MARKET, OTHER)
        for attempt in (1, 2):
            assert bench.calls("SubmitJobs")[-1].node == MARKET.node_id
            clearing = award(job_id)
            clearing.attempt = attempt
            bench.clears(clearing)
            bench.down(WORKER)
            bench.seen(HOST, WORKER)
        assert bench.calls("SubmitJobs")[-1].node == OTHER.node_id

    def test_that_stays_away_is_replaced_at_once(self) -> None:
        """The orders that waited there wait elsewhere within the step in which its death is known."""
        bench = CoreBench()
        job_id = bench.submitted()
        bench.clears(self.said(job_id, jobs_pb2.CLEARING_KIND_QUEUED)[0])
        bench.seen(BROKER, OTHER)
        bench.down(MARKET)
        assert bench.calls("SubmitJobs")[-1].node == OTHER.node_id
        clearing = award(job_id)
        bench.answers_submission(bench.calls("SubmitJobs")[-1].tag, [clearing])
        assert (bench.job(job_id).state, bench.job(job_id).attempt) == (AWARDED, 1)
