"""Attempts that are over: told along with the next orders, after a moment, or at once where orders wait."""

from __future__ import annotations

import pytest

from offgrid_node.protocol.jobs.closing import BROKEN, CALLS_MAX, EXCUSED, OVER_MAX, PATIENCE_MS, Closing, Over


@pytest.fixture
def closing() -> Closing:
    closing = Closing(items_max=2)
    closing.add("broker", ("j-1", 1), 0)
    closing.add("other", ("j-2", 1), 5)
    return closing


def test_what_goes_along_with_a_call_needs_none_of_its_own(closing: Closing) -> None:
    assert closing.take("broker") == [Over("j-1", 1)]
    assert list(closing.take_due(PATIENCE_MS)) == [("other", [Over("j-2", 1)])]
    assert closing.due_ms is None


def test_nothing_waits_longer_than_a_moment(closing: Closing) -> None:
    assert closing.due_ms == PATIENCE_MS
    assert list(closing.take_due(PATIENCE_MS - 1)) == []
    assert sorted(closing.take_due(PATIENCE_MS)) == [("broker", [Over("j-1", 1)]), ("other", [Over("j-2", 1)])]


def test_a_broker_at_which_orders_wait_is_told_at_once(closing: Closing) -> None:
    closing.heard("broker", 1)
    assert list(closing.take_due(1)) == [("broker", [Over("j-1", 1)])]
    closing.add("broker", ("j-3", 1), 2)
    assert list(closing.take_due(2)) == [("broker", [Over("j-3", 1)])]
    closing.heard("broker", 0)
    closing.add("broker", ("j-4", 1), 3)
    assert list(closing.take_due(3)) == []


def test_a_call_takes_no_more_than_its_bound(closing: Closing) -> None:
    for number in range(3, 6):
        closing.add("broker", (f"j-{number}", 1), 6)
    assert closing.take("broker") == [Over("j-1", 1), Over("j-3", 1)]
    assert [keys for _, keys in closing.take_due(PATIENCE_MS)] == [[Over("j-4", 1), Over("j-5", 1)], [Over("j-2", 1)]]


def test_a_broker_is_told_how_an_attempt_went_and_that_nobody_is_to_blame_unless_it_is_said() -> None:
    closing = Closing(items_max=2)
    closing.add("broker", ("j-1", 1), 0, BROKEN)
    closing.add("broker", ("j-2", 1), 0)
    assert [over.end for over in closing.take("broker")] == [BROKEN, EXCUSED]


def test_a_step_makes_no_more_calls_to_a_node_than_its_bound_and_the_rest_waits_a_moment() -> None:
    closing = Closing(items_max=2)
    for number in range(2 * CALLS_MAX + 3):
        closing.add("broker", (f"j-{number}", 1), 0)
    closing.add("other", ("j-o", 1), 0)
    first = list(closing.take_due(PATIENCE_MS))
    assert [node for node, _ in first] == ["broker"] * CALLS_MAX + ["other"]
    assert list(closing.take_due(PATIENCE_MS)) == []
    assert closing.due_ms == 2 * PATIENCE_MS
    rest = list(closing.take_due(2 * PATIENCE_MS))
    told = [over.job_id for node, some in first + rest if node == "broker" for over in some]
    assert told == [f"j-{number}" for number in range(2 * CALLS_MAX + 3)]
    assert closing.due_ms is None


def test_of_more_than_a_node_can_have_the_oldest_are_lost() -> None:
    closing = Closing(items_max=2)
    for number in range(OVER_MAX + 1):
        closing.add("broker", (f"j-{number}", 1), 0)
    assert closing.take("broker") == [Over("j-1", 1), Over("j-2", 1)]
