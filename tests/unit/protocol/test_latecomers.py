"""A call that arrives after what was said later is refused, and nobody is shut out for long."""

from __future__ import annotations

import pytest

from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.errors import FailedPrecondition
from offgrid_node.protocol.latecomers import ON_ITS_WAY_MS_MAX, Latecomers, next_life
from offgrid_node.protocol.objects.lives import LIFE_MAX


def late(*calls: tuple[int, int], every_ms: int = 0) -> list[bool]:
    """Whether each of one caller's is, as they arrive: its life and number."""
    latecomers, found = Latecomers(), list[bool]()
    for count, call in enumerate(calls):
        try:
            latecomers.check("caller", *call, now_ms=count * every_ms)
            found.append(False)
        except FailedPrecondition:
            found.append(True)
    return found


def test_in_order_or_once_more_none_is_late() -> None:
    assert late((7, 1), (7, 2), (7, 2), (7, 5)) == [False] * 4


def test_a_lower_number_is_late_however_often_it_comes() -> None:
    assert late((7, 2), (7, 1), (7, 1), (7, 2)) == [False, True, True, False]


def test_the_next_life_begins_anew_and_the_one_before_is_over() -> None:
    assert late((7, 9), (8, 1), (7, 10), (8, 2)) == [False, False, True, False]


def test_a_former_life_of_which_nothing_was_heard_is_as_late() -> None:
    assert late((8, 1), (7, 10), (8, 1)) == [False, True, False]


def test_one_put_back_from_a_backup_is_heeded_once_nothing_newer_can_be_on_its_way() -> None:
    assert late((8, 5), (8, 3), (7, 1), (7, 2), every_ms=ON_ITS_WAY_MS_MAX) == [False, True, False, False]


def test_a_life_is_numbered_above_the_last_one_whatever_the_clock_says() -> None:
    assert next_life(0, 0, Now(0, 50_000)) == 50
    assert next_life(50, 0, Now(0, 60_000)) == 60
    assert next_life(50, 0, Now(0, 20_000)) == 51


def test_who_was_restored_is_above_all_that_it_said_before_whatever_the_clock_says() -> None:
    late_clock = next_life(0, 0, Now(0, 2**57))
    assert next_life(0, 2, Now(0, 0)) > late_clock
    assert next_life(2**63, LIFE_MAX, Now(0, 2**57)) < 2**64


def test_callers_are_counted_apart() -> None:
    latecomers = Latecomers()
    latecomers.check("one", 7, 5, 0)
    latecomers.check("other", 7, 1, 0)
    with pytest.raises(FailedPrecondition, match="one has said newer things"):
        latecomers.check("one", 7, 1, 0)


def test_one_that_does_not_say_is_never_late_and_changes_nothing() -> None:
    assert late((7, 5), (0, 0), (7, 6), (7, 5)) == [False, False, False, True]
