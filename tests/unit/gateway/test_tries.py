"""What guessing costs an address, to the millisecond."""

from __future__ import annotations

import pytest

from offgrid_node.gateway.tries import ADDRESSES_MAX, TRIES_MAX, TRY_BACK_MS, Tries

HERE, THERE, NOW_MS = "192.0.2.1", "192.0.2.2", 5 * TRY_BACK_MS


def used_up(peer: str = HERE, now_ms: int = NOW_MS) -> Tries:
    tries = Tries()
    for _ in range(TRIES_MAX):
        assert tries.wait_ms(peer, now_ms) == 0
        tries.count_wrong(peer, now_ms)
    return tries


def test_after_the_last_one_there_is_exactly_so_long_to_wait_for_one_more() -> None:
    tries = used_up()
    assert tries.wait_ms(HERE, NOW_MS) == TRY_BACK_MS
    assert tries.wait_ms(HERE, NOW_MS + TRY_BACK_MS - 1) == 1
    back_ms = NOW_MS + TRY_BACK_MS
    assert tries.wait_ms(HERE, back_ms) == 0
    tries.count_wrong(HERE, back_ms)
    assert tries.wait_ms(HERE, back_ms + 1) == TRY_BACK_MS - 1


def test_in_time_all_are_back_and_no_more_than_all() -> None:
    tries, later_ms = used_up(), NOW_MS + 100 * TRIES_MAX * TRY_BACK_MS
    for _ in range(TRIES_MAX):
        assert tries.wait_ms(HERE, later_ms) == 0
        tries.count_wrong(HERE, later_ms)
    assert tries.wait_ms(HERE, later_ms) == TRY_BACK_MS


def test_wrong_ones_while_it_waits_make_it_wait_no_longer() -> None:
    tries = used_up()
    tries.count_wrong(HERE, NOW_MS + 1)
    assert tries.wait_ms(HERE, NOW_MS + TRY_BACK_MS) == 0


def test_whose_last_it_was_is_told_once_until_all_are_back() -> None:
    told: list[str] = []
    tries = Tries(told.append)

    def guess(times: int, now_ms: int) -> None:
        for _ in range(times):
            tries.count_wrong(HERE, now_ms)

    guess(TRIES_MAX + 3, NOW_MS)
    assert told == [HERE]
    for back in range(1, 100):  # it goes on guessing as fast as it may
        guess(1, NOW_MS + back * TRY_BACK_MS)
    guess(TRIES_MAX - 1, all_but_one_ms := NOW_MS + (99 + TRIES_MAX - 1) * TRY_BACK_MS)
    assert told == [HERE]
    guess(TRIES_MAX, all_but_one_ms + TRIES_MAX * TRY_BACK_MS)
    assert told == [HERE, HERE]


def test_the_address_that_tried_the_longest_ago_is_forgotten_when_there_are_too_many() -> None:
    tries = used_up()
    for number in range(ADDRESSES_MAX - 1):
        tries.count_wrong(f"198.51.{number // 256}.{number % 256}", NOW_MS)
    assert tries.wait_ms(HERE, NOW_MS) == TRY_BACK_MS
    tries.count_wrong(THERE, NOW_MS)
    assert tries.wait_ms(HERE, NOW_MS) == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (HERE, THERE, False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        (f"::ffff:{HERE}", HERE, True),
        ("a socket", "another", False),
    ],
)
def test_what_counts_as_one_address(one: str, other: str, same: bool) -> None:
    assert bool(used_up(one).wait_ms(other, NOW_MS)) is same
