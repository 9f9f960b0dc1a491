"""One peer's flood is refused with a time to come back, and is nobody else's business."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_node.protocol.errors import Exhausted
from offgrid_node.services.budget import Budget, Limits, Visit

LIMITS = Limits(calls_per_s=10, burst_calls=5, calls_in_flight=8, bytes_in_flight=1_000, peers_max=4)


def reason_of(refused: pytest.ExceptionInfo[Exhausted]) -> str:
    assert refused.value.retry_ms
    return refused.value.reason


def test_after_its_burst_a_peer_is_told_when_to_come_back_and_then_served() -> None:
    budget = Budget(LIMITS)
    for _ in range(5):
        budget.enter("a", 0).leave()
    with pytest.raises(Exhausted) as refused:
        budget.enter("a", 0)
    assert reason_of(refused) == "RateLimited"
    assert refused.value.retry_ms == 101
    budget.enter("a", 101).leave()


def test_one_peers_flood_leaves_another_its_whole_burst() -> None:
    budget = Budget(LIMITS)
    for _ in range(5):
        budget.enter("flooder", 0).leave()
    with pytest.raises(Exhausted):
        budget.enter("flooder", 0)
    for _ in range(5):
        budget.enter("other", 0).leave()


def test_who_is_exempt_from_the_rate_is_still_bound_in_calls_and_bytes() -> None:
    budget = Budget(LIMITS)
    visits = [budget.enter("admin", 0, rated=False) for _ in range(8)]
    with pytest.raises(Exhausted) as refused:
        budget.enter("admin", 0, rated=False)
    assert reason_of(refused) == "TooManyCalls"
    visits[0].take(900)
    with pytest.raises(Exhausted) as refused:
        visits[1].take(101)
    assert reason_of(refused) == "TooManyBytes"
    visits[0].leave()
    visits[1].take(101)


def test_a_message_larger_than_the_whole_budget_is_served_when_alone() -> None:
    Budget(LIMITS).enter("a", 0).take(5_000)


def test_an_answer_is_never_refused_but_counts_against_the_next_request() -> None:
    budget = Budget(LIMITS)
    visit = budget.enter("a", 0)
    visit.owe(5_000)
    with pytest.raises(Exhausted):
        budget.enter("a", 0).take(1)


def test_leaving_twice_gives_back_once() -> None:
    budget = Budget(LIMITS)
    first, second = budget.enter("a", 0), budget.enter("a", 0)
    second.take(1_000)
    first.leave()
    first.leave()
    with pytest.raises(Exhausted):
        budget.enter("a", 0).take(1)


def test_the_table_of_peers_is_bounded_and_forgets_the_longest_unseen() -> None:
    budget = Budget(LIMITS)
    for number in range(1_000):
        budget.enter(f"p{number}", number).leave()
        assert budget.peers <= 4


def test_a_peer_with_calls_in_flight_is_never_forgotten() -> None:
    budget = Budget(LIMITS)
    visits = [budget.enter(f"p{number}", 0) for number in range(4)]
    with pytest.raises(Exhausted) as refused:
        budget.enter("p4", 0)
    assert reason_of(refused) == "TooManyPeers"
    visits[2].leave()
    budget.enter("p4", 0)


def test_time_that_stands_still_or_goes_back_gives_no_tokens() -> None:
    budget = Budget(LIMITS)
    for _ in range(5):
        budget.enter("a", 1_000).leave()
    with pytest.raises(Exhausted):
        budget.enter("a", 0)
    with pytest.raises(Exhausted):
        budget.enter("a", 1_000)


@given(st.lists(st.tuples(st.sampled_from("abcdefg"), st.integers(0, 1_500), st.integers(0, 40)), max_size=200))
def test_no_order_of_calls_breaks_a_bound(calls: list[tuple[str, int, int]]) -> None:
    budget, now_ms, open_visits = Budget(LIMITS), 0, dict[str, list[Visit]]()
    for name, size_bytes, passed_ms in calls:
        now_ms += passed_ms
        try:
            visit = budget.enter(name, now_ms)
        except Exhausted:
            for visits in open_visits.values():
                if visits:
                    visits.pop().leave()
        else:
            open_visits.setdefault(name, []).append(visit)
            try:
                visit.take(size_bytes)
            except Exhausted:
                open_visits[name].remove(visit)
                visit.leave()
        assert budget.peers <= LIMITS.peers_max
        assert all(len(visits) <= LIMITS.calls_in_flight for visits in open_visits.values())


def test_all_peers_together_have_a_bound_too_and_being_refused_costs_nothing() -> None:
    budget = Budget(Limits(burst_calls=1, calls_per_s=0.001, calls_max=2))
    first, _ = budget.enter("ann", 0), budget.enter("bob", 0)
    for _ in range(3):
        with pytest.raises(Exhausted) as caught:
            budget.enter("cay", 0)
        assert (caught.value.reason, bool(caught.value.retry_ms)) == ("TooManyCalls", True)
    assert budget.peers == 2
    first.leave()
    first.leave()
    budget.enter("cay", 0)
    with pytest.raises(Exhausted):
        budget.enter("dot", 0)
