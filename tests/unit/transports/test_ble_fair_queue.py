"""A controller's few buffers among several connections."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from offgrid_transports.ble.fair_queue import FairQueue


def queue_of(buffers: int, connections: int) -> tuple[FairQueue, list[object]]:
    sent: list[object] = []
    queue = FairQueue(27, buffers, sent.append)
    queue.connections = lambda: connections
    return queue, sent


def test_who_is_alone_may_have_all_and_no_more() -> None:
    queue, sent = queue_of(8, 1)
    for number in range(10):
        queue.enqueue(number, 1)
    assert sent == list(range(8))
    assert queue.waits(1)
    queue.on_packets_completed(3, 1)
    assert (sent, queue.waits(1)) == (list(range(10)), False)


def test_a_connection_that_does_not_move_leaves_something_for_the_others() -> None:
    queue, sent = queue_of(8, 3)
    for number in range(20):
        queue.enqueue(("stuck", number), 1)
    for number in range(20):
        queue.enqueue(("moves", number), 2)
    while queue.waits(2):
        held = sum(name == "moves" for name, _ in sent)  # type: ignore[misc]
        assert held > 0
        queue.on_packets_completed(1, 2)
    assert [number for name, number in sent if name == "moves"] == list(range(20))  # type: ignore[misc]
    assert sum(name == "stuck" for name, _ in sent) <= 6  # type: ignore[misc]
    queue.flush(1)
    assert not queue.waits(1)


def test_connections_take_turns_and_are_told_when_something_has_left() -> None:
    queue, sent = queue_of(1, 2)
    told: list[int] = []
    queue.on_room = lambda: told.append(len(sent))
    for handle in (1, 2):
        for _ in range(3):
            queue.enqueue(handle, handle)
    for at in range(6):
        queue.on_packets_completed(1, sent[at])  # type: ignore[arg-type]
    assert sent == [1, 1, 2, 1, 2, 2]
    assert told == [2, 3, 4, 5, 6, 6]
    queue.on_packets_completed(65_535, 9)


@given(st.integers(1, 12), st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4), st.integers(0, 3)), max_size=60))
def test_never_more_than_the_buffers_in_order_and_nothing_is_forgotten(
    buffers: int, steps: list[tuple[int, int, int]]
) -> None:
    queue, sent = queue_of(buffers, 4)
    given_, done = [0] * 4, [0] * 4
    for kind, handle, count in steps:
        if kind == 0:
            queue.enqueue((handle, given_[handle - 1]), handle)
            given_[handle - 1] += 1
        elif kind == 1:
            there = sum(h == handle for h, _ in sent) - done[handle - 1]  # type: ignore[misc]
            count = min(count, there)
            queue.on_packets_completed(count, handle)
            done[handle - 1] += count
        assert len(sent) - sum(done) <= buffers
    while len(sent) > sum(done):
        for handle in range(1, 5):
            there = sum(h == handle for h, _ in sent) - done[handle - 1]  # type: ignore[misc]
            queue.on_packets_completed(there, handle)
            done[handle - 1] += there
    for handle in range(1, 5):
        assert [n for h, n in sent if h == handle] == list(range(given_[handle - 1]))  # type: ignore[misc]
