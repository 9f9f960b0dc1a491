"""Where commits run: the loop waits for a quick disk alone, and neither a moment nor a disk in between changes it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_node.commit_place import INLINE_AGAIN_MS, INLINE_MAX_MS, QUICK_COMMITS, SLOW_COMMITS, STALL_MS, CommitPlace

QUICK_MS, BETWEEN_MS, SLOW_MS, STALLED_MS = 0.2, (INLINE_AGAIN_MS + INLINE_MAX_MS) / 2, 7.0, STALL_MS + 1


def after(place: CommitPlace, *commits_ms: float) -> bool:
    for commit_ms in commits_ms:
        place.took(commit_ms)
    return place.threaded


def test_a_quick_disk_is_waited_for_in_the_loop() -> None:
    assert not after(CommitPlace(threaded=False), *[QUICK_MS] * 1_000)


def test_a_few_slow_commits_among_quick_ones_are_checkpoints() -> None:
    assert not after(CommitPlace(threaded=False), *[QUICK_MS, QUICK_MS, STALL_MS] * 100)


def test_a_disk_that_has_become_slow_is_left_to_a_thread() -> None:
    place = CommitPlace(threaded=False)
    after(place, *[QUICK_MS] * QUICK_COMMITS)
    assert not after(place, *[SLOW_MS] * (SLOW_COMMITS // 2))
    assert after(place, SLOW_MS)
    assert after(place, *[QUICK_MS] * (QUICK_COMMITS - 1)), "what was before the change is no proof that it is over"


def test_a_few_slow_ones_at_the_very_start_prove_nothing() -> None:
    assert not after(CommitPlace(threaded=False), *[SLOW_MS] * (SLOW_COMMITS - 1))


def test_one_stall_is_enough() -> None:
    assert after(CommitPlace(threaded=False), STALLED_MS)


def test_it_comes_back_once_the_disk_was_quick_for_long() -> None:
    place = CommitPlace(threaded=True)
    assert after(place, *[QUICK_MS] * (QUICK_COMMITS - 1))
    assert not after(place, QUICK_MS)


def test_a_stall_in_the_thread_is_waited_out() -> None:
    place = CommitPlace(threaded=True)
    assert after(place, STALLED_MS, *[QUICK_MS] * (QUICK_COMMITS - 1))
    assert not after(place, QUICK_MS)


@pytest.mark.parametrize("threaded", [False, True])
def test_a_disk_in_between_changes_nothing(threaded: bool) -> None:
    assert after(CommitPlace(threaded=threaded), *[BETWEEN_MS] * 1_000) == threaded


@given(st.booleans(), st.lists(st.floats(0, 10_000), max_size=300))
def test_whatever_the_disk_does_it_changes_seldom(threaded: bool, commits_ms: list[float]) -> None:
    place, changes = CommitPlace(threaded=threaded), 0
    for commit_ms in commits_ms:
        before = place.threaded
        place.took(commit_ms)
        changes += place.threaded != before
    assert changes <= 2 * (len(commits_ms) // QUICK_COMMITS + 1)
