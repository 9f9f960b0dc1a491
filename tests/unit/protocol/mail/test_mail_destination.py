"""The destination of mail by itself: what it takes, once, and how it answers; and messages for people."""

from __future__ import annotations

import pytest
from mail_post import ALICE, BOB, CAROL, DAVE, DELIVER, DEPOSIT, SALT, START_US, TAKEN, UNTIL, Post, parcel

from offgrid.v1 import mail_pb2
from offgrid_node.keys import verify
from offgrid_node.protocol.errors import (
    AlreadyExists,
    Exhausted,
    Fault,
    NotFound,
)
from offgrid_node.protocol.mail import commands, inbox, messages
from offgrid_node.protocol.mail.parcels import read_parcel, verify_parcel


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


def test_an_answer_waits_for_its_source_whatever_the_clock_says(post: Post) -> None:
    post.deliver(parcel(BOB, ALICE, 5)[1])
    post.served(post.serves[0])
    for _ in range(3):
        post.after_ms(400 * 24 * 3_600_000)
    post.restart()
    post.up(BOB)
    ((_, method, request),) = post.take_calls()
    assert isinstance(request, mail_pb2.DeliverParcelRequest)
    assert (method, request.parcel.sealed) == (DELIVER, b"sealed answer")
    assert verify_parcel(request.parcel, [ALICE.public_key], verify, SALT).expires_us > post.now.utc_us


def test_an_answer_whose_custody_is_over_is_given_to_mailboxes_again(post: Post) -> None:
    post.up(CAROL)
    post.deliver(parcel(BOB, ALICE, 5)[1])
    post.served(post.serves[0])
    assert [method for _, method, _ in post.take_calls()] == [DEPOSIT]
    post.answer(UNTIL)
    post.after_ms(25 * 3_600_000)
    ((_, method, request),) = post.take_calls()
    assert isinstance(request, mail_pb2.DepositParcelRequest)
    assert (method, read_parcel(request.parcel).expires_us > post.now.utc_us) == (DEPOSIT, True)


def test_nothing_is_remembered_of_who_is_removed(post: Post) -> None:
    post.deliver(parcel(BOB, ALICE, 5)[1])
    post.served(post.serves[0])
    post.deliver(parcel(BOB, ALICE, 6, floor=5)[1])
    post.deliver(parcel(CAROL, ALICE, 7)[1])
    post.down(BOB, removed=True)
    post.after_ms(1_000)
    tables = ("mail_seen", "mail_floors", "mail_own")
    assert [len(post.rows(table)) for table in tables] == [1, 1, 0]
    served = len(post.serves)
    post.restart()
    assert [serve.source for serve in post.serves[served:]] == [CAROL.node_id]


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
