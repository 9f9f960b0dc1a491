"""Frames under way: each ends as arrived or lost, and one waits as long as the link and the peer have shown to take."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_transports.flight import (
    DOUBLINGS_MAX,
    LATE,
    PATIENT_TRIES,
    REORDER_FRAMES,
    WAIT_MS_MAX,
    WAIT_MS_MIN,
    Delay,
    Flight,
    Packet,
    spans_of,
)
from offgrid_transports.messages import Message
from offgrid_transports.outgoing import Outgoing, Span
from offgrid_transports.records import ACK_BITS_MAX, Ack
from offgrid_transports.transport import Priority

LATER = 10_000.0  # when nothing is just late any more


def packet(number: int, *, due_ms: float = 0.0, of: Outgoing | None = None, expected_ms: float = 100.0) -> Packet:
    span = Span(number, number + 1, 0)
    return Packet(number, expected_ms, due_ms, ((of or message(), span),))


def message() -> Outgoing:
    return Outgoing(request=True, call=1, message=Message(0, b"x"), priority=Priority.JOB)


def flight(*numbers: int, reorder: int = REORDER_FRAMES, guess_ms: float = 50.0) -> Flight:
    made = Flight(reorder, guess_ms)
    for number in numbers:
        made.sent(packet(number))
    return made


def acknowledged(by: Flight, ack: Ack, now_ms: float = LATER, *, beyond: int = 0) -> tuple[list[int], list[int]]:
    """`beyond`: so many after the newest that came there is word of as well."""
    arrived, lost = by.acknowledged(now_ms, ack, lambda newest: newest + beyond)
    return [each.number for each in arrived], [each.number for each in lost]


def test_what_an_acknowledgement_counts_among_those_that_came_has_arrived() -> None:
    under_way = flight(*range(10))
    assert acknowledged(under_way, Ack(9, 0, 9, (1, 2))) == ([*range(7), 9], [])
    assert list(under_way.packets) == [7, 8], "they may only have been overtaken"
    assert acknowledged(under_way, Ack(9, 0, 9, (1, 2))) == ([], [])


def test_where_frames_overtake_each_other_one_is_lost_that_enough_others_have_overtaken_long_enough_ago() -> None:
    under_way = flight(*range(6))
    overdue_ms = 100 + LATE * under_way.delay.smooth_ms
    ack = Ack(4, 0, 4, (1, 2, 3, 4))
    assert acknowledged(under_way, ack, overdue_ms - 1) == ([4], [])
    overdue_ms = 100 + LATE * under_way.delay.smooth_ms
    assert acknowledged(under_way, ack, overdue_ms) == ([], [0, 1])
    assert list(under_way.packets) == [2, 3, 5]


def test_what_an_acknowledgement_does_not_speak_of_any_more_is_lost_in_time_where_frames_may_overtake() -> None:
    under_way = flight(*range(300))
    assert acknowledged(under_way, Ack(299, 0, ACK_BITS_MAX, ()), 100.0) == (list(range(51, 300)), [])
    assert acknowledged(under_way, Ack(299, 0, ACK_BITS_MAX, ())) == ([], list(range(51)))


def test_on_a_link_that_keeps_their_order_what_is_missing_is_lost_at_once_and_what_should_have_come_by_then() -> None:
    under_way = flight(*range(12), reorder=0)
    assert acknowledged(under_way, Ack(7, 0, 5, (1, 3)), 0, beyond=2) == ([2, 3, 5, 7], [4, 6, 8, 9])
    assert list(under_way.packets) == [0, 1, 10, 11], "of these nothing was said"


def test_where_they_overtake_each_other_nothing_is_said_of_what_is_beyond_the_newest() -> None:
    under_way = flight(*range(12))
    assert acknowledged(under_way, Ack(7, 0, 7, ()), beyond=4) == (list(range(8)), [])


def test_an_acknowledgement_of_nothing_says_that_all_is_lost_where_they_keep_their_order() -> None:
    assert acknowledged(flight(0, 1, reorder=0), Ack(0xFFFF, 0, 0, ()), 0, beyond=2) == ([], [0, 1])
    assert acknowledged(flight(0, 1), Ack(0xFFFF, 0, 0, ())) == ([], [])
    assert acknowledged(flight(), Ack(5, 0, 5, ())) == ([], [])


@given(
    st.sets(st.integers(0, 400), min_size=1),
    st.integers(0, 200_000),
    st.integers(-30_000, 30_000),
    st.integers(0, ACK_BITS_MAX),
    st.sets(st.integers(1, ACK_BITS_MAX)),
    st.sampled_from([0, REORDER_FRAMES]),
)
def test_whatever_an_acknowledgement_says_none_is_both_and_none_arrives_that_it_does_not_name(
    numbers: set[int], first: int, ahead: int, span: int, missing: set[int], reorder: int
) -> None:
    """Over the counters' lower half, which is all that travels."""
    sent = sorted(first + number for number in numbers)
    newest = max(0, sent[-1] + ahead)
    missing = {age for age in missing if age <= span}
    under_way = flight(*sent, reorder=reorder)
    arrived, lost = acknowledged(under_way, Ack(newest & 0xFFFF, 0, span, tuple(sorted(missing))))
    named = {newest - age for age in range(span + 1) if age not in missing}
    assert set(arrived) == named & set(sent)
    assert sorted([*arrived, *lost, *under_way.packets]) == sent
    if reorder:
        assert all(newest - number >= min(reorder, span + 1) for number in lost)


@pytest.mark.parametrize(("sent", "newest"), [(0xFFFA, 0x10004), (0x10004, 0xFFFA), (0x1FFFF, 0x20000), (5, 5)])
def test_the_upper_half_of_a_counter_follows_from_what_is_under_way(sent: int, newest: int) -> None:
    assert acknowledged(flight(sent), Ack(newest & 0xFFFF, 0, 20, ())) == ([sent] if sent <= newest else [], [])


def test_an_answer_settles_the_frames_that_carried_nothing_else() -> None:
    one, other, under_way = message(), message(), Flight(0, 50.0)
    under_way.sent(packet(0, of=one))
    under_way.sent(packet(1, of=other))
    under_way.sent(Packet(2, 100.0, 0.0, ((one, Span(0, 1, 0)), (other, Span(1, 2, 0)))))
    assert [each.number for each in under_way.settle(0, one)] == [0]
    assert list(under_way.packets) == [1, 2]
    assert under_way.settle(0, one) == []


def test_word_of_any_kind_ends_the_tries() -> None:
    for tell in (
        lambda under_way: under_way.acknowledged(0, Ack(0, 0, 0, ())),
        lambda under_way: under_way.settle(0, next(spans_of(under_way.packets.values()))[0]),
        lambda under_way: under_way.lose_all(),
    ):
        under_way = flight(0)
        under_way.tries = 5
        tell(under_way)
        assert under_way.tries == 0
    under_way = flight(0, 1)
    under_way.tries = 5
    under_way.acknowledged(LATER, Ack(7, 0, 3, ()))
    assert under_way.tries == 5, "that was about others"


def test_all_can_be_given_up_at_once() -> None:
    under_way = flight(1, 2, 3)
    assert [each.number for each in under_way.lose_all()] == [1, 2, 3]
    assert len(under_way) == 0
    assert under_way.due_ms == math.inf


def test_it_is_due_after_the_newest_of_which_word_is_expected() -> None:
    under_way = Flight(0, 50.0)
    assert under_way.due_ms == math.inf
    under_way.sent(packet(0, expected_ms=100, due_ms=7))
    under_way.sent(packet(1, expected_ms=200, due_ms=math.inf))
    assert under_way.due_ms == 100 + 7 + under_way.delay.patience_ms
    under_way.sent(packet(2, expected_ms=300, due_ms=7))
    assert under_way.due_ms == 300 + 7 + under_way.delay.patience_ms


def test_waits_are_doubled_after_some_patience_and_bounded_both_ways() -> None:
    under_way = flight(0)
    waits = []
    for tries in range(PATIENT_TRIES + DOUBLINGS_MAX + 3):
        under_way.tries = tries
        waits.append(under_way.due_ms - 100)
    first = under_way.delay.patience_ms
    assert waits[: PATIENT_TRIES + 1] == [first] * (PATIENT_TRIES + 1)
    assert waits[PATIENT_TRIES + 1 : PATIENT_TRIES + 3] == [2 * first, 4 * first]
    assert waits[-1] == waits[-2] == first * 2**DOUBLINGS_MAX
    under_way.tries = 0
    assert flight(0, guess_ms=0).due_ms - 100 == WAIT_MS_MIN
    assert flight(0, guess_ms=1e9).due_ms - 100 == WAIT_MS_MAX


def test_patience_learns_from_what_a_peer_takes_beyond_the_link() -> None:
    delay = Delay(1000)
    assert delay.patience_ms == 3000
    delay.sample(40)
    assert (delay.smooth_ms, delay.patience_ms) == (40, 120), "the first sample ends guessing"
    for _ in range(50):
        delay.sample(40)
    assert 40 < delay.patience_ms < 42
    delay.sample(400)
    assert delay.patience_ms > 400
    early = Delay(1000)
    early.sample(-5)
    assert early.smooth_ms == 0, "the link was quicker than it says"


def test_the_delay_is_measured_where_the_newest_frame_is_what_is_acknowledged() -> None:
    under_way = flight(0, 1, 2, 3)
    under_way.acknowledged(130, Ack(2, 10, 0, ()))
    assert under_way.delay.smooth_ms == 20, "what it says that it waited is taken off"
    under_way.acknowledged(900, Ack(9, 0, 9, ()))
    assert under_way.delay.smooth_ms == 20, "the newest there carried nothing, so when it left is not known"


def test_an_answer_that_had_to_wait_for_later_frames_is_no_measure_on_a_medium_that_is_shared() -> None:
    under_way = flight(0, 1, 2, reorder=0)
    under_way.acknowledged(130, Ack(1, 0, 1, ()))
    assert under_way.delay.smooth_ms == 50
    under_way.acknowledged(130, Ack(2, 0, 0, ()))
    assert under_way.delay.smooth_ms == 30


@pytest.mark.parametrize(
    ("now_ms", "tries", "number", "measured_ms"),
    [(120, 0, 0, 20), (100 + 151, 0, 0, 50), (120, 1, 0, 50), (120, 0, -1, 50)],
    ids=["at once", "after slow work", "after a question", "with the hello"],
)
def test_an_answer_is_a_measure_only_where_it_is_clear_what_it_measures(
    now_ms: float, tries: int, number: int, measured_ms: float
) -> None:
    sent, under_way = message(), Flight(0, 50.0)
    under_way.sent(packet(number, of=sent))
    under_way.tries = tries
    under_way.settle(now_ms, sent)
    assert under_way.delay.smooth_ms == measured_ms


def test_one_that_a_single_later_one_has_overtaken_is_lost_when_there_was_time_for_word_of_it() -> None:
    under_way = flight(0, 1, 2)
    assert under_way.overtaken(LATER) == [], "nothing has overtaken them"
    assert acknowledged(under_way, Ack(1, 0, 1, (1,)), 100.0) == ([1], [])
    due_ms = under_way.due_ms
    assert 100.0 < due_ms < LATER
    assert under_way.overtaken(due_ms - 1) == []
    assert [each.number for each in under_way.overtaken(due_ms)] == [0]
    assert list(under_way.packets) == [2], "which may still be on its way"


def test_an_answer_overtakes_as_well() -> None:
    answered = message()
    under_way = flight(0)
    under_way.sent(packet(1, of=answered))
    under_way.settle(100.0, answered)
    assert [each.number for each in under_way.overtaken(LATER)] == [0]


def test_where_frames_keep_their_order_a_bursts_end_asks_for_them() -> None:
    under_way = flight(0, 1, reorder=0)
    answered = message()
    under_way.sent(packet(2, of=answered))
    under_way.settle(100.0, answered)
    assert under_way.overtaken(LATER) == []
