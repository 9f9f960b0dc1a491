"""What waits in an application for its node: order, bounds, and what is dropped."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid.client import backlog
from offgrid.client.backlog import NONE, Backlog, BacklogFull, Waiting

EXPENDABLE = frozenset({"beat"})


def event(kind: str = "beat", number: int = 0, size: int = 2) -> Waiting:
    return Waiting(number, kind, None, None, b"x" * size)


def test_a_full_one_drops_the_oldest_expendable_ones_down_to_four_fifths() -> None:
    full = Backlog(EXPENDABLE, queue_max=10, spill_max=2)
    for number in range(10):
        full.add(event("beat" if number % 2 else "word", number))
    assert full.add(event(number=10)) == 9
    assert full.dropped == {"beat": 2}
    assert [each.timestamp_us for each in full.take(99, 10**6)] == [0, 2, 4, 5, 6, 7, 8, 9, 10]


def test_what_is_not_expendable_has_more_room_and_then_is_refused_at_once() -> None:
    full = Backlog(EXPENDABLE, queue_max=10, spill_max=2)
    for number in range(12):
        full.add(event("word", number))
    full.add(event("beat"))
    assert full.dropped == {"beat": 1}, "the newest, where nothing else can go"
    with pytest.raises(BacklogFull, match="12 events wait"):
        full.add(event("word", 12))
    assert full.accepted == 12
    assert len(full.take(5, 10**6)) == 5
    assert full.add(event("word", 13)) == 8


def test_it_is_bounded_in_bytes_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "BYTES_MAX", 100)
    full = Backlog(EXPENDABLE)
    for number in range(5):
        full.add(event("beat", number, 40))
    assert full.dropped["beat"] > 0
    for _ in range(4):
        full.add(event("word", 0, 40))
    full.add(event("word", 0, 40))
    with pytest.raises(BacklogFull):
        full.add(event("word", 0, 40))


def test_a_batch_is_bounded_and_has_one_at_least() -> None:
    some = Backlog(EXPENDABLE)
    for size in (10, 10, 50, 10):
        some.add(event(size=size))
    assert [len(each.data) for each in some.take(9, 25)] == [10, 10]
    assert [len(each.data) for each in some.take(9, 25)] == [50]
    assert [len(each.data) for each in some.take(9, 25)] == [10]
    assert some.take(9, 25) == []


def test_what_is_put_back_comes_first_again() -> None:
    some = Backlog(EXPENDABLE)
    for number in range(6):
        some.add(event("word", number))
    taken = some.take(4, 10**6)
    assert (some.oldest, some.accepted) == (5, 6)
    some.put_back(taken[2:])
    assert some.oldest == 3
    assert [each.timestamp_us for each in some.take(9, 10**6)] == [2, 3, 4, 5]


@given(st.lists(st.one_of(st.sampled_from(["beat", "word"]), st.integers(1, 7))))
def test_nothing_is_lost_uncounted_and_order_is_kept(steps: list[str | int]) -> None:
    some, taken, refused, added = Backlog(EXPENDABLE, queue_max=5, spill_max=3), list[Waiting](), 0, Counter[str]()
    for number, step in enumerate(steps):
        if isinstance(step, int):
            taken += some.take(step, 10**6)
            continue
        try:
            some.add(event(step, number))
        except BacklogFull:
            refused += 1
            assert step == "word"
        else:
            added[step] += 1
        assert len(some) <= 8
    taken += some.take(99, 10**6)
    assert [each.timestamp_us for each in taken] == sorted(each.timestamp_us for each in taken)
    kept = Counter(each.kind for each in taken)
    assert kept["word"] == added["word"], "never dropped"
    assert kept["beat"] + some.dropped.get("beat", 0) == added["beat"]
    assert some.accepted + some.turned_away == added.total()
    assert some.oldest == NONE
