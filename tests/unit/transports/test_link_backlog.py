"""What waits for a frame: the most urgent first, in turn where that is equal, and copies before all."""

from __future__ import annotations

from offgrid_transports.backlog import Backlog
from offgrid_transports.messages import Message
from offgrid_transports.outgoing import Outgoing
from offgrid_transports.transport import Priority

ROOM, ASKING = 100, 2


def message(call: int, size: int, priority: Priority = Priority.JOB) -> Outgoing:
    return Outgoing(request=True, call=call, message=Message(0, bytes(size - 1)), priority=priority)


def taken(backlog: Backlog, *, asks: bool = False) -> list[tuple[int, int]]:
    """(call, bytes of the record) of each frame."""
    found = []
    while (record := backlog.take(ROOM, ASKING, asks=asks)) is not None:
        found.append((record[1].call, len(record[0])))
    return found


def test_the_most_urgent_goes_first_and_equals_take_turns() -> None:
    backlog = Backlog()
    for one in (message(1, 150), message(2, 150), message(3, 10, Priority.CONTROL)):
        backlog.add(one)
    assert backlog.urgency is Priority.CONTROL
    assert [call for call, _ in taken(backlog)] == [3, 1, 2, 1, 2]
    assert not backlog
    assert (backlog.urgency, backlog.waiting_bytes) == (None, 0)


def test_room_is_left_for_a_question_by_pieces_and_by_all_where_it_is_asked_for() -> None:
    for asks, longest in ((False, ROOM), (True, ROOM - ASKING)):
        backlog = Backlog()
        backlog.add(message(1, ROOM - 1))  # whole, it fills a frame to the last byte
        assert max(length for _, length in taken(backlog, asks=asks)) <= longest
        backlog.add(message(2, 300))
        assert max(length for _, length in taken(backlog, asks=asks)) <= ROOM - ASKING
    backlog = Backlog()
    backlog.add(message(1, ROOM - 1))
    assert taken(backlog) == [(1, ROOM)]


def test_what_was_lost_goes_before_what_waits_and_a_copy_before_both() -> None:
    backlog, lost, copied = Backlog(), message(1, 10), message(2, 10)
    spans = {}
    for one in (lost, copied):
        backlog.add(one)
        record = backlog.take(ROOM, ASKING, asks=False)
        assert record is not None
        spans[one.call] = record[2]
    backlog.add(message(3, 10))
    backlog.lost(lost, spans[1])
    backlog.copy([(copied, spans[2])])
    assert backlog.copies == 1
    assert [call for call, _ in taken(backlog)] == [2, 1, 3]


def test_a_copy_that_nobody_wants_any_more_is_left_out() -> None:
    backlog, one = Backlog(), message(1, 10)
    backlog.add(one)
    record = backlog.take(ROOM, ASKING, asks=False)
    assert record is not None
    one.done = True
    backlog.copy([(one, record[2])])
    assert taken(backlog) == []
