"""A node that is slow itself is slow to call others dead: on a busy machine its peers are late as well, and live."""

from __future__ import annotations

from random import Random

import pytest

from offgrid_node.protocol.mesh.swim import DEAD, LAG_FACTOR, Swim

INTERVAL_MS, SUSPICION_MS = 1_000, 2_300


def judge(*late_ms: int) -> tuple[Swim, int]:
    """A node whose ticks came so late, one after the other, and the time of the last one."""
    swim, rng, due_ms = Swim("me", 1, INTERVAL_MS, 0), Random(1), 0
    swim.watch("it", 0)
    for late in late_ms:
        swim.heard("it", 1 << 20, due_ms)
        swim.tick(due_ms + late, rng)
        due_ms = swim.deadline_ms()
    return swim, due_ms - INTERVAL_MS


def dead_after_ms(swim: Swim, since_ms: int, *, refused: bool = False) -> int:
    swim.silent("it", since_ms, refused=refused)
    for now_ms in range(since_ms, since_ms + 20_000, 10):
        swim.tick(now_ms, Random(1))
        if swim.liveness("it") == DEAD:
            return now_ms - since_ms
    return -1


@pytest.mark.parametrize("late_ms", [0, 5, 49])
def test_one_that_is_in_time_takes_no_longer(late_ms: int) -> None:
    assert dead_after_ms(*judge(late_ms)) == SUSPICION_MS


@pytest.mark.parametrize("late_ms", [50, 400, 1_000])
def test_one_that_is_late_waits_so_much_longer(late_ms: int) -> None:
    assert dead_after_ms(*judge(late_ms)) == SUSPICION_MS + LAG_FACTOR * late_ms


def test_the_latest_of_late_counts_for_most() -> None:
    assert dead_after_ms(*judge(800, 0, 400)) == SUSPICION_MS + LAG_FACTOR * 450


def test_after_a_while_in_time_nothing_is_left_of_it() -> None:
    assert dead_after_ms(*judge(800, *([0] * 30))) == SUSPICION_MS


def test_who_is_surely_gone_gets_no_more_time_for_it() -> None:
    assert dead_after_ms(*judge(800), refused=True) == INTERVAL_MS // 2
