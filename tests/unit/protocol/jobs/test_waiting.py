"""Orders that wait at brokers: each is said again in its turn, and a long queue costs no more than a short one."""

from __future__ import annotations

from offgrid_node.protocol.jobs.waiting import POLL_MS, Waiting


def waiting(count: int) -> Waiting:
    waiting = Waiting(round_max=3)
    for number in range(count):
        waiting.add("broker", f"j-{number}", 0)
    return waiting


def test_each_is_said_again_in_its_turn_a_few_per_round() -> None:
    queue, said = waiting(7), []
    for round_ in range(1, 4):
        assert queue.deadline_ms() == round_ * POLL_MS
        said.append(queue.take_due(round_ * POLL_MS))
    assert said == [["j-0", "j-1", "j-2"], ["j-3", "j-4", "j-5"], ["j-6", "j-0", "j-1"]]


def test_who_has_left_is_not_said_and_nobody_waits_for_nothing() -> None:
    queue = waiting(2)
    queue.discard("broker", "j-0")
    queue.discard("other", "j-1")
    assert queue.take_due(POLL_MS) == ["j-1"]
    queue.discard("broker", "j-1")
    assert queue.deadline_ms() is None


def test_after_a_gap_has_shown_the_next_round_begins_at_once() -> None:
    queue = waiting(5)
    queue.take_due(POLL_MS)
    queue.hurry("broker", POLL_MS + 10)
    assert queue.take_due(POLL_MS + 10) == ["j-3", "j-4", "j-0"]
    assert queue.deadline_ms() == 2 * POLL_MS + 10
