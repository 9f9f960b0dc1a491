"""Sessions on a shared medium: whatever a burst holds, its last frame that may be missed asks what came."""

from __future__ import annotations

import pytest
from still_link import StillLink

from offgrid_transports.bursts import ASKING_FRAMES, BURST_FRAMES
from offgrid_transports.messages import Message
from offgrid_transports.noise import Keys
from offgrid_transports.outgoing import Outgoing
from offgrid_transports.path import Path
from offgrid_transports.records import Part, Poll, Record, Signal, Whole, parse
from offgrid_transports.sealing import Opener, Sealer, Suite
from offgrid_transports.session import FRAME_TYPE, HEAD_BYTES, STALE_MS, Session
from offgrid_transports.transport import Priority

SENT, HEARD = b"s" * 32, b"h" * 32


def session() -> Session:
    path = Path(StillLink(shared=True, frame_bytes=100), "*")
    return Session("peer", 1, 2, Suite.AES_CCM_8, Keys(SENT, HEARD, b""), path)


def outgoing(call: int, size: int, priority: Priority = Priority.JOB, *, request: bool = True) -> Outgoing:
    return Outgoing(request=request, call=call, message=Message(0, bytes(size - 1)), priority=priority)


def frames(of: Session) -> list[list[Record]]:
    opener, found = Opener(of.suite, SENT), list[list[Record]]()
    while (frame := of.next_frame(0)) is not None:
        assert len(frame) <= 100
        found.append(parse(opener.open(frame, HEAD_BYTES)[1]))
    return found


@pytest.mark.parametrize("request_", [True, False])
@pytest.mark.parametrize("less", range(5))
def test_a_burst_with_pieces_asks_at_its_end_however_full_its_last_frame_would_be(less: int, request_: bool) -> None:
    one = session()
    one.send(outgoing(1, 150, request=request_))
    one.send(outgoing(2, one.room_bytes - 1 - less, Priority.BULK, request=request_))
    said = frames(one)
    assert any(isinstance(record, Part) for record in said[0])
    assert [record for record in said[-1] if isinstance(record, Poll)] == [Poll(0, len(said) - 1)]


def test_a_message_that_stands_alone_may_fill_its_frame_and_asks_nothing() -> None:
    one = session()
    one.send(outgoing(1, one.room_bytes - 1))
    assert [[type(record) for record in records] for records in frames(one)] == [[Whole]]


def test_after_a_burst_of_which_there_is_no_word_nothing_but_the_question_is_sent_twice() -> None:
    one = session()
    one.send(outgoing(1, 500))
    burst = len(frames(one))
    one.on_timer(one.next_ms(0))
    assert frames(one) == [[Poll(1, burst)], [Poll(0, burst + 1)]]


def test_a_burst_of_two_frames_is_sent_again() -> None:
    one = session()
    one.send(outgoing(1, 150))
    burst = frames(one)
    one.on_timer(one.next_ms(0))
    assert [records[-1] for records in frames(one)] == [records[-1] for records in burst]


def test_what_waits_carries_the_question_when_there_is_no_word() -> None:
    one = session()
    one.send(outgoing(1, 10_000))
    assert len(frames(one)) == BURST_FRAMES
    one.on_timer(one.next_ms(0))
    said = frames(one)
    assert [records[0] for records in said] == [Poll(1, BURST_FRAMES), Poll(0, BURST_FRAMES + 1)]
    assert all(isinstance(records[-1], Part) for records in said), "new pieces"


def test_a_link_that_takes_nothing_for_long_is_one_wait() -> None:
    one = session()
    one.send(outgoing(1, 10_000))
    frames(one)
    due_ms = one.next_ms(0)
    for later_ms in range(100):
        one.on_timer(due_ms + later_ms)
    assert one.silent == 1
    assert one.next_ms(due_ms + 100) == due_ms + 100, "it may leave"


def test_what_is_under_way_is_asked_for_when_nobody_wants_any_more_what_waited() -> None:
    one, long = session(), outgoing(1, 10_000)
    one.send(outgoing(2, 500))
    frames(one)
    one.send(long)
    one.on_timer(10_000)
    one.settle(10_000, long)
    assert frames(one) == []
    one.on_timer(20_000)
    assert [type(records[0]) for records in frames(one)] == [Poll, Poll]


def test_questions_of_many_calls_in_one_wait_count_once() -> None:
    one = session()
    for call in range(30):
        one.signal(Signal.PROBE, call)
    frames(one)
    assert one.silent == 1


def test_whoever_has_been_silent_for_long_is_asked_before_a_burst_is_spent_on_it() -> None:
    def sends(now_ms: float) -> int:
        one = session()
        one.on_frame(0, peer_says(one), one.path)
        one.send(outgoing(1, 50 * one.room_bytes))
        count = 0
        while one.next_frame(now_ms) is not None:
            count += 1
        return count

    assert sends(1_000) == BURST_FRAMES
    assert sends(STALE_MS + 1) == ASKING_FRAMES


def peer_says(to: Session) -> bytes:
    """A frame of its peer with nothing in it."""
    return Sealer(to.suite, HEARD).seal(bytes((FRAME_TYPE,)) + to.ours.to_bytes(2), b"")
