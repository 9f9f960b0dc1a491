"""What a host says to each broker, and when: all of it once, then what has changed; and again when it was not taken."""

from __future__ import annotations

import pytest
from job_bench import MARKET, OTHER, OWNER, HostBench

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.effects import Answered
from offgrid_node.protocol.errors import Exhausted, Fault, Unavailable
from offgrid_node.protocol.events import BROKER
from offgrid_node.protocol.jobs.offering import FREED_MS, OFFER_REFRESH_MS, OFFER_RETRY_MS
from offgrid_node.protocol.jobs.post import CALL_TIMEOUT_MAX_MS, Tag


class Talk:
    """A host of two slots that has said all of itself to MARKET."""

    def __init__(self) -> None:
        self.bench = HostBench(slots=2)
        self.bench.host.load(self.bench.disk, self.bench.now)
        self.step()

    def step(self, ms: int = 0) -> None:
        self.bench.wait(ms)
        self.bench.host.say_offer(self.bench.now)
        self.bench.settle()

    def said(self, broker: str = MARKET.node_id) -> list[jobs_pb2.PostOffersRequest]:
        requests = [call.request for call in self.bench.calls("PostOffers") if call.node == broker]
        return [request for request in requests if isinstance(request, jobs_pb2.PostOffersRequest)]

    def answer(
        self, seq: int | None = None, *, epoch: int = 1, credit: int = 9, retry_ms: int = 0, fault: Fault | None = None
    ) -> None:
        reply = jobs_pb2.PostOffersResponse(
            broker_epoch=epoch, seq=self.said()[-1].seq if seq is None else seq, credit=credit, retry_ms=retry_ms
        )
        tag = Tag("PostOffers", MARKET.node_id, ())
        answered = Answered(tag, MARKET.node_id, None if fault else reply, fault)
        self.bench.host.offering.on_offered(MARKET.node_id, answered, self.bench.now)
        self.step()


@pytest.fixture
def talk() -> Talk:
    return Talk()


def test_the_first_word_says_all(talk: Talk) -> None:
    [word] = talk.said()
    assert word.base_seq == 0
    assert (word.profile.slots, list(word.profile.executors)) == (2, ["wasm"])
    assert [(offer.offer_id, offer.slots) for offer in word.offers] == [(1, 2)]


def test_an_empty_word_keeps_it_standing(talk: Talk) -> None:
    talk.answer()
    talk.step(OFFER_REFRESH_MS)
    [first, word] = talk.said()
    assert word == jobs_pb2.PostOffersRequest(host=first.host, seq=first.seq + 1, base_seq=first.seq)


def test_what_it_holds_is_told_as_it_comes_and_goes(talk: Talk) -> None:
    talk.answer()
    talk.bench.begin(OWNER, "j-1")
    talk.step(OFFER_REFRESH_MS)
    assert list(talk.said()[-1].held) == [f"{OWNER.node_id}/j-1/1"]
    talk.answer()
    talk.bench.finish(*talk.bench.executions())
    talk.step(OFFER_REFRESH_MS)
    assert (list(talk.said()[-1].held), list(talk.said()[-1].released)) == ([], [f"{OWNER.node_id}/j-1/1"])


class TestAFreeSlotIsTold:
    """To brokers that believe it taken by another's award: they would hear of it with the next refresh only."""

    @pytest.fixture
    def two(self, talk: Talk) -> Talk:
        talk.answer()
        talk.bench.seen(BROKER, OTHER)
        talk.bench.host.on_peer_up(frozenset({BROKER}), OTHER.node_id, talk.bench.now)
        talk.bench.begin(OWNER, "j-1")
        talk.step()
        talk.answer()
        return talk

    def test_soon_after_the_word_that_told_of_its_use(self, two: Talk) -> None:
        two.bench.finish(*two.bench.executions())
        two.step(FREED_MS - 1)
        assert not two.said()[-1].released
        two.step(1)
        assert list(two.said()[-1].released) == [f"{OWNER.node_id}/j-1/1"]

    def test_at_once_where_that_word_is_old(self, two: Talk) -> None:
        two.step(FREED_MS)
        two.bench.finish(*two.bench.executions())
        two.step()
        assert list(two.said()[-1].released) == [f"{OWNER.node_id}/j-1/1"]

    def test_not_where_nobody_was_told_of_its_use(self, two: Talk) -> None:
        two.bench.begin(OWNER, "j-2")
        words = len(two.said())
        two.bench.finish(two.bench.executions()[-1])
        two.step(FREED_MS)
        assert len(two.said()) == words

    def test_not_to_a_broker_that_is_alone_for_it_hears_of_its_own_awards_from_cores(self, talk: Talk) -> None:
        talk.answer()
        talk.bench.begin(OWNER, "j-1")
        talk.step(OFFER_REFRESH_MS)
        talk.answer()
        talk.bench.finish(*talk.bench.executions())
        talk.step(FREED_MS)
        assert not talk.said()[-1].released


class TestAllIsSaidAgain:
    def test_to_a_broker_that_took_another_word(self, talk: Talk) -> None:
        talk.answer()
        talk.step(OFFER_REFRESH_MS)
        talk.answer(seq=7)
        talk.step(2 * OFFER_RETRY_MS)
        assert talk.said()[-1].base_seq == 0

    def test_to_a_broker_of_another_epoch(self, talk: Talk) -> None:
        talk.answer(epoch=1)
        talk.step(OFFER_REFRESH_MS)
        talk.answer(epoch=2)
        talk.step(2 * OFFER_RETRY_MS)
        assert talk.said()[-1].base_seq == 0

    def test_to_a_broker_that_comes_up_and_to_no_other(self, talk: Talk) -> None:
        talk.answer()
        talk.bench.seen(BROKER, OTHER)
        talk.bench.host.on_peer_up(frozenset({BROKER}), OTHER.node_id, talk.bench.now)
        talk.step()
        assert [word.base_seq for word in talk.said(OTHER.node_id)] == [0]
        assert talk.said()[-1].base_seq == talk.said()[0].seq

    def test_after_a_call_that_failed(self, talk: Talk) -> None:
        talk.answer(fault=Unavailable("no road"))
        assert len(talk.said()) == 1
        talk.step(2 * OFFER_RETRY_MS)
        assert [word.base_seq for word in talk.said()] == [0, 0]


def test_one_word_is_under_way_at_a_time_and_what_has_changed_meanwhile_follows(talk: Talk) -> None:
    talk.bench.begin(OWNER, "j-1")
    talk.bench.host.offering.hurry()
    talk.step()
    assert len(talk.said()) == 1
    talk.answer()
    assert list(talk.said()[-1].held) == [f"{OWNER.node_id}/j-1/1"]


def test_a_call_whose_end_gets_lost_is_not_waited_for_for_ever(talk: Talk) -> None:
    talk.step(OFFER_REFRESH_MS)
    assert len(talk.said()) == 1
    talk.step(CALL_TIMEOUT_MAX_MS)
    assert len(talk.said()) == 2


@pytest.mark.parametrize("fault", [None, Exhausted("flood", retry_ms=700)])
def test_a_broker_whose_credit_is_used_up_is_left_alone_for_as_long_as_it_says(talk: Talk, fault: Fault | None) -> None:
    talk.answer(credit=0, retry_ms=700, fault=fault)
    talk.bench.host.offering.hurry()
    talk.step(699)
    assert len(talk.said()) == 1
    talk.step(1)
    assert len(talk.said()) == 2


def test_numbers_rise_over_a_restart(talk: Talk) -> None:
    before = talk.said()[-1].seq
    talk.bench.restart()
    talk.step()
    assert talk.said()[-1].seq > before
