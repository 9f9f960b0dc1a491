"""How a core comes back to a broker that refuses for load: when, with how much, and that nothing is lost by it."""

from __future__ import annotations

from random import Random

from job_bench import MARKET, OTHER, WORKER, CoreBench, award

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Answered, Call
from offgrid_node.protocol.errors import Exhausted, Unavailable
from offgrid_node.protocol.events import BROKER
from offgrid_node.protocol.jobs.commands import DeliverAwards, RenewLeases
from offgrid_node.protocol.jobs.heartbeat import digest_of_page
from offgrid_node.protocol.jobs.pacing import PAUSE_MAX_MS, PAUSE_MIN_MS, Pacing
from offgrid_node.protocol.jobs.settings import RETRY_DELAYS_MS
from offgrid_node.protocol.jobs.story import story_of
from offgrid_node.protocol.jobs.submitting import SUBMIT_RETRY_MS
from offgrid_node.protocol.jobs.table import AWARDED, QUEUED, RUNNING
from offgrid_node.protocol.jobs.waiting import POLL_MS

REFUSED = jobs_pb2.CLEARING_KIND_REFUSED


def at(ms: int) -> Now:
    return Now(ms, ms * 1_000)


class Line:
    """A hundred jobs that wait for "b"; it was refused once, at 0."""

    def __init__(self, window_max: int = 8) -> None:
        self.rng, self.pacing = Random(1), Pacing(window_max)
        self.pacing.refused("b", 1_000, at(0), self.rng)
        for number in range(100):
            self.pacing.add("b", f"j-{number}", 0)

    @property
    def due_ms(self) -> int:
        due_ms = self.pacing.deadline_ms()
        assert due_ms is not None
        return due_ms


class TestALine:
    def test_moves_when_the_broker_said_and_not_everybody_s_at_once(self) -> None:
        dues = set()
        for seed in range(20):
            pacing = Pacing(8)
            pacing.refused("b", 1_000, at(0), Random(seed))
            dues.add(pacing.deadline_ms())
        assert min(dues) >= 1_000
        assert max(dues) <= 1_500
        assert len(dues) > 10

    def test_moves_faster_as_long_as_all_is_taken_and_slower_when_it_is_not(self) -> None:
        line, sizes = Line(), []
        for took in (True, True, True, False, True):
            now = at(line.due_ms)
            sizes.append(len(line.pacing.take_due(now)))
            if took:
                line.pacing.taken("b", now)
            else:
                line.pacing.refused("b", 1_000, now, line.rng)
        assert sizes == [4, 8, 8, 8, 4]

    def test_waits_longer_each_time_that_nothing_is_taken_up_to_a_bound(self) -> None:
        line, pauses = Line(), []
        for _ in range(8):
            now = at(line.due_ms)
            line.pacing.take_due(now)
            line.pacing.refused("b", 1_000, now, line.rng)
            pauses.append(line.due_ms - now.mono_ms)
        assert pauses[0] < pauses[1] < pauses[2] < pauses[3]
        assert PAUSE_MAX_MS <= pauses[-1] <= 1.5 * PAUSE_MAX_MS
        line.pacing.take_due(at(line.due_ms))
        line.pacing.refused("b", 1, at(10**6), line.rng, in_part=True)
        assert line.due_ms - 10**6 <= 1.5 * PAUSE_MIN_MS, "some of it was taken: it begins anew"

    def test_lets_one_go_for_each_job_that_ends_there(self) -> None:
        line = Line()
        line.pacing.ended("b")
        line.pacing.ended("b")
        line.pacing.ended("elsewhere")
        assert line.due_ms == 0
        assert line.pacing.take_due(at(10)) == ["j-0", "j-1"]
        assert line.due_ms >= 1_000

    def test_goes_by_priority_then_age(self) -> None:
        line = Line()
        line.pacing.add("b", "urgent", 5)
        line.pacing.discard("b", "j-1", 0)
        assert line.pacing.take_due(at(line.due_ms)) == ["urgent", "j-0", "j-2", "j-3"]

    def test_is_asked_again_though_an_answer_was_lost(self) -> None:
        line = Line()
        now = at(line.due_ms)
        assert len(line.pacing.take_due(now)) == 4
        assert line.pacing.take_due(now) == []
        assert len(line.pacing.take_due(at(line.due_ms))) == 4

    def test_is_over_when_it_is_empty(self) -> None:
        line = Line(1_000)
        assert len(line.pacing.take_due(at(line.due_ms))) == 100
        assert line.pacing.holds("b")
        line.pacing.taken("b", at(5_000))
        assert not line.pacing.holds("b")

    def test_that_left_before_the_refusal_says_nothing(self) -> None:
        line = Line()
        due_ms = line.due_ms
        line.pacing.refused("b", 60_000, at(1), line.rng)
        line.pacing.taken("b", at(2))
        assert line.due_ms == due_ms


def refused(*job_ids: str, retry_ms: int = 2_000) -> list[jobs_pb2.Clearing]:
    return [jobs_pb2.Clearing(job_id=job_id, attempt=1, kind=REFUSED, retry_ms=retry_ms) for job_id in job_ids]


def asked(bench: CoreBench) -> list[Call]:
    return bench.calls("SubmitJobs")


def orders(call: Call) -> int:
    assert isinstance(call.request, jobs_pb2.SubmitJobsRequest)
    return len(call.request.orders)


class TestAJobThatWasRefusedForLoad:
    def test_is_ordered_again_when_its_broker_said_and_uses_up_no_try(self) -> None:
        bench = CoreBench()
        job_id = bench.submitted()
        for _ in range(3 * len(RETRY_DELAYS_MS)):
            calls = len(asked(bench))
            bench.answers_submission(asked(bench)[-1].tag, refused(job_id))
            bench.wait(1_999)
            assert len(asked(bench)) == calls
            due_ms = bench.core.deadline_ms()
            assert due_ms is not None
            bench.wait(max(0, due_ms - bench.now_ms))
            assert len(asked(bench)) == calls + 1
        assert (bench.job(job_id).state, bench.job(job_id).attempt) == (QUEUED, 1)

    def test_has_that_told_as_its_story(self) -> None:
        bench = CoreBench()
        job_id = bench.submitted()
        for times in (1, 2, 3):
            bench.answers_submission(asked(bench)[-1].tag, refused(job_id, retry_ms=60_000))
            story = story_of(bench.job(job_id), bench.core.jobs, bench.now)
            assert story.startswith(f"Broker {MARKET.node_id} takes no more orders for now, {times} times in a row;")
            due_ms = bench.core.deadline_ms()
            assert due_ms is not None
            assert f"sent again in {(due_ms - bench.now_ms) / 1e3:.1f} s" in story
            bench.wait(due_ms - bench.now_ms)

    def test_keeps_those_that_come_after_it_at_home(self) -> None:
        bench = CoreBench()
        job_id = bench.submitted()
        bench.answers_submission(asked(bench)[-1].tag, refused(job_id))
        calls = len(asked(bench))
        for _ in range(5):
            bench.submitted()
        assert len(asked(bench)) == calls
        bench.wait(3_000)
        assert orders(asked(bench)[-1]) == 6

    def test_goes_to_another_broker_at_once_where_there_is_one(self) -> None:
        bench = CoreBench()
        job_id = bench.submitted()
        bench.seen(BROKER, OTHER)
        bench.answers_submission(asked(bench)[-1].tag, refused(job_id))
        assert [call.node for call in asked(bench)] == [MARKET.node_id, OTHER.node_id]
        bench.answers_submission(asked(bench)[-1].tag, refused(job_id))
        assert len(asked(bench)) == 2, "both have refused: it waits"
        bench.wait(3_000)
        assert len(asked(bench)) == 3

    def test_is_no_worse_off_when_the_whole_call_was(self) -> None:
        bench = CoreBench()
        job_id = bench.submitted()
        for _ in range(10):
            tag = asked(bench)[-1].tag
            fault = Exhausted("too many calls", reason="RateLimited", retry_ms=100)
            answer = Answered(tag, MARKET.node_id, None, fault)
            bench.core.broker_answers.on_submitted(tag, answer, bench.now, bench.rng)
            bench.settle()
            bench.wait(PAUSE_MAX_MS * 2)
        assert len(asked(bench)) == 11
        assert (bench.job(job_id).state, bench.job(job_id).route) == (QUEUED, jobs_pb2.ROUTE_OFFGRID)

    def test_goes_elsewhere_when_the_broker_dies(self) -> None:
        bench = CoreBench()
        job_id = bench.submitted()
        bench.answers_submission(asked(bench)[-1].tag, refused(job_id))
        bench.seen(BROKER, OTHER)
        bench.down(MARKET)
        assert asked(bench)[-1].node == OTHER.node_id
        assert not bench.core.jobs.pacing.holds(MARKET.node_id)

    def test_leaves_the_line_when_it_is_cancelled(self) -> None:
        bench = CoreBench()
        job_id = bench.submitted()
        bench.answers_submission(asked(bench)[-1].tag, refused(job_id))
        bench.cancel(job_id)
        bench.wait(5_000)
        assert len(asked(bench)) == 1
        assert not bench.core.jobs.pacing.holds(MARKET.node_id)

    def test_is_awarded_in_the_end(self) -> None:
        bench = CoreBench()
        job_id = bench.submitted()
        bench.answers_submission(asked(bench)[-1].tag, refused(job_id))
        bench.wait(3_000)
        clearing = jobs_pb2.Clearing(
            job_id=job_id, attempt=1, kind=jobs_pb2.CLEARING_KIND_AWARDED, host=OTHER.node_id, price_micro=1
        )
        bench.answers_submission(asked(bench)[-1].tag, [clearing])
        assert bench.job(job_id).state == AWARDED


class TestAJobThatItsBrokerHasInItsQueueAllTheSame:
    """It was queued there; then a call that said its order once more was refused, so it stands in line as well."""

    def in_line(self) -> tuple[CoreBench, str]:
        bench = CoreBench()
        job_id = bench.submitted()
        tag = asked(bench)[-1].tag
        queued = jobs_pb2.Clearing(job_id=job_id, attempt=1, kind=jobs_pb2.CLEARING_KIND_QUEUED)
        bench.answers_submission(tag, [queued])
        bench.wait(POLL_MS)
        fault = Exhausted("too many calls", reason="RateLimited", retry_ms=1_000)
        answer = Answered(asked(bench)[-1].tag, MARKET.node_id, None, fault)
        bench.core.broker_answers.on_submitted(tag, answer, bench.now, bench.rng)
        bench.settle()
        return bench, job_id

    def test_leaves_the_line_when_it_is_awarded(self) -> None:
        bench, job_id = self.in_line()
        calls = len(asked(bench))
        bench.core.broker_answers.on_awards(7, DeliverAwards(MARKET.node_id, (award(job_id),)), bench.now, bench.rng)
        bench.settle()
        bench.wait(3_000)
        assert bench.job(job_id).state == AWARDED
        assert len(asked(bench)) == calls

    def test_keeps_its_host_as_long_as_its_own_time_out(self) -> None:
        bench, job_id = self.in_line()
        bench.core.broker_answers.on_awards(7, DeliverAwards(MARKET.node_id, (award(job_id),)), bench.now, bench.rng)
        bench.settle()
        bench.answers_start(job_id)
        for _ in range(SUBMIT_RETRY_MS // 1_000 + 5):
            bench.wait(1_000)
            renewal = RenewLeases(WORKER.node_id, ((job_id, 1),), digest_of_page([(job_id, 1)]))
            bench.core.renewals.on_renew(8, renewal, bench.now)
        assert (bench.job(job_id).state, bench.job(job_id).attempt) == (RUNNING, 1)


def test_a_broker_that_cannot_be_reached_is_no_flooded_one() -> None:
    bench = CoreBench()
    bench.submitted()
    tag = asked(bench)[-1].tag
    fault = Unavailable("nobody there", retry_ms=100)
    answer = Answered(tag, MARKET.node_id, None, fault)  # type: ignore[arg-type]
    bench.core.broker_answers.on_submitted(tag, answer, bench.now, bench.rng)
    bench.settle()
    assert not bench.core.jobs.pacing.holds(MARKET.node_id)
