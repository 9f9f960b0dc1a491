"""How much is under way from one host: by what came, and when."""

from __future__ import annotations

import pytest

from offgrid_node.protocol.objects.congestion import (
    FORGOTTEN_MS,
    PATIENT_MS,
    PIECE_MAX,
    PIECE_MIN,
    QUICK_MS,
    SLOWEST_BYTES_PER_S,
    WINDOW_FIRST,
    WINDOW_MAX,
    WINDOW_MIN,
    Congestion,
)


def carried(
    bytes_per_s: int, rounds: int = 40, *, each_ms: int = 0, began: Congestion | None = None, at_once: int = 0
) -> Congestion:
    """A window after as many rounds of a road, on which each piece takes `each_ms` beside its bytes; `at_once` are
    wanted together, or as many as fit."""
    held, now_ms = began or Congestion(0), began.heard_ms if began else 0
    for _ in range(rounds):
        pieces = [held.piece_bytes] * (at_once or held.window_bytes // held.piece_bytes)
        for size in pieces:
            held.on_asked(size, now_ms)
        asked_ms = now_ms
        for size in pieces:
            now_ms += each_ms + size * 1_000 // bytes_per_s
            held.on_came(size, now_ms - asked_ms, now_ms)
    return held


def test_it_grows_on_a_wide_road_up_to_its_bound() -> None:
    held = carried(100_000_000)
    assert (held.window_bytes, held.piece_bytes) == (WINDOW_MAX, PIECE_MAX)


def test_on_a_narrow_road_it_holds_what_comes_within_a_moment() -> None:
    held = carried(250_000)
    assert WINDOW_MIN <= held.window_bytes <= 250_000
    assert held.bytes_per_s == pytest.approx(250_000, rel=0.1)


def test_a_machine_that_is_slow_by_the_piece_gets_larger_ones() -> None:
    assert carried(100_000_000, each_ms=600).piece_bytes >= PIECE_MAX // 2


def test_it_follows_a_road_that_becomes_narrow_and_wide_again() -> None:
    held = carried(100_000_000)
    assert carried(250_000, began=held).window_bytes <= 260_000
    assert carried(100_000_000, rounds=80, began=held).window_bytes >= WINDOW_MAX // 2


def test_it_becomes_narrow_for_who_wants_little_at_once_too() -> None:
    held = carried(250_000, began=carried(100_000_000), at_once=1)
    assert held.window_bytes <= 260_000
    assert held.bytes_per_s == pytest.approx(250_000, rel=0.1)


def test_a_road_of_which_little_is_wanted_is_not_taken_for_a_wide_one() -> None:
    assert carried(100_000_000, at_once=1).window_bytes == WINDOW_FIRST


def test_each_loss_takes_three_quarters_down_to_its_bound() -> None:
    held = carried(100_000_000)
    held.on_asked(1_000, held.heard_ms)
    held.on_lost(1_000)
    assert held.window_bytes == WINDOW_MAX // 4
    for _ in range(10):
        held.on_asked(1_000, held.heard_ms)
        held.on_lost(1_000)
    assert (held.window_bytes, held.piece_bytes, held.flying_bytes) == (WINDOW_MIN, PIECE_MIN, 0)


def test_one_piece_of_any_size_has_room_where_nothing_is_under_way() -> None:
    held = Congestion(0)
    assert held.has_room(PIECE_MAX)
    held.on_asked(WINDOW_FIRST, 0)
    assert not held.has_room(1)


def test_what_was_known_a_minute_ago_is_forgotten() -> None:
    held = carried(100_000_000)
    held.on_asked(1, held.heard_ms + FORGOTTEN_MS + 1)
    assert (held.window_bytes, held.bytes_per_s) == (WINDOW_FIRST, 0)


def test_a_piece_may_take_longer_behind_others_on_a_road_that_is_known_to_be_narrow() -> None:
    held = carried(250_000)
    alone_ms = held.patience_ms(50_000, patient=False)
    held.on_asked(100_000, held.heard_ms)
    assert QUICK_MS + 200 < alone_ms < held.patience_ms(50_000, patient=False)


def test_patience_is_bounded_at_any_pace() -> None:
    for held in (Congestion(0), carried(1_000, rounds=2), carried(100_000_000)):
        most = PATIENT_MS + 8 * (held.window_bytes + PIECE_MAX) * 1_000 // SLOWEST_BYTES_PER_S
        assert held.patience_ms(held.piece_bytes, patient=False) < held.patience_ms(held.piece_bytes, patient=True)
        assert held.patience_ms(held.piece_bytes, patient=True) <= most
    assert Congestion(0).patience_ms(Congestion(0).piece_bytes, patient=True) <= 15_000


def test_it_stalls_when_nothing_comes_for_longer_than_it_should_take() -> None:
    held = carried(250_000)
    held.on_asked(100_000, held.heard_ms)
    assert not held.stalls(held.heard_ms + 1_000, 300)
    assert held.stalls(held.heard_ms + 1_200, 300)
