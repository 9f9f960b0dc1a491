"""The window of call numbers, and deadlines."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_transports.timers import Timers
from offgrid_transports.window import WINDOW_CALLS, CallWindow


def test_a_call_number_is_marked_once_and_too_old_ones_count_as_marked() -> None:
    window = CallWindow()
    assert not window.marked(5)
    window.mark(5)
    assert window.marked(5)
    assert not window.marked(4)
    window.mark(5 + WINDOW_CALLS)
    assert window.marked(5), "fallen out of the window"
    assert not window.marked(6)


@given(st.lists(st.integers(1, 3 * WINDOW_CALLS), max_size=40))
def test_the_window_agrees_with_a_plain_set(calls: list[int]) -> None:
    window, seen = CallWindow(), set[int]()
    for call in calls:
        known = call in seen or call <= max(seen, default=0) - WINDOW_CALLS
        assert window.marked(call) == known
        if not known:
            window.mark(call)
            seen.add(call)


@pytest.mark.parametrize("seed", range(5))
def test_timers_agree_with_a_plain_dict(seed: int) -> None:
    rng, timers, plain, now_ms = Random(seed), Timers(), dict[int, int](), 0
    for _ in range(2000):
        key = rng.randrange(20)
        if rng.random() < 0.2:
            timers.set(key, None)
            plain.pop(key, None)
        else:
            plain[key] = now_ms + rng.randrange(50)
            timers.set(key, plain[key])
        now_ms += rng.randrange(3)
        assert timers.deadline_ms == min(plain.values(), default=None)
        due = {key for key, due_ms in plain.items() if due_ms <= now_ms}
        assert set(timers.take_due(now_ms)) == due
        for key in due:
            del plain[key]
        assert len(timers) == len(plain)
