"""The broker as a plain object: whose attempts are whose, and where its bounds lie."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from job_bench import MARKET, OTHER, OWNER, RIVAL, WORKER, Bench, BrokerBench, order_of

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Asked
from offgrid_node.protocol.events import CORE, HOST, PeerUp
from offgrid_node.protocol.jobs.awards import LEASE_MARGIN_MS, QUEUE, Lease
from offgrid_node.protocol.jobs.broker import CORE_GRACE_MS, Broker
from offgrid_node.protocol.jobs.clearing import Group
from offgrid_node.protocol.jobs.closing import BROKEN, DISAGREED, EXCUSED, SERVED
from offgrid_node.protocol.jobs.commands import PostOffers, SubmitJobs
from offgrid_node.protocol.jobs.machine import JobsMachine
from offgrid_node.protocol.jobs.offering import OFFER_STANDS_MS
from offgrid_node.protocol.jobs.orders import JobOrder
from offgrid_node.protocol.jobs.postings import LEASE_GRACE_MS

AWARDED, QUEUED, NO_HOST, REFUSED, FORGOTTEN = (
    jobs_pb2.CLEARING_KIND_AWARDED,
    jobs_pb2.CLEARING_KIND_QUEUED,
    jobs_pb2.CLEARING_KIND_NO_HOST,
    jobs_pb2.CLEARING_KIND_REFUSED,
    jobs_pb2.CLEARING_KIND_FORGOTTEN,
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
            bench.confirm(core)
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
        assert bench.broker.queued == 0


class TestARestart:
    def test_forgets_awards_and_makes_them_anew_for_those_who_ask(self) -> None:
        bench = BrokerBench()
        bench.offer(slots=1)
        bench.submit(OWNER)
        bench.restart()
        bench.seen(HOST, WORKER)
        bench.offer(seq=1 << 32, slots=1)
        assert bench.submit(OWNER).kind == AWARDED

    def test_forgets_no_award_of_who_had_to_wait_and_delivers_it_until_it_is_confirmed(self) -> None:
        bench = BrokerBench()
        bench.offer(slots=1)
        bench.submit(RIVAL, "j-busy")
        bench.submit(OWNER)
        bench.close(RIVAL, "j-busy", 1)
        assert bench.delivered() == ["j-1"]
        bench.restart()
        assert bench.broker.queued == 0
        bench.wait(0)
        assert bench.delivered() == ["j-1", "j-1"]
        assert bench.submit(OWNER, doubtful=True).host == WORKER.node_id
        bench.confirm(OWNER)
        bench.restart()
        assert bench.submit(OWNER, doubtful=True).kind == FORGOTTEN

    def test_awards_nothing_anew_to_a_core_that_may_have_begun_with_it(self) -> None:
        bench = BrokerBench()
        bench.offer(slots=1)
        bench.submit(OWNER)
        assert bench.submit(OWNER, doubtful=True).kind == AWARDED, "this life knows"
        bench.submit(RIVAL)
        assert bench.submit(RIVAL, doubtful=True).kind == QUEUED, "and that it waits"
        bench.restart()
        bench.seen(HOST, WORKER)
        bench.offer(seq=1 << 32, slots=2)
        assert bench.submit(OWNER, doubtful=True).kind == FORGOTTEN
        assert bench.slots_free() == 1, "RIVAL waited and has one, OWNER none"
        assert bench.submit(OWNER, attempt=2).kind == AWARDED

    def test_has_no_row_of_a_confirmed_award(self) -> None:
        bench = BrokerBench()
        bench.offer(slots=1)
        bench.submit(RIVAL, "j-busy")
        bench.submit(OWNER)
        bench.close(RIVAL, "j-busy", 1)
        bench.confirm(OWNER)
        bench.restart()
        assert bench.broker.queued == 0


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


class TestALeaseOfAHostThatDied:
    """It may have begun: nobody else does the same attempt."""

    @pytest.fixture
    def bench(self) -> BrokerBench:
        bench = BrokerBench()
        bench.offer(WORKER)
        bench.submit(OWNER)
        bench.offer(OTHER)
        bench.down(WORKER)
        return bench

    @pytest.mark.parametrize("doubtful", [False, True])
    def test_is_named_again_to_whoever_asks_again(self, bench: BrokerBench, doubtful: bool) -> None:
        clearing = bench.submit(OWNER, doubtful=doubtful)
        assert (clearing.kind, clearing.host) == (AWARDED, WORKER.node_id)

    def test_is_over_when_its_core_says_so_and_the_next_attempt_goes_elsewhere(self, bench: BrokerBench) -> None:
        bench.close(OWNER, "j-1", 1, BROKEN)
        assert bench.submit(OWNER, attempt=2).host == OTHER.node_id

    def test_is_over_with_the_next_attempt(self, bench: BrokerBench) -> None:
        assert bench.submit(OWNER, attempt=2).host == OTHER.node_id

    def test_holds_none_of_its_slots_once_it_is_back_and_says_what_it_holds(self, bench: BrokerBench) -> None:
        bench.up(WORKER, HOST)
        bench.wait(LEASE_GRACE_MS)
        bench.offer(WORKER, seq=1 << 32)
        assert bench.slots_free(WORKER) == 1


def test_the_queue_is_bounded_and_says_so() -> None:
    bench = BrokerBench(queue_max=2)
    bench.offer(slots=1)
    kinds = [bench.submit(OWNER, f"j-{number}").kind for number in range(4)]
    assert kinds == [AWARDED, QUEUED, QUEUED, REFUSED]
    assert bench.submit(OWNER, "j-1").kind == QUEUED, "who waits already is not turned away"


class TestACoreThatIsDown:
    """OWNER's order waits for the one slot, which RIVAL's job holds; then OWNER is seen dead."""

    @pytest.fixture
    def bench(self) -> BrokerBench:
        bench = BrokerBench()
        bench.offer(slots=1)
        bench.submit(RIVAL, "j-busy")
        bench.submit(OWNER)
        bench.down(OWNER)
        return bench

    def test_is_awarded_nothing(self, bench: BrokerBench) -> None:
        bench.submit(RIVAL, "j-next")
        bench.close(RIVAL, "j-busy", 1)
        assert [call.node for call in bench.calls("DeliverAwards")] == [RIVAL.node_id]

    def test_gets_its_turn_once_it_is_back(self, bench: BrokerBench) -> None:
        bench.close(RIVAL, "j-busy", 1)
        assert bench.slots_free() == 1
        bench.up(OWNER, CORE)
        assert [call.node for call in bench.calls("DeliverAwards")] == [OWNER.node_id]

    def test_is_not_down_while_it_speaks_and_what_waits_goes_before_what_it_says(self, bench: BrokerBench) -> None:
        bench.close(RIVAL, "j-busy", 1)
        assert bench.submit(OWNER, "j-fresh").kind == QUEUED
        assert [call.node for call in bench.calls("DeliverAwards")] == [OWNER.node_id]

    def test_is_waited_for_no_longer_than_its_grace(self, bench: BrokerBench) -> None:
        bench.wait(CORE_GRACE_MS - 1)
        assert bench.broker.queued == 1
        bench.wait(1)
        assert bench.broker.queued == 0
        assert list(bench.disk.scan(QUEUE)) == []

    def test_keeps_its_orders_if_it_comes_back_in_time(self, bench: BrokerBench) -> None:
        bench.up(OWNER, CORE)
        bench.wait(CORE_GRACE_MS)
        assert bench.broker.queued == 1

    def test_is_waited_for_no_longer_after_a_restart_of_the_broker(self, bench: BrokerBench) -> None:
        bench.restart()
        bench.wait(CORE_GRACE_MS)
        assert bench.broker.queued == 0


def test_the_leases_of_a_core_that_never_closes_them_expire() -> None:
    bench = BrokerBench()
    bench.offer()
    bench.submit(OWNER)
    bench.down(OWNER)
    bench.wait(order_of().timeout_ms + LEASE_MARGIN_MS)
    assert bench.slots_free() == 1


def test_the_next_in_line_gets_a_slot_even_if_one_before_it_wants_another_kind_of_host() -> None:
    bench = BrokerBench()
    bench.offer(WORKER)
    bench.offer(OTHER, kinds=["llm_call"])
    bench.submit(OWNER, "j-busy")
    bench.submit(OWNER, "j-busy-too", kind="llm_call")
    for job_id, kind in (("j-1", "compute"), ("j-2", "compute"), ("j-3", "llm_call")):
        assert bench.submit(OWNER, job_id, kind=kind).kind == QUEUED
    bench.close(OWNER, "j-busy-too", 1)
    assert bench.delivered() == ["j-3"]
    bench.close(OWNER, "j-busy", 1)
    assert bench.delivered() == ["j-3", "j-1"]


def test_the_slot_of_an_attempt_that_the_next_one_replaces_goes_to_whom_waits_for_it() -> None:
    bench = BrokerBench()
    bench.offer(slots=1)
    assert bench.submit(OWNER).kind == AWARDED
    assert bench.submit(OWNER, "j-urgent", priority=5).kind == QUEUED
    assert bench.submit(OWNER, attempt=2).kind == QUEUED
    assert bench.delivered() == ["j-urgent"]


def test_a_long_queue_is_not_walked_for_a_slot_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = BrokerBench(queue_max=1_000)
    bench.offer(WORKER, slots=1)
    bench.offer(OTHER, kinds=["llm_call"])
    bench.submit(OWNER, "j-busy")
    for number in range(500):
        bench.submit(OWNER, f"j-{number}")
    looks: list[int] = []
    award = Broker._award

    def look(broker: Broker, group: Group, orders: Sequence[JobOrder], now: Now) -> list[Lease]:
        looks.append(len(orders))
        return award(broker, group, orders, now)

    monkeypatch.setattr(Broker, "_award", look)
    bench.offer(WORKER, seq=2, slots=1)
    assert len(looks) <= 1
    assert bench.broker.queued == 500


def test_no_more_is_awarded_than_a_broker_remembers_whatever_hosts_offer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offgrid_node.protocol.jobs.broker.LEASES_MAX", 2)
    bench = BrokerBench()
    bench.offer(slots=9)
    assert [bench.submit(OWNER, f"j-{n}").kind for n in range(4)] == [AWARDED, AWARDED, QUEUED, QUEUED]
    bench.offer(seq=2, slots=9)
    assert bench.broker.queued == 2
    bench.close(OWNER, "j-0", 1)
    assert (bench.delivered(), bench.broker.queued) == (["j-2"], 1)


def test_who_had_a_job_is_not_forgotten_for_jobs_that_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offgrid_node.protocol.jobs.judging.TRIED_REMEMBERED", 2)
    bench = BrokerBench()
    bench.offer(WORKER, ask_micro=1)
    bench.offer(OTHER, ask_micro=5)
    assert bench.submit(OWNER, "j-lost").host == WORKER.node_id
    bench.close(OWNER, "j-lost", 1, EXCUSED)
    for number in range(3):
        assert bench.submit(OWNER, f"j-{number}").host == WORKER.node_id
        bench.close(OWNER, f"j-{number}", 1, SERVED)
    assert bench.submit(OWNER, "j-lost", 2).host == OTHER.node_id


class TestAHostsOffers:
    def test_that_are_older_than_the_newest_are_ignored(self) -> None:
        bench = BrokerBench()
        bench.offer(seq=9, slots=1)
        bench.offer(seq=8, slots=5)
        assert bench.slots_free() == 1

    def test_count_anew_in_its_next_life(self) -> None:
        bench = BrokerBench()
        bench.offer(seq=9, slots=1)
        bench.up(WORKER, HOST)
        bench.offer(seq=2, slots=5)
        assert bench.slots_free() == 5
        bench.offer(seq=1, slots=7)
        assert bench.slots_free() == 5


class TestAWordThatComesLater:
    """Of an execution of a redundant job the core says first that it is over, and once it has compared, how it went."""

    @pytest.mark.parametrize(("end", "better"), [(SERVED, True), (DISAGREED, False)])
    def test_counts_for_the_host_that_had_the_lease(self, end: jobs_pb2.LeaseEnd.ValueType, better: bool) -> None:
        bench = BrokerBench()
        bench.offer()
        bench.submit()
        before = bench.broker.reputation.of(WORKER.node_id)
        bench.close(OWNER, "j-1", 1, EXCUSED)
        assert bench.broker.reputation.of(WORKER.node_id) == before
        bench.close(OWNER, "j-1", 1, end)
        after = bench.broker.reputation.of(WORKER.node_id)
        assert (after > before, after < before) == (better, not better)
        bench.close(OWNER, "j-1", 1, end)
        assert bench.broker.reputation.of(WORKER.node_id) == after, "said once"

    def test_is_not_taken_from_another_core(self) -> None:
        bench = BrokerBench()
        bench.offer()
        bench.submit()
        bench.close(OWNER, "j-1", 1, EXCUSED)
        bench.close(RIVAL, "j-1", 1, DISAGREED)
        assert bench.broker.reputation.of(WORKER.node_id) == 0.5


@pytest.mark.parametrize("stood_still_ms", [OFFER_STANDS_MS - 1, OFFER_STANDS_MS])
def test_offers_that_ran_out_while_the_broker_stood_still_are_none(stood_still_ms: int) -> None:
    """A frozen process finds what came meanwhile before any timer of its own rings."""
    bench = Bench(MARKET)
    machine = JobsMachine(bench.settings)
    machine.load(bench.disk, bench.now)
    peers = [PeerUp(OWNER.node_id, "", frozenset({CORE})), PeerUp(WORKER.node_id, "", frozenset({HOST}))]
    machine.step(peers, bench.now, bench.rng)
    request = jobs_pb2.PostOffersRequest(
        host=WORKER.node_id,
        seq=1,
        profile=jobs_pb2.HostProfile(host=WORKER.node_id, slots=1),
        offers=[jobs_pb2.Offer(offer_id=1, slots=1, executors=["wasm"], kinds=["compute"], expiry_ms=OFFER_STANDS_MS)],
    )
    machine.step([Asked(1, WORKER.node_id, PostOffers(request))], bench.now, bench.rng)
    bench.now_ms += stood_still_ms
    order = Asked(2, OWNER.node_id, SubmitJobs(OWNER.node_id, (order_of(OWNER),)))
    bench.effects += machine.step([order], bench.now, bench.rng)
    stands = stood_still_ms < OFFER_STANDS_MS
    assert bench.replied(jobs_pb2.SubmitJobsResponse).clearings[0].kind == (AWARDED if stands else NO_HOST)
