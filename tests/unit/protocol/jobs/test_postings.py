"""What hosts tell a broker: changes, epochs, credit, expiry; and every bound of the book and the line."""

from __future__ import annotations

import pytest
from job_bench import OTHER, OWNER, RIVAL, WORKER, BrokerBench, order_of

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.errors import Exhausted
from offgrid_node.protocol.events import CORE
from offgrid_node.protocol.jobs import postings
from offgrid_node.protocol.jobs.backlog import LANES_MAX, SHARE, Backlog
from offgrid_node.protocol.jobs.book import Book
from offgrid_node.protocol.jobs.bounds import OFFER_LISTS_MAX, OFFERS_BYTES_MAX
from offgrid_node.protocol.jobs.closing import BROKEN, SERVED
from offgrid_node.protocol.jobs.orders import JobOrder
from offgrid_node.protocol.jobs.postings import CREDIT_MAX, CREDIT_MS
from offgrid_node.protocol.jobs.reputation import KEEP_MS, REPUTATION, Reputation

WASM = jobs_pb2.Offer(offer_id=1, slots=2, executors=["wasm"], kinds=["compute"], ask_micro=5, expiry_ms=10_000)
ECHO = jobs_pb2.Offer(offer_id=2, slots=2, executors=["builtin:echo"], kinds=["compute"], expiry_ms=10_000)


def entry(bench: BrokerBench) -> jobs_pb2.BookEntry:
    return next(each for each in bench.broker.entries() if each.profile.host == WORKER.node_id)


def said(bench: BrokerBench, **fields: object) -> jobs_pb2.PostOffersResponse:
    answer = bench.say(slots=2, **fields)
    assert isinstance(answer, jobs_pb2.PostOffersResponse)
    return answer


@pytest.fixture
def bench() -> BrokerBench:
    bench = BrokerBench()
    said(bench, seq=10, offers=[WASM], held=[f"{OWNER.node_id}/j-0/1"])
    return bench


class TestAWordOfChanges:
    def test_leaves_the_rest_as_it_was(self, bench: BrokerBench) -> None:
        assert said(bench, seq=11, base_seq=10, offers=[ECHO]).seq == 11
        assert [offer.offer_id for offer in entry(bench).offers] == [1, 2]
        assert entry(bench).slots_free == 1
        assert said(bench, seq=12, base_seq=11, withdrawn=[1], released=[f"{OWNER.node_id}/j-0/1"]).seq == 12
        assert [offer.offer_id for offer in entry(bench).offers] == [2]
        assert entry(bench).slots_free == 2

    def test_is_not_taken_where_one_before_it_was_missed(self, bench: BrokerBench) -> None:
        assert said(bench, seq=13, base_seq=12, offers=[ECHO]).seq == 10
        assert [offer.offer_id for offer in entry(bench).offers] == [1]

    def test_is_taken_once(self, bench: BrokerBench) -> None:
        said(bench, seq=11, base_seq=10, held=[f"{OWNER.node_id}/j-1/1"])
        said(bench, seq=11, base_seq=10, held=[f"{OWNER.node_id}/j-2/1"])
        assert entry(bench).slots_free == 0

    def test_can_pause_all(self, bench: BrokerBench) -> None:
        said(bench, seq=11, base_seq=10, paused=True)
        assert bench.submit().kind == jobs_pb2.CLEARING_KIND_NO_HOST
        said(bench, seq=12, base_seq=11)
        assert bench.submit().kind == jobs_pb2.CLEARING_KIND_AWARDED

    def test_that_says_all_replaces_all(self, bench: BrokerBench) -> None:
        said(bench, seq=11, offers=[ECHO])
        assert [offer.offer_id for offer in entry(bench).offers] == [2]
        assert entry(bench).slots_free == 2


class TestABrokerThatStartsAnew:
    def test_has_another_epoch_and_knows_no_host(self, bench: BrokerBench) -> None:
        before = said(bench, seq=11, base_seq=10)
        bench.restart()
        bench.seen(CORE, OWNER)
        after = said(bench, seq=12, base_seq=11)
        assert (after.broker_epoch, after.seq) == (before.broker_epoch + 1, 0)

    def test_has_its_epoch_on_disk_before_it_says_it(self) -> None:
        bench = BrokerBench()
        assert postings.EPOCH_KEY not in {key for _, key in bench.disk.rows}
        epoch = said(bench, seq=1).broker_epoch
        assert int.from_bytes(bench.disk.rows[postings.META, postings.EPOCH_KEY], "big") == epoch

    def test_says_its_epoch_to_cores_as_well(self, bench: BrokerBench) -> None:
        bench.submit()
        assert bench.replied(jobs_pb2.SubmitJobsResponse).broker_epoch == said(bench, seq=11).broker_epoch


class TestOffersStand:
    def test_no_longer_than_their_host_said_with_its_last_word(self, bench: BrokerBench) -> None:
        bench.wait(9_999)
        said(bench, seq=11, base_seq=10)
        bench.wait(9_999)
        assert len(list(bench.broker.entries())) == 1
        bench.wait(1)
        assert list(bench.broker.entries()) == []
        assert said(bench, seq=12, base_seq=11).seq == 0, "it must say all again"


class TestAFloodOfWords:
    def test_is_refused_with_a_time_to_come_back(self, bench: BrokerBench) -> None:
        answers = [said(bench, seq=11 + n, base_seq=10 + n) for n in range(CREDIT_MAX - 1)]
        assert [each.credit for each in answers] == list(range(CREDIT_MAX - 2, -1, -1))
        assert answers[-1].retry_ms == CREDIT_MS
        refused = bench.say(slots=2, seq=99, offers=[ECHO])
        assert isinstance(refused, Exhausted)
        assert refused.retry_ms == CREDIT_MS
        bench.wait(CREDIT_MS)
        assert said(bench, seq=99, offers=[ECHO]).seq == 99

    def test_of_one_host_is_no_other_host_s_matter(self, bench: BrokerBench) -> None:
        for number in range(CREDIT_MAX):
            bench.say(slots=2, seq=11 + number, base_seq=10 + number)
        assert isinstance(bench.say(OTHER, seq=1, offers=[WASM]), jobs_pb2.PostOffersResponse)


class TestChangesThatOnlyAdd:
    """Each is within bounds; all of them together are as well."""

    def test_hold_no_more_than_a_whole_word_may(self, bench: BrokerBench) -> None:
        bench.say(slots=2, seq=11, held=[f"{OWNER.node_id}/j-{n}/1" for n in range(OFFER_LISTS_MAX)])
        more = [f"{OWNER.node_id}/j-more/1"]
        refused = bench.say(slots=2, seq=12, base_seq=11, held=more)
        assert isinstance(refused, Exhausted)
        assert refused.reason == "OffersTooLarge"
        standing = bench.broker.book.get(WORKER.node_id)
        assert standing is not None
        assert (len(standing.held), standing.seq) == (OFFER_LISTS_MAX, 11)
        gone = [f"{OWNER.node_id}/j-0/1"]
        assert said(bench, seq=12, base_seq=11, held=more, released=gone).seq == 12

    def test_offer_no_more_than_a_whole_word_may(self, bench: BrokerBench) -> None:
        owners = [f"{n:064}" for n in range(1_024)]
        seq = 10
        for number in range(2, 10):
            offer = jobs_pb2.Offer(offer_id=number, executors=["wasm"], owners=owners, expiry_ms=10_000)
            answer = bench.say(slots=2, seq=seq + 1, base_seq=seq, offers=[offer])
            if isinstance(answer, Exhausted):
                break
            seq += 1
        assert 10 < seq < 15
        assert sum(offer.ByteSize() for offer in entry(bench).offers) <= OFFERS_BYTES_MAX


def test_the_book_holds_so_many_hosts(bench: BrokerBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postings, "HOSTS_MAX", 1)
    assert isinstance(bench.say(OTHER, seq=1, offers=[WASM]), Exhausted)
    assert said(bench, seq=11, base_seq=10).seq == 11, "who is in it already is not turned away"


def test_a_full_book_hears_whoever_says_little(bench: BrokerBench, monkeypatch: pytest.MonkeyPatch) -> None:
    long = [jobs_pb2.Offer(offer_id=n, executors=["x" * 100] * 10, expiry_ms=10_000) for n in range(1, 9)]
    monkeypatch.setattr(postings, "BOOK_BYTES_MAX", 10_000)
    assert said(bench, seq=11, base_seq=10, offers=long).seq == 11
    refused = bench.say(OTHER, seq=1, offers=long)
    assert isinstance(refused, Exhausted)
    assert refused.reason == "BookFull"
    assert isinstance(bench.say(OTHER, seq=1, offers=[WASM]), jobs_pb2.PostOffersResponse)
    assert isinstance(bench.say(OTHER, seq=2, base_seq=1, offers=long), Exhausted), "by and by it is no less"
    assert said(bench, seq=12, base_seq=11).seq == 12, "who says nothing new is not turned away"
    assert said(bench, seq=13, base_seq=12, withdrawn=range(1, 9)).seq == 13
    assert isinstance(bench.say(OTHER, seq=2, base_seq=1, offers=long), jobs_pb2.PostOffersResponse)
    bench.broker.postings.drop(OTHER.node_id)
    bench.broker.postings.drop(WORKER.node_id)
    assert bench.broker.postings._said_bytes == 0


def test_a_book_in_which_too_many_hosts_have_changed_makes_its_classes_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offgrid_node.protocol.jobs.book.CHANGED_MAX", 3)
    book = Book()
    book.seats(order_of())
    for number in range(4):
        book.has_changed(f"h{number}")
    assert (len(book.classes), len(book._changed)) == (0, 0)


def add(backlog: Backlog, order: JobOrder) -> None:
    backlog.add(order.key, order.encode())


def refusal(backlog: Backlog, order: JobOrder, *, alone: bool) -> str:
    return backlog.refusal(order.core, order.encode(), alone=alone)


class TestTheLine:
    def line(self, count: int, *, queue_max: int = 100) -> Backlog:
        backlog = Backlog(queue_max)
        for number in range(count):
            add(backlog, order_of(OWNER, f"j-{number}"))
        return backlog

    def test_gives_a_core_that_is_alone_all_room(self) -> None:
        assert refusal(self.line(99), order_of(), alone=True) == ""
        assert "100 orders already" in refusal(self.line(100), order_of(), alone=True)

    def test_keeps_room_for_other_cores(self) -> None:
        full = SHARE * 100 // (SHARE + 1)
        assert refusal(self.line(full - 1), order_of(), alone=False) == ""
        assert "for others" in refusal(self.line(full), order_of(), alone=False)
        assert refusal(self.line(full), order_of(RIVAL), alone=False) == ""

    def test_tells_so_many_kinds_of_orders_of_a_core_apart(self) -> None:
        backlog = Backlog(10_000)
        orders = [order_of(OWNER, f"j-{n}")._replace(requirements=f"cpus > {n}") for n in range(LANES_MAX + 1)]
        for order in orders[:-1]:
            add(backlog, order)
        assert "different terms" in refusal(backlog, orders[-1], alone=True)
        assert refusal(backlog, orders[0]._replace(job_id="more"), alone=True) == ""
        for order in orders[:-1]:
            backlog.pop(order.key)
        assert (len(backlog), backlog._lanes, backlog._count_of, backlog._lanes_of) == (0, {}, {}, {})

    def test_says_when_to_come_back(self) -> None:
        bench = BrokerBench(queue_max=1)
        bench.offer()
        for job_id in ("runs", "waits"):
            bench.submit(OWNER, job_id)
        refused = bench.submit(OWNER, "too much")
        assert (refused.kind, refused.retry_ms) == (jobs_pb2.CLEARING_KIND_REFUSED, 2_000)


class TestVotes:
    def test_are_bounded_and_the_oldest_go_first(self) -> None:
        bench = BrokerBench()
        reputation = Reputation(bench.post, votes_max=2)
        for host in ("a", "b", "c"):
            reputation.on_end("core", host, SERVED, bench.now)
        bench.now_ms += KEEP_MS
        reputation.on_wake(bench.now)
        bench.settle()
        assert [reputation.of(host) > 0.5 for host in "abc"] == [False, True, True]
        again = Reputation(bench.post)
        again.load(bench.disk)
        assert [again.of(host) > 0.5 for host in "abc"] == [False, True, True]

    def test_are_written_once_for_all_that_was_said_in_a_while(self) -> None:
        bench = BrokerBench()
        bench.offer(slots=2)
        for number in range(50):
            bench.submit(OWNER, f"j-{number}")
            bench.close(OWNER, f"j-{number}", 1, SERVED)
        assert list(bench.disk.scan(REPUTATION)) == []
        due_ms = bench.broker.deadline_ms()
        assert due_ms is not None
        assert due_ms <= KEEP_MS
        bench.wait(KEEP_MS)
        [(key, _)] = bench.disk.scan(REPUTATION)
        assert key == f"{WORKER.node_id}/{OWNER.node_id}".encode()
        assert sum(getattr(effect, "table", "") == REPUTATION for effect in bench.effects) == 1

    def test_fade_until_nobody_is_known_any_more(self) -> None:
        bench = BrokerBench()
        reputation = bench.broker.reputation
        for _ in range(10):
            reputation.on_end("core", "a", BROKEN, bench.now)
        assert reputation.distrusted("core") == ("a",)
        bench.now_ms += 3 * 24 * 3_600_000
        reputation.handicap("a", bench.now)
        assert reputation.distrusted("core") == ()
        assert abs(reputation.of("a") - 0.5) < 0.05

    def test_are_not_moved_by_a_clock_that_goes_back(self) -> None:
        bench = BrokerBench()
        bench.now_ms = 10**9
        reputation = bench.broker.reputation
        reputation.on_end("core", "a", BROKEN, bench.now)
        before = reputation.of("a")
        bench.now_ms = 0
        reputation.handicap("a", bench.now)
        assert reputation.of("a") == before

    def test_count_time_against_what_the_same_core_s_jobs_take_elsewhere(self) -> None:
        bench = BrokerBench()
        reputation = bench.broker.reputation
        for _ in range(200):
            reputation.on_served("core", "slow", "compute", "wasm", 300, bench.now)
            reputation.on_served("core", "fast", "compute", "wasm", 100, bench.now)
            reputation.on_served("core", "long", "compute", "process:hours", 10**7, bench.now)
        assert reputation.late_ms("slow") > 50
        assert reputation.late_ms("fast") < -50
        assert reputation.late_ms("long") == 0
