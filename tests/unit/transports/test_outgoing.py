"""A message on its way: each byte of it waits, is under way or has arrived, whatever is lost, copied, late or anew."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_transports.gathering import MESSAGE_BYTES_MAX, Gathering, MessageTooLarge
from offgrid_transports.messages import Message, cut
from offgrid_transports.outgoing import PART_BYTES_MIN, Outgoing, Span
from offgrid_transports.records import Part, Whole, parse
from offgrid_transports.transport import Priority

ROOMS = st.integers(0, 80)


def outgoing(rest: bytes = bytes(range(200)), *, call: int = 300, flags: int = 21) -> Outgoing:
    return Outgoing(request=True, call=call, message=Message(flags, rest), priority=Priority.JOB)


def spans_of(taken: Outgoing, room: int) -> list[Span]:
    """All that waits, cut for that room."""
    spans = []
    while (piece := taken.take(room)) is not None:
        assert len(piece[0]) <= room
        spans.append(piece[1])
    return spans


class Peer:
    """Puts the records together and says what it has."""

    def __init__(self) -> None:
        self._gathering = Gathering()
        self.message: Message | None = None

    def hears(self, record: bytes) -> None:
        match parse(record):
            case [Whole(request=True, call=300) as whole]:
                self.message = Message(whole.flags, whole.rest)
            case [Part(request=True, call=300) as part]:
                held = self._gathering.add(0, "", 0, part.offset, part.data, last=part.last)
                if held.complete:
                    self.message = cut(held.message())
            case other:
                pytest.fail(f"not of this message: {other}")


@given(
    st.binary(max_size=300), st.integers(0, 31), st.lists(st.tuples(st.integers(0, 4), ROOMS), max_size=80), st.data()
)
def test_each_byte_waits_is_under_way_or_has_arrived(
    rest: bytes, flags: int, steps: list[tuple[int, int]], data: st.DataObject
) -> None:
    sent, peer = outgoing(rest, flags=flags), Peer()
    copies, arrived = dict[Span, int](), 0
    for what, room in steps:
        if what <= 1:
            if (taken := sent.take(room)) is not None:
                record, span = taken
                assert len(record) <= room
                assert copies.setdefault(span, 1) == 1, "nothing that is under way is taken again"
                if data.draw(st.booleans()):
                    peer.hears(record)
        elif copies:
            span = data.draw(st.sampled_from(sorted(copies)))
            if what == 2:
                assert sent.copy(span) is not None
                copies[span] += 1
            elif what == 3:
                sent.lost(span)
                copies[span] -= 1
                if not copies[span]:
                    del copies[span]
            else:
                sent.arrived(span)
                arrived += span.end - span.start
                del copies[span]
        under_way = sum(span.end - span.start for span in copies)
        assert sent.waiting_bytes + under_way + arrived == sent.size == len(rest) + 1
        assert sent.ready is (sent.waiting_bytes > 0)
        assert sent.done is (arrived == sent.size)


@given(st.binary(max_size=2000), st.integers(20, 400), st.integers(0, 2**32))
def test_whatever_is_lost_or_comes_twice_the_peer_has_it_once_all_has_arrived(
    rest: bytes, room: int, seed: int
) -> None:
    sent, peer, rng = outgoing(rest), Peer(), Random(seed)
    while not sent.done:
        spans = []
        while (taken := sent.take(rng.randint(20, room))) is not None:
            record, span = taken
            spans.append((record, span))
        for record, span in rng.sample(spans, len(spans)):
            if rng.random() < 0.3:
                sent.lost(span)
                if rng.random() < 0.3:  # it was only late
                    peer.hears(record)
            else:
                peer.hears(record)
                sent.arrived(span)
    assert peer.message == Message(21, rest)
    assert not sent.ready


def test_what_fits_a_frame_travels_whole_and_else_in_pieces() -> None:
    sent = outgoing(bytes(50))
    assert sent.whole_fits(53)
    assert not sent.whole_fits(52)
    record, span = sent.take(53) or (b"", Span(0, 0, 0))
    assert (len(record), span, sent.ready) == (53, Span(0, 51, 0), False)
    sent.lost(span)
    assert [(each.start, each.end) for each in spans_of(sent, 52)] == [(0, 42), (42, 51)]


def test_what_is_lost_goes_before_what_was_never_sent_and_the_earliest_first() -> None:
    sent = outgoing()
    first = [sent.take(30) for _ in range(3)]
    for taken in reversed(first):
        assert taken is not None
        sent.lost(taken[1])
    assert sent.take(30) == (first[0])


def test_a_changed_room_cuts_anew() -> None:
    sent = outgoing()
    for span in spans_of(sent, 30):
        sent.lost(span)
    assert [(span.start, span.end) for span in spans_of(sent, 110)] == [(0, 100), (100, 200), (200, 201)]
    assert sent.waiting_bytes == 0
    for span in (Span(0, 100, 0), Span(200, 201, 0)):
        sent.lost(span)
    assert [(span.start, span.end) for span in spans_of(sent, 60)] == [(0, 50), (50, 100), (200, 201)]


@pytest.mark.parametrize("room", [0, 1, 10, 10 + PART_BYTES_MIN - 1])
def test_a_frame_that_is_nearly_full_is_not_filled_with_crumbs(room: int) -> None:
    sent = outgoing()
    assert sent.take(room) is None
    assert sent.waiting_bytes == sent.size


def test_a_late_word_about_what_was_sent_again_changes_nothing() -> None:
    sent = outgoing(bytes(20))
    _, span = sent.take(100) or (b"", Span(0, 0, 0))
    sent.lost(span)
    sent.arrived(span)
    assert (sent.done, sent.waiting_bytes) == (False, 21)
    sent.take(100)
    sent.arrived(span)
    sent.lost(span)
    assert (sent.done, sent.ready, sent.copy(span)) == (True, False, None)


def test_a_copy_outlives_the_other_one() -> None:
    sent = outgoing(bytes(20))
    record, span = sent.take(100) or (b"", Span(0, 0, 0))
    assert sent.copy(span) == record
    sent.lost(span)
    assert sent.under_way(span)
    sent.arrived(span)
    assert not sent.under_way(span)
    assert sent.done


def test_of_a_message_begun_again_the_turn_before_says_nothing() -> None:
    sent = outgoing(bytes(20))
    _, before = sent.take(100) or (b"", Span(0, 0, 0))
    sent.again()
    assert sent.waiting_bytes == sent.size
    sent.arrived(before)
    sent.lost(before)
    assert (sent.done, sent.waiting_bytes) == (False, sent.size)
    _, span = sent.take(100) or (b"", Span(0, 0, 0))
    assert span == before._replace(turn=1)
    sent.arrived(span)
    assert sent.done


def test_what_nobody_wants_any_more_is_not_sent() -> None:
    sent = outgoing()
    _, span = sent.take(50) or (b"", Span(0, 0, 0))
    sent.done = True
    sent.lost(span)
    assert (sent.ready, sent.waiting_bytes, sent.take(100), sent.copy(span)) == (False, 0, None, None)


def test_a_message_that_no_peer_would_take_is_refused() -> None:
    assert outgoing(bytes(MESSAGE_BYTES_MAX - 1)).size == MESSAGE_BYTES_MAX
    with pytest.raises(MessageTooLarge, match=f"{MESSAGE_BYTES_MAX} are taken"):
        outgoing(bytes(MESSAGE_BYTES_MAX))
