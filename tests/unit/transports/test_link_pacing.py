"""Pacing: it fills a path whatever is lost on it, yields to the queue it builds, shares, and is never stuck."""

from __future__ import annotations

import math
from itertools import count
from random import Random

import pytest
from bottleneck import FRAME, Bottleneck, Filler, World
from hypothesis import given
from hypothesis import strategies as st

from offgrid_transports.pacing import WINDOW_FRAMES_MIN, Controller, LeastOf


def path(
    rate: float = 2000.0, rtt_ms: float = 20.0, *, buffer: int = 400_000, loss: float = 0.0
) -> tuple[World, Bottleneck]:
    world = World()
    return world, Bottleneck(world, Random(1), rate, rtt_ms, buffer, loss)


def rate_of(world: World, filler: Filler, seconds: int) -> float:
    """Bytes a millisecond over the next so many seconds."""
    before = filler.arrived
    world.run(world.now_ms + seconds * 1000)
    return (filler.arrived - before) / (seconds * 1000)


@pytest.mark.parametrize(("loss", "least"), [(0.0, 5000), (0.05, 5000), (0.2, 4300)])
def test_it_fills_a_path_whatever_is_lost_on_it(loss: float, least: float) -> None:
    world, wire = path(6000, loss=loss)
    filler = Filler(wire)
    world.run(500)
    assert rate_of(world, filler, 1) > least
    assert wire.dropped == 0


@pytest.mark.parametrize(("rate", "rtt_ms"), [(100, 50), (10, 100), (2000, 2), (1000, 200)])
def test_it_fills_fast_and_slow_near_and_far_paths(rate: float, rtt_ms: float) -> None:
    world, wire = path(rate, rtt_ms, loss=0.05)
    filler = Filler(wire)
    world.run(4000)
    assert rate_of(world, filler, 4) > 0.85 * 0.95 * rate


def test_the_queue_that_it_builds_is_short() -> None:
    world, wire = path(2000)
    filler = Filler(wire)
    world.run(2000)
    wire.queue_peak = 0
    world.run(6000)
    assert wire.queue_peak < wire.rate * wire.rtt_ms
    assert filler.control.rtt_least_ms < wire.rtt_ms + 1, "it sees the empty path again and again"


def test_jitter_of_the_ends_is_not_taken_for_a_queue() -> None:
    world, wire = path(5000)
    wire.jitter_ms = 5
    filler = Filler(wire)
    world.run(500)
    assert rate_of(world, filler, 1) > 4000


def test_two_share_evenly_even_when_one_comes_later() -> None:
    world, wire = path(2000, loss=0.02)
    first, second = Filler(wire), Filler(wire, begins_ms=1000)
    world.run(3000)
    before = first.arrived, second.arrived
    world.run(9000)
    got = [filler.arrived - was for filler, was in zip((first, second), before, strict=True)]
    assert 0.75 < got[0] / got[1] < 1.33
    assert sum(got) / 6000 > 0.9 * wire.rate * 0.98


def test_it_follows_a_path_whose_rate_halves_and_comes_back() -> None:
    world, wire = path(4000, loss=0.02)
    filler = Filler(wire)
    world.run(2000)
    wire.rate = 2000
    assert rate_of(world, filler, 1) > 1800
    assert wire.dropped == 0
    world.run(4000)
    wire.queue_peak = 0
    assert rate_of(world, filler, 1) > 1800
    assert wire.queue_peak < 2000 * 30
    wire.rate = 4000
    world.run(6000)
    assert rate_of(world, filler, 1) > 3400


def test_it_comes_back_after_silence_and_after_the_path_grew_longer() -> None:
    world, wire = path(2000)
    filler = Filler(wire)
    world.run(1000)
    wire.loss = 1.0
    world.run(2000)
    assert filler.control.window_bytes == WINDOW_FRAMES_MIN * FRAME, "into silence it sends little"
    wire.loss, wire.rtt_ms = 0.0, 60.0
    world.run(6000)
    assert rate_of(world, filler, 2) > 1700


@pytest.mark.parametrize(("frames", "share"), [(2, 0.2), (5, 0.4)])
def test_a_buffer_too_short_to_be_seen_does_not_drive_it_up_for_ever(frames: int, share: float) -> None:
    world, wire = path(2000, buffer=frames * FRAME + 100)
    filler = Filler(wire)
    world.run(5000)
    assert filler.in_flight_peak < 5 * wire.rate * wire.rtt_ms
    assert filler.arrived / 5000 > share * wire.rate


def test_a_path_that_became_much_faster_is_soon_filled() -> None:
    world, wire = path(500, 100, loss=0.02)
    filler = Filler(wire)
    world.run(3000)
    wire.rate = 6000
    assert rate_of(world, filler, 2) > 2500


def test_never_more_than_the_bound_is_under_way() -> None:
    world, wire = path(1_000_000, 200, buffer=1 << 30)
    filler = Filler(wire, window_frames_max=160)
    world.run(1000)
    assert filler.in_flight_peak == 160 * FRAME


def test_its_bounds_follow_the_length_of_a_frame() -> None:
    control = Controller(1200, window_frames_max=100)
    control.on_frame_bytes(9000)
    assert control.window_bytes == WINDOW_FRAMES_MIN * 9000
    for number in range(1000):
        control.on_sent(number, number, 9000)
    control.on_acked(1020, range(1000))
    assert control.window_bytes == 100 * 9000
    control.on_frame_bytes(1200)
    assert control.window_bytes == 100 * 1200


def test_who_sends_little_does_not_earn_a_large_window() -> None:
    control = Controller(FRAME)
    for number in range(1000):
        control.on_sent(number * 20.0, number, FRAME)
        control.on_acked(number * 20.0 + 20, [number])
    assert control.window_bytes <= 10 * FRAME


def test_frames_leave_evenly_and_no_more_than_a_burst_after_a_pause() -> None:
    control = Controller(FRAME)
    for number in range(10):
        control.on_sent(0, number, FRAME)
    control.on_acked(20, range(10))
    burst = 0
    while control.can_send(1000, FRAME):
        control.on_sent(1000, 10 + burst, FRAME)
        burst += 1
    assert 10 <= burst <= 11
    due = control.next_send_ms(1000, FRAME)
    assert 1000 < due < 1001
    assert control.can_send(due, FRAME)


def test_what_the_other_side_held_back_is_no_queue() -> None:
    control = Controller(FRAME)
    control.on_sent(0, 1, FRAME)
    control.on_acked(50, [1], delay_ms=20)
    assert control.rtt_ms == 30
    control.on_sent(100, 2, FRAME)
    control.on_acked(120, [2], delay_ms=10_000)
    assert control.rtt_least_ms == 10, "who claims too much is believed half"


def test_numbers_rise_and_count_once() -> None:
    control = Controller(FRAME)
    control.on_sent(0, 5, FRAME)
    with pytest.raises(ValueError, match="numbers rise"):
        control.on_sent(0, 5, FRAME)
    control.on_acked(10, [5, 5, 99])
    control.on_lost(10, [5])
    assert control.in_flight_bytes == 0


def test_the_least_of_a_span_forgets_what_is_older() -> None:
    least = LeastOf(10)
    for now, sample in ((0, 5.0), (1, 9.0), (6, 7.0)):
        least.add(now, sample)
    assert least.least == 5
    least.add(12, 8)
    assert least.least == 7
    least.add(50, 11)
    assert least.least == 11


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["send", "ack", "lose", "wait", "frame"]),
        st.integers(0, 40),
        st.floats(0, 5000, allow_nan=False),
    ),
    max_size=80,
)


@given(STEPS, st.integers(64, 9000))
def test_it_is_never_stuck(steps: list[tuple[str, int, float]], frame_bytes: int) -> None:
    """Whatever was acked and lost, and however the clock jumped: what is under way stays bounded, and once it is
    acked or lost the next frame may leave, or the controller says when."""
    control, now_ms, numbers = Controller(frame_bytes, window_frames_max=200), 1e9, count()
    under_way: list[int] = []
    for kind, some, wait_ms in steps:
        if kind == "send":
            for _ in range(some):
                if control.can_send(now_ms, frame_bytes):
                    under_way.append(next(numbers))
                    control.on_sent(now_ms, under_way[-1], frame_bytes)
        elif kind in ("ack", "lose"):
            gone, under_way = under_way[:some], under_way[some:]
            (control.on_acked if kind == "ack" else control.on_lost)(now_ms, gone)
        elif kind == "frame":
            control.on_frame_bytes(frame_bytes)
        else:
            now_ms += wait_ms
        assert control.in_flight_bytes == len(under_way) * frame_bytes <= 200 * frame_bytes
        assert WINDOW_FRAMES_MIN * frame_bytes <= control.window_bytes
        due_ms = control.next_send_ms(now_ms, frame_bytes)
        assert due_ms == now_ms or due_ms > now_ms
        if due_ms < math.inf:
            assert control.can_send(due_ms + 1, frame_bytes)
    control.on_lost(now_ms, under_way)
    assert control.can_send(now_ms, frame_bytes)
