"""Hop repair: what is kept until it has gone on, what is wanted again, what is there twice."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from offgrid_transports.relay.arrivals import WANTS_MAX, Arrival, Arrivals
from offgrid_transports.relay.budget import Budget
from offgrid_transports.relay.custody import HELD_MAX, TRIES_MAX, Custody, Turn, mark_of
from offgrid_transports.session import ASKS, MORE


def frame(number: int, flags: int = 0, label: bytes = b"LL") -> bytes:
    return bytes((flags,)) + label + number.to_bytes(2) + b"sealed" + number.to_bytes(8)


def mark(number: int) -> bytes:
    return number.to_bytes(2)


def arrive(arrivals: Arrivals, number: int, flags: int = 0) -> Arrival:
    return arrivals.on_frame(0, frame(number, flags), counted=True, asks=bool(flags & ASKS), forget_ms=100)


class TestCustody:
    def test_what_was_heard_to_go_on_is_not_sent_again(self) -> None:
        custody = Custody()
        custody.hold(0, frame(1), asks=False, sent_ms=10, wait_ms=100)
        assert custody.due_ms == 110
        assert not custody.on_forwarded(0, frame(2, label=b"NN")), "another one"
        assert custody.on_forwarded(0, frame(1, label=b"NN"))
        assert custody.due_ms == math.inf

    def test_what_was_not_is_sent_again_ever_later_and_given_up_in_the_end(self) -> None:
        custody, now_ms, waits = Custody(), 0.0, list[float]()
        custody.hold(0, frame(1, ASKS), asks=True, sent_ms=0, wait_ms=100)
        while (turn := custody.on_time(custody.due_ms)) is not Turn.GIVEN_UP:
            assert turn == frame(1, ASKS)
            waits.append(custody.due_ms - now_ms)
            now_ms = custody.due_ms
            custody.again(now_ms, turn, 0)
        assert len(waits) == TRIES_MAX - 1
        assert waits == sorted(waits)
        assert custody.due_ms == math.inf

    def test_one_that_is_given_up_says_nothing_of_the_way_where_others_went_on(self) -> None:
        custody = Custody()
        custody.hold(0, frame(1), asks=False, sent_ms=0, wait_ms=100)
        custody.hold(0, frame(2), asks=False, sent_ms=0, wait_ms=100)
        custody.on_forwarded(50, frame(2))
        while isinstance(turn := custody.on_time(custody.due_ms), bytes):
            custody.again(custody.due_ms, turn, 0)
        assert turn is Turn.NOTHING
        assert len(custody) == 0

    def test_another_frame_in_the_place_of_the_one_that_is_waited_for_leaves_nothing_to_wait_for(self) -> None:
        custody = Custody()
        custody.hold(0, frame(1, ASKS), asks=True, sent_ms=0, wait_ms=100)
        custody.hold(0, frame(1), asks=False, sent_ms=0, wait_ms=math.inf)
        assert custody.due_ms == math.inf
        assert custody.on_time(1_000) is Turn.NOTHING

    def test_what_asks_is_sent_again_though_pieces_of_a_burst_came_behind_it(self) -> None:
        custody = Custody()
        custody.hold(0, frame(1, ASKS), asks=True, sent_ms=0, wait_ms=100)
        custody.hold(10, frame(2, MORE), asks=False, sent_ms=0, wait_ms=100)
        assert custody.due_ms == 110, "the next hop is busy until then"
        assert custody.on_time(110) == frame(1, ASKS)
        assert custody.due_ms > 110

    def test_another_frame_in_the_place_of_one_leaves_the_others_times_as_they_are(self) -> None:
        custody = Custody()
        custody.hold(0, frame(1, ASKS), asks=True, sent_ms=0, wait_ms=100)
        custody.hold(0, frame(2, ASKS), asks=True, sent_ms=0, wait_ms=100)
        custody.hold(50, frame(2), asks=False, sent_ms=0, wait_ms=math.inf)
        assert custody.on_time(100) == frame(1, ASKS)

    def test_where_the_link_takes_nothing_the_next_try_waits_as_long(self) -> None:
        custody, now_ms, tries = Custody(), 0.0, 0
        custody.hold(0, frame(1, ASKS), asks=True, sent_ms=0, wait_ms=100)
        while custody.on_time(custody.due_ms if custody.due_ms < math.inf else now_ms) is not Turn.GIVEN_UP:
            assert custody.due_ms >= now_ms + 100
            now_ms, tries = custody.due_ms, tries + 1
        assert tries == TRIES_MAX - 1

    def test_that_one_which_asks_went_on_tells_of_all_before_it(self) -> None:
        custody = Custody()
        for number in range(5):
            custody.hold(0, frame(number, MORE), asks=False, sent_ms=0, wait_ms=100)
        custody.hold(0, frame(5, ASKS), asks=True, sent_ms=0, wait_ms=100)
        custody.hold(0, frame(6, MORE), asks=False, sent_ms=0, wait_ms=100)
        assert custody.on_forwarded(0, frame(5, ASKS))
        assert custody.backlog == [frame(6, MORE)]
        assert len(custody) == 1

    def test_what_is_wanted_is_handed_back_and_kept(self) -> None:
        custody = Custody()
        for number in range(5):
            custody.hold(0, frame(number, MORE), asks=False, sent_ms=0, wait_ms=100)
        custody.hold(0, frame(5, ASKS), asks=True, sent_ms=0, wait_ms=100)
        assert custody.on_heard(0, mark(5), (mark(2), mark(4), mark(77))) == [frame(2, MORE), frame(4, MORE)]
        assert len(custody) == 2

    def test_a_piece_of_a_burst_is_not_sent_again_before_the_one_that_asks(self) -> None:
        custody = Custody()
        custody.hold(0, frame(1, MORE), asks=False, sent_ms=0, wait_ms=100)
        assert custody.on_time(100) is Turn.NOTHING
        assert custody.backlog == [], "and no longer in the way of the next ones"
        assert len(custody) == 1

    def test_an_answer_tells_that_the_last_hop_has_it(self) -> None:
        custody = Custody()
        custody.hold(0, frame(1, ASKS), asks=True, sent_ms=50, wait_ms=100)
        custody.on_word(49, last=True)
        assert len(custody) == 1, "it had not even left"
        custody.on_word(51, last=False)
        assert len(custody) == 1, "so quickly nobody answers over more hops"
        custody.on_word(51, last=True)
        assert len(custody) == 0

    def test_over_more_hops_only_what_asks_is_answered(self) -> None:
        custody = Custody()
        custody.hold(0, frame(1), asks=False, sent_ms=0, wait_ms=100)
        custody.hold(0, frame(2, ASKS), asks=True, sent_ms=0, wait_ms=100)
        custody.on_word(90, last=False)
        assert custody.backlog == [frame(1)], "whoever asks anew may have had no answer"

    def test_it_holds_no_more_than_it_may(self) -> None:
        custody = Custody()
        for number in range(2 * HELD_MAX):
            custody.hold(0, frame(number), asks=False, sent_ms=0, wait_ms=1)
        assert len(custody) == HELD_MAX


class TestArrivals:
    def test_what_comes_twice_is_new_once(self) -> None:
        arrivals = Arrivals()
        assert [arrive(arrivals, number) for number in (7, 7, 8, 7)] == [
            Arrival.NEW, Arrival.AGAIN, Arrival.NEW, Arrival.AGAIN,
        ]  # fmt: skip

    def test_a_hello_that_is_sent_again_much_later_is_new(self) -> None:
        arrivals = Arrivals()
        hello = b"\x10LLsidhello"
        at = [arrivals.on_frame(now_ms, hello, counted=False, asks=False, forget_ms=100) for now_ms in (0, 50, 151)]
        assert at == [Arrival.NEW, Arrival.AGAIN, Arrival.NEW]

    def test_one_that_asks_is_kept_until_what_was_missing_is_here(self) -> None:
        arrivals = Arrivals()
        assert arrive(arrivals, 0xFFFE, MORE) is Arrival.NEW
        assert arrive(arrivals, 2, ASKS) is Arrival.KEPT
        assert arrivals.missing == (mark(0xFFFF), mark(0), mark(1)), "over the end of the counter as well"
        for number in (0, 1, 0xFFFF):
            assert not arrivals.complete
            assert arrive(arrivals, number, MORE) is Arrival.NEW
        assert arrivals.complete
        assert [mark_of(each) for each in arrivals.take_kept()] == [mark(2)]

    def test_single_calls_wait_for_nothing(self) -> None:
        arrivals = Arrivals()
        assert arrive(arrivals, 1, ASKS) is Arrival.NEW
        assert arrive(arrivals, 3, ASKS) is Arrival.NEW

    def test_what_does_not_come_is_wanted_so_often_and_then_done_without(self) -> None:
        arrivals = Arrivals()
        arrive(arrivals, 1, MORE)
        arrive(arrivals, 3, ASKS)
        assert [arrivals.want() for _ in range(WANTS_MAX + 1)] == [True] * WANTS_MAX + [False]
        assert len(arrivals.take_kept()) == 1
        assert arrivals.complete


@given(st.lists(st.tuples(st.floats(0, 10_000), st.floats(0, 500))))
def test_no_more_is_said_than_a_share_of_the_time_and_a_depth(steps: list[tuple[float, float]]) -> None:
    budget, now_ms, said_ms = Budget(0, 0.02, 1_000), 0.0, 0.0
    for passed_ms, air_ms in steps:
        now_ms += passed_ms
        if budget.wait_ms(now_ms, air_ms) <= 0:
            budget.spend(now_ms, air_ms)
            said_ms += air_ms
        assert said_ms <= 1_000 + 0.02 * now_ms + 1e-6
