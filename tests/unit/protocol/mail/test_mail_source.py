"""The source of mail by itself: whom it calls, what it keeps, when it is done."""

from __future__ import annotations

import pytest
from mail_post import BOB, CAROL, DAVE, DELIVER, DEPOSIT, DROP, ERIN, HOUR_US, TAKEN, UNTIL, Post

from offgrid.v1 import mail_pb2
from offgrid_node.protocol.errors import (
    Exhausted,
    FailedPrecondition,
    Fault,
    OutcomeUnknown,
    Unavailable,
)
from offgrid_node.protocol.mail import commands, outbox
from offgrid_node.protocol.mail.parcels import ParcelHead, read_parcel


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


def test_one_mailbox_is_enough_where_only_a_slow_road_leads_to_another(post: Post) -> None:
    post.slow = {BOB, DAVE}
    post.up(BOB, DAVE)
    post.send()
    assert len(post.take_calls()) == 1
    post.answer(UNTIL)
    assert post.take_calls() == []
    post.up(ERIN)
    assert [node for node, _, _ in post.take_calls()] == [ERIN.node_id]


def test_a_mailbox_on_a_free_road_is_asked_before_one_on_a_slow_road(post: Post) -> None:
    post.slow = {BOB, DAVE}
    post.up(BOB, DAVE, ERIN)
    for text in (b"1", b"2", b"3", b"4"):
        post.send(text=text)
    assert {node for node, _, _ in post.take_calls()} == {ERIN.node_id}


def test_another_slow_mailbox_is_asked_where_the_first_has_no_room(post: Post) -> None:
    post.slow = {BOB, DAVE}
    post.up(BOB, DAVE)
    post.send()
    ((full, *_),) = post.take_calls()
    post.answer(Exhausted("full", retry_ms=600_000))
    assert {node for node, _, _ in post.take_calls()} == {BOB.node_id, DAVE.node_id} - {full}


def test_a_mailbox_that_loses_what_it_has_acked_costs_time_and_no_more(post: Post) -> None:
    post.up(BOB, DAVE)
    number = post.send()
    post.take_calls()
    post.answer(UNTIL, 0), post.answer(UNTIL, 1)  # and both forget it
    post.restart()
    post.up(CAROL)
    assert [(node, method) for node, method, _ in post.take_calls()] == [(CAROL.node_id, DELIVER)]
    post.answer(TAKEN)
    post.deliver_answer(CAROL, number)
    assert post.state(number) == "ANSWERED"


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


def _head(row: bytes) -> ParcelHead:
    return read_parcel(mail_pb2.OwnParcelRow.FromString(row).parcel)
