"""The small parts of the link protocol: bursts, patience, deadlines, the window of call numbers."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_transports.arq import BURST_FRAMES, RTO_MS_MAX, DelayEstimator, Sender, backoff
from offgrid_transports.timers import Timers
from offgrid_transports.window import WINDOW_CALLS, CallWindow


def test_a_burst_skips_what_is_held() -> None:
    sender = Sender(100)
    assert sender.burst() == list(range(BURST_FRAMES))
    assert sender.on_ack(1, 3, bytes([0b0110_0000]))
    assert sender.burst() == [3, *range(6, 6 + BURST_FRAMES - 1)]


def test_the_second_answer_of_a_round_is_ignored() -> None:
    sender = Sender(10)
    sender.burst()
    assert sender.on_ack(1, 3, b"")
    sender.burst()
    assert not sender.on_ack(1, 3, b""), "that round is over; acting again would send everything twice"


def test_after_silence_only_the_question_is_repeated() -> None:
    sender = Sender(100)
    sender.burst()
    assert sender.question() == [BURST_FRAMES - 2, BURST_FRAMES - 1]
    assert sender.silent == 1


def test_a_peer_that_lost_what_it_held_gets_it_again() -> None:
    sender = Sender(4)
    sender.burst()
    sender.on_ack(1, 2, b"")
    sender.burst()
    sender.on_ack(2, 0, b"")
    assert sender.burst() == [0, 1, 2, 3]


def test_all_held_is_believed_in_any_round() -> None:
    sender = Sender(4)
    sender.burst()
    sender.burst()
    sender.on_ack(1, 4, b"")
    assert sender.done


def test_patience_learns_and_backs_off_within_bounds() -> None:
    delay = DelayEstimator(1000)
    for _ in range(50):
        delay.sample(40)
    assert 40 <= delay.patience_ms < 60
    assert [backoff(100, silent) for silent in range(3)] == [100, 200, 400]
    assert backoff(10_000, 1000) == RTO_MS_MAX


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
