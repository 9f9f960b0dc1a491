"""The mail machine by itself: what it does with what it is told, call by call."""

from __future__ import annotations

import pytest
from mail_post import ALICE, BOB, CAROL, DAVE, ERIN, HOUR_US, START_US, Post, parcel

from offgrid.v1 import mail_pb2
from offgrid_node.protocol.errors import (
    AlreadyExists,
    Exhausted,
    FailedPrecondition,
    Fault,
    NotFound,
    OutcomeUnknown,
    Unavailable,
)
from offgrid_node.protocol.mail import commands, inbox, mailbox, messages, outbox
from offgrid_node.protocol.mail.parcels import ParcelHead, read_parcel

DELIVER, DEPOSIT, DROP = "DeliverParcel", "DepositParcel", "DropParcels"
TAKEN = mail_pb2.DeliverParcelResponse()
UNTIL = mail_pb2.DepositParcelResponse(until_us=START_US + 20 * HOUR_US)


@pytest.fixture
def post() -> Post:
    return Post()


# ---- the source


def test_it_goes_to_its_destination_where_that_is_up(post: Post) -> None:
    post.up(CAROL, BOB)
    number = post.send()
    ((node, method, _),) = post.take_calls()
    assert (node, method) == (CAROL.node_id, DELIVER)
    post.answer(TAKEN)
    assert post.state(number) == "TAKEN"


def test_it_goes_to_two_mailboxes_where_its_destination_is_down(post: Post) -> None:
    post.up(BOB, DAVE)
    number = post.send()
    assert {(node, method) for node, method, _ in post.take_calls()} == {
        (BOB.node_id, DEPOSIT),
        (DAVE.node_id, DEPOSIT),
    }
    post.answer(UNTIL, 0)
    assert (post.state(number), len(post.mail(number).mailboxes)) == ("HELD", 1)
    post.answer(UNTIL, 1)
    assert len(post.mail(number).mailboxes) == 2


def test_it_goes_to_mailboxes_too_where_its_destination_seems_up_and_does_not_answer(post: Post) -> None:
    post.up(CAROL, BOB)
    post.send()
    post.take_calls()
    post.answer(OutcomeUnknown("no answer"))
    assert [(node, method) for node, method, _ in post.take_calls()] == [(BOB.node_id, DEPOSIT)]
    post.after_ms(2_100)
    assert [(node, method) for node, method, _ in post.take_calls()] == [(CAROL.node_id, DELIVER)]


def test_another_mailbox_is_asked_where_one_is_full(post: Post) -> None:
    post.up(BOB, DAVE)
    post.send()
    (full, *_), _ = post.take_calls()
    post.answer(Exhausted("full", retry_ms=600_000))
    post.up(ERIN)
    assert [node for node, _, _ in post.take_calls()] == [ERIN.node_id]
    post.after_ms(599_000)
    assert post.take_calls() == []
    post.after_ms(2_000)
    assert [node for node, _, _ in post.take_calls()] == [full]


def test_one_that_is_no_mailbox_is_not_asked_again_before_it_has_restarted(post: Post) -> None:
    post.up(BOB)
    post.send()
    post.take_calls()
    post.answer(FailedPrecondition("0 MiB", reason="NotAMailbox"))
    post.after_ms(10_000_000)
    assert post.take_calls() == []
    post.up(BOB)
    assert [method for _, method, _ in post.take_calls()] == [DEPOSIT]


def test_one_call_at_a_time_goes_to_a_peer_and_a_silent_one_is_left_alone_doubling(post: Post) -> None:
    post.up(CAROL)
    first, _ = post.send(text=b"1"), post.send(text=b"2")
    pauses = (2_000, 4_000, 8_000)
    for pause_ms in pauses:
        ((_, _, request),) = post.take_calls()
        assert isinstance(request, mail_pb2.DeliverParcelRequest)
        post.answer(Unavailable("nobody there"))
        post.after_ms(pause_ms - 10)
        assert post.take_calls() == []
        post.after_ms(10)
    assert len(post.take_calls()) == 1
    assert post.state(first) == "WAITING"


def test_a_restart_keeps_what_is_on_its_way_and_who_has_custody(post: Post) -> None:
    post.up(BOB)
    number = post.send()
    post.take_calls()
    post.answer(UNTIL)
    post.restart()
    post.up(BOB)
    assert post.take_calls() == []
    post.up(CAROL)
    assert [(node, method) for node, method, _ in post.take_calls()] == [(CAROL.node_id, DELIVER)]
    assert post.state(number) == "HELD"


def test_an_answer_ends_it_and_its_mailboxes_are_told_when_they_are_up(post: Post) -> None:
    post.up(BOB)
    number = post.send()
    post.take_calls()
    post.answer(UNTIL)
    post.down(BOB)
    assert not isinstance(post.deliver_answer(CAROL, number), Fault)
    assert (post.state(number), post.mail(number).response) == ("ANSWERED", b"yes")
    post.up(BOB)
    ((node, method, request),) = post.take_calls()
    assert isinstance(request, mail_pb2.DropParcelsRequest)
    assert (node, method, list(request.numbers)) == (BOB.node_id, DROP, [number])
    assert post.rows("mail_own") == []


def test_an_answer_by_somebody_else_is_none(post: Post) -> None:
    number = post.send()
    post.deliver_answer(DAVE, number)
    assert post.state(number) == "WAITING"


def test_without_an_answer_it_expires_and_a_late_one_counts_all_the_same(post: Post) -> None:
    number = post.send(expires_in_us=HOUR_US)
    post.after_ms(3_600_000 + 60_000)
    assert (post.state(number), post.events[-1].outcome) == ("EXPIRED", "expired")
    post.deliver_answer(CAROL, number)
    assert post.state(number) == "ANSWERED"


def test_who_has_taken_it_and_does_not_answer_gets_it_again(post: Post) -> None:
    post.up(CAROL)
    post.send()
    post.take_calls()
    post.answer(TAKEN)
    post.after_ms(599_000)
    assert post.take_calls() == []
    post.after_ms(2_000)
    assert [method for _, method, _ in post.take_calls()] == [DELIVER]


def test_numbers_rise_and_the_floor_is_the_lowest_that_is_open(post: Post) -> None:
    post.up(CAROL)
    numbers = [post.send(text=bytes([n])) for n in range(3)]
    assert numbers == sorted(set(numbers))
    post.deliver_answer(CAROL, numbers[1])
    post.send(text=b"last")
    heads = [_head(row) for _, row in post.rows("mail_own")]
    assert [head.floor for head in heads] == [numbers[0], numbers[0], numbers[0]]
    post.deliver_answer(CAROL, numbers[0])
    post.send(text=b"very last")
    assert _head(post.rows("mail_own")[-1][1]).floor == numbers[2]


def test_the_outbox_is_bounded(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "OPEN_PER_NODE_MAX", 2)
    post.send(text=b"1"), post.send(text=b"2")
    refusal = post.ask(commands.SendMail(CAROL.node_id, "m", "s", b"3", 0, "", b""))
    assert isinstance(refusal, Exhausted)
    assert refusal.reason == "OutboxFull"
    post.send(to=BOB)


def test_what_has_ended_is_forgotten_in_the_end(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "ENDED_MAX", 1)
    for number in [post.send(text=bytes([n])) for n in range(3)]:
        post.deliver_answer(CAROL, number)
    assert len(post.rows("mail_outbox")) == 1


# ---- the mailbox


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


# ---- the destination


def test_a_request_is_served_once_however_often_and_by_whomever_it_comes(post: Post) -> None:
    _, brought = parcel(BOB, ALICE, 5)
    for _ in range(3):
        assert not isinstance(post.deliver(brought), Fault)
    assert [(serve.source, serve.number, serve.late) for serve in post.serves] == [(BOB.node_id, 5, False)]


def test_its_answer_sets_out_and_a_source_that_comes_again_gets_it_again(post: Post) -> None:
    _, brought = parcel(BOB, ALICE, 5)
    post.up(BOB)
    post.deliver(brought)
    post.served(post.serves[0])
    ((node, method, request),) = post.take_calls()
    assert isinstance(request, mail_pb2.DeliverParcelRequest)
    assert (node, method, request.parcel.sealed) == (BOB.node_id, DELIVER, b"sealed answer")
    post.answer(TAKEN)
    post.deliver(brought, carrier=CAROL)  # a mailbox is late
    assert post.take_calls() == []
    post.deliver(brought, carrier=BOB)
    assert len(post.take_calls()) == 1
    assert len(post.serves) == 1


def test_what_was_not_answered_is_served_again_after_a_restart_and_once_it_failed(post: Post) -> None:
    post.deliver(parcel(BOB, ALICE, 5)[1])
    post.restart()
    assert len(post.serves) == 2
    post.served(post.serves[1], None)
    post.after_ms(1_900)
    assert len(post.serves) == 2
    post.after_ms(200)
    assert len(post.serves) == 3


def test_what_is_late_is_answered_as_that(post: Post) -> None:
    post.deliver(parcel(BOB, ALICE, 5, expires_us=START_US)[1])
    assert post.serves[0].late


def test_below_a_sources_floor_everything_is_over(post: Post) -> None:
    _, old = parcel(BOB, ALICE, 5)
    post.deliver(old)
    post.served(post.serves[0])
    post.deliver(parcel(BOB, ALICE, 9, floor=8)[1])
    assert len(post.rows("mail_seen")) == 1
    assert len(post.rows("mail_own")) == 0  # its answer is not wanted any more
    post.restart()
    assert not isinstance(post.deliver(old), Fault)
    assert [serve.number for serve in post.serves if serve.number == 5] == [5]


def test_a_number_that_comes_with_something_else_is_refused(post: Post) -> None:
    post.deliver(parcel(BOB, ALICE, 5)[1])
    refusal = post.deliver(parcel(BOB, ALICE, 5, sealed=b"other")[1])
    assert isinstance(refusal, AlreadyExists)
    assert refusal.reason == "NumberReused"


def test_a_source_that_never_raises_its_floor_fills_its_own_window(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "WINDOW_MAX", 2)
    for number in (1, 2):
        assert not isinstance(post.deliver(parcel(BOB, ALICE, number, floor=1)[1]), Fault)
    refusal = post.deliver(parcel(BOB, ALICE, 3, floor=1)[1])
    assert isinstance(refusal, Exhausted)
    assert refusal.reason == "WindowFull"
    assert not isinstance(post.deliver(parcel(DAVE, ALICE, 1)[1]), Fault)
    assert not isinstance(post.deliver(parcel(BOB, ALICE, 3, floor=2)[1]), Fault)


def test_the_window_is_bounded_in_bytes(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox, "WINDOW_BYTES_MAX", 1_000)
    assert not isinstance(post.deliver(parcel(BOB, ALICE, 1, floor=1, sealed=bytes(500))[1]), Fault)
    assert isinstance(post.deliver(parcel(BOB, ALICE, 2, floor=1, sealed=bytes(500))[1]), Exhausted)


# ---- what is large


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


def test_what_was_taken_or_is_over_is_not_wanted_and_all_else_is(post: Post) -> None:
    head, brought = parcel(BOB, ALICE, 9, floor=8)

    def wanted(number: int, sealed: bytes = b"sealed") -> bool:
        reply = post.ask(commands.OfferParcel(parcel(BOB, ALICE, number, sealed=sealed)[0]))
        assert isinstance(reply, mail_pb2.DeliverParcelResponse)
        return reply.wanted

    assert wanted(9)
    post.deliver(brought)
    assert [wanted(7), wanted(9), wanted(10)] == [False, False, True]
    assert wanted(9, b"something else")
    assert head.floor == 8


# ---- who is removed


def test_mail_for_who_is_removed_ends_and_what_it_held_others_hold(post: Post) -> None:
    post.up(BOB)
    to_carol, to_bob = post.send(), post.send(to=BOB)
    post.take_calls()
    post.answer(UNTIL)
    post.up(DAVE)
    assert [(node, method) for node, method, _ in post.take_calls()][-1] == (DAVE.node_id, DEPOSIT)
    post.answer(UNTIL, -1)
    assert set(post.mail(to_carol).mailboxes) == {BOB.node_id, DAVE.node_id}
    post.down(BOB, removed=True)
    assert (post.state(to_bob), post.state(to_carol)) == ("EXPIRED", "HELD")
    post.up(ERIN)
    assert [(node, method) for node, method, _ in post.take_calls()] == [(ERIN.node_id, DEPOSIT)]


# ---- messages


def take(post: Post, request_id: str, data: bytes = b"hello") -> mail_pb2.TakeMessageResponse | Fault:
    reply = post.ask(commands.TakeMessage(BOB.node_id, "", data, request_id))
    assert isinstance(reply, mail_pb2.TakeMessageResponse | Fault)
    return reply


def test_a_message_is_taken_once_read_and_deleted(post: Post) -> None:
    first, again = take(post, "r1"), take(post, "r1")
    assert first == again
    assert isinstance(first, mail_pb2.TakeMessageResponse)
    post.restart()
    assert post.machine.unread == 1
    read = post.ask(commands.MarkRead(first.message_id))
    assert isinstance(read, mail_pb2.ReadMessageResponse)
    assert (read.data, read.message.read) == (b"hello", True)
    assert post.machine.unread == 0
    post.ask(commands.DeleteMessage(first.message_id))
    assert post.rows("mail_data") == []
    assert isinstance(post.ask(commands.MarkRead(first.message_id)), NotFound)


def test_messages_are_bounded(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MESSAGES_MAX", 4)
    take(post, "r1")
    post.restart()
    refusal = take(post, "r2")
    assert isinstance(refusal, Exhausted)
    assert refusal.reason == "TooManyMessages"
    another = post.ask(commands.TakeMessage(CAROL.node_id, "", b"hello", "r2"))
    assert isinstance(another, mail_pb2.TakeMessageResponse)


def _head(row: bytes) -> ParcelHead:
    return read_parcel(mail_pb2.OwnParcelRow.FromString(row).parcel)
