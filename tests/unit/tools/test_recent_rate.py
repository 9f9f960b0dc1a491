"""The rate that a bar shows: what came, by the time in which it came."""

from __future__ import annotations

from offgrid_tools.cli.bars import RATE_S, Recent


def test_the_first_second_tells_nothing() -> None:
    rate = Recent()
    assert rate.per_s(0) is None
    rate.on_done(0, 0)
    rate.on_done(1_000, 0.5)
    assert rate.per_s(0.9) is None


def test_what_comes_after_a_long_silence_is_no_burst() -> None:
    rate = Recent()
    rate.on_done(0, 0)
    rate.on_done(1_000, 8)
    rate.on_done(2_000, 8.01)
    assert rate.per_s(8.02) == 2_000 / 8.02


def test_it_is_that_of_the_last_seconds() -> None:
    rate = Recent()
    for second in range(101):
        rate.on_done(min(second, 95) * 1_000, second)
    assert rate.per_s(100) == 500
    assert rate.per_s(100 + RATE_S) == 0, "nothing comes any more"


def test_what_was_here_before_has_not_come() -> None:
    rate = Recent()
    rate.on_done(1_000_000, 0)
    rate.on_done(1_001_000, 2)
    assert rate.per_s(2) == 500


def test_many_small_steps_are_no_many_points() -> None:
    rate = Recent()
    for step in range(10_001):
        rate.on_done(step, step / 1_000)
    assert len(rate._points) < 100
    assert rate.per_s(10) == 1_000
