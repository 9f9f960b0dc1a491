"""An order that waits at one broker for too long is taken to another: a few as a trial, more where the first had no
excuse."""

from __future__ import annotations

from job_bench import MARKET, WORKER, CoreBench, award

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.effects import Answered, Call
from offgrid_node.protocol.events import BROKER
from offgrid_node.protocol.jobs.orders import JobOrder
from offgrid_node.protocol.jobs.patience import QUEUE_PATIENCE_MS
from offgrid_node.protocol.jobs.post import Tag
from offgrid_node.protocol.jobs.table import AWARDED, QUEUED
from offgrid_node.protocol.jobs.waiting import POLL_MS
from offgrid_tools.sim.crypto import SimSigner

SECOND = SimSigner("second market")


class Two(CoreBench):
    """With two brokers; of MARKET all orders that it is asked for wait."""

    def __init__(self, *, second: bool = True) -> None:
        super().__init__()
        self.asked = 0  # how many of the calls were looked at
        self.second: list[tuple[str, int]] = []  # orders that SECOND has had
        self.at_market: list[tuple[str, int]] = []
        self.second_says = jobs_pb2.CLEARING_KIND_QUEUED
        self.jobs: list[str] = []
        self._both = second

    def queue(self, count: int) -> None:
        for _ in range(count):
            self.jobs.append(self.submitted())
        self.answer()
        if self._both:
            self.seen(BROKER, SECOND)

    def answer(self) -> None:
        """To every order that has left."""
        while (calls := self.calls("SubmitJobs")[self.asked :]) != []:
            self.asked += len(calls)
            for call in calls:
                self._answer(call)

    def _answer(self, call: Call) -> None:
        assert isinstance(call.request, jobs_pb2.SubmitJobsRequest)
        orders = [JobOrder.decode(body) for body in call.request.orders]
        keys = [(order.job_id, order.attempt) for order in orders]
        here = call.node == MARKET.node_id
        (self.at_market if here else self.second).extend(keys)
        kind = jobs_pb2.CLEARING_KIND_QUEUED if here else self.second_says
        clearings = [self.clearing(job_id, attempt, kind) for job_id, attempt in keys]
        assert isinstance(call.tag, Tag)
        reply = jobs_pb2.SubmitJobsResponse(clearings=clearings)
        self.core.broker_answers.on_submitted(call.tag, Answered(call.tag, call.node, reply, None), self.now, self.rng)
        self.settle()

    def clearing(self, job_id: str, attempt: int, kind: jobs_pb2.ClearingKind.ValueType) -> jobs_pb2.Clearing:
        if kind == jobs_pb2.CLEARING_KIND_AWARDED:
            return award(job_id, attempt=attempt)
        return jobs_pb2.Clearing(job_id=job_id, attempt=attempt, kind=kind)

    def pass_time(self, ms: int) -> None:
        for _ in range(ms // POLL_MS):
            self.wait(POLL_MS)
            self.answer()

    def closed_at_market(self) -> list[tuple[str, int]]:
        self.wait(100)
        closed: list[tuple[str, int]] = []
        for call in [*self.calls("SubmitJobs"), *self.calls("CloseLeases")]:
            if call.node == MARKET.node_id:
                request = call.request
                assert isinstance(request, jobs_pb2.SubmitJobsRequest | jobs_pb2.CloseLeasesRequest)
                over = request.closed if isinstance(request, jobs_pb2.SubmitJobsRequest) else request.leases
                closed += [(lease.job_id, lease.attempt) for lease in over]
        return closed


def test_it_is_asked_of_another_with_the_next_number_and_taken_from_the_first() -> None:
    town = Two()
    town.queue(1)
    town.second_says = jobs_pb2.CLEARING_KIND_AWARDED
    town.pass_time(QUEUE_PATIENCE_MS)
    [job_id] = town.jobs
    job = town.job(job_id)
    assert town.second == [(job_id, 2)]
    assert (job.state, job.attempt, job.broker, job.host) == (AWARDED, 2, SECOND.node_id, WORKER.node_id)
    assert job.attempts[0].outcome.startswith("Waited")
    assert (job_id, 1) in town.closed_at_market()


def test_an_award_of_the_first_that_comes_after_all_is_not_heard() -> None:
    town = Two()
    town.queue(1)
    town.pass_time(QUEUE_PATIENCE_MS)
    [job_id] = town.jobs
    town.answers_submission(Tag("SubmitJobs", MARKET.node_id, ((job_id, 1),)), [award(job_id)])
    assert (town.job(job_id).state, town.job(job_id).broker) == (QUEUED, SECOND.node_id)
    assert not town.calls("StartJobs")


def test_before_its_time_or_without_another_broker_it_is_only_said_again() -> None:
    town = Two()
    town.queue(1)
    town.pass_time(QUEUE_PATIENCE_MS - POLL_MS)
    assert town.second == []
    alone = Two(second=False)
    alone.queue(1)
    alone.pass_time(3 * QUEUE_PATIENCE_MS)
    assert alone.job(alone.jobs[0]).attempt == 1


def test_of_an_honest_queue_one_order_turns_in_a_round() -> None:
    town = Two()
    town.queue(20)
    town.pass_time(QUEUE_PATIENCE_MS)
    assert len(town.second) == 1
    town.pass_time(POLL_MS)
    assert len(set(town.second)) == 2


def test_where_the_other_awards_at_once_more_and_more_follow_without_delay() -> None:
    town = Two()
    town.queue(20)
    town.second_says = jobs_pb2.CLEARING_KIND_AWARDED
    town.pass_time(QUEUE_PATIENCE_MS)
    grown = [len(town.second)]
    for _ in range(4):
        town.wait(0)
        town.answer()
        grown.append(len(town.second))
    assert grown == [1, 3, 7, 15, 20]


def test_that_ends_with_the_first_that_must_wait_there_too() -> None:
    town = Two()
    town.queue(20)
    town.second_says = jobs_pb2.CLEARING_KIND_AWARDED
    town.pass_time(QUEUE_PATIENCE_MS)
    town.second_says = jobs_pb2.CLEARING_KIND_QUEUED
    town.wait(0)
    town.answer()
    assert len(town.second) == 3
    town.wait(0)
    town.answer()
    assert len(town.second) == 3
    town.pass_time(POLL_MS)
    assert len(set(town.second)) == 4


def test_its_patience_doubles_each_time() -> None:
    town = Two()
    town.queue(1)
    town.pass_time(QUEUE_PATIENCE_MS)
    town.pass_time(2 * QUEUE_PATIENCE_MS - POLL_MS)
    assert town.job(town.jobs[0]).attempt == 2
    town.pass_time(POLL_MS)
    job = town.job(town.jobs[0])
    assert (job.attempt, job.broker) == (3, MARKET.node_id), "back at the first"


def test_where_the_other_knows_no_host_it_comes_back_and_is_no_worse_off() -> None:
    town = Two()
    town.queue(1)
    town.second_says = jobs_pb2.CLEARING_KIND_NO_HOST
    town.pass_time(QUEUE_PATIENCE_MS + 2 * POLL_MS)
    job = town.job(town.jobs[0])
    assert (job.state, job.attempt, job.broker) == (QUEUED, 2, MARKET.node_id)
    entry = town.core.jobs.get(job.job_id)
    assert entry is not None
    assert entry.tries == 0
