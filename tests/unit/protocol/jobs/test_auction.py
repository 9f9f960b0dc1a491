"""Who wins and what is paid: scores, reserves, batches, and what a lone host gets."""

from __future__ import annotations

import pytest
from job_bench import MARKET, OTHER, OWNER, RIVAL, WORKER, BrokerBench, order_of

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.events import HOST
from offgrid_node.protocol.jobs import verdicts
from offgrid_node.protocol.jobs.closing import BROKEN, DISAGREED, SERVED
from offgrid_node.protocol.jobs.commands import SubmitJobs
from offgrid_node.protocol.jobs.reputation import KEEP_MS
from offgrid_node.protocol.jobs.verdicts import explain

AWARDED, QUEUED, NO_HOST = (
    jobs_pb2.CLEARING_KIND_AWARDED,
    jobs_pb2.CLEARING_KIND_QUEUED,
    jobs_pb2.CLEARING_KIND_NO_HOST,
)
MILLION = 1_000_000  # tokens: then a job's price is the price per million
RESERVE = 9_000


@pytest.fixture
def bench() -> BrokerBench:
    """WORKER asks 1,000, OTHER 2,000, a slot each."""
    bench = BrokerBench()
    bench.offer(WORKER, price=1_000)
    bench.offer(OTHER, price=2_000)
    return bench


def auction(bench: BrokerBench, job_id: str = "j-1", **terms: object) -> jobs_pb2.Clearing:
    return bench.submit(OWNER, job_id, **{"size_tokens": MILLION, "price_max_micro": RESERVE, **terms})


def batch(bench: BrokerBench, *sizes: int) -> list[jobs_pb2.Clearing]:
    """Several alike orders in one call."""
    orders = tuple(
        order_of(OWNER, f"b-{n}")._replace(size_tokens=size, price_max_micro=RESERVE) for n, size in enumerate(sizes)
    )
    bench.broker.on_submit(1, SubmitJobs(OWNER.node_id, orders), bench.now)
    bench.close_step()
    return list(bench.replied(jobs_pb2.SubmitJobsResponse).clearings)


class TestThePrice:
    def test_is_what_the_next_best_would_have_taken(self, bench: BrokerBench) -> None:
        won = auction(bench)
        assert (won.host, won.price_micro) == (WORKER.node_id, 2_000)

    def test_is_no_matter_of_the_winners_own_ask(self, bench: BrokerBench) -> None:
        bench.offer(WORKER, seq=2, price=1)
        assert auction(bench).price_micro == 2_000

    def test_is_the_reserve_where_a_host_stands_alone(self, bench: BrokerBench) -> None:
        auction(bench)
        alone = auction(bench, "j-2")
        assert (alone.host, alone.price_micro) == (OTHER.node_id, RESERVE)

    def test_is_the_ask_of_one_that_stands_alone_where_the_core_names_no_reserve(self, bench: BrokerBench) -> None:
        auction(bench)
        assert auction(bench, "j-2", price_max_micro=0).price_micro == 2_000

    def test_is_never_above_the_reserve(self, bench: BrokerBench) -> None:
        assert auction(bench, price_max_micro=1_500).price_micro == 1_500

    def test_of_jobs_that_are_alike_is_the_same(self) -> None:
        bench = BrokerBench()
        bench.seen(HOST, MARKET)
        for host, price in ((WORKER, 1_000), (OTHER, 2_000), (MARKET, 4_000)):
            bench.offer(host, price=price)
        won = batch(bench, MILLION, MILLION)
        assert {each.host for each in won} == {WORKER.node_id, OTHER.node_id}
        assert [each.price_micro for each in won] == [4_000, 4_000]

    def test_of_several_slots_is_made_by_others_only(self) -> None:
        bench = BrokerBench()
        bench.offer(WORKER, price=1_000, slots=4)
        bench.offer(OTHER, price=3_000, slots=1)
        won = batch(bench, MILLION, MILLION)
        assert {each.host for each in won} == {WORKER.node_id}
        assert [each.price_micro for each in won] == [(3_000 + RESERVE) // 2] * 2


class TestAHostIsNotAble:
    def test_where_it_asks_more_than_the_reserve(self, bench: BrokerBench) -> None:
        refused = auction(bench, price_max_micro=999)
        assert refused.kind == NO_HOST
        assert "at 0.000999 per million tokens or less" in refused.detail

    def test_where_the_requirements_do_not_hold(self, bench: BrokerBench) -> None:
        profile = {"memory_mb": 4_096}
        offer = jobs_pb2.Offer(offer_id=1, slots=1, executors=["wasm"], kinds=["compute"], expiry_ms=10**6)
        bench.say(OTHER, seq=2, offers=[offer], profile=profile)
        assert auction(bench, requirements="memory_mb > 4000").host == OTHER.node_id
        refused = auction(bench, "j-2", requirements="memory_mb > 5000")
        assert (refused.kind, "memory_mb > 5000" in refused.detail) == (NO_HOST, True)

    def test_where_the_order_avoids_it(self, bench: BrokerBench) -> None:
        assert auction(bench, avoid=(WORKER.node_id,)).host == OTHER.node_id
        assert auction(bench, "j-2", avoid=(WORKER.node_id, OTHER.node_id)).kind == NO_HOST

    def test_for_cores_that_it_does_not_name(self, bench: BrokerBench) -> None:
        bench.offer(WORKER, seq=2, price=1_000, owners=[RIVAL.node_id])
        assert auction(bench).host == OTHER.node_id
        assert bench.submit(RIVAL).host == WORKER.node_id

    def test_for_cores_that_another_offer_of_its_names(self) -> None:
        bench = BrokerBench()
        common = {"slots": 1, "executors": ["wasm"], "kinds": ["compute"], "expiry_ms": 10**6}
        plain, denied = jobs_pb2.Offer(offer_id=2, **common), jobs_pb2.Offer(offer_id=1, **{**common, "slots": 0})
        denied.owners.append(OWNER.node_id)
        bench.say(WORKER, seq=1, offers=[plain, denied])
        assert auction(bench).kind == NO_HOST
        assert bench.submit(RIVAL).kind == AWARDED

    def test_by_the_name_that_its_membership_record_does_not_have(self, bench: BrokerBench) -> None:
        bench.say(WORKER, seq=2, profile={"name": "vault", "failure_domain": "moon"})
        assert auction(bench, requirements='domain == "moon" or host == "vault"').kind == NO_HOST


class TestReputation:
    def test_of_who_broke_leases_makes_it_last_for_that_core(self, bench: BrokerBench) -> None:
        for number in range(2):
            assert auction(bench, f"j-{number}").host == WORKER.node_id
            bench.close(OWNER, f"j-{number}", 1, BROKEN)
        assert auction(bench, "j-8").host == OTHER.node_id
        assert auction(bench, "j-9").host == WORKER.node_id, "who else is there?"

    def test_does_not_go_down_for_others_by_one_core_s_word(self, bench: BrokerBench) -> None:
        for number in range(50):
            bench.submit(RIVAL, f"j-{number}")
            bench.close(RIVAL, f"j-{number}", 1, DISAGREED)
            bench.close(RIVAL, f"j-{number}", 1, DISAGREED)
        assert bench.broker.reputation.of(WORKER.node_id) >= 0.25
        assert auction(bench, "mine").host == WORKER.node_id

    def test_outlives_the_broker(self, bench: BrokerBench) -> None:
        for number in range(8):
            auction(bench, f"j-{number}")
            bench.close(OWNER, f"j-{number}", 1, SERVED)
        known = bench.broker.reputation.of(WORKER.node_id)
        assert known > 0.5
        bench.wait(KEEP_MS)
        bench.restart()
        assert bench.broker.reputation.of(WORKER.node_id) == known

    def test_of_leases_that_were_never_awarded_here_is_nobody_s(self, bench: BrokerBench) -> None:
        bench.close(OWNER, "j-none", 1, BROKEN)
        assert bench.broker.reputation.of(WORKER.node_id) == 0.5


class TestWhatWaits:
    @pytest.fixture
    def full(self) -> BrokerBench:
        bench = BrokerBench()
        bench.offer(WORKER)
        bench.submit(RIVAL, "j-busy")
        return bench

    def test_goes_by_priority_then_age_and_stays_so_over_a_restart(self, full: BrokerBench) -> None:
        for job_id, priority in (("z-old", 0), ("b-low", -1), ("a-new", 0), ("c-high", 5)):
            assert full.submit(OWNER, job_id, priority=priority).kind == QUEUED
        full.restart()
        full.seen(HOST, WORKER)
        full.offer(WORKER, seq=1 << 32, slots=1)
        for job_id in ("c-high", "z-old", "a-new", "b-low"):
            assert full.delivered()[-1] == job_id
            full.close(OWNER, job_id, 1)

    def test_goes_before_who_comes_with_the_call_that_frees_the_slot(self, full: BrokerBench) -> None:
        full.submit(OWNER, "waits")
        full.close(RIVAL, "j-busy", 1)
        assert full.submit(RIVAL, "late").kind == QUEUED
        assert full.delivered() == ["waits"]


class TestTheVerdicts:
    def test_say_of_every_host_why(self, bench: BrokerBench) -> None:
        bench.seen(HOST, MARKET)
        bench.offer(MARKET, kinds=["llm_call"])
        order = order_of(OWNER)._replace(price_max_micro=1_500)
        said = explain(bench.broker.book, order, bench.broker.group_of(order))
        assert [(each.wins, each.able) for each in said.verdicts] == [(True, True), (False, False), (False, False)]
        assert said.price_micro == 1_500
        reasons = {each.host: each.reason for each in said.verdicts}
        assert reasons == {
            WORKER.node_id: "the best score",
            OTHER.node_id: "asks 0.002 per million tokens; the job pays 0.0015 at most",
            MARKET.node_id: "takes no jobs of kind compute",
        }
        assert bench.slots_free(WORKER) == 1, "nothing is awarded"

    def test_come_with_the_word_that_there_is_no_host(self, bench: BrokerBench) -> None:
        bench.offer(MARKET, kinds=["llm_call"])
        said = bench.submit(OWNER, "j-1", requirements="cpus > 8")
        assert said.kind == NO_HOST
        against = "; ".join(f"{host}: cpus > 8 is false: it has 0" for host in (WORKER.node_id, OTHER.node_id))
        assert said.detail == f"no live host offers 'wasm' for kind 'compute' where cpus > 8; {against}"

    def test_where_none_offers_it_says_what_would(self, bench: BrokerBench) -> None:
        said = bench.submit(OWNER, "j-1", needs="process:wc")
        assert said.kind == NO_HOST
        assert '; a host, started anew, offers it with [host.process] commands = { wc = "/usr/bin/wc" }' in said.detail

    def test_where_nobody_is_there_no_config_is_blamed(self) -> None:
        said = BrokerBench().submit(OWNER, "j-1", needs="process:wc")
        assert said.detail.endswith("; no host is alive: `offgrid peers` shows who is in reach")

    def test_are_then_no_more_than_a_few(self, bench: BrokerBench, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(verdicts, "HOSTS_NAMED", 1)
        assert bench.submit(OWNER, "j-1", requirements="cpus > 8").detail.count("is false") == 1

    @pytest.mark.parametrize(
        ("terms", "why"),
        [
            ({"needs": "process:wc"}, "does not offer process:wc"),
            ({"avoid": (WORKER.node_id,)}, "the job avoids it"),
            ({"requirements": "cpus > 8"}, "cpus > 8 is false: it has 0"),
        ],
    )
    def test_name_the_first_thing_against_it(self, bench: BrokerBench, terms: dict[str, object], why: str) -> None:
        order = order_of(OWNER)._replace(**terms)
        said = explain(bench.broker.book, order, bench.broker.group_of(order))
        assert why in {each.reason for each in said.verdicts if each.host == WORKER.node_id}

    def test_tell_a_busy_host_and_a_dearer_one_apart(self, bench: BrokerBench) -> None:
        order = order_of(OWNER, "j-2")
        reasons = [each.reason for each in explain(bench.broker.book, order, bench.broker.group_of(order)).verdicts]
        assert reasons == ["the best score", "its score is 0.0025, the winner's 0.0015"]
        auction(bench)
        reasons = [each.reason for each in explain(bench.broker.book, order, bench.broker.group_of(order)).verdicts]
        assert reasons == ["the best score", "no free slot: 1 of 1 are in use"]
