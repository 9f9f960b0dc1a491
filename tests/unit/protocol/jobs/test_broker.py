"""The broker as a plain object: whose attempts are whose, and where its bounds lie."""

from __future__ import annotations

import pytest
from job_bench import OWNER, RIVAL, WORKER, BrokerBench

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.effects import Answered
from offgrid_node.protocol.jobs.post import Tag

AWARDED, QUEUED, NO_HOST, REFUSED = (
    jobs_pb2.CLEARING_KIND_AWARDED,
    jobs_pb2.CLEARING_KIND_QUEUED,
    jobs_pb2.CLEARING_KIND_NO_HOST,
    jobs_pb2.CLEARING_KIND_REFUSED,
)
HUGE = 4_000_000_000


class TestAnotherCoreThatNamesTheSameJob:
    """A job id is what its core says it is: nothing keeps a second core from saying the same."""

    @pytest.mark.parametrize("attempt", [1, HUGE])
    def test_takes_no_lease_away(self, attempt: int) -> None:
        bench = BrokerBench()
        bench.offer(slots=2)
        mine = bench.submit(OWNER)
        theirs = bench.submit(RIVAL, attempt=attempt)
        assert (mine.kind, theirs.kind) == (AWARDED, AWARDED)
        assert bench.slots_free() == 0, "they are two leases"
        assert bench.submit(OWNER) == mine

    def test_is_not_told_of_a_lease_that_is_not_its_own(self) -> None:
        bench = BrokerBench()
        bench.offer(slots=1)
        assert bench.submit(OWNER).kind == AWARDED
        assert bench.submit(RIVAL).kind == QUEUED

    def test_does_not_push_an_order_out_of_the_queue(self) -> None:
        bench = BrokerBench()
        bench.offer(slots=1)
        bench.submit(OWNER, "j-busy")
        assert bench.submit(OWNER).kind == QUEUED
        assert bench.submit(RIVAL, attempt=HUGE).kind == QUEUED
        assert bench.submit(OWNER).kind == QUEUED
        assert bench.broker.queued == 2

    def test_closes_nothing_but_its_own(self) -> None:
        bench = BrokerBench()
        bench.offer(slots=1)
        bench.submit(OWNER)
        bench.close(RIVAL, "j-1", 1)
        assert bench.slots_free() == 0
        bench.close(OWNER, "j-1", 1)
        assert bench.slots_free() == 1

    def test_confirms_no_award_but_its_own(self) -> None:
        bench = BrokerBench()
        bench.offer(slots=1)
        bench.submit(OWNER)
        for core, calls in ((RIVAL, 1), (OWNER, 1)):
            tag = Tag("DeliverAwards", core.node_id, (("j-1", 1),))
            bench.broker.on_awards_answered(
                tag, Answered(tag, core.node_id, jobs_pb2.DeliverAwardsResponse(), None), bench.now
            )
            bench.wait(60_000)
            assert len(bench.calls("DeliverAwards")) == calls

    def test_has_rows_of_its_own(self) -> None:
        bench = BrokerBench()
        bench.offer(slots=1)
        bench.submit(OWNER)
        bench.submit(RIVAL)
        bench.restart()
        assert bench.broker.queued == 1
        bench.close(RIVAL, "j-1", 1)
        assert bench.broker.queued == 0
        bench.restart()
        assert [bench.submit(OWNER).kind, bench.broker.queued] == [AWARDED, 0]


def test_what_a_host_holds_for_one_core_is_not_taken_for_anothers() -> None:
    bench = BrokerBench()
    bench.offer(seq=1, slots=2)
    bench.submit(OWNER)
    bench.offer(seq=2, slots=2, held=[f"{RIVAL.node_id}/j-1/1"])
    assert bench.slots_free() == 0
    bench.offer(seq=3, slots=2, held=[f"{OWNER.node_id}/j-1/1"])
    assert bench.slots_free() == 1


@pytest.mark.parametrize("held", ["", "/", "//", "a/b/c", "a/b/" + "9" * 5_000, "a/b/²", "j-1/1"])
def test_what_a_host_says_of_what_it_holds_is_taken_for_no_more_than_text(held: str) -> None:
    bench = BrokerBench()
    bench.offer(held=[held])
    assert bench.slots_free() == 1


def test_a_price_beyond_all_bounds_is_cut_to_what_can_be_carried() -> None:
    bench = BrokerBench()
    bench.offer(price=2**64 - 1)
    assert bench.submit(OWNER).kind == AWARDED


def test_a_lease_of_a_host_that_died_is_gone() -> None:
    bench = BrokerBench()
    bench.offer()
    bench.submit(OWNER)
    bench.down(WORKER)
    assert bench.submit(OWNER).kind == NO_HOST


def test_the_queue_is_bounded_and_says_so() -> None:
    bench = BrokerBench(queue_max=2)
    bench.offer(slots=1)
    kinds = [bench.submit(OWNER, f"j-{number}").kind for number in range(4)]
    assert kinds == [AWARDED, QUEUED, QUEUED, REFUSED]
    assert bench.submit(OWNER, "j-1").kind == QUEUED, "who waits already is not turned away"
