"""No window of any length of the rules ever holds more than they allow, checked against one that looks at them all."""

from __future__ import annotations

from random import Random

import pytest
from lora_world import EU, World

from offgrid_tools.soak.duty import fullest_us, soak_duty
from offgrid_transports.lora.duty import NEVER, SHARES_PERCENT, Duty
from offgrid_transports.lora.regions import Limit
from offgrid_transports.transport import Priority, duty_share

S = 1_000_000
HOUR = Limit(3600 * S, 36 * S)


def sent_at_random(seed: int, limit: Limit, frames: int, *, slow_modem: bool) -> tuple[list[tuple[int, int]], int]:
    """Frames that are handed over as soon as may be or at bad moments; the modem sends each when it likes."""
    rng, duty = Random(seed), Duty([limit])
    now_us = free_us = refused = 0
    sent: list[tuple[int, int]] = []
    open_ends: list[int] = []
    while len(sent) < frames:
        air_us = rng.choice((1, 41_216, 164_864, 415_232, rng.randint(1, limit.used_us)))
        priority = rng.choice(list(Priority))
        step = rng.choice(("now", "earliest", "later", "settle"))
        if step == "later":
            now_us += rng.choice((1, rng.randint(0, 5 * S), rng.randint(0, limit.window_us)))
        if open_ends and (step == "settle" or not slow_modem):
            now_us = max(now_us, open_ends[-1])
            duty.settle(len(open_ends), now_us + rng.choice((0, 0, 20_000)))
            open_ends.clear()
        if step == "earliest":
            earliest_us = duty.earliest_us(now_us, air_us, priority)
            if earliest_us == NEVER:
                continue
            if earliest_us > now_us:
                assert not duty.may_send(earliest_us - 1, air_us, priority)
            now_us = earliest_us
            assert duty.may_send(now_us, air_us, priority)
        if not duty.may_send(now_us, air_us, priority):
            refused += 1
            continue
        duty.begin(now_us, air_us, priority, "x")
        start_us = max(now_us, free_us) + (rng.choice((0, rng.randint(0, 600 * S))) if slow_modem else 0)
        free_us = start_us + air_us
        sent.append((start_us, free_us))
        open_ends.append(free_us)
    return sent, refused


@pytest.mark.parametrize("slow_modem", [False, True])
@pytest.mark.parametrize("limit", [HOUR, Limit(20 * S, 400_000), Limit(3600 * S, 3_600_000)])
def test_no_window_holds_more_than_is_allowed(limit: Limit, slow_modem: bool) -> None:
    for seed in range(5):
        sent, refused = sent_at_random(seed, limit, 400, slow_modem=slow_modem)
        assert fullest_us(sent, limit.window_us) <= limit.used_us
        assert refused > 0


def test_a_window_is_used_to_the_last_microsecond() -> None:
    duty = Duty([Limit(3600 * S, 1 * S)])
    assert duty.may_send(0, S, Priority.CONTROL)
    assert not duty.may_send(0, S + 1, Priority.CONTROL)
    duty.begin(0, S, Priority.CONTROL, "")
    duty.settle(1, S)
    assert duty.earliest_us(S, S, Priority.CONTROL) == 3600 * S
    assert not duty.may_send(3600 * S - 1, S, Priority.CONTROL)
    assert duty.may_send(3600 * S, S, Priority.CONTROL)
    assert duty.earliest_us(S, 1000, Priority.CONTROL) == 3600 * S, "the second window would hold 1000 µs too much"


def test_a_bucket_would_let_twice_as_much_through_and_this_does_not() -> None:
    duty, sent_us = Duty([HOUR]), 0
    for now_us in (3599 * S, 3601 * S):
        while duty.may_send(now_us, 400_000, Priority.CONTROL):
            duty.begin(now_us, 400_000, Priority.CONTROL, "")
            now_us, sent_us = now_us + 400_000, sent_us + 400_000
            duty.settle(1, now_us)
    assert sent_us == HOUR.used_us


def test_a_frame_of_which_nothing_is_known_counts_until_something_is() -> None:
    duty = Duty([Limit(3600 * S, S)])
    duty.begin(0, S, Priority.CONTROL, "")
    assert duty.open_us == S
    assert not duty.may_send(100_000 * S, 1, Priority.CONTROL)
    assert duty.earliest_us(100_000 * S, 1, Priority.CONTROL) == NEVER
    duty.settle_all(100_000 * S)
    assert duty.earliest_us(100_000 * S, S, Priority.CONTROL) == 103_599 * S, "it ends where the window begins"


def test_what_was_dropped_says_nothing_of_when_the_frame_before_it_ended() -> None:
    duty = Duty([Limit(100 * S, 10 * S)])
    duty.begin(0, 5 * S, Priority.CONTROL, "")
    duty.begin(0, 5 * S, Priority.CONTROL, "")
    duty.settle_all(20 * S)
    assert not duty.may_send(110 * S, 5 * S, Priority.CONTROL)
    duty = Duty([Limit(100 * S, 10 * S)])
    duty.begin(0, 5 * S, Priority.CONTROL, "")
    duty.begin(0, 5 * S, Priority.CONTROL, "")
    duty.settle(2, 20 * S)  # both were on the air: the first had ended by 15
    assert duty.may_send(110 * S, 5 * S, Priority.CONTROL)


def test_a_share_is_kept_for_what_cannot_wait() -> None:
    duty = Duty([HOUR])
    filled = {}
    for priority in reversed(Priority):
        while duty.may_send(0, 100_000, priority):
            duty.begin(0, 100_000, priority, f"peer {priority}")
        filled[priority] = HOUR.used_us - duty.windows[0].total_us
    assert filled == {Priority.BULK: 7_200_000, Priority.JOB: 3_600_000, Priority.PAYMENT: 0, Priority.CONTROL: 0}
    assert duty.left_us(0, Priority.JOB) == 0
    assert duty.used_by(0)[Priority.BULK, "peer 3"] == 28_800_000
    assert duty.longest_us == HOUR.used_us * SHARES_PERCENT[Priority.BULK] // 100
    assert Duty([Limit(20 * S, 400_000)]).longest_us == 400_000, "of a dwell time nothing is kept back"


def test_all_limits_hold_at_once_and_none_means_none() -> None:
    both = Duty([Limit(10 * S, S), Limit(100 * S, 2 * S)])
    now_us = sent = 0
    while now_us < 100 * S:
        now_us = both.earliest_us(now_us, S, Priority.CONTROL)
        both.begin(now_us, S, Priority.CONTROL, "")
        both.settle(1, now_us + S)
        now_us, sent = now_us + S, sent + 1
    assert sent == 3
    free = Duty([])
    assert free.may_send(0, 10**12, Priority.BULK)
    assert (free.earliest_us(7, 1, Priority.BULK), free.left_us(0, Priority.BULK)) == (7, NEVER)


def test_a_link_says_what_the_rules_leave_it_of_all_time() -> None:
    world = World()
    assert duty_share(world.rnode("bound", band=EU.bands[1])) == pytest.approx(0.01)
    assert duty_share(world.rnode("free")) == duty_share(world.rnode("listens", band=None)) == 1.0


def test_an_earlier_run_is_recalled() -> None:
    first = Duty([HOUR])
    for number in range(80):
        first.begin(number * S, 400_000, Priority.JOB, "")
        first.settle(1, number * S + 400_000)
    second = Duty([HOUR])
    second.recall(first.settled(), 2 * S, 100 * S)
    assert second.open_us == 2 * S
    assert second.left_us(100 * S, Priority.CONTROL) == HOUR.used_us - 34 * S
    second.settle_all(101 * S)
    assert second.left_us(3690 * S, Priority.CONTROL) == HOUR.used_us - 2 * S


def test_the_one_who_looks_at_all_windows_is_right() -> None:
    rng = Random(4)
    for _ in range(50):
        edges = sorted(rng.sample(range(200), 20))
        sent = list(zip(edges[::2], edges[1::2], strict=True))
        window = rng.randint(1, 120)
        held = [sum(max(0, min(end, at + window) - max(start, at)) for start, end in sent) for at in range(-120, 201)]
        assert fullest_us(sent, window) == max(held)


def test_hours_of_bad_traffic_over_whole_links_break_no_window() -> None:
    said: list[str] = []
    assert soak_duty(1, 3, said.append, seconds=4_000) == []
    assert "3 days" in said[-1]
