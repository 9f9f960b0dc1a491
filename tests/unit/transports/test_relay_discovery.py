"""Questions about ways: handed on once, by few, never round; answered once, by the shortest way; not without end."""

from __future__ import annotations

import math
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from offgrid_transports.relay.discovery import (
    BACKOFF_MS_MAX,
    BACKOFF_MS_MIN,
    COPIES_MAX,
    DETOUR_MS,
    SEEN_MAX,
    SLOTS,
    Discovery,
)
from offgrid_transports.relay.frames import HOPS_MAX, Answer, Ask
from offgrid_transports.relay.routes import Route

SLOT_MS = 100.0
LATER_MS = SLOT_MS * SLOTS * 4
OWN, SOURCE, TARGET = b"own.", b"sour", b"targ"


def discovery(*, hands_on: bool = True) -> Discovery:
    return Discovery(OWN, Random(1), hands_on=hands_on)


def ask(
    *hops: bytes,
    number: int = 1,
    target: bytes = TARGET,
    left: int | None = None,
    fresh: bool = False,
    cost_ms: int = 0,
    avoided: tuple[bytes, ...] = (),
) -> Ask:
    return Ask(number, HOPS_MAX - len(hops) if left is None else left, fresh, target, SOURCE, hops, cost_ms, avoided)


def nobody(target: bytes) -> None:
    return None


def said(one: Discovery, now_ms: float) -> list[tuple[Ask | Answer, frozenset[int]]]:
    return [tuple(due) for due in one.take_due(now_ms, SLOT_MS)[0]]


def test_a_question_is_handed_on_once_with_ones_own_hop() -> None:
    one = discovery()
    assert one.on_ask(0, ask(b"aa"), 0, SLOT_MS, nobody)
    assert not one.on_ask(0, ask(b"bb"), 0, SLOT_MS, nobody)
    assert said(one, 0) == [], "not at once: others may say it first"
    assert said(one, LATER_MS) == [(ask(b"aa", b"ow"), frozenset())]
    assert one.due_ms == math.inf


def test_what_many_have_handed_on_is_not_handed_on_there() -> None:
    one = discovery()
    for hop in (b"aa", b"bb", b"cc")[:COPIES_MAX]:
        one.on_ask(0, ask(hop), 0, SLOT_MS, nobody)
    one.on_ask(0, ask(b"dd"), 1, SLOT_MS, nobody)
    assert [not_on for _, not_on in said(one, LATER_MS)] == [frozenset({0})]


def test_what_was_here_before_goes_nowhere() -> None:
    one = discovery()
    assert not one.on_ask(0, ask(b"aa", b"ow", b"bb"), 0, SLOT_MS, nobody)
    assert not one.on_ask(0, Ask(1, 3, False, TARGET, OWN, (b"aa",)), 0, SLOT_MS, nobody), "one's own"
    assert said(one, LATER_MS) == []


def test_where_no_hop_is_left_it_ends() -> None:
    one = discovery()
    one.on_ask(0, ask(b"aa", left=0), 0, SLOT_MS, nobody)
    assert said(one, LATER_MS) == []


def test_who_does_not_relay_answers_for_itself_alone() -> None:
    one = discovery(hands_on=False)
    one.on_ask(0, ask(b"aa"), 0, SLOT_MS, lambda target: Route((), 0, 7))
    one.on_ask(0, ask(b"aa", number=2, target=OWN), 0, SLOT_MS, nobody)
    assert [answer for answer, _ in said(one, LATER_MS)] == [Answer(2, 1, OWN, SOURCE, (b"aa",))]


def test_the_target_answers_once_and_by_the_shortest_way() -> None:
    one = discovery()
    for hops in ((b"aa", b"bb", b"cc"), (b"dd",), (b"ee", b"ff")):
        one.on_ask(0, ask(*hops, target=OWN), 0, SLOT_MS, nobody)
    assert [answer for answer, _ in said(one, LATER_MS)] == [Answer(1, 1, OWN, SOURCE, (b"dd",))]
    one.on_ask(LATER_MS, ask(target=OWN), 0, SLOT_MS, nobody)
    assert said(one, 2 * LATER_MS) == []


def test_who_knows_a_way_answers_with_it_unless_only_the_target_may() -> None:
    one = discovery()
    one.on_ask(0, ask(b"aa"), 0, SLOT_MS, lambda target: Route((b"zz",), 0, 7))
    one.on_ask(0, ask(b"aa", number=2, fresh=True), 0, SLOT_MS, lambda target: Route((b"zz",), 0, 7))
    told = [each for each, _ in said(one, LATER_MS)]
    assert told == [Answer(1, 1, TARGET, SOURCE, (b"aa", b"ow", b"zz"), 7), ask(b"aa", b"ow", number=2, fresh=True)]


def test_a_way_that_would_come_by_somebody_twice_is_not_told() -> None:
    one = discovery()
    one.on_ask(0, ask(b"aa"), 0, SLOT_MS, lambda target: Route((b"aa",), 0, 7))
    assert said(one, LATER_MS) == [(ask(b"aa", b"ow"), frozenset())], "the question goes on instead"


def test_an_answer_that_is_heard_ends_the_question_here() -> None:
    one = discovery()
    one.on_ask(0, ask(b"aa"), 0, SLOT_MS, nobody)
    one.on_answer_heard(Answer(1, 1, TARGET, SOURCE, (b"aa", b"bb")))
    assert said(one, LATER_MS) == []


def test_of_answers_the_first_goes_on_and_then_only_shorter_ones() -> None:
    one = discovery()
    one.on_ask(0, ask(b"aa"), 0, SLOT_MS, nobody)
    ways = [(b"aa", b"ow", b"bb"), (b"aa", b"ow", b"cc"), (b"aa", b"ow")]
    assert [one.may_pass(Answer(1, 1, TARGET, SOURCE, way)) for way in ways] == [True, False, True]
    assert not one.may_pass(Answer(9, 1, TARGET, SOURCE, (b"aa", b"ow"))), "to a question that never came by here"


def test_a_search_in_vain_ends_and_the_next_ones_come_ever_more_seldom() -> None:
    one, now_ms, waits = discovery(), 0.0, list[float]()
    for _ in range(12):
        assert one.seek(now_ms, TARGET, SLOT_MS) is not None
        assert one.seek(now_ms, TARGET, SLOT_MS) is None, "it is under way"
        while not one.take_due(one.due_ms, SLOT_MS)[1]:
            now_ms = one.due_ms
        began_ms = now_ms
        while not one.may_seek(now_ms, TARGET):
            now_ms += BACKOFF_MS_MIN / 2
        waits.append(now_ms - began_ms)
    assert waits[0] <= 2 * BACKOFF_MS_MIN
    assert waits == sorted(waits)
    assert waits[-1] <= BACKOFF_MS_MAX + 2 * BACKOFF_MS_MIN


def test_who_is_only_told_of_is_looked_for_no_sooner_and_who_was_reached_is() -> None:
    one = discovery()
    one.fail(0, TARGET)
    one.seek(BACKOFF_MS_MIN, TARGET, SLOT_MS)
    one.on_found(BACKOFF_MS_MIN, TARGET, SLOT_MS)
    one.fail(BACKOFF_MS_MIN, TARGET)
    assert not one.may_seek(3 * BACKOFF_MS_MIN - 1, TARGET), "twice as long, though somebody told of a way"
    one.reached(TARGET)
    one.fail(BACKOFF_MS_MIN, TARGET)
    assert one.may_seek(2 * BACKOFF_MS_MIN, TARGET), "as the first time"


@given(st.lists(st.tuples(st.integers(0, 2000), st.binary(min_size=2, max_size=2), st.booleans()), max_size=60))
def test_whatever_is_asked_no_more_is_kept_than_may_be(asks: list[tuple[int, bytes, bool]]) -> None:
    one = discovery()
    for number, hop, fresh in asks:
        for more in range(10):
            one.on_ask(0, ask(hop, number=number + more, fresh=fresh), 0, SLOT_MS, nobody)
    assert len(said(one, LATER_MS)) <= SEEN_MAX


def test_a_cheap_way_is_better_than_a_short_one() -> None:
    one = discovery()
    one.on_ask(0, ask(b"aa", target=OWN, cost_ms=500), 0, SLOT_MS, nobody)
    assert one.on_ask(0, ask(b"bb", b"cc", target=OWN, cost_ms=4), 0, SLOT_MS, nobody), "and so it is to the source"
    assert [answer.hops for answer, _ in said(one, LATER_MS)] == [(b"bb", b"cc")]


def test_a_way_without_those_that_are_avoided_is_better_than_any_with_them() -> None:
    one, avoided = discovery(), (b"aa", b"bb")
    for hops, cost_ms in (((b"aa", b"bb"), 1), ((b"aa", b"cc"), 9), ((b"dd", b"bb"), 20)):
        one.on_ask(0, ask(*hops, target=OWN, cost_ms=cost_ms, avoided=avoided), 0, SLOT_MS, nobody)
    assert [answer.hops for answer, _ in said(one, LATER_MS)] == [(b"aa", b"cc")], "else the one with fewest of them"


def test_who_comes_by_those_that_are_avoided_lets_others_speak_first() -> None:
    avoided = (b"aa",)
    late, first, itself = (discovery() for _ in range(3))
    late.on_ask(0, ask(b"aa", avoided=avoided), 0, SLOT_MS, nobody)
    first.on_ask(0, ask(b"bb", avoided=avoided), 0, SLOT_MS, nobody)
    itself.on_ask(0, ask(b"bb", avoided=(b"ow",)), 0, SLOT_MS, nobody)
    assert first.due_ms <= SLOTS * SLOT_MS < min(late.due_ms, itself.due_ms)
    assert len(said(late, LATER_MS)) == 1, "where nobody does it still speaks"


def test_that_worse_ways_were_handed_on_silences_nobody() -> None:
    one, avoided = discovery(), (b"aa", b"bb", b"cc")
    one.on_ask(0, ask(b"dd", avoided=avoided), 0, SLOT_MS, nobody)
    for hop in avoided:
        one.on_ask(0, ask(b"dd", hop, avoided=avoided), 0, SLOT_MS, nobody)
    assert [not_on for _, not_on in said(one, LATER_MS)] == [frozenset()]


def test_a_known_way_over_those_that_are_avoided_is_no_answer() -> None:
    one = discovery()
    one.on_ask(0, ask(b"aa", avoided=(b"zz",)), 0, SLOT_MS, lambda target: Route((b"zz",), 0, 7))
    assert [type(each) for each, _ in said(one, LATER_MS)] == [Ask]


def test_where_the_target_heard_the_source_itself_in_vain_another_way_is_better() -> None:
    one = discovery()
    one.on_ask(0, ask(target=OWN, avoided=(OWN[:2],)), 0, SLOT_MS, nobody)
    one.on_ask(0, ask(b"aa", target=OWN, cost_ms=99, avoided=(OWN[:2],)), 0, SLOT_MS, nobody)
    assert [answer.hops for answer, _ in said(one, LATER_MS)] == [(b"aa",)]


def test_the_target_waits_for_a_way_without_those_that_are_avoided_and_no_longer_than_it_needs() -> None:
    """Of links with addresses the slot is short, whatever their delay."""
    one, avoided = discovery(), (b"aa",)
    one.on_ask(0, ask(b"aa", target=OWN, avoided=avoided), 0, 2.0, nobody)
    assert one.due_ms == DETOUR_MS
    one.on_ask(300, ask(b"bb", b"cc", target=OWN, avoided=avoided), 0, 2.0, nobody)
    assert one.due_ms == 300 + 2.0 * SLOTS
    assert [answer.hops for answer, _ in said(one, one.due_ms)] == [(b"bb", b"cc")]
