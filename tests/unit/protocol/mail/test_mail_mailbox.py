"""A mailbox by itself: what it takes, holds, hands over and drops."""

from __future__ import annotations

import pytest
from mail_post import ALICE, BOB, CAROL, DAVE, DELIVER, HOUR_US, START_US, TAKEN, Post, parcel

from offgrid.v1 import mail_pb2
from offgrid_node.protocol.errors import (
    AlreadyExists,
    Exhausted,
    FailedPrecondition,
    Fault,
    OutcomeUnknown,
)
from offgrid_node.protocol.mail import commands, mailbox


def test_a_mailbox_keeps_it_until_it_has_brought_it(post: Post) -> None:
    _, brought = parcel(BOB, CAROL, 5)
    reply = post.deposit(brought)
    assert isinstance(reply, mail_pb2.DepositParcelResponse)
    assert reply.until_us == START_US + 12 * HOUR_US
    post.restart()
    post.up(CAROL)
    ((node, method, request),) = post.take_calls()
    assert isinstance(request, mail_pb2.DeliverParcelRequest)
    assert (node, method, request.parcel) == (CAROL.node_id, DELIVER, brought)
    post.answer(OutcomeUnknown("no answer"))
    assert len(post.rows("mail_held")) == 1
    post.after_ms(2_100)
    post.take_calls()
    post.answer(TAKEN)
    assert post.rows("mail_held") == []
    assert [event.outcome for event in post.events] == ["kept", "handed over"]


def test_a_deposit_that_is_said_twice_is_one(post: Post) -> None:
    _, brought = parcel(BOB, CAROL, 5)
    assert post.deposit(brought) == post.deposit(brought)
    assert post.machine.held[0] == 1
    _, other = parcel(BOB, CAROL, 5, sealed=b"other")
    assert isinstance(post.deposit(other), AlreadyExists)


def test_it_holds_nothing_beyond_its_own_time_and_then_drops_it(post: Post) -> None:
    _, brought = parcel(BOB, CAROL, 5, expires_us=START_US + 900 * HOUR_US)
    reply = post.deposit(brought)
    assert isinstance(reply, mail_pb2.DepositParcelResponse)
    assert reply.until_us <= START_US + 24 * HOUR_US + 1_000_000
    post.after_ms(24 * 3_600_000 + 60_000)
    assert post.rows("mail_held") == []
    assert post.events[-1].outcome == "dropped"


def test_what_has_expired_is_refused(post: Post) -> None:
    _, brought = parcel(BOB, CAROL, 5, expires_us=START_US)
    refusal = post.deposit(brought)
    assert isinstance(refusal, FailedPrecondition)
    assert refusal.reason == "ParcelExpired"


def test_a_source_and_a_destination_have_a_quarter_each_and_what_is_held_stays(post: Post) -> None:
    post = Post(mailbox_bytes=8_000)
    big = bytes(1_500)
    assert not isinstance(post.deposit(parcel(BOB, CAROL, 1, sealed=big)[1]), Fault)
    for source, to in ((BOB, DAVE), (DAVE, CAROL)):
        refusal = post.deposit(parcel(source, to, 2, sealed=big)[1])
        assert isinstance(refusal, Exhausted)
        assert (refusal.reason, refusal.retry_ms) == ("MailboxFull", 600_000)
    assert not isinstance(post.deposit(parcel(DAVE, BOB, 3, sealed=big)[1]), Fault)
    assert post.machine.held[0] == 2


def test_parcels_are_counted_too(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mailbox, "PARCELS_MAX", 8)
    replies = [post.deposit(parcel(BOB, CAROL, number)[1]) for number in (1, 2, 3)]
    assert [isinstance(reply, Exhausted) for reply in replies] == [False, False, True]


def test_a_source_may_have_its_own_dropped_and_no_others(post: Post) -> None:
    post.deposit(parcel(BOB, CAROL, 1)[1])
    post.ask(commands.DropParcels(DAVE.node_id, (1,)))
    assert len(post.rows("mail_held")) == 1
    post.ask(commands.DropParcels(BOB.node_id, (1, 2)))
    assert post.rows("mail_held") == []


def test_nothing_is_held_for_who_is_removed(post: Post) -> None:
    post.deposit(parcel(BOB, CAROL, 1)[1])
    post.deposit(parcel(BOB, DAVE, 2)[1])
    post.down(CAROL, removed=True)
    assert len(post.rows("mail_held")) == 1


def test_a_large_parcel_is_offered_first_and_brought_where_it_is_wanted(post: Post) -> None:
    _, large = parcel(BOB, CAROL, 5, sealed=bytes(2_000))
    post.deposit(large)
    post.up(CAROL)
    ((_, method, offer),) = post.take_calls()
    assert isinstance(offer, mail_pb2.DeliverParcelRequest)
    assert (method, offer.parcel.head, offer.parcel.sealed) == (DELIVER, large.head, b"")
    post.answer(mail_pb2.DeliverParcelResponse(wanted=True))
    ((_, method, request),) = post.take_calls()
    assert isinstance(request, mail_pb2.DeliverParcelRequest)
    assert request.parcel == large
    post.answer(TAKEN)
    assert post.rows("mail_held") == []


def test_a_mailbox_whose_parcel_is_there_already_drops_it_unbrought(post: Post) -> None:
    post.deposit(parcel(BOB, CAROL, 5, sealed=bytes(2_000))[1])
    post.up(CAROL)
    post.take_calls()
    post.answer(TAKEN)
    assert (post.take_calls(), post.rows("mail_held")) == ([], [])


def test_what_was_taken_is_not_wanted_and_all_else_is(post: Post) -> None:
    head, brought = parcel(BOB, ALICE, 9, floor=8)

    def wanted(number: int, sealed: bytes = b"sealed") -> bool:
        reply = post.ask(commands.OfferParcel(parcel(BOB, ALICE, number, sealed=sealed)[0]))
        assert isinstance(reply, mail_pb2.DeliverParcelResponse)
        return reply.wanted

    assert wanted(9)
    post.deliver(brought)
    assert [wanted(9), wanted(10)] == [False, True]
    assert wanted(7), "below the floor of requests there may be an answer"
    assert wanted(9, b"something else")
    assert head.floor == 8
