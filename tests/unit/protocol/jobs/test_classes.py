"""Classes of jobs: who fits whatever has changed, what each core may have of them, and what a flood of them is told."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from job_bench import OTHER, OWNER, RIVAL, WORKER, BrokerBench, order_of

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.errors import Exhausted, InvalidRequest
from offgrid_node.protocol.jobs import classes
from offgrid_node.protocol.jobs.book import Book, Standing
from offgrid_node.protocol.jobs.classes import (
    CLASSES_OF_CORE_MAX,
    LOOKS_MAX,
    LOOKS_TO_EXPLAIN,
    LOOKS_TO_READ,
    Seat,
    with_barred,
)
from offgrid_node.protocol.jobs.orders import JobOrder
from offgrid_node.protocol.jobs.requirements import parse
from offgrid_tools.sim.crypto import SimSigner

AWARDED, QUEUED, REFUSED = (
    jobs_pb2.CLEARING_KIND_AWARDED,
    jobs_pb2.CLEARING_KIND_QUEUED,
    jobs_pb2.CLEARING_KIND_REFUSED,
)
TEXTS = ("", "cpus > 1", "cpus > 2 and memory_mb < 3", 'label.rack == "a" or not cpus > 1')
NEEDS = ("wasm", "process:wc")


def order(text: str, needs: str = "wasm", core: SimSigner = OWNER) -> JobOrder:
    return order_of(core)._replace(requirements=text, needs=needs)


def kind(number: int) -> str:
    """Of requirements; each number another class, that any host fits."""
    return f"cpus >= 0 and memory_mb >= 0 and slots < {1_000 + number}"


def naive(book: Book, text: str, needs: str) -> list[tuple[int, str, int]]:
    holds = parse(text).holds
    return sorted(
        (bid.score, standing.host, bid.offer.offer_id)
        for standing in book
        for bid in standing.bids
        if standing.is_open and bid.slots and needs in bid.executors and "compute" in bid.kinds
        if holds(standing.profile)
    )


STANDINGS = st.builds(
    lambda cpus, memory, rack, asks, alive: (
        jobs_pb2.HostProfile(cpus=cpus, memory_mb=memory, slots=2, labels={"rack": rack}),
        [
            jobs_pb2.Offer(offer_id=n, executors=needs, kinds=["compute"], ask_micro=ask, slots=slots)
            for n, (ask, slots, needs) in enumerate(asks, 1)
        ],
        alive,
    ),
    st.integers(0, 4),
    st.integers(0, 4),
    st.sampled_from("ab"),
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 2), st.lists(st.sampled_from(NEEDS), unique=True)), max_size=3
    ),
    st.booleans(),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.sampled_from("uvwxyz"), STANDINGS),
        st.tuples(st.just("leave"), st.sampled_from("uvwxyz"), st.none()),
        st.tuples(st.just("look"), st.sampled_from(TEXTS), st.sampled_from(NEEDS)),
    ),
    max_size=30,
)


@given(STEPS, st.sampled_from([1, 2, 100]))
def test_a_class_holds_whom_it_would_hold_were_it_made_just_now(
    steps: list[tuple[str, str, object]], most: int
) -> None:
    book = Book(classes_max=most)
    for what, name, more in steps:
        if what == "say":
            profile, offers, alive = more  # type: ignore[misc]
            standing = book.get(name) or Standing(name)
            standing.profile, standing.alive = profile, alive
            standing.offers = {offer.offer_id: offer for offer in offers}
            standing.rebid()
            book.add(standing)
            book.has_changed(name)
        elif what == "leave":
            book.remove(name)
        else:
            assert isinstance(more, str)
            assert [seat[:3] for seat in book.seats(order(name, more))] == naive(book, name, more)
            assert len(book.classes) <= most
    for needs in NEEDS:
        for text in TEXTS:
            assert [seat[:3] for seat in book.seats(order(text, needs))] == naive(book, text, needs)


@pytest.fixture
def bench() -> BrokerBench:
    bench = BrokerBench()
    bench.offer(WORKER, slots=100)
    bench.offer(OTHER, slots=100)
    return bench


class TestWhatIsKept:
    def test_is_so_much_of_each_core_and_made_anew_when_it_is_asked_for_again(self, bench: BrokerBench) -> None:
        book = bench.broker.book
        assert len(book.seats(order(kind(0), core=RIVAL))) == 2
        for _ in range(2):
            for number in range(CLASSES_OF_CORE_MAX + 10):
                assert len(book.seats(order(kind(1 + number)))) == 2
        assert len(book.classes) == CLASSES_OF_CORE_MAX + 1, "a core's own make room first"

    def test_goes_from_the_core_that_has_most(self, monkeypatch: pytest.MonkeyPatch) -> None:
        book = Book(classes_max=4)
        for number in range(4):
            book.seats(order(kind(number)))
        made = spy(monkeypatch)
        book.seats(order(kind(9), core=RIVAL))
        book.seats(order(kind(3)))
        assert made == [kind(9)], "its least recently used one has gone"
        book.seats(order(kind(0)))
        assert made == [kind(9), kind(0)]

    def test_names_so_many_hosts_all_together(self, bench: BrokerBench, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(classes, "SEATS_MAX", 10)
        for number in range(20):
            bench.broker.book.seats(order(kind(number)))
        assert len(bench.broker.book.classes) == 6, "of two hosts each, and the one that was too much"


def spy(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The requirements of classes that are made from now on."""
    made: list[str] = []

    def noted(text: str, real: Callable[[str], object] = classes.parse) -> object:
        made.append(text)
        return real(text)

    monkeypatch.setattr(classes, "parse", noted)
    return made


class TestACoreThatNamesANewClassWithEachJob:
    def flood(self, bench: BrokerBench, core: SimSigner = OWNER) -> int:
        """How many were looked at before the first refusal."""
        for number in range(10_000):
            clearing = bench.submit(core, f"j-{number}", requirements=kind(number))
            if clearing.kind == REFUSED:
                assert clearing.retry_ms > 0
                return number
        raise AssertionError("it was never refused")

    @pytest.fixture
    def bench(self, bench: BrokerBench, monkeypatch: pytest.MonkeyPatch) -> BrokerBench:
        monkeypatch.setattr(classes, "LOOKS_MAX", 10 * (LOOKS_TO_READ + 2))
        return bench

    def test_is_told_when_to_come_back(self, bench: BrokerBench) -> None:
        assert self.flood(bench) == 10
        refused = bench.submit(OWNER, "again", requirements=kind(-1))
        assert (refused.kind, refused.retry_ms) == (REFUSED, 1)
        bench.now_ms += refused.retry_ms
        assert bench.submit(OWNER, "again", requirements=kind(-1)).kind == AWARDED

    def test_is_served_in_the_classes_that_it_has(self, bench: BrokerBench) -> None:
        self.flood(bench)
        assert bench.submit(OWNER, "known", requirements=kind(3)).kind == AWARDED

    def test_keeps_nobody_else_from_new_ones(self, bench: BrokerBench) -> None:
        self.flood(bench)
        assert bench.submit(RIVAL, "mine", requirements=kind(-1)).kind == AWARDED

    def test_may_not_ask_why_instead(self, bench: BrokerBench) -> None:
        self.flood(bench)
        with pytest.raises(Exhausted) as caught:
            bench.broker.explain(order(kind(-1)))
        assert (caught.value.reason, caught.value.retry_ms) == ("ClassFlood", 1)

    def test_may_not_ask_why_again_and_again(self, bench: BrokerBench, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each time is a look at every host, in whatever class."""
        monkeypatch.setattr(classes, "LOOKS_MAX", LOOKS_TO_READ + 10 * LOOKS_TO_EXPLAIN)

        def ask(times: int) -> None:
            for _ in range(times):
                assert bench.broker.explain(order("")).verdicts

        ask(2)
        with pytest.raises(Exhausted) as caught:
            ask(10)
        assert caught.value.reason == "ClassFlood"
        bench.now_ms += caught.value.retry_ms or 0
        bench.submit(OWNER)
        assert bench.broker.explain(order("")).verdicts

    def test_pays_for_what_cannot_be_read(self, bench: BrokerBench, monkeypatch: pytest.MonkeyPatch) -> None:
        made = spy(monkeypatch)
        for number in range(100):
            clearing = bench.submit(OWNER, f"j-{number}", requirements=f"cpus > {number} and")
            assert clearing.kind == REFUSED
        assert len(made) == 11
        assert "retry" not in clearing.detail
        assert clearing.retry_ms

    def test_waits_with_what_waits_and_is_served_in_the_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        bench = BrokerBench()
        bench.offer(WORKER, slots=1)
        assert bench.submit(OWNER, "runs").kind == AWARDED
        assert bench.submit(OWNER, "waits", requirements=kind(0)).kind == QUEUED
        bench.broker.book.classes.clear()
        bench.broker.book.classes._purses[OWNER.node_id].looks = -LOOKS_MAX
        bench.close(OWNER, "runs", 1)
        assert bench.delivered() == []
        due_ms = bench.broker.deadline_ms()
        assert due_ms is not None
        bench.wait(3_001)
        assert bench.delivered() == ["waits"]


def test_requirements_that_cannot_be_read_refuse_one_order_and_no_other(bench: BrokerBench) -> None:
    refused = bench.submit(OWNER, "j-1", requirements="cpus >")
    assert (refused.kind, refused.retry_ms) == (REFUSED, 0)
    assert refused.detail.startswith("requirements: ")
    assert bench.submit(OWNER, "j-2").kind == AWARDED
    with pytest.raises(InvalidRequest):
        bench.broker.explain(order("cpus >"))


class TestWhomABidIsFor:
    CORES = ("a", "b", "c")
    OFFERS = st.lists(
        st.builds(
            lambda slots, owners, barred: jobs_pb2.Offer(slots=slots, owners=owners, barred=barred),
            st.integers(0, 1),
            st.sets(st.sampled_from(CORES)),
            st.sets(st.sampled_from(CORES), max_size=1),
        ),
        max_size=5,
    )

    def seats(self, offers: list[jobs_pb2.Offer]) -> list[Seat]:
        standing = Standing("h")
        for number, offer in enumerate(offers, 1):
            offer.offer_id = number
            standing.offers[number] = offer
        standing.rebid()
        return [Seat(bid.score, "h", bid.offer.offer_id, bid, barred) for bid, barred in with_barred(standing.bids)]

    @given(OFFERS)
    def test_is_what_its_offers_say(self, offers: list[jobs_pb2.Offer]) -> None:
        """Denied by one before it, named by another one that is not used up, or barred."""
        found = {(seat.offer_id, core) for seat in self.seats(offers) for core in self.CORES if seat.takes(core)}
        named = {core for offer in offers if offer.slots for core in {*offer.owners} - {*offer.barred}}
        named = named if len(offers) > 1 else set()
        expected, denied = set(), set()
        for offer in offers:
            denied |= set(offer.owners) if not offer.slots else set()
            mine = set(offer.owners) or set(self.CORES) - named
            if offer.slots:
                expected |= {(offer.offer_id, core) for core in mine - denied - set(offer.barred)}
        assert found == expected

    def test_costs_no_more_room_than_the_host_s_own_words(self) -> None:
        """30 offers that name 1,024 cores each and 226 that name nobody: one word of a host."""
        owners = [[f"{n}.{m}" for m in range(1_024)] for n in range(30)]
        offers = [jobs_pb2.Offer(slots=n % 2, owners=each) for n, each in enumerate(owners)]
        offers += [jobs_pb2.Offer(slots=1) for _ in range(226)]
        seats = self.seats(offers)
        sets = {id(cores): len(cores) for seat in seats for cores in seat.barred}
        assert sum(sets.values()) <= 30 * 1_024
        assert not seats[-1].takes("0.7")
        assert seats[-1].takes("somebody else")
