"""Timers: one per key, moved by setting it again, fired in order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from offgrid_node.protocol.timers import STALE_MAX, Timers

ACTIONS = st.lists(st.tuples(st.sampled_from("abc"), st.one_of(st.none(), st.integers(0, 50))), max_size=30)


@given(ACTIONS, st.integers(0, 60))
def test_timers_behave_as_a_dictionary_of_deadlines(actions: list[tuple[str, int | None]], now: int) -> None:
    timers: Timers[str] = Timers()
    model: dict[str, int] = {}
    for key, due in actions:
        if due is None:
            timers.cancel(key)
            model.pop(key, None)
        else:
            timers.set(key, due)
            model[key] = due
    assert timers.next_ms() == min(model.values(), default=None)
    fired = timers.take_due(now)
    assert sorted(fired) == sorted(key for key, due in model.items() if due <= now)
    assert [model[key] for key in fired] == sorted(model[key] for key in fired)
    assert timers.take_due(now) == []
    assert timers.next_ms() == min((due for due in model.values() if due > now), default=None)


def test_timers_that_are_moved_or_cancelled_take_no_room() -> None:
    timers: Timers[int] = Timers()
    for due in range(100_000):
        timers.set(1, 1_000_000 + due)
        timers.set(2 + due, 1_000_000)
        timers.cancel(2 + due)
    assert len(timers._heap) <= 2 + STALE_MAX
    assert timers.next_ms() == 1_000_000 + 99_999


def test_equal_instants_fire_in_the_order_they_were_set_whatever_was_tidied_up() -> None:
    timers: Timers[int] = Timers()
    for key in range(10):
        timers.set(key, 5)
    for _ in range(10 * STALE_MAX):
        timers.set(99, 7)
    assert timers.take_due(6) == list(range(10))
