"""Acknowledgements: on a shared medium when asked, elsewhere each so many frames; they say what came, no more."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from still_link import StillLink

from offgrid_transports.hearing import FRAMES_UNSAID_MAX, Hearing
from offgrid_transports.path import Path
from offgrid_transports.records import ACK_BITS_MAX, Ack, Poll, parse
from offgrid_transports.sealing import Opener, Sealer, Suite

RADIO = Path(StillLink(shared=True, access_ms=200), "*")
WIRE = Path(StillLink(), "peer")


class Ear:
    """The receiving end: `comes` are the counters of frames that come."""

    def __init__(self) -> None:
        self._sealer, self.opener = (end(Suite.AES_CCM_8, bytes(32)) for end in (Sealer, Opener))
        self.hearing = Hearing(self.opener)

    def comes(self, *counts: int) -> None:
        for count in counts:
            self._sealer.count = count
            self.opener.open(self._sealer.seal(b"", b""), 0)

    def ack(self, now_ms: float = 0) -> Ack:
        (ack,) = parse(self.hearing.record(now_ms))
        assert isinstance(ack, Ack)
        return ack


def test_on_a_shared_medium_nothing_is_said_unasked() -> None:
    ear = Ear()
    for count in range(100):
        ear.comes(count)
        ear.hearing.on_carrying(0, RADIO)
    assert ear.hearing.due_ms == math.inf


def test_who_asks_is_answered_at_once_about_as_many_as_it_asks_for() -> None:
    ear = Ear()
    ear.comes(0, 1, 3, 6, 7)
    ear.hearing.on_poll(50, Poll(0, 5), RADIO)
    assert ear.hearing.due_ms == 50
    assert ear.ack(60) == Ack(7, 10, 5, (2, 3, 5))
    assert ear.hearing.due_ms == math.inf


def test_where_more_follow_that_ask_the_same_those_are_waited_for() -> None:
    ear = Ear()
    ear.comes(0)
    ear.hearing.on_poll(0, Poll(1, 1), RADIO)
    assert ear.hearing.due_ms == 1 * 100 + 200, "a frame and the access before it"
    ear.comes(1)
    ear.hearing.on_poll(110, Poll(0, 2), RADIO)
    assert ear.hearing.due_ms == 110
    assert ear.ack(110) == Ack(1, 0, 1, ()), "of two counters only one lies below the newest"


def test_a_request_is_acknowledged_where_its_answer_does_not_come_first() -> None:
    ear = Ear()
    ear.comes(0, 1, 2)
    ear.hearing.on_request(0, RADIO)
    assert ear.hearing.due_ms == RADIO.ack_delay_ms
    ear.hearing.on_answer()
    assert ear.hearing.due_ms == math.inf
    ear.hearing.on_request(0, RADIO)
    assert ear.ack() == Ack(2, 0, 2, ())
    ear.comes(4)
    ear.hearing.on_request(0, RADIO)
    assert ear.ack() == Ack(4, 0, 1, (1,)), "of what was said before nothing is said again"


def test_on_other_links_word_is_given_soon_and_each_so_many_frames() -> None:
    ear = Ear()
    for count in range(FRAMES_UNSAID_MAX):
        assert ear.hearing.due_ms == (WIRE.ack_delay_ms if count else math.inf)
        ear.comes(count)
        ear.hearing.on_carrying(count / 100, WIRE)
    assert ear.hearing.due_ms == (FRAMES_UNSAID_MAX - 1) / 100
    assert ear.ack(1) == Ack(FRAMES_UNSAID_MAX - 1, 0, FRAMES_UNSAID_MAX - 1, ())


def test_the_delay_counts_from_the_newest_frame() -> None:
    ear = Ear()
    ear.comes(0)
    ear.hearing.on_carrying(0, WIRE)
    ear.hearing.on_carrying(5, WIRE)
    assert ear.ack(8).delay_ms == 3


@given(st.sets(st.integers(0, 300), min_size=1), st.sets(st.integers(0, 300)), st.integers(0, 255))
def test_an_acknowledgement_never_says_of_a_frame_what_is_not_so(
    came: set[int], forgotten: set[int], span: int
) -> None:
    ear = Ear()
    ear.comes(*came)
    for count in forgotten:
        ear.opener.forget(count)
    ear.hearing.on_poll(0, Poll(0, span), RADIO)
    ack, held = ear.ack(), came - forgotten
    assert ack.newest == max(held, default=0xFFFF)
    assert ack.span == min(span, ACK_BITS_MAX, max(held, default=0))
    for age in range(1, ack.span + 1):
        assert (age in ack.missing) is (ack.newest - age not in held)


def test_nothing_that_came_leaves_nothing_to_say() -> None:
    ear = Ear()
    ear.comes(0)
    ear.opener.forget(0)
    ear.hearing.on_poll(0, Poll(0, 9), RADIO)
    assert ear.ack() == Ack(0xFFFF, 0, 0, ()), "below the first: no frame has that counter"


@pytest.mark.parametrize("more", [0, 31])
def test_the_first_question_is_not_put_off_by_later_ones(more: int) -> None:
    ear = Ear()
    ear.comes(0)
    ear.hearing.on_poll(0, Poll(0, 0), RADIO)
    ear.hearing.on_poll(1, Poll(more, 0), RADIO)
    assert ear.hearing.due_ms == 0
